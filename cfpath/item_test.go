// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cfpath

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseItem(t *testing.T) {
	for _, c := range []struct {
		name, s string
		want    Item
	}{
		{"path", "/a?b", Item{Path, "/a?b"}},
		{"root", "/", Item{Path, "/"}},
		{"wildcard", "/a*", Item{Wildcard, "/a"}},
		{"everything", "/*", Item{Wildcard, "/"}},
		{"star inside", "/a*b", Item{Path, "/a*b"}},
		{"two stars", "/a**", Item{Wildcard, "/a*"}},
		{"encoded star", "/a%2A", Item{Path, "/a%2A"}},
		{"useless but accepted", "/a%7Eb", Item{Path, "/a%7Eb"}},
		{"longest path", "/" + strings.Repeat("a", 3999), Item{Path, "/" + strings.Repeat("a", 3999)}},
		{"longest wildcard", "/" + strings.Repeat("a", 3998) + "*", Item{Wildcard, "/" + strings.Repeat("a", 3998)}},
		{"tag", "#Blog:1", Item{Tag, "Blog:1"}},
		{"tag has no wildcard", "#a*", Item{Tag, "a*"}},
		{"tag of odd characters", "##~'%", Item{Tag, "#~'%"}},
		{"longest tag", "#" + strings.Repeat("t", 256), Item{Tag, strings.Repeat("t", 256)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseItem(c.s)
			if got != c.want || err != nil {
				t.Fatalf("ParseItem = %+v, %v; want %+v", got, err, c.want)
			}
			if got.String() != c.s {
				t.Errorf("%+v is sent as %q", got, got)
			}
		})
	}
	for _, c := range []struct {
		name, s string
		pos     int
	}{
		{"empty", "", 0},
		{"no slash", "images/a", 0},
		{"only a star", "*", 0},
		{"URL", "https://h/a", 0},
		{"space", "/a b", 2},
		{"control", "/a\n", 2},
		{"bracket", "/a[1]", 2},
		{"apostrophe", "/it's", 3},
		{"tilde", "/a~", 2},
		{"non-ASCII", "/caf\u00e9", 4},
		{"stray percent", "/100%", 4},
		{"star inside an escape", "/a%2*", 2},
		{"number sign later", "/a#b", 2},
		{"too long", "/" + strings.Repeat("a", 4000), 4000},
		{"too long with its star", "/" + strings.Repeat("a", 3999) + "*", 4000},
		{"no tag", "#", 1},
		{"comma in a tag", "#a,b", 2},
		{"space in a tag", "#a b", 2},
		{"non-ASCII in a tag", "#\u00e9", 1},
		{"tag too long", "#" + strings.Repeat("t", 257), 257},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseItem(c.s)
			if err == nil {
				t.Fatalf("ParseItem = %+v, want an error", got)
			}
			wantError(t, err)
			var e *Error
			if errors.As(err, &e); e.Pos != c.pos || got != (Item{}) {
				t.Errorf("%+v, position %d, want %d: %v", got, e.Pos, c.pos, err)
			}
		})
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		item, path    string
		match, surely bool
	}{
		{"/a", "/a", true, true},
		{"/a", "/a/", false, false},
		{"/a", "/a?x=1", false, false},
		{"/a", "/A", false, false},
		{"/a*", "/a", true, true},
		{"/a*", "/ab/c?d", true, true},
		{"/a?*", "/a?x=1", true, true},
		{"/a?*", "/a", false, false},
		{"/a?x=*", "/a?y&x=1", false, false},
		{"/dir/*", "/dir/", true, false},
		{"/dir/*", "/dir", false, false},
		{"/dir/*", "/dir/?x", true, true},
		{"/dir/*", "/dir/sub/", true, true},
		{"/dir*", "/dir/", true, true},
		{"/*", "/", true, true},
		{"/*", "/a/../~'@", true, true},
		{"/a*b", "/a*b", true, true},
		{"/a*b", "/axb", false, false},
		{"/a%2A", "/ab", false, false},
		{"/it%27s", "/it%27s", true, false},
		{"/it%27s*", "/it%27s/a", true, false},
		{"/it*", "/it%27s", true, true},
		{"/@a/*", "/@a/b", true, false},
		{"/a?*", "/a?", true, false},
		{"/%E6%97%A5*", "/%E6%97%A5%E6%9C%AC", true, true},
		{"/%E6*", "/%E6%97%A5", true, false},
		{"/%E6%97%A5%E6*", "/%E6%97%A5%E6%9C%AC", true, false},
		{"/a%7Eb", "/a%7Eb", true, false},
		{"/a%7E*", "/a%7Eb", true, false},
		{"/a", "", false, false},
		{"#a", "/a", false, false},
		{"#a", "#a", false, false},
	} {
		it, err := ParseItem(c.item)
		if err != nil {
			t.Fatal(err)
		}
		if got := it.Matches(c.path); got != c.match {
			t.Errorf("%v matches %q: %t", it, c.path, got)
		}
		if got := it.MatchesSurely(c.path); got != c.surely {
			t.Errorf("%v surely matches %q: %t", it, c.path, got)
		}
	}
	for _, c := range []struct {
		name string
		it   Item
		path string
	}{
		{"a real trailing star", Item{Path, "/a*"}, "/a*"},
		{"a raw tilde", Item{Wildcard, "/a~"}, "/a~b"},
		{"half an escape", Item{Wildcard, "/a%2"}, "/a%20"},
		{"no slash", Item{Wildcard, ""}, "/a"},
	} {
		if !c.it.Matches(c.path) || c.it.MatchesSurely(c.path) {
			t.Errorf("%s: an item that cannot be sent so matches %t, surely %t", c.name, c.it.Matches(c.path), c.it.MatchesSurely(c.path))
		}
	}
}

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"/a", "/a", true},
		{"/a", "/a*", false},
		{"/a*", "/a", true},
		{"/a*", "/ab*", true},
		{"/ab*", "/a*", false},
		{"/dir/*", "/dir/", true},
		{"/dir/*", "/dir", false},
		{"#News", "#news", true},
		{"#news", "#new", false},
		{"#a", "/a", false},
		{"/*", "#a", true},
		{"/a*", "#a", false},
	} {
		a, errA := ParseItem(c.a)
		b, errB := ParseItem(c.b)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if got := a.Covers(b); got != c.want {
			t.Errorf("%v covers %v: %t", a, b, got)
		}
	}
}

// TestCoversProperties compares Covers with Matches over every path of a small alphabet.
func TestCoversProperties(t *testing.T) {
	paths := []string{"/"}
	for last := paths; len(last[0]) < 5; {
		var next []string
		for _, p := range last {
			next = append(next, p+"a", p+"/", p+"*")
		}
		paths, last = append(paths, next...), next
	}
	items := rapid.Custom(func(t *rapid.T) Item {
		return Item{
			rapid.SampledFrom([]Kind{Path, Wildcard}).Draw(t, "kind"),
			rapid.StringMatching(`/[a/*]{0,3}`).Draw(t, "text"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := items.Draw(t, "a"), items.Draw(t, "b")
		all := true
		for _, p := range paths {
			all = all && (a.Matches(p) || !b.Matches(p))
		}
		if got := a.Covers(b); got != all {
			t.Fatalf("%v covers %v: %t", a, b, got)
		}
	})
}

func TestMatchesProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		path := anyPath().Draw(t, "path")
		it := Item{Path, path}
		if rapid.Bool().Draw(t, "wildcard") {
			it = Item{Wildcard, path[:rapid.IntRange(0, len(path)).Draw(t, "stem")]}
		}
		if !it.Matches(path) {
			t.Fatalf("%v does not match %q", it, path)
		}
		if it.MatchesSurely(path) {
			if again, err := ParseItem(it.String()); again != it || err != nil {
				t.Fatalf("%v surely matches %q but is read as %v, %v", it, path, again, err)
			}
			if it.Kind == Path && InDoubt(path) {
				t.Fatalf("%v surely matches although it is in doubt", it)
			}
		}
		other := anyPath().Draw(t, "other")
		if it.MatchesSurely(other) && !it.Matches(other) {
			t.Fatalf("%v surely matches %q but does not match", it, other)
		}
	})
}

func TestKind(t *testing.T) {
	for k, want := range map[Kind]string{Path: "path", Wildcard: "wildcard", Tag: "tag"} {
		text, err := k.MarshalText()
		var back Kind
		if errBack := back.UnmarshalText(text); string(text) != want || back != k || err != nil || errBack != nil {
			t.Errorf("%v is written %q and read as %v: %v, %v", k, text, back, err, errBack)
		}
	}
	if _, err := Kind(9).MarshalText(); err == nil {
		t.Error("kind 9 is written")
	}
	var k Kind
	wantError(t, k.UnmarshalText([]byte("file")))
}

func FuzzParseItem(f *testing.F) {
	for _, s := range []string{"/", "/*", "/a**", "/%2*", "#tag", "#", "#a,b", "/~", "*", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		it, err := ParseItem(s)
		if err != nil {
			wantError(t, err)
			return
		}
		if it.String() != s {
			t.Fatalf("%q is sent as %q", s, it)
		}
		if !it.Covers(it) {
			t.Fatalf("%q does not cover itself", s)
		}
		if it.Kind == Path {
			name, err := Name(s)
			if useless := strings.Contains(strings.ToUpper(strings.ReplaceAll(s, "%25", "")), "%7E"); !useless && (name != s || err != nil) {
				t.Fatalf("%q is an item, but Name gives %q, %v", s, name, err)
			}
		}
	})
}
