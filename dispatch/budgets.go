// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"fmt"
	"slices"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/plan"
	"github.com/cf-invalidation-tracker/cftrack/selector"
)

// Planning returns what decides which items the request has.
func (r *Request) Planning() journal.Planning {
	if r.Plan != nil {
		return r.Plan.Options
	}
	p := journal.Planning{Exact: r.Exact, OnlySeen: r.OnlySeen, AssumeComplete: r.AssumeComplete, Batch: r.Batch,
		NativeTags: r.NativeTags, MaxItems: r.MaxItems, MaxWildcards: r.MaxWildcards}
	if r.MaxCollateral != nil {
		p.MaxCollateral = r.MaxCollateral.String()
	}
	return p
}

// setBudgets gives a plan the budgets of an invalidation.
func setBudgets(po *plan.Options, o journal.Options) error {
	po.NativeTags, po.MaxItems, po.MaxWildcards = o.NativeTags, o.MaxItems, o.MaxWildcards
	if o.MaxCollateral != "" {
		b, err := plan.ParseBudget(o.MaxCollateral)
		if err != nil {
			return err
		}
		po.MaxCollateral = &b
	}
	if o.MaxItems != nil && o.MaxPrice >= 0 {
		po.MaxPrice = &o.MaxPrice // it may well be the narrower cap
	}
	return nil
}

// goOn sees that a plan made after a part was sent keeps to the budgets together with
// that part: what was sent counts as named, and its collateral as used.
func (r *run) goOn(po *plan.Options) {
	if !r.inv.Options.Limited() || len(r.batches) == 0 {
		return
	}
	used := 0
	po.Named = slices.Clone(po.Named)
	for _, b := range r.batches {
		if b.State == journal.BatchRefused || b.FollowUp || b.Repeat {
			continue
		}
		used += b.Collateral
		for _, text := range b.Items {
			if it, err := cfpath.ParseItem(text); err == nil {
				po.Named = append(po.Named, it)
			}
		}
	}
	if po.MaxCollateral == nil {
		return
	}
	selected := 0
	if r.inv.Planned != nil {
		selected = r.inv.Planned.Selected
	}
	po.MaxCollateral = &plan.Budget{Entries: max(0, po.MaxCollateral.Of(selected)-used)}
}

// allow notes what the plan's items are planned to reach beside.
func (r *run) allow(p *Preview) {
	r.allowed = nil
	for i := range p.Items {
		it := &p.Items[i]
		if it.Collateral == 0 || it.Reason.Code == plan.ReasonNamed {
			continue
		}
		if r.allowed == nil {
			r.allowed = make(map[string]int)
		}
		r.allowed[it.Item.String()] = it.Collateral
	}
}

// OverBudget says why a plan may not be sent that was made with those options, empty
// if it keeps to them.
func (p *Preview) OverBudget(o journal.Planning) string {
	if p.Feasible || p.Review != nil || !o.Limited() {
		return ""
	}
	return fmt.Sprintf("no plan keeps to the budgets: the nearest has %d items, %d of them wildcards, and hits %d entries that nobody selected",
		p.Totals.Items, p.Totals.Wildcards, p.Totals.Collateral)
}

// overBudget says why an open invalidation goes no further, empty if it may.
func (r *run) overBudget(p *Preview) string {
	why := p.OverBudget(r.inv.Options.Planning)
	switch {
	case why == "":
		return ""
	case len(r.batches) > 0:
		return why + "; no more is sent"
	}
	return why + "; nothing was sent"
}

// WarnTwins is the code of the warning that entries are fetched beside what is
// selected, and stay.
const WarnTwins = "twins"

// lookForTwins has what templates say counted, unless the selector selects twins
// itself or has none that are known.
func (p *Preview) lookForTwins(s selector.Selector, templates []string) error {
	if len(templates) == 0 || len(s.Twins) > 0 || len(s.Regexps) > 0 || len(s.Patterns)+len(s.Prefixes) == 0 {
		return nil
	}
	s.Twins = templates
	var err error
	p.beside, err = s.Compile()
	return err
}

func (p *Preview) warnOfTwins() {
	if n := p.Twins.Count; n > 0 {
		are, stay := "entries such as %[2]s are", "stay as they are"
		if n == 1 {
			are, stay = "entry, %[2]s, is", "stays as it is"
		}
		p.Warnings = append(p.Warnings, plan.Warning{Code: WarnTwins, Message: fmt.Sprintf(
			"%[1]d "+are+" what else is fetched of the selected pages, and "+stay+"; --twins selects such too", n, p.Twins.First[0])})
	}
}
