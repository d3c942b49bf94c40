// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
)

// entries reads an inventory: "+" before what is selected, " folded" after what is
// folded, " named" after that if what is selected of it is named.
func entries(list ...string) iter.Seq2[Input, error] {
	return func(yield func(Input, error) bool) {
		for _, s := range list {
			p, selected := strings.CutPrefix(s, "+")
			p, named := strings.CutSuffix(p, " named")
			p, folded := strings.CutSuffix(p, " folded")
			if !yield(Input{Entry: &inventory.Entry{Path: p, Folded: folded}, Selected: selected, Named: named}, nil) {
				return
			}
		}
	}
}

func items(t testing.TB, list ...string) (out []cfpath.Item) {
	t.Helper()
	for _, s := range list {
		it, err := cfpath.ParseItem(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, it)
	}
	return out
}

// say is a plan in short: items with reason codes, then what is uncovered.
func say(p *Plan) string {
	var out []string
	for _, it := range p.Items {
		s := fmt.Sprintf("%s %s %d", it.Item, it.Reason.Code, it.Covers)
		if it.Collateral > 0 {
			s += fmt.Sprintf("-%d", it.Collateral)
		}
		if it.Unsure {
			s += " unsure"
		}
		out = append(out, s)
	}
	for _, u := range p.Uncovered {
		out = append(out, fmt.Sprintf("uncovered %s: %s, %s-%d", u.Path, u.Reason, u.Remedy, u.RemedyCollateral))
	}
	return strings.Join(out, "\n")
}

func codes(p *Plan) string {
	var out []string
	for _, w := range p.Warnings {
		out = append(out, w.Code)
	}
	return strings.Join(out, " ")
}

func TestCompute(t *testing.T) {
	complete := Options{Wildcards: true}
	named := func(o Options, list ...string) Options { o.Named = items(t, list...); return o }
	scoped := func(patterns ...string) Options { return Options{Wildcards: true, Scope: patterns} }
	long := "/" + strings.Repeat("x", cfpath.MaxItemLength)

	tests := []struct {
		name     string
		opts     Options
		in       []string
		want     string
		warnings string
	}{
		{"an empty inventory", complete, nil, "", "nothing-selected"},
		{"nothing selected", complete, []string{"/a", "/b"}, "", "nothing-selected"},
		{"one", complete, []string{"/a", "+/b", "/c"}, "/b exact 1", ""},
		{"two and no more below", complete, []string{"/a", "+/b/1", "+/b/2", "/c"}, "/b/* all-below 2", ""},
		{"everything", complete, []string{"+/", "+/a"}, "/* everything 2", ""},
		{"everything, and a stem of its own", complete, []string{"+/en/a", "+/en/b"}, "/en/* all-below 2", ""},
		{"without wildcards", Options{}, []string{"/a", "+/b/1", "+/b/2"}, "/b/1 exact 1\n/b/2 exact 1", "incomplete-coverage"},
		{"exact", Options{Exact: true, Wildcards: true}, []string{"+/b/1", "+/b/2"}, "/b/1 exact 1\n/b/2 exact 1", ""},
		{"the path and its queries", complete, []string{"/", "+/a", "+/a?x=1", "+/a?x=2", "/ab"}, "/a exact 1\n/a?* all-below 2", ""},

		{"a stem people understand", complete, []string{"/a", "+/blog/2024/post-1", "+/blog/2024/post-2", "/c"}, "/blog/2024/* all-below 2", ""},
		{"the query rather than the directory", complete, []string{"/a", "+/b/c?x=1", "+/b/c?x=2"}, "/b/c?* all-below 2", ""},
		{"a dash if nothing better", complete, []string{"/s/b", "+/s/item-12", "+/s/item-13"}, "/s/item-* all-below 2", ""},
		{"the longest if nothing at all", complete, []string{"/s/b", "+/s/item12", "+/s/item13"}, "/s/item1* all-below 2", ""},
		{"rather no boundary than the whole distribution", complete, []string{"+/ab1", "+/ab2"}, "/ab* all-below 2", ""},
		{"the rest of a character", complete, []string{"/%C3%A9a", "+/%C3%A8a", "+/%C3%A8b"}, "/%C3%A8* all-below 2", "order"},

		{"the rest of a character of four bytes", complete, []string{"+/%F0%9F%98%80a", "+/%F0%9F%98%81a", "/%F0%9F%A0%80a"}, "/%F0%9F%98%80a exact 1\n/%F0%9F%98%81a exact 1", ""},
		{"the rest of a character of three bytes", complete, []string{"+/%E2%82%AC1", "+/%E2%82%AC2", "/%E2%82%AD"}, "/%E2%82%AC* all-below 2", ""},
		{"the half of one of three bytes", complete, []string{"+/%E2%82%AC1", "+/%E2%82%AD1", "/%E2%83%AD"}, "/%E2%82%AC1 exact 1\n/%E2%82%AD1 exact 1", ""},

		{"the spare directory is avoided", complete, []string{"/c", "+/dir/", "+/dir/a", "+/dir/b", "/e"}, "/dir* all-below 3", ""},
		{"or sent beside", complete, []string{"/dir", "+/dir/", "+/dir/a", "+/dir/b"}, "/dir/ directory-itself 1\n/dir/* all-below 3", ""},
		{"two are two either way", complete, []string{"/dir", "+/dir/", "+/dir/a"}, "/dir/ exact 1\n/dir/a exact 1", ""},
		{"beside what is named", named(complete, "/dir/*"), []string{"/dir", "+/dir/", "+/dir/a"}, "/dir/* named 2\n/dir/ directory-itself 1", ""},
		{"unless it is not there", named(complete, "/dir/*"), []string{"+/dir/a"}, "/dir/* named 1", ""},

		{"no name, a wildcard", complete, []string{"/a", "+/b~1"}, "/b* unnameable 1", ""},
		{"no name, a neighbour", complete, []string{"/b", "+/b~1", "+/c"}, "/c exact 1\nuncovered /b~1: tilde, /b*-1", "uncovered"},
		{"no name, no wildcards", Options{}, []string{"/a", "+/b~1", "/c"}, "uncovered /b~1: tilde, /b*-0", "incomplete-coverage uncovered"},
		{"no name, exact", Options{Exact: true, Wildcards: true}, []string{"/", "+/b~1", "/b~2"}, "uncovered /b~1: tilde, /b*-1", "uncovered"},
		{"too long", complete, []string{"/a", "+" + long}, long[:3999] + "* unnameable 1", ""},
		{"a real star", complete, []string{"/b", "+/b*"}, "uncovered /b*: trailing-star, /b*-1", "uncovered"},
		{"a group that hides a tilde", complete, []string{"/a", "+/b/x", "+/b/~x"}, "/b/* all-below 2", "order"},
		{"no path at all", complete, []string{"+a", "+b"}, "uncovered a: refused, -0\nuncovered b: refused, -0", "uncovered"},

		{"in doubt", complete, []string{"+/it%27s", "/it"}, "/it%27s exact 1 unsure", "order"},
		{"in doubt, named around", complete, []string{"/a", "+/it%27s", "/j"}, "/it* in-doubt 1", ""},
		{"in doubt and named", named(complete, "/it%27s"), []string{"+/it%27s"}, "/it%27s named 1 unsure", "spelling-in-doubt"},
		{"in doubt below a wildcard", named(complete, "/a@b*"), []string{"+/a@bc"}, "/a@b* named 1 unsure", "spelling-in-doubt"},
		{"a doubt of the caller's", Options{Wildcards: true, Doubtful: func(p string) bool { return strings.Contains(p, "?") }}, []string{"/", "+/a?x=1", "/b"}, "/a* in-doubt 1", ""},
		{"a doubt of the caller's, stuck", Options{Wildcards: true, Doubtful: func(p string) bool { return strings.Contains(p, "?") }}, []string{"/a", "+/a?x=1", "/b"}, "/a?x=1 exact 1 unsure", "spelling-in-doubt"},
		{"a doubt of the caller's, nowhere", Options{Doubtful: func(string) bool { return true }}, []string{"+/a"}, "/a exact 1 unsure", "incomplete-coverage spelling-in-doubt"},
		{"a doubt of the caller's, named", Options{Wildcards: true, Named: items(t, "/a?x*", "/b*"), Doubtful: func(p string) bool { return strings.Contains(p, "?") }}, []string{"+/a?x=1", "+/b?x=1"}, "/a?x* named 1 unsure\n/b* named 1", "spelling-in-doubt"},

		{"within the scope", scoped("/s/*"), []string{"+/s/a", "+/s/b", "+/t/a", "+/t/b"}, "/s/* all-below 2\n/t/a exact 1\n/t/b exact 1", ""},
		{"not all of it", scoped("/s/*.png", "/"), []string{"+/s/a.png", "+/s/b.png"}, "/s/a.png exact 1\n/s/b.png exact 1", ""},
		{"a query in a scope without star", scoped("/s"), []string{"+/s?a=1", "+/s?a=2"}, "/s?* all-below 2", ""},
		{"the scope is everything", scoped("/x", "*"), []string{"+/a", "+/b"}, "/* everything 2", ""},

		{"named, sighted or not", named(complete, "/z", "/b*", "/a"), []string{"+/a", "+/b1", "+/b2", "/c"}, "/z named 0\n/b* named 2\n/a named 1", "not-sighted"},
		{"only what was seen", named(Options{OnlySeen: true, Wildcards: true}, "/z", "/a*", "/y*"), []string{"/a1"}, "/a* named 0-1", "collateral"},
		{"only what was seen, nothing", named(Options{OnlySeen: true, Wildcards: true}, "/z"), []string{"/a"}, "", "nothing-selected"},
		{"seen in a folded entry", named(Options{OnlySeen: true, Wildcards: true}, "/s?q=1", "/s?q=2*", "/s", "/t"), []string{"/s?q= folded"}, "/s?q=1 named 0\n/s?q=2* named 0", ""},
		{"named twice", named(complete, "/a", "/b*", "/a", "/b*", "/b/c*", "/b/d"), []string{"/x"}, "/a named 0\n/b* named 0", "not-sighted"},
		{"everything named", named(complete, "/a", "/*", "/b*", "#t", "/"), []string{"+/a", "+/b"}, "/* named 2", ""},
		{"directory and wildcard named", named(complete, "/d/", "/d/*"), []string{"+/d/", "+/d/x"}, "/d/ named 1\n/d/* named 2", ""},
		{"its queries beside what is named", named(complete, "/a"), []string{"+/a", "+/a?x", "/b"}, "/a named 1\n/a?x exact 1", ""},
		{"named within what is looked up", named(complete, "/b/1"), []string{"/a", "+/b/1", "+/b/2", "+/b/3"}, "/b/1 named 1\n/b/* all-below 3", ""},
		{"one is left", named(complete, "/b/1"), []string{"/a", "+/b/1", "+/b/2"}, "/b/1 named 1\n/b/2 exact 1", ""},
		{"named wildcards need no completeness", named(Options{}, "/b*"), []string{"+/b"}, "/b* named 1", ""},
		{"named paths do, for their queries", named(Options{}, "/b"), []string{"+/b"}, "/b named 1", "incomplete-coverage"},

		{"folded", Options{}, []string{"/a", "+/s?q= folded", "+/s?q=1", "/t"}, "/s?q=* folded 2", "incomplete-coverage"},
		{"folded, complete", complete, []string{"/a", "+/s?q= folded", "/t"}, "/s?q=* folded 1", ""},
		{"folded, out of scope", scoped("/x*"), []string{"+/s?q= folded", "+/s?q=1"}, "/s?q=* folded 2", ""},
		{"folded, with others", complete, []string{"/a", "+/s?a", "+/s?q= folded", "/t"}, "/s?* all-below 2", ""},
		{"folded, over what is not selected", complete, []string{"/s", "+/s? folded", "/s?a", "+/s?b"}, "/s?* folded 2-1", "collateral"},
		{"folded, over what is not selected, exact", Options{Exact: true}, []string{"+/s? folded", "/s?a", "+/s?b"}, "/s?* folded 2-1", "incomplete-coverage collateral"},
		{"folded within a character", Options{}, []string{"+/%C3 folded"}, "uncovered /%C3: refused, /%C3*-0", "incomplete-coverage uncovered"},
		{"folded directory", Options{}, []string{"+/d/ folded"}, "/d/ directory-itself 1\n/d/* folded 1", "incomplete-coverage"},
		{"folded directory, avoided", complete, []string{"/c", "+/d/ folded", "/e"}, "/d* folded 1", ""},
		{"folded, its query in doubt", Options{Doubtful: func(string) bool { return true }}, []string{"+/s?q= folded"}, "/s?q=* folded 1 unsure", "incomplete-coverage spelling-in-doubt"},
		{"folded, in doubt before", complete, []string{"/s", "+/s@?q= folded"}, "/s@?q=* folded 1 unsure", "spelling-in-doubt"},
		{"folded whole", complete, []string{"+/ folded", "+/x"}, "/* folded 2", ""},
		{"folded, no name", complete, []string{"/", "+/a~ folded", "+/a~b", "/c"}, "/a* unnameable 2", ""},
		{"folded, no name, over others", complete, []string{"/", "+/a~ folded", "/a~b", "+/a~c", "/c"}, "uncovered /a~: tilde, /a*-1", "uncovered"},
		{"folded, no wildcards, no name", Options{}, []string{"+/a* folded", "+/a*b"}, "/a*b exact 1\nuncovered /a*: trailing-star, /a*-0", "incomplete-coverage uncovered"},
		{"below what is folded and not selected", complete, []string{"/s? folded", "+/s?a1", "+/s?a2"}, "/s?a1 exact 1\n/s?a2 exact 1", ""},
		{"folded below what is folded and not selected", complete, []string{"/s? folded", "+/s?a folded"}, "/s?a* folded 1", ""},
		{"folded and named", named(complete, "/s*"), []string{"+/s?q= folded"}, "/s* named 1", ""},
		{"folded and named inside", named(complete, "/s?q=1*"), []string{"+/s?q= folded named", "+/t"}, "/s?q=1* named 0\n/t exact 1", ""},
		{"folded and named inside, beside trouble", named(complete, "/s?q=1*"), []string{"+/s?q= folded named", "+/s~"}, "/s?q=1* named 0\nuncovered /s~: tilde, /s*-0", "uncovered"},
		{"folded and not all named", named(complete, "/s?q=1*"), []string{"/a", "+/s?q= folded"}, "/s?q=1* named 0\n/s?q=* folded 1", ""},
		{"folded, with a directory named inside", named(complete, "/s/d/*"), []string{"+/s/ folded named"}, "/s/d/* named 0\n/s/d/ directory-itself 0", ""},
		{"folded, with a directory and what is around it named inside", named(complete, "/s/d/*", "/s/d/"), []string{"+/s/ folded named"}, "/s/d/* named 0\n/s/d/ named 0", ""},
		{"folded, over what is in doubt, complete", complete, []string{"/a", "+/s folded", "+/s/../x"}, "/s* folded 2 unsure", "spelling-in-doubt"},
		{"folded, over what is in doubt", Options{}, []string{"+/s folded", "+/s/../x"}, "/s* folded 2 unsure", "incomplete-coverage spelling-in-doubt"},
		{"folded directory and named", named(complete, "/d/*"), []string{"+/d/ folded", "+/d/x"}, "/d/* named 2\n/d/ directory-itself 1", ""},

		{"root object", Options{Wildcards: true, RootObject: "index.html"}, []string{"+/", "/a"}, "/ exact 1\n/index.html root-object 0", ""},
		{"root object, the other way", Options{Wildcards: true, RootObject: "index.html", Named: items(t, "/i*")}, []string{"+/index.html"}, "/i* named 1\n/ root-object 0", ""},
		{"root object, both", Options{Wildcards: true, RootObject: "index.html"}, []string{"+/", "+/index.html"}, "/* everything 2", ""},
		{"root object, neither", Options{Wildcards: true, RootObject: "index.html"}, []string{"+/a"}, "/a exact 1", ""},
		{"root object, with a query", Options{Wildcards: true, RootObject: "index.html"}, []string{"+/?q", "/a", "/index.html"}, "/?q exact 1\n/index.html?q root-object 0", ""},
		{"root object, its other path is not selected", Options{Wildcards: true, RootObject: "index.html"}, []string{"+/", "/a", "/index.html"}, "/ exact 1\n/index.html root-object 0-1", "collateral"},
		{"root object, with all queries", Options{Wildcards: true, RootObject: "index.html"}, []string{"+/?p", "+/?q", "+/?r", "/a"}, "/?* all-below 3\n/index.html?* root-object 0", ""},
		{"root object, one query is not selected", Options{Wildcards: true, RootObject: "index.html"}, []string{"+/?p", "+/?q", "+/?r", "/a", "/index.html?s"}, "/?* all-below 3\n/index.html?p root-object 0\n/index.html?q root-object 0\n/index.html?r root-object 0", ""},
		{"root object, below what is named", Options{Wildcards: true, RootObject: "index.html", Named: items(t, "/index.html*")}, []string{"/a"}, "/index.html* named 0\n/ root-object 0\n/?* root-object 0", "not-sighted"},
		{"root object, only as collateral", Options{Wildcards: true, RootObject: "index.html", MaxCollateral: &Budget{Entries: 1}}, []string{"/a", "+/index.htm", "/index.html", "+/index.htmz"}, "/index.* within-budget 2-1", "collateral"},
		{"root object, no name", Options{Wildcards: true, RootObject: "index~.html"}, []string{"+/", "/a"}, "/ exact 1", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.warnings == "order" { // the table reads better than its byte order
				slices.SortFunc(tt.in, func(a, b string) int {
					return strings.Compare(strings.TrimPrefix(a, "+"), strings.TrimPrefix(b, "+"))
				})
			}
			p, err := Compute(entries(tt.in...), tt.opts)
			if err != nil {
				t.Fatal(err)
			}
			collateral := 0
			for _, it := range p.Items {
				collateral += it.Collateral
			}
			if p.Totals.Collateral != collateral {
				t.Errorf("collateral %d, in total %d", collateral, p.Totals.Collateral)
			}
			if got := say(p); got != tt.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, tt.want)
			}
			if got := codes(p); got != tt.warnings && tt.warnings != "order" {
				t.Errorf("warnings %q, want %q", got, tt.warnings)
			}
			if strings.Contains(fmt.Sprintf("%+v", p), "%!") {
				t.Errorf("a message is malformed: %+v", p)
			}
		})
	}
}

func TestTags(t *testing.T) {
	in := func(yield func(Input, error) bool) {
		for _, e := range []inventory.Entry{
			{Path: "/a", Tags: []string{"News"}},
			{Path: "/b", Tags: []string{"news", "x"}, Mixed: true},
			{Path: "/c", Tags: []string{"x"}},
		} {
			if !yield(Input{Entry: &e, Selected: slices.Contains(e.Tags, "News") || e.Mixed}, nil) {
				return
			}
		}
	}
	p, err := Compute(in, Options{Wildcards: true, Named: items(t, "#news", "#NEWS", "#x", "#y")})
	if err != nil {
		t.Fatal(err)
	}
	want := "#news named 2\n#x named 1-1\n#y named 0\n/b exact 1"
	if got := say(p); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if p.Totals.Tags != 3 || p.Totals.Collateral != 1 {
		t.Errorf("totals %+v", p.Totals)
	}
}

func TestTotals(t *testing.T) {
	p, err := Compute(entries("/a/x", "+/b/1", "+/b/2", "+/b/3", "+/c", "/c~", "+/c~1", "/d"),
		Options{Wildcards: true, Named: items(t, "/n", "/a*"), Price: PriceModel{FreePaths: 1}})
	if err != nil {
		t.Fatal(err)
	}
	want := Totals{Entries: 8, Selected: 5, Items: 4, Paths: 2, Wildcards: 2, Collateral: 1, Uncovered: 1, Price: 0.015, Seconds: 26}
	if p.Totals != want {
		t.Errorf("%+v, want %+v", p.Totals, want)
	}
	alternatives := []Alternative{
		{Name: EveryPath, Items: 5, Price: 0.02, Seconds: 25},
		{Name: Everything, Items: 1, Collateral: 3, Seconds: 25},
	}
	if !slices.Equal(p.Alternatives, alternatives) {
		t.Errorf("%+v, want %+v", p.Alternatives, alternatives)
	}

	p, err = Compute(entries("/a", "+/b/1", "+/b/2", "+/b/3", "+/c"), Options{Named: items(t, "/n*")})
	if err != nil {
		t.Fatal(err)
	}
	if a := p.Alternatives[len(p.Alternatives)-1]; a.Name != WithComplete || a.Items != 3 || a.Price != 0.015 || a.Seconds != 26 {
		t.Errorf("completeness: %+v", a)
	}
	if m := p.Warnings[1].Message; !strings.Contains(m, "5 items are sent where 3 would do") {
		t.Errorf("message: %s", m)
	}
}

func TestLimitsAndPrice(t *testing.T) {
	for _, tt := range []struct {
		l      Limits
		o, w   int
		expect float64
	}{
		{Limits{}, 0, 0, 0},
		{Limits{}, 1, 0, 25},
		{Limits{}, 1, 1, 25},
		{Limits{}, 300, 0, 26},
		{Limits{}, 450, 0, 27},
		{Limits{}, 3000, 0, 44},
		{Limits{}, 3150, 0, 50}, // the last 150 wait for the first to complete
		{Limits{ItemsInProgress: -1}, 3150, 0, 45},
		{Limits{Burst: 7}, 1050, 0, 25},
		{Limits{}, 300, 61, 133}, // 13 wildcards at a time, five times
		{Limits{WildcardsInProgress: -1}, 300, 61, 85},
		{Limits{ItemsPerSecond: 1, WildcardsPerSecond: 0.5, CompletionSeconds: 1}, 5, 3, 8}, // wildcards are items too
		{Limits{ItemsPerSecond: -1}, 300, 0, 26},
	} {
		if got := tt.l.Seconds(tt.o, tt.w); got != tt.expect {
			t.Errorf("%+v, %d and %d: %v s, want %v", tt.l, tt.o, tt.w, got, tt.expect)
		}
	}
	for _, tt := range []struct {
		m      PriceModel
		n      int
		expect float64
	}{
		{PriceModel{}, 0, 0}, {PriceModel{}, 7, 0.035}, {PriceModel{FreePaths: 10}, 7, 0}, {PriceModel{FreePaths: 10}, 13, 0.015},
		{PriceModel{FreePaths: -5}, 1, 0.005}, {PriceModel{PerPath: 1}, 2, 2},
	} {
		if got := tt.m.Of(tt.n); got != tt.expect {
			t.Errorf("%+v of %d: %v, want %v", tt.m, tt.n, got, tt.expect)
		}
	}
	p, err := Compute(manyDirectories(400), Options{Wildcards: true})
	if err != nil {
		t.Fatal(err)
	}
	if codes(p) != "slow" || p.Totals.Wildcards != 400 {
		t.Errorf("%q, %+v", codes(p), p.Totals)
	}
}

// manyDirectories yields n directories, each with two selected entries and one beside.
func manyDirectories(n int) iter.Seq2[Input, error] {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("/d%04d/a", i), fmt.Sprintf("+/d%04d/b/1", i), fmt.Sprintf("+/d%04d/b/2", i))
	}
	return entries(list...)
}

func TestComputeErrors(t *testing.T) {
	for name, list := range map[string][]string{"order": {"/b", "/a"}, "twice": {"/a", "/a"}, "twice the empty": {"", ""}} {
		if p, err := Compute(entries(list...), Options{}); err == nil || p != nil || !strings.Contains(err.Error(), "byte order") {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
	broken := errors.New("broken")
	if p, err := Compute(func(yield func(Input, error) bool) { yield(Input{}, broken) }, Options{}); err != broken || p != nil {
		t.Errorf("iterator: %v, %v", p, err)
	}
	if _, err := Compute(func(yield func(Input, error) bool) { yield(Input{}, nil) }, Options{}); err == nil {
		t.Error("no entry is taken")
	}
	var bad *cfpath.Error
	for _, object := range []string{"/index.html", strings.Repeat("x", cfpath.MaxLength)} {
		if _, err := Compute(entries(), Options{RootObject: object}); !errors.As(err, &bad) {
			t.Errorf("root object: %v", err)
		}
	}
	if _, err := Compute(entries(), Options{Scope: []string{"/ok", "/a b"}}); !errors.As(err, &bad) || !strings.Contains(err.Error(), "scope 2") {
		t.Errorf("scope: %v", err)
	}
}

func TestJSON(t *testing.T) {
	p, err := Compute(entries("/a", "+/b/1", "+/b/2", "/c", "+/c~"), Options{Wildcards: true, Named: items(t, "/n", "#tag", "/it%27s")})
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(p)
	if err == nil && !strings.Contains(string(data), `{"item":"/b/*","kind":"wildcard","covers":2,"collateral":0,"reason":"all-below","why":"all 2 entries under /b/ are selected"}`) {
		err = errors.New("an item is not as it should be")
	}
	if err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	var back Plan
	if err := json.Unmarshal(data, &back); err != nil || !reflect.DeepEqual(p, &back) {
		t.Errorf("%+v\nbecame\n%+v, %v", p, back, err)
	}
	p, err = Compute(entries(), Options{Wildcards: true, Named: items(t, "/a")})
	if err != nil {
		t.Fatal(err)
	}
	if data, _ := json.Marshal(p); strings.Contains(string(data), "null") {
		t.Errorf("null in %s", data)
	}
	for _, in := range []string{`{"item":"/a b","kind":"path"}`, `{"item":"/a*","kind":"path"}`, `{"item":"/a"}x`, `{"item":1}`, `{"item":"","kind":"path"}`} {
		var it Item
		if err := json.Unmarshal([]byte(in), &it); err == nil {
			t.Errorf("%s is %v", in, it)
		}
	}
}

// What is read only once must not be held: selected entries that end up as one
// item leave next to nothing behind.
func TestMemoryIsTheAnswer(t *testing.T) {
	list := inventoryOf(100_000)
	for i := range list {
		list[i].Selected = true
	}
	n := testing.AllocsPerRun(1, func() {
		p, err := Compute(sequence(list), Options{Wildcards: true})
		if err != nil || len(p.Items) != 1 {
			t.Fatalf("%v, %v", say(p), err)
		}
	})
	if n > 2000 {
		t.Errorf("%v allocations", n)
	}
}

func sequence(list []Input) iter.Seq2[Input, error] {
	return func(yield func(Input, error) bool) {
		for _, in := range list {
			if !yield(in, nil) {
				return
			}
		}
	}
}
