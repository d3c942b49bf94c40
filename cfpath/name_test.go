// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cfpath

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestName(t *testing.T) {
	long := "/" + strings.Repeat("a", MaxItemLength)
	for _, c := range []struct {
		name, path string
		at         int // -1: the path can be named
		reason     string
		tightest   string
	}{
		{"plain", "/a?b=c", -1, "", "/a?b=c"},
		{"root", "/", -1, "", "/"},
		{"star inside", "/a*b", -1, "", "/a*b"},
		{"encoded star at the end", "/a%2A", -1, "", "/a%2A"},
		{"percent, then 7E", "/a%257E", -1, "", "/a%257E"},
		{"4,000 characters", long[:4000], -1, "", long[:3999]},
		{"4,001 characters", long, 4000, ReasonTooLong, long[:3999]},
		{"tilde", "/js/runtime~main.js", 11, ReasonTilde, "/js/runtime"},
		{"tilde as %7E", "/a%7Eb", 2, ReasonTilde, "/a"},
		{"tilde as %7e", "/a%7eb", 2, ReasonTilde, "/a"},
		{"tilde first", "/~user", 1, ReasonTilde, "/"},
		{"tilde in the query", "/a?b=~", 5, ReasonTilde, "/a?b="},
		{"tilde beyond the length", long + "~", 4000, ReasonTooLong, long[:3999]},
		{"trailing star", "/a*", 2, ReasonTrailingStar, "/a"},
		{"two trailing stars", "/a**", 3, ReasonTrailingStar, "/a*"},
		{"tilde and trailing star", "/a~*", 2, ReasonTilde, "/a"},
		{"length within an escape", long[:3997] + "%C3%A9", 4000, ReasonTooLong, long[:3997]},
		{"length right after an escape", long[:3996] + "%20aa", 4000, ReasonTooLong, long[:3996] + "%20"},
		{"raw character that is refused", "/a b", 2, ReasonRefused, "/a"},
		{"stray percent", "/a%zz", 2, ReasonRefused, "/a"},
		{"not a path", "a", 0, ReasonRefused, ""},
		{"empty", "", 0, ReasonRefused, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			item, err := Name(c.path)
			if c.at < 0 {
				if item != c.path || err != nil {
					t.Errorf("Name = %q, %v", item, err)
				}
			} else {
				var u *Unnameable
				if !errors.As(err, &u) {
					t.Fatalf("Name = %q, %v; want *Unnameable", item, err)
				}
				if want := (Unnameable{c.path, Trouble{c.at, c.reason}}); *u != want {
					t.Errorf("trouble %+v, want %+v", u.Trouble, want.Trouble)
				}
				if !strings.Contains(u.Error(), "wildcard") || strings.Contains(u.Error(), ": "+c.reason+";") {
					t.Errorf("message %q", u)
				}
			}
			if stem, ok := TightestStem(c.path); stem != c.tightest || ok != (c.tightest != "") {
				t.Errorf("TightestStem = %q, %t; want %q", stem, ok, c.tightest)
			}
		})
	}
}

func TestInDoubt(t *testing.T) {
	for _, c := range []struct {
		name, path, sure string // sure is SureStem's
		want             bool
	}{
		{"plain", "/a/b.c?d=e&f=+", "/a/b.c?d=e&f=+", false},
		{"what AWS says to encode", "/%20%22%5B%23%25", "/%20%22%5B%23%25", false},
		{"hex in small letters", "/%c3%a9", "/%c3%a9", false},
		{"UTF-8 of every length", "/%C3%A9%E6%97%A5%F0%9F%98%80%EF%BF%BD", "/%C3%A9%E6%97%A5%F0%9F%98%80%EF%BF%BD", false},
		{"star inside", "/a*b", "/a*b", false},
		{"dots in names", "/a/...b/.c/d./..e", "/a/...b/.c/d./..e", false},
		{"slashes and dots of a query", "/a?u=//b/../c", "/a?u=//b/../c", false},
		{"apostrophe", "/it%27s", "/it", true},
		{"at sign", "/npm/@a/b", "/npm/", true},
		{"escaped letter", "/a%41", "/a", true},
		{"escaped reserved character", "/a?u=%2Fb", "/a?u=", true},
		{"escaped star", "/a%2A", "/a", true},
		{"escaped question mark", "/a%3Fb", "/a", true},
		{"not UTF-8", "/caf%E9", "/caf", true},
		{"cut UTF-8", "/%E6%97", "/", true},
		{"overlong UTF-8", "/a%C0%AF", "/a", true},
		{"two slashes", "/a//b", "/a/", true},
		{"two slashes first", "//a", "/", true},
		{"dot", "/a/./b", "/a/", true},
		{"dot last", "/a/.", "/a/", true},
		{"dots", "/a/b/../c", "/", true},
		{"dots in disguise", "/a/b/%2e./c", "/", true},
		{"empty query", "/a?", "/a", true},
		{"a directory's own stem", "/dir/", "/dir", false},
		{"doubt right after a directory", "/dir/@", "/dir/", true},
		{"tilde before doubt", "/a~@", "/a", true},
		{"not canonical", "/a b", "/a", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := InDoubt(c.path); got != c.want {
				t.Errorf("InDoubt(%q) = %t", c.path, got)
			}
			if stem, ok := SureStem(c.path); stem != c.sure || !ok {
				t.Errorf("SureStem(%q) = %q, %t; want %q", c.path, stem, ok, c.sure)
			}
		})
	}
	if stem, ok := SureStem("a"); ok {
		t.Errorf("SureStem of no path is %q", stem)
	}
}

func TestValidStem(t *testing.T) {
	for _, c := range []struct {
		name, stem string
		want       bool
	}{
		{"root", "/", true},
		{"middle of a word", "/ab", true},
		{"query", "/a?b=", true},
		{"ends in a literal star", "/a*", true},
		{"after an escape", "/a%20", true},
		{"longest", "/" + strings.Repeat("a", 3998), true},
		{"too long with its star", "/" + strings.Repeat("a", 3999), false},
		{"one byte into an escape", "/a%", false},
		{"two bytes into an escape", "/a%2", false},
		{"tilde", "/a~", false},
		{"tilde as %7e", "/%7e/", false},
		{"refused character", "/a'", false},
		{"non-ASCII", "/é", false},
		{"no slash", "a", false},
		{"empty", "", false},
	} {
		if got := ValidStem(c.stem); got != c.want {
			t.Errorf("%s: ValidStem = %t", c.name, got)
		}
	}
}

// sendable is the whole grammar of what can be named or stand before a '*'.
var sendable = regexp.MustCompile(`^/(?:[!$&()*+,\-./0-9:;=?@A-Z_a-z]|%[0-689A-Fa-f][0-9A-Fa-f]|%7[0-9A-DFa-df])*$`)

func TestNameProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		path := rapid.OneOf(anyPath(), anyText()).Draw(t, "path")

		item, err := Name(path)
		if want := sendable.MatchString(path) && len(path) <= 4000 && path[len(path)-1] != '*'; (err == nil) != want {
			t.Fatalf("Name(%q) = %q, %v", path, item, err)
		}
		at := len(path)
		if err == nil {
			if it, err := ParseItem(item); it != (Item{Path, path}) || err != nil {
				t.Fatalf("Name(%q) = %q is read as %+v, %v", path, item, it, err)
			}
		} else {
			var u *Unnameable
			if !errors.As(err, &u) || u.At < 0 || u.At > len(path) {
				t.Fatalf("Name(%q): %v", path, err)
			}
			at = u.At
		}

		// The stems against all longer prefixes; of very long ones against a sample.
		tightest, sure := "", ""
		for n := min(at, len(path), 4010); n > 0 && sure == ""; n-- {
			if found, _ := SureStem(path); n > len(found)+20 && tightest != "" && n%97 != 0 {
				continue
			}
			p := path[:n]
			valid := len(p) < 4000 && sendable.MatchString(p)
			if valid != ValidStem(p) {
				t.Fatalf("ValidStem(%q) = %t", p, !valid)
			}
			if valid && tightest == "" {
				tightest = p
			}
			if valid && (Item{Wildcard, p}).MatchesSurely(path) {
				sure = p
			}
		}
		if stem, ok := TightestStem(path); stem != tightest || ok != (stem != "") {
			t.Fatalf("TightestStem(%q) = %q, %t; want %q", path, stem, ok, tightest)
		}
		if stem, ok := SureStem(path); stem != sure || ok != (stem != "") {
			t.Fatalf("SureStem(%q) = %q, %t; want %q", path, stem, ok, sure)
		}
	})
}

// TestDoubtIsOutsideTheStem checks that what a sure stem leaves out can be
// respelled in every way that is in doubt, and the stem is still a prefix.
func TestDoubtIsOutsideTheStem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		path := anyPath().Draw(t, "path")
		stem, _ := SureStem(path)
		beforeQuery, _, _ := Split(path)
		for _, other := range []string{
			strings.ReplaceAll(path, "%27", "'"),
			strings.TrimSuffix(path, "?"),
			string(normalize(nil, beforeQuery)) + path[len(beforeQuery):],
		} {
			if !strings.HasPrefix(other, stem) {
				t.Fatalf("%q* is not sure for %q, held as %q", stem, path, other)
			}
		}
		if text := lenient(stem); !utf8.ValidString(text) {
			t.Fatalf("%q* for %q ends inside a character", stem, path)
		}
	})
}
