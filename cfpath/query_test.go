// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cfpath

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestQueryRule(t *testing.T) {
	for _, c := range []struct{ name, rule, path, want string }{
		{"all", "all", "/a?b&a=1&", "/a?b&a=1&"},
		{"empty is all", "", "/a?b", "/a?b"},
		{"none", "none", "/a?b", "/a"},
		{"none without a query", "none", "/a", "/a"},
		{"none and an empty query", "none", "/a?", "/a"},
		{"include keeps order and spelling", "include:b,a", "/p?a=%41&c=1&b&a=+", "/p?a=%41&b&a=+"},
		{"include nothing left", "include:z", "/p?a=1&b", "/p"},
		{"include and an empty query", "include:z", "/p?", "/p"},
		{"exclude", "exclude:utm_source", "/p?utm_source=x&a=1", "/p?a=1"},
		{"exclude nothing left", "exclude:a", "/p?a=1&a", "/p"},
		{"exclude loses nothing", "exclude:z", "/p?a&&b&", "/p?a&&b&"},
		{"names have case", "include:a", "/p?A=1&a=2", "/p?a=2"},
		{"only & separates", "exclude:b", "/p?a=1;b=2&b=3", "/p?a=1;b=2"},
		{"value with equals and question mark", "include:a", "/p?a=b=c?d&e", "/p?a=b=c?d"},
		{"names are spelled as in the path", "include:ids[],ä", "/p?ids%5B%5D=1&%C3%A4=2&x", "/p?ids%5B%5D=1&%C3%A4=2"},
		{"spaces and repetition", "include: a , b,a", "/p?a&b&c", "/p?a&b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := ParseQueryRule(c.rule)
			if err != nil {
				t.Fatal(err)
			}
			if got := r.Apply(c.path); got != c.want {
				t.Errorf("%v.Apply(%q) = %q, want %q", r, c.path, got, c.want)
			}
			if again, err := ParseQueryRule(r.String()); again != r || err != nil {
				t.Errorf("%v is read back as %v, %v", r, again, err)
			}
			if want := strings.Contains(c.rule, "clude"); r.Reduces() != want {
				t.Errorf("%v.Reduces() = %t", r, !want)
			}
		})
	}
	if r, err := ParseQueryRule("include: a , b,a,[]"); r.String() != "include:a,b,%5B%5D" || err != nil {
		t.Errorf("names with spaces and repetition are %v, %v", r, err)
	}
	if (QueryRule{}).String() != "all" {
		t.Errorf("the zero value is %v", QueryRule{})
	}
	for _, s := range []string{"some", "include", "exclude:", "include:a,", "include:,a", "all:a", "none:", "include:a&b", "include:a=1", "All", " all"} {
		r, err := ParseQueryRule(s)
		if err == nil {
			t.Errorf("ParseQueryRule(%q) = %v, want an error", s, r)
			continue
		}
		wantError(t, err)
	}
}

func TestQueryRuleText(t *testing.T) {
	var r QueryRule
	if err := r.UnmarshalText([]byte("exclude:a,b")); err != nil {
		t.Fatal(err)
	}
	if text, err := r.MarshalText(); string(text) != "exclude:a,b" || err != nil {
		t.Errorf("MarshalText gives %q, %v", text, err)
	}
	if r.UnmarshalText([]byte("x")) == nil {
		t.Error("an unknown rule is taken")
	}
}

func TestQueryRuleProperties(t *testing.T) {
	param := rapid.SampledFrom([]string{"", "a", "b", "c", "a=1", "b=2", "c=", "=x", "a=a=a", "A"})
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfN(param, 1, 6).Draw(t, "parameters")
		names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 1, 3, rapid.ID).Draw(t, "names")
		path := "/p?" + strings.Join(parts, "&")
		for _, word := range []string{"include", "exclude"} {
			r, err := ParseQueryRule(word + ":" + strings.Join(names, ","))
			if err != nil {
				t.Fatal(err)
			}
			kept := slices.DeleteFunc(slices.Clone(parts), func(p string) bool {
				return slices.Contains(names, strings.Split(p, "=")[0]) != (word == "include")
			})
			want := "/p"
			if q := strings.Join(kept, "&"); q != "" || len(kept) == len(parts) {
				want += "?" + q
			}
			got := r.Apply(path)
			if got != want {
				t.Fatalf("%v.Apply(%q) = %q, want %q", r, path, got, want)
			}
			if again := r.Apply(got); again != got {
				t.Fatalf("%v is not idempotent: %q, then %q", r, got, again)
			}
		}
	})
}

func FuzzParseQueryRule(f *testing.F) {
	for _, s := range []string{"", "all", "none", "include:a,b", "exclude:é,[]", "include:%", "include:", "x"} {
		f.Add(s, "/a?a=1&b")
	}
	f.Fuzz(func(t *testing.T, s, text string) {
		r, err := ParseQueryRule(s)
		if err != nil {
			wantError(t, err)
			return
		}
		if again, err := ParseQueryRule(r.String()); again != r || err != nil {
			t.Fatalf("%v is read back as %v, %v", r, again, err)
		}
		path, err := Canonical("/" + text)
		if err != nil {
			return
		}
		got := r.Apply(path)
		if again, err := Canonical(got); again != got || err != nil || len(got) > len(path) || r.Apply(got) != got {
			t.Fatalf("%v.Apply(%q) = %q: not canonical, or not reduced: %v", r, path, got, err)
		}
	})
}
