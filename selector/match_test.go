// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
)

// matches is the rule of '*' as it reads: any run of characters.
func matches(pattern, s string) bool {
	if pattern == "" {
		return s == ""
	}
	if pattern[0] == '*' {
		return matches(pattern[1:], s) || s != "" && matches(pattern, s[1:])
	}
	return s != "" && s[0] == pattern[0] && matches(pattern[1:], s[1:])
}

func bruteMatch(patterns []string, path string, exactQuery bool) bool {
	stem, _, query := cfpath.Split(path)
	for _, p := range patterns {
		if matches(p, path) || query && !exactQuery && !strings.Contains(p, "?") && matches(p, stem) {
			return true
		}
	}
	return false
}

func word(letters ...string) *rapid.Generator[string] {
	return rapid.Map(rapid.SliceOfN(rapid.SampledFrom(letters), 0, 6), func(s []string) string { return strings.Join(s, "") })
}

func drawSelector(t *rapid.T) Selector {
	pattern := rapid.Map(word("a", "b", "*", "/", "?"), func(s string) string {
		if strings.HasPrefix(s, "*") {
			return s
		}
		return "/" + s
	})
	list := func(name string) []string { return rapid.SliceOfN(pattern, 0, 4).Draw(t, name) }
	s := Selector{Patterns: list("patterns"), Exclude: list("exclude"), ExactQuery: rapid.Bool().Draw(t, "exact")}
	for _, p := range list("prefixes") {
		if strings.HasPrefix(p, "/") && rapid.IntRange(0, 3).Draw(t, "with prefix") == 0 {
			s.Prefixes = append(s.Prefixes, p)
		}
	}
	return s
}

func bruteSelect(s Selector, path string) bool {
	in := len(s.Prefixes) == 0
	for _, p := range s.Prefixes {
		in = in || strings.HasPrefix(path, p)
	}
	return !s.Empty() && in && (len(s.Patterns) == 0 || bruteMatch(s.Patterns, path, s.ExactQuery)) &&
		!bruteMatch(s.Exclude, path, s.ExactQuery)
}

func TestAgainstBruteForce(t *testing.T) { rapid.Check(t, checkSelect) }

func FuzzSelect(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkSelect)) }

func checkSelect(t *rapid.T) {
	s := drawSelector(t)
	c, err := s.Compile()
	path := "/" + word("a", "b", "/", "?", "*").Draw(t, "path")
	more := word("a", "b", "/", "?").Draw(t, "more")
	want := bruteSelect(s, path)
	if err != nil {
		if want || bruteSelect(s, path+more) {
			t.Fatalf("%s selects %s or what begins with it, but %v", s, path, err)
		}
		return
	}
	if got := c.MaySelect(path); got != want {
		t.Errorf("%s selects %s: %v", s, path, got)
	}
	if bruteSelect(s, path+more) && !c.MaySelectBelow(path) {
		t.Errorf("%s does not select below %s, but %s", s, path, path+more)
	}
	if want && !strings.HasPrefix(path, c.Prefix()) {
		t.Errorf("%s selects %s, which does not begin with %s", s, path, c.Prefix())
	}
	named := false
	for _, it := range c.Named() {
		named = named || it.Matches(path)
		if it.Matches(path) && !want {
			t.Errorf("%s names %s, which reaches %s", s, it, path)
		}
	}
	if c.Names(&inventory.Entry{Path: path}) && !c.exclude.excludes(path) && !named {
		t.Errorf("%s does not reach %s by name", s, path)
	}
	if c.Names(&inventory.Entry{Path: path, Folded: true}) && bruteSelect(s, path+more) {
		reached := false
		for _, it := range c.Named() {
			reached = reached || it.Matches(path+more)
		}
		if !reached {
			t.Errorf("%s does not reach %s by name", s, path+more)
		}
	}
}

// Many globs are filed by what they contain; nothing is lost by that.
func TestManyGlobsAgainstBruteForce(t *testing.T) { rapid.Check(t, checkManyGlobs) }

func FuzzManyGlobs(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkManyGlobs)) }

func checkManyGlobs(t *rapid.T) {
	long := word("a", "b", "*", "/", "?", "article-", "index.html")
	var given []string
	for _, p := range rapid.SliceOfN(long, few+1, 40).Draw(t, "patterns") {
		if !strings.HasPrefix(p, "*") {
			p = "/" + p
		}
		given = append(given, p)
	}
	set := newPatterns(rapid.Bool().Draw(t, "exact query"))
	for _, p := range given {
		set.add(p)
	}
	set.finish()
	text := word("a", "b", "/", "?", "article-", "index.html", "x")
	path := "/" + text.Draw(t, "path")
	if n := rapid.IntRange(0, len(given)).Draw(t, "one that matches"); n < len(given) {
		path = strings.ReplaceAll(given[n], "*", text.Draw(t, "filling"))
	}
	more := text.Draw(t, "more")
	want := bruteMatch(given, path, set.exactQuery)
	if got := set.match(path); got != want {
		t.Fatalf("%q match %s: %v", given, path, got)
	}
	if bruteMatch(given, path+more, set.exactQuery) && !set.matchBelow(path) {
		t.Fatalf("%q do not match below %s, but %s", given, path, path+more)
	}
	if set.matchAllBelow(path) && !bruteMatch(given, path+more, set.exactQuery) {
		t.Fatalf("%q match all below %s, but not %s", given, path, path+more)
	}
	one := false
	for _, p := range given {
		alone := newPatterns(set.exactQuery)
		alone.add(p)
		alone.finish()
		one = one || alone.matchAllBelow(path)
	}
	if one != set.matchAllBelow(path) {
		t.Fatalf("%q match all below %s: %v, one of them alone: %v", given, path, !one, one)
	}
}

// Wherever it looked before, an ordered list finds what is there.
func TestOrdered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var o ordered
		o.list = rapid.SliceOfN(word("a", "b", "c"), 0, 60).Draw(t, "list")
		o.finish()
		for _, s := range rapid.SliceOfN(word("a", "b", "c"), 1, 30).Draw(t, "asked") {
			want, there := slices.BinarySearch(o.list, s)
			if i, found := o.find(s); i != want || found != there {
				t.Fatalf("%q in %q: %d %v, not %d %v", s, o.list, i, found, want, there)
			}
		}
	})
}

func TestOrderedIsSafeForConcurrentUse(t *testing.T) {
	var o ordered
	for i := range 1000 {
		o.list = append(o.list, fmt.Sprintf("%04d", i))
	}
	o.finish()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 2000 {
				k := (i*7919 + g*31) % 1000
				if n, ok := o.find(fmt.Sprintf("%04d", k)); n != k || !ok {
					t.Errorf("%d is found at %d: %v", k, n, ok)
				}
			}
		})
	}
	wg.Wait()
}

func (s *patterns) excludes(path string) bool { return s != nil && s.match(path) }

// What MaySelectBelow denies nothing contradicts; what it claims for one
// pattern alone is found by trying all continuations.
func TestBelowIsTight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := "/" + word("a", "b", "*", "/", "?").Draw(t, "pattern")
		exact := rapid.Bool().Draw(t, "exact")
		prefix := "/" + word("a", "b", "/", "?").Draw(t, "prefix")
		c, err := Selector{Patterns: []string{pattern}, ExactQuery: exact}.Compile()
		if err != nil {
			t.Fatal(err)
		}
		// The stars swallow what the prefix has more; the literals follow it.
		found := bruteMatch([]string{pattern}, prefix, exact) || strings.HasPrefix(strings.ReplaceAll(pattern, "*", ""), prefix)
		for i := range len(pattern) + 1 {
			found = found || bruteMatch([]string{pattern}, prefix+strings.ReplaceAll(pattern[i:], "*", ""), exact)
		}
		if got := c.MaySelectBelow(prefix); got != found {
			t.Errorf("%s (exact %v) below %s: %v", pattern, exact, prefix, got)
		}
	})
}

func FuzzGlob(f *testing.F) {
	f.Add("/a*b*c", "/axbxc?d")
	f.Add("*.png", "/x.png?v=2")
	f.Add("/*%2*~", "/a%20b")
	f.Fuzz(func(t *testing.T, pattern, path string) {
		if len(pattern) > 64 || len(path) > 64 || strings.Count(pattern, "*") > 3 {
			return
		}
		canonical, err := canonicalPattern("pattern", pattern)
		if err != nil {
			return
		}
		c, err := Selector{Patterns: []string{pattern}}.Compile()
		if err != nil {
			t.Fatalf("%q: %v", pattern, err)
		}
		if got, want := c.MaySelect(path), bruteMatch([]string{canonical}, "/"+path, false); strings.HasPrefix(path, "/") && got != bruteMatch([]string{canonical}, path, false) {
			t.Errorf("%q and %q: %v", pattern, path, got)
		} else if got := c.MaySelect("/" + path); got != want {
			t.Errorf("%q and /%q: %v", pattern, path, got)
		}
	})
}

func FuzzCompile(f *testing.F) {
	f.Add("/a", "/b*", "^/x", "tag", "*.js", int64(5))
	f.Add("*", "", "(", ",", "x", int64(-5))
	f.Fuzz(func(t *testing.T, pattern, prefix, re, tag, exclude string, age int64) {
		s := Selector{Patterns: []string{pattern}, Prefixes: []string{prefix}, Regexps: []string{re}, Tags: []string{tag},
			OlderThan: []Duration{Duration(age)}, Exclude: []string{exclude}}
		_ = s.String()
		c, err := s.Compile()
		if err != nil {
			if e, ok := err.(*Error); !ok || e.Pos < 0 || e.Pos > len(e.Input) || e.Reason == "" {
				t.Fatalf("%#v", err)
			}
			return
		}
		again, err := s.Compile()
		if err != nil || fmt.Sprint(again.Named()) != fmt.Sprint(c.Named()) {
			t.Fatalf("not the same twice: %v", err)
		}
		c.Selects(&inventory.Entry{Path: pattern, Tags: []string{tag}}, cut)
		// Alone, a pattern selects what it is without its stars.
		alone, err := Selector{Patterns: []string{pattern}}.Compile()
		if err != nil {
			t.Fatal(err)
		}
		canonical, err := canonicalPattern("", pattern)
		if err != nil {
			t.Fatal(err)
		}
		if p := strings.ReplaceAll(canonical, "*", ""); !alone.MaySelect(p) && !alone.MaySelect("/"+p) {
			t.Errorf("%q does not select %q", pattern, p)
		}
	})
}

func FuzzReadPatterns(f *testing.F) {
	f.Add("/a\r\n*b\n\nhttps://h/x\n#")
	f.Fuzz(func(t *testing.T, in string) {
		got, err := ReadPatterns(strings.NewReader(in), "f")
		if err != nil {
			return
		}
		lines := 0
		for line := range strings.SplitSeq(strings.TrimPrefix(in, "\ufeff"), "\n") {
			if strings.Trim(line, " \t\r") != "" {
				lines++
			}
		}
		if len(got) != lines {
			t.Errorf("%d of %d lines of %q", len(got), lines, in)
		}
	})
}

func TestSelectsDoesNotAllocate(t *testing.T) {
	c := compile(t, Selector{Patterns: []string{"/a*", "*x*y", "/b"}, Prefixes: []string{"/"}, Tags: []string{"news"}, OlderThan: []Duration{1}, Exclude: []string{"*.js"}})
	e := &inventory.Entry{Path: "/bxzy?q=1", Tags: []string{"NEWS"}, Last: cut.Add(-2)}
	if n := testing.AllocsPerRun(100, func() {
		if !c.Selects(e, cut) {
			t.Fatal("not selected")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkSelects(b *testing.B) {
	var many []string
	for i := range 50_000 {
		many = append(many, fmt.Sprintf("/blog/2024/%d", i), fmt.Sprintf("/shop/%d*", i))
	}
	var globs []string
	for i := range 20 {
		globs = append(globs, fmt.Sprintf("/shop/*/%d*.png", i))
	}
	e := &inventory.Entry{Path: "/shop/items/of/the/year/2024/picture-000123456789.png?size=large&v=2", Tags: []string{"a", "b", "News"}, Last: cut}
	for name, s := range map[string]Selector{
		"hundred-thousand-named": {Patterns: many},
		"twenty-globs":           {Patterns: globs},
		"hostile-glob":           {Patterns: []string{"*" + strings.Repeat("e*", 500) + "!"}},
		"tag":                    {Tags: []string{"news"}},
		"regexp":                 {Regexps: []string{`/\d{4}/.*\.png`}},
	} {
		c := compile(b, s)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.Selects(e, cut)
			}
		})
	}
}
