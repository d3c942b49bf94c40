// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cf-invalidation-tracker/cftrack/accesslog"
	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/internal/demo"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/plan"
)

// A change is what is selected of a site.
type change struct {
	name     string
	selected []string
}

// hitting compares what plans hit with what tools hit that know only what changed.
func hitting(_ context.Context, _ int64) (*table, error) {
	t := &table{columns: []column{
		{"selected", "selected"}, {"least", "items for no collateral"},
		{"one", "common prefix"}, {"k1", "1 item"},
		{"balanced", "balanced (5)"}, {"k5", "5 items"},
		{"levels", "levels (8)"}, {"k8", "8 items"}, {"lost", "levels: missed"},
		{"k15", "15 items"}, {"k50", "50 items"},
		{"dirs", "directories"}, {"dirs-items", "directories: items"},
	}}
	pages, err := demo.EmbeddedPaths()
	if err != nil {
		return nil, err
	}
	if err := addChanges(t, "MDN", pages, []string{"/docs/Web/API/Element/", "/docs/Web/SVG/Reference/Attribute/", "/docs/Web/HTTP/Reference/Headers/"},
		func(p string) bool { return strings.HasSuffix(strings.ToLower(p), "/length") }, "*/length", "/docs/Web/CSS/"); err != nil {
		return nil, err
	}
	logged, err := loggedPaths()
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil // CFTRACK_DATA has the directory it is in
	} else if err != nil {
		return nil, err
	}
	return t, addChanges(t, "log", logged, []string{"/presentations/logstash-monitorama-2013/images/", "/blog/tags/", "/images/"},
		func(p string) bool { return strings.HasSuffix(p, ".png") }, "*.png", "/blog/")
}

// addChanges adds rows for five changes to a site: three of its directories are named.
func addChanges(t *table, site string, pages []string, dirs []string, suffix func(string) bool, suffixName, section string) error {
	slices.Sort(pages)
	pages = slices.Compact(pages)
	under := func(dir string) func(string) bool { return func(p string) bool { return strings.HasPrefix(p, dir) } }
	pick := func(keep func(i int, p string) bool) (out []string) {
		for i, p := range pages {
			if keep(i, p) {
				out = append(out, p)
			}
		}
		return out
	}
	far := func(i int) bool { return i == len(pages)/7 || i == len(pages)/2 || i == len(pages)*9/10 }
	// Without order, and the same each time.
	spread := func(i int) int { return int(uint64(i) * 0x9E3779B97F4A7C15 >> 40) }
	random := pick(func(int, string) bool { return true })
	slices.SortFunc(random, func(a, b string) int {
		i, _ := slices.BinarySearch(pages, a)
		k, _ := slices.BinarySearch(pages, b)
		return spread(i) - spread(k)
	})
	random = random[:40]
	slices.Sort(random)
	for _, c := range []change{
		{"one directory and three strays", pick(func(i int, p string) bool { return under(dirs[0])(p) || far(i) })},
		{"80 % of two directories", pick(func(i int, p string) bool { return (under(dirs[1])(p) || under(dirs[2])(p)) && spread(i)%5 > 0 })},
		{"40 random pages", random},
		{suffixName, pick(func(_ int, p string) bool { return suffix(p) })},
		{"all of " + section, pick(func(_ int, p string) bool { return under(section)(p) })},
	} {
		m, err := hits(pages, c.selected)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", site, c.name, err)
		}
		t.rows = append(t.rows, row{label: site + ": " + c.name, metrics: m})
	}
	return nil
}

// hits measures what each way reaches beyond what is selected.
func hits(pages, selected []string) (map[string]float64, error) {
	wanted := map[string]bool{}
	for _, p := range selected {
		wanted[p] = true
	}
	in := func(yield func(plan.Input, error) bool) {
		for _, p := range pages {
			if !yield(plan.Input{Entry: &inventory.Entry{Path: p}, Selected: wanted[p]}, nil) {
				return
			}
		}
	}
	m := map[string]float64{"selected": float64(len(selected))}
	best, err := plan.Compute(in, plan.Options{Wildcards: true})
	if err != nil {
		return nil, err
	}
	m["least"] = float64(best.Totals.Items)
	for _, k := range []int{1, 5, 8, 15, 50} {
		p, err := plan.Compute(in, plan.Options{Wildcards: true, MaxItems: &k})
		if err != nil {
			return nil, err
		}
		m[fmt.Sprintf("k%d", k)] = float64(p.Totals.Collateral)
	}
	add := func(name string, items []string) (missed int) {
		reached := map[string]bool{}
		for _, s := range items {
			it, err := cfpath.ParseItem(s)
			if err != nil {
				continue // CloudFront would refuse it
			}
			for _, p := range pages {
				reached[p] = reached[p] || it.Matches(p)
			}
		}
		collateral := 0
		for _, p := range pages {
			switch {
			case reached[p] && !wanted[p]:
				collateral++
			case !reached[p] && wanted[p]:
				missed++
			}
		}
		m[name] = float64(collateral)
		return missed
	}
	add("one", commonPrefix(selected))
	add("balanced", balanced(selected, 5))
	m["lost"] = float64(add("levels", levels(selected, 8)))
	whole := directories(selected)
	m["dirs-items"] = float64(len(whole))
	add("dirs", whole)
	return m, nil
}

// loggedPaths are the paths of a real access log.
func loggedPaths() (paths []string, err error) {
	dir := os.Getenv("CFTRACK_DATA")
	if dir == "" {
		return nil, fs.ErrNotExist
	}
	data, err := os.ReadFile(filepath.Join(dir, "apache-combined-10k.log.gz"))
	if err != nil {
		return nil, err
	}
	r := accesslog.NewReader(bytes.NewReader(data), "apache-combined-10k.log.gz", nil)
	var l accesslog.Line
	for {
		outcome, err := r.Next(&l)
		if errors.Is(err, io.EOF) {
			return paths, nil
		}
		if err != nil {
			return nil, err
		}
		if outcome == accesslog.Recorded {
			paths = append(paths, l.Sighting.Path)
		}
	}
}
