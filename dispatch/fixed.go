// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/plan"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// A Review is what has become of a plan file: how the inventory of now differs
// from what the file says. A plan with Missed, Hit or Beyond is not sent.
type Review struct {
	Hash string    `json:"hash"`
	Made time.Time `json:"made"`
	// Sighted are selected entries that were sighted since the plan was made.
	// They hold nothing up.
	Sighted Sample `json:"sighted"`
	// Missed are selected entries that no item reaches and that the file does not
	// say to be uncovered.
	Missed Sample `json:"missed"`
	// Hit are entries that an item reaches, that are not selected, and that the
	// file does not name as collateral.
	Hit Sample `json:"hit"`
	// Beyond are items that nobody named and that reach further than the
	// inventory can answer for: coverage or scope is no longer what it was.
	Beyond Sample `json:"beyond"`
}

// A Sample is how many there are, and the first of them.
type Sample struct {
	Count int      `json:"count"`
	First []string `json:"first"`
}

const sampled = 20

func (s *Sample) add(text string) {
	s.Count++
	if len(s.First) < sampled {
		s.First = append(s.First, text)
	}
}

// Differs tells whether the plan must not be sent.
func (r *Review) Differs() bool { return r.Missed.Count+r.Hit.Count+r.Beyond.Count > 0 }

// String says in a sentence how the plan differs, empty if it does not.
func (r *Review) String() string {
	var parts []string
	for _, p := range []struct {
		s         Sample
		one, many string
	}{
		{r.Missed, "it misses 1 selected entry, %[2]s", "it misses %[1]d selected entries, such as %[2]s"},
		{r.Hit, "it also hits %[2]s", "it also hits %[1]d entries that nobody selected, such as %[2]s"},
		{r.Beyond, "it reaches with %[2]s beyond what the inventory can answer for", "it reaches with %[1]d items, such as %[2]s, beyond what the inventory can answer for"},
	} {
		switch {
		case p.s.Count == 1:
			parts = append(parts, fmt.Sprintf(p.one, 1, p.s.First[0]))
		case p.s.Count > 1:
			parts = append(parts, fmt.Sprintf(p.many, p.s.Count, p.s.First[0]))
		}
	}
	return strings.Join(parts, "; ")
}

// A binding is a fixed plan, ready to be compared with an inventory.
type binding struct {
	items []cfpath.Item
	exact map[string]int
	stems []boundStem // in byte order
	tags  map[string]int

	named      map[cfpath.Item]bool // what the user named
	allNamed   bool                 // and all of it is among the items
	collateral map[string]bool
	uncovered  map[string]bool
	beyond     map[string]bool // items of Review.Beyond
}

type boundStem struct {
	text   string
	item   int
	parent int // the longest other stem that this one begins with, or -1
}

func bind(f *journal.Fixed, c *selector.Compiled) (*binding, error) {
	b := &binding{exact: make(map[string]int), tags: make(map[string]int), named: make(map[cfpath.Item]bool),
		collateral: make(map[string]bool, len(f.Collateral)), uncovered: make(map[string]bool, len(f.Uncovered)), beyond: make(map[string]bool)}
	for i, text := range f.Items {
		it, err := cfpath.ParseItem(text)
		if err != nil {
			return nil, err
		}
		b.items = append(b.items, it)
		switch it.Kind {
		case cfpath.Path:
			b.exact[it.Text] = i
		case cfpath.Wildcard:
			b.stems = append(b.stems, boundStem{it.Text, i, -1})
		case cfpath.Tag:
			b.tags[strings.ToLower(it.Text)] = i
		}
	}
	slices.SortFunc(b.stems, func(x, y boundStem) int { return strings.Compare(x.text, y.text) })
	var open []int
	for i := range b.stems {
		for len(open) > 0 && !strings.HasPrefix(b.stems[i].text, b.stems[open[len(open)-1]].text) {
			open = open[:len(open)-1]
		}
		if len(open) > 0 {
			b.stems[i].parent = open[len(open)-1]
		}
		open = append(open, i)
	}
	b.allNamed = true
	for _, it := range c.Named() {
		b.named[it] = true
		_, covered := b.exact[it.Text]
		for i := b.below(it.Text); i >= 0 && (!covered || it.Kind == cfpath.Wildcard); i = b.stems[i].parent {
			if covered = b.items[b.stems[i].item].Covers(it); covered {
				break
			}
		}
		b.allNamed = b.allNamed && covered
	}
	for _, p := range f.Collateral {
		b.collateral[p] = true
	}
	for _, u := range f.Uncovered {
		b.uncovered[u.Item] = true
	}
	return b, nil
}

// below returns the last stem that is not after path and begins it, or -1.
func (b *binding) below(path string) int {
	i, found := slices.BinarySearchFunc(b.stems, path, func(s boundStem, p string) int { return strings.Compare(s.text, p) })
	if !found {
		i--
	}
	for i >= 0 && !strings.HasPrefix(path, b.stems[i].text) {
		i = b.stems[i].parent
	}
	return i
}

// reach calls f with each item that reaches the entry by AWS's wording, and
// returns whether the plan counts on one of them.
func (b *binding) reach(e *inventory.Entry, f func(item int)) (covered bool) {
	if i, ok := b.exact[e.Path]; ok && !e.Folded {
		f(i)
		covered = true
	}
	for i := b.below(e.Path); i >= 0; i = b.stems[i].parent {
		s := &b.stems[i]
		f(s.item)
		// "/dir/*" was seen to leave "/dir/" alone, and plans send that beside it:
		// https://github.com/pulumi/docs/pull/21786.
		spared := len(s.text) == len(e.Path) && len(e.Path) > 1 && strings.HasSuffix(e.Path, "/") && !e.Folded
		covered = covered || !spared
	}
	if len(b.tags) > 0 {
		for _, t := range e.Tags {
			if i, ok := b.tags[strings.ToLower(t)]; ok {
				f(i)
				covered = covered || !e.Mixed && !e.Folded
			}
		}
	}
	return covered
}

// lookedUp tells whether nobody typed the item.
func (b *binding) lookedUp(it cfpath.Item) bool { return !b.named[it] }

// review compares a fixed plan with the inventory of now. The preview has the
// items with what they reach now. skip tells of entries that are taken care of.
func (d *Dispatcher) review(ctx context.Context, s selector.Selector, o journal.Options, f *journal.Fixed, made *journal.FixedPlan,
	cut, now time.Time, skip func(*inventory.Entry) bool) (*Preview, *binding, error) {
	c, err := s.Compile()
	if err != nil {
		return nil, nil, err
	}
	b, err := bind(f, c)
	if err != nil {
		return nil, nil, err
	}
	p, k, err := d.preview(ctx, o, cut, now)
	if err != nil {
		return nil, nil, err
	}
	p.Review = &Review{Hash: made.Hash, Made: made.Cut, Sighted: Sample{First: []string{}}, Missed: Sample{First: []string{}},
		Hit: Sample{First: []string{}}, Beyond: Sample{First: []string{}}}
	if p.Coverage.Complete {
		n := 0
		skip = d.skipUnderWay(k.Batches, o.Margin+d.clock.Skew(), skip, &n)
	}
	p.Plan = &plan.Plan{Items: make([]plan.Item, len(b.items)), Uncovered: []plan.Uncovered{}, Warnings: []plan.Warning{}, Feasible: true}
	t := &p.Totals
	for i, it := range b.items {
		p.Items[i] = plan.Item{Item: it, Reason: plan.Reason{Code: plan.ReasonFixed}}
		if !b.lookedUp(it) {
			p.Items[i].Reason = plan.Reason{Code: plan.ReasonNamed, Text: "named, and sent as it was named"}
		}
	}
	price := plan.PriceModel{FreePaths: p.FreePaths}
	t.Send(p.Items, price, d.opts.Limits)
	p.FollowUps = likely(k.Invalidations, t.Items, plan.PriceModel{FreePaths: p.FreePaths - p.Sends()})

	folded := make(map[string]bool) // stems that a folded entry vouches for
	for e, err := range d.entries(ctx, now) {
		if err != nil {
			return nil, nil, err
		}
		selected := c.Selects(e, cut)
		t.Entries++
		if selected {
			t.Selected++
			if e.Last.After(p.Young) {
				p.Young = e.Last
			}
		}
		hit := false
		covered := b.reach(e, func(i int) {
			hit = true
			if selected {
				p.Items[i].Covers++
			} else {
				p.Items[i].Collateral++
			}
			if it := b.items[i]; e.Folded && it.Kind == cfpath.Wildcard && it.Text == e.Path {
				folded[e.Path] = true
			}
		})
		switch {
		case !selected && hit:
			t.Collateral++
			if !b.collateral[e.Path] {
				p.Review.Hit.add(e.Path)
			}
		case !selected:
		case covered || e.Folded && b.allNamed && c.Names(e):
			if e.Last.After(made.Cut) {
				p.Review.Sighted.add(e.Path)
			}
		case skip != nil && skip(e):
		case b.uncovered[e.Path]:
			t.Uncovered++
		default:
			p.Review.Missed.add(e.Path)
		}
	}
	for _, u := range f.Uncovered {
		p.Uncovered = append(p.Uncovered, plan.Uncovered{Path: u.Item, Reason: u.Reason, Remedy: u.Remedy})
	}
	p.Alternatives = t.Naive(price, d.opts.Limits)
	d.warnOfBudget(p)
	return p, b, d.beyond(p, b, o, folded)
}

// beyond finds the items that only a complete inventory could answer for.
func (d *Dispatcher) beyond(p *Preview, b *binding, o journal.Options, folded map[string]bool) error {
	scope := d.scope(p.Coverage)
	for _, it := range b.items {
		if it.Kind == cfpath.Path || !b.lookedUp(it) || folded[it.Text] {
			continue
		}
		inside := it.Kind == cfpath.Tag
		if !inside {
			var err error
			if inside, err = plan.InScope(scope, it.Text); err != nil {
				return err
			}
		}
		if !inside || !o.AssumeComplete && !p.Coverage.Complete {
			p.Review.Beyond.add(it.String())
			b.beyond[it.String()] = true
		}
	}
	return nil
}

// scope is where the recorders see what is requested.
func (d *Dispatcher) scope(c journal.Coverage) []string {
	if len(d.opts.Scope) > 0 {
		return d.opts.Scope
	}
	return c.Scope
}

// PlanFile returns the file of a plan that was made for a request, to be sent
// later by a Request with it.
func (d *Dispatcher) PlanFile(ctx context.Context, r Request, p *Preview) (*PlanFile, error) {
	o, err := r.options()
	if err != nil {
		return nil, err
	}
	f := &PlanFile{Version: PlanVersion, Distribution: d.journal.Distribution(), Cut: p.Cut, Selector: r.Selector,
		Options: o.Planning, Collateral: []string{}, Plan: p.Plan}
	if p.Totals.Collateral > 0 {
		if err := d.listCollateral(ctx, f); err != nil {
			return nil, err
		}
	}
	f.Hash = f.Sum()
	return f, nil
}

// listCollateral finds out by name what the plan reaches beside.
func (d *Dispatcher) listCollateral(ctx context.Context, f *PlanFile) error {
	c, err := f.Selector.Compile()
	if err != nil {
		return err
	}
	b, err := bind(f.fixed(), c)
	if err != nil {
		return err
	}
	now, err := d.now(ctx)
	if err != nil {
		return err
	}
	for e, err := range d.entries(ctx, now) {
		if err != nil {
			return err
		}
		hit := false
		b.reach(e, func(int) { hit = true })
		if hit && !c.Selects(e, f.Cut) {
			f.Collateral = append(f.Collateral, e.Path)
		}
	}
	return nil
}

// planOpen plans an open invalidation for sending: from the inventory as it is
// now, or by its plan file. skip tells of entries that are taken care of.
func (d *Dispatcher) planOpen(ctx context.Context, r *run, now time.Time, skip func(*inventory.Entry) bool) (*Preview, error) {
	inv := r.inv
	if inv.Fixed == nil {
		p, err := d.plan(ctx, inv.Selector, inv.Options, inv.Cut, now, skip, func(_ *Preview, po *plan.Options) error {
			r.goOn(po)
			return nil
		})
		if err == nil {
			r.allow(p)
		}
		return p, err
	}
	f, err := d.journal.Fixed(ctx, inv.Fixed)
	if err != nil {
		return nil, err
	}
	p, b, err := d.review(ctx, inv.Selector, inv.Options, f, inv.Fixed, inv.Cut, now, skip)
	r.bound = b
	return p, err
}

// keepToPlan sees that nothing is sent beyond the budgets or a plan file. Before the first batch a
// difference ends the invalidation. Later the items that by now reach further are
// left out and named; what is missed by now was sighted after the cut, or is
// reported by its recorder.
func (d *Dispatcher) keepToPlan(ctx context.Context, l *leader, r *run, p *Preview, now time.Time) error {
	if why := r.overBudget(p); why != "" {
		return d.stop(ctx, l, r, journal.CodeOverBudget, now, why)
	}
	if p.Review == nil || !p.Review.Differs() {
		return nil
	}
	if len(r.batches) == 0 {
		return d.stop(ctx, l, r, journal.CodePlanDiffers, now, "the plan no longer fits: "+p.Review.String()+"; nothing was sent")
	}
	refused := false
	for i := range p.Items {
		it := p.Items[i].Item
		if !r.bound.lookedUp(it) || it.Kind == cfpath.Path || r.refused(it.String()) || r.saved(it.String()) {
			continue
		}
		reason := "not sent: the inventory can no longer answer for all that it reaches"
		if !r.bound.beyond[it.String()] {
			clean, _, err := d.cleanBelow(ctx, r, it, now)
			if err != nil {
				return err
			}
			if clean {
				continue
			}
			reason = reachesMore
		}
		r.inv.Refused = append(r.inv.Refused, journal.Refusal{Item: it.String(), Reason: reason})
		refused = true
	}
	if refused {
		return l.lease.PutInvalidation(ctx, r.inv)
	}
	return nil
}

// reachesMore is why an item of a plan file is left out.
const reachesMore = "not sent: by now it reaches what nobody selected and the plan file does not name"

// refused tells whether an item or path is said not to be sent.
func (r *run) refused(item string) bool {
	return slices.ContainsFunc(r.inv.Refused, func(x journal.Refusal) bool { return x.Item == item })
}

// saved tells whether an item stands in a batch.
func (r *run) saved(item string) bool {
	return slices.ContainsFunc(r.batches, func(b *journal.Batch) bool { return slices.Contains(b.Items, item) })
}

// cleanBelow tells whether an item that nobody typed reaches nothing that is not
// selected, or that its plan file names, or no more of that than was planned; and whether
// it reaches anything.
func (d *Dispatcher) cleanBelow(ctx context.Context, r *run, it cfpath.Item, now time.Time) (clean, some bool, err error) {
	spare := r.allowed[it.String()]
	hit, some, err := d.hitBelow(ctx, r, it, spare, now)
	return hit <= spare, some, err
}

// hitBelow counts what an item reaches that is neither selected nor named by a plan
// file, and stops where that is more than most; some tells whether it reaches anything.
func (d *Dispatcher) hitBelow(ctx context.Context, r *run, it cfpath.Item, most int, now time.Time) (hit int, some bool, err error) {
	rg := store.Range{Now: now}
	if it.Kind == cfpath.Wildcard {
		rg.Prefix = it.Text
	}
	tag := map[string]bool{strings.ToLower(it.Text): true}
	for e, err := range d.journal.Store().Scan(ctx, d.journal.Distribution(), rg) {
		if err != nil {
			return 0, false, err
		}
		if it.Kind == cfpath.Tag && !anyTag(e.Tags, tag) {
			continue
		}
		some = true
		if r.sel.Selects(&e, r.inv.Cut) || r.bound != nil && r.bound.collateral[e.Path] {
			continue
		}
		if hit++; hit > most {
			break
		}
	}
	return hit, some, nil
}
