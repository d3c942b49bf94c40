// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package redisstore_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/redisstore"
	"github.com/cf-invalidation-tracker/cftrack/store/storetest"
)

// until waits for another process to come to be as ok wants it.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(20 * time.Millisecond) // another process decides: there is nothing to wait on
	}
}

// cluster starts a Cluster of three primaries.
func cluster(t *testing.T) []*server {
	var nodes []*server
	create := []string{"--cluster", "create"}
	for range 3 {
		n := start(t, true, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--appendonly", "yes", "--appendfsync", "always")
		nodes = append(nodes, n)
		create = append(create, n.host())
	}
	out, err := exec.Command("redis-cli", append(create, "--cluster-yes")...).CombinedOutput()
	if err != nil {
		t.Fatalf("redis-cli --cluster create: %v: %s", err, out)
	}
	for _, n := range nodes {
		until(t, "the Cluster is up", func() bool { return strings.Contains(n.cli("cluster", "info"), "cluster_state:ok") })
	}
	return nodes
}

func TestCluster(t *testing.T) {
	nodes := cluster(t)
	address := func(query string) string {
		return "redis://" + nodes[0].host() + "," + nodes[1].host() + "/?cluster=true&" + query
	}
	killed := 0
	storetest.Run(t, harness(address, func() {
		n := nodes[killed%len(nodes)]
		killed++
		n.kill()
		n.up()
	}))

	t.Run("Slots", func(t *testing.T) {
		st := open(t, address("prefix=slots"))
		for i := range 30 {
			if err := st.Merge(t.Context(), fmt.Sprintf("{E%d}", i), many(300)); err != nil {
				t.Fatal(err)
			}
		}
		used := 0
		for _, n := range nodes {
			if strings.Contains(n.cli("--scan", "--pattern", "slots:*:index"), "index") {
				used++
			}
		}
		if used != len(nodes) {
			t.Errorf("distributions lie on %d nodes", used)
		}
		if s := status(t, st); s.Evicts != "" || !strings.Contains(s.Durable, "appendfsync") {
			t.Errorf("status %+v", s)
		}
	})

	t.Run("SlotsMove", func(t *testing.T) {
		st := open(t, address("prefix=move"))
		updates := many(3000)
		if err := st.Merge(t.Context(), "d", updates); err != nil {
			t.Fatal(err)
		}
		put(t, st, "a")
		slot := nodes[0].cli("cluster", "keyslot", "move:{d.d}:meta")
		var from, to *server
		for _, n := range nodes {
			if strings.Contains(n.cli("--scan", "--pattern", "move:{d.d}:meta"), "meta") {
				from = n
			} else {
				to = n
			}
		}
		id := func(n *server) string { return n.cli("cluster", "myid") }
		to.cli("cluster", "setslot", slot, "importing", id(from))
		from.cli("cluster", "setslot", slot, "migrating", id(to))
		moved := make(chan error, 1)
		go func() { // while it moves, calls wait
			time.Sleep(100 * time.Millisecond)
			for {
				keys := strings.Fields(from.cli("cluster", "getkeysinslot", slot, "10"))
				if len(keys) == 0 {
					break
				}
				from.cli(append([]string{"migrate", "127.0.0.1", strconv.Itoa(to.port), "", "0", "5000", "keys"}, keys...)...)
			}
			for _, n := range []*server{to, from} {
				n.cli("cluster", "setslot", slot, "node", id(to))
			}
			moved <- nil
		}()
		for range 20 {
			if err := st.Merge(t.Context(), "d", updates[:500]); err != nil {
				t.Errorf("while its slot moves: %v", err)
				break
			}
		}
		<-moved
		if got := len(paths(t, st)); got != len(updates) {
			t.Errorf("%d paths, want %d", got, len(updates))
		}
		if got := keys(t, st); !slices.Equal(got, []string{"a"}) {
			t.Errorf("documents %q", got)
		}
	})
}

func TestSentinel(t *testing.T) {
	if _, err := exec.LookPath("redis-sentinel"); err != nil {
		t.Skip("redis-sentinel is not installed")
	}
	primary := start(t, true)
	replica := start(t, true, "--replicaof", "127.0.0.1 "+strconv.Itoa(primary.port))
	until(t, "the replica follows", func() bool { return strings.Contains(replica.cli("info", "replication"), "master_link_status:up") })

	dir := t.TempDir()
	port := freePort(t)
	conf := filepath.Join(dir, "sentinel.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "port %d\nbind 127.0.0.1\ndir %s\nsentinel monitor main 127.0.0.1 %d 1\n"+
		"sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 2000\n", port, dir, primary.port), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("redis-sentinel", conf)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	sentinel := &server{tb: t, port: port, cmd: cmd}
	t.Cleanup(sentinel.kill)
	until(t, "the sentinel answers", func() bool { _, err := sentinel.ping(); return err == nil })
	until(t, "the sentinel knows the replica", func() bool {
		return strings.Contains(sentinel.cli("sentinel", "replicas", "main"), strconv.Itoa(replica.port))
	})

	st, err := redisstore.Open(fmt.Sprintf("redis://127.0.0.1:%d/?sentinel=main&timeout=20s", port), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}()
	merge(t, st, many(500)...)
	put(t, st, "a")
	until(t, "the replica has all", func() bool {
		return replica.cli("hget", "cftrack:{d.d}:meta", "documents") == "1"
	})
	primary.kill()
	merge(t, st, many(1000)...) // waits for the failover
	if got := len(paths(t, st)); got != 1000 {
		t.Errorf("%d paths after the failover", got)
	}
	if got := keys(t, st); !slices.Equal(got, []string{"a"}) {
		t.Errorf("documents %q", got)
	}
}

var _ store.Store = (*redisstore.Store)(nil)
