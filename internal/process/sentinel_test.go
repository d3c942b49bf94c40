// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/simulator"
)

// A watched is a Redis and its replica, under three Sentinels that agree on which of
// the two is the primary.
type watched struct {
	*world
	servers   map[string]*redisServer // by port
	sentinels []*redisServer
	config    []string // of both servers
}

// quiet is a time to call a primary down after that no busy machine takes: Sentinel is
// to fail over when the test says so, and not before or after.
const quiet = "60000"

// newWatched makes the store of a world one that Sentinel watches, set up and addressed
// as docs/stores.md says.
func newWatched(w *world) *watched {
	w.Helper()
	x := &watched{world: w, servers: map[string]*redisServer{}}
	first, second := fmt.Sprint(freePort(w.T)), fmt.Sprint(freePort(w.T))
	primary, replica := newRedis(w.T), newRedis(w.T)
	replica.password, w.secret = primary.password, primary.password
	x.config = []string{"appendonly yes", "appendfsync always", "min-replicas-to-write 1", "min-replicas-max-lag 1",
		"repl-diskless-sync-delay 0", "repl-ping-replica-period 1", "masterauth " + w.secret}
	primary.configure(append(x.config, "port "+first)...)
	replica.configure(append(x.config, "port "+second, "replicaof 127.0.0.1 "+first)...)
	x.servers[first], x.servers[second] = primary, replica
	primary.up()
	replica.up()

	var hosts []string
	for range 3 {
		port := freePort(w.T)
		s := newRedis(w.T)
		s.sentinel = true
		if x.sentinels != nil {
			s.password = x.sentinels[0].password
		}
		s.configure(fmt.Sprintf("port %d", port), "sentinel sentinel-pass "+s.password, "sentinel monitor main 127.0.0.1 "+first+" 2",
			"sentinel auth-pass main "+w.secret, "sentinel down-after-milliseconds main "+quiet, "sentinel failover-timeout main 3000")
		s.up()
		x.sentinels = append(x.sentinels, s)
		hosts = append(hosts, fmt.Sprintf("127.0.0.1:%d", port))
	}
	w.until("all Sentinels know each other and the replica", func() bool {
		return !slices.ContainsFunc(x.sentinels, func(s *redisServer) bool {
			return !strings.HasPrefix(s.do("SENTINEL", "CKQUORUM", "main"), "OK 3 ") ||
				!strings.Contains(s.do("SENTINEL", "REPLICAS", "main"), "master-link-status\nok")
		})
	})

	for name, password := range map[string]string{"redis": w.secret, "sentinel": x.sentinels[0].password} {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(password+"\n"), 0o600); err != nil {
			w.Fatal(err)
		}
	}
	w.env = append(w.env, fmt.Sprintf("CFTRACK_STORE=redis://%s/?sentinel=main&password_file=%s/redis&sentinel_password_file=%s/sentinel",
		strings.Join(hosts, ","), w.dir, w.dir))
	return x
}

// primary asks a Sentinel for the port of the primary.
func (x *watched) primary(of *redisServer) string {
	_, port, _ := strings.Cut(of.do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"), "\n")
	return port
}

// downAfter says how long a primary has to be silent to be called down.
func (x *watched) downAfter(ms string) {
	for _, s := range x.sentinels {
		s.do("SENTINEL", "SET", "main", "down-after-milliseconds", ms)
	}
}

// TestSentinelFailsOver kills the primary under everybody's work and has Sentinel
// promote the replica. As that is then without a replica, it takes no write until the
// dead one is back and follows it: nothing is lost, and nobody has to do anything.
func TestSentinelFailsOver(t *testing.T) {
	t.Parallel()
	var s *watched
	w := newWorld(t, 1400, backend{"sentinel", func(w *world) { s = newWatched(w) }})
	var dead string
	began := time.Now()
	x := w.work(func(*worked) *simulator.Fault {
		s.downAfter("1000")
		dead = s.primary(s.sentinels[0])
		s.servers[dead].kill()
		return nil
	})
	promoted := ""
	w.until("all Sentinels have the replica for the primary", func() bool {
		return !slices.ContainsFunc(s.sentinels, func(of *redisServer) bool {
			promoted = s.primary(of)
			return promoted == dead
		})
	}, x.inv, x.server.process)
	s.downAfter(quiet)
	t.Logf("promoted %v after the world began", time.Since(began))
	w.until("the replica takes itself for the primary", func() bool {
		return strings.HasPrefix(s.servers[promoted].do("ROLE"), "master")
	})
	if got := len(w.sim.Invalidations()); got >= len(x.paths)/10 {
		t.Errorf("all %d batches were sent before the failover: this tests nothing", got)
	}
	// Whatever runs it starts it again, and asks Sentinel whom it has to follow. (Left
	// to itself it would come back as a primary that nobody follows, which takes no
	// writes, and Sentinel would make it a replica ten seconds later.)
	s.servers[dead].configure(append(s.config, "port "+dead, "replicaof 127.0.0.1 "+promoted)...)
	s.servers[dead].up()
	w.until("the old primary follows the new one", func() bool {
		return strings.Contains(s.servers[promoted].do("INFO", "replication"), "state=online")
	}, x.inv, x.server.process)
	t.Logf("replicated again %v after the world began", time.Since(began))
	x.nothingLost()
	if now := s.primary(s.sentinels[0]); now != promoted {
		t.Errorf("the primary is %s, not the one that was promoted, %s", now, promoted)
	}
}
