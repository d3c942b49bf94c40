// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/plan"
)

// shownItems is how many items of a plan are shown unless all are asked for.
const shownItems = 20

// A planText is a plan as people read it: no line is wider than the terminal.
type planText struct {
	page
	v       *dispatch.Preview
	options journal.Planning
	all     bool // show everything
}

// writePlan draws a plan for people.
func writePlan(w io.Writer, st style, id, selected string, o journal.Planning, v *dispatch.Preview, all bool) {
	p := planText{page{w, st}, v, o, all}
	p.line("%s", st.bold(st.cut(visible("Plan for "+id+": "+selected), st.width)))
	p.head()
	p.items()
	p.compared()
	p.frontier()
	p.explained()
	p.uncovered()
	for _, x := range v.Warnings {
		p.line("")
		p.block(9, st.warn("warning: "), visible(x.Message), nil)
	}
}

// head sums the plan up.
func (p *planText) head() {
	v, t := p.v, p.v.Totals
	if r := v.Review; r != nil {
		since := "nothing selected was"
		if n := r.Sighted.Count; n > 0 {
			since = count(n, "selected entry was", "selected entries were")
		}
		p.fact("from a file of %s; %s sighted since", instant(r.Made), since)
	}
	p.fact("%s of %s selected, %s", thousands(t.Selected), count(t.Entries, "entry", "entries"), itemCounts(t))
	if n := t.InFlight + v.Saved.Entries; n > 0 {
		less := ""
		if v.Saved.Items > 0 {
			less = fmt.Sprintf(", %s less", count(v.Saved.Items, "item", "items"))
			if v.Saved.Price > 0 {
				less += " and " + dollars(v.Saved.Price)
			}
		}
		p.fact("%s nothing: what removes %s is on its way%s", count(n, "entry more needs", "entries more need"), plural(n, "it", "them"), less)
	}
	if t.Items == 0 {
		return
	}
	twice := ""
	if v.Repeats {
		twice = ", all of it twice"
	}
	p.fact("at most %s%s, about %s until every edge has processed it, %s", dollars(v.Price()), twice, lasting(t.Seconds), alsoHits(t.Collateral))
	if f := v.FollowUps; f.Price > 0 {
		p.fact("%s likely to follow, for responses that are under way: %s", count(f.Items, "item is", "items are"), dollars(f.Price))
	}
	p.saving()
	p.budgets()
	switch b := v.Bound; {
	case b.Objective == "" || p.options.Exact:
	case !b.Optimal && b.Objective == plan.ObjectiveCollateral:
		p.fact("at most %s more than the least that can be", count(b.Gap, "other entry", "other entries"))
	case !b.Optimal:
		p.fact("at most %s more than the least that can be", count(b.Gap, "item", "items"))
	case v.Feasible && b.Objective == plan.ObjectiveCollateral:
		p.fact("proved least: no plan within the budgets hits fewer other entries")
	case v.Feasible && p.options.Limited():
		p.fact("proved least: no plan within the budgets has fewer items")
	case v.Feasible && t.Selected > 1 && p.alternative(plan.WithComplete) == nil:
		p.fact("proved least: no plan that hits nothing else has fewer items")
	}
	if v.FreePaths > 0 {
		p.faint("as far as the journal knows, %s free yet this month", count(v.FreePaths, "path is", "paths are"))
	}
}

// saving compares with what most tools do: every path by itself.
func (p *planText) saving() {
	naive, t := p.alternative(plan.EveryPath), p.v.Totals
	if naive == nil || naive.Items-t.Uncovered <= t.Items {
		return
	}
	s := fmt.Sprintf("saves %s", count(naive.Items-t.Uncovered-t.Items, "item", "items"))
	if less := naive.Price - t.Price; less > 0 {
		s += " and " + dollars(less)
	}
	s += " against every path by itself"
	if best := slices.MaxFunc(p.v.Items, func(a, b plan.Item) int { return cmp.Compare(a.Covers, b.Covers) }); t.Items > 1 && best.Covers > 1 {
		s += fmt.Sprintf(", most by %s, which covers %s", pieces(visible(best.Item.String()), p.style.width-20, 1)[0], thousands(best.Covers))
	}
	p.fact("%s", s)
}

// alternative returns the one of a name, or nil.
func (p *planText) alternative(name string) *plan.Alternative {
	for i := range p.v.Alternatives {
		if p.v.Alternatives[i].Name == name {
			return &p.v.Alternatives[i]
		}
	}
	return nil
}

// budgets says what of them is used.
func (p *planText) budgets() {
	if !p.options.Limited() {
		return
	}
	var used []string
	t := p.v.Totals
	if b, err := plan.ParseBudget(p.options.MaxCollateral); err == nil {
		most := thousands(b.Of(t.Selected))
		if b.Percent != 0 {
			most += " (" + b.String() + " of the selected)"
		}
		used = append(used, fmt.Sprintf("%s hit of at most %s", count(t.Collateral, "other entry", "other entries"), most))
	}
	if n := p.options.MaxItems; n != nil {
		used = append(used, fmt.Sprintf("%s of at most %s", count(t.Items, "item", "items"), thousands(*n)))
	}
	if n := p.options.MaxWildcards; n != nil {
		used = append(used, fmt.Sprintf("%s of at most %s", count(t.Wildcards, "wildcard", "wildcards"), thousands(*n)))
	}
	p.fact("budgets: %s", strings.Join(used, ", "))
	if !p.v.Feasible {
		p.block(2, "  ", "no plan keeps to them; this is the nearest, and invalidate will not send it", p.style.warn)
	}
}

// items shows what would be sent, what saves most first where not all fit.
func (p *planText) items() {
	items := p.v.Items
	if len(items) == 0 {
		return
	}
	more := 0
	if len(items) > shownItems+5 && !p.all {
		items = slices.Clone(items)
		slices.SortStableFunc(items, func(a, b plan.Item) int {
			return cmp.Or(cmp.Compare(b.Covers, a.Covers), cmp.Compare(b.Collateral, a.Collateral))
		})
		items, more = items[:shownItems], len(items)-shownItems
	}
	p.line("")
	covers, also := len("  covers"), len("also hits")
	for i := range items {
		covers, also = max(covers, len(thousands(items[i].Covers))), max(also, len(thousands(items[i].Collateral)))
	}
	format := fmt.Sprintf("%%%ds  %%%ds  %%-11s  ", covers, also)
	beforeItem := 2 + covers + 2 + also + 2 + 11 + 2
	indent := beforeItem
	head := fmt.Sprintf(format, "covers", "also hits", "why") + "item"
	if p.style.narrow() { // the item goes below the rest
		indent = 4
		head = strings.TrimRight(head[:len(head)-len("item")], " ")
	}
	p.line("  %s", p.style.faint(head))
	room := p.style.width - indent
	if p.style.wide() {
		room = min(room, 80)
	}
	longest := 0
	for i := range items {
		longest = max(longest, min(room, columns(items[i].Item.String())))
	}
	for i := range items {
		it := &items[i]
		hits := "-"
		if it.Collateral > 0 {
			hits = thousands(it.Collateral)
		}
		code := it.Reason.Code
		if code == plan.ReasonExact && it.Unsure {
			code = plan.ReasonDoubt
		}
		left := "  " + fmt.Sprintf(format, thousands(it.Covers), hits, why(code))
		name := pieces(visible(it.Item.String()), room, 4)
		sentence := visible(sentenceOf(it))
		if usual(code) && !p.style.wide() || code == plan.ReasonExact {
			sentence = ""
		}
		if beside := p.style.width - beforeItem - longest - 2; p.style.wide() && len(name) == 1 && columns(sentence) <= beside && sentence != "" {
			p.line("%s%s%s  %s", left, name[0], strings.Repeat(" ", longest-columns(name[0])), p.style.faint(sentence))
			continue
		}
		if p.style.narrow() {
			p.line("%s", strings.TrimRight(left, " "))
			left = strings.Repeat(" ", indent)
		}
		p.line("%s%s", left, name[0])
		for _, n := range name[1:] {
			p.line("%s%s", strings.Repeat(" ", indent), n)
		}
		if sentence != "" {
			p.block(indent, strings.Repeat(" ", indent), sentence, p.style.faint)
		}
	}
	if more > 0 {
		p.block(indent, strings.Repeat(" ", indent), "and "+thousands(more)+" more that cover less; -v shows all", p.style.faint)
	}
}

// why says in a word or two why an item is in a plan.
func why(code string) string {
	switch code {
	case plan.ReasonNamed:
		return "as named"
	case plan.ReasonExact:
		return "selected"
	case plan.ReasonBelow:
		return "all below"
	case plan.ReasonEverything:
		return "everything"
	case plan.ReasonDirectory:
		return "directory"
	case plan.ReasonFolded:
		return "folded"
	case plan.ReasonTrouble:
		return "no name"
	case plan.ReasonDoubt:
		return "in doubt"
	case plan.ReasonRoot:
		return "root object"
	case plan.ReasonBudget:
		return "budget"
	case plan.ReasonTag:
		return "tag"
	case plan.ReasonFixed:
		return "plan file"
	}
	return code
}

// sentenceOf is the reason of an item, where the item itself stands beside it.
func sentenceOf(it *plan.Item) string {
	switch it.Reason.Code {
	case plan.ReasonBelow:
		return "all " + count(it.Covers, "entry", "entries") + " below " + plural(it.Covers, "is", "are") + " selected"
	case plan.ReasonBudget:
		return fmt.Sprintf("%s of %s below are selected", thousands(it.Covers), count(it.Covers+it.Collateral, "entry", "entries"))
	}
	return it.Reason.Text
}

// usual tells of the reasons that need no sentence.
func usual(code string) bool {
	switch code {
	case plan.ReasonNamed, plan.ReasonExact, plan.ReasonBelow, plan.ReasonEverything, plan.ReasonBudget, plan.ReasonTag:
		return true
	}
	return false
}

// compared shows other ways to the same end.
func (p *planText) compared() {
	v, t := p.v, p.v.Totals
	if t.Selected == 0 {
		return
	}
	p.rowHead("compared")
	p.row("this plan", t.Items, t.Collateral, t.Price, t.Seconds)
	for _, a := range v.Alternatives {
		p.row(alternative(a.Name), a.Items, a.Collateral, a.Price, a.Seconds)
	}
}

func (p *planText) rowHead(name string) {
	p.line("")
	p.row5(p.style.faint, name, "items", "price", "time", "also hits")
}

func (p *planText) row(name string, items, also int, price, seconds float64) {
	p.row5(func(s string) string { return s }, name, thousands(items), dollars(price), lasting(seconds), thousands(also))
}

// row5 writes a row of a table; where that is too wide, over two lines.
func (p *planText) row5(paint func(string) string, name string, numbers ...any) {
	const format = "%10s  %9s  %7s  %10s"
	if p.style.narrow() {
		p.line("  %s", paint(name))
		p.line("  %s", paint(fmt.Sprintf(format, numbers...)))
		return
	}
	p.line("  %s", paint(fmt.Sprintf("%-22s  "+format, append([]any{name}, numbers...)...)))
}

func alternative(name string) string {
	switch name {
	case plan.EveryPath:
		return "every path by itself"
	case plan.Everything:
		return "everything, /*"
	case plan.WithComplete:
		return "with --assume-complete"
	case plan.CommonPrefix:
		return "longest common prefix"
	case plan.WholeDirectories:
		return "whole directories"
	}
	return name
}

// frontier shows what more or fewer items would hit.
func (p *planText) frontier() {
	if len(p.v.Frontier) == 0 {
		return
	}
	p.rowHead("least collateral with")
	all, shown := p.v.Frontier, 0
	for i, f := range all {
		// Not each of many, but where it gets much better.
		if i > 0 && i < len(all)-1 && len(all) > 12 && !p.all && 5*f.Collateral > 4*all[shown].Collateral {
			continue
		}
		shown = i
		p.row(count(f.Wildcards, "wildcard", "wildcards"), f.Items, f.Collateral, f.Price, f.Seconds)
	}
}

// explained says what becomes of the paths that were asked about.
func (p *planText) explained() {
	if len(p.v.Explanations) == 0 {
		return
	}
	p.line("")
	p.line("  %s", p.style.faint("asked about"))
	for _, e := range p.v.Explanations {
		for _, l := range pieces(visible(e.Path), p.style.width-2, 8) {
			p.line("  %s", l)
		}
		p.block(4, "    ", visible(strings.TrimPrefix(e.Sentence, e.Path+" ")), nil)
	}
}

// uncovered shows what is selected and not reached, and what would reach it.
func (p *planText) uncovered() {
	n := len(p.v.Uncovered)
	if n == 0 {
		return
	}
	p.line("")
	p.line("  %s", p.style.faint("not covered"))
	for i, u := range p.v.Uncovered {
		if i == shownItems && n > shownItems+5 && !p.all {
			p.line("  %s", p.style.faint("and "+thousands(n-i)+" more; -v shows all"))
			break
		}
		for _, l := range pieces(visible(u.Path), p.style.width-2, 4) {
			p.line("  %s", l)
		}
		p.block(4, "    ", visible(whyNot(u.Reason)), nil)
		if u.Remedy != "" {
			beside := "nothing else"
			if u.RemedyCollateral > 0 {
				beside = count(u.RemedyCollateral, "other entry", "other entries")
			}
			p.block(4, "    ", visible(u.Remedy+" would cover it, and hit "+beside), p.style.faint)
		}
	}
}

// whyNot says in a phrase why a path cannot be sent; what is no code is one already.
func whyNot(reason string) string {
	switch reason {
	case cfpath.ReasonTilde:
		return "CloudFront takes no '~'"
	case cfpath.ReasonTooLong:
		return "over 4,000 characters"
	case cfpath.ReasonTrailingStar:
		return "it ends in '*', which would be a wildcard"
	case cfpath.ReasonRefused:
		return "it has a character that CloudFront refuses"
	case plan.ReasonMaxWildcards:
		return "--max-wildcards leaves no wildcard for it"
	}
	return reason
}

func itemCounts(t plan.Totals) string {
	if t.Items == 0 {
		return "nothing to send"
	}
	s := count(t.Items, "item", "items") + ":"
	sep := " "
	for _, k := range []struct {
		n         int
		one, many string
	}{{t.Wildcards, "wildcard", "wildcards"}, {t.Paths, "path", "paths"}, {t.Tags, "tag", "tags"}} {
		if k.n > 0 {
			s += sep + count(k.n, k.one, k.many)
			sep = ", "
		}
	}
	return s
}

func alsoHits(n int) string {
	if n == 0 {
		return "nothing else hit"
	}
	return count(n, "other entry", "other entries") + " hit too"
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
