// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
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

// documents returns what the store has of invalidations and batches.
func (w *world) documents() map[string][]byte {
	w.t.Helper()
	docs := map[string][]byte{}
	for _, dir := range []string{"inv/", "bat/"} {
		all, err := w.st.List(context.Background(), dist, dir, "", 0)
		if err != nil {
			w.t.Error(err)
		}
		for _, d := range all {
			docs[d.Key] = d.Value
		}
	}
	return docs
}

// goBack has the store forget what it learned of invalidations since.
func (w *world) goBack(to map[string][]byte) {
	w.t.Helper()
	var t store.Transaction
	for key := range w.documents() {
		if _, ok := to[key]; !ok {
			t.Delete = append(t.Delete, key)
		}
	}
	for key, value := range to {
		t.Put = append(t.Put, store.Put{Key: key, Value: value})
	}
	if len(t.Delete) == 0 {
		w.t.Fatal("nothing is lost")
	}
	if _, err := w.st.Commit(w.t.Context(), dist, t); err != nil {
		w.t.Fatal(err)
	}
}

// interrupt opens an invalidation of 40 paths in 8 batches and drives it until
// CloudFront has five; it returns its ID and what the store knew at the second.
func (w *world) interrupt() (id string, then map[string][]byte) {
	w.t.Helper()
	var all []string
	for i := range 40 {
		all = append(all, fmt.Sprintf("/page/%02d", i))
	}
	w.record(all...)
	ctx, cancel := context.WithCancel(w.t.Context())
	var mu sync.Mutex
	calls := 0
	w.goWrong(func(op string, _ []string) *simulator.Fault {
		mu.Lock()
		defer mu.Unlock()
		if op != simulator.CreateInvalidation {
			return nil
		}
		switch calls++; calls {
		case 2:
			then = w.documents()
		case 5:
			cancel()
			return simulator.LostAnswer()
		}
		return nil
	})
	d := w.dispatcher()
	inv, err := d.Open(w.t.Context(), dispatch.Request{Selector: selector.Selector{All: true}, Exact: true, Batch: 5})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := d.Drive(ctx, inv.ID, dispatch.UntilDone, nil); !errors.Is(err, dispatch.ErrUndone) {
		w.t.Fatal(err)
	}
	synctest.Wait() // until CloudFront has done what it was asked to
	w.goWrong(nil)
	return inv.ID, then
}

// once checks that everything was sent, and nothing twice.
func (w *world) once(r *dispatch.Report) {
	w.t.Helper()
	sent := slices.Concat(w.sent()...)
	slices.Sort(sent)
	if n := len(sent); n != 40 || len(slices.Compact(sent)) != 40 {
		w.t.Errorf("%d items sent: %q", n, sent)
	}
	if r.State != journal.Completed || r.Items != 40 || len(w.paths()) != 0 {
		w.t.Errorf("%+v, %q left", r, w.paths())
	}
}

// A store that fails over to a copy that was behind forgets batches that
// CloudFront has. They are found there and not paid for again.
func TestForgottenBatchesAreFound(t *testing.T) {
	for name, trouble := range map[string]fault{
		"at once": nil,
		"after CloudFront had trouble": func() fault {
			var mu sync.Mutex
			refused := 0
			return func(op string, _ []string) *simulator.Fault {
				mu.Lock()
				defer mu.Unlock()
				if op != simulator.ListInvalidations && op != simulator.GetInvalidation || refused > 4 {
					return nil
				}
				refused++
				return simulator.Throttling()
			}
		}(),
		"after it listed what it did not know yet": func() fault {
			var asked atomic.Int64
			return func(op string, _ []string) *simulator.Fault {
				if op == simulator.GetInvalidation && asked.Add(1) <= 2 {
					return &simulator.Fault{Status: http.StatusNotFound, Code: "NoSuchInvalidation", Message: "The specified invalidation does not exist."}
				}
				return nil
			}
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
				id, then := w.interrupt()
				w.goBack(then)
				w.goWrong(trouble)
				r, err := w.dispatcher().Drive(t.Context(), id, dispatch.UntilDone, nil)
				if err != nil {
					t.Fatal(err)
				}
				w.once(r)
				for _, b := range r.Batches {
					if b.State != journal.BatchDone || b.InvalidationID == "" {
						t.Errorf("%+v", b)
					}
				}
			})
		})
	}
}

// What was forgotten is taken to have been sent as early as it can have been:
// what was sighted since counts as not purged.
func TestForgottenBatchesSettleNothingYoung(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		id, then := w.interrupt()
		w.goBack(then)
		young := "/page/39"
		for _, items := range w.sent() {
			young = items[0]
		}
		w.recordAt(time.Now(), young)
		if _, err := w.dispatcher().Drive(t.Context(), id, dispatch.UntilDone, nil); err != nil {
			t.Fatal(err)
		}
		want(t, "left", w.paths(), []string{young})
	})
}

// Who may not list goes on all the same: the references of what the journal has
// are what there is.
func TestForgottenBatchesWithoutPermission(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		id, _ := w.interrupt()
		w.goWrong(func(op string, _ []string) *simulator.Fault {
			if op == simulator.ListInvalidations {
				return simulator.AccessDenied()
			}
			return nil
		})
		r, err := w.dispatcher().Drive(t.Context(), id, dispatch.UntilDone, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.once(r)
		if n := w.sim.Calls()[simulator.ListInvalidations]; n != 1 {
			t.Errorf("%d calls of what is not allowed", n)
		}
	})
}

// A dispatcher does not look for what it has just begun.
func TestNothingIsLookedForAtFirst(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/a")
		w.invalidate(pattern("/a"))
		if n := w.sim.Calls()[simulator.ListInvalidations]; n != 0 {
			t.Errorf("%d calls of ListInvalidations", n)
		}
	})
}

// What is listed and cannot be had at all holds nothing up.
func TestWhatIsListedAndGoneIsPassedOver(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		inv, err := w.dispatcher().Open(t.Context(), pattern("/a"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.sim.Invalidate("/somebody/elses"); err != nil {
			t.Fatal(err)
		}
		w.goWrong(func(op string, _ []string) *simulator.Fault {
			if op == simulator.GetInvalidation && len(w.sim.Invalidations()) == 1 {
				return &simulator.Fault{Status: http.StatusNotFound, Code: "NoSuchInvalidation", Message: "The specified invalidation does not exist."}
			}
			return nil
		})
		start := time.Now()
		rep, err := w.dispatcher().Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
		if took := time.Since(start); err != nil || rep.State != journal.Completed || took > time.Minute {
			t.Errorf("%+v after %v, %v", rep, took, err)
		}
	})
}
