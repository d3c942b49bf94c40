// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/plan"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// reached tells which paths the items that CloudFront has reach.
func reached(items, paths []string) []string {
	var out []string
	for _, p := range paths {
		for _, text := range items {
			if it, err := cfpath.ParseItem(text); err == nil && it.Matches(p) {
				out = append(out, p)
				break
			}
		}
	}
	return out
}

// A dispatcher is killed before each of its writes in turn, and meanwhile more is
// sighted: both together keep to what was asked for, and leave nothing stale.
func TestBudgetsHoldOverACrash(t *testing.T) {
	numbers := dispatch.Request{Selector: selector.Selector{Regexps: []string{"/[0-9]$"}}, AssumeComplete: true, Batch: 1}
	for _, c := range []struct {
		name  string
		limit func(*dispatch.Request)
	}{
		{"collateral", func(r *dispatch.Request) { r.MaxCollateral = &plan.Budget{Entries: 2} }},
		{"a share", func(r *dispatch.Request) { r.MaxCollateral = &plan.Budget{Percent: 20} }}, // of 10: 2
		{"items", func(r *dispatch.Request) { r.MaxItems = new(5) }},
		{"wildcards", func(r *dispatch.Request) { r.MaxCollateral, r.MaxWildcards = &plan.Budget{Entries: 4}, new(2) }},
	} {
		for n := int64(1); ; n++ {
			finished := false
			inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
				paths := []string{"/a/1", "/a/2", "/a/3", "/a/x", "/b/1", "/b/2", "/b/3", "/b/x", "/c/1", "/c/2", "/c/3", "/c/x", "/d/1", "/d/x", "/d/y", "/e"}
				w.record(paths...)
				r := numbers
				c.limit(&r)
				p, err := w.dispatcher().Plan(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				inv, err := w.dispatcher().Open(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				rep, whole := w.killed(inv.ID, n)
				finished = whole
				want(t, fmt.Sprintf("%s: killed at write %d", c.name, n), rep.State, journal.Completed)
				sent := w.allSent()
				hit := reached(sent, paths)
				collateral, wildcards := 0, 0
				for _, path := range paths {
					selected := path[len(path)-1] <= '9'
					if was := slices.Contains(hit, path); selected && !was {
						t.Errorf("%s: killed at write %d: %v leave %s", c.name, n, sent, path)
					} else if was && !selected {
						collateral++
					}
				}
				for _, it := range sent {
					if strings.HasSuffix(it, "*") {
						wildcards++
					}
				}
				if len(sent) != p.Totals.Items || collateral > p.Totals.Collateral || wildcards > p.Totals.Wildcards {
					t.Errorf("%s: killed at write %d: sent %v, which hits %d beside; planned were %d items, %d wildcards and %d", c.name, n, sent, collateral,
						p.Totals.Items, p.Totals.Wildcards, p.Totals.Collateral)
				}
			})
			if finished {
				if n < 12 {
					t.Errorf("%s: only %d writes", c.name, n)
				}
				break
			}
		}
	}
}

// What appears under a wildcard between plan and sending counts against the budget.
func TestCollateralThatAppearsLater(t *testing.T) {
	for _, c := range []struct {
		budget int
		sent   []string
		state  journal.State
	}{
		{1, []string{"/a/*", "/b/1", "/b/2", "/b/3", "/c/1"}, journal.Completed}, // "/b/*" would hit two by now
		{2, []string{"/a/*", "/b/*", "/c/1"}, journal.Completed},
	} {
		inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
			w.record("/a/1", "/a/2", "/a/3", "/b/1", "/b/2", "/b/3", "/b/x", "/c/1", "/c/x", "/c/y", "/c/z")
			w.goWrong(func(op string, items []string) *simulator.Fault {
				if op == simulator.CreateInvalidation && items[0] == "/a/*" {
					w.recordAt(time.Now(), "/b/y")
				}
				return nil
			})
			r := dispatch.Request{Selector: selector.Selector{Regexps: []string{"/[0-9]$"}}, AssumeComplete: true, Batch: 1,
				MaxCollateral: &plan.Budget{Entries: c.budget}}
			rep := w.invalidate(r)
			want(t, "state", rep.State, c.state)
			want(t, fmt.Sprintf("sent with a budget of %d", c.budget), w.allSent(), c.sent)
		})
	}
}

func TestOverBudgetIsNotSent(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/a/1", "/b/1", "/c/1", "/x")
		r := dispatch.Request{Selector: selector.Selector{Regexps: []string{"1"}}, MaxItems: new(2)} // coverage is not complete: no wildcards
		p, err := w.dispatcher().Plan(t.Context(), r)
		if err != nil || p.OverBudget(r.Planning()) == "" {
			t.Fatalf("%+v, %v", p.Plan, err)
		}
		rep := w.invalidate(r)
		want(t, "state", rep.State, journal.Failed)
		want(t, "code", rep.Code, journal.CodeOverBudget)
		want(t, "sent", w.allSent(), nil)
		if !strings.Contains(rep.Error, "3 items") || !strings.Contains(rep.Error, "nothing was sent") {
			t.Errorf("says %q", rep.Error)
		}
		if inv, err := w.dispatcher().Journal().Reopen(t.Context(), rep.ID); err != nil || inv.State != journal.Failed {
			t.Errorf("reopened: %v, %v", inv.State, err)
		}
	})
}

// A selector of very many patterns is written once, and not with each batch.
func TestALargeSelector(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		var paths []string
		for i := range 1500 {
			paths = append(paths, fmt.Sprintf("/ü%04d*x/%04d", i, i))
		}
		w.record("/%C3%BC0007ax/0007", "/%C3%BC1499bx/1499", "/%C3%BC0008ax/0007")
		r := pattern(paths...)
		r.Batch = 1
		inv, err := w.dispatcher().Open(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		docs, err := w.st.List(t.Context(), dist, "inv/", "", 0)
		if err != nil || len(docs) != 1 || len(docs[0].Value) > 2000 {
			t.Fatalf("%d documents, %v", len(docs), err)
		}
		// Another process sees it, once it is loaded, and till then nothing less.
		j := journal.Open(w.st, dist)
		seen, err := j.Invalidation(t.Context(), inv.ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := seen.Compile(); err == nil {
			t.Error("compiled without being loaded")
		}
		for range 2 { // from the store, and from memory
			if err := j.Load(t.Context(), seen); err != nil {
				t.Fatal(err)
			}
			c, err := seen.Compile()
			if err != nil || !c.MaySelect("/%C3%BC0007ax/0007") || c.MaySelect("/%C3%BC0008ax/0007") || !slices.Equal(seen.Selector.Patterns, paths) {
				t.Fatalf("%v", err)
			}
			if seen, err = j.Invalidation(t.Context(), inv.ID); err != nil {
				t.Fatal(err)
			}
		}
		st := &dying{Store: w.st}
		st.left.Store(6)
		if _, err := dispatch.New(st, dist, w.cdn, nil).Drive(t.Context(), inv.ID, dispatch.UntilDone, nil); !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		rep, err := w.dispatcher().Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
		if err != nil || rep.State != journal.Completed || !strings.HasSuffix(rep.Selector, "'/ü0007*x/0007' ... and 1492 more") {
			t.Fatalf("%+v, %v", rep, err)
		}
		want(t, "sent", w.allSent(), []string{"/%C3%BC0007ax/0007", "/%C3%BC1499bx/1499"})

		// A store that lost a part of it: nothing is taken for not selected.
		parts, err := w.st.List(t.Context(), dist, "sel/", "", 0)
		if err != nil || len(parts) == 0 {
			t.Fatalf("%d parts, %v", len(parts), err)
		}
		if _, err := w.st.Commit(t.Context(), dist, store.Transaction{Delete: []string{parts[0].Key}}); err != nil {
			t.Fatal(err)
		}
		if seen, err = journal.Open(w.st, dist).Invalidation(t.Context(), inv.ID); err != nil {
			t.Fatal(err)
		}
		if err := journal.Open(w.st, dist).Load(t.Context(), seen); err != nil {
			t.Fatal(err)
		}
		if _, err := seen.Compile(); err == nil || !strings.Contains(err.Error(), "0 of its 1 documents") {
			t.Errorf("without a part: %v", err)
		}
	})
}

func TestTwinsArePointedOut(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/a", "/a/", "/a/index.html", "/b")
		r := pattern("/a")
		r.Twins = selector.DefaultTwins()
		p, err := w.dispatcher().Plan(t.Context(), r)
		if err != nil || p.Twins.Count != 2 || p.Twins.First[0] != "/a/" {
			t.Fatalf("%+v, %v", p, err)
		}
		i := slices.IndexFunc(p.Warnings, func(x plan.Warning) bool { return x.Code == dispatch.WarnTwins })
		if i < 0 || !strings.HasPrefix(p.Warnings[i].Message, "2 entries such as /a/ are") {
			t.Errorf("warnings %+v", p.Warnings)
		}
		r.Selector.Twins = r.Twins
		if p, err = w.dispatcher().Plan(t.Context(), r); err != nil || p.Twins.Count != 0 || p.Totals.Items != 3 {
			t.Errorf("selected: %+v, %v", p, err)
		}
		want(t, "state", w.invalidate(r).State, journal.Completed)
		want(t, "left", w.paths(), []string{"/b"})
	})
}
