// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

// Compute plans for the inventory that in yields: all of it, in strict byte
// order of path. An error of in is returned as it is.
//
// With a percentage, a cap that has to be looked at twice, native tags or Compare,
// in is ranged over more than once. What the plan says holds for the inventory as
// the last pass that planned found it; a percentage is of what is selected then.
func Compute(in iter.Seq2[Input, error], opts Options) (*Plan, error) {
	scope, err := newScope(opts.Scope)
	if err != nil {
		return nil, err
	}
	if err := opts.check(); err != nil {
		return nil, err
	}
	page, err := cfpath.ParseRootObject(opts.RootObject)
	if err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	p := &planner{in: in, opts: opts, scope: scope, page: page, reach: maxIndex}
	return p.plan()
}

// pass reads the inventory once.
func (p *planner) pass(dp *frontiers) (*computation, error) {
	c := &computation{opts: &p.opts, named: newNamed(p.opts.Named, p.chosen), lower: exact, questions: ask(p.opts.Explain)}
	c.pending, c.root = c.questions, newRoot(p.page, p.opts.Doubtful)
	if dp != nil && !p.often {
		dp.keep, dp.sets.limit = 1024+int(dp.index)*int(dp.index), 1<<14
	}
	c.tree.init(p.scope, dp)
	c.tree.tags = p.tags
	if err := p.each(c.add); err != nil {
		return nil, err
	}
	c.tree.finish()
	return c, nil
}

// each calls add with all that is in the inventory, and sees that it is in order.
func (p *planner) each(add func(*Input)) error {
	last, first := "", true
	var next Input
	for input, err := range p.in {
		if err != nil {
			return err
		}
		if input.Entry == nil {
			return fmt.Errorf("plan: no entry after %q: give every input one", last)
		}
		path := input.Entry.Path
		if !first && path <= last {
			return fmt.Errorf("plan: %q came after %q: entries must come in byte order, each once", path, last)
		}
		next = input
		add(&next)
		last, first = path, false
	}
	return nil
}

// A computation is one pass that plans.
type computation struct {
	opts  *Options
	named *named
	tree  tree

	totals Totals
	// flat is the answer where no wildcards may be looked up: the tree then
	// only says what they would have saved.
	flat      []draft
	lower     int // no looked-up items within the budgets are better than this; or exact
	reached   int // collateral of what is named, and of what folded entries force
	extra     int // collateral of the tags that the plan chose
	lookups   int // selected entries that named items do not settle
	uncovered []*trouble

	root        *root    // nil if there is no default root object
	directories []string // named as "/dir/*", and perhaps sighted, as a folded entry has it
	unplanned   struct{ items, collateral int }

	selection struct{ first, last string }
	questions []question // in byte order, and of them those
	pending   []question // about paths that may yet come

	// The folded, selected entry that is open: what begins with its path is
	// reached by whatever covers it.
	atom     bool
	atomPath string
	flatAtom int // its item in flat, or -1
	// Itself, if there may be nothing that covers it: then what lies in it may go out by itself.
	alone   *trouble
	missing *trouble // the same, if it cannot be named, and not if only wildcards may be too few for it
}

func (c *computation) add(in *Input) {
	e := in.Entry
	c.totals.Entries++
	if len(c.pending) > 0 {
		c.note(in)
	}
	if in.Selected {
		if c.totals.Selected == 0 {
			c.selection.first = e.Path
		}
		c.selection.last = e.Path
		c.totals.Selected++
		if in.InFlight {
			c.totals.InFlight++
		}
	}
	hit := c.named.visit(in, c.opts.Doubtful)
	inAtom := c.atom && strings.HasPrefix(e.Path, c.atomPath)
	if c.named.extra && (!inAtom || c.missing != nil && !in.Selected) {
		c.extra++
	}
	if c.tree.tags != nil && hit == missed && (!in.Selected || in.partly()) && (!inAtom || c.missing != nil) {
		c.tree.tags.other(e)
	}
	if !in.Selected && (hit != missed || inAtom && c.missing == nil) {
		c.totals.Collateral++
	}
	if c.root != nil {
		c.root.note(in, hit != missed || inAtom && c.missing == nil)
	}
	if inAtom && c.alone == nil {
		c.inAtom(in, hit == reached || in.InFlight)
		return
	}
	// Whether what lies in a folded entry goes along with it is not known, or known not to be so.
	along := inAtom && c.missing == nil
	fresh := 1
	if hit != missed || along {
		fresh = 0
	}
	l := leaf{path: e.Path, folded: e.Folded}
	switch {
	case !in.Selected:
		if along && hit == missed {
			c.alone.inside++
		}
		c.tree.addOther(e.Path, e.Folded, 1, fresh)
		return
	case in.partly() && hit == missed:
		// Partly selected, and that part is cared for: no wildcard over the rest.
		c.directories = append(c.directories, c.named.directoriesIn(e.Path)...)
		switch {
		case inAtom:
			fresh = 0 // as a part of that it is selected
		case c.named.extra:
			c.totals.Collateral++
			fresh = 0
		}
		c.tree.addOther(e.Path, true, 0, fresh)
		return
	case hit == reached, in.InFlight:
		c.tree.addCovered(e.Path)
		return
	case hit == spared:
		// The wildcard reaches all that a folded entry stands for but the directory itself.
		l.folded, l.spared = false, true
	}
	c.lookups++
	l.judge(c.opts.Doubtful)
	if inAtom && (l.trouble != nil || along && l.folded) { // it has no other way either
		c.alone.entries++
		c.tree.addCovered(e.Path)
		return
	}
	if c.tree.tags != nil {
		if l.sig = c.tree.tags.signature(e); l.trouble != nil {
			l.trouble.sig = l.sig
		}
	}
	maybe := c.tree.exact && l.folded && l.trouble == nil // wildcards may be too few for it
	if maybe {
		l.trouble = &trouble{path: l.path, reason: ReasonMaxWildcards, entries: 1, stem: len(l.path)}
	}
	c.tree.add(&l)
	if l.folded || !inAtom {
		c.atom, c.atomPath, c.flatAtom, c.alone, c.missing = l.folded, e.Path, -1, l.trouble, l.trouble
	}
	if maybe {
		l.trouble, c.missing = nil, nil
	}
	if c.opts.flat() {
		c.addFlat(&l)
	}
}

// inAtom takes an entry that goes along with the folded one it lies in.
func (c *computation) inAtom(in *Input, settled bool) {
	top := c.tree.top()
	if !in.Selected {
		top.unselected++
		top.sum.collateral++
		if c.flatAtom >= 0 {
			c.flat[c.flatAtom].collateral++
		}
		return
	}
	top.sum.covers++
	sure := len(c.atomPath)
	if !settled {
		l := leaf{path: in.Entry.Path, folded: in.Entry.Folded}
		l.judge(c.opts.Doubtful)
		sure = min(sure, l.sure)
		top.sum.sure = min(top.sum.sure, l.sure)
	}
	if c.flatAtom >= 0 {
		it := &c.flat[c.flatAtom]
		it.covers++
		it.unsure = it.unsure || sure < len(c.atomPath)
	}
}

func (c *computation) addFlat(l *leaf) {
	switch {
	case l.trouble != nil:
		c.uncovered = append(c.uncovered, l.trouble)
	case l.folded:
		c.flatAtom = len(c.flat)
		why := foldedReason(l.path)
		c.flat = append(c.flat, draft{text: l.path, wildcard: true, covers: 1, why: &why, unsure: l.sure < len(l.path)})
		if l.directory() {
			c.flat = append(c.flat, exactItem(l, ReasonDirectory))
		}
	default:
		c.flat = append(c.flat, exactItem(l, l.reason()))
	}
}

// exact says that there is nothing better than what was found.
const exact = -1

// plan puts the answer together.
func (c *computation) plan(chosen point) *Plan {
	c.reached = c.totals.Collateral
	found := c.flat
	var tags []Item
	if !c.opts.flat() {
		found, tags = c.answer(chosen), c.named.chosen()
	}
	p := &Plan{Totals: c.totals, Items: c.named.items(c.opts.OnlySeen), Uncovered: []Uncovered{}, Warnings: []Warning{}}
	names := len(p.Items)
	p.Items = slices.Grow(p.Items, len(found)+len(tags)) // which may be many
	for i := range found {
		p.Items = append(p.Items, found[i].item())
	}
	p.Items = append(p.Items, tags...)
	c.addUnplanned(p)
	slices.SortFunc(p.Items[names:], func(a, b Item) int { return compareAsSent(&a.Item, &b.Item) })
	slices.SortFunc(c.uncovered, func(a, b *trouble) int { return strings.Compare(a.path, b.path) })
	for _, t := range c.uncovered {
		u := Uncovered{Path: t.path, Reason: t.reason}
		if t.stem > 0 {
			u.Remedy, u.RemedyCollateral = t.path[:t.stem]+"*", t.collateral
		}
		p.Uncovered = append(p.Uncovered, u)
		p.Totals.Uncovered += t.entries
		p.Totals.Collateral -= t.inside
	}

	t := &p.Totals
	t.Send(p.Items, c.opts.Price, c.opts.Limits)

	alternative := func(name string, others, wildcards, collateral int) {
		p.Alternatives = append(p.Alternatives, alternative(name, others, wildcards, collateral, c.opts.Price, c.opts.Limits))
	}
	p.Alternatives = t.Naive(c.opts.Price, c.opts.Limits)
	if !c.opts.Exact && !c.opts.Wildcards {
		wildcards := 0
		for i := range p.Items[:names] {
			if p.Items[i].wildcard() {
				wildcards++
			}
		}
		for i := range c.tree.items {
			if c.tree.items[i].wildcard {
				wildcards++
			}
		}
		others := names + len(c.tree.items) - wildcards
		if others+wildcards < t.Items {
			alternative(WithComplete, others, wildcards, t.Collateral)
		}
	}
	p.Feasible, p.Bound = true, Bound{Objective: ObjectiveItems, Lower: t.Items, Value: t.Items, Optimal: true}
	return p
}

// compareAsSent orders items by what is sent, without making that of each.
func compareAsSent(a, b *cfpath.Item) int {
	if a.Kind == cfpath.Tag || b.Kind == cfpath.Tag {
		return strings.Compare(a.String(), b.String())
	}
	n := min(len(a.Text), len(b.Text))
	if c := strings.Compare(a.Text[:n], b.Text[:n]); c != 0 {
		return c
	}
	end := func(it *cfpath.Item) int { // the byte after what they have in common; 0 if there is none
		switch {
		case len(it.Text) > n:
			return int(it.Text[n])
		case it.Kind == cfpath.Wildcard:
			return '*'
		}
		return 0
	}
	return cmp.Or(cmp.Compare(end(a), end(b)), cmp.Compare(len(a.Text), len(b.Text)))
}

// addUnplanned adds what has to go out beside the planned items.
func (c *computation) addUnplanned(p *Plan) {
	planned := len(p.Items)
	if len(c.directories) > 0 {
		have := ReachOf(p.Items)
		for _, dir := range c.directories {
			if l := (leaf{path: dir}); !have.holds(dir, true) {
				l.judge(c.opts.Doubtful)
				it := exactItem(&l, ReasonDirectory)
				it.covers = 0
				p.Items = append(p.Items, it.item())
			}
		}
	}
	if c.root != nil {
		c.root.beside(p.Items)
		p.Items = append(p.Items, c.root.items...)
		c.unplanned.collateral = c.root.collateral
		p.Totals.Collateral += c.root.collateral
	}
	c.unplanned.items = len(p.Items) - planned
}

// onlyNamed tells whether everything selected goes out as wildcards or tags that were
// named, so that the plan does not rest on the inventory.
func (c *computation) onlyNamed() bool {
	return len(c.opts.Named) > 0 && len(c.named.exact) == 0 && c.lookups == 0
}
