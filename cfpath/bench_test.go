// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cfpath

import "testing"

// The paths that benchmarks and the allocation test share.
const (
	benchPath  = "/blog/2026/11/caf%C3%A9/comments?page=2&sort=new&utm_source=feed"
	benchRaw   = "/blog/2026/11/café/it's [new]?page=2&sort=new&utm_source=feed"
	benchDotty = "/blog/./2026//11/../caf%c3%a9/comments?page=2"
)

// allocFree are the calls that must not allocate, since they run for every response.
func allocFree(tb testing.TB) map[string]func() {
	rule, err1 := ParseQueryRule("include:page,sort,utm_source")
	pattern, err2 := ParsePattern("/blog/*/comments*")
	tag, err3 := ParseItem("#blog")
	if err1 != nil || err2 != nil || err3 != nil {
		tb.Fatal(err1, err2, err3)
	}
	exact, wildcard := Item{Path, benchPath}, Item{Wildcard, "/blog/2026/"}
	return map[string]func(){
		"Canonical":             func() { _, _ = Canonical(benchPath) },
		"FromTarget":            func() { _, _ = FromTarget(benchPath) },
		"FromTarget/absolute":   func() { _, _ = FromTarget("http://www.example.com/a/b/c?d=e") },
		"FromLog/plain":         func() { _, _ = FromLog("/blog/2026/11/comments", "-") },
		"Name":                  func() { _, _ = Name(benchPath) },
		"InDoubt":               func() { InDoubt(benchPath) },
		"TightestStem":          func() { _, _ = TightestStem("/js/runtime~main.js") },
		"SureStem":              func() { _, _ = SureStem("/npm/@scope/it%27s") },
		"ValidStem":             func() { ValidStem("/blog/2026/11/caf%C3%A9/") },
		"ParseItem":             func() { _, _ = ParseItem("/blog/2026/*") },
		"Matches/path":          func() { exact.Matches(benchPath) },
		"Matches/wildcard":      func() { wildcard.Matches(benchPath) },
		"Matches/tag":           func() { tag.Matches(benchPath) },
		"MatchesSurely/path":    func() { exact.MatchesSurely(benchPath) },
		"MatchesSurely":         func() { wildcard.MatchesSurely(benchPath) },
		"Covers":                func() { wildcard.Covers(exact) },
		"QueryRule.Apply/keeps": func() { rule.Apply(benchPath) },
		"Pattern.Matches":       func() { pattern.Matches("/blog/2026/11/cafe/comments?page=2") },
		"Pattern.Matches/dots":  func() { pattern.Matches(benchDotty) },
		"StripOrigin":           func() { _, _ = StripOrigin("/production", "/production/a/b") },
	}
}

func TestAllocations(t *testing.T) {
	for name, call := range allocFree(t) {
		if n := testing.AllocsPerRun(100, call); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func BenchmarkCalls(b *testing.B) {
	calls := allocFree(b)
	drops, err := ParseQueryRule("exclude:utm_source")
	if err != nil {
		b.Fatal(err)
	}
	calls["Canonical/encodes"] = func() { _, _ = Canonical(benchRaw) }
	calls["FromLog/encoded"] = func() { _, _ = FromLog(ToLog(benchPath)) }
	calls["QueryRule.Apply/drops"] = func() { drops.Apply(benchPath) }
	for name, call := range calls {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				call()
			}
		})
	}
}
