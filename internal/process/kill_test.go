// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/simulator"
)

// TestKilled kills processes at random moments of everything they do, and looks at
// what is left. CFTRACK_KILLS says how many; a failure is repeated, as far as the
// moments can be, with CFTRACK_SEED and the name of the test.
func TestKilled(t *testing.T) {
	t.Parallel()
	works := []struct {
		name string
		of   int // of ciKills
		kill func(*world)
	}{
		// The first wait longest, for leases to run out.
		{"sending", 8, (*world).killSending},
		{"sweeping", 6, (*world).killSweep},
		{"serving", 8, (*world).killServer},
		{"importing", 8, (*world).killImport},
		{"recording", 6, (*world).killRecord},
		{"planning", 4, (*world).killPlan},
	}
	t.Logf("%s=%d", envSeed, seed)
	n := 0
	for _, work := range works {
		for i := range (work.of*kills + ciKills - 1) / ciKills {
			n++
			number, b := n, backends[i%len(backends)]
			t.Run(fmt.Sprintf("%s/%s/%d", work.name, b.name, number), func(t *testing.T) {
				t.Parallel()
				work.kill(newWorld(t, number, b))
			})
		}
	}
}

// after waits for a random time up to most: the moment of a kill.
func (w *world) after(most time.Duration) { time.Sleep(time.Duration(w.rng.Int64N(int64(most)))) }

// feed gives a command a part of its input, or all of it and then the end.
func (w *world) feed(p *process, input string) {
	w.Helper()
	part := w.rng.IntN(len(input) * 5 / 4)
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		in := p.stdin.(io.Writer)
		_, err := io.WriteString(in, input[:min(part, len(input))])
		if err == nil && part >= len(input) {
			_ = p.stdin.Close() // it may be dead already
		}
	}()
	select {
	case <-fed:
	case <-time.After(patience):
		w.Fatalf("%v does not read its input", p.cmd.Args)
	}
	w.after(60 * time.Millisecond)
}

func (w *world) killImport() {
	w.killInput([]string{"import", "-"}, accessLog)
}

func (w *world) killRecord() {
	w.killInput([]string{"record", "-", "--ttl=1d"}, lines)
}

// killInput kills a command that reads, or the one that owns the store while
// another reads.
func (w *world) killInput(args []string, write func([]string) string) {
	acknowledged, all := pages("before", 200), pages("page", 6000)
	first := w.start(strings.NewReader(write(acknowledged)), args...)
	if code := w.wait(first); code != 0 {
		w.Fatalf("exit %d: %s", code, first.stderr.String())
	}
	if w.redis == nil && w.rng.IntN(2) == 0 {
		w.killOwner(args, write(all))
		if gone := missing(append(all, acknowledged...), w.list()); gone != nil {
			w.Errorf("acknowledged, and gone with the owner of the store: %q", gone)
		}
		return
	}
	p := w.start(nil, append(args, "--output=json")...)
	w.feed(p, write(all))
	p.kill()

	there := w.list()
	if gone := missing(acknowledged, there); gone != nil {
		w.Errorf("acknowledged before, and gone: %q", gone)
	}
	if strings.Contains(p.stdout.String(), `"recorded":6000`) {
		if gone := missing(all, there); gone != nil {
			w.Errorf("acknowledged, and gone: %q", gone)
		}
	} else if code := p.cmd.ProcessState.ExitCode(); code == 0 {
		w.Errorf("it ended well and acknowledged nothing: %s", p.stdout.String())
	}
	for path := range there {
		if !strings.HasPrefix(path, "/before/") && !strings.HasPrefix(path, "/page/") {
			w.Errorf("nobody recorded %s", path)
		}
	}

	again := w.start(strings.NewReader(write(all)), append(args, "--output=json")...)
	if code := w.wait(again); code != 0 {
		w.Fatalf("again: exit %d: %s", code, again.stderr.String())
	}
	var result struct{ Recorded, Paths int }
	if err := json.Unmarshal([]byte(again.stdout.String()), &result); err != nil || result.Recorded != len(all) || result.Paths != len(all) {
		w.Errorf("again: %v, %s", err, again.stdout.String())
	}
	if there = w.list(); len(there) != len(all)+len(acknowledged) {
		w.Errorf("%d entries, want %d", len(there), len(all)+len(acknowledged))
	}
}

// killOwner kills the process that has the embedded store while another reads its
// input, which takes over and knows nothing of it.
func (w *world) killOwner(args []string, input string) {
	w.Helper()
	owner := w.start(nil, "record", "-")
	w.feedAll(owner, "/owner\n")
	w.until("there is an owner", func() bool { return w.lockedBy(owner) }, owner)
	p := w.start(nil, append(args, "--output=json")...)
	go func() {
		in := p.stdin.(io.WriteCloser)
		_, _ = io.WriteString(in, input)
		_ = in.Close() // if it died this fails, and its exit code says so
	}()
	w.after(400 * time.Millisecond)
	owner.kill()
	if code := w.wait(p); code != 0 {
		w.Errorf("exit %d when the owner of the store was killed: %s", code, p.stderr.String())
	}
}

// killPlan kills a plan, which changes nothing.
func (w *world) killPlan() {
	w.importAll(pages("page", 3000))
	var before, after struct{ Totals map[string]float64 }
	w.must(&before, "plan", "--all", "--exact")
	p := w.start(strings.NewReader(""), "plan", "--all", "--exact", "--output=json")
	w.after(150 * time.Millisecond)
	p.kill()
	if n := len(w.list()); n != 3000 {
		w.Errorf("%d entries, want 3000", n)
	}
	if w.must(&after, "plan", "--all", "--exact"); !maps.Equal(before.Totals, after.Totals) || after.Totals["items"] != 3000 {
		w.Errorf("planned %v, and then %v", before.Totals, after.Totals)
	}
	if calls := w.sim.Calls(); len(calls) > 0 || len(w.reports()) > 0 {
		w.Errorf("planning called %v", calls)
	}
}

// importAll imports paths, which must work.
func (w *world) importAll(paths []string) {
	w.Helper()
	p := w.start(strings.NewReader(accessLog(paths)), "import", "-", "--output=json")
	if code := w.wait(p); code != 0 {
		w.Fatalf("import: exit %d: %s", code, p.stderr.String())
	}
}

// Viewers ask the edges for pages that the edges do not have, over and over.
type viewers struct {
	mu    sync.Mutex
	asked map[string]time.Time // when it had been answered
	stop  func()
}

func (w *world) view(prefix string) *viewers {
	v := &viewers{asked: map[string]time.Time{}}
	quit := make(chan struct{})
	var wg sync.WaitGroup
	for e := range edges {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-quit:
					return
				case <-time.After(2 * time.Millisecond): // viewers are people
				}
				path := fmt.Sprintf("/%s/%d/%06d", prefix, e, i)
				if len(w.ask(e, path)) > 0 {
					v.mu.Lock()
					v.asked[path] = time.Now()
					v.mu.Unlock()
				}
			}
		})
	}
	v.stop = sync.OnceFunc(func() { close(quit); wg.Wait() })
	w.Cleanup(v.stop)
	return v
}

// count says how many answers the viewers got.
func (v *viewers) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.asked)
}

// killServer kills a server under load. What it had flushed is there, what not is
// a gap that began before it.
func (w *world) killServer() {
	s := w.serve()
	v := w.view("a")
	w.until("viewers are served", func() bool { return v.count() > 20 }, s.process)
	acknowledged, ok := s.flush(w.T)
	if !ok {
		w.Fatal("a server that lives does not flush")
	}
	// Some servers die on the heels of an answer, others while sightings gather that
	// nobody has asked to be flushed.
	var along sync.WaitGroup
	switch w.rng.IntN(3) {
	case 0:
		along.Go(func() {
			for ok := true; ok; {
				var paths []string
				if paths, ok = s.flush(w.T); ok {
					acknowledged = paths
				}
			}
		})
		fallthrough
	case 1:
		w.after(1500 * time.Millisecond)
	}
	s.kill()
	along.Wait()
	v.stop()

	there := w.list()
	if gone := missing(acknowledged, there); gone != nil {
		w.Errorf("flushed, and gone: %q", gone)
	}
	w.explained(there, "recorder-lost")

	// Whoever comes after lives with the dead one's session.
	next := w.serve()
	v = w.view("b")
	w.until("viewers are served again", func() bool { return v.count() > 20 }, next.process)
	w.publish()
	w.must(nil, "invalidate", "--all", "--exact", "--yes", "--reason=a server died")
	v.stop()
	w.notStale(slices.Collect(maps.Keys(there)))
	w.billedOnce()
	w.finish(next)
}

// finish ends a server cleanly.
func (w *world) finish(s *server) {
	w.Helper()
	_ = s.stdin.Close()
	if code := w.wait(s.process); code != 0 {
		w.Errorf("the server ended with %d: %s", code, s.stderr.tail())
	}
}

// killSending kills an invalidation of a few hundred paths in several batches, and
// goes on with it.
func (w *world) killSending() {
	all := pages("page", 150+w.rng.IntN(200))
	w.importAll(all)
	w.fill(all)
	w.publish()
	args := []string{"invalidate", "--all", "--exact", "--yes", "--batch=25", "--reason=kill"}
	rounds := 1
	if kills > ciKills {
		rounds += w.rng.IntN(3)
	}
	for range rounds {
		p := w.killDuring(args)
		w.list()
		all := w.reports()
		opened := len(all) > 0
		if opened {
			if args = []string{"resume"}; w.rng.IntN(2) == 0 {
				args = append(args, all[0].ID)
			}
		}
		switch code := p.cmd.ProcessState.ExitCode(); {
		case code == 0 && (!opened || all[0].State != "completed"):
			w.Errorf("it ended with 0, and the journal has %+v", all)
		case code > 0 && code != 3:
			w.Errorf("exit %d: %s", code, p.stderr.String())
		case code == 3 && strings.Contains(p.stderr.String(), "inv-") && !strings.Contains(p.stderr.String(), "cftrack resume inv-"):
			w.Errorf("exit 3, and no word of how to go on: %s", p.stderr.String())
		}
	}
	w.must(nil, args...)
	w.completed(all)
}

// completed checks a distribution of which all was invalidated, path by path.
func (w *world) completed(all []string) {
	w.Helper()
	rs := w.reports()
	if len(rs) != 1 || rs[0].State != "completed" || rs[0].Items != len(all) {
		w.Fatalf("%+v", rs)
	}
	sent := w.sent()
	for _, p := range all {
		if sent[p] != 1 {
			w.Errorf("%s was sent %d times", p, sent[p])
		}
	}
	if n := w.sim.Billed(); n != len(all) {
		w.Errorf("%d items billed, want %d", n, len(all))
	}
	w.notStale(all)
	w.billedOnce()
	if left := w.list(); len(left) > 0 {
		w.Errorf("%d entries are left", len(left))
	}
}

// killDuring runs a command that sends and kills it, or asks it to end, at some
// moment: any time, or while CloudFront has a call of its.
func (w *world) killDuring(args []string) *process {
	w.Helper()
	end := (*process).kill
	if w.rng.IntN(4) == 0 {
		end = func(p *process) { _ = p.cmd.Process.Signal(syscall.SIGTERM) }
	}
	if w.rng.IntN(3) == 0 {
		p := w.start(strings.NewReader(""), args...)
		w.after(3 * time.Second)
		end(p)
		w.wait(p)
		return p
	}
	// The n-th call is the last that the process makes.
	left, how := w.rng.IntN(6), w.rng.IntN(3)
	pause := time.Duration(w.rng.Int64N(int64(30 * time.Millisecond)))
	running := make(chan *process, 1)
	var mu sync.Mutex
	hook := func(op string, _ *http.Request) *simulator.Fault {
		mu.Lock()
		defer mu.Unlock()
		if op != simulator.CreateInvalidation || left < 0 {
			return nil
		}
		if left--; left >= 0 {
			return nil
		}
		p := <-running
		switch how {
		case 0: // before CloudFront looked at it
			end(p)
			return simulator.LostRequest()
		case 1: // after, and before the answer
			end(p)
			return simulator.LostAnswer()
		default: // some time after the answer
			go func() { time.Sleep(pause); end(p) }()
			return nil
		}
	}
	w.fault.Store(&hook)
	defer w.fault.Store(nil)
	p := w.start(strings.NewReader(""), args...)
	running <- p
	w.wait(p)
	return p
}

// killSweep kills the dispatcher or the server while a response from before the
// cut is still under way.
func (w *world) killSweep() {
	s := w.serve()
	all := append(pages("page", 40), "/slow")
	w.fill(all[:40])
	if paths, ok := s.flush(w.T); !ok || len(paths) < 40 {
		w.Fatalf("flushed %d of 40", len(paths))
	}
	begun, release := w.site.hold("/slow")
	defer release()
	asked := make(chan int, 1)
	go func() { asked <- len(w.ask(0, "/slow")) }()
	w.until("the slow page is asked for", begun, s.process)
	w.publish()
	p := w.start(strings.NewReader(""), "invalidate", "--all", "--yes", "--exact")
	w.until("it sweeps", func() bool { return strings.Contains(p.stderr.String(), " sweeping") }, p)
	w.after(2 * time.Second)
	if w.rng.IntN(3) == 0 {
		s.kill()
		<-asked
		if code := w.wait(p); code != 0 {
			w.Errorf("exit %d after the death of a recorder: %s", code, p.stderr.String())
		}
		w.notStale(all)
		w.billedOnce()
		return
	}
	p.kill()
	w.list()
	resumed := w.start(strings.NewReader(""), "resume", "--output=json")
	w.after(2 * time.Second)
	release()
	if n := <-asked; n != 1 {
		w.Fatal("the slow page never came")
	}
	if code := w.wait(resumed); code != 0 {
		w.Fatalf("resume: exit %d: %s", code, resumed.stderr.String())
	}
	rs := w.reports()
	if len(rs) != 1 || rs[0].State != "completed" || rs[0].FollowUps != 1 {
		w.Errorf("%+v", rs)
	}
	w.notStale(all)
	w.billedOnce()
	w.finish(s)
}

// TestOpensAtOnce opens an embedded store whose owner was killed: there is neither
// a lock nor a socket to wait for. It runs beside no other test, and the best of
// several times counts.
func TestOpensAtOnce(t *testing.T) {
	w := newWorld(t, 0, backends[0])
	best := patience
	for range 5 {
		owner := w.start(nil, "record", "-")
		w.feedAll(owner, "/page\n")
		w.until("there is an owner", func() bool { return w.lockedBy(owner) }, owner)
		owner.kill()
		began := time.Now()
		w.must(nil, "record", "/page")
		best = min(best, time.Since(began))
	}
	t.Logf("%v", best)
	if best > atOnce {
		t.Errorf("it took %v at best", best)
	}
}
