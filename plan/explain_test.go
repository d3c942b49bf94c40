// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

func TestExplain(t *testing.T) {
	in := []string{"/a/", "+/a/1", "+/a/2", "/a/3", "+/b", "+/c~", "/c~x", "/d", "+/s? folded", "+/s?1", "/t? folded", "+/w/", "+/w/1"}
	tests := []struct {
		path, want string
	}{
		{"/a/3", `collateral /a/* "/a/3 is not selected, but /a/* reaches it: 2 of 4 entries under /a/ are selected, and the budgets allow the rest"`},
		{"/a/1", `covered /a/* "/a/1 is selected, and /a/* reaches it: 2 of 4 entries under /a/ are selected, and the budgets allow the rest"`},
		{"/a/9", `not-sighted /a/* "/a/9 is not in the inventory; if CloudFront has it, /a/* reaches it"`},
		{"/b", `covered /b* "/b is selected, and /b* reaches it: named, and sent as it was named"`},
		{"/c~", `uncovered  "/c~ is selected, but no item of the plan can reach it; /c* would, with a collateral of 1"`},
		{"/d", `left-alone  "/d is not selected, and no item reaches it"`},
		{"/e", `not-sighted  "/e is not in the inventory, and no item reaches it; check its spelling with 'cftrack list', or name it to send it all the same"`},
		{"/s?1", `covered /s?* "/s?1 is selected, and /s?* reaches it: too many paths begin with /s? to know each: it is known as one"`},
		{"/s?2", `covered /s?* "/s?2 is selected, like all that begins with /s?, of which only that is known, and /s?* reaches it: too many paths begin with /s? to know each: it is known as one"`},
		{"/t?2", `left-alone  "/t?2 is not selected, like all that begins with /t?, of which only that is known, and no item reaches it"`},
		{"/w/", `covered /w/ "/w/ is selected, and /w/ reaches it: selected"`},
	}
	opts := Options{Wildcards: true, MaxItems: ptr(5), MaxCollateral: &Budget{Entries: 2}, Named: items(t, "/b*")}
	opts.Scope = []string{"/a/*", "/b*", "/s*", "/w/*"}
	for _, tt := range slices.Backward(tests) {
		opts.Explain = append(opts.Explain, tt.path)
	}
	p, err := Compute(entries(in...), opts)
	if err != nil {
		t.Fatal(err)
	}
	for i, tt := range slices.Backward(tests) {
		x := p.Explanations[len(tests)-1-i]
		if got := fmt.Sprintf("%s %s %q", x.Status, x.Item, x.Sentence); x.Path != tt.path || got != strings.ReplaceAll(tt.want, "\n", "") {
			t.Errorf("%s:\n%s\nwant:\n%s", tt.path, got, tt.want)
		}
	}
	if t.Failed() {
		t.Log(say(p))
	}
}

// TestExplanationsAreTrue asks about everything, and holds the answers against the plan.
func TestExplanationsAreTrue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		paths := drawPaths(t)
		all := slices.Sorted(maps.Keys(paths))
		p, err := Compute(inputs(paths), Options{Wildcards: true, MaxItems: ptr(2), Explain: append(slices.Clone(all), "/zz")})
		if err != nil {
			t.Fatal(err)
		}
		for i, x := range p.Explanations[:len(all)] {
			reached := slices.ContainsFunc(p.Items, func(it Item) bool { return it.Item.Matches(all[i]) })
			want := map[[2]bool]string{{true, true}: StatusCovered, {true, false}: StatusUncovered, {false, true}: StatusCollateral, {false, false}: StatusLeftAlone}[[2]bool{paths[all[i]], reached}]
			if x.Path != all[i] || x.Status != want || (x.Item != "") != reached {
				t.Errorf("%+v, want %s of %s", x, want, all[i])
			}
		}
		if x := p.Explanations[len(all)]; x.Status != StatusNotSighted {
			t.Errorf("%+v", x)
		}
	})
}

func TestCompare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		paths := rapid.SampledFrom([]func(*rapid.T) map[string]bool{drawPaths, drawTree}).Draw(t, "kind")(t)
		p, err := Compute(inputs(paths), Options{Wildcards: true, Compare: true})
		if err != nil {
			t.Fatal(err)
		}
		l := newLedger(paths, nil, nil)
		before := 0
		for _, pt := range p.Frontier {
			b, ok := l.best(pt.Items, -1, -1, ObjectiveCollateral)
			if !ok || b.items != pt.Items || b.collateral != pt.Collateral || b.wildcards != pt.Wildcards && !doubtful(paths) || pt.Items <= before {
				t.Errorf("%+v, want %+v", pt, b)
			}
			before = pt.Items
		}
		if n := len(p.Frontier); n > 0 && p.Totals.Uncovered == 0 && (p.Frontier[n-1].Items != p.Totals.Items || p.Frontier[n-1].Collateral != 0) {
			t.Errorf("%+v does not end at %+v", p.Frontier, p.Totals)
		}
		for q := range paths {
			if _, err := cfpath.Name(q); err != nil {
				return // what others do with such paths does not matter
			}
		}
		var selected []string
		for _, q := range slices.Sorted(maps.Keys(paths)) {
			if paths[q] {
				selected = append(selected, q)
			}
		}
		rows := map[string]Alternative{}
		for _, a := range p.Alternatives {
			rows[a.Name] = a
		}
		if len(selected) > 0 {
			if a := rows[CommonPrefix]; a.Items != 1 || a.Collateral != collateralOf(paths, commonPrefix(selected)) {
				t.Errorf("%+v of %q", a, selected)
			}
		}
		whole := wholeDirectories(selected)
		if a := rows[WholeDirectories]; a.Items != len(whole) || a.Collateral != collateralOf(paths, whole) {
			t.Errorf("%+v, want %q", a, whole)
		}
	})
}

// What tools do that know nothing but the paths that changed. Each takes them in
// byte order, and returns items.

// commonPrefix is one wildcard after the longest common prefix that CloudFront takes.
func commonPrefix(paths []string) []string {
	n := common(paths[0], paths[len(paths)-1])
	for n > 1 && !cfpath.ValidStem(paths[0][:n]) {
		n--
	}
	return []string{paths[0][:n] + "*"}
}

// CloudFront takes no wildcard that ends inside an escape.
func TestCommonPrefixEndsBetweenEscapes(t *testing.T) {
	p, err := Compute(inputs(map[string]bool{"/%27": false, "/%27a": true, "/%C3%A9": true, "/b": false}), Options{Wildcards: true, Compare: true})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(p.Alternatives, func(a Alternative) bool { return a.Name == CommonPrefix })
	if i < 0 || p.Alternatives[i].Collateral != 2 {
		t.Errorf("%+v: \"/*\" hits two that nobody selected", p.Alternatives)
	}
}

// wholeDirectories replaces the pages of a directory by "dir/*" where there are two or more.
func wholeDirectories(paths []string) (out []string) {
	own := map[string]int{}
	for _, p := range paths {
		own[directoryOf(p)]++
	}
	for _, p := range paths {
		// The highest of its directories that is sent as a whole.
		item := p
		for i := range p {
			if dir := p[:i+1]; strings.HasSuffix(dir, "/") && own[dir] > 1 && strings.HasPrefix(directoryOf(p), dir) {
				item = dir + "*"
				break
			}
		}
		if !slices.Contains(out, item) {
			out = append(out, item)
		}
	}
	return out
}

func collateralOf(paths map[string]bool, items []string) (n int) {
	for p, selected := range paths {
		if !selected && slices.ContainsFunc(items, func(s string) bool {
			it, err := cfpath.ParseItem(s)
			return err == nil && it.Matches(p)
		}) {
			n++
		}
	}
	return n
}
