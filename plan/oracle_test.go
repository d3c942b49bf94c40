// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
)

// inputs yields paths in order; those in the map's values are selected.
func inputs(paths map[string]bool) iter.Seq2[Input, error] {
	return func(yield func(Input, error) bool) {
		for _, p := range slices.Sorted(maps.Keys(paths)) {
			if !yield(Input{Entry: &inventory.Entry{Path: p}, Selected: paths[p]}, nil) {
				return
			}
		}
	}
}

// least is the brute force: the smallest number of exact paths and wildcards, beside
// the named items, that surely cover every selected path that anything surely covers,
// and reach no other. It tries all sets of candidates over a bit mask of what
// is still to cover.
func least(paths map[string]bool, named []cfpath.Item, scope []string) (count int, sure, covered map[string]bool) {
	var selected []string
	for _, p := range slices.Sorted(maps.Keys(paths)) {
		if paths[p] {
			selected = append(selected, p)
		}
	}
	var candidates []cfpath.Item
	for _, p := range selected {
		if _, err := cfpath.Name(p); err == nil {
			candidates = append(candidates, cfpath.Item{Kind: cfpath.Path, Text: p})
		}
		for n := 1; n <= len(p); n++ {
			it := cfpath.Item{Kind: cfpath.Wildcard, Text: p[:n]}
			if !stemmable(it.Text) || !inScope(it.Text, scope) || slices.Contains(candidates, it) {
				continue
			}
			hits := false
			for q, yes := range paths {
				hits = hits || !yes && it.Matches(q)
			}
			if !hits {
				candidates = append(candidates, it)
			}
		}
	}
	sure, covered = map[string]bool{}, map[string]bool{}
	masks := make([]uint, len(candidates)) // what each covers as well as anything can
	todo := uint(0)
	for i, p := range selected {
		for _, it := range candidates {
			sure[p] = sure[p] || it.MatchesSurely(p)
			covered[p] = covered[p] || it.Matches(p)
		}
		done := false
		for _, it := range named {
			spare := it.Kind == cfpath.Wildcard && it.Text == p && p != "/" && strings.HasSuffix(p, "/")
			done = done || it.Matches(p) && !spare
			sure[p] = sure[p] || it.MatchesSurely(p)
			covered[p] = covered[p] || it.Matches(p)
		}
		if done || !covered[p] {
			continue
		}
		todo |= 1 << i
		for k, it := range candidates {
			if sure[p] && it.MatchesSurely(p) || !sure[p] && it.Matches(p) && !spares(it, p) {
				masks[k] |= 1 << i
			}
		}
	}
	// Breadth first over what is left.
	seen, level := map[uint]bool{todo: true}, []uint{todo}
	for ; !seen[0]; count++ {
		var next []uint
		for _, left := range level {
			// Whatever covers the first that is left has to be among them.
			low := left & -left
			for _, m := range masks {
				if m&low != 0 && !seen[left&^m] {
					seen[left&^m] = true
					next = append(next, left&^m)
				}
			}
		}
		level = next
	}
	return count, sure, covered
}

func spares(it cfpath.Item, p string) bool {
	return it.Kind == cfpath.Wildcard && it.Text == p && p != "/" && strings.HasSuffix(p, "/")
}

// inScope is the rule by its definition, over continuations that would fall out.
func inScope(stem string, scope []string) bool {
	if len(scope) == 0 {
		return true
	}
	for _, s := range scope {
		p, err := cfpath.ParsePattern(s)
		if err != nil {
			panic(err)
		}
		all := true
		for _, more := range []string{"", "x", "xyzzy", "q/z", "z.q", "?q", "x?y"} {
			all = all && p.Matches(stem+more)
		}
		if all {
			return true
		}
	}
	return false
}

// Few letters, so that paths share prefixes and troubles meet.
var alphabets = [][]string{
	{"a", "b", "/"},
	{"a", "/", "~", "b"},
	{"a", "/", "?", "x="},
	{"a", "/", "@", "b"},
	{"a", "b", "%27", "%C3%A9", "%C3%A8", "/"},
	{"a", "*", "/"},
	{"..", "a", "/", ".", "%7E"},
}

func drawPaths(t *rapid.T) map[string]bool {
	letters := rapid.SampledFrom(alphabets).Draw(t, "alphabet")
	path := rapid.Map(rapid.SliceOfN(rapid.SampledFrom(letters), 0, 5), func(s []string) string { return "/" + strings.Join(s, "") })
	return rapid.MapOfN(path, rapid.Bool(), 0, 12).Draw(t, "paths")
}

func drawNamed(t *rapid.T, paths map[string]bool) (named []cfpath.Item) {
	all := slices.Sorted(maps.Keys(paths))
	if len(all) == 0 {
		return nil
	}
	for range rapid.IntRange(0, 3).Draw(t, "named") {
		p := rapid.SampledFrom(all).Draw(t, "path")
		n := rapid.IntRange(1, len(p)).Draw(t, "length")
		it, err := cfpath.ParseItem(p[:n] + rapid.SampledFrom([]string{"", "*"}).Draw(t, "star"))
		if err == nil && (it.Kind == cfpath.Path || stemmable(it.Text)) {
			named = append(named, it)
		}
	}
	return named
}

func TestOptimum(t *testing.T) { rapid.Check(t, checkOptimum) }

func FuzzOptimum(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkOptimum)) }

func checkOptimum(t *rapid.T) {
	paths := drawPaths(t)
	named := drawNamed(t, paths)
	scope := rapid.SampledFrom([][]string{nil, {"/*"}, {"/a*"}, {"/a/*", "b*"}, {"*a"}, {"/?"}}).Draw(t, "scope")
	for _, it := range named {
		for p := range paths { // what is named is selected
			paths[p] = paths[p] || it.Matches(p)
		}
	}
	opts := Options{Named: named, Wildcards: true, Scope: scope}
	p, err := Compute(inputs(paths), opts)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Compute(inputs(paths), opts)
	if err != nil || !reflect.DeepEqual(p, again) {
		t.Fatalf("not the same twice: %+v, %v", again, err)
	}

	count, sure, covered := least(paths, named, scope)
	byName := func(q string) bool {
		return slices.ContainsFunc(named, func(it cfpath.Item) bool { return it.Matches(q) && !spares(it, q) })
	}
	names := 0
	for i, it := range p.Items {
		if it.Reason.Code == ReasonNamed {
			names++
		}
		if _, err := cfpath.ParseItem(it.Item.String()); err != nil {
			t.Errorf("cannot be sent: %v", err)
		}
		for j, other := range p.Items {
			dir := strings.HasSuffix(other.Item.Text, "/")
			if i != j && it.Item.Covers(other.Item) && !dir && other.Reason.Code != ReasonNamed {
				t.Errorf("%s covers %s", it.Item, other.Item)
			}
		}
		covers, unsure := 0, false
		for q, selected := range paths {
			switch {
			case !it.Item.Matches(q):
			case !selected:
				t.Errorf("%s reaches %s", it.Item, q)
			default:
				covers++
				unsure = unsure || !it.Item.MatchesSurely(q) && !spares(it.Item, q) && !byName(q)
			}
		}
		if covers != it.Covers {
			t.Errorf("%s covers %d, not %d", it.Item, covers, it.Covers)
		}
		if it.Collateral != 0 {
			t.Errorf("%s has a collateral of %d", it.Item, it.Collateral)
		}
		if unsure != it.Unsure && it.Reason.Code != ReasonNamed {
			t.Errorf("%s is unsure: %v, said to be %v", it.Item, unsure, it.Unsure)
		}
	}
	if got := len(p.Items) - names; got != count {
		t.Errorf("%d items beside the named, %d would do: %v", got, count, texts(p))
	}
	uncovered := map[string]bool{}
	for _, u := range p.Uncovered {
		uncovered[u.Path] = true
		if u.Remedy == "" {
			t.Errorf("no remedy for %s", u.Path)
			continue
		}
		it, err := cfpath.ParseItem(u.Remedy)
		if err != nil || !it.Matches(u.Path) {
			t.Errorf("remedy of %s: %s, %v", u.Path, u.Remedy, err)
		}
		hits := 0
		for q, selected := range paths {
			if !selected && it.Matches(q) {
				hits++
			}
		}
		if hits != u.RemedyCollateral {
			t.Errorf("remedy %s of %s hits %d, not %d", u.Remedy, u.Path, hits, u.RemedyCollateral)
		}
	}
	for q, selected := range paths {
		any, surely := false, false
		for _, it := range p.Items {
			any = any || it.Item.Matches(q)
			surely = surely || it.Item.MatchesSurely(q)
		}
		if selected && (any != covered[q] || uncovered[q] == covered[q]) {
			t.Errorf("%s: covered %v, uncovered %v; possible %v", q, any, uncovered[q], covered[q])
		}
		if selected && sure[q] && !surely && !byName(q) {
			t.Errorf("%s is not surely covered by %v", q, texts(p))
		}
	}
	if p.Totals.Uncovered != len(uncovered) || p.Totals.Entries != len(paths) {
		t.Errorf("totals %+v", p.Totals)
	}
}

func TestExactIsOneEach(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		paths := drawPaths(t)
		p, err := Compute(inputs(paths), Options{Exact: rapid.Bool().Draw(t, "exact")})
		if err != nil {
			t.Fatal(err)
		}
		var want, missing []string
		for _, q := range slices.Sorted(maps.Keys(paths)) {
			if _, err := cfpath.Name(q); !paths[q] {
				continue
			} else if err != nil {
				missing = append(missing, q)
			} else {
				want = append(want, q)
			}
		}
		var not []string
		for _, u := range p.Uncovered {
			not = append(not, u.Path)
		}
		if !slices.Equal(texts(p), want) || !slices.Equal(not, missing) {
			t.Errorf("%v, uncovered %v; want %v, %v", texts(p), not, want, missing)
		}
		full, err := Compute(inputs(paths), Options{Wildcards: true})
		if err != nil {
			t.Fatal(err)
		}
		saved := p.Alternatives[len(p.Alternatives)-1]
		if saved.Name == WithComplete && saved.Items != full.Totals.Items {
			t.Errorf("completeness would need %d, it does need %d", saved.Items, full.Totals.Items)
		}
	})
}

func texts(p *Plan) (s []string) {
	for _, it := range p.Items {
		s = append(s, it.Item.String())
	}
	return s
}

// FuzzCompute takes any bytes as paths: whatever they are, everything selected is
// covered or said not to be, and nothing else is reached.
func FuzzCompute(f *testing.F) {
	f.Add("/a\n/b\n/b/c\n/b~", uint64(5), uint64(8), true)
	f.Add("\n%4\n%41\na\n/%\n/%%", uint64(63), uint64(0), true)
	f.Add("/d/\n/d/x\n/d/%C3\n/d/%C3%A9", uint64(15), uint64(1), false)
	f.Fuzz(func(t *testing.T, text string, selected, folded uint64, wildcards bool) {
		paths := strings.Split(text, "\n")
		slices.Sort(paths)
		paths = slices.Compact(paths)
		if len(paths) > 64 {
			return
		}
		var list []Input
		for i, p := range paths {
			list = append(list, Input{Entry: &inventory.Entry{Path: p, Folded: folded>>i&1 != 0}, Selected: selected>>i&1 != 0})
		}
		plan, err := Compute(sequence(list), Options{Wildcards: wildcards})
		if err != nil {
			t.Fatal(err)
		}
		lost := 0
		for _, in := range list {
			p := in.Entry.Path
			reached, inside := false, false
			for _, it := range plan.Items {
				reached = reached || it.Item.Matches(p) && (it.Item.Kind == cfpath.Wildcard || !in.Entry.Folded)
				if it.Item.Kind == cfpath.Wildcard && strings.HasPrefix(p, it.Item.Text) && !in.Selected && it.Collateral == 0 {
					t.Errorf("%s reaches %q unsaid", it.Item, p)
				}
			}
			for _, u := range plan.Uncovered {
				inside = inside || strings.HasPrefix(p, u.Path)
			}
			if in.Selected && !reached {
				lost++
				if !inside {
					t.Errorf("%q is lost: %v", p, texts(plan))
				}
			}
		}
		if lost != plan.Totals.Uncovered {
			t.Errorf("%d uncovered, said to be %d", lost, plan.Totals.Uncovered)
		}
		for _, it := range plan.Items {
			if !stemmableOrPath(it.Item) {
				t.Errorf("%s cannot be sent", it.Item)
			}
		}
	})
}

func stemmableOrPath(it cfpath.Item) bool {
	_, err := cfpath.ParseItem(it.String())
	return err == nil && (it.Kind == cfpath.Path || stemmable(it.Text))
}
