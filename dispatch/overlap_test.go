// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// Two invalidations that overlap and are under way together do not send, or pay
// for, the same path twice.
func TestOverlappingInvalidationsSendNothingTwice(t *testing.T) {
	inWorld(t, simulator.Options{Completion: 5 * time.Second}, func(t *testing.T, w *world) {
		w.record(slices.Concat(paths("/a", 500), paths("/b", 500), paths("/c", 500))...)
		d := w.dispatcher()
		request := func(prefixes ...string) dispatch.Request {
			return dispatch.Request{Selector: selector.Selector{Prefixes: prefixes}, Exact: true}
		}
		first, err := d.Open(t.Context(), request("/a/", "/b/"))
		if err != nil {
			t.Fatal(err)
		}
		second, err := d.Open(t.Context(), request("/b/", "/c/"))
		if err != nil {
			t.Fatal(err)
		}
		// What is named goes out all the same.
		named, err := d.Open(t.Context(), pattern("/b/00007"))
		if err != nil {
			t.Fatal(err)
		}
		saved := 0
		for _, inv := range []*journal.Invalidation{first, second, named} {
			rep, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
			if err != nil || rep.State != journal.Completed {
				t.Fatalf("%+v, %v", rep, err)
			}
			saved += rep.Saved.Items
			if rep.Saved.Items != rep.Saved.Entries {
				t.Errorf("%+v", rep.Saved)
			}
		}
		seen := make(map[string]int)
		for _, it := range slices.Concat(w.sent()...) {
			seen[it]++
		}
		twice := 0
		for it, n := range seen {
			if n > 1 && it != "/b/00007" {
				twice++
			}
		}
		if len(seen) != 1500 || twice > 0 || saved < 499 || len(w.paths()) != 0 {
			t.Errorf("%d paths, %d of them sent twice, %d saved, %d left", len(seen), twice, saved, len(w.paths()))
		}
	})
}

// What stands in a batch that CloudFront puts off is not sent by another meanwhile.
func TestWhatIsPutOffIsNotSentByAnother(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record(paths("/a", 20)...)
		busy := time.Now().Add(10 * time.Second)
		w.goWrong(func(op string, _ []string) *simulator.Fault {
			if op == simulator.CreateInvalidation && time.Now().Before(busy) {
				return simulator.ServiceUnavailable()
			}
			return nil
		})
		d := w.dispatcher()
		var opened []*journal.Invalidation
		for range 3 {
			inv, err := d.Open(t.Context(), dispatch.Request{Selector: selector.Selector{Prefixes: []string{"/a/"}}, Exact: true})
			if err != nil {
				t.Fatal(err)
			}
			opened = append(opened, inv)
		}
		for _, inv := range opened {
			if rep, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil); err != nil || rep.State != journal.Completed {
				t.Errorf("%+v, %v", rep, err)
			}
		}
		if w.sim.Billed() != 20 {
			t.Errorf("%d items were sent for 20 paths", w.sim.Billed())
		}
	})
}

// Under complete coverage, what a batch under way removes is not planned again,
// whoever plans; the invalidation waits for that batch.
func TestWhatIsUnderWayIsNotPlannedAgain(t *testing.T) {
	inWorld(t, simulator.Options{Propagation: -1, Completion: 40 * time.Second}, func(t *testing.T, w *world) {
		none := 0
		all := dispatch.Request{Selector: selector.Selector{Patterns: []string{"/*"}}}
		var acks atomic.Uint64
		acks.Store(99)
		w.session("web", &acks)
		w.drive(w.dispatcher(), all) // makes the coverage complete
		w.record("/p/1", "/p/2", "/p/3", "/q")
		d := w.dispatcher()
		// The batch is accepted, and its dispatcher dies before it has cleared anything.
		inv, err := d.Open(t.Context(), pattern("/p/1", "/p/2"))
		if err != nil {
			t.Fatal(err)
		}
		accepted := &clearless{Store: w.st}
		if _, err := dispatch.New(accepted, dist, w.cdn, nil).Drive(t.Context(), inv.ID, dispatch.UntilAccepted, nil); !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		sent := time.Now()
		w.recordAt(time.Now(), "/p/2") // sighted since
		r := dispatch.Request{Selector: selector.Selector{Regexps: []string{"^/p/[12]$"}}, FreePaths: &none}
		p, err := d.Plan(t.Context(), r)
		if err != nil || !p.Coverage.Complete || p.Totals.Items != 1 || p.Items[0].Item.Text != "/p/2" ||
			p.Saved.Entries != 1 || p.Saved.Items != 1 || p.Saved.Price != 0.005 {
			t.Fatalf("%+v, saved %+v, coverage %+v, %v", p.Totals, p.Saved, p.Coverage, err)
		}
		twice := r
		twice.RepeatAfter = time.Minute
		if p, err := d.Plan(t.Context(), twice); err != nil || p.Totals.Items != 2 || p.Saved.Items != 0 {
			t.Errorf("what is to go out twice leaves it to another: %+v, %v", p.Totals, err)
		}
		r.Selector.Regexps = []string{"^/p/1$"}
		rep := w.drive(d, r)
		if rep.State != journal.Completed || rep.Items != 0 {
			t.Errorf("%+v", rep)
		}
		if took := time.Since(sent); took < 35*time.Second {
			t.Errorf("completed %v after the batch it relied on was sent", took)
		}
	})
}

// clearless is a store whose process dies when it is to clear.
type clearless struct{ store.Store }

func (clearless) Clear(context.Context, string, []store.Condition) (int, error) { return 0, errKilled }

// Items in doubt are not taken for sent because another batch named them.
func TestWhatIsInDoubtIsNotSaved(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		doubtful := "/it%27s"
		if !cfpath.InDoubt(doubtful) {
			t.Fatal("no longer in doubt")
		}
		w.record(doubtful)
		for range 2 {
			if rep := w.drive(w.dispatcher(), dispatch.Request{Selector: selector.Selector{Prefixes: []string{"/it"}}}); rep.Saved.Entries != 0 {
				t.Errorf("%+v", rep)
			}
		}
		if w.sim.Billed() != 2 {
			t.Errorf("billed %d", w.sim.Billed())
		}
	})
}
