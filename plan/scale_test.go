// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
)

// leastByItems is the recursion in its plainest form, on sorted paths that can all be named
// and where every stem may be used: the least collateral with at most so many items.
func leastByItems(list []Input, depth, most int) []int {
	const never = 1 << 30
	best := slices.Repeat([]int{never}, most+1)
	wanted, others := 0, 0
	for _, in := range list {
		if in.Selected {
			wanted++
		} else {
			others++
		}
	}
	if wanted == 0 {
		return make([]int, most+1)
	}
	if len(list) > 1 {
		// What lies below, a byte further on: first the path itself, then by that byte.
		best = make([]int, most+1)
		for i := 0; i < len(list); {
			k := i + 1
			sub := []int{0, 0}
			if len(list[i].Entry.Path) > depth {
				for k < len(list) && list[k].Entry.Path[depth] == list[i].Entry.Path[depth] {
					k++
				}
				sub = leastByItems(list[i:k], depth+1, most)
			} else if list[i].Selected {
				sub = []int{never, 0}
			}
			sum := slices.Repeat([]int{never}, most+1)
			for a, x := range best {
				for b, y := range sub {
					if n := min(a+b, most); a+b <= most {
						sum[n] = min(sum[n], x+y)
					}
				}
			}
			best = sum
			i = k
		}
	} else {
		for n := 1; n <= most; n++ {
			best[n] = 0
		}
	}
	if depth > 0 {
		for n := 1; n <= most; n++ {
			best[n] = min(best[n], others)
		}
	}
	for n := 1; n <= most; n++ {
		best[n] = min(best[n], best[n-1])
	}
	return best
}

// bush is an inventory of branches^levels directories, in each a selected entry or two and
// one that is not.
func bush(branches, levels int, random *rand.Rand) (list []Input) {
	var grow func(prefix string, level int)
	grow = func(prefix string, level int) {
		if level == 0 {
			for _, name := range []string{"a", "b", "c"} {
				list = append(list, Input{Entry: &inventory.Entry{Path: prefix + name}, Selected: name == "a" || name == "b" && random.IntN(3) == 0})
			}
			return
		}
		for i := range branches {
			if random.IntN(20) > 0 {
				grow(fmt.Sprintf("%s%c/", prefix, 'a'+i), level-1)
			}
		}
	}
	grow("/", levels)
	slices.SortFunc(list, func(a, b Input) int { return strings.Compare(a.Entry.Path, b.Entry.Path) })
	return list
}

// TestAgainstTheRecursion takes inventories great enough that what nobody needs any more is
// swept and collected on the way.
func TestAgainstTheRecursion(t *testing.T) {
	for _, tt := range []struct{ branches, levels, items int }{{6, 6, 6}, {3, 6, 40}, {2, 10, 20}, {30, 2, 50}} {
		list := bush(tt.branches, tt.levels, rand.New(rand.NewPCG(1, uint64(tt.items))))
		want := leastByItems(list, 0, tt.items)
		paths := map[string]bool{}
		for _, in := range list {
			paths[in.Entry.Path] = in.Selected
		}
		for _, items := range []int{1, 2, tt.items / 2, tt.items} {
			p, err := Compute(sequence(list), Options{Wildcards: true, MaxItems: &items})
			if err != nil {
				t.Fatal(err)
			}
			if p.Totals.Items > items || p.Totals.Collateral != want[items] || !p.Feasible {
				t.Errorf("%+v, %d entries, %d items: %+v, want a collateral of %d", tt, len(list), items, p.Totals, want[items])
			}
			audit(t, paths, p)
			sc, _ := newScope(nil)
			o, err := (&planner{in: sequence(list), opts: Options{Wildcards: true, MaxItems: &items}, scope: sc, reach: maxIndex, often: true}).plan()
			if err != nil || say(o) != say(p) {
				t.Errorf("%+v, %d items: if all is forgotten that can be: %s\nbefore: %s, %v", tt, items, say(o), say(p), err)
			}
			// The other way round: that collateral needs no more items.
			q, err := Compute(sequence(list), Options{Wildcards: true, MaxCollateral: &Budget{Entries: p.Totals.Collateral}})
			if err != nil {
				t.Fatal(err)
			}
			if p.Totals.Collateral <= maxIndex && q.Totals.Items != p.Totals.Items {
				t.Errorf("%+v: %d items with a collateral of %d, but %d with as much", tt, p.Totals.Items, p.Totals.Collateral, q.Totals.Items)
			}
			if q.Bound.Lower > p.Totals.Items || q.Totals.Collateral > p.Totals.Collateral {
				t.Errorf("%+v: %+v is wrong beside %+v", tt, q.Bound, p.Totals)
			}
			// As if it were too much to be exact.
			h, err := (&planner{in: sequence(list), opts: Options{Wildcards: true, MaxItems: &items}, scope: sc, reach: -1}).plan()
			if err != nil {
				t.Fatal(err)
			}
			if h.Bound.Lower > want[items] || h.Bound.Value < want[items] || h.Totals.Items > items {
				t.Errorf("%+v: the hull says %+v, %+v; the best is %d", tt, h.Bound, h.Totals, want[items])
			}
			audit(t, paths, h)
			opts := Options{Wildcards: true, MaxCollateral: &Budget{Entries: p.Totals.Collateral}}
			if h, err = (&planner{in: sequence(list), opts: opts, scope: sc, reach: -1}).plan(); err != nil {
				t.Fatal(err)
			}
			if h.Bound.Lower > p.Totals.Items || h.Bound.Value < p.Totals.Items || h.Totals.Collateral > p.Totals.Collateral || !h.Feasible {
				t.Errorf("%+v: the hull says %+v, %+v; %d items are the best", tt, h.Bound, h.Totals, p.Totals.Items)
			}
			audit(t, paths, h)
		}
	}
}

// TestHullsCount sees that a hull knows what its plan comes to, on uneven inventories in which
// great exchanges hold small ones.
func TestHullsCount(t *testing.T) {
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(2, seed))
		paths := map[string]bool{}
		for range 400 {
			path := "/"
			for range 1 + random.IntN(5) {
				path += string("aaabbc"[random.IntN(6)])
				if random.IntN(2) == 0 {
					path += "/"
				}
			}
			paths[path] = random.IntN(1+strings.Count(path, "a")) == 0
		}
		for _, n := range []int{2, 5, 9, 14, 20, 33} {
			for _, opts := range []Options{{MaxItems: &n}, {MaxCollateral: &Budget{Entries: n}}} {
				opts.Wildcards = true
				pl := &planner{in: inputs(paths), opts: opts, reach: -1}
				pl.scope, _ = newScope(nil)
				c, best, err := pl.solve(opts.budgets(0))
				if err != nil {
					t.Fatal(err)
				}
				said, did := c.tree.dp.cost(&best), c.plan(best).Totals
				if did.Items != said.items || did.Collateral != said.collateral {
					t.Errorf("seed %d, %+v: counted as %+v: %+v", seed, opts, said, did)
				}
			}
		}
	}
}

// TestMemoryOfAFrontier sees that what no point needs does not pile up.
func TestMemoryOfAFrontier(t *testing.T) {
	// Every directory needs its one wildcard, up to the top.
	var list []Input
	for i := range 1 << 12 {
		path := "/"
		for b := range 12 {
			path += string("ab"[i>>(11-b)&1]) + "/"
		}
		for _, name := range []string{"1", "2", "3"} {
			list = append(list, Input{Entry: &inventory.Entry{Path: path + name}, Selected: name != "2"})
		}
	}
	sc, _ := newScope(nil)
	for _, often := range []bool{true, false} {
		p := &planner{in: sequence(list), opts: Options{Wildcards: true}, scope: sc, often: often}
		d := &frontiers{measure: leastCollateral, index: 12, other: 1<<uncoveredShift - 1}
		c, err := p.pass(d)
		if err != nil {
			t.Fatal(err)
		}
		most := 12 * 12
		if !often {
			most += 1024
		}
		if n := cap(c.tree.items); n > 2*most {
			t.Errorf("often %v: %d items were kept", often, n)
		}
		if n := cap(d.sets.joins) + cap(d.wilds); often && n > 1024 {
			t.Errorf("%d joins and wildcards were kept", n)
		}
	}
}

// TestBudgetsBehave holds plans of one inventory against each other.
func TestBudgetsBehave(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		paths := drawTree(t)
		compute := func(paths map[string]bool, o Options) *Plan {
			o.Wildcards = true
			p, err := Compute(inputs(paths), o)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		k, c := rapid.IntRange(1, 6).Draw(t, "items"), rapid.IntRange(0, 6).Draw(t, "collateral")
		byItems, byCollateral := Options{MaxItems: &k}, Options{MaxCollateral: &Budget{Entries: c}}
		p, q := compute(paths, byItems), compute(paths, byCollateral)
		// More is never worse.
		if more := compute(paths, Options{MaxItems: ptr(k + 1)}); more.Totals.Collateral > p.Totals.Collateral {
			t.Errorf("%d items %+v, one more %+v", k, p.Totals, more.Totals)
		}
		if more := compute(paths, Options{MaxCollateral: &Budget{Entries: c + 1}}); more.Totals.Items > q.Totals.Items {
			t.Errorf("collateral of %d %+v, one more %+v", c, q.Totals, more.Totals)
		}
		// Nor does it help that there is more that is not selected.
		wider := maps.Clone(paths)
		extra := "/" + strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "/"}), 1, 4).Draw(t, "extra"), "")
		if _, known := wider[extra]; !known {
			wider[extra] = false
			if w := compute(wider, byItems); w.Totals.Collateral < p.Totals.Collateral {
				t.Errorf("with %s a collateral of %d, without %d", extra, w.Totals.Collateral, p.Totals.Collateral)
			}
			if w := compute(wider, byCollateral); w.Totals.Items < q.Totals.Items {
				t.Errorf("with %s %d items, without %d", extra, w.Totals.Items, q.Totals.Items)
			}
		}
		// Budgets that do not bind change nothing.
		free := compute(paths, Options{})
		if same := compute(paths, Options{MaxWildcards: ptr(free.Totals.Wildcards), MaxPrice: ptr(PriceModel{}.Of(free.Totals.Items))}); say(same) != say(free) || !same.Feasible {
			t.Errorf("%s\nis not\n%s", say(same), say(free))
		}
		if same := compute(paths, Options{MaxItems: ptr(max(1, free.Totals.Items))}); say(same) != say(free) {
			t.Errorf("%s\nis not\n%s", say(same), say(free))
		}
	})
}
