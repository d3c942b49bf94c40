// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/plan"
)

var painted = regexp.MustCompile("\x1b\\[[0-9]+m")

// Whatever a plan says, no line is wider than the terminal, and nothing in it moves
// the cursor.
func TestNoLineIsTooWide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.SampledFrom([]int{0, 1, 7, 12_345, 9_999_999})
		text := rapid.StringOfN(rapid.SampledFrom([]rune("ab/-? é漢\x1b\u202e\u0301\n")), 0, 300, -1)
		path := rapid.Map(rapid.StringOfN(rapid.SampledFrom([]rune("ab/-_?&=%41")), 0, 200, -1), func(s string) string { return "/" + s })
		money := rapid.Map(number, func(n int) float64 { return float64(n) * 0.005 })
		codes := rapid.SampledFrom([]string{plan.ReasonNamed, plan.ReasonExact, plan.ReasonBelow, plan.ReasonEverything, plan.ReasonDirectory, plan.ReasonFolded,
			plan.ReasonTrouble, plan.ReasonDoubt, plan.ReasonRoot, plan.ReasonBudget, plan.ReasonTag, plan.ReasonFixed})
		v := &dispatch.Preview{Plan: &plan.Plan{Feasible: rapid.Bool().Draw(t, "feasible")}, FreePaths: number.Draw(t, "free")}
		for range rapid.IntRange(0, 40).Draw(t, "items") {
			v.Items = append(v.Items, plan.Item{Item: cfpath.Item{Kind: cfpath.Wildcard, Text: path.Draw(t, "item")}, Covers: number.Draw(t, "covers"),
				Collateral: number.Draw(t, "collateral"), Reason: plan.Reason{Code: codes.Draw(t, "code"), Text: text.Draw(t, "why")}, Unsure: rapid.Bool().Draw(t, "unsure")})
		}
		v.Totals = plan.Totals{Entries: number.Draw(t, "entries"), Selected: number.Draw(t, "selected"), Items: len(v.Items), Wildcards: len(v.Items),
			InFlight: number.Draw(t, "in flight"), Price: money.Draw(t, "price"), Seconds: money.Draw(t, "seconds"), Collateral: number.Draw(t, "hit")}
		for _, name := range []string{plan.EveryPath, plan.Everything, plan.WithComplete, plan.CommonPrefix, plan.WholeDirectories} {
			if rapid.Bool().Draw(t, name) {
				v.Alternatives = append(v.Alternatives, plan.Alternative{Name: name, Items: number.Draw(t, "items"), Collateral: number.Draw(t, "collateral"), Price: money.Draw(t, "price")})
			}
		}
		v.Frontier = append(v.Frontier, plan.Point{Items: number.Draw(t, "items"), Wildcards: number.Draw(t, "wildcards")})
		v.Explanations = append(v.Explanations, plan.Explanation{Path: path.Draw(t, "path"), Sentence: text.Draw(t, "sentence")})
		v.Uncovered = append(v.Uncovered, plan.Uncovered{Path: path.Draw(t, "path"), Reason: cfpath.ReasonTilde, Remedy: path.Draw(t, "remedy"), RemedyCollateral: number.Draw(t, "n")})
		v.Warnings = append(v.Warnings, plan.Warning{Message: text.Draw(t, "warning")})
		v.Bound = plan.Bound{Objective: rapid.SampledFrom([]string{"", plan.ObjectiveItems, plan.ObjectiveCollateral}).Draw(t, "objective"), Optimal: rapid.Bool().Draw(t, "optimal"), Gap: number.Draw(t, "gap")}
		v.Saved = journal.Saving{Entries: number.Draw(t, "saved"), Items: number.Draw(t, "saved"), Price: money.Draw(t, "saved")}
		v.FollowUps = dispatch.Likely{Items: number.Draw(t, "follow-ups"), Price: money.Draw(t, "follow-ups")}
		if rapid.Bool().Draw(t, "file") {
			v.Review = &dispatch.Review{Made: time.Unix(0, 0), Sighted: dispatch.Sample{Count: number.Draw(t, "sighted")}}
		}
		o := journal.Planning{MaxCollateral: rapid.SampledFrom([]string{"", "12345", "2.5%"}).Draw(t, "budget")}
		if rapid.Bool().Draw(t, "max items") {
			o.MaxItems, o.MaxWildcards = new(number.Draw(t, "n")), new(number.Draw(t, "n"))
		}
		st := style{width: rapid.SampledFrom([]int{narrowest, 60, 69, 70, 80, 109, 110, 160, 300}).Draw(t, "width"), colour: rapid.Bool().Draw(t, "colour")}
		var b bytes.Buffer
		writePlan(&b, st, "E2EXAMPLE", text.Draw(t, "selected"), o, v, rapid.Bool().Draw(t, "all"))
		for line := range strings.Lines(b.String()) {
			bare := strings.TrimSuffix(painted.ReplaceAllString(line, ""), "\n")
			if columns(bare) > st.width {
				t.Fatalf("%d columns of %d: %q", columns(bare), st.width, line)
			}
			if strings.ContainsFunc(bare, hidden) {
				t.Fatalf("something hidden: %q", line)
			}
			if !st.colour && bare != strings.TrimSuffix(line, "\n") {
				t.Fatalf("coloured: %q", line)
			}
			if strings.Count(line, "\x1b")%2 != 0 {
				t.Fatalf("a colour is not ended on its line: %q", line)
			}
		}
	})
}

func TestPieces(t *testing.T) {
	for _, c := range []struct {
		in          string
		width, most int
		want        string
	}{
		{"/a/b", 4, 2, "/a/b"},
		{"/aa/bb", 4, 2, "/aa/|bb"},
		{"/aaaaaaaa", 4, 9, "/aaa|aaaa|a"},
		{"/some-words", 7, 9, "/some-|words"},
		{"/aaaaaaaa/bbbbbbbb", 10, 1, "/a...bbbbb"},
		{"/漢字漢字", 4, 9, "/漢|字漢|字"},
		{"", 4, 2, ""},
	} {
		if got := strings.Join(pieces(c.in, c.width, c.most), "|"); got != c.want {
			t.Errorf("%q in %d columns: %q, not %q", c.in, c.width, got, c.want)
		}
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		in    string
		width int
		want  string
	}{
		{"aa bb cc", 5, "aa bb|cc"},
		{"aa bbb cc", 5, "aa|bbb|cc"},
		{"  aa \n bb ", 80, "aa bb"},
		{"aa /bbb/ccc dd", 6, "aa|/bbb/|ccc dd"},
		{"", 5, ""},
	} {
		if got := strings.Join(wrap(c.in, c.width), "|"); got != c.want {
			t.Errorf("%q in %d columns: %q, not %q", c.in, c.width, got, c.want)
		}
	}
}

func TestVisible(t *testing.T) {
	for in, want := range map[string]string{
		"/a b/ü漢": "/a b/ü漢", "\x1b[31m\a": `\x1b[31m\x07`, "a\nb\tc": `a\x0ab\x09c`, "\u202eabc\u2066": `\u202eabc\u2066`, "\xff\u0085": `\xff\x85`, "e\u0301": "e\u0301",
	} {
		if got := visible(in); got != want {
			t.Errorf("%q: %q, not %q", in, got, want)
		}
	}
}
