// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cfpath

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestFromLog(t *testing.T) {
	for _, c := range []struct{ name, stem, query, want string }{
		{"plain", "/a", "-", "/a"},
		{"no query field", "/a", "", "/a"},
		{"query", "/a", "x=1&y=2", "/a?x=1&y=2"},
		{"the log's layer comes off once", "/a%2520b", "q=%253F", "/a%20b?q=%3F"},
		{"and only once", "/a%252520b", "-", "/a%2520b"},
		{"hex in small letters", "/a%5bb%5d", "-", "/a%5Bb%5D"},
		{"raw characters of the viewer", "/%22%7B%7D%27%E9", "-", "/%22%7B%7D%27%E9"},
		{"raw tilde", "/runtime%7Emain.js", "-", "/runtime~main.js"},
		{"the viewer's own %7E", "/runtime%257Emain.js", "-", "/runtime%7Emain.js"},
		{"a log that does not encode twice", "/a%20b%C3%A9", "-", "/a%20b%C3%A9"},
		{"escapes no log writes are the viewer's", "/a%2Fb%3Fc%41", "q=%26", "/a%2Fb%3Fc%41?q=%26"},
		{"stray percent", "/100%", "x=%", "/100%25?x=%25"},
		{"real-time stem with its query", "/a?x=%2520", "-", "/a?x=%20"},
		{"real-time stem and query", "/a?x=1", "x=1", "/a?x=1"},
		{"question mark in the query", "/a", "x?y", "/a?x?y"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := FromLog(c.stem, c.query); got != c.want || err != nil {
				t.Errorf("FromLog(%q, %q) = %q, %v; want %q", c.stem, c.query, got, err, c.want)
			}
		})
	}
	for _, c := range []struct{ name, stem, query string }{
		{"no stem", "-", "x"},
		{"empty stem", "", ""},
		{"not a path", "GET", "-"},
		{"two different queries", "/a?x=1", "x=2"},
		{"too long", "/" + strings.Repeat("a", MaxLength-2), "xx"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := FromLog(c.stem, c.query)
			wantError(t, err)
		})
	}
}

func TestToLog(t *testing.T) {
	for _, c := range []struct{ path, stem, query string }{
		{"/a", "/a", "-"},
		{"/a?", "/a", "-"},
		{"/a%20b?c=~&d=%27", "/a%2520b", "c=%7E&d=%2527"},
		{"/é<>\"#%{}|\\^~[]`' \x1f\x7f", "/%C3%A9%3C%3E%22%23%25%7B%7D%7C%5C%5E%7E%5B%5D%60%27%20%1F%7F", "-"},
	} {
		if stem, query := ToLog(c.path); stem != c.stem || query != c.query {
			t.Errorf("ToLog(%q) = %q, %q; want %q, %q", c.path, stem, query, c.stem, c.query)
		}
	}
}

func TestLogRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		path := anyPath().Draw(t, "path")
		want := path
		if stem, query, _ := Split(path); query == "" || query == "-" {
			want = stem // a log cannot tell these
		}
		stem, query := ToLog(path)
		if got, err := FromLog(stem, query); got != want || err != nil {
			t.Fatalf("%q is logged as %q, %q and read as %q, %v", path, stem, query, got, err)
		}
		// A log with one layer less is read alike, unless the path has a literal
		// percent or the viewer's own %7E, which are then the same as others.
		if !strings.Contains(path, "%25") && !strings.Contains(strings.ToUpper(path), "%7E") {
			stem, query, _ := Split(path)
			if got, err := FromLog(stem, query); !sameButHex(got, want) || err != nil {
				t.Fatalf("%q in a log with a single layer is read as %q, %v", path, got, err)
			}
		}
	})
}

// sameButHex compares paths whose escapes may differ in the case of their hex.
func sameButHex(a, b string) bool { return strings.EqualFold(a, b) && lenient(a) == lenient(b) }

func FuzzFromLog(f *testing.F) {
	f.Add("/a", "-")
	f.Add("/a%2520b", "x=%25")
	f.Add("/a?b", "b")
	f.Add("-", "")
	f.Fuzz(func(t *testing.T, stem, query string) {
		path, err := FromLog(stem, query)
		if err != nil {
			wantError(t, err)
			return
		}
		if again, err := Canonical(path); again != path || err != nil {
			t.Fatalf("FromLog(%q, %q) = %q, which is not canonical: %q, %v", stem, query, path, again, err)
		}
		if s, q := ToLog(path); strings.ContainsAny(s+q, " <>\"#{}|\\^~[]`'") {
			t.Fatalf("ToLog(%q) = %q, %q has characters that logs encode", path, s, q)
		}
	})
}
