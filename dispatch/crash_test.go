// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

func TestLostAnswersAreBilledOnce(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/a", "/b")
		calls := 0
		w.goWrong(func(op string, _ []string) *simulator.Fault {
			if op != simulator.CreateInvalidation {
				return nil
			}
			if calls++; calls <= 3 {
				return simulator.LostAnswer()
			}
			return nil
		})
		rep := w.invalidate(dispatch.Request{Selector: selector.Selector{All: true}})
		if rep.State != journal.Completed || w.sim.Billed() != 2 || calls != 4 {
			t.Errorf("%s, billed %d items in %d calls", rep.State, w.sim.Billed(), calls)
		}
	})
}

func TestGivingUpLosesNothing(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/a")
		w.goWrong(func(string, []string) *simulator.Fault { return simulator.ServiceUnavailable() })
		rep, err := w.dispatcher().Invalidate(t.Context(), pattern("/a"))
		if !errors.Is(err, dispatch.ErrUndone) || rep == nil || rep.State != journal.Sending {
			t.Fatalf("%+v, %v", rep, err)
		}
		want(t, "left", w.paths(), []string{"/a"})
		w.goWrong(nil)
		rep, err = w.dispatcher().Drive(t.Context(), rep.ID, dispatch.UntilDone, nil)
		if err != nil || rep.State != journal.Completed || len(rep.Batches) != 1 {
			t.Fatalf("resumed: %+v, %v", rep, err)
		}
	})
}

// dying is a store that fails for good after a number of writes, as a process
// does that is killed between two of them.
type dying struct {
	store.Store
	left atomic.Int64
}

var errKilled = errors.New("killed")

func (s *dying) Commit(ctx context.Context, d string, t store.Transaction) (uint64, error) {
	if s.left.Add(-1) < 0 {
		return 0, errKilled
	}
	return s.Store.Commit(ctx, d, t)
}

func (s *dying) Clear(ctx context.Context, d string, c []store.Condition) (int, error) {
	if s.left.Add(-1) < 0 {
		return 0, errKilled
	}
	return s.Store.Clear(ctx, d, c)
}

// killed drives an invalidation with a dispatcher that dies before its write n, and
// then with another; whole says that the first got to the end.
func (w *world) killed(id string, n int64) (rep *dispatch.Report, whole bool) {
	w.t.Helper()
	st := &dying{Store: w.st}
	st.left.Store(n)
	rep, err := dispatch.New(st, dist, w.cdn, nil).Drive(w.t.Context(), id, dispatch.UntilDone, nil)
	if err == nil {
		return rep, true
	}
	if !errors.Is(err, errKilled) {
		w.t.Fatal(err)
	}
	if rep, err = w.dispatcher().Drive(w.t.Context(), id, dispatch.UntilDone, nil); err != nil {
		w.t.Fatal(err)
	}
	return rep, false
}

// A dispatcher is killed before each of its writes in turn; another goes on.
func TestKilledBetweenAnyTwoWrites(t *testing.T) {
	for n := int64(1); ; n++ {
		finished := false
		inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
			w.record("/a", "/b", "/c", "/d", "/e")
			r := dispatch.Request{Selector: selector.Selector{Patterns: []string{"/[abcd]", "/a", "/b", "/c", "/d"}}, Batch: 2}
			inv, err := w.dispatcher().Open(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			rep, whole := w.killed(inv.ID, n)
			finished = whole
			if rep.State != journal.Completed {
				t.Errorf("killed at write %d: %s", n, rep.State)
			}
			var all []string
			for _, s := range w.sent() {
				all = append(all, s...)
			}
			slices.Sort(all)
			want(t, fmt.Sprintf("killed at write %d: billed", n), all, []string{"/%5Babcd%5D", "/a", "/b", "/c", "/d"})
			want(t, "left", w.paths(), []string{"/e"})
		})
		if finished {
			if n < 8 {
				t.Errorf("only %d writes", n)
			}
			return
		}
	}
}

// forgetful is a store that carries a write out and says that it is unavailable.
type forgetful struct {
	store.Store
	at atomic.Int64
}

func (s *forgetful) Commit(ctx context.Context, d string, t store.Transaction) (uint64, error) {
	v, err := s.Store.Commit(ctx, d, t)
	if s.at.Add(-1) == 0 && err == nil {
		return 0, store.ErrUnavailable
	}
	return v, err
}

// The answer to each write in turn is lost: what was written counts all the same.
func TestWritesWhoseAnswerIsLost(t *testing.T) {
	for n, whole := int64(1), false; !whole; n++ {
		inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
			w.record("/a", "/b", "/c", "/d", "/e")
			r := pattern("/a", "/b", "/c", "/d")
			r.Batch = 2
			inv, err := w.dispatcher().Open(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			st := &forgetful{Store: w.st}
			st.at.Store(n)
			rep, err := dispatch.New(st, dist, w.cdn, nil).Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
			if err != nil || rep.State != journal.Completed {
				t.Fatalf("write %d: %+v, %v", n, rep, err)
			}
			var all []string
			for _, s := range w.sent() {
				all = append(all, s...)
			}
			slices.Sort(all)
			want(t, fmt.Sprintf("write %d: billed", n), all, []string{"/a", "/b", "/c", "/d"})
			if len(rep.Batches) != len(w.sent()) {
				t.Errorf("write %d: %d batches for %d calls", n, len(rep.Batches), len(w.sent()))
			}
			if whole = st.at.Load() > 0; whole && n < 20 {
				t.Errorf("only %d writes", n)
			}
		})
	}
}

func TestOldBatchesAreLookedForBeforeTheyAreSentAgain(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/a")
		w.goWrong(func(op string, _ []string) *simulator.Fault {
			if op == simulator.CreateInvalidation {
				return simulator.LostAnswer()
			}
			return simulator.ServiceUnavailable()
		})
		rep, err := w.dispatcher().Invalidate(t.Context(), pattern("/a"))
		if !errors.Is(err, dispatch.ErrUndone) {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		calls := w.sim.Calls()[simulator.CreateInvalidation]
		w.goWrong(nil)
		if rep, err = w.dispatcher().Drive(t.Context(), rep.ID, dispatch.UntilDone, nil); err != nil || rep.State != journal.Completed {
			t.Fatalf("%+v, %v", rep, err)
		}
		if w.sim.Calls()[simulator.CreateInvalidation] != calls || w.sim.Billed() != 1 {
			t.Errorf("sent again after hours without looking: billed %d", w.sim.Billed())
		}
	})
}

func TestAnotherDispatcherTakesOver(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/a")
		w.goWrong(func(string, []string) *simulator.Fault { return simulator.ServiceUnavailable() })
		first, stop := context.WithCancel(t.Context())
		inv, err := w.dispatcher().Open(t.Context(), pattern("/a"))
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() {
			_, err := w.dispatcher().Drive(first, inv.ID, dispatch.UntilDone, nil)
			done <- err
		}()
		time.Sleep(5 * time.Second)
		go func() {
			rep, err := w.dispatcher().Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
			if err == nil && rep.State != journal.Completed {
				err = fmt.Errorf("%+v", rep)
			}
			done <- err
		}()
		time.Sleep(5 * time.Second)
		w.goWrong(nil)
		stop()
		if err := <-done; !errors.Is(err, dispatch.ErrUndone) || !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if w.sim.Billed() != 1 {
			t.Errorf("billed %d", w.sim.Billed())
		}
	})
}

// outage is a store that can be away.
type outage struct {
	store.Store
	away atomic.Bool
}

func (s *outage) List(ctx context.Context, d, prefix, after string, limit int) ([]store.Document, error) {
	if s.away.Load() {
		return nil, store.ErrUnavailable
	}
	return s.Store.List(ctx, d, prefix, after, limit)
}

func TestAStoreThatIsAwayIsWaitedFor(t *testing.T) {
	for away, undone := range map[time.Duration]bool{30 * time.Second: false, 5 * time.Minute: true} {
		t.Run(away.String(), func(t *testing.T) {
			inWorld(t, simulator.Options{Completion: 10 * time.Second}, func(t *testing.T, w *world) {
				st := &outage{Store: w.st}
				d := dispatch.New(st, dist, w.cdn, nil)
				time.AfterFunc(2*time.Second, func() { st.away.Store(true) })
				time.AfterFunc(2*time.Second+away, func() { st.away.Store(false) })
				rep, err := d.Invalidate(t.Context(), pattern("/a"))
				if errors.Is(err, dispatch.ErrUndone) != undone || !undone && (err != nil || rep.State != journal.Completed) {
					t.Fatalf("%+v, %v", rep, err)
				}
				if w.sim.Billed() != 1 {
					t.Errorf("billed %d", w.sim.Billed())
				}
			})
		})
	}
}

// What a batch of this invalidation covers is not sent again after a crash, even
// where new sightings would make the plan another one.
func TestResumingDoesNotPayAgainForWhatWasSightedMeanwhile(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/b/1", "/b/2", "/x")
		w.goWrong(func(op string, _ []string) *simulator.Fault {
			if op == simulator.CreateInvalidation {
				w.recordAt(time.Now(), "/b/2")
			}
			return nil
		})
		d := w.dispatcher()
		r := dispatch.Request{Selector: selector.Selector{Prefixes: []string{"/b/"}}, AssumeComplete: true}
		inv, err := d.Open(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		st := &dying{Store: w.st}
		st.left.Store(8) // lease, epoch, plan, tokens, batch, answer, clearing, forgotten
		if _, err := dispatch.New(st, dist, w.cdn, nil).Drive(t.Context(), inv.ID, dispatch.UntilDone, nil); !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		want(t, "left when it was killed", w.paths(), []string{"/b/2", "/x"})
		w.goWrong(nil)
		rep, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
		if err != nil || rep.State != journal.Completed || w.sim.Billed() != 1 {
			t.Fatalf("%+v, billed %d: %v, %v", rep, w.sim.Billed(), w.sent(), err)
		}
	})
}

func TestALivingLeaderKeepsItsLease(t *testing.T) {
	inWorld(t, simulator.Options{Completion: time.Minute}, func(t *testing.T, w *world) {
		done := make(chan error)
		d := w.dispatcher()
		go func() {
			_, err := d.Invalidate(t.Context(), pattern("/a"))
			done <- err
		}()
		for range 50 {
			time.Sleep(time.Second)
			if l, _, err := d.Journal().Acquire(t.Context(), "rival", time.Now(), time.Second); err != nil || l != nil {
				t.Fatalf("a rival got the lease: %v", err)
			}
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

// A dispatcher that takes over begins with nothing: who led may yet send.
func TestATakeoverBeginsWithNothing(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		wildcard := func(d *dispatch.Dispatcher, p string) time.Duration {
			start := time.Now()
			w.drive(d, pattern(p))
			invs := w.sim.Invalidations()
			return invs[len(invs)-1].Created.Sub(start)
		}
		if d := wildcard(w.dispatcher(), "/a/*"); d > 50*time.Millisecond {
			t.Errorf("the first was sent after %v", d)
		}
		time.Sleep(10 * time.Second)
		if d := wildcard(w.dispatcher(), "/b/*"); d > 50*time.Millisecond {
			t.Errorf("one after another that let go of the lease was sent after %v", d)
		}
		time.Sleep(10 * time.Second)
		j := journal.Open(w.st, dist)
		if l, _, err := j.Acquire(t.Context(), "somebody who died", time.Now(), time.Second); err != nil || l == nil {
			t.Fatal(l, err)
		}
		time.Sleep(2 * time.Second)
		if d := wildcard(w.dispatcher(), "/c/*"); d < time.Second || d > 1100*time.Millisecond {
			t.Errorf("one that took over was sent after %v", d)
		}
		time.Sleep(10 * time.Second)
		if l, _, err := j.Acquire(t.Context(), "somebody else who died", time.Now(), time.Second); err != nil || l == nil {
			t.Fatal(l, err)
		}
		time.Sleep(2 * time.Second)
		st := &forgetful{Store: w.st}
		st.at.Store(2) // the opening, the lease
		if d := wildcard(dispatch.New(st, dist, w.cdn, nil), "/d/*"); d < 2*time.Second {
			t.Errorf("one that took over without knowing it was sent after %v", d)
		}
	})
}

// sleepy is a store in which whoever uses it sleeps before one of its writes, for
// longer than its lease lasts.
type sleepy struct {
	store.Store
	left  atomic.Int64
	sleep time.Duration
}

func (s *sleepy) Commit(ctx context.Context, d string, t store.Transaction) (uint64, error) {
	if s.left.Add(-1) == 0 {
		time.Sleep(s.sleep)
	}
	return s.Store.Commit(ctx, d, t)
}

// A leader sleeps over a takeover, at any step, in the store or in a call, and wakes
// when another has gone on, or is done: everything is sent and billed once.
func TestALeaderThatSleepsAtAnyStep(t *testing.T) {
	for _, inCall := range []bool{false, true} {
		for n := int64(1); n <= 26; n++ {
			slept := false
			inWorld(t, simulator.Options{Seed: uint64(n)}, func(t *testing.T, w *world) {
				w.record(paths("/a", 12)...)
				st := &sleepy{Store: w.st, sleep: time.Duration(21+n%4*10) * time.Second}
				if inCall {
					var calls atomic.Int64
					w.goWrong(func(string, []string) *simulator.Fault {
						if calls.Add(1) == n {
							slept = true
							return &simulator.Fault{Delay: st.sleep, Work: true}
						}
						return nil
					})
				} else {
					st.left.Store(n)
				}
				r := dispatch.Request{Selector: selector.Selector{Prefixes: []string{"/a/"}}, Exact: true, Batch: 3}
				first := dispatch.New(st, dist, w.cdn, nil)
				inv, err := first.Open(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				var done sync.WaitGroup
				for _, d := range []*dispatch.Dispatcher{first, w.dispatcher()} {
					done.Go(func() {
						rep, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
						if err != nil || rep.State != journal.Completed || rep.Items != 12 {
							t.Errorf("asleep at step %d: %+v, %v", n, rep, err)
						}
					})
					synctest.Wait()
				}
				done.Wait()
				slept = slept || st.left.Load() <= 0
				all := slices.Concat(w.sent()...)
				if slices.Sort(all); !slices.Equal(all, paths("/a", 12)) || len(w.paths()) != 0 {
					t.Errorf("asleep at step %d: sent %v, left %v", n, all, w.paths())
				}
			})
			if !slept {
				if n < 6 {
					t.Errorf("only %d steps", n)
				}
				break
			}
		}
	}
}

// A batch that was let go of is in somebody's hands again once it is taken up: who
// comes next cannot know what became of it, and does not drop it.
func TestWhatIsTakenUpAgainIsNotIdle(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		inv, err := w.dispatcher().Open(t.Context(), pattern("/a"))
		if err != nil {
			t.Fatal(err)
		}
		w.goWrong(func(op string, _ []string) *simulator.Fault {
			if op == simulator.CreateInvalidation {
				return simulator.TooManyInvalidationsInProgress()
			}
			return nil
		})
		ctx, stop := context.WithTimeout(t.Context(), 5*time.Second)
		defer stop()
		if _, err := w.dispatcher().Drive(ctx, inv.ID, dispatch.UntilDone, nil); !errors.Is(err, dispatch.ErrUndone) {
			t.Fatal(err)
		}
		batches, err := w.dispatcher().Journal().Batches(t.Context(), inv.Number)
		if err != nil || len(batches) != 1 || !batches[0].Idle {
			t.Fatalf("%+v, %v", batches, err)
		}
		// The next one is killed when CloudFront has taken it.
		st := &dying{Store: w.st}
		st.left.Store(1 << 30)
		w.goWrong(func(op string, _ []string) *simulator.Fault {
			if op != simulator.CreateInvalidation {
				return nil
			}
			st.left.Store(0)
			return simulator.LostAnswer()
		})
		if _, err := dispatch.New(st, dist, w.cdn, nil).Drive(t.Context(), inv.ID, dispatch.UntilDone, nil); !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		w.goWrong(nil)
		if _, err := w.dispatcher().Journal().RequestCancel(t.Context(), inv.ID); err != nil {
			t.Fatal(err)
		}
		rep, err := w.dispatcher().Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
		if err != nil || rep.State != journal.Cancelled || rep.Items != 1 || rep.Batches[0].InvalidationID == "" {
			t.Errorf("%+v, %v", rep, err)
		}
	})
}
