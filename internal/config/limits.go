// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"math"
	"strconv"

	"github.com/goccy/go-yaml/ast"

	"github.com/cf-invalidation-tracker/cftrack/plan"
)

// LimitsOf returns the limits for a distribution, which may be nil: what it says
// counts before what the file says for all.
func (f *File) LimitsOf(d *Distribution) plan.Limits {
	all := f.Limits
	if d == nil {
		return all
	}
	own := d.Limits
	return plan.Limits{
		ItemsPerSecond:      cmp.Or(own.ItemsPerSecond, all.ItemsPerSecond),
		WildcardsPerSecond:  cmp.Or(own.WildcardsPerSecond, all.WildcardsPerSecond),
		CallsPerSecond:      cmp.Or(own.CallsPerSecond, all.CallsPerSecond),
		Burst:               cmp.Or(own.Burst, all.Burst),
		CompletionSeconds:   cmp.Or(own.CompletionSeconds, all.CompletionSeconds),
		ItemsInProgress:     cmp.Or(own.ItemsInProgress, all.ItemsInProgress),
		WildcardsInProgress: cmp.Or(own.WildcardsInProgress, all.WildcardsInProgress),
	}
}

// BudgetOf returns the budget of the account that a distribution belongs to: the
// least that any distribution of it states. nil: there is none.
func (f *File) BudgetOf(d *Distribution) *float64 {
	var least *float64
	if d == nil {
		return nil
	}
	for i := range f.Distributions {
		if x := &f.Distributions[i]; x.Account == d.Account && x.Budget != nil && (least == nil || *x.Budget < *least) {
			least = x.Budget
		}
	}
	return least
}

// limits reads what CloudFront accepts.
func (d *decoder) limits(n ast.Node) plan.Limits {
	var l plan.Limits
	number := func(e entry, v *float64) {
		t, ok := d.text(e.value, e.name)
		if !ok {
			return
		}
		x, err := strconv.ParseFloat(t.text, 64)
		if err != nil || !(x > 0) || math.IsInf(x, 0) {
			d.fail(e.value, "write a number over 0", "%q is no value of %s", t.text, e.name)
			return
		}
		*v = x
	}
	count := func(e entry, v *int) {
		t, ok := d.text(e.value, e.name)
		if !ok {
			return
		}
		if t.text == "none" {
			*v = -1
			return
		}
		x, err := strconv.Atoi(t.text)
		if err != nil || x < 1 {
			d.fail(e.value, "write how many, or none where there is no limit", "%q is no value of %s", t.text, e.name)
			return
		}
		*v = x
	}
	for _, e := range d.entries(n, "limits") {
		switch e.name {
		case "items-per-second":
			number(e, &l.ItemsPerSecond)
		case "wildcards-per-second":
			number(e, &l.WildcardsPerSecond)
		case "calls-per-second":
			number(e, &l.CallsPerSecond)
		case "burst":
			number(e, &l.Burst)
		case "completion-seconds":
			number(e, &l.CompletionSeconds)
		case "items-in-progress":
			count(e, &l.ItemsInProgress)
		case "wildcards-in-progress":
			count(e, &l.WildcardsInProgress)
		default:
			d.fail(e.key, "limits are items-per-second, wildcards-per-second, calls-per-second, burst, items-in-progress, "+
				"wildcards-in-progress and completion-seconds", "unknown limit %q", e.name)
		}
	}
	return l
}

// agree checks that distributions of one account state the same rates: they share them.
func (d *decoder) agree(f *File) {
	first := make(map[string]*Distribution)
	for i := range f.Distributions {
		x := &f.Distributions[i]
		other, again := first[x.Account]
		if !again {
			first[x.Account] = x
			continue
		}
		a, b := f.LimitsOf(other), f.LimitsOf(x)
		if a.ItemsPerSecond != b.ItemsPerSecond || a.WildcardsPerSecond != b.WildcardsPerSecond ||
			a.CallsPerSecond != b.CallsPerSecond || a.Burst != b.Burst {
			d.problems = append(d.problems, Problem{x.At.String(), "its rates are not those of " + other.ID + ", and both share one account",
				"write rates under limits at the top, or name the account of each"})
		}
	}
}
