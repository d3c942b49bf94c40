// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
)

func TestTwins(t *testing.T) {
	for _, tt := range []struct {
		s       Selector
		yes, no []string
	}{
		{Selector{Patterns: []string{"/blog"}}, []string{"/blog", "/blog/", "/blog/index.html", "/blog.html", "/blog?x=1", "/blog/?x=1",
			"/_next/data/zBFbp/blog.json", "/_next/data/zBFbp/blog.json?slug=1", "/blog?_rsc=1dou9", "/blog.txt", "/blog/index.txt?_rsc=x",
			"/page-data/blog/page-data.json", "/blog/_payload.json?hash", "/blog/__data.json?x-sveltekit-invalidated=01", "/blog.html__data.json",
			"/blog.data", "/blog/_.data"},
			[]string{"/", "/blog/a", "/blog2", "/_next/data/zBFbp/en/blog.jsonx", "/_next/data/zBFbp/blog2.json", "/page-data/page-data.json", "/index.html"}},
		{Selector{Patterns: []string{"/"}}, []string{"/", "/index.html", "/_next/data/zBFbp/index.json", "/index.txt", "/page-data/index/page-data.json",
			"/_payload.json", "/__data.json", "/_root.data", "/_.data"}, []string{"/a", "/.html", "/_next/data/zBFbp/.json", "/.data", "/page-data//page-data.json"}},
		// A list of files names the same pages.
		{Selector{Patterns: []string{"/a/index.html", "/b.html", "/c/"}}, []string{"/a", "/a/", "/a.html", "/a/__data.json", "/b", "/b/", "/b/index.html", "/b.data",
			"/c", "/c/index.html", "/_next/data/1/c.json"}, []string{"/", "/index.html", "/c/d"}},
		{Selector{Patterns: []string{"/index.html"}}, []string{"/", "/_root.data", "/_next/data/1/index.json"}, []string{"/index", "/index/"}},
		// And so does the data.
		{Selector{Patterns: []string{"/a/__data.json", "/page-data/b/page-data.json", "/page-data/index/page-data.json"}}, []string{"/a", "/a/", "/b", "/b/", "/", "/_root.data"},
			[]string{"/index", "/c"}},
		{Selector{Patterns: []string{"/blog/*"}}, []string{"/blog/x", "/blog/x/", "/_next/data/1/blog/x.json", "/_next/data/1/blog/x/y.json", "/page-data/blog/x/page-data.json"},
			[]string{"/blog", "/_next/data/1/blog.json", "/page-data/shop/x/page-data.json"}},
		{Selector{Patterns: []string{"*/comments"}}, []string{"/a/comments/", "/_next/data/1/a/comments.json", "/page-data/a/comments/page-data.json", "/a/comments.html"},
			[]string{"/a/comments2", "/_next/data/1/comments2.json"}},
		{Selector{Prefixes: []string{"/shop/"}}, []string{"/shop/a", "/_next/data/1/shop/a.json", "/page-data/shop/a/page-data.json"}, []string{"/shop", "/_next/data/1/shops.json"}},
		{Selector{Patterns: []string{"*a"}, Prefixes: []string{"/shop/"}}, []string{"/shop/a", "/shop/a/", "/_next/data/1/shop/a.json"}, []string{"/shop/b", "/_next/data/1/blog/a.json"}},
		// Queries stay, and literal ones are literal.
		{Selector{Patterns: []string{"/a?x=1"}}, []string{"/a/?x=1", "/a?x=1&_rsc=z", "/_next/data/1/a.json?x=1"}, []string{"/a", "/a/", "/a?_rsc=z", "/a/?x=2"}},
		{Selector{Patterns: []string{"/a"}, ExactQuery: true}, []string{"/a", "/a/", "/a?_rsc=z"}, []string{"/a?x", "/a/?x", "/_next/data/1/a.json?x"}},
		// Exclusions come last.
		{Selector{Patterns: []string{"/a"}, Exclude: []string{"*.json"}}, []string{"/a/"}, []string{"/a/__data.json", "/_next/data/1/a.json"}},
		{Selector{All: true}, []string{"/x"}, nil},
	} {
		tt.s.Twins = DefaultTwins()
		c := compile(t, tt.s)
		for _, p := range tt.yes {
			if !c.MaySelect(p) {
				t.Errorf("%s does not select %s", tt.s, p)
			}
		}
		for _, p := range tt.no {
			if c.MaySelect(p) {
				t.Errorf("%s selects %s", tt.s, p)
			}
		}
	}
	// A twin has to carry the tag itself.
	c := compile(t, Selector{Patterns: []string{"/a"}, Tags: []string{"x"}, Twins: DefaultTwins()})
	if c.Selects(&inventory.Entry{Path: "/a/"}, cut) || !c.Selects(&inventory.Entry{Path: "/a/", Tags: []string{"x"}}, cut) {
		t.Error("the tag of a twin is not looked at")
	}
	// What is named goes out as named; its twins are looked up.
	c = compile(t, Selector{Patterns: []string{"/a", "/b/*"}, Twins: DefaultTwins()})
	if got := c.Named(); len(got) != 2 || c.Names(&inventory.Entry{Path: "/a/"}) || !c.Names(&inventory.Entry{Path: "/a"}) {
		t.Errorf("named %v", got)
	}
	if c.Names(&inventory.Entry{Path: "/a", Folded: true}) {
		t.Error("what is folded into /a has twins that are not named")
	}
}

func TestTwinsOfOnesOwn(t *testing.T) {
	c := compile(t, Selector{Patterns: []string{"/a"}, Twins: []string{"{page}/amp", "/m/{page:home}"}})
	for p, want := range map[string]bool{"/a": true, "/a/amp": true, "/m/a": true, "/a/": false, "/m/home": false} {
		if c.MaySelect(p) != want {
			t.Errorf("selects %s: %v", p, !want)
		}
	}
	// Whatever the order of templates, a path is the page that it says most about.
	c = compile(t, Selector{Patterns: []string{"/a/index.html"}, Twins: []string{"{page}.html", "{page}/index.html", "{page}"}})
	if !c.MaySelect("/a") || !c.MaySelect("/a.html") || c.MaySelect("/a/index") {
		t.Error("/a/index.html is not taken for /a")
	}
	// A scan for it begins where its twins do.
	c = compile(t, Selector{Patterns: []string{"/section/a", "/section/b"}, Twins: []string{"/data/{page}"}})
	if p := c.Prefix(); p != "/" {
		t.Errorf("prefix %q", p)
	}
	c = compile(t, Selector{Patterns: []string{"/a"}, ExactQuery: true, Twins: []string{"{page}/"}})
	if c.Names(&inventory.Entry{Path: "/a", Folded: true}) {
		t.Error("what is folded into /a has a twin that is not named")
	}
	for template, pos := range map[string]int{
		"": 0, "/a": 0, "{pages}": 0, "{page:}": 0, "{page:a/b}": 0, "/x/{page": 3, "x{page}": 0, "{page}{page}": 6, "/a b/{page}": 0, "/a?{page}": 0, "{page}/#": 0,
	} {
		err := CheckTwin(template)
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Pos != pos || e.Hint == "" {
			t.Errorf("%q: %v", template, err)
		}
		if _, err := (Selector{Patterns: []string{"/a"}, Twins: []string{"{page}/", template}}).Compile(); err == nil || !strings.HasPrefix(err.Error(), "twins[1] ") {
			t.Errorf("%q: %v", template, err)
		}
	}
	for _, template := range DefaultTwins() {
		if err := CheckTwin(template); err != nil {
			t.Error(err)
		}
	}
	if _, err := (Selector{Regexps: []string{"a"}, Twins: DefaultTwins()}).Compile(); err == nil {
		t.Error("twins of a regular expression")
	}
}

func TestTwinsOnlyAdd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSelector(t)
		plain, err := s.Compile()
		if err != nil {
			return
		}
		s.Twins = []string{"{page}", "{page}/", "{page}/b", "/a/*/{page:b}a", "{page}?a=*"}
		c, err := s.Compile()
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		path := "/" + word("a", "b", "/", "?", "=").Draw(t, "path")
		more := word("a", "b", "/", "?").Draw(t, "more")
		if plain.MaySelect(path) && !c.MaySelect(path) {
			t.Fatalf("%s no longer selects %s", s, path)
		}
		if c.MaySelect(path+more) && !c.MaySelectBelow(path) {
			t.Fatalf("%s does not select below %s, but %s", s, path, path+more)
		}
		if c.MaySelect(path) && !strings.HasPrefix(path, c.Prefix()) {
			t.Fatalf("%s selects %s, which does not begin with %s", s, path, c.Prefix())
		}
		if !slices.Equal(plain.Named(), c.Named()) {
			t.Fatalf("%s names %v, not %v", s, c.Named(), plain.Named())
		}
		if e := (&inventory.Entry{Path: path}); c.Names(e) && !plain.Names(e) {
			t.Fatalf("%s names %s", s, path)
		}
	})
}
