// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cfpath

import (
	"path"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestPattern(t *testing.T) {
	for _, c := range []struct {
		name, pattern, path string
		want                bool
	}{
		{"default behaviour", "*", "/any/thing", true},
		{"default behaviour and the root", "*", "/", true},
		{"the slash is optional", "images/*", "/images/a", true},
		{"the slash is implied", "images/*", "/a/images/b", false},
		{"star crosses slashes", "/a/*.jpg", "/a/b/c.jpg", true},
		{"star matches nothing", "/a*", "/a", true},
		{"star inside", "/a*z", "/abcz", true},
		{"star inside, twice", "/a*b*c", "/aXbbXc", true},
		{"star tries again from where it was", "/*aab", "/aaab", true},
		{"the end counts", "/a*z", "/azy", false},
		{"question mark is one character", "/a?c", "/abc", true},
		{"question mark is not none", "/ab?", "/ab", false},
		{"question mark is not two", "/a?c", "/abbc", false},
		{"question mark takes a slash", "/a?c", "/a/c", true},
		{"no wildcard", "/a", "/a", true},
		{"no wildcard, longer path", "/a", "/ab", false},
		{"case", "/A*", "/a", false},
		{"query is not considered", "/a", "/a?b", true},
		{"query is not matched", "*b", "/a?b", false},
		{"AWS's example of dots", "/a*", "/a/b/..?c=1", true},
		{"AWS's example of dots, the other way", "/a/b*", "/a/b/..?c=1", false},
		{"two slashes", "/a/b", "/a//b", true},
		{"dot", "/a/b", "/a/./b", true},
		{"dot last is a directory", "/a/", "/a/.", true},
		{"dots above the root", "/a", "/../../a", true},
		{"dots in disguise", "/b", "/a/%2E%2e/b", true},
		{"names with dots stay", "/.well-known/..a", "/.well-known/..a", true},
		{"unreserved escapes are decoded", "/a~b-c", "/%61%7Eb%2Dc", true},
		{"reserved escapes are not", "/a/b", "/a%2Fb", false},
		{"an escape is three characters", "/a???b", "/a%20b", true},
		{"quotes, which paths have encoded", `/"it's"`, "/%22it%27s%22", true},
		{"no path", "*", "a", false},
		{"no path of dots", "*", "..", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := ParsePattern(c.pattern)
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Matches(c.path); got != c.want {
				t.Errorf("%v matches %q: %t", p, c.path, got)
			}
			if p.String() != c.pattern {
				t.Errorf("%q is printed as %q", c.pattern, p)
			}
		})
	}
	var zero Pattern
	if !zero.Matches("/a/../b?c") || zero.String() != "*" {
		t.Errorf("the zero value is %v", zero)
	}
	for _, c := range []struct {
		name, pattern string
		pos           int
	}{
		{"empty", "", 0},
		{"space", "/a b", 2},
		{"percent", "/a%20b", 2},
		{"bracket", "[ab]", 0},
		{"non-ASCII", "/é", 1},
		{"too long", strings.Repeat("a", 256), 255},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p Pattern
			err := p.UnmarshalText([]byte(c.pattern))
			if err == nil {
				t.Fatalf("ParsePattern = %v", p)
			}
			wantError(t, err)
			if !strings.Contains(err.Error(), "byte "+string(rune('0'+c.pos))) && c.pos < 10 {
				t.Errorf("%v is not about byte %d", err, c.pos)
			}
		})
	}
}

func TestPatternText(t *testing.T) {
	for _, s := range []string{"*", "a?b", strings.Repeat("a", 255)} {
		var p Pattern
		err := p.UnmarshalText([]byte(s))
		text, errBack := p.MarshalText()
		if string(text) != s || err != nil || errBack != nil {
			t.Errorf("%q becomes %q: %v, %v", s, text, err, errBack)
		}
	}
}

// slowMatch follows the definition by other means.
func slowMatch(pattern, target string) bool {
	stem, _, _ := strings.Cut(target, "?")
	if !strings.HasPrefix(stem, "/") {
		return false
	}
	stem = regexp.MustCompile(`%[0-9A-Fa-f]{2}`).ReplaceAllStringFunc(stem, func(e string) string {
		if c := lenient(e); regexp.MustCompile(`^[A-Za-z0-9._~-]$`).MatchString(c) {
			return c
		}
		return e
	})
	directory := regexp.MustCompile(`/\.{0,2}$`).MatchString(stem)
	if stem = path.Clean(stem); directory && stem != "/" {
		stem += "/"
	}
	re := regexp.QuoteMeta("/" + strings.TrimPrefix(pattern, "/"))
	re = strings.NewReplacer(`\*`, "(?s:.*)", `\?`, "(?s:.)", `"`, "%22", "'", "%27").Replace(re)
	return regexp.MustCompile("^" + re + "$").MatchString(stem)
}

func TestPatternProperties(t *testing.T) {
	patterns := rapid.StringMatching(`/?([ab./~'*?-]|\*a|/\*|b\?){0,8}`).Filter(func(s string) bool { return s != "" })
	targets := rapid.OneOf(anyPath(), rapid.StringMatching(`/([ab./~-]|//|/\.\.|%2[eE]|%61|%27|%2f|\?){0,12}`))
	rapid.Check(t, func(t *rapid.T) {
		pattern, target := patterns.Draw(t, "pattern"), targets.Draw(t, "path")
		p, err := ParsePattern(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := p.Matches(target), slowMatch(pattern, target); got != want {
			t.Fatalf("%q matches %q: %t", pattern, target, got)
		}
	})
}

func FuzzPattern(f *testing.F) {
	f.Add("*", "/a/../b")
	f.Add("/a?c*", "//%61/.")
	f.Add("", "..")
	f.Add("'", "/%27?")
	f.Fuzz(func(t *testing.T, pattern, target string) {
		p, err := ParsePattern(pattern)
		if err != nil {
			wantError(t, err)
			p = Pattern{}
		}
		got := p.Matches(target)
		canonical, errPath := Canonical(target)
		if err != nil || errPath != nil || canonical != target {
			return // what is not canonical only must not panic
		}
		if want := slowMatch(pattern, target); got != want {
			t.Fatalf("%q matches %q: %t", pattern, target, got)
		}
	})
}
