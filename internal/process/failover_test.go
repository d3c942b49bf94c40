// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/simulator"
)

// atCreate calls f while CloudFront has the n-th CreateInvalidation call from now
// on, counted from 1, which is carried out afterwards.
func (w *world) atCreate(n int, f func() *simulator.Fault) {
	var mu sync.Mutex
	hook := func(op string, _ *http.Request) *simulator.Fault {
		if op != simulator.CreateInvalidation {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if n--; n == 0 {
			return f()
		}
		return nil
	}
	w.fault.Store(&hook)
}

// A worked is a world in the middle of its work: a server that records what
// viewers ask for, and an invalidation of some hundred paths.
type worked struct {
	*world
	server       *server
	viewers      *viewers
	acknowledged []string // sightings whose flush was
	paths        []string // that are invalidated
	inv          *process
}

// work begins to. middle is called while CloudFront has a batch of the
// invalidation.
func (w *world) work(middle func(*worked) *simulator.Fault) *worked {
	w.Helper()
	x := &worked{world: w, paths: pages("page", 200)}
	w.importAll(x.paths)
	w.fill(x.paths)
	x.server = w.serve()
	x.viewers = w.view("seen")
	x.see()
	w.publish()
	reached := make(chan struct{})
	w.atCreate(2+w.rng.IntN(4), func() *simulator.Fault {
		defer close(reached)
		return middle(x)
	})
	x.inv = w.start(strings.NewReader(""), "invalidate", "--prefix=/page/", "--exact", "--yes", "--batch=10")
	select {
	case <-reached:
	case <-time.After(patience):
		w.Fatalf("no batch was sent: %s", x.inv.stderr.tail())
	}
	return x
}

// see waits until viewers were served and that is flushed.
func (x *worked) see() {
	x.Helper()
	before := x.viewers.count()
	x.until("viewers are served", func() bool { return x.viewers.count() > before+20 }, x.server.process)
	x.until("it is flushed", func() bool {
		paths, ok := x.server.flush(x.T)
		if ok {
			x.acknowledged = paths
		}
		return ok
	}, x.server.process)
}

// nothingLost checks that the work goes on as if nothing had happened.
func (x *worked) nothingLost() {
	x.Helper()
	before := x.acknowledged
	x.see()
	if code := x.wait(x.inv); code != 0 {
		x.Fatalf("exit %d: %s", code, x.inv.stderr.String())
	}
	there := x.list()
	if gone := missing(before, there); gone != nil {
		x.Errorf("flushed before, and gone: %q", gone)
	}
	if gone := missing(x.acknowledged, there); gone != nil {
		x.Errorf("flushed since, and gone: %q", gone)
	}
	x.onceEach()
	x.viewers.stop()
	x.finish(x.server)
	if gaps := x.gaps(); len(gaps) > 0 {
		x.Errorf("nothing was lost, and there are gaps: %+v", gaps)
	}
}

// last has everything flushed that was seen, and nobody see any more.
func (x *worked) last() {
	x.Helper()
	x.viewers.stop()
	x.until("all is flushed", func() bool { _, ok := x.server.flush(x.T); return ok }, x.server.process)
}

// onceEach checks the invalidation at CloudFront.
func (x *worked) onceEach() {
	x.Helper()
	for path, n := range x.sent() {
		if n != 1 {
			x.Errorf("%s was billed %d times", path, n)
		}
	}
	if n := x.sim.Billed(); n != len(x.paths) {
		x.Errorf("%d items billed, want %d", n, len(x.paths))
	}
	x.notStale(x.paths)
	x.billedOnce()
}

func redisWith(config ...string) backend {
	return backend{"redis", func(w *world) {
		w.redis = startRedis(w.T, config...)
		w.use(w.redis)
	}}
}

// TestRedisRestarts stops Redis under everybody's work and starts it again. With
// an append-only file nothing that was acknowledged is lost, and nobody notices.
func TestRedisRestarts(t *testing.T) {
	t.Parallel()
	for i, tc := range []struct {
		name, fsync string
		stop        func(*redisServer)
	}{
		{"shut down, synced always", "always", (*redisServer).shutdown},
		{"killed, synced always", "always", (*redisServer).kill},
		{"shut down, synced every second", "everysec", (*redisServer).shutdown},
		// What was written is the kernel's: only the machine's death would lose it.
		{"killed, synced every second", "everysec", (*redisServer).kill},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1000+i, redisWith("appendonly yes", "appendfsync "+tc.fsync))
			x := w.work(func(*worked) *simulator.Fault {
				tc.stop(w.redis)
				return nil
			})
			w.after(2 * time.Second)
			w.redis.up()
			x.nothingLost()
		})
	}
}

// shutdown ends it as an operator does who wants no snapshot.
func (s *redisServer) shutdown() {
	_, _ = s.try("SHUTDOWN", "NOSAVE") // it does not answer
	_ = s.cmd.Wait()
	s.cmd = nil
}

// TestRedisComesBackEmpty restarts a Redis that persists nothing. All that is
// known is gone, and everybody says so: the invalidation that it cannot go on, the
// coverage that what was seen before is not known.
func TestRedisComesBackEmpty(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1100, redisWith("appendonly no"))
	x := w.work(func(*worked) *simulator.Fault {
		w.redis.kill()
		w.redis.up()
		return nil
	})
	if code := w.wait(x.inv); code != 3 {
		t.Errorf("exit %d of an invalidation that the store lost: %s", code, x.inv.stderr.String())
	}
	x.see()
	x.last()
	w.explained(w.list(), "store-lost-data")
	for path, n := range w.sent() {
		if n > 1 {
			t.Errorf("%s was billed %d times", path, n)
		}
	}
	// Another purge is another purge.
	w.must(nil, "invalidate", "/*", "--yes")
	w.notStale(x.paths)
	w.finish(x.server)
}

// A switchboard is the address of a Redis whose server changes.
type switchboard struct {
	l  net.Listener
	mu sync.Mutex
	to *redisServer // nil: nobody is there
	on map[net.Conn]bool
}

func newSwitchboard(tb testing.TB, to *redisServer) *switchboard {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s := &switchboard{l: l, to: to, on: map[net.Conn]bool{}}
	var wg sync.WaitGroup
	tb.Cleanup(func() {
		_ = l.Close()
		s.connect(nil)
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { s.pass(c) })
		}
	})
	return s
}

func (s *switchboard) pass(c net.Conn) {
	defer c.Close()
	s.mu.Lock()
	to := s.to
	s.mu.Unlock()
	if to == nil {
		return
	}
	up, err := net.Dial("unix", to.socket())
	if err != nil {
		return
	}
	defer up.Close()
	s.mu.Lock()
	if s.to != to {
		s.mu.Unlock()
		return
	}
	s.on[c] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.on, c)
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(up, c) // it ends with either side
		_ = up.Close()
	}()
	_, _ = io.Copy(c, up)
	_ = c.Close()
	<-done
}

// connect has everybody talk to another server from now on.
func (s *switchboard) connect(to *redisServer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.to = to
	for c := range s.on {
		_ = c.Close()
	}
}

// A pair is a Redis and its replica, behind one address.
type pair struct {
	*switchboard
	primary, replica *redisServer
}

// newPair makes the store of a world one that is replicated.
func newPair(w *world, config ...string) *pair {
	w.Helper()
	port := freePort(w.T)
	config = append(config, "appendonly yes", "appendfsync always", "repl-diskless-sync-delay 0", "repl-ping-replica-period 1")
	p := &pair{primary: newRedis(w.T, append(config, fmt.Sprintf("port %d", port))...), replica: newRedis(w.T)}
	p.replica.password = p.primary.password
	p.replica.configure(append(config, fmt.Sprintf("replicaof 127.0.0.1 %d", port), "masterauth "+p.primary.password)...)
	p.primary.up()
	p.replica.up()
	w.until("the replica has caught up", func() bool {
		return strings.Contains(p.primary.do("INFO", "replication"), "state=online")
	})
	p.switchboard = newSwitchboard(w.T, p.primary)
	w.secret = p.primary.password
	w.env = append(w.env, "CFTRACK_STORE=redis://:"+w.secret+"@"+p.l.Addr().String())
	return p
}

// promote makes the replica the primary, once it has all that came over the line
// from one that is dead.
func (p *pair) promote(w *world) {
	w.Helper()
	w.until("the replica sees that the primary is gone", func() bool {
		return strings.Contains(p.replica.do("INFO", "replication"), "master_link_status:down")
	})
	p.replica.do("REPLICAOF", "NO", "ONE")
	p.replica.do("CONFIG", "SET", "min-replicas-to-write", "0")
	p.connect(p.replica)
}

// TestFailoverKeepsWhatWasAcknowledged kills a primary that takes no writes unless
// a replica follows it: the replica has all that was acknowledged.
func TestFailoverKeepsWhatWasAcknowledged(t *testing.T) {
	t.Parallel()
	for i, stalled := range []bool{false, true} {
		t.Run(fmt.Sprintf("stalled=%v", stalled), func(t *testing.T) {
			t.Parallel()
			var p *pair
			w := newWorld(t, 1200+i, backend{"failover", func(w *world) {
				p = newPair(w, "min-replicas-to-write 1", "min-replicas-max-lag 1")
			}})
			x := w.work(func(x *worked) *simulator.Fault {
				if stalled {
					// It follows no longer: soon nothing more is acknowledged.
					if err := p.replica.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
						t.Error(err)
					}
					deadline := time.Now().Add(patience)
					for {
						if reply, _ := p.primary.try("SET", "probe", "1"); strings.Contains(reply, "NOREPLICAS") {
							break
						}
						if time.Now().After(deadline) {
							t.Error("the primary still takes writes")
							break
						}
						time.Sleep(10 * time.Millisecond) // it looks once a second
					}
				}
				p.connect(nil)
				p.primary.kill()
				if stalled {
					if err := p.replica.cmd.Process.Signal(syscall.SIGCONT); err != nil {
						t.Error(err)
					}
				}
				return nil
			})
			p.promote(w)
			x.nothingLost()
		})
	}
}

// TestFailoverLosesWrites fails over to a replica that was behind. What was
// acknowledged meanwhile is gone: the recorder notices, the coverage has a gap for
// it, and what CloudFront took under batches that the store has forgotten is found
// there and not paid for again.
func TestFailoverLosesWrites(t *testing.T) {
	t.Parallel()
	for i, tc := range []struct {
		name string
		dies bool // the dispatcher does, at the failover
	}{
		{"under a dispatcher", false},
		{"and the dispatcher dies", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var p *pair
			w := newWorld(t, 1300+i, backend{"failover", func(w *world) { p = newPair(w) }})
			cut := make(chan struct{})
			over := make(chan struct{})
			x := w.work(func(*worked) *simulator.Fault {
				p.replica.do("REPLICAOF", "NO", "ONE") // from here on it is behind
				close(cut)
				return nil
			})
			<-cut
			// Two more batches are accepted and written down where it will be lost.
			w.atCreate(3, func() *simulator.Fault {
				defer close(over)
				p.connect(nil)
				p.primary.kill()
				if tc.dies {
					x.inv.kill()
				}
				return nil
			})
			x.see()
			lost := x.acknowledged
			select {
			case <-over:
			case <-time.After(patience):
				t.Fatalf("no third batch: %s", x.inv.stderr.tail())
			}
			p.connect(p.replica)
			if tc.dies {
				w.must(nil, "resume")
			} else if code := w.wait(x.inv); code != 0 {
				t.Errorf("exit %d: %s", code, x.inv.stderr.String())
			}
			x.see()
			x.last()
			there := w.list()
			if gone := missing(lost, there); gone == nil {
				t.Error("the failover lost nothing: this tests nothing")
			}
			x.onceEach()
			w.explained(there, "store-went-back")
			w.finish(x.server)
			if rs := w.reports(); len(rs) != 1 || rs[0].State != "completed" {
				t.Errorf("%+v", rs)
			}
		})
	}
}
