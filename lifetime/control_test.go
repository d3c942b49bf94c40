// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package lifetime

import (
	"math"
	"testing"
	"time"
)

func TestParseControl(t *testing.T) {
	const most = math.MaxInt64 / time.Second * time.Second
	age := func(d time.Duration) control { return control{maxAge: d, hasMaxAge: true} }
	unread := func(d time.Duration) control { return control{maxAge: d, hasMaxAge: true, unread: true} }
	for _, tt := range []struct {
		line string
		want control
	}{
		{"", control{}},
		{",, ,\t,", control{}},
		{"max-age=60", age(60 * s)},
		{"MAX-AGE=60", age(60 * s)},
		{" \tmax-age=60\t ", age(60 * s)},
		{"max-age = 60", age(60 * s)},
		{`max-age="60"`, age(60 * s)},
		{",max-age=60,", age(60 * s)},
		{"max-age=060", age(60 * s)},
		{"max-age=9223372036", age(9223372036 * s)},
		{"max-age=9223372037", age(most)},
		{"max-age=18446744073709551617", age(most)},
		{"max-age=100000000000000000000000000000000000000000", age(most)},
		{"max-age=60, max-age=5", age(60 * s)},
		{"max-age", unread(0)},
		{"max-age=", unread(0)},
		{`max-age=""`, unread(0)},
		{`max-age="`, unread(0)},
		{"max-age=-60", unread(0)},
		{"max-age=+60", unread(0)},
		{"max-age=60.9", unread(60 * s)},
		{"max-age=60; public", unread(60 * s)},
		{"max-age=60 no-store", unread(60 * s)},
		{"max-age=0x10", unread(0)},
		{"max-age==60", unread(0)},
		{"max-age=٦٠", unread(0)},
		{"max-age=x, max-age=60", unread(60 * s)},
		{"s-maxage=60", control{sMaxAge: 60 * s, hasSMaxAge: true}},
		{"s-maxage=0", control{hasSMaxAge: true}},
		{"s-max-age=60", control{}},
		{"xmax-age=60", control{}},
		{"max-age2=60", control{}},
		{"stale-while-revalidate=60", control{staleRevalidate: 60 * s}},
		{"Stale-If-Error=60,stale-if-error=5", control{staleIfError: 60 * s}},
		{"stale-if-error=60s", control{staleIfError: 60 * s}},
		{"stale-if-error", control{}},
		{"no-store", control{forbids: "no-store"}},
		{"No-Cache", control{forbids: "no-cache"}},
		{"PRIVATE", control{forbids: "private"}},
		{"no-cache,private", control{forbids: "private"}},
		{"private,no-cache", control{forbids: "private"}},
		{"no-store,private,no-cache", control{forbids: "no-store"}},
		{"no-\u017ftore", control{}}, // a letter that folds to s
		{`no-cache="Set-Cookie, no-store"`, control{}},
		{`private="a\", no-store, b", max-age=60`, age(60 * s)},
		{`x="a, no-store", max-age=60`, age(60 * s)},
		{`x="a\\", max-age=60`, age(60 * s)},
		{`x="never closed, max-age=60`, age(60 * s)},
		{`x="escaped at the end\`, control{}},
		{`"no-store"`, control{}},
		{"public, must-revalidate, immutable, no-transform", control{}},
		{"\x00\xff, max-age=60", age(60 * s)},
	} {
		if got := parseControl([]string{tt.line}); got != tt.want {
			t.Errorf("%q: got %+v, want %+v", tt.line, got, tt.want)
		}
	}
}

func FuzzParseControl(f *testing.F) {
	for _, seed := range [][2]string{
		{"max-age=60, s-maxage=0", "no-store"},
		{`private="a, b", max-age="5"`, "stale-if-error=99999999999999999999"},
		{`x="never closed, max-age=60`, `"`},
		{"max-age=-1,,", "=,=\"\\"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		both := parseControl([]string{a, b})
		if swapped := parseControl([]string{b, a}); swapped != both {
			t.Errorf("the order of lines matters: %+v, %+v", both, swapped)
		}
		if again := parseControl([]string{a, b, a}); again != both {
			t.Errorf("a repeated line matters: %+v, %+v", both, again)
		}
		// A line is as good as its directives on a line each.
		var cut []string
		for rest := a; rest != ""; {
			var d string
			before := len(rest)
			if d, rest = cutDirective(rest); len(d)+len(rest) > before || len(d) < before-len(rest)-1 {
				t.Fatalf("cutDirective lost something of %q", a)
			}
			cut = append(cut, d)
		}
		one := parseControl([]string{a})
		if apart := parseControl(cut); apart != one {
			t.Errorf("apart: %+v, together: %+v", apart, one)
		}
		for _, c := range []control{both, one} {
			for _, d := range []time.Duration{c.maxAge, c.sMaxAge, c.staleRevalidate, c.staleIfError} {
				if d < 0 {
					t.Errorf("negative: %+v", c)
				}
			}
			if c.unread && !c.stated() || !c.hasMaxAge && c.maxAge != 0 || !c.hasSMaxAge && c.sMaxAge != 0 {
				t.Errorf("contradictory: %+v", c)
			}
		}
		// Another line takes nothing away.
		if both.maxAge < one.maxAge || both.staleIfError < one.staleIfError || one.forbids != "" && both.forbids == "" || one.unread && !both.unread {
			t.Errorf("a line took something away: %+v, then %+v", one, both)
		}
	})
}
