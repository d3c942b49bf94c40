// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/plan"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// tagged puts entries into the inventory, with a tag unless their name ends in "untagged".
func (w *world) tagged(paths ...string) {
	w.t.Helper()
	var us []inventory.Update
	at := time.Now().Add(-time.Hour)
	for _, p := range paths {
		s := inventory.Sighting{Path: p, Start: at, End: at, Expires: at.Add(9 * time.Hour), Tags: []string{"x"}}
		if strings.HasSuffix(p, "untagged") {
			s.Tags = nil
		}
		us = append(us, inventory.Update{Path: p, Record: s.Record()})
	}
	if err := w.st.Merge(w.t.Context(), dist, us); err != nil {
		w.t.Fatal(err)
	}
}

func invalidArgument() *simulator.Fault {
	return &simulator.Fault{Status: http.StatusBadRequest, Code: "InvalidArgument", Message: "Your request contains one or more invalid invalidation paths."}
}

// refuseSplit refuses every batch of more than one item, and calls f at the first.
func (w *world) refuseSplit(f func()) {
	first := true
	w.goWrong(func(op string, items []string) *simulator.Fault {
		if op != simulator.CreateInvalidation || len(items) == 1 {
			return nil
		}
		if first {
			first = false
			f()
		}
		return invalidArgument()
	})
}

// A batch that is split is saved anew: what has come under its wildcards since is not
// hit, and what they were for goes out by name.
func TestASplitBatchIsCheckedOnceMore(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.tagged("/b/1", "/b/2", "/c/1", "/c/2", "/d/untagged")
		w.refuseSplit(func() { w.recordAt(time.Now(), "/c/3untagged") })
		rep := w.drive(w.inRequestsOf(1000), dispatch.Request{Selector: selector.Selector{Tags: []string{"x"}}, AssumeComplete: true})
		if rep.State != journal.Completed || rep.Items != 3 {
			t.Errorf("%s, %d items", rep.State, rep.Items)
		}
		sent := slices.Concat(w.sent()...)
		slices.Sort(sent)
		want(t, "sent", sent, []string{"/b/*", "/c/1", "/c/2"})
		want(t, "left", w.paths(), []string{"/c/3untagged", "/d/untagged"})
	})
}

// What was left out and is clean again when the rest is planned may go out as it was.
func TestWhatASplitLeftOutMayGoOutYet(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.tagged("/b/1", "/b/2", "/c/1", "/c/2", "/d/untagged")
		sight := func() { w.recordAt(time.Now(), "/c/3untagged") }
		calls := 0
		w.goWrong(func(op string, items []string) *simulator.Fault {
			switch {
			case op != simulator.CreateInvalidation:
			case len(items) > 1:
				sight()
				return invalidArgument()
			default:
				if calls++; calls == 1 {
					gone := []store.Condition{{Path: "/c/3untagged", Before: time.Now().Add(time.Hour)}}
					if n, err := w.st.Clear(t.Context(), dist, gone); n != 1 || err != nil {
						t.Error(n, err)
					}
				}
			}
			return nil
		})
		w.drive(w.inRequestsOf(1000), dispatch.Request{Selector: selector.Selector{Tags: []string{"x"}}, AssumeComplete: true})
		want(t, "sent", w.sent(), [][]string{{"/b/*"}, {"/c/*"}})
		want(t, "left", w.paths(), []string{"/d/untagged"})
	})
}

// Of a plan file an item is left out, and said to be, where it reaches by now what the
// file does not name; also by who took over from the one who planned.
func TestASplitPlanFileKeepsToIt(t *testing.T) {
	for _, name := range []string{"same process", "another goes on"} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
				w.tagged("/b/1", "/b/2", "/b/3", "/b/untagged", "/c/1", "/c/2", "/c/3", "/d/untagged")
				r := dispatch.Request{Selector: selector.Selector{Tags: []string{"x"}}, AssumeComplete: true,
					MaxCollateral: &plan.Budget{Entries: 1}}
				d := w.inRequestsOf(1000)
				p, err := d.Plan(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				f, err := d.PlanFile(t.Context(), r, p)
				if err != nil || len(f.Collateral) != 1 || len(f.Plan.Items) != 2 {
					t.Fatalf("%+v, %v", f, err)
				}
				inv, err := d.Open(t.Context(), dispatch.Request{Plan: f})
				if err != nil {
					t.Fatal(err)
				}
				if name == "another goes on" {
					w.goWrong(func(op string, _ []string) *simulator.Fault {
						if op == simulator.CreateInvalidation {
							return simulator.Throttling()
						}
						return nil
					})
					ctx, stop := context.WithTimeout(t.Context(), 5*time.Second)
					defer stop()
					if _, err := d.Drive(ctx, inv.ID, dispatch.UntilDone, nil); !errors.Is(err, dispatch.ErrUndone) {
						t.Fatal(err)
					}
					d = w.inRequestsOf(1000)
				}
				w.refuseSplit(func() { w.recordAt(time.Now(), "/c/4untagged") })
				rep, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
				if err != nil || rep.State != journal.Partial || len(rep.Uncovered) != 1 || rep.Uncovered[0].Item != "/c/*" {
					t.Fatalf("%+v, %v", rep, err)
				}
				want(t, "sent", w.sent(), [][]string{{"/b/*"}})
			})
		})
	}
}

// The halves of a batch use what it was planned to hit beside, and no more, whatever has
// come since: who plans the rest has what is left of it.
func TestASplitBatchKeepsToItsBudget(t *testing.T) {
	dirs := []string{"/a", "/b", "/c", "/d"}
	for _, c := range []struct {
		name      string
		since     []string
		wildcards int
	}{
		{"nothing came", nil, 2},
		{"some came", []string{"/a/2untagged", "/b/2untagged", "/c/2untagged", "/d/2untagged"}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
				for _, dir := range dirs {
					w.tagged(dir+"/1", dir+"/2", dir+"/3", dir+"/4", dir+"/untagged")
				}
				w.tagged("/untagged")
				r := dispatch.Request{Selector: selector.Selector{Tags: []string{"x"}}, AssumeComplete: true,
					MaxCollateral: &plan.Budget{Entries: 2}, Batch: 2}
				inv, err := w.dispatcher().Open(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				w.refuseSplit(func() {
					if c.since != nil {
						w.tagged(c.since...)
					}
				})
				// Each goes on after the one before it was killed.
				for left := int64(2); ; left++ {
					st := &dying{Store: w.st}
					st.left.Store(left)
					d := dispatch.New(st, dist, w.cdn, &dispatch.Options{Limits: plan.Limits{Burst: 1000. / 150}})
					rep, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
					if err == nil {
						if want := c.wildcards + 4*(4-c.wildcards); rep.State != journal.Completed || rep.Items != want {
							t.Errorf("%s, %d items, not %d", rep.State, rep.Items, want)
						}
						break
					}
					if !errors.Is(err, errKilled) {
						t.Fatal(err)
					}
				}
				wild := 0
				for _, it := range slices.Concat(w.sent()...) {
					if strings.HasSuffix(it, "*") {
						wild++
					}
				}
				if wild != c.wildcards {
					t.Errorf("%d wildcards, not %d: %v", wild, c.wildcards, w.sent())
				}
			})
		})
	}
}
