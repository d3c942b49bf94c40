// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// A section is one thing that is measured.
type section struct {
	name, title, about string
	measure            func(ctx context.Context, size int64) (*table, error)
}

var sections = []section{
	{"middleware", "Recording in a server", `What the middleware adds to a handler that writes a small page, on a response writer
that costs nothing, and around a real server and connection; beside the histogram of
durations of prometheus/client_golang. Medians of five runs. In a handler, what is added
is compared; around a server, the whole.`, middleware},
	{"embedded", "The embedded store", `Five million sightings, 30 % of them repeats, in batches of 1,000, each on disk before
the next; then a scan of all entries, before and after compaction. Beside it, Pebble
with the same settings and nothing around it.`, embedded},
	{"redis", "Redis", `A million sightings, 30 % of them repeats, from two writers, server and client on the
same machine; then a scan.`, redis},
	{"import", "Reading access logs", `A standard log of CloudFront with 33 fields a line and some 400,000 distinct paths, into
the embedded store. Beside it what a shell does to count lines, and to list distinct
paths without keeping them.`, importing},
	{"plan", "Planning", `A plan over an inventory of a million entries in memory.`, planning},
	{"scale", "Planning beside a scan", `A million entries that are made up and decoded as they are read, so that the peak is what
planning takes. Processor time. Then a hundred million. docs/planner.md says what is compared.`, scale},
	{"stored", "Planning from the embedded store", `Ten million entries, beside a bare scan of them that decodes each. The peak is that of the
process, so with the scan's own; what the answers hold grows with their items.`, stored},
	{"items", "What a plan hits", `Entries hit and not selected, by way: plans of at most so many items, beside what tools
send that know only what changed. "common prefix" is one wildcard; "balanced (5)" and "levels
(8)" shorten paths by directories until there are so few items; "directories" sends dir/* where
two or more pages of a directory changed. What levels misses is selected, and not
hit.`, hitting},
	{"dispatch", "Sending", `A hundred thousand exact paths in virtual time, to a simulated CloudFront that refuses
whatever is over its limits: by the rates alone, and with 3,000 in progress that complete
after 25 s. Compared with the least time that the limits allow. The memory is what the
process grew by, the journal in memory and the simulator included. Then, in real time, from making a
dispatcher to the first call, with 10,000 entries.`, dispatching},
	{"journal", "Reading the journal", `10,000 invalidations that are over, each of one batch with ten items; compacted, their
batches are forgotten.`, reading},
}

func names() []string {
	var out []string
	for _, s := range sections {
		out = append(out, s.name)
	}
	return out
}

func middleware(ctx context.Context, _ int64) (*table, error) {
	rs, err := goTest(ctx, 5, ".", "^(BenchmarkMiddleware|BenchmarkServer)$", nil, "-benchtime", "0.5s")
	if err != nil {
		return nil, err
	}
	t := &table{columns: []column{{"added", "ns added"}, {"ns/op", "ns"}, {"allocs/op", "allocations"}}}
	bare := map[string]float64{}
	for _, r := range rs {
		kind, name := split(r.name)
		if name == "bare" || strings.HasPrefix(name, "bare/") {
			bare[kind+strings.TrimPrefix(name, "bare")] = r.metrics["ns/op"]
		}
	}
	for _, r := range rs {
		kind, name := split(r.name)
		who, what, _ := strings.Cut(name, "/")
		label := func(who string) string {
			l := who
			if kind == "Server" {
				l += ", real server"
			}
			if what != "" {
				l += ", " + what
			}
			return l
		}
		m := row{label: label(who), metrics: r.metrics}
		switch {
		case kind == "Server": // where what is added is lost in the noise of the rest
			if who != "bare" {
				m.peer = label("bare")
			}
		case who != "bare":
			r.metrics["added"] = r.metrics["ns/op"] - bare[kind+strings.TrimPrefix(name, who)]
			if who == "cftrack" {
				m.peer = label("promhttp")
			}
		}
		t.rows = append(t.rows, m)
	}
	return t, nil
}

// split takes "BenchmarkMiddleware/cftrack/tags" apart: "Middleware", "cftrack/tags".
func split(name string) (kind, rest string) {
	kind, rest, _ = strings.Cut(strings.TrimPrefix(name, "Benchmark"), "/")
	return kind, rest
}

func embedded(ctx context.Context, _ int64) (*table, error) {
	rs, err := goTest(ctx, 1, "./store/filestore", "^BenchmarkFiveMillion$", nil, "-benchtime", "1x")
	if err != nil {
		return nil, err
	}
	t := &table{columns: []column{
		{"merges/s", "merges/s"}, {"worst-ms", "longest batch, ms"}, {"peak-MB", "peak memory, MB"}, {"B/entry", "bytes an entry"},
		{"scanned/s-before", "scanned/s"}, {"scanned/s", "compacted, scanned/s"},
	}}
	for _, r := range rs {
		_, name := split(r.name)
		m := row{label: strings.ReplaceAll(strings.Replace(name, "/writers=", ", writers: ", 1), "store,", "cftrack,"), metrics: r.metrics}
		if rest, ok := strings.CutPrefix(m.label, "cftrack,"); ok {
			m.peer = "pebble," + rest
		}
		t.rows = append(t.rows, m)
	}
	return t, nil
}

func redis(ctx context.Context, _ int64) (*table, error) {
	rs, err := goTest(ctx, 1, "./store/redisstore", "^BenchmarkFill$", []string{"CFTRACK_FILL=1000000"}, "-benchtime", "1x")
	if err != nil {
		return nil, err
	}
	t := &table{columns: []column{
		{"merges/s", "merges/s"}, {"B/entry", "bytes an entry"}, {"s/M-scan", "s to scan a million"},
		{"µs-longest", "longest command, µs"}, {"server-µs/merge", "server's µs a merge"},
	}}
	for _, r := range rs {
		_, name := split(r.name)
		t.rows = append(t.rows, row{label: strings.ReplaceAll(name, "_", " "), metrics: r.metrics})
	}
	return t, nil
}

func scale(ctx context.Context, _ int64) (*table, error) {
	t := &table{columns: []column{{"ns/entry", "ns an entry"}, {"s", "s"}, {"peak-MB", "peak memory, MB"}, {"items", "items"},
		{"collateral", "collateral"}, {"gap", "gap"}}}
	for _, of := range [...]struct {
		label, entries, rows string
		runs                 int
	}{{"", "1000000", "", 3}, {"100 million, ", "100000000", "/^(scan|nothing|section|hundredth,items=50)$", 1}} {
		rs, err := goTest(ctx, of.runs, "./plan", "^BenchmarkScale$"+of.rows, []string{"CFTRACK_PLAN=" + of.entries}, "-benchtime", "1x")
		if err != nil {
			return nil, err
		}
		for _, r := range rs {
			_, name := split(r.name)
			m := row{label: of.label + name, metrics: r.metrics}
			m.metrics["s"] = r.metrics["ns/op"] / 1e9
			if name != "scan" {
				m.peer = of.label + "scan"
			}
			t.rows = append(t.rows, m)
		}
	}
	return t, nil
}

func stored(ctx context.Context, _ int64) (t *table, err error) {
	dir, err := os.MkdirTemp("", "cftrack-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	env := []string{"CFTRACK_PLAN=10000000", "CFTRACK_PLAN_STORE=" + filepath.Join(dir, "store")}
	rs, err := goTest(ctx, 1, "./plan", "^BenchmarkStore$", env, "-benchtime", "3x")
	if err != nil {
		return nil, err
	}
	t = &table{columns: []column{{"s", "s"}, {"ns/entry", "processor, ns an entry"}, {"peak-MB", "peak memory, MB"}, {"selected", "selected"},
		{"items", "items"}, {"collateral", "collateral"}, {"gap", "gap"}}}
	for _, r := range rs {
		_, name := split(r.name)
		m := row{label: name, metrics: r.metrics}
		m.metrics["s"] = r.metrics["ns/op"] / 1e9
		if name != "scan" {
			m.peer = "scan"
		}
		t.rows = append(t.rows, m)
	}
	return t, nil
}

func reading(ctx context.Context, _ int64) (*table, error) {
	t := &table{}
	ms := make(map[string]map[string]float64) // by benchmark, by store
	for _, st := range [...]struct{ name, pkg string }{
		{"memory", "./journal"}, {"embedded", "./store/filestore"}, {"Redis, Unix socket", "./store/redisstore"},
	} {
		t.columns = append(t.columns, column{st.name, "ms, " + st.name})
		rs, err := goTest(ctx, 3, st.pkg, "^BenchmarkJournal$", nil, "-benchtime", "5x")
		if err != nil {
			return nil, err
		}
		for _, r := range rs {
			_, name := split(r.name)
			if ms[name] == nil {
				ms[name] = make(map[string]float64)
			}
			ms[name][st.name] = r.metrics["ns/op"] / 1e6
		}
	}
	for _, r := range [...]struct{ label, benchmark string }{
		{"what is new: recorders and leaders, each second", "Poll/compacted=false"},
		{"all: a recorder's first read, a new leader", "All/compacted=false"},
		{"all and batches: each plan, the coverage", "Know/compacted=false"},
		{"all and batches, compacted", "Know/compacted=true"},
		{"the purge history: an import", "History/compacted=false"},
		{"the purge history, compacted", "History/compacted=true"},
	} {
		t.rows = append(t.rows, row{label: r.label, metrics: ms[r.benchmark]})
	}
	return t, nil
}

func planning(ctx context.Context, _ int64) (*table, error) {
	rs, err := goTest(ctx, 1, "./plan", "^BenchmarkCompute$", nil, "-benchtime", "5x")
	if err != nil {
		return nil, err
	}
	t := &table{columns: []column{{"s", "s"}, {"MB", "MB allocated"}}}
	for _, r := range rs {
		_, name := split(r.name)
		t.rows = append(t.rows, row{label: "selected: " + name, metrics: map[string]float64{
			"s": r.metrics["ns/op"] / 1e9, "MB": r.metrics["B/op"] / (1 << 20),
		}})
	}
	return t, nil
}

func dispatching(ctx context.Context, _ int64) (*table, error) {
	rs, err := goTest(ctx, 1, "./dispatch", "^$", []string{"CFTRACK_FIGURES=100000"}, "-run", "^TestFigures$", "-v")
	if err != nil {
		return nil, err
	}
	first, err := goTest(ctx, 3, "./dispatch", "^BenchmarkFirstCall$", nil, "-benchtime", "20x")
	if err != nil {
		return nil, err
	}
	t := &table{columns: []column{{"least-s", "least, s"}, {"s", "s"}, {"ratio", "ratio"}, {"refused", "calls refused"}, {"MB", "MB"}, {"ms-to-wire", "ms to the first call"}}}
	for _, r := range append(rs, first...) {
		label := "one path, at once"
		if _, name := split(r.name); name != "" {
			label = "100,000 paths, " + strings.ReplaceAll(name, "_", " ")
		}
		t.rows = append(t.rows, row{label: label, metrics: r.metrics})
	}
	return t, nil
}
