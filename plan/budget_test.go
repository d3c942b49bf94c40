// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"maps"
	"math/bits"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
)

// A bill is what a set of items comes to.
type bill struct{ uncovered, items, collateral, wildcards int }

// A ledger has the bills of all sets of items that could be sent, found by trying
// them all. Of sets that reach the same, only those of the fewest items count.
type ledger struct {
	bills map[bill]bool
}

// newLedger tries all sets of exact paths and wildcards beside the named items.
func newLedger(paths map[string]bool, named []cfpath.Item, scope []string) *ledger {
	return newLedgerOf(paths, named, scope, nil)
}

// newLedgerOf tries all sets of the tags of these entries too.
func newLedgerOf(paths map[string]bool, named []cfpath.Item, scope []string, tagged map[string]inventory.Entry) *ledger {
	all := slices.Sorted(maps.Keys(paths))
	selected, free := uint(0), uint(0) // free: reached by what is named
	must := uint(0)                    // only what cannot be named may be left uncovered
	wildcards := 0
	for _, it := range named {
		if it.Kind == cfpath.Wildcard {
			wildcards++
		}
	}
	reach := func(it cfpath.Item) (mask uint) {
		for i, p := range all {
			if it.Matches(p) && !(paths[p] && spares(it, p)) {
				mask |= 1 << i
			}
		}
		return mask
	}
	for i, p := range all {
		if paths[p] {
			selected |= 1 << i
		}
	}
	for _, it := range named {
		free |= reach(it)
	}
	type state struct {
		mask      uint
		wildcards int
	}
	// Of those that reach the same, one path is as good as any.
	candidates := map[state]bool{}
	for _, p := range all {
		if !paths[p] {
			continue
		}
		if _, err := cfpath.Name(p); err == nil {
			it := cfpath.Item{Kind: cfpath.Path, Text: p}
			candidates[state{reach(it), 0}] = true
			must |= reach(it)
		}
		for n := 1; n <= len(p); n++ {
			if it := (cfpath.Item{Kind: cfpath.Wildcard, Text: p[:n]}); stemmable(it.Text) && inScope(it.Text, scope) {
				candidates[state{reach(it), 1}] = true
			}
		}
	}
	for _, e := range tagged {
		for _, tag := range e.Tags {
			mask := uint(0)
			for i, p := range all {
				if o := tagged[p]; carries(&o, tag) && (!paths[p] || !o.Mixed) {
					mask |= 1 << i
				}
			}
			candidates[state{mask, 0}] = true
		}
	}
	least := map[state]int{{free, 0}: 0}
	for c := range candidates {
		for s, n := range maps.Clone(least) {
			next := state{s.mask | c.mask, s.wildcards + c.wildcards}
			if had, ok := least[next]; !ok || n+1 < had {
				least[next] = n + 1
			}
		}
	}
	l := &ledger{bills: map[bill]bool{}}
	for s, n := range least {
		if must&^s.mask != 0 {
			continue
		}
		l.bills[bill{bits.OnesCount(selected &^ s.mask), n + len(named), bits.OnesCount(s.mask &^ selected &^ free), s.wildcards + wildcards}] = true
	}
	return l
}

// best is the best bill within the caps, negative being none, and whether there is one; if
// not, it is the best without the cap on items.
func (l *ledger) best(items, collateral, wildcards int, objective string) (bill, bool) {
	within := func(capItems bool) []bill {
		var out []bill
		for b := range l.bills {
			if (!capItems || items < 0 || b.items <= items) && (collateral < 0 || b.collateral <= collateral) && (wildcards < 0 || b.wildcards <= wildcards) {
				out = append(out, b)
			}
		}
		return out
	}
	order := func(objective string) func(a, b bill) int {
		return func(a, b bill) int {
			if objective == ObjectiveCollateral {
				return cmp.Or(cmp.Compare(a.uncovered, b.uncovered), cmp.Compare(a.collateral, b.collateral),
					cmp.Compare(a.items, b.items), cmp.Compare(a.wildcards, b.wildcards))
			}
			return cmp.Or(cmp.Compare(a.uncovered, b.uncovered), cmp.Compare(a.items, b.items),
				cmp.Compare(a.collateral, b.collateral), cmp.Compare(a.wildcards, b.wildcards))
		}
	}
	// As little as can be is uncovered before items count.
	best := slices.MinFunc(within(false), order(ObjectiveItems))
	if objective == ObjectiveItems || items < best.items {
		return best, items < 0 || best.items <= items
	}
	return slices.MinFunc(within(true), order(objective)), true
}

func toBill(p *Plan) bill {
	t := &p.Totals
	return bill{t.Uncovered, t.Items, t.Collateral, t.Wildcards}
}

// audit evaluates a plan independently of how it was found.
func audit(t interface{ Errorf(string, ...any) }, paths map[string]bool, p *Plan) {
	reached := map[string]bool{}
	for i, it := range p.Items {
		covers, collateral := 0, 0
		for q, selected := range paths {
			switch {
			case !it.Item.Matches(q):
			case selected:
				covers++
				reached[q] = reached[q] || !spares(it.Item, q)
			default:
				collateral++
				reached[q] = true
			}
		}
		if covers != it.Covers || collateral != it.Collateral {
			t.Errorf("%s covers %d-%d, said to be %d-%d", it.Item, covers, collateral, it.Covers, it.Collateral)
		}
		for j, other := range p.Items {
			if i != j && it.Item.Covers(other.Item) && !spares(it.Item, other.Item.Text) && other.Reason.Code != ReasonNamed {
				t.Errorf("%s covers %s", it.Item, other.Item)
			}
		}
	}
	uncovered, collateral := 0, 0
	said := map[string]bool{}
	for _, u := range p.Uncovered {
		said[u.Path] = true
	}
	for q, selected := range paths {
		if selected && !reached[q] {
			uncovered++
		}
		if !selected && reached[q] {
			collateral++
		}
		if said[q] != (selected && !reached[q]) {
			t.Errorf("%s: uncovered %v, said to be %v", q, !reached[q], said[q])
		}
	}
	if uncovered != p.Totals.Uncovered || collateral != p.Totals.Collateral {
		t.Errorf("%d uncovered and a collateral of %d; totals %+v", uncovered, collateral, p.Totals)
	}
}

// drawTree draws more paths than drawPaths, and all that can be named.
func drawTree(t *rapid.T) map[string]bool {
	part := rapid.SampledFrom([]string{"a", "b", "c", "a/", "b/", "c/"})
	path := rapid.Map(rapid.SliceOfN(part, 2, 4), func(s []string) string { return "/" + strings.Join(s, "") })
	return rapid.MapOfN(path, rapid.Bool(), 8, 12).Draw(t, "paths")
}

func doubtful(paths map[string]bool) bool {
	for p := range paths {
		if cfpath.InDoubt(p) {
			return true
		}
	}
	return false
}

func ptr[T any](v T) *T { return &v }

func capped(n int) *int {
	if n < 0 {
		return nil
	}
	return &n
}

func TestBudgets(t *testing.T) { rapid.Check(t, checkBudgets) }

func FuzzBudgets(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkBudgets)) }

func checkBudgets(t *rapid.T) {
	draw := rapid.SampledFrom([]func(*rapid.T) map[string]bool{drawPaths, drawTree}).Draw(t, "kind")
	paths := draw(t)
	named := drawNamed(t, paths)
	scope := rapid.SampledFrom([][]string{nil, nil, nil, {"/a*"}, {"/a/*", "b*"}, {"/?"}}).Draw(t, "scope")
	for _, it := range named {
		for p := range paths {
			paths[p] = paths[p] || it.Matches(p)
		}
	}
	var kept []cfpath.Item // those that others cover do not go out
	for _, it := range newNamed(named, nil).items(false) {
		kept = append(kept, it.Item)
	}
	l := newLedger(paths, kept, scope)
	for range 12 {
		checkBudget(t, l, paths, named, scope,
			rapid.IntRange(-1, 6).Draw(t, "items"), rapid.IntRange(-1, 6).Draw(t, "collateral"), rapid.IntRange(-1, 3).Draw(t, "wildcards"))
	}
}

func checkBudget(t interface {
	Errorf(string, ...any)
	Fatal(...any)
}, l *ledger, paths map[string]bool, named []cfpath.Item, scope []string, items, collateral, wildcards int) {
	opts := Options{Named: named, Wildcards: true, Scope: scope, MaxItems: capped(items), MaxWildcards: capped(wildcards)}
	if collateral >= 0 {
		opts.MaxCollateral = &Budget{Entries: collateral}
	}
	p, err := Compute(inputs(paths), opts)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Compute(inputs(paths), opts); err != nil || !reflect.DeepEqual(p, again) {
		t.Errorf("not the same twice: %+v, %v", again, err)
	}
	audit(t, paths, p)
	if collateral < 0 && items < 0 {
		collateral = 0
	}
	given := wildcards
	for _, it := range newNamed(named, nil).items(false) { // they go out whatever the cap
		if it.wildcard() {
			given--
		}
	}
	if wildcards >= 0 {
		wildcards -= min(0, given)
	}
	want, feasible := l.best(items, collateral, wildcards, opts.objective())
	if given < 0 && opts.MaxWildcards != nil {
		feasible = false
	}
	got := toBill(p)
	if doubtful(paths) {
		got.wildcards, want.wildcards = 0, 0 // that it is sure comes first
	}
	if got != want || p.Feasible != feasible {
		t.Errorf("items %d, collateral %d, wildcards %d: %+v, feasible %v; want %+v, feasible %v\n%s",
			items, collateral, wildcards, got, p.Feasible, want, feasible, say(p))
	}
	if strings.Contains(codes(p), WarnOverBudget) == p.Feasible || strings.Contains(codes(p), WarnBound) {
		t.Errorf("feasible %v, warnings %q", p.Feasible, codes(p))
	}
	if !p.Bound.Optimal || p.Bound.Lower != p.Bound.Value {
		t.Errorf("bound %+v", p.Bound)
	}
}

// TestBudgetsExhaustively takes every selection of a few small inventories, and all budgets.
func TestBudgetsExhaustively(t *testing.T) {
	for _, list := range [][]string{
		{"/", "/a", "/a/b", "/a/c", "/b", "/b/c"},
		{"/a/1", "/a/2", "/a/3", "/b/1", "/b/2", "/c"},
		{"/d", "/d/", "/d/a", "/d/b", "/e~", "/e"},
		{"/p", "/p?a", "/p?b", "/pq", "/q/r/s", "/q/r/t"},
	} {
		for mask := range 1 << len(list) {
			paths := map[string]bool{}
			for i, p := range list {
				paths[p] = mask>>i&1 != 0
			}
			l := newLedger(paths, nil, nil)
			for items := -1; items <= 4; items++ {
				for collateral := -1; collateral <= 4; collateral++ {
					for wildcards := -1; wildcards <= 2; wildcards++ {
						checkBudget(t, l, paths, nil, nil, items, collateral, wildcards)
						if t.Failed() {
							t.Fatalf("selected of %q: %b", list, mask)
						}
					}
				}
			}
		}
	}
}

// TestHulls plans as if all budgets were too great to be exact.
func TestHulls(t *testing.T) {
	gaps, plans := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		paths := drawTree(t)
		scope := rapid.SampledFrom([][]string{nil, nil, {"/a*"}}).Draw(t, "scope")
		l := newLedger(paths, nil, scope)
		for range 12 {
			items, collateral := rapid.IntRange(-1, 6).Draw(t, "items"), rapid.IntRange(-1, 6).Draw(t, "collateral")
			wildcards := rapid.SampledFrom([]int{-1, -1, 0, 1, 2}).Draw(t, "wildcards")
			opts := Options{Wildcards: true, Scope: scope, MaxItems: capped(items), MaxWildcards: capped(wildcards)}
			if collateral >= 0 {
				opts.MaxCollateral = &Budget{Entries: collateral}
			}
			sc, err := newScope(scope)
			if err != nil {
				t.Fatal(err)
			}
			p, err := (&planner{in: inputs(paths), opts: opts, scope: sc, reach: -1}).plan()
			if err != nil {
				t.Fatal(err)
			}
			audit(t, paths, p)
			if items < 0 && collateral < 0 {
				collateral = 0
			}
			want, feasible := l.best(items, collateral, wildcards, opts.objective())
			got := toBill(p)
			if p.Feasible && !feasible || !p.Feasible && feasible && wildcards < 0 && (items < 0 || collateral < 0) {
				t.Errorf("feasible %v, said to be %v", feasible, p.Feasible)
			}
			if p.Feasible && (items >= 0 && got.items > items || collateral >= 0 && got.collateral > collateral || wildcards >= 0 && got.wildcards > wildcards) {
				t.Errorf("%+v is not within %d, %d, %d", got, items, collateral, wildcards)
			}
			best := want.items
			if p.Bound.Objective == ObjectiveCollateral {
				best = want.collateral
			}
			if !p.Feasible {
				continue
			}
			plans++
			gaps += p.Bound.Gap
			if p.Bound.Lower > best || p.Bound.Value < best || p.Bound.Optimal != (p.Bound.Lower == p.Bound.Value) {
				t.Errorf("items %d, collateral %d, wildcards %d: bound %+v, best %+v\n%s", items, collateral, wildcards, p.Bound, want, say(p))
			}
		}
	})
	t.Logf("%d plans, a mean gap of %.3f", plans, float64(gaps)/float64(plans))
}
