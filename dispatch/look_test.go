// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/plan"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// Batches that are so old that the list of invalidations does not reach back to them are
// asked for by themselves, however few calls there are.
func TestBatchesOlderThanTheList(t *testing.T) {
	for name, rate := range map[string]float64{"usual rate": 0, "few calls": 0.2} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, simulator.Options{Completion: 30 * time.Second}, func(t *testing.T, w *world) {
				d := dispatch.New(w.st, dist, w.cdn, &dispatch.Options{Limits: plan.Limits{CallsPerSecond: rate}})
				r := pattern("/a", "/b", "/c", "/d")
				r.Batch = 1
				inv, err := d.Open(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := d.Drive(t.Context(), inv.ID, dispatch.UntilAccepted, nil); err != nil {
					t.Fatal(err)
				}
				for i := range 400 {
					if _, err := w.cdn.CreateInvalidation(t.Context(), dist, fmt.Sprint("somebody else's ", i), []string{"/x"}); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(2 * time.Hour)
				ctx, stop := context.WithTimeout(t.Context(), 5*time.Minute)
				defer stop()
				rep, err := d.Drive(ctx, inv.ID, dispatch.UntilDone, nil)
				if err != nil || rep.State != journal.Completed {
					t.Errorf("%+v, %v", rep, err)
				}
			})
		})
	}
}

// Where calls are so few that there is always something newer to look for in the list, what
// the list does not reach has its turn too.
func TestOldBatchesHaveTheirTurn(t *testing.T) {
	inWorld(t, simulator.Options{Completion: 10 * time.Minute}, func(t *testing.T, w *world) {
		d := dispatch.New(w.st, dist, w.cdn, &dispatch.Options{Limits: plan.Limits{CallsPerSecond: 0.05}})
		open := func(paths ...string) *journal.Invalidation {
			r := pattern(paths...)
			r.Batch = 1
			inv, err := d.Open(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := d.Drive(t.Context(), inv.ID, dispatch.UntilAccepted, nil); err != nil {
				t.Fatal(err)
			}
			return inv
		}
		old := open("/a", "/b")
		for i := range 400 {
			if _, err := w.cdn.CreateInvalidation(t.Context(), dist, fmt.Sprint("somebody else's ", i), []string{"/x"}); err != nil {
				t.Fatal(err)
			}
		}
		completes := time.Now().Add(10 * time.Minute)
		time.Sleep(5 * time.Minute)
		open("/c", "/d", "/e", "/f")
		if rep, err := d.Drive(t.Context(), old.ID, dispatch.UntilDone, nil); err != nil || rep.State != journal.Completed {
			t.Errorf("%+v, %v", rep, err)
		}
		batches, err := d.Journal().Batches(t.Context(), old.Number)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range batches {
			if late := b.Completed.Sub(completes); late > 3*time.Minute {
				t.Errorf("seen %v after it had completed", late)
			}
		}
	})
}

// Whoever goes on with what another began reads what was sent since, and that may be a
// great deal of somebody else's: as long as it gets on, it does not give up.
func TestManyInvalidationsToLookThrough(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		inv, err := w.dispatcher().Open(t.Context(), pattern("/a"))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 400 {
			if _, err := w.cdn.CreateInvalidation(t.Context(), dist, fmt.Sprint("somebody else's ", i), []string{"/x"}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Hour)
		start, last := time.Now(), time.Time{}
		w.goWrong(func(op string, _ []string) *simulator.Fault {
			// An answer every second, and from time to time none is given.
			if now := time.Now(); op == simulator.GetInvalidation && now.Sub(last) > 5*time.Second {
				last = now
				return simulator.Throttling()
			}
			return &simulator.Fault{Delay: time.Second}
		})
		rep, err := w.dispatcher().Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
		if err != nil || rep.State != journal.Completed {
			t.Errorf("after %v: %+v, %v", time.Since(start), rep, err)
		}
		if took := time.Since(start); took > 20*time.Minute {
			t.Errorf("400 answers of a second each took %v", took)
		}
	})
}

// counting counts reads of batches.
type counting struct {
	store.Store
	batches atomic.Int64
}

func (s *counting) List(ctx context.Context, d, prefix, after string, limit int) ([]store.Document, error) {
	if strings.HasPrefix(prefix, "bat/") {
		s.batches.Add(1)
	}
	return s.Store.List(ctx, d, prefix, after, limit)
}

// Looks do not read again what did not change, however many are open.
func TestLooksAreCheap(t *testing.T) {
	inWorld(t, simulator.Options{Completion: 5 * time.Minute}, func(t *testing.T, w *world) {
		st := &counting{Store: w.st}
		d := dispatch.New(st, dist, w.cdn, nil)
		const n = 40
		var last *journal.Invalidation
		for i := range n {
			var err error
			if last, err = d.Open(t.Context(), pattern(fmt.Sprintf("/%d", i))); err != nil {
				t.Fatal(err)
			}
		}
		rep, err := d.Drive(t.Context(), last.ID, dispatch.UntilDone, nil)
		if err != nil || rep.State != journal.Completed {
			t.Fatalf("%+v, %v", rep, err)
		}
		if reads := st.batches.Load(); reads > 3*n {
			t.Errorf("batches were read %d times for %d invalidations", reads, n)
		}
		calls := w.sim.Calls()
		if looks := calls[simulator.GetInvalidation] + calls[simulator.ListInvalidations]; looks > 200 {
			t.Errorf("%d looks in five minutes: %v", looks, calls)
		}
	})
}

// One that is held up does not read those that came and went since, at each look.
func TestLooksDoNotReadWhatIsOver(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		var acks atomic.Uint64
		w.session("slow", &acks)
		held := w.dispatcher()
		first, err := held.Open(t.Context(), pattern("/held"))
		if err != nil {
			t.Fatal(err)
		}
		const n = 20
		for i := range n {
			d := w.dispatcher()
			inv, err := d.Open(t.Context(), pattern(fmt.Sprintf("/%d", i)))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := d.Journal().RequestCancel(t.Context(), inv.ID); err != nil {
				t.Fatal(err)
			}
			if rep, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil); err != nil || rep.State != journal.Cancelled {
				t.Fatalf("%+v, %v", rep, err)
			}
		}
		st := &counting{Store: w.st}
		time.AfterFunc(2*time.Minute, func() { acks.Store(n + 1) })
		rep, err := dispatch.New(st, dist, w.cdn, nil).Drive(t.Context(), first.ID, dispatch.UntilDone, nil)
		if err != nil || rep.State != journal.Completed {
			t.Fatalf("%+v, %v", rep, err)
		}
		if reads := st.batches.Load(); reads > 3*n {
			t.Errorf("batches were read %d times in two minutes, of %d invalidations", reads, n)
		}
	})
}
