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

// A planner makes the passes that a plan takes.
type planner struct {
	in    iter.Seq2[Input, error]
	opts  Options
	scope scope
	page  cfpath.RootObject

	tags   *tags         // that a pass is to fill
	chosen []cfpath.Item // tags to send
	often  bool          // forget at every chance what nobody needs, for tests
	reach  int           // the greatest budget that is planned for exactly
}

func (p *planner) plan() (*Plan, error) {
	selected := 0
	if b := p.opts.MaxCollateral; b != nil && b.Percent > 0 && !p.opts.flat() {
		if err := p.each(func(in *Input) {
			if in.Selected {
				selected++
			}
		}); err != nil {
			return nil, err
		}
	}
	c, plan, err := p.best(p.opts.budgets(selected))
	if err != nil {
		return nil, err
	}
	c.warn(plan)
	c.explain(plan)
	if p.opts.Compare {
		if err := p.compare(c, plan); err != nil {
			return nil, err
		}
	}
	return plan, nil
}

// best is the best plan of those with the native tags that are worth trying.
func (p *planner) best(b budgets) (*computation, *Plan, error) {
	if !p.opts.NativeTags || p.opts.flat() {
		return p.planned(b)
	}
	known, look, err := p.look(nil)
	if err != nil {
		return nil, nil, err
	}
	free := known.cover(&look.tree, func(t *tag) bool { return t.collateral == 0 })
	list, lower := free.solve()
	choices := [][]cfpath.Item{nil}
	choose := func(g *tags, list []int32) {
		if len(list) > 0 {
			choices = append(choices, g.items(list))
		}
	}
	choose(known, list)
	useful := len(free.needs) > 0
	if b.collateral > 0 {
		paid := known.cover(&look.tree, func(t *tag) bool { return t.collateral <= b.collateral })
		greedy := paid.search().greedy(func(id int32) int { return known.known[id].collateral }, b.collateral, none)
		choose(known, greedy)
		if len(greedy) > b.items {
			choose(known, greedy[:b.items])
		}
		useful, lower = len(paid.needs) > 0, min(1, paid.must+len(paid.needs))
	}
	if b.wildcards < none && len(known.sigs) > 0 {
		// Tags may do what wildcards are too few for.
		alone, look, err := p.look(&frontiers{other: 1<<uncoveredShift - 1, capped: true})
		if err != nil {
			return nil, nil, err
		}
		list, least := alone.cover(&look.tree, func(t *tag) bool { return t.collateral == 0 }).solve()
		choose(alone, list)
		if useful = true; b.wildcards <= 0 && b.collateral == 0 {
			lower = least
		}
	}
	var best *Plan
	var by *computation
	for _, items := range choices {
		p.chosen = items
		c, plan, err := p.planned(b)
		if err != nil {
			return nil, nil, err
		}
		if best == nil || better(plan, best) {
			by, best = c, plan
		}
	}
	if useful {
		if best.Bound.Objective == ObjectiveCollateral {
			lower = by.reached - by.extra
		} else {
			lower += len(by.named.items(p.opts.OnlySeen))
		}
		best.Bound.atLeast(lower)
	}
	if known.full {
		best.Warnings = append(best.Warnings, Warning{WarnTags, "there are too many distinct tags to look all of them up: name those that are worth an item as '#tag'"})
	}
	return by, best, nil
}

// look is a pass that learns of tags.
func (p *planner) look(d *frontiers) (*tags, *computation, error) {
	p.tags, p.chosen = newTags(), nil
	c, err := p.pass(d)
	g := p.tags
	p.tags = nil
	return g, c, err
}

// atLeast says that a plan may be as good as this, and not better.
func (b *Bound) atLeast(lower int) {
	b.Lower = max(0, min(lower, b.Value))
	b.Gap = b.Value - b.Lower
	b.Optimal = b.Gap == 0
}

// better tells which plan to prefer.
func better(a, b *Plan) bool {
	x, y := &a.Totals, &b.Totals
	if x.Uncovered == y.Uncovered && a.Feasible != b.Feasible {
		return a.Feasible
	}
	order := cmp.Or(cmp.Compare(x.Items, y.Items), cmp.Compare(x.Collateral, y.Collateral))
	if a.Bound.Objective == ObjectiveCollateral {
		order = cmp.Or(cmp.Compare(x.Collateral, y.Collateral), cmp.Compare(x.Items, y.Items))
	}
	return cmp.Or(cmp.Compare(x.Uncovered, y.Uncovered), order, cmp.Compare(x.Wildcards, y.Wildcards)) < 0
}

// planned is the plan with the tags that are chosen.
func (p *planner) planned(b budgets) (*computation, *Plan, error) {
	c, best, err := p.solve(b)
	if err != nil {
		return nil, nil, err
	}
	plan := c.plan(best)
	p.judge(c, plan)
	return c, plan, nil
}

// solve finds the best plan within the budgets or, if there is none, the one of
// the fewest items within the others.
func (p *planner) solve(b budgets) (*computation, point, error) {
	if p.opts.flat() {
		c, err := p.pass(nil)
		return c, point{}, err
	}
	if b.items < none {
		b.items -= len(p.chosen)
	}
	if !p.opts.OnlySeen { // what is seen is known only at the end
		b = b.without(newNamed(p.opts.Named, nil).items(false))
	}
	c, best, ok, err := p.within(b)
	if err != nil || ok && c.uncoveredBy(best) == 0 || b.items == none {
		return c, best, err
	}
	// Either there is no such plan, or one of more items may leave less uncovered.
	b.items = none
	free, least, _, err := p.within(b)
	if err != nil || !ok || free.uncoveredBy(least) < c.uncoveredBy(best) {
		return free, least, err
	}
	return c, best, nil
}

// within finds the best plan within the budgets, and whether there is one.
func (p *planner) within(b budgets) (c *computation, best point, ok bool, err error) {
	run := func(d *frontiers) error {
		if c, err = p.pass(d); err == nil {
			best, ok = c.choose(p.opts.budgets(c.totals.Selected), b.items == none)
		}
		return err
	}
	for _, capped := range []bool{false, true} {
		if d, exact := b.exactly(p.reach, capped); exact {
			if err := run(d); err != nil || ok || b.wildcards == none {
				return c, best, ok, err
			}
			if capped {
				return c, best, ok, nil
			}
		}
	}
	if err := run(b.nearly()); err != nil || ok || b.wildcards == none {
		return c, best, ok, err
	}
	// With a cap on wildcards that makes it too much: either no collateral, or no more
	// items than may be wildcards.
	lower := c.lower
	few := b
	few.items = min(b.items, max(0, b.wildcards))
	for _, b := range []budgets{{b.items, b.wildcards, 0}, few} {
		if d, exact := b.exactly(p.reach, b.collateral == 0); exact && !ok {
			err = run(d)
			if c.lower = lower; err != nil {
				return nil, best, false, err
			}
		}
	}
	return c, best, ok, err
}

// uncoveredBy is how many entries a plan leaves uncovered; a folded one counts as one.
func (c *computation) uncoveredBy(p point) int {
	if c.tree.dp == nil {
		return len(c.tree.uncovered)
	}
	return c.tree.dp.cost(&p).uncovered
}

// choose picks the best point within the budgets. With anyhow, items are not capped.
func (c *computation) choose(b budgets, anyhow bool) (point, bool) {
	b = b.without(c.named.items(c.opts.OnlySeen)).without(c.named.chosen())
	if b.collateral < none {
		b.collateral -= c.extra
	}
	if anyhow {
		b.items = none
	}
	d := c.tree.dp
	if d == nil {
		wildcards := 0
		for i := range c.tree.items {
			if c.tree.items[i].wildcard {
				wildcards++
			}
		}
		return point{}, (b.items == none || len(c.tree.items) <= b.items) && wildcards <= max(0, b.wildcards)
	}
	type choice struct {
		point
		cost
	}
	var all []choice
	f := c.tree.stack[0].front
	if f == nil {
		return point{}, true // nothing to cover
	}
	if d.hulls {
		objective := c.opts.objective()
		if b.collateral < none || anyhow {
			objective = ObjectiveItems
		}
		p, lower, ok := d.chooseHull(f, b, objective)
		c.lower = lower
		return p, ok && d.cost(&p).wildcards <= max(0, b.wildcards)
	}
	points := f.points
	if points == nil && !f.dead {
		points = []point{{}}
	}
	for _, q := range points {
		q.add(&f.base)
		q.set = d.sets.join(f.base.set, q.set)
		if k := d.cost(&q); k.collateral <= b.collateral {
			all = append(all, choice{q, k})
		}
	}
	all = slices.DeleteFunc(all, func(o choice) bool { return b.items < none && o.items > b.items })
	if len(all) == 0 {
		return point{}, false
	}
	first := c.opts.objective() == ObjectiveCollateral && !anyhow
	best := slices.MinFunc(all, func(a, b choice) int {
		order := cmp.Or(cmp.Compare(a.items, b.items), cmp.Compare(a.collateral, b.collateral))
		if first {
			order = cmp.Or(cmp.Compare(a.collateral, b.collateral), cmp.Compare(a.items, b.items))
		}
		return cmp.Or(cmp.Compare(a.uncovered, b.uncovered), order, cmp.Compare(a.tie, b.tie))
	})
	// Where wildcards are not capped all along, only the best is known to be the best.
	return best.point, best.wildcards <= max(0, b.wildcards)
}

// answer is what a point stands for: the items, while what it leaves uncovered goes
// to c.uncovered, and what it reaches to the totals.
func (c *computation) answer(chosen point) []draft {
	t := &c.tree
	if chosen.set == 0 {
		c.uncovered = t.uncovered
		return t.items
	}
	d := t.dp
	found := t.items[:0] // whatever is left stands where it stood, or before
	d.under(chosen.set, t.items, func(k int, w *wild) {
		if w == nil {
			found = append(found, t.items[k])
		}
	})
	members := d.members(chosen.set)
	for _, tr := range t.uncovered {
		i, exact := slices.BinarySearchFunc(members, tr.path, func(w *wild, p string) int { return strings.Compare(w.stem(), p) })
		if !exact && (i == 0 || !strings.HasPrefix(tr.path, members[i-1].stem())) {
			c.uncovered = append(c.uncovered, tr)
		}
	}
	for _, w := range members {
		c.totals.Collateral += w.fresh
		found = append(found, w.item())
		if w.directory {
			found = append(found, exactItem(&leaf{path: w.stem()}, ReasonDirectory))
		}
	}
	return found
}

func (w *wild) item() draft {
	if w.fresh == 0 && (w.collateral == 0 || w.lone != nil && w.lone.folded) {
		g := group{path: w.path, covers: w.covers, collateral: w.collateral, need: 2, sure: w.n}
		if w.lone != nil {
			if g.need, g.one = 1, *w.lone; g.one.trouble != nil && g.one.trouble.reason == ReasonMaxWildcards {
				g.one.trouble = nil // now it is no trouble
			}
		}
		it := wildcardItem(&g, w.n)
		it.unsure = w.unsure
		return it
	}
	return draft{
		text: w.stem(), wildcard: true, covers: clamp(w.covers), collateral: clamp(w.collateral), unsure: w.unsure,
		why: &Reason{ReasonBudget, fmt.Sprintf("%d of %d entries under %s are selected, and the budgets allow the rest",
			w.covers, w.covers+w.collateral, w.stem())},
	}
}

// judge says whether the plan is within the budgets, and how good it is.
func (p *planner) judge(c *computation, plan *Plan) {
	t := &plan.Totals
	b := p.opts.budgets(t.Selected)
	plan.Feasible = t.Items <= b.items && t.Wildcards <= b.wildcards
	plan.Bound = Bound{Objective: p.opts.objective(), Optimal: true, Value: t.Items}
	if !plan.Feasible {
		plan.Bound.Objective = ObjectiveItems
	}
	if plan.Bound.Objective == ObjectiveCollateral {
		plan.Bound.Value = t.Collateral
	}
	lower := plan.Bound.Value
	if c.lower != exact {
		if lower = c.lower + len(c.named.items(p.opts.OnlySeen)); plan.Bound.Objective == ObjectiveCollateral {
			lower = c.lower + c.reached
		}
	}
	if plan.Bound.Objective == ObjectiveCollateral {
		lower = min(lower, plan.Bound.Value-c.unplanned.collateral)
	} else {
		lower = min(lower, plan.Bound.Value-c.unplanned.items)
	}
	plan.Bound.atLeast(lower)
	if d := c.tree.dp; d != nil && c.tree.nameless && (d.hulls || d.measure == leastCollateral && b.collateral < none) {
		plan.Bound.Optimal = false // more might be covered
	}
}
