// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"maps"
	"math"
	"math/bits"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
)

// drawTags gives the paths tags.
func drawTags(t *rapid.T, paths map[string]bool) map[string]inventory.Entry {
	tagged := map[string]inventory.Entry{}
	letters := rapid.SampledFrom([][]string{{"x"}, {"x", "y", "Y"}, {"x", "y", "z", "w", "v"}}).Draw(t, "tags")
	// What is selected often has a tag of its own.
	own := rapid.Bool().Draw(t, "own")
	for _, p := range slices.Sorted(maps.Keys(paths)) {
		e := inventory.Entry{Path: p, Mixed: rapid.IntRange(0, 9).Draw(t, "mixed") == 0}
		for _, l := range rapid.SliceOfNDistinct(rapid.SampledFrom(letters), 0, min(3, len(letters)), rapid.ID).Draw(t, "of") {
			if own && !paths[p] {
				l = "other-" + l
			}
			e.Tags = append(e.Tags, l)
		}
		tagged[p] = e
	}
	return tagged
}

func taggedInputs(paths map[string]bool, tagged map[string]inventory.Entry) func(func(Input, error) bool) {
	return func(yield func(Input, error) bool) {
		for _, p := range slices.Sorted(maps.Keys(paths)) {
			e := tagged[p]
			if !yield(Input{Entry: &e, Selected: paths[p]}, nil) {
				return
			}
		}
	}
}

func TestNativeTags(t *testing.T) { rapid.Check(t, checkTags) }

func checkTags(t *rapid.T) {
	paths := rapid.SampledFrom([]func(*rapid.T) map[string]bool{drawPaths, drawTree}).Draw(t, "kind")(t)
	tagged := drawTags(t, paths)
	scope := rapid.SampledFrom([][]string{nil, {"/a*"}}).Draw(t, "scope")
	l := newLedgerOf(paths, nil, scope, tagged)
	for range 6 {
		items, collateral := rapid.IntRange(-1, 6).Draw(t, "items"), rapid.IntRange(-1, 4).Draw(t, "collateral")
		wildcards := rapid.SampledFrom([]int{-1, -1, 0, 1}).Draw(t, "wildcards")
		opts := Options{Wildcards: true, NativeTags: true, Scope: scope, MaxItems: capped(items), MaxWildcards: capped(wildcards)}
		if collateral >= 0 {
			opts.MaxCollateral = &Budget{Entries: collateral}
		}
		p, err := Compute(taggedInputs(paths, tagged), opts)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Compute(taggedInputs(paths, tagged), opts); err != nil || !reflect.DeepEqual(p, again) {
			t.Errorf("not the same twice: %+v, %v", again, err)
		}
		auditTags(t, paths, tagged, p)
		if items < 0 && collateral < 0 {
			collateral = 0
		}
		want, feasible := l.best(items, collateral, wildcards, opts.objective())
		got := toBill(p)
		what := fmt.Sprintf("items %d, collateral %d, wildcards %d: %+v, bound %+v; want %+v, feasible %v\n%s", items, collateral, wildcards, got, p.Bound, want, feasible, say(p))
		if p.Feasible && (!feasible && got.uncovered == want.uncovered || items >= 0 && got.items > items || collateral >= 0 && got.collateral > collateral || wildcards >= 0 && got.wildcards > wildcards) {
			t.Errorf("not feasible: %s", what)
		}
		if collateral == 0 && wildcards < 0 && (got.uncovered != want.uncovered || got.items != want.items || p.Feasible != feasible || !p.Bound.Optimal) {
			t.Errorf("not the best: %s", what)
		}
		best := want.items
		if p.Bound.Objective == ObjectiveCollateral {
			best = want.collateral
		}
		if p.Feasible == feasible && got.uncovered == want.uncovered && (p.Bound.Lower > best || p.Bound.Value < best) {
			t.Errorf("the bound is wrong: %s", what)
		}
	}
}

// auditTags evaluates a plan with tags independently of how it was found.
func auditTags(t *rapid.T, paths map[string]bool, tagged map[string]inventory.Entry, p *Plan) {
	reached := map[string]bool{}
	for _, it := range p.Items {
		covers, collateral := 0, 0
		for q, selected := range paths {
			e := tagged[q]
			tag := it.Item.Kind == cfpath.Tag && carries(&e, it.Item.Text)
			if !tag && !it.Item.Matches(q) {
				continue
			}
			if selected {
				covers++
			} else {
				collateral++
			}
			reached[q] = reached[q] || !selected || tag && !e.Mixed || !tag && !spares(it.Item, q)
		}
		if covers != it.Covers || collateral != it.Collateral {
			t.Errorf("%s covers %d-%d, said to be %d-%d", it.Item, covers, collateral, it.Covers, it.Collateral)
		}
	}
	uncovered, collateral := 0, 0
	for q, selected := range paths {
		if selected && !reached[q] {
			uncovered++
			if !slices.ContainsFunc(p.Uncovered, func(u Uncovered) bool { return u.Path == q }) {
				t.Errorf("%s is lost: %s", q, say(p))
			}
		}
		if !selected && reached[q] {
			collateral++
		}
	}
	if uncovered != p.Totals.Uncovered || collateral != p.Totals.Collateral {
		t.Errorf("%d uncovered and a collateral of %d; totals %+v", uncovered, collateral, p.Totals)
	}
}

// taggedEntries reads "+/path x,y": selected, with tags; a "!" before the tags says that
// sightings differed.
func taggedEntries(list ...string) func(func(Input, error) bool) {
	return func(yield func(Input, error) bool) {
		for _, s := range list {
			p, selected := strings.CutPrefix(s, "+")
			p, tags, _ := strings.Cut(p, " ")
			tags, mixed := strings.CutPrefix(tags, "!")
			e := inventory.Entry{Path: p, Mixed: mixed}
			if tags != "" {
				e.Tags = strings.Split(tags, ",")
			}
			if !yield(Input{Entry: &e, Selected: selected}, nil) {
				return
			}
		}
	}
}

func TestNativeTagsBy(t *testing.T) {
	tests := []struct {
		name string
		opts Options
		in   []string
		want string
	}{
		{"a tag for a suffix", Options{}, []string{"/a/1", "+/a/2 png", "/b/1", "+/b/2 PNG", "/c/1", "+/c/2 png,x"}, "#png tag 3"},
		{"not where a tag reaches more", Options{}, []string{"/a/1 png", "+/a/2 png", "/b/1", "+/b/2 png"}, "/a/2 exact 1\n/b/2 exact 1"},
		{"nor where sightings differed", Options{}, []string{"/a/1", "+/a/2 png", "/b/1", "+/b/2 !png", "/c", "+/c/2 png"}, "#png tag 3\n/b/2 exact 1"},
		{"a wildcard where it is as cheap", Options{}, []string{"/a", "+/b/1 t", "+/b/2 t"}, "/b/* all-below 2"},
		{"two tags for a directory", Options{}, []string{"/a", "+/b/1 s", "+/b/2 t", "/c", "+/c/1 s", "+/c/2 t", "/d", "+/d/1 s", "+/d/2 t"}, "#s tag 3\n#t tag 3"},
		{"the rest of a directory", Options{}, []string{"/a", "/b", "+/b/ t", "+/b/1 s", "+/b/2 s", "/c", "+/c/1 t", "/d", "+/d/1 t"}, "#t tag 3\n/b/* all-below 3"},
		{"a tag for what has no name", Options{}, []string{"/a", "+/a~ t", "/b"}, "#t tag 1"},
		{"a tag with collateral", Options{MaxCollateral: &Budget{Entries: 1}}, []string{"/a/1 t", "+/a/2 t", "/b/1", "/b/11", "+/b/2 t", "/c/1", "/c/11", "+/c/2 t"}, "#t tag 3-1"},
		{"a tag rather than collateral", Options{MaxItems: ptr(1)}, []string{"/a/1", "+/a/2 t", "/b/1", "+/b/2 t"}, "#t tag 2"},
		{"in two spellings", Options{MaxCollateral: &Budget{Entries: 1}}, []string{"/a/1 T,t", "+/a/2 t", "/b/1", "/b/11", "+/b/2 t", "/c/1", "/c/11", "+/c/2 t"}, "#T tag 3-1"},
		{"a directory of three kinds", Options{}, []string{"/a", "/b", "+/b/ t", "+/b/1 s", "+/b/2 u", "/c", "+/c/1 u", "/d", "+/d/1 u"}, "#u tag 3\n/b/ exact 1\n/b/1 exact 1"},
		{"no such tag", Options{}, []string{"/a/1", "+/a/2 é", "/b/1", "+/b/2 é"}, "/a/2 exact 1\n/b/2 exact 1"},
		{"only with complete coverage", Options{Exact: true}, []string{"/a/1", "+/a/2 t", "/b/1", "+/b/2 t"}, "/a/2 exact 1\n/b/2 exact 1"},
	}
	for _, tt := range tests {
		tt.opts.Wildcards, tt.opts.NativeTags = true, true
		p, err := Compute(taggedEntries(tt.in...), tt.opts)
		if err != nil {
			t.Fatal(err)
		}
		if got := say(p); got != tt.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.name, got, tt.want)
		}
		if tt.opts.MaxCollateral == nil && tt.opts.MaxItems == nil && !p.Bound.Optimal {
			t.Errorf("%s: %+v", tt.name, p.Bound)
		}
		tt.opts.NativeTags = false
		if p, err := Compute(taggedEntries(tt.in...), tt.opts); err != nil || p.Totals.Tags > 0 {
			t.Errorf("%s: %v, %v: a tag of a distribution without", tt.name, p, err)
		}
	}
}

// TestCover holds the choice of tags against all choices.
func TestCover(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const tags = 7
		sig := rapid.Custom(func(t *rapid.T) []int32 {
			list := rapid.SliceOfNDistinct(rapid.Int32Range(0, tags-1), 1, 3, rapid.ID).Draw(t, "signature")
			slices.Sort(list)
			return list
		})
		c := &cover{tags: tags, must: rapid.IntRange(0, 2).Draw(t, "must")}
		for range rapid.IntRange(0, 9).Draw(t, "needs") {
			n := need{weight: rapid.SampledFrom([]int{1, 1, 1, 2, 3, heavy}).Draw(t, "weight")}
			n.sigs = rapid.SliceOfN(sig, 1, 3).Draw(t, "signatures")
			c.needs = append(c.needs, n)
		}
		cost := func(sent func(int32) bool) (cost int) {
			for _, n := range c.needs {
				for _, sig := range n.sigs {
					if !slices.ContainsFunc(sig, sent) {
						cost += n.weight
						break
					}
				}
			}
			return cost
		}
		best := math.MaxInt
		for mask := range 1 << tags {
			best = min(best, bits.OnesCount(uint(mask))+cost(func(t int32) bool { return mask>>t&1 != 0 }))
		}
		list, lower := c.solve()
		if got := len(list) + cost(func(t int32) bool { return slices.Contains(list, t) }); got != best || lower != c.must+best%heavy {
			t.Errorf("%v cost %d, at least %d; the best %d, and %d anyhow", list, got, lower, best, c.must)
		}
	})
}

// What a tag reaches of a folded entry beyond what is named of it is collateral.
func TestTagsReachTheRestOfAFoldedEntry(t *testing.T) {
	list := []Input{
		{Entry: &inventory.Entry{Path: "/a", Tags: []string{"t"}}, Selected: true},
		{Entry: &inventory.Entry{Path: "/b", Tags: []string{"t"}}, Selected: true},
		{Entry: &inventory.Entry{Path: "/c"}},
		{Entry: &inventory.Entry{Path: "/s/", Tags: []string{"t"}, Folded: true}, Selected: true, Named: true},
	}
	p, err := Compute(sequence(list), Options{Wildcards: true, NativeTags: true, Named: items(t, "/s/1"), MaxCollateral: &Budget{Entries: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if got := texts(p); !slices.Equal(got, []string{"/s/1", "#t"}) || p.Totals.Collateral != 1 {
		t.Errorf("%v, collateral %d", got, p.Totals.Collateral)
	}
}
