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
			// The plan never shows a bound above its own value; it must not need to.
			c, _, err := (&planner{in: inputs(paths), opts: opts, scope: sc, reach: -1}).solve(opts.budgets(0))
			if err != nil || c.lower > best {
				t.Errorf("items %d, collateral %d, wildcards %d: bound %d, best %+v, %v", items, collateral, wildcards, c.lower, want, err)
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

func TestBudgetsBy(t *testing.T) {
	budget := func(s string) *Budget {
		b, err := ParseBudget(s)
		if err != nil {
			t.Fatal(err)
		}
		return &b
	}
	tests := []struct {
		name     string
		opts     Options
		in       []string
		want     string
		warnings string
	}{
		{"one item", Options{MaxItems: ptr(1)}, []string{"/a/1", "+/a/2", "+/a/3", "/b"}, "/a/* within-budget 2-1", "collateral"},
		{"a wildcard that is worth it", Options{MaxCollateral: budget("1")}, []string{"/a/1", "+/a/2", "+/a/3", "+/a/4", "/b/1", "/b/2", "+/b/3", "+/b/4"}, "/a/* within-budget 3-1\n/b/3 exact 1\n/b/4 exact 1", "collateral"},
		{"a share", Options{MaxCollateral: budget("25%")}, []string{"/a/1", "+/a/2", "+/a/3", "+/a/4", "+/a/5"}, "/a/* within-budget 4-1", "collateral"},
		{"a share that is rounded down", Options{MaxCollateral: budget("24.9%")}, []string{"/a/1", "+/a/2", "+/a/3", "+/a/4", "+/a/5"}, "/a/2 exact 1\n/a/3 exact 1\n/a/4 exact 1\n/a/5 exact 1", ""},
		{"the directory beside it", Options{MaxItems: ptr(2)}, []string{"/a", "/a.", "+/a/", "/a/1", "+/a/2", "+/a/3"}, "/a/ directory-itself 1\n/a/* within-budget 3-1", "collateral"},
		{"or around it", Options{MaxItems: ptr(1)}, []string{"/", "+/a/", "/a/1", "+/a/2", "+/a/3", "/b"}, "/a* within-budget 3-1", "collateral"},
		{"nothing", Options{MaxItems: ptr(1)}, nil, "", "nothing-selected"},
		{"a price", Options{MaxPrice: ptr(0.01), Price: PriceModel{FreePaths: 1}}, []string{"/a", "+/b", "/c", "+/d", "/e", "+/f"}, "/b exact 1\n/d exact 1\n/f exact 1", ""},
		{"a price that is too low", Options{MaxPrice: ptr(0.009), Price: PriceModel{FreePaths: 1}}, []string{"/a", "+/b", "/c", "+/d", "/e", "+/f"}, "/b exact 1\n/d exact 1\n/f exact 1", "over-budget"},
		{"a price beside items", Options{MaxPrice: ptr(0.005), MaxItems: ptr(7)}, []string{"/a", "+/b", "/c", "+/d"}, "/* within-budget 2-2", "collateral"},
		{"no wildcards", Options{MaxWildcards: ptr(0)}, []string{"/a", "+/b/1", "+/b/2"}, "/b/1 exact 1\n/b/2 exact 1", ""},
		{"no wildcards for what is folded", Options{MaxWildcards: ptr(0)}, []string{"/a", "+/b/ folded", "+/b/1", "/b/2", "+/c"}, "/b/1 exact 1\n/c exact 1\nuncovered /b/: max-wildcards, /b/*-1", "uncovered"},
		{"one for what is folded", Options{MaxWildcards: ptr(1)}, []string{"/a", "+/b? folded", "+/b?1", "/b?2", "+/c/1", "+/c/2"}, "/b?* folded 2-1\n/c/1 exact 1\n/c/2 exact 1", "collateral"},
		{"as many as are named", Options{MaxWildcards: ptr(0), Named: items(t, "/z*")}, []string{"/a", "+/b/1", "+/b/2", "+/z"}, "/z* named 1\n/b/1 exact 1\n/b/2 exact 1", "over-budget"},
		{"named items count", Options{MaxItems: ptr(2), Named: items(t, "/z")}, []string{"/a", "+/b/1", "/b/2", "+/b/3", "+/z"}, "/z named 1\n/b/* within-budget 2-1", "collateral"},
		{"only those that are seen", Options{MaxItems: ptr(2), OnlySeen: true, Named: items(t, "/y", "/z")}, []string{"/a", "+/b/1", "/b/2", "+/b/3", "+/z"}, "/z named 1\n/b/* within-budget 2-1", "collateral"},
		{"more are named than may be", Options{MaxItems: ptr(1), Named: items(t, "/y", "/z")}, []string{"+/b", "/c"}, "/y named 0\n/z named 0\n/b exact 1", "not-sighted over-budget"},
		{"what is hit anyhow is no collateral", Options{MaxCollateral: budget("0"), Named: items(t, "/b/1*")}, []string{"/b/1", "+/b/2", "+/b/3", "/c"}, "/b/1* named 0-1\n/b/2 exact 1\n/b/3 exact 1", "collateral"},
		{"and costs nothing more", Options{MaxItems: ptr(2), Named: items(t, "/b/1*")}, []string{"/b/1", "+/b/2", "+/b/3", "/c"}, "/b/1* named 0-1\n/b/* within-budget 2-1", "collateral"},
		{"no wildcard over what is partly selected", Options{MaxCollateral: budget("0"), Named: items(t, "/s?1*")}, []string{"+/s1", "+/s2", "+/s? folded named"}, "/s?1* named 0\n/s1 exact 1\n/s2 exact 1", ""},
		{"nor below what is folded", Options{MaxItems: ptr(1)}, []string{"/s? folded", "+/s?a1", "+/s?a2", "/s?a3", "/t"}, "/s?* within-budget 2-2", "collateral"},
		{"collateral for what has no name", Options{MaxCollateral: budget("1")}, []string{"/b", "+/b~1", "+/c", "/d"}, "/b* within-budget 1-1\n/c exact 1", "collateral"},
		{"not too much of it", Options{MaxCollateral: budget("1")}, []string{"/b", "/b1", "+/b~1", "+/c"}, "/c exact 1\nuncovered /b~1: tilde, /b*-2", "uncovered"},
		{"few wildcards, each for all below", Options{MaxWildcards: ptr(1), MaxItems: ptr(3)}, []string{"/a", "+/b/1", "+/b/2", "+/b/3", "/c", "+/c~1", "+/d/1", "+/d/2"}, "/* within-budget 6-2", "collateral"},
		{"few wildcards, for what has no name", Options{MaxWildcards: ptr(2)}, []string{"/a", "+/b/1", "+/b/2", "+/b/3", "/c", "/d", "+/d~1", "+/e~1"}, "/b/* all-below 3\n/e* unnameable 1\nuncovered /d~1: tilde, /d*-1", "uncovered"},
		{"rather a wildcard that is sure", Options{MaxWildcards: ptr(1)}, []string{"/a", "+/b/1", "+/b/2", "+/it%27s", "/j/1", "+/j/2", "/k/1", "+/k/2"}, "/b/* all-below 2\n/it%27s exact 1 unsure\n/j/2 exact 1\n/k/2 exact 1", "spelling-in-doubt"},
		{"for one of two", Options{MaxWildcards: ptr(1)}, []string{"/a", "+/b%27s", "+/c%27s", "/d"}, "/b%27s exact 1 unsure\n/c* in-doubt 1", "spelling-in-doubt"},
		{"if there are enough", Options{MaxWildcards: ptr(1)}, []string{"/a", "+/b/1", "/b/2", "+/it%27s"}, "/b/1 exact 1\n/it* in-doubt 1", ""},
		{"both, and it cannot be", Options{MaxItems: ptr(1), MaxCollateral: budget("1")}, []string{"/a", "+/b", "/c", "+/d", "/e", "+/e1", "+/e2"}, "/b exact 1\n/d exact 1\n/e* within-budget 2-1", "collateral over-budget"},
		{"without complete coverage", Options{Exact: true, MaxItems: ptr(1)}, []string{"+/b", "+/c"}, "/b exact 1\n/c exact 1", "over-budget"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.opts.Wildcards = true
			p, err := Compute(entries(tt.in...), tt.opts)
			if err != nil {
				t.Fatal(err)
			}
			if got := say(p); got != tt.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, tt.want)
			}
			if got := codes(p); got != tt.warnings {
				t.Errorf("warnings %q, want %q", got, tt.warnings)
			}
			if strings.Contains(strings.Join(tt.in, ""), "folded") {
				collateral := 0
				for _, it := range p.Items {
					collateral += it.Collateral
				}
				if p.Totals.Collateral != collateral {
					t.Errorf("%d in all, %d by item", p.Totals.Collateral, collateral)
				}
				return
			}
			paths := map[string]bool{}
			for _, s := range tt.in {
				q, selected := strings.CutPrefix(s, "+")
				paths[q] = selected
			}
			audit(t, paths, p)
		})
	}
}

func TestInFlight(t *testing.T) {
	in := func(yield func(Input, error) bool) {
		for _, p := range []string{"/a/1", "/a/2", "/a/3", "/b/1", "/b/2", "/c"} {
			e := inventory.Entry{Path: p}
			if !yield(Input{Entry: &e, Selected: p < "/b/2", InFlight: p == "/a/2" || p == "/b/1" || p == "/c"}, nil) {
				return
			}
		}
	}
	p, err := Compute(in, Options{Wildcards: true, Explain: []string{"/b/1", "/c"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := say(p); got != "/a/* all-below 3" || p.Totals.InFlight != 2 || p.Totals.Selected != 4 || p.Totals.Collateral != 0 || p.Totals.Uncovered != 0 {
		t.Errorf("%s, %+v", got, p.Totals)
	}
	if x := p.Explanations; x[0].Status != StatusInFlight || x[1].Status != StatusLeftAlone {
		t.Errorf("%+v", x)
	}
	if p, err = Compute(in, Options{Wildcards: true, MaxItems: ptr(1), MaxWildcards: ptr(0)}); err != nil || p.Totals.Items != 2 || p.Feasible {
		t.Errorf("%s, %v", say(p), err)
	}
}

func TestBudgetText(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Budget
		of   int // of 100
	}{
		{"0", Budget{}, 0}, {"12", Budget{Entries: 12}, 12}, {"2.5%", Budget{Percent: 2.5}, 2}, {"29%", Budget{Percent: 29}, 29}, {"250%", Budget{Percent: 250}, 250},
	} {
		got, err := ParseBudget(tt.in)
		if err != nil || got != tt.want || got.String() != tt.in || got.Of(100) != tt.of {
			t.Errorf("%q is %+v, %q, %d, %v", tt.in, got, got, got.Of(100), err)
		}
	}
	for n := range 3000 { // binary fractions or not
		m := PriceModel{FreePaths: n % 7}
		if got := m.Items(m.Of(n)); got != max(n, m.FreePaths) {
			t.Errorf("$%v pays for %d, not %d", m.Of(n), got, n)
		}
	}
	for _, in := range []string{"", "-1", "x", "%", "-1%", "NaN%", "1%%", "+Inf%", "1e9%"} {
		if b, err := ParseBudget(in); err == nil {
			t.Errorf("%q is %+v", in, b)
		}
	}
	var b Budget
	if err := b.UnmarshalText([]byte("3%")); err != nil || b.Percent != 3 {
		t.Errorf("%+v, %v", b, err)
	}
	for _, o := range []Options{{MaxItems: ptr(-1)}, {MaxWildcards: ptr(-1)}, {MaxPrice: ptr(-0.1)}, {MaxCollateral: &Budget{Entries: -1}}, {MaxCollateral: &Budget{Percent: -1}}} {
		if _, err := Compute(entries(), o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}
