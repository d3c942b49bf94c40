// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/plan"
)

// gone is on how many edges the page is held no more.
func (w *trial) gone(p *page) (n int) {
	for edge := range w.opts.Edges {
		if _, held := w.sim.Peek(edge, p.target); !held {
			n++
		}
	}
	return n
}

// hit tells whether an edge has lost anything of an entry.
func (w *trial) hit(r *row) bool {
	return slices.ContainsFunc(r.pages, func(p *page) bool { return w.gone(p) > 0 })
}

// judge looks at the edges after the whole plan.
func (w *trial) judge(p *plan.Plan, o *plan.Options) {
	lost, spared, left, doubtful := 0, 0, 0, false
	for _, r := range w.rows {
		uncovered := slices.ContainsFunc(p.Uncovered, func(u plan.Uncovered) bool { return u.Path == r.Entry.Path })
		inside := slices.ContainsFunc(p.Uncovered, func(u plan.Uncovered) bool { return w.within(r, u.Path) && (r.Entry.Folded || !nameable(r.Entry.Path)) })
		tagged := slices.ContainsFunc(p.Items, func(it plan.Item) bool { return carries(r.Entry, it.Item) })
		wanted := r.Selected && !r.InFlight && !uncovered && !inside
		held := false
		for _, pg := range r.pages {
			n := w.gone(pg)
			held = held || n < w.opts.Edges
			switch {
			case r.some && n == 0 && w.selected(pg), wanted && !r.some && n < w.opts.Edges:
				if !w.excused(p, pg) {
					w.Errorf("%.80q is selected, and held by %d edges", pg.path, w.opts.Edges-n)
				}
			case uncovered && n > 0 && !tagged && !w.reachedByName(pg) && !w.opts.RootKeyIsIndex && !(r.Entry.Folded && w.opts.DefaultRootObject != ""):
				w.Errorf("%.80q is said to be uncovered, and gone", pg.path)
			}
		}
		doubtful = doubtful || tagged && (uncovered || inside) || r.some
		if held && r.Selected && !r.InFlight {
			left++
		}
		switch {
		case r.some && w.inFolded(r): // it goes with that
		case r.some && slices.ContainsFunc(r.pages, func(pg *page) bool { return w.gone(pg) > 0 && !w.reachedByName(pg) }), !r.Selected && w.hit(r):
			lost++
		case !r.Selected && slices.ContainsFunc(p.Items, func(it plan.Item) bool { return it.Item.Matches(r.Entry.Path) }):
			spared++
		}
	}
	least, most := p.Totals.Collateral, p.Totals.Collateral
	if w.opts.SpareDirectory || w.opts.SpareDoubtful {
		least -= spared
	}
	if w.opts.DefaultRootObject != "" && slices.ContainsFunc(w.rows, func(r *row) bool { return r.Entry.Folded && (!r.Selected || r.some) }) {
		least = 0 // of such an entry an item may reach a part, which is counted
	}
	if w.opts.RootKeyIsIndex { // what is held once is tracked under two paths
		most += len(w.rows)
	}
	if lost < least || lost > most {
		w.Errorf("%d entries that nobody selected are hit; the plan says %d", lost, p.Totals.Collateral)
	}
	if w.plain() && !doubtful && left != p.Totals.Uncovered {
		w.Errorf("%d selected entries are left; the plan says %d", left, p.Totals.Uncovered)
	}
	if c := o.MaxCollateral; c != nil && len(w.named) == 0 && w.opts.DefaultRootObject == "" && lost > c.Of(p.Totals.Selected) &&
		!slices.ContainsFunc(w.rows, func(r *row) bool { return r.Entry.Folded }) {
		w.Errorf("a collateral of %d within a budget of %v", lost, c)
	}
}

// within tells whether an entry lies in the folded one of a path, beside it.
func (w *trial) within(r *row, path string) bool {
	return r.Entry.Path != path && strings.HasPrefix(r.Entry.Path, path) &&
		slices.ContainsFunc(w.rows, func(o *row) bool { return o.Entry.Path == path && o.Entry.Folded && o.Selected && !o.some })
}

func (w *trial) inFolded(r *row) bool {
	return slices.ContainsFunc(w.rows, func(o *row) bool { return w.within(r, o.Entry.Path) })
}

// selected tells whether a page is what is named of a folded entry.
func (w *trial) selected(pg *page) bool {
	if w.sel != nil {
		return w.sel.MaySelect(pg.path)
	}
	return slices.ContainsFunc(w.named, func(it cfpath.Item) bool { return it.Matches(pg.path) })
}

func (w *trial) reachedByName(pg *page) bool {
	tags := slices.Concat(pg.tags[0], pg.tags[1])
	return slices.ContainsFunc(w.named, func(it cfpath.Item) bool {
		return it.Matches(pg.path) || it.Kind == cfpath.Tag && slices.ContainsFunc(tags, func(tag string) bool { return strings.EqualFold(tag, it.Text) })
	})
}

// excused tells whether a page may be left because AWS does not confirm its spelling, and the
// plan says so.
func (w *trial) excused(p *plan.Plan, pg *page) bool {
	if !w.opts.SpareDoubtful {
		return false
	}
	unsure, sure := false, false
	for _, it := range p.Items {
		unsure = unsure || it.Unsure && it.Item.Matches(pg.path)
		sure = sure || it.Item.MatchesSurely(pg.path)
	}
	folded := slices.ContainsFunc(w.rows, func(r *row) bool { return r.Entry.Folded && slices.Contains(r.pages, pg) })
	return !sure && (unsure || folded && cfpath.InDoubt(pg.path))
}

// judgeItems sends each item by itself.
func (w *trial) judgeItems(p *plan.Plan) {
	if slices.ContainsFunc(w.rows, func(r *row) bool { return r.some }) {
		return // of such an entry an item may reach a part
	}
	for _, it := range p.Items {
		if it.Reason.Code == plan.ReasonDirectory && slices.ContainsFunc(w.rows, func(r *row) bool { return r.Entry.Folded && r.Entry.Path == it.Item.Text }) {
			continue // the folded entry stands for the directory itself too, sighted or not
		}
		w.fill()
		w.send(it.Item.String())
		covers, collateral := 0, 0
		for _, r := range w.rows {
			switch {
			case !w.hit(r), r.Entry.Folded && it.Item.Kind != cfpath.Tag && !(it.Item.Kind == cfpath.Wildcard && it.Item.Matches(r.Entry.Path)): // of that it reaches a part
			case r.Selected:
				covers++
			default:
				collateral++
			}
		}
		if covers != it.Covers || collateral != it.Collateral && it.Reason.Code != plan.ReasonRoot || collateral > it.Collateral {
			w.Errorf("%.80s covers %d, with a collateral of %d; the plan says %d and %d", it.Item, covers, collateral, it.Covers, it.Collateral)
		}
	}
}

// judgeRemedies sends what the plan says would cover what it leaves.
func (w *trial) judgeRemedies(p *plan.Plan) {
	for _, u := range p.Uncovered {
		if u.Remedy == "" {
			continue
		}
		w.fill()
		w.send(u.Remedy)
		collateral := 0
		for _, r := range w.rows {
			if !r.Selected && w.hit(r) && strings.HasPrefix(r.Entry.Path, strings.TrimSuffix(u.Remedy, "*")) { // else it is folded, and reached in part
				collateral++
			}
			for _, pg := range r.pages {
				if r.Entry.Path == u.Path && w.gone(pg) < w.opts.Edges {
					w.Errorf("%s leaves %.80q", u.Remedy, pg.path)
				}
			}
		}
		if collateral != u.RemedyCollateral {
			w.Errorf("%s hits %d entries that nobody selected; the plan says %d", u.Remedy, collateral, u.RemedyCollateral)
		}
	}
}

// judgeExplanations looks at the edges after the whole plan once more.
func (w *trial) judgeExplanations(p *plan.Plan) {
	w.fill()
	w.send(itemsOf(p)...)
	for i, x := range p.Explanations {
		r := w.rows[i]
		status := plan.StatusLeftAlone
		switch {
		case r.some || r.Entry.Folded || r.Entry.Mixed:
			continue // of which an item may reach a part
		case r.Selected && w.hit(r):
			status = plan.StatusCovered
		case r.Selected && r.InFlight:
			status = plan.StatusInFlight
		case r.Selected:
			status = plan.StatusUncovered
		case w.hit(r):
			status = plan.StatusCollateral
		}
		if x.Status != status {
			w.Errorf("%.80q is explained as %s, and is %s", x.Path, x.Status, status)
		}
	}
}

// note counts what is rare, to see that it is drawn.
func (w *trial) note(p *plan.Plan, n counts) {
	for _, it := range p.Items {
		n.note(it.Item.Kind.String(), true)
		n.note("unsure", it.Unsure)
		n.note("named", it.Reason.Code == plan.ReasonNamed)
		n.note("root object", it.Reason.Code == plan.ReasonRoot)
		n.note("directory beside its wildcard", it.Reason.Code == plan.ReasonDirectory)
		n.note("query", strings.Contains(it.Item.Text, "?"))
	}
	n.note("collateral", p.Totals.Collateral > 0)
	n.note("uncovered", len(p.Uncovered) > 0)
	n.note("over budget", !p.Feasible)
	for _, r := range w.rows {
		n.note("folded", r.Entry.Folded && r.Selected)
		n.note("partly named", r.some)
		n.note("in flight", r.InFlight)
		n.note("two spellings", !r.Entry.Folded && len(r.pages) > 1)
	}
	n.note(fmt.Sprintf("%d items", min(len(p.Items), 5)), true)
}
