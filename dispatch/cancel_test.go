// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// It is cancelled before each step in turn: what had been accepted is named, the
// rest is not sent, and nothing stays unsettled.
func TestCancelAtAnyStep(t *testing.T) {
	for n := int64(1); n < 60; n++ {
		over := false
		inWorld(t, simulator.Options{Completion: 2 * time.Second}, func(t *testing.T, w *world) {
			w.record(paths("/a", 9)...)
			d := w.dispatcher()
			r := dispatch.Request{Selector: selector.Selector{Prefixes: []string{"/a/"}}, Exact: true, Batch: 3, RepeatAfter: time.Minute}
			inv, err := d.Open(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			st := &cancelling{Store: w.st}
			st.left.Store(n)
			st.cancel = func() {
				if _, err := d.Journal().RequestCancel(t.Context(), inv.ID); err != nil {
					t.Error(err)
				}
			}
			rep, err := dispatch.New(st, dist, w.cdn, nil).Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
			if err != nil {
				t.Fatal(err)
			}
			over = st.left.Load() > 0
			if over {
				return
			}
			items := 0
			for _, b := range rep.Batches {
				if b.State == journal.Saved || (b.State != journal.BatchRefused) != (b.InvalidationID != "") {
					t.Errorf("cancelled at step %d: %+v", n, b)
				}
				if b.InvalidationID != "" {
					items += b.Items
				}
			}
			if rep.State != journal.Cancelled && rep.State != journal.Completed || rep.Items != items || w.sim.Billed() != items {
				t.Errorf("cancelled at step %d: %s, %d items in batches, %d said, %d billed", n, rep.State, items, rep.Items, w.sim.Billed())
			}
			if rep.State == journal.Completed && items != 18 {
				t.Errorf("cancelled at step %d, and it is completed with %d items", n, items)
			}
		})
		if over {
			if n < 12 {
				t.Errorf("only %d steps", n)
			}
			return
		}
	}
	t.Error("it never ends")
}

// cancelling is a store in which somebody asks to stop before one of the writes.
type cancelling struct {
	store.Store
	left   atomic.Int64
	cancel func()
}

func (s *cancelling) Commit(ctx context.Context, d string, t store.Transaction) (uint64, error) {
	if s.left.Add(-1) == 0 {
		s.cancel()
	}
	return s.Store.Commit(ctx, d, t)
}

// What was saved and only ever refused is not sent once it is cancelled.
func TestCancelRecallsWhatWasOnlyRefused(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.goWrong(func(op string, _ []string) *simulator.Fault {
			if op != simulator.CreateInvalidation {
				return nil
			}
			return simulator.TooManyInvalidationsInProgress()
		})
		d := w.dispatcher()
		inv, err := d.Open(t.Context(), pattern("/a"))
		if err != nil {
			t.Fatal(err)
		}
		c, stop := context.WithTimeout(t.Context(), 10*time.Second)
		defer stop()
		if _, err := d.Drive(c, inv.ID, dispatch.UntilDone, nil); !errors.Is(err, dispatch.ErrUndone) {
			t.Fatal(err)
		}
		calls := w.sim.Calls()[simulator.CreateInvalidation]
		if _, err := d.Journal().RequestCancel(t.Context(), inv.ID); err != nil {
			t.Fatal(err)
		}
		rep, err := w.dispatcher().Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
		if err != nil || rep.State != journal.Cancelled || rep.Items != 0 || w.sim.Calls()[simulator.CreateInvalidation] != calls {
			t.Errorf("%+v, %v", rep, err)
		}
	})
}

// What was not answered may have been accepted: it is settled, and named, by
// whoever tried it too.
func TestCancelSettlesWhatItTriedItself(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		d := w.dispatcher()
		inv, err := d.Open(t.Context(), pattern("/a"))
		if err != nil {
			t.Fatal(err)
		}
		w.goWrong(func(op string, _ []string) *simulator.Fault {
			if op == simulator.CreateInvalidation {
				return simulator.LostAnswer()
			}
			return nil
		})
		time.AfterFunc(5*time.Second, func() {
			if _, err := d.Journal().RequestCancel(t.Context(), inv.ID); err != nil {
				t.Error(err)
			}
			w.goWrong(nil)
		})
		rep, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
		if err != nil || rep.State != journal.Cancelled || rep.Items != 1 || rep.Batches[0].InvalidationID == "" || w.sim.Billed() != 1 {
			t.Errorf("%+v, %v", rep, err)
		}
	})
}

func TestCancelSettlesWhatIsUnanswered(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/1", "/2", "/3", "/4")
		w.goWrong(func(op string, items []string) *simulator.Fault {
			if op == simulator.CreateInvalidation {
				return simulator.LostAnswer()
			}
			return nil
		})
		d := w.dispatcher()
		r := dispatch.Request{Selector: selector.Selector{All: true}, Exact: true, Batch: 2}
		inv, err := d.Open(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		c, stop := context.WithTimeout(t.Context(), 3*time.Second)
		defer stop()
		if _, err := d.Drive(c, inv.ID, dispatch.UntilDone, nil); !errors.Is(err, dispatch.ErrUndone) {
			t.Fatal(err)
		}
		w.goWrong(nil)
		if _, err := d.Journal().RequestCancel(t.Context(), inv.ID); err != nil {
			t.Fatal(err)
		}
		rep, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
		if err != nil || rep.State != journal.Cancelled || len(rep.Batches) != 1 || rep.Batches[0].InvalidationID == "" {
			t.Fatalf("%+v, %v", rep, err)
		}
		want(t, "sent", w.sent(), [][]string{{"/1", "/2"}})
		want(t, "left", w.paths(), []string{"/3", "/4"})
	})
}
