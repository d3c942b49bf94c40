// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/journal"
)

func newStatsCmd(a *app) *cobra.Command {
	var sel selectorFlags
	cmd := &cobra.Command{
		Use:   "stats [SELECTOR]",
		Short: "Count what CloudFront may hold",
		Long: `Count the entries of the inventory, name the directories that hold most of them,
and say whether the inventory is complete. Without a SELECTOR, of all entries.
` + selectorHelp,
		Example: `  cftrack stats
  cftrack stats --prefix /shop/ --output json`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.stats(cmd, &sel, args) },
	}
	sel.add(cmd)
	return cmd
}

// A directory counts the entries right below it, not those of its directories.
type directory struct {
	Directory string `json:"directory"`
	Entries   int    `json:"entries"`
	Hits      uint64 `json:"hits"`
}

func (a *app) stats(cmd *cobra.Command, sel *selectorFlags, args []string) (err error) {
	o, err := a.open(cmd.Context())
	if err != nil {
		return err
	}
	defer o.close(&err)
	var t tally
	if err := a.scan(cmd, o, sel, args, func(e *inventory.Entry) error { t.add(e); return nil }); err != nil {
		return err
	}
	cover, err := journal.Open(o.store, o.id).Coverage(cmd.Context(), o.now, o.rules.Longest())
	if err != nil {
		return err
	}
	out := struct {
		Entries     int          `json:"entries"`
		Hits        uint64       `json:"hits"`
		Folded      int          `json:"folded"`
		Coverage    coverageJSON `json:"coverage"`
		Directories []directory  `json:"directories"`
	}{t.entries, t.hits, t.folded, newCoverageJSON(cover), t.biggest()}
	if a.json() {
		return a.printObject(out)
	}
	p := a.printer()
	fmt.Fprintf(p, "%s, %s recorded\n", count(out.Entries, "entry", "entries"), count(int(min(out.Hits, 1<<53)), "response", "responses"))
	if out.Folded > 0 {
		fmt.Fprintf(p, "%s of them folded: each stands for all paths that begin with its own\n", thousands(out.Folded))
	}
	fmt.Fprintln(p, coverLine(cover))
	if len(out.Directories) > 0 {
		fmt.Fprintf(p, "\n%9s  %9s  biggest directories\n", "entries", "responses")
		for _, d := range out.Directories {
			fmt.Fprintf(p, "%9s  %9d  %s\n", thousands(d.Entries), d.Hits, d.Directory)
		}
	}
	return p.Flush()
}

const (
	shownDirectories = 10
	keptDirectories  = 256
)

// A tally counts entries that come in byte order of path. It keeps the open
// directories and the biggest of those that are over.
type tally struct {
	entries, folded int
	hits            uint64
	open            []directory // each begins with the one before
	closed          []directory
}

func (t *tally) add(e *inventory.Entry) {
	t.entries++
	t.hits += e.Hits
	if e.Folded {
		t.folded++
	}
	stem, _, _ := cfpath.Split(e.Path)
	dir := stem[:strings.LastIndexByte(stem, '/')+1]
	for len(t.open) > 0 && !strings.HasPrefix(dir, t.open[len(t.open)-1].Directory) {
		// Byte order returns to a directory after others only where it is still
		// open: whatever begins with it stands together.
		t.close()
	}
	if len(t.open) == 0 || t.open[len(t.open)-1].Directory != dir {
		t.open = append(t.open, directory{Directory: dir})
	}
	d := &t.open[len(t.open)-1]
	d.Entries++
	d.Hits += e.Hits
}

func (t *tally) close() {
	last := len(t.open) - 1
	t.closed = append(t.closed, t.open[last])
	t.open = t.open[:last]
	if len(t.closed) > keptDirectories {
		t.sort()
		t.closed = t.closed[:shownDirectories]
	}
}

func (t *tally) sort() {
	slices.SortFunc(t.closed, func(a, b directory) int {
		return cmp.Or(cmp.Compare(b.Entries, a.Entries), strings.Compare(a.Directory, b.Directory))
	})
}

func (t *tally) biggest() []directory {
	for len(t.open) > 0 {
		t.close()
	}
	t.sort()
	return append([]directory{}, t.closed[:min(len(t.closed), shownDirectories)]...)
}
