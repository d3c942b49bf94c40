// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

func newListCmd(a *app) *cobra.Command {
	var sel selectorFlags
	cmd := &cobra.Command{
		Use:   "list [SELECTOR]",
		Short: "List what CloudFront may hold",
		Long: `List the entries of the inventory in byte order of their paths, one a line: when
the last response ended, when its life in CloudFront is over at the latest, how
many responses were recorded, the path, and its tags. Without a SELECTOR, all of
them. What --output json prints can be imported again.
` + selectorHelp,
		Example: `  cftrack list
  cftrack list '/blog/*/comments*'
  cftrack list --tag product-17 --older-than 1h
  cftrack list --output json | cftrack import - --distribution E2OTHER`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.list(cmd, &sel, args) },
	}
	sel.add(cmd)
	return cmd
}

// An entryLine is what list prints of an entry in JSON.
type entryLine struct {
	Path    string    `json:"path"`
	Last    time.Time `json:"last"`
	Expires time.Time `json:"expires"`
	Hits    uint64    `json:"hits"`
	Tags    []string  `json:"tags"`
	Folded  bool      `json:"folded"`
	Mixed   bool      `json:"mixed"`
}

func (a *app) list(cmd *cobra.Command, sel *selectorFlags, args []string) (err error) {
	o, err := a.open(cmd.Context())
	if err != nil {
		return err
	}
	defer o.close(&err)
	p := a.printer()
	err = a.scan(cmd, o, sel, args, func(e *inventory.Entry) error {
		if a.json() {
			tags := e.Tags
			if tags == nil {
				tags = []string{}
			}
			return p.object(entryLine{e.Path, e.Last, e.Expires, e.Hits, tags, e.Folded, e.Mixed})
		}
		_, err := fmt.Fprintf(p, "%s  %s  %6d  %s\n", instant(e.Last), until(e.Expires), e.Hits, shownPath(e))
		return err
	})
	if e := p.Flush(); err == nil {
		err = e
	}
	return err
}

// until writes the end of a life in the width of an instant.
func until(t time.Time) string {
	if !t.Before(inventory.Never) {
		return fmt.Sprintf("%-20s", "until purged")
	}
	return instant(t)
}

// shownPath is a path and what more there is to know of its entry.
func shownPath(e *inventory.Entry) string {
	s := e.Path
	if e.Folded {
		s += "  (and all that begins so)"
	}
	for _, t := range e.Tags {
		s += "  #" + printable(strings.ReplaceAll(t, "\n", "?"))
	}
	return s
}

// scan calls f for every selected entry in order of path; without a selector
// that is all.
func (a *app) scan(cmd *cobra.Command, o *opened, sel *selectorFlags, args []string, f func(*inventory.Entry) error) error {
	s, c, err := sel.read(a, args, o.target)
	if err != nil {
		return err
	}
	if s.Empty() {
		if len(args) > 0 {
			return required(s, args)
		}
		s.All = true
		if c, err = s.Compile(); err != nil {
			return err
		}
	}
	for e, err := range o.store.Scan(cmd.Context(), o.id, rangeOf(c, o)) {
		if err != nil {
			return err
		}
		if c.Selects(&e, o.now) {
			if err := f(&e); err != nil {
				return err
			}
		}
	}
	return nil
}

// rangeOf bounds a scan by what the selected paths have in common.
func rangeOf(c *selector.Compiled, o *opened) store.Range {
	return store.Range{Prefix: c.Prefix(), Now: o.now}
}
