// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"strings"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

// compared is up to how many items other plans are looked at.
const compared = 50

// compare adds what other numbers of items would reach, and what simpler ways would.
func (p *planner) compare(c *computation, plan *Plan) error {
	names := c.named.items(p.opts.OnlySeen)
	d := &frontiers{measure: leastCollateral, index: int32(max(0, compared-len(names))), other: 1<<uncoveredShift - 1}
	other := &computation{opts: &p.opts, named: newNamed(p.opts.Named, nil)}
	other.tree.init(p.scope, d)
	prefix := c.selection.first[:common(c.selection.first, c.selection.last)]
	if stem, ok := cfpath.TightestStem(prefix); ok && !cfpath.ValidStem(prefix) { // CloudFront takes no end in an escape
		prefix = stem
	}
	n := &naive{}
	inPrefix := 0
	if err := p.each(func(in *Input) {
		if !p.opts.flat() {
			other.add(in)
		}
		if strings.HasPrefix(in.Entry.Path, prefix) && !in.Selected {
			inPrefix++
		}
		n.add(in.Entry.Path, in.Selected)
	}); err != nil {
		return err
	}
	other.tree.finish()
	n.closeTo("")
	alternative := func(name string, others, wildcards, collateral int) {
		plan.Alternatives = append(plan.Alternatives, Alternative{name, others + wildcards, collateral,
			p.opts.Price.Of(others + wildcards), p.opts.Limits.Seconds(others, wildcards)})
	}
	if plan.Totals.Selected > 0 {
		alternative(CommonPrefix, 0, 1, inPrefix)
	}
	alternative(WholeDirectories, n.done.items-n.done.wildcards, n.done.wildcards, n.done.collateral)
	if p.opts.flat() || other.tree.stack[0].front == nil {
		return nil
	}
	plan.Frontier = p.points(other, names)
	return nil
}

// points are those of the root's frontier, with what is named.
func (p *planner) points(c *computation, names []Item) (out []Point) {
	f, d := c.tree.stack[0].front, c.tree.dp
	if f.dead {
		return nil
	}
	named := 0
	for i := range names {
		if names[i].wildcard() {
			named++
		}
	}
	points := f.points
	if points == nil {
		points = []point{{}}
	}
	least := none
	for _, q := range points {
		q.add(&f.base)
		least = min(least, d.cost(&q).uncovered)
	}
	for i, q := range points {
		q.add(&f.base)
		k := d.cost(&q)
		if k.uncovered > least {
			continue
		}
		pt := Point{Items: k.items + len(names), Wildcards: k.wildcards + named, Collateral: k.collateral + c.totals.Collateral}
		pt.Price = p.opts.Price.Of(pt.Items)
		pt.Seconds = p.opts.Limits.Seconds(pt.Items-pt.Wildcards, pt.Wildcards)
		// One that saves less than a fiftieth of the collateral is left out.
		if n := len(out); n > 1 && i < len(points)-1 && pt.Items > 5 && 50*(out[n-1].Collateral-pt.Collateral) < out[n-1].Collateral {
			continue
		}
		out = append(out, pt)
	}
	return out
}

// naive computes what it costs to send "dir/*" for each directory in which two or more
// pages of its own are selected, and single pages by themselves.
type naive struct {
	stack []directory
	done  directory
}

type directory struct {
	path       string // up to its '/'
	own        int    // selected pages that lie in it itself
	unselected int    // entries below

	items, wildcards, collateral int
}

// directoryOf is the path up to the last '/' before the query.
func directoryOf(path string) string {
	stem, _, _ := cfpath.Split(path)
	return stem[:strings.LastIndexByte(stem, '/')+1]
}

// add takes the next entry, in byte order.
func (n *naive) add(path string, selected bool) {
	dir := directoryOf(path)
	n.closeTo(dir)
	if len(n.stack) == 0 {
		n.stack = append(n.stack, directory{path: dir[:strings.IndexByte(dir, '/')+1]})
	}
	for at := len(n.stack[len(n.stack)-1].path); at < len(dir); {
		at += strings.IndexByte(dir[at:], '/') + 1
		n.stack = append(n.stack, directory{path: dir[:at]})
	}
	d := &n.stack[len(n.stack)-1]
	if selected {
		d.own++
	} else {
		d.unselected++
	}
}

// closeTo closes the directories that dir does not lie in; with "" all of them.
func (n *naive) closeTo(dir string) {
	for len(n.stack) > 0 {
		d := n.stack[len(n.stack)-1]
		if dir != "" && strings.HasPrefix(dir, d.path) {
			return
		}
		n.stack = n.stack[:len(n.stack)-1]
		if d.own > 1 {
			d.items, d.wildcards, d.collateral = 1, 1, d.unselected
		} else {
			d.items += d.own
		}
		parent := &n.done
		if len(n.stack) > 0 && strings.HasPrefix(d.path, n.stack[len(n.stack)-1].path) {
			parent = &n.stack[len(n.stack)-1]
		}
		parent.items += d.items
		parent.wildcards += d.wildcards
		parent.collateral += d.collateral
		parent.unselected += d.unselected
	}
}
