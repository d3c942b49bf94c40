// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
)

// million are a million paths in byte order, some with a query.
func million() []string {
	out := make([]string, 0, 1e6)
	for i := range 1_000_000 {
		p := fmt.Sprintf("/section-%02d/%03d/article-%06d/index.html", i%37, i/1000, i)
		if i%5 == 0 {
			p += "?page=2"
		}
		out = append(out, p)
	}
	slices.Sort(out)
	for i := range out {
		out[i] = strings.Clone(out[i]) // one behind the other in memory, as a scan yields them
	}
	return out
}

// many are so many patterns of a kind that match some of the million.
func many(kind string, n int) Selector {
	var s Selector
	for i := range n {
		at := i * (1_000_000 / n) / 5 * 5
		switch kind {
		case "exact": // and with any query
			s.Patterns = append(s.Patterns, fmt.Sprintf("/section-%02d/%03d/article-%06d/index.html", at%37, at/1000, at))
		case "prefixes":
			s.Patterns = append(s.Patterns, fmt.Sprintf("/section-%02d/%03d/article-%06d/*", at%37, at/1000, at))
		case "heads":
			s.Patterns = append(s.Patterns, fmt.Sprintf("/section-%02d/%03d/*-%06d/index.html", at%37, at/1000, at))
		case "tails":
			s.Patterns = append(s.Patterns, fmt.Sprintf("*/article-%06d/index.html", at))
		case "middles":
			s.Patterns = append(s.Patterns, fmt.Sprintf("*article-%06d*", at))
		case "product": // every head with every tail
			s.Patterns = append(s.Patterns, fmt.Sprintf("/section-%02d/*%03d/index.html", i%37, i/37))
		case "mixed":
			s.Patterns = append(s.Patterns, many([]string{"exact", "prefixes", "heads", "tails", "middles"}[i%5], 1).Patterns...)
		}
	}
	return s
}

// processorTime is what the process has used: on a busy machine it says more than
// the clock.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkMillion selects over a million entries; an operation is all of them.
func BenchmarkMillion(b *testing.B) {
	paths := million()
	for _, c := range []struct {
		kind string
		n    int
	}{
		{"exact", 1}, {"exact", 50_000}, {"prefixes", 1}, {"prefixes", 50_000},
		{"heads", 1}, {"heads", 10_000}, {"tails", 1}, {"tails", 10_000}, {"middles", 1}, {"middles", 10_000}, {"product", 10_000},
	} {
		b.Run(fmt.Sprintf("%s/%d", c.kind, c.n), func(b *testing.B) {
			compiled := compile(b, many(c.kind, c.n))
			b.ReportAllocs()
			selected := 0
			e := inventory.Entry{}
			start := processorTime(b)
			for b.Loop() {
				selected = 0
				for i := range paths {
					e.Path = paths[i]
					if compiled.Selects(&e, cut) {
						selected++
					}
				}
			}
			b.ReportMetric(float64(processorTime(b)-start)/float64(b.N)/float64(len(paths)), "cpu-ns/entry")
			b.ReportMetric(float64(selected), "selected")
		})
	}
}
