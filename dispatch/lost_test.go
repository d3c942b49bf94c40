// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch_test

import (
	"context"
	"errors"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/memstore"
)

// losing is a store that can lose its data: some, so that only its epoch tells, or
// all of it.
type losing struct {
	mu    sync.Mutex
	store store.Store
	epoch string
}

func (s *losing) now() store.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store
}

func (s *losing) Now(ctx context.Context) (time.Time, error) { return s.now().Now(ctx) }
func (s *losing) Merge(ctx context.Context, d string, u []inventory.Update) error {
	return s.now().Merge(ctx, d, u)
}
func (s *losing) Scan(ctx context.Context, d string, r store.Range) iter.Seq2[inventory.Entry, error] {
	return s.now().Scan(ctx, d, r)
}
func (s *losing) Clear(ctx context.Context, d string, c []store.Condition) (int, error) {
	return s.now().Clear(ctx, d, c)
}
func (s *losing) Sweep(ctx context.Context, d string, now time.Time) (int, error) {
	return s.now().Sweep(ctx, d, now)
}
func (s *losing) List(ctx context.Context, d, prefix, after string, limit int) ([]store.Document, error) {
	return s.now().List(ctx, d, prefix, after, limit)
}
func (s *losing) Commit(ctx context.Context, d string, t store.Transaction) (uint64, error) {
	return s.now().Commit(ctx, d, t)
}
func (s *losing) Status(ctx context.Context) (store.Status, error) {
	st, err := s.now().Status(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Epoch += s.epoch
	return st, err
}
func (s *losing) Close() error { return s.now().Close() }

func (s *losing) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// A batch whose answer may have gone with other data is looked for before it is
// sent again, however young it is.
func TestAfterALossOfDataBatchesAreLookedFor(t *testing.T) {
	for _, lost := range []bool{false, true} {
		inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
			st := &losing{store: w.st}
			open := func() *dispatch.Dispatcher { return dispatch.New(st, dist, w.cdn, nil) }
			w.record("/a")
			w.goWrong(func(op string, _ []string) *simulator.Fault {
				if op == simulator.CreateInvalidation {
					return simulator.LostAnswer()
				}
				return nil
			})
			d := open()
			inv, err := d.Open(t.Context(), pattern("/a"))
			if err != nil {
				t.Fatal(err)
			}
			c, stop := context.WithTimeout(t.Context(), 5*time.Second)
			defer stop()
			if _, err := d.Drive(c, inv.ID, dispatch.UntilDone, nil); !errors.Is(err, dispatch.ErrUndone) {
				t.Fatal(err)
			}
			if lost {
				st.set(func() { st.epoch = "another" })
			}
			w.goWrong(nil)
			calls := w.sim.Calls()[simulator.CreateInvalidation]
			rep, err := open().Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
			if err != nil || rep.State != journal.Completed || w.sim.Billed() != 1 {
				t.Fatalf("%+v, %v, billed %d", rep, err, w.sim.Billed())
			}
			if again := w.sim.Calls()[simulator.CreateInvalidation] - calls; (again == 0) != lost {
				t.Errorf("data lost: %v, and sent again %d times", lost, again)
			}

			// What is saved later is sent without looking.
			found := w.sim.Calls()[simulator.ListInvalidations]
			if rep, err = open().Invalidate(t.Context(), pattern("/b")); err != nil || rep.State != journal.Completed {
				t.Fatalf("%+v, %v", rep, err)
			}
			if n := w.sim.Calls()[simulator.ListInvalidations]; lost && n != found {
				t.Errorf("looked %d times for what was saved since", n-found)
			}
		})
	}
}

// An invalidation that the store loses while it is driven is not passed over.
func TestALostInvalidationIsSaid(t *testing.T) {
	for name, after := range map[string]func(*testing.T, *losing){
		"all is gone": func(*testing.T, *losing) {},
		"its number is another's": func(t *testing.T, st *losing) {
			if _, err := dispatch.New(st, dist, nil, nil).Open(t.Context(), pattern("/b")); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, simulator.Options{Completion: time.Minute}, func(t *testing.T, w *world) {
				st := &losing{store: w.st}
				empty := memstore.New()
				defer empty.Close()
				time.AfterFunc(10*time.Second, func() {
					after(t, &losing{store: empty})
					st.set(func() { st.store = empty })
				})
				rep, err := dispatch.New(st, dist, w.cdn, nil).Invalidate(t.Context(), pattern("/a"))
				if !errors.Is(err, dispatch.ErrGone) || errors.Is(err, dispatch.ErrUndone) {
					t.Fatalf("%v", err)
				}
				if rep == nil || rep.Items != 1 || rep.State != journal.Propagating {
					t.Errorf("%+v", rep)
				}
			})
		})
	}
}

// A lease that is held does not prove that nothing was lost: a store that went back
// may have given its version once more.
func TestAnInvalidationThatIsLostWithoutItsLeaseIsSaid(t *testing.T) {
	inWorld(t, simulator.Options{Completion: time.Minute}, func(t *testing.T, w *world) {
		time.AfterFunc(5*time.Second, func() {
			docs, err := w.st.List(context.Background(), dist, "inv/", "", 2)
			if err != nil || len(docs) != 1 {
				t.Errorf("%d invalidations, %v", len(docs), err)
				return
			}
			if _, err := w.st.Commit(context.Background(), dist, store.Transaction{Delete: []string{docs[0].Key}}); err != nil {
				t.Error(err)
			}
		})
		c, stop := context.WithTimeout(t.Context(), time.Hour)
		defer stop()
		if _, err := dispatch.New(w.st, dist, w.cdn, nil).Invalidate(c, pattern("/a")); !errors.Is(err, dispatch.ErrGone) {
			t.Errorf("%v", err)
		}
	})
}
