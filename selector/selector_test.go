// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"encoding/json"
	"errors"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
)

var cut = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func compile(t testing.TB, s Selector) *Compiled {
	t.Helper()
	c, err := s.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestMaySelect(t *testing.T) {
	tests := []struct {
		name string
		s    Selector
		yes  []string
		no   []string
	}{
		{"nothing", Selector{}, nil, []string{"/", "/a"}},
		{"exclusions alone", Selector{Exclude: []string{"/a"}}, nil, []string{"/", "/a"}},
		{"all", Selector{All: true}, []string{"/", "/a?b"}, nil},
		{"all but", Selector{All: true, Exclude: []string{"/a", "*.js"}}, []string{"/", "/ab", "/x.js/y"}, []string{"/a", "/a?b", "/x.js", "/x.js?v=1"}},
		{"a path and its queries", Selector{Patterns: []string{"/a"}}, []string{"/a", "/a?", "/a?x=1", "/a?x=1?y"}, []string{"/", "/ab", "/a/", "/A"}},
		{"a root object as /", Selector{Patterns: []string{"/"}, RootObject: "index.html"}, []string{"/", "/?q", "/index.html", "/index.html?q"}, []string{"/index.html5", "/a", "/a/index.html"}},
		{"a root object by a pattern", Selector{Patterns: []string{"*.html"}, RootObject: "index.html"}, []string{"/", "/?q", "/index.html", "/a.html"}, []string{"/a", "/a/"}},
		{"a root object with a query", Selector{Patterns: []string{"/?q*"}, RootObject: "index.html"}, []string{"/?q", "/index.html?q=1"}, []string{"/", "/index.html", "/?r"}},
		{"a root object, excluded under one path", Selector{All: true, Exclude: []string{"/"}, RootObject: "index.html"}, []string{"/", "/index.html", "/a"}, nil},
		{"a root object, excluded", Selector{All: true, Exclude: []string{"/", "/index.html"}, RootObject: "index.html"}, []string{"/a"}, []string{"/", "/index.html", "/?q"}},
		{"a path literally", Selector{Patterns: []string{"/a"}, ExactQuery: true}, []string{"/a"}, []string{"/a?x=1", "/a?"}},
		{"a path with a query", Selector{Patterns: []string{"/a?x=1"}}, []string{"/a?x=1"}, []string{"/a", "/a?x=11", "/a?x=1&y"}},
		{"a trailing star", Selector{Patterns: []string{"/a*"}}, []string{"/a", "/ab", "/a?x"}, []string{"/", "/b"}},
		{"star and query", Selector{Patterns: []string{"/a?*"}}, []string{"/a?", "/a?x"}, []string{"/a", "/ab"}},
		{"star in the middle", Selector{Patterns: []string{"/blog/*/comments"}}, []string{"/blog/x/comments", "/blog/x/y/comments", "/blog//comments?page=2", "/blog/x?y/comments"}, []string{"/blog/comments", "/blog/x/comments/", "/x/blog/x/comments"}},
		{"star in front", Selector{Patterns: []string{"*.png"}}, []string{"/x.png", "/x.png?v=2", "/.png", "/x?y=.png"}, []string{"/x.pngx", "/x.jpg?y"}},
		{"star in front, literally", Selector{Patterns: []string{"*.png"}, ExactQuery: true}, []string{"/x.png", "/x?y=.png"}, []string{"/x.png?v=2"}},
		{"a question mark is itself", Selector{Patterns: []string{"*/a?b*"}}, []string{"/a?b", "/x/a?bc"}, []string{"/axb", "/a"}},
		{"several stars", Selector{Patterns: []string{"/*a*a"}}, []string{"/aa", "/xaxa", "/aaa?q"}, []string{"/a", "/aab"}},
		{"head and tail do not overlap", Selector{Patterns: []string{"/ab*ba"}}, []string{"/abba", "/abxba"}, []string{"/aba"}},
		{"only stars", Selector{Patterns: []string{"**"}}, []string{"/", "/a"}, nil},
		{"stars at the end", Selector{Patterns: []string{"/a**"}}, []string{"/a", "/ab"}, []string{"/"}},
		{"a raw space", Selector{Patterns: []string{"/a b", "*ä*", "/100%"}}, []string{"/a%20b", "/x%C3%A4", "/100%25"}, []string{"/a", "/a+b"}},
		{"prefix", Selector{Prefixes: []string{"/a b", "/a"}}, []string{"/a%20bc", "/ax"}, []string{"/b"}},
		{"a prefix has no star", Selector{Prefixes: []string{"/a*"}}, []string{"/a*b"}, []string{"/ab"}},
		{"regexp", Selector{Regexps: []string{`\.(js|css)$`, "^/x"}}, []string{"/a.js", "/x"}, []string{"/a.jsx"}},
		{"narrowing", Selector{Patterns: []string{"*.js"}, Prefixes: []string{"/a/", "/b/"}, Regexps: []string{"[0-9]"}, Exclude: []string{"/a/9*"}}, []string{"/a/1.js", "/b/9.js"}, []string{"/a/x.js", "/c/1.js", "/a/1.css", "/a/9.js"}},
		{"what a path does not tell", Selector{Tags: []string{"t"}, OlderThan: []Duration{1}}, []string{"/"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
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
		})
	}
}

func TestSelects(t *testing.T) {
	entry := inventory.Entry{Path: "/a", Last: cut.Add(-time.Hour), Tags: []string{"News", "p-12"}}
	entry.Tags = append(entry.Tags, strings.Repeat("t", cfpath.MaxTagLength+1))
	folded := inventory.Entry{Path: "/s?q=", Last: cut, Tags: []string{"news"}, Folded: true}
	hours := func(h ...int) (ds []Duration) {
		for _, h := range h {
			ds = append(ds, Duration(h)*Duration(time.Hour))
		}
		return ds
	}
	tests := []struct {
		name          string
		s             Selector
		entry, folded bool
	}{
		{"empty", Selector{}, false, false},
		{"all", Selector{All: true}, true, true},
		{"tag, in any case", Selector{Tags: []string{"x", "nEWS"}}, true, true},
		{"another tag", Selector{Tags: []string{"new", "newss", strings.Repeat("t", cfpath.MaxTagLength)}}, false, false},
		{"tag and path", Selector{Tags: []string{"news"}, Patterns: []string{"/b"}}, false, false},
		{"not older than its age", Selector{OlderThan: hours(1)}, false, true},
		{"older: the union", Selector{OlderThan: hours(2, 0)}, true, true},
		{"seen since its very last", Selector{SeenSince: hours(1)}, true, true},
		{"not seen since", Selector{SeenSince: []Duration{Duration(time.Hour) - 1}}, false, true},
		{"folded: not seen since", Selector{SeenSince: []Duration{0}}, false, true},
		{"seen since: the union", Selector{SeenSince: hours(0, 2)}, true, true},
		{"of an age between two", Selector{SeenSince: hours(2), OlderThan: []Duration{Duration(time.Hour) - 1}}, true, true},
		{"seen since, and another path", Selector{SeenSince: hours(2), Patterns: []string{"/b"}}, false, false},
		{"folded: a pattern inside", Selector{Patterns: []string{"/s?q=1"}}, false, true},
		{"folded: the path whose queries it is", Selector{Patterns: []string{"/s"}}, false, true},
		{"folded: literally not", Selector{Patterns: []string{"/s"}, ExactQuery: true}, false, false},
		{"folded: a prefix inside and one above", Selector{Patterns: []string{"/s*"}, Prefixes: []string{"/s?q=xyz"}}, false, true},
		{"folded: a glob that may match below", Selector{Patterns: []string{"*z"}}, false, true},
		{"folded: a glob that cannot", Selector{Patterns: []string{"/t*z", "/a*b*"}}, false, false},
		{"folded: partly excluded", Selector{All: true, Exclude: []string{"/s?q=1*", "/a"}}, false, true},
		{"folded: excluded", Selector{All: true, Exclude: []string{"/s?*", "*a"}}, false, false},
		{"folded: its queries excluded", Selector{All: true, Exclude: []string{"/s"}}, true, false},
		{"folded: excluded by a glob", Selector{All: true, Exclude: []string{"*?q*"}}, true, false},
		{"folded: a glob excludes some", Selector{All: true, Exclude: []string{"*?q=*x"}}, true, true},
		{"folded: a glob excludes just its path", Selector{All: true, Exclude: []string{"*="}}, true, true},
		{"folded: a regexp may match", Selector{Regexps: []string{"never"}}, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := compile(t, tt.s)
			if got := c.Selects(&entry, cut); got != tt.entry {
				t.Errorf("entry: %v", got)
			}
			if got := c.Selects(&folded, cut); got != tt.folded {
				t.Errorf("folded entry: %v", got)
			}
		})
	}
}

func TestNamed(t *testing.T) {
	long := "/" + strings.Repeat("x", cfpath.MaxItemLength)
	tests := []struct {
		s    Selector
		want string
	}{
		{Selector{Patterns: []string{"/b", "/a*", "/b", "/c d", "/*/x", "/a?x=1"}}, "/b /a* /c%20d /a?x=1"},
		{Selector{Patterns: []string{"*", "/x**", "*x"}}, "/*"},
		{Selector{Patterns: []string{"/a~b", "/a%7Eb*", "/~*", long, long + "*"}}, ""},
		{Selector{Patterns: []string{"/a"}, All: true}, ""},
		{Selector{Patterns: []string{"/a"}, Prefixes: []string{"/"}}, ""},
		{Selector{Patterns: []string{"/a"}, Regexps: []string{""}}, ""},
		{Selector{Patterns: []string{"/a"}, Tags: []string{"t"}}, ""},
		{Selector{Patterns: []string{"/a"}, OlderThan: []Duration{0}}, ""},
		{Selector{Prefixes: []string{"/a"}}, ""},
		// Exclusions.
		{Selector{Patterns: []string{"/a", "/a?x", "/b", "/c*"}, Exclude: []string{"/a"}}, "/b /c*"},
		{Selector{Patterns: []string{"/a", "/a?x"}, Exclude: []string{"/a"}, ExactQuery: true}, "/a?x"},
		{Selector{Patterns: []string{"/a*", "/b*", "/b/c*"}, Exclude: []string{"/b/*"}}, "/a*"},
		{Selector{Patterns: []string{"/a*", "/b", "/b.js"}, Exclude: []string{"*.js"}}, "/b"},
		{Selector{Patterns: []string{"/a?x*", "/b*"}, Exclude: []string{"/a"}}, "/b*"},
		{Selector{Patterns: []string{"/a?x*", "/b*"}, Exclude: []string{"/a"}, ExactQuery: true}, "/a?x* /b*"},
	}
	for _, tt := range tests {
		var got []string
		for _, it := range compile(t, tt.s).Named() {
			got = append(got, it.String())
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%.80s: named %q, want %q", tt.s.String(), got, tt.want)
		}
	}
}

func TestSeenSinceOfWhatIsFolded(t *testing.T) {
	c := compile(t, Selector{SeenSince: []Duration{Duration(time.Hour)}})
	for age, want := range map[time.Duration]bool{time.Hour: true, time.Hour + 1: false} {
		if e := (&inventory.Entry{Path: "/s?", Last: cut.Add(-age), Folded: true}); c.Selects(e, cut) != want {
			t.Errorf("last sighted %v before: selected %v", age, !want)
		}
	}
}

func TestNames(t *testing.T) {
	tests := []struct {
		s    Selector
		e    inventory.Entry
		want bool
	}{
		{Selector{Patterns: []string{"/a"}}, inventory.Entry{Path: "/a"}, true},
		{Selector{Patterns: []string{"/a"}}, inventory.Entry{Path: "/a?x"}, false},
		{Selector{Patterns: []string{"/a"}}, inventory.Entry{Path: "/b"}, false},
		{Selector{Patterns: []string{"/a*"}}, inventory.Entry{Path: "/a?x"}, true},
		{Selector{Patterns: []string{"/s?q=1*"}}, inventory.Entry{Path: "/s?q=", Folded: true}, true},
		{Selector{Patterns: []string{"/s?q=1"}}, inventory.Entry{Path: "/s?q=", Folded: true}, true},
		{Selector{Patterns: []string{"/s?q=1*", "*2"}}, inventory.Entry{Path: "/s?q=", Folded: true}, false},
		{Selector{Patterns: []string{"/s"}}, inventory.Entry{Path: "/s", Folded: true}, false},
		{Selector{Patterns: []string{"/s"}, ExactQuery: true}, inventory.Entry{Path: "/s", Folded: true}, true},
		{Selector{Patterns: []string{"/a"}, All: true}, inventory.Entry{Path: "/a"}, false},
	}
	for _, tt := range tests {
		if got := compile(t, tt.s).Names(&tt.e); got != tt.want {
			t.Errorf("%s names %s (folded %v): %v", tt.s, tt.e.Path, tt.e.Folded, got)
		}
	}
}

// What is folded is selected below if one of its paths is: of the default root object, one
// is everywhere.
func TestARootObjectBelow(t *testing.T) {
	c := compile(t, Selector{Patterns: []string{"/"}, RootObject: "index.html"})
	for prefix, want := range map[string]bool{"/": true, "/i": true, "/index.html": true, "/index.html?": true, "/index.html?q": true, "/?": true, "/index.html/": false, "/a": false} {
		if got := c.MaySelectBelow(prefix); got != want {
			t.Errorf("%s: %t", prefix, got)
		}
	}
	c = compile(t, Selector{Patterns: []string{"/?q=1"}, RootObject: "index.html"})
	for prefix, want := range map[string]bool{"/i": true, "/index.html?": true, "/index.html?q=1": true, "/index.html?r": false, "/?q": true, "/a": false} {
		if got := c.MaySelectBelow(prefix); got != want {
			t.Errorf("with a query, %s: %t", prefix, got)
		}
	}
}

func TestPrefix(t *testing.T) {
	tests := []struct {
		s    Selector
		want string
	}{
		{Selector{}, ""},
		{Selector{All: true}, ""},
		{Selector{Patterns: []string{"/blog/a", "/blog/b*", "/blog/*x"}}, "/blog/"},
		{Selector{Patterns: []string{"/blog/a", "*x"}}, ""},
		{Selector{Patterns: []string{"/a/b*"}, Prefixes: []string{"/a/b/c", "/a/b/d"}}, "/a/b/"},
		{Selector{Patterns: []string{"/a/b/c*"}, Prefixes: []string{"/a"}}, "/a/b/c"},
		{Selector{Tags: []string{"x"}}, ""},
		{Selector{Patterns: []string{"/index.html"}, RootObject: "index.html"}, "/"},
		{Selector{Patterns: []string{"/ind*"}, RootObject: "index.html"}, "/"},
		{Selector{Patterns: []string{"/?q=*"}, RootObject: "index.html"}, "/"},
		{Selector{Patterns: []string{"/blog/*"}, RootObject: "index.html"}, "/blog/"},
	}
	for _, tt := range tests {
		if got := compile(t, tt.s).Prefix(); got != tt.want {
			t.Errorf("%s: prefix %q, want %q", tt.s, got, tt.want)
		}
	}
}

func TestCompileErrors(t *testing.T) {
	tests := []struct {
		s     Selector
		where string
		pos   int
		part  string
	}{
		{Selector{Patterns: []string{"/ok", ""}}, "pattern", 0, "empty"},
		{Selector{Patterns: []string{"a"}}, "pattern", 0, "begins with '/' or '*'"},
		{Selector{Patterns: []string{"#tag"}}, "pattern", 0, "--tag"},
		{Selector{Patterns: []string{"https://h/a"}}, "pattern", 0, "scheme"},
		{Selector{Patterns: []string{"/" + strings.Repeat("x", cfpath.MaxLength)}}, "pattern", cfpath.MaxLength, "longer"},
		{Selector{Patterns: []string{"*" + strings.Repeat("x", cfpath.MaxLength)}}, "pattern", cfpath.MaxLength - 1, "longer"},
		{Selector{Patterns: []string{"/a"}, Exclude: []string{"?"}}, "--exclude", 0, "begins with"},
		{Selector{Prefixes: []string{"*a"}}, "--prefix", 0, "begins with '/'"},
		{Selector{Regexps: []string{"ok", "a(b"}}, "--regexp", 0, "missing closing )"},
		{Selector{Regexps: []string{"ab[z-a]"}}, "--regexp", 3, "invalid character class range"},
		{Selector{Tags: []string{""}}, "--tag", 0, "empty tag"},
		{Selector{Tags: []string{"a,b"}}, "--tag", 1, `","`},
		{Selector{OlderThan: []Duration{-1}}, "--older-than", 0, "negative"},
		{Selector{SeenSince: []Duration{-1}}, "--seen-since", 0, "negative"},
		// What can select nothing.
		{Selector{Patterns: []string{"/ok", "/a#top"}}, "pattern", 2, "%23"},
		{Selector{Patterns: []string{"*a#"}}, "pattern", 2, "%23"},
		{Selector{Prefixes: []string{"/a#"}}, "--prefix", 2, "%23"},
		{Selector{Patterns: []string{"/a*"}, Exclude: []string{"/a*"}}, "--exclude", 0, "leaves out all of pattern /a*"},
		{Selector{Patterns: []string{"/a b", "/a/c?x"}, Exclude: []string{"/other", "*a*"}}, "--exclude", 0, "pattern /a/c?x, and the other 1"},
		{Selector{Patterns: []string{"/a?x"}, Exclude: []string{"/a"}}, "--exclude", 0, "all of pattern /a?x"},
		{Selector{Prefixes: []string{"/a/"}, Exclude: []string{"/a*"}}, "--exclude", 0, "all of --prefix /a/"},
		{Selector{All: true, Exclude: []string{"/*"}}, "--exclude", 0, "all of everything"},
		{Selector{Tags: []string{"t"}, Exclude: []string{"*"}}, "--exclude", 0, "all of everything"},
		{Selector{Patterns: []string{"/a*", "/b"}, Prefixes: []string{"/c", "/d"}}, "--prefix", 0, "'/c*'"},
		{Selector{Patterns: []string{"/a"}, Prefixes: []string{"/a?x"}, ExactQuery: true}, "--prefix", 0, "no pattern"},
		{Selector{OlderThan: []Duration{60e9}, SeenSince: []Duration{60e9}}, "--seen-since", 0, "older than 1m"},
		{Selector{Regexps: []string{"ok", "^blog"}}, "--regexp", 0, "^/blog"},
		{Selector{Regexps: []string{"^$"}}, "--regexp", 0, "no path"},
		{Selector{Regexps: []string{"\\s"}}, "--regexp", 0, "%20"},
		{Selector{Regexps: []string{"über"}}, "--regexp", 0, "%C3%BC"},
		{Selector{Regexps: []string{"a^b"}}, "--regexp", 0, "no path"},
	}
	for _, tt := range tests {
		_, err := tt.s.Compile()
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%.80s: error %v", tt.s.String(), err)
			continue
		}
		if e.Where != tt.where || e.Pos != tt.pos || !strings.Contains(e.Error(), tt.part) {
			t.Errorf("%.80s: %d: %v; want %s %d, with %q", tt.s.String(), e.Pos, e, tt.where, tt.pos, tt.part)
		}
	}
}

func TestWhatMaySelectSomethingIsNoError(t *testing.T) {
	for _, s := range []Selector{
		{Patterns: []string{"/a*", "/b"}, Exclude: []string{"/a*"}},
		{Patterns: []string{"/a*c"}, Exclude: []string{"/a*bc"}},
		{Patterns: []string{"/a*b?x"}, Exclude: []string{"/a*b"}}, // "/a?/b?x" is selected
		{Patterns: []string{"/a"}, Exclude: []string{"/a?*"}},
		{Prefixes: []string{"/a", "/b"}, Exclude: []string{"/a*"}},
		{All: true, Exclude: []string{"/a*", "*b"}},
		{Patterns: []string{"/a"}, Prefixes: []string{"/a?x"}}, // with that query
		{Patterns: []string{"*b"}, Prefixes: []string{"/a"}},
		{OlderThan: []Duration{60e9, 30e9}, SeenSince: []Duration{20e9, 31e9}},
		{Patterns: []string{"/a%23b", "/a/**/b"}},
		{Regexps: []string{"^/$"}}, {Regexps: []string{"$"}}, {Regexps: []string{"\\bblog\\b"}}, {Regexps: []string{"^[^a]"}}, {Regexps: []string{"(?i)PNG$"}},
		{Regexps: []string{"%20"}}, {Regexps: []string{"^/blog|^blog"}}, {Regexps: []string{"^\\B"}}, {Regexps: []string{""}}, {Regexps: []string{"(?m)^/a$"}},
	} {
		if _, err := s.Compile(); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
}

// Of regular expressions over few characters it is known which match a path.
func TestImpossibleRegexps(t *testing.T) {
	var paths []string
	level := []string{"/"}
	for range 7 {
		paths = append(paths, level...)
		var next []string
		for _, p := range level {
			for _, c := range []string{"/", "a", "."} {
				next = append(next, p+c)
			}
		}
		level = next
	}
	part := rapid.SampledFrom([]string{"^", "$", "a", "/", `\.`, ".", `\b`, `\B`, "a*", "a?", "(a|^)", "(/|$)", "[^/]", " ", "ü", `\A`, `\z`, "(?:/a)+"})
	rapid.Check(t, func(t *rapid.T) {
		expr := strings.Join(rapid.SliceOfN(part, 0, 4).Draw(t, "expression"), "")
		re, err := regexp.Compile(expr)
		if err != nil {
			t.Skip()
		}
		possible := slices.ContainsFunc(paths, re.MatchString)
		if impossible(expr) == possible {
			t.Fatalf("%q is taken for impossible: %v", expr, possible)
		}
	})
}

func TestString(t *testing.T) {
	s := Selector{
		All: true, Patterns: []string{"/a b", "/c"}, Prefixes: []string{"/p"}, Regexps: []string{"it's"}, Tags: []string{"t"},
		OlderThan: []Duration{Duration(90 * time.Minute), Duration(24 * time.Hour), Duration(10 * time.Minute), Duration(1500 * time.Millisecond), 0},
		SeenSince: []Duration{Duration(time.Minute)},
		Exclude:   []string{"*.js"}, ExactQuery: true,
	}
	want := `'/a b' /c --all --prefix /p --regexp 'it'\''s' --tag t ` +
		`--older-than 1h30m --older-than 24h --older-than 10m --older-than 1.5s --older-than 0s --seen-since 1m --exclude '*.js' --exact-query`
	if got := s.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	long := Selector{Patterns: slices.Repeat([]string{"/a"}, 20), Exclude: []string{"/b"}}
	if got, want := long.Brief(), "/a /a /a /a /a /a /a /a --exclude /b ... and 12 more"; got != want {
		t.Errorf("brief: %s", got)
	}
	if got := s.Brief(); got != want {
		t.Errorf("brief: %s", got)
	}
	if got := (Selector{}).String(); got != "" {
		t.Errorf("empty: %q", got)
	}
}

func TestJSON(t *testing.T) {
	s := Selector{
		Patterns: []string{"/a*"}, Prefixes: []string{"/p"}, Regexps: []string{"x$"}, Tags: []string{"t"},
		OlderThan: []Duration{Duration(time.Hour), 1, -1500000000}, SeenSince: []Duration{2}, Exclude: []string{"*.js"},
		Twins: []string{"{page}/"}, RootObject: "index.html", ExactQuery: true,
	}
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if want := `"older_than":[3600,0.000000001,-1.5]`; !strings.Contains(string(data), want) {
		t.Errorf("%s has no %s", data, want)
	}
	var back Selector
	if err := json.Unmarshal(data, &back); err != nil || !reflect.DeepEqual(back, s) {
		t.Errorf("%s became %+v, %v", data, back, err)
	}
	if data, _ := json.Marshal(Selector{}); string(data) != "{}" {
		t.Errorf("the empty selector is %s", data)
	}
	for in, want := range map[string]Duration{"1e3": Duration(1000 * time.Second), "0.25": Duration(time.Second / 4), "null": 7} {
		d := Duration(7)
		if err := json.Unmarshal([]byte(in), &d); err != nil || d != want {
			t.Errorf("%s is %v, %v", in, d, err)
		}
	}
	for _, in := range []string{`"1h"`, "1e10", "99999999999", "{}"} {
		var d Duration
		if err := json.Unmarshal([]byte(in), &d); err == nil {
			t.Errorf("%s is %v", in, d)
		}
	}
}

// JSON holds no bytes that are not UTF-8; in a path they are escapes.
func TestJSONKeepsTheMeaningOfEveryByte(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := "/" + string(rapid.SliceOfN(rapid.SampledFrom([]byte("a%4E\xc3\xa9\xff\xe2*?&<")), 0, 8).Draw(t, "pattern"))
		given := []string{"/ä", p}
		data, err := json.Marshal(Selector{Patterns: given, Prefixes: given, Exclude: given})
		if err != nil {
			t.Fatal(err)
		}
		var back Selector
		if err := json.Unmarshal(data, &back); err != nil {
			t.Fatal(err)
		}
		for _, got := range []string{back.Patterns[1], back.Prefixes[1], back.Exclude[1]} {
			a, err := canonicalPattern("", p)
			b, err2 := canonicalPattern("", got)
			if err != nil || err2 != nil || a != b {
				t.Fatalf("%q became %q: %q is not %q (%v, %v)", p, got, b, a, err, err2)
			}
		}
		if given[1] != p {
			t.Fatal("what was given changed")
		}
	})
}

func TestStripURL(t *testing.T) {
	aliases := []string{"www.example.com", "*.example.org", "127.0.0.1:4581", ""}
	tests := []struct{ in, want string }{
		{"/a", "/a"},
		{"*x", "*x"},
		{"//www.example.com/a", "//www.example.com/a"},
		{"https://www.example.com/a*?x#top", "/a*?x"},
		{"HTTP://WWW.Example.com:8080", "/"},
		{"https://www.example.com./a", "/a"},
		{"https://www.example.com?x=1", "/?x=1"},
		{"https://www.example.com#x", "/"},
		{"https://a.b.example.org/c", "/c"},
		{"http://127.0.0.1:4581/a b", "/a b"},
	}
	for _, tt := range tests {
		if got, err := StripURL(tt.in, aliases); err != nil || got != tt.want {
			t.Errorf("%s: %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
	for _, in := range []string{"https://example.com/a", "https://example.org/", "https://", "https://xwww.example.com", "https://u@www.example.com/", "http://127.0.0.1/", "https://.example.org"} {
		_, err := StripURL(in, aliases)
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), "www.example.com") {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestReadPatterns(t *testing.T) {
	got, err := ReadPatterns(strings.NewReader("\ufeff/a\r\n\r\n  /b c \n\t\n*x\nhttps://h/z\n/last"), "f")
	if want := []string{"/a", "/b c", "*x", "https://h/z", "/last"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	got, err = ReadPatternsNUL(strings.NewReader("/a \x00\x00*x\n\x00https://h/z\x00/last"), "f")
	if want := []string{"/a ", "*x\n", "https://h/z", "/last"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("with NULs: %q, %v", got, err)
	}
	if _, err := ReadPatternsNUL(strings.NewReader("/a\x00b\n"), "f"); err == nil || !strings.HasPrefix(err.Error(), "f:2: ") {
		t.Errorf("with NULs: %v", err)
	}
	if got, err := ReadPatterns(strings.NewReader("\n"), "f"); err != nil || len(got) != 0 {
		t.Errorf("blank: %q, %v", got, err)
	}
	for in, part := range map[string]string{
		"/a\n# note":                             "f:2:",
		"/a\n\nb":                                "f:3:",
		"/" + strings.Repeat("x", longestLine):   "f:1:",
		"/" + strings.Repeat("x", longestLine/2): "f:1:",
	} {
		_, err := ReadPatterns(strings.NewReader(in), "f")
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), part) {
			t.Errorf("%.20q: %v; want %s", in, err, part)
		}
	}
	broken := errors.New("broken")
	if _, err := ReadPatterns(failing{broken}, "f"); !errors.Is(err, broken) {
		t.Errorf("reader's error: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
