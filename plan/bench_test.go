// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"iter"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/filestore"
)

// inventoryOf is a site of n entries: sections, days, pages, queries.
func inventoryOf(n int) []Input {
	list := make([]Input, 0, n)
	for i := range n {
		p := fmt.Sprintf("/section-%02d/2024/%02d/%02d/article-%07d?page=%d", i*20/n, i*240/n%12, i*7200/n%30, i/5, i%5)
		list = append(list, Input{Entry: &inventory.Entry{Path: p}})
	}
	slices.SortFunc(list, func(a, b Input) int { return strings.Compare(a.Entry.Path, b.Entry.Path) })
	return list
}

func BenchmarkCompute(b *testing.B) {
	list := inventoryOf(1_000_000)
	for _, bm := range []struct {
		name  string
		every func(i int) bool
		opts  Options
	}{
		{"none", func(int) bool { return false }, Options{Wildcards: true}},
		{"all", func(int) bool { return true }, Options{Wildcards: true}},
		{"section", func(i int) bool { return i/50_000 == 7 }, Options{Wildcards: true}},
		{"every-hundredth", func(i int) bool { return i%100 == 0 }, Options{Wildcards: true}},
		{"half", func(i int) bool { return i/50%2 == 0 }, Options{Wildcards: true}},
		{"all-incomplete", func(int) bool { return true }, Options{}},
	} {
		for i := range list {
			list[i].Selected = bm.every(i)
		}
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Compute(sequence(list), bm.opts); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// site yields a site of n entries in byte order, made up as it goes, so that only what
// planning takes is in memory: 20 sections, in each 500 topics, in each pages with 4 queries.
func site(n int, selected func(i int) bool) iter.Seq2[Input, error] {
	const sections, topics, queries = 20, 500, 4
	pages := max(1, n/(sections*topics*(queries+1)))
	record := inventory.Record{Last: 1, Expires: 2, Hits: 3}
	encoded := record.Append(nil)
	return func(yield func(Input, error) bool) {
		var buf []byte
		var r inventory.Record
		i := 0
		one := func() bool {
			// As a store does it: a path of its own, and a record that is decoded.
			if err := r.Decode(encoded); err != nil {
				return yield(Input{}, err)
			}
			e := r.Entry(string(buf))
			i++
			return yield(Input{Entry: &e, Selected: selected(i - 1)}, nil)
		}
		for s := range sections {
			for t := range topics {
				for p := range pages {
					buf = append(buf[:0], "/section-"...)
					buf = append(buf, byte('a'+s), '/')
					buf = append(buf, "topic-"...)
					buf = digits(buf, t, 3)
					buf = append(buf, "/article-"...)
					buf = digits(buf, p, 6)
					if !one() {
						return
					}
					stem := len(buf)
					for q := range queries {
						buf = append(buf[:stem], "?page="...)
						buf = append(buf, byte('1'+q))
						if !one() {
							return
						}
					}
				}
			}
		}
	}
}

func digits(buf []byte, n, width int) []byte {
	s := strconv.Itoa(n)
	for range width - len(s) {
		buf = append(buf, '0')
	}
	return append(buf, s...)
}

// scattered tells of one in so many, without order.
func scattered(one int) func(i int) bool {
	return func(i int) bool { return (uint64(i)*0x9E3779B97F4A7C15>>33)%uint64(one) == 0 }
}

// BenchmarkScale plans for CFTRACK_PLAN entries (1,000,000 unless set), beside a bare scan
// of the same that decodes each entry. The figures are of processor time.
func BenchmarkScale(b *testing.B) {
	n := 1_000_000
	if s := os.Getenv("CFTRACK_PLAN"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			b.Fatal(err)
		}
	}
	section := func(i int) bool { return i/(n/20) == 7 }
	k50 := Options{Wildcards: true, MaxItems: ptr(50)}
	for _, bm := range []struct {
		name     string
		selected func(i int) bool
		opts     *Options
	}{
		{"scan", scattered(100), nil},
		{"nothing", func(int) bool { return false }, &Options{Wildcards: true}},
		{"section", section, &Options{Wildcards: true}},
		{"hundredth", scattered(100), &Options{Wildcards: true}},
		{"all", func(int) bool { return true }, &Options{Wildcards: true}},
		{"section,items=50", section, &k50},
		{"hundredth,items=50", scattered(100), &k50},
		{"half,items=50", scattered(2), &k50},
		{"hundredth,items=1000", scattered(100), &Options{Wildcards: true, MaxItems: ptr(1000)}},
		{"hundredth,items=10000", scattered(100), &Options{Wildcards: true, MaxItems: ptr(10_000)}},
		{"hundredth,collateral=1000", scattered(100), &Options{Wildcards: true, MaxCollateral: &Budget{Entries: 1000}}},
		{"hundredth,collateral=10%", scattered(100), &Options{Wildcards: true, MaxCollateral: &Budget{Percent: 10}}},
		{"hundredth,wildcards=15", scattered(100), &Options{Wildcards: true, MaxItems: ptr(100), MaxWildcards: ptr(15)}},
	} {
		b.Run(bm.name, func(b *testing.B) {
			peak := watchMemory()
			before := processor()
			entries := 0
			var p *Plan
			for b.Loop() {
				in := site(n, bm.selected)
				if bm.opts == nil {
					for in, err := range in {
						if err != nil || in.Entry.Path == "" {
							b.Fatal("no entry")
						}
						entries++
					}
					continue
				}
				var err error
				if p, err = Compute(in, *bm.opts); err != nil {
					b.Fatal(err)
				}
				entries += p.Totals.Entries
			}
			b.ReportMetric(float64(processor()-before)/float64(entries), "ns/entry")
			b.ReportMetric(float64(peak())/1e6, "peak-MB")
			if p != nil {
				b.ReportMetric(float64(p.Totals.Items), "items")
				b.ReportMetric(float64(p.Totals.Collateral), "collateral")
				b.ReportMetric(float64(p.Bound.Gap), "gap")
			}
		})
	}
}

// processor is the processor time that the process has used.
func processor() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// watchMemory looks at the heap until the peak is asked for.
func watchMemory() func() uint64 {
	stop, done := make(chan struct{}), make(chan uint64)
	go func() {
		peak := uint64(0)
		var m runtime.MemStats
		for {
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse+m.StackInuse)
			select {
			case <-stop:
				done <- peak
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return func() uint64 { close(stop); return <-done }
}

// BenchmarkStore plans over an embedded store in the directory CFTRACK_PLAN_STORE, which
// it fills with CFTRACK_PLAN entries if it is new.
func BenchmarkStore(b *testing.B) {
	dir := os.Getenv("CFTRACK_PLAN_STORE")
	if dir == "" {
		b.Skip("CFTRACK_PLAN_STORE names no directory")
	}
	const distribution = "E2EXAMPLE"
	_, err := os.Stat(dir)
	st, openErr := filestore.Open(dir, nil)
	if openErr != nil {
		b.Fatal(openErr)
	}
	defer st.Close()
	now := time.Now()
	if err != nil {
		n, err := strconv.Atoi(os.Getenv("CFTRACK_PLAN"))
		if err != nil {
			b.Fatal("CFTRACK_PLAN is no number: ", err)
		}
		var batch []inventory.Update
		flush := func() {
			if err := st.Merge(b.Context(), distribution, batch); err != nil {
				b.Fatal(err)
			}
			batch = batch[:0]
		}
		record := inventory.Sighting{Path: "/", Start: now, End: now, Expires: now.Add(1000 * time.Hour)}.Record()
		for in := range site(n, func(int) bool { return false }) {
			batch = append(batch, inventory.Update{Path: in.Entry.Path, Record: record})
			if len(batch) == 10_000 {
				flush()
			}
		}
		flush()
	}
	for _, bm := range []struct {
		name     string
		selector selector.Selector
		opts     *Options
	}{
		{"scan", selector.Selector{}, nil},
		{"prefix", selector.Selector{Prefixes: []string{"/section-c/topic-1"}}, &Options{Wildcards: true}},
		{"pattern", selector.Selector{Patterns: []string{"/*/topic-*7/*?page=3"}}, &Options{Wildcards: true}},
		{"prefix,items=50", selector.Selector{Prefixes: []string{"/section-c/topic-1"}}, &Options{Wildcards: true, MaxItems: ptr(50)}},
		{"pattern,items=50", selector.Selector{Patterns: []string{"/*/topic-*7/*?page=3"}}, &Options{Wildcards: true, MaxItems: ptr(50)}},
		{"pattern,collateral=5%", selector.Selector{Patterns: []string{"/*/topic-*7/*?page=3"}}, &Options{Wildcards: true, MaxCollateral: &Budget{Percent: 5}}},
	} {
		b.Run(bm.name, func(b *testing.B) {
			compiled, err := bm.selector.Compile()
			if err != nil {
				b.Fatal(err)
			}
			in := func(yield func(Input, error) bool) {
				var entry inventory.Entry
				for e, err := range st.Scan(b.Context(), distribution, store.Range{Now: now}) {
					entry = e
					if !yield(Input{Entry: &entry, Selected: compiled.Selects(&entry, now)}, err) {
						return
					}
				}
			}
			peak := watchMemory()
			before := processor()
			entries := 0
			var p *Plan
			for b.Loop() {
				if bm.opts == nil {
					for _, err := range st.Scan(b.Context(), distribution, store.Range{Now: now}) {
						if err != nil {
							b.Fatal(err)
						}
						entries++
					}
					continue
				}
				if p, err = Compute(in, *bm.opts); err != nil {
					b.Fatal(err)
				}
				entries += p.Totals.Entries
			}
			b.ReportMetric(float64(processor()-before)/float64(entries), "ns/entry")
			b.ReportMetric(float64(peak())/1e6, "peak-MB")
			if p != nil {
				b.ReportMetric(float64(p.Totals.Selected), "selected")
				b.ReportMetric(float64(p.Totals.Items), "items")
				b.ReportMetric(float64(p.Totals.Collateral), "collateral")
				b.ReportMetric(float64(p.Bound.Gap), "gap")
			}
		})
	}
}
