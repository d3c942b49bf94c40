// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"strings"
)

// slow is from how many seconds on a plan's time is worth a warning.
const slow = 300

func (c *computation) warn(p *Plan) {
	add := func(code, format string, args ...any) {
		p.Warnings = append(p.Warnings, Warning{code, fmt.Sprintf(format, args...)})
	}
	t := &p.Totals
	if t.Selected == 0 && t.Items == 0 {
		add(WarnNothing, "nothing that is tracked is selected, so there is nothing to send; "+
			"check the spelling with 'cftrack list', or name the path or prefix itself")
	}

	var unseen, collateral, unsure examples
	for i := range c.named.all {
		it := &c.named.all[i]
		if !it.seen && !c.opts.OnlySeen && !c.root.sighted(it.Item.Item) {
			unseen.add(it.Item.Item.String())
		}
	}
	for i := range p.Items {
		if p.Items[i].Collateral > 0 {
			collateral.add(p.Items[i].Item.String())
		}
		if p.Items[i].Unsure {
			unsure.add(p.Items[i].Item.String())
		}
	}
	if unseen.n > 0 {
		add(WarnNotSighted, "nothing recorded matches %s; sent as named; --only-seen leaves such items out", &unseen)
	}
	if !c.opts.Wildcards && !c.onlyNamed() {
		saved := ""
		if a := p.Alternatives[len(p.Alternatives)-1]; a.Name == WithComplete {
			saved = fmt.Sprintf(", and %d items are sent where %d would do", t.Items, a.Items)
		}
		add(WarnIncomplete, "the inventory is not known to be complete: what CloudFront cached unseen is not selected%s; "+
			"'cftrack coverage' says what is missing, a completed '/*' makes up for it, "+
			"and --assume-complete plans as if nothing were missing", saved)
	}
	if len(p.Uncovered) > 0 {
		var paths, remedies examples
		for _, u := range p.Uncovered {
			paths.add(u.Path)
			if u.Remedy != "" {
				remedies.add(u.Remedy)
			}
		}
		remedy := "nothing but their end of life removes them"
		if remedies.n > 0 {
			remedy = fmt.Sprintf("to cover them name %s, or a tag", &remedies)
		}
		add(WarnUncovered, "no item of the plan can reach %s; %s", &paths, remedy)
	}
	if unsure.n > 0 {
		add(WarnDoubt, "AWS does not confirm that %s reaches all it should, because of its spelling; "+
			"verify what is served, or name a wildcard that ends before the doubt", &unsure)
	}
	if collateral.n > 0 {
		add(WarnCollateral, "%d entries that are not selected are reached too, by %s", t.Collateral, &collateral)
	}
	if !p.Feasible {
		add(WarnOverBudget, "%s; this plan needs the fewest items within the other budgets: allow more, or %s", c.over(p), c.relief())
	}
	if b := p.Bound; !b.Optimal && (c.lower != exact || c.unplanned.items == 0) {
		add(WarnBound, "budgets as great as these are not planned for exactly: this plan has %d %s, and none has fewer than %d", b.Value, b.Objective, b.Lower)
	}
	if t.Seconds > slow {
		add(WarnSlow, "sending takes about %.0f s at the documented rates (%d paths and tags, %d wildcards); "+
			"a wider wildcard or a tag is faster", t.Seconds, t.Paths+t.Tags, t.Wildcards)
	}
}

// over says which budgets a plan does not keep to.
func (c *computation) over(p *Plan) string {
	var said []string
	t, o := &p.Totals, c.opts
	if o.MaxItems != nil && t.Items > *o.MaxItems {
		said = append(said, fmt.Sprintf("%d items are over --max-items %d", t.Items, *o.MaxItems))
	}
	if o.MaxPrice != nil && t.Items > o.Price.Items(*o.MaxPrice) {
		said = append(said, fmt.Sprintf("$%.3f is over --max-price %.3f", t.Price, *o.MaxPrice))
	}
	if o.MaxWildcards != nil && t.Wildcards > *o.MaxWildcards {
		said = append(said, fmt.Sprintf("%d wildcards are over --max-wildcards %d", t.Wildcards, *o.MaxWildcards))
	}
	return strings.Join(said, ", ")
}

// relief says what would make a plan fit its budgets, other than greater ones.
func (c *computation) relief() string {
	switch {
	case c.opts.Exact:
		return "leave out --exact, which sends every path by itself"
	case !c.opts.Wildcards:
		return "make the coverage complete, so that wildcards can be used"
	case c.opts.MaxCollateral != nil || c.opts.MaxItems == nil:
		return "allow more collateral"
	}
	return "name wider wildcards"
}

// examples names the first of many.
type examples struct {
	n     int
	first []string
}

func (e *examples) add(s string) {
	const most, longest = 3, 120
	e.n++
	if len(e.first) == most {
		return
	}
	if len(s) > longest {
		s = s[:longest] + "..."
	}
	e.first = append(e.first, s)
}

func (e *examples) String() string {
	s := strings.Join(e.first, ", ")
	if more := e.n - len(e.first); more > 0 {
		s += fmt.Sprintf(" and %d more", more)
	}
	return s
}
