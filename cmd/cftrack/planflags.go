// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/internal/config"
	"github.com/cf-invalidation-tracker/cftrack/plan"
	"github.com/cf-invalidation-tracker/cftrack/selector"
)

// defaultMaxPrice is the price over which nothing is sent unasked.
const defaultMaxPrice = 20

// maxBatch is how many items CloudFront takes in a request.
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cloudfront-limits.html
const maxBatch = 3000

// planFlags are the flags of what plans: a SELECTOR and how to cover it.
type planFlags struct {
	selectorFlags
	assumeComplete, onlySeen, exact, verbose bool
	batch, freePaths, entriesPerMinute       int
	maxPrice                                 money
	nativeTags, compare                      bool
	maxCollateral                            budgetFlag
	maxItems, maxWildcards                   atMost
	explain                                  []string
	rootObject                               string
	repeatAfter                              config.Duration
}

func (p *planFlags) add(cmd *cobra.Command) {
	p.selectorFlags.add(cmd)
	p.maxPrice = defaultMaxPrice
	f := cmd.Flags()
	f.BoolVar(&p.assumeComplete, "assume-complete", false, "use wildcards as if the inventory were known to be complete")
	f.BoolVar(&p.onlySeen, "only-seen", false, "leave out what was named but never recorded")
	f.BoolVar(&p.exact, "exact", false, "every selected path by itself, no wildcards")
	f.IntVar(&p.batch, "batch", dispatch.DefaultBatch, "items in a request")
	f.Var(&p.maxPrice, "max-price", "send nothing that costs more dollars")
	f.IntVar(&p.freePaths, "free-paths", -1, "paths that are free yet this month; -1: 1,000 less what the journal knows of")
	f.IntVar(&p.entriesPerMinute, "entries-per-minute", 0, "invalidate no more entries a minute, to spare the origin; 0: no limit")
	f.Var(&p.repeatAfter, "repeat-after", "send everything once more, that long after it has completed; 0: never")
	f.BoolVarP(&p.verbose, "verbose", "v", false, "show all items")
	f.Var(&p.maxCollateral, "max-collateral", "entries that nobody selected and that may be hit to save items: a `number`, or P% of the selected")
	f.Var(&p.maxItems, "max-items", "the best plan of at most so many items, whatever it hits beside")
	f.Var(&p.maxWildcards, "max-wildcards", "at most so many wildcards")
	f.BoolVar(&p.nativeTags, "native-tags", false, "CloudFront takes the distribution's tags: use '#tag' where that is cheaper")
	f.StringVar(&p.rootObject, "root-object", "", "the distribution's default root object, as index.html: it and / are one page")
	f.StringArrayVar(&p.explain, "explain", nil, "say what the plan does to this `path`, and why")
	f.BoolVar(&p.compare, "compare", false, "show what other budgets and simpler ways would cost")
}

// request returns what to plan.
func (p *planFlags) request(a *app, args []string, t *target) (dispatch.Request, error) {
	if err := p.checkCounts(); err != nil {
		return dispatch.Request{}, err
	}
	s, _, err := p.read(a, args, t)
	if err != nil {
		return dispatch.Request{}, err
	}
	if err := required(s, args); err != nil {
		return dispatch.Request{}, err
	}
	s.RootObject = a.rootObject(t, p.rootObject)
	if err := p.inScope(t); err != nil {
		return dispatch.Request{}, err
	}
	r := dispatch.Request{Selector: s, AssumeComplete: p.assumeComplete, OnlySeen: p.onlySeen, Exact: p.exact, Batch: p.batch,
		NativeTags: p.nativeTags, MaxCollateral: p.maxCollateral.budget, MaxItems: p.maxItems.n, MaxWildcards: p.maxWildcards.n,
		Compare: p.compare, Twins: t.twins()}
	if a.origins["native-tags"].Source < config.FromEnvironment && t.Distribution != nil {
		r.NativeTags = r.NativeTags || t.NativeTags
	}
	if o := r.Planning(); r.Exact && o.Limited() {
		return r, usage("flag", "leave --exact out, or the limits", "--exact leaves no choice to --max-collateral, --max-items or --max-wildcards")
	}
	p.pace(&r)
	if limit := float64(p.maxPrice); a.origins["max-price"].Source != config.Default {
		r.MaxPrice = &limit
	}
	for _, e := range p.explain {
		path, err := selector.StripURL(e, t.aliases)
		if err == nil {
			path, err = cfpath.Canonical(path)
		}
		if err != nil {
			return r, err
		}
		r.Explain = append(r.Explain, path)
	}
	return r, nil
}

// pace says how a request is paid for and spread.
func (p *planFlags) pace(r *dispatch.Request) {
	if p.freePaths >= 0 {
		r.FreePaths = &p.freePaths
	}
	r.EntriesPerMinute, r.RepeatAfter = p.entriesPerMinute, time.Duration(p.repeatAfter)
}

func (p *planFlags) checkCounts() error {
	switch {
	case p.batch < 1 || p.batch > maxBatch:
		return usage("flag", fmt.Sprintf("write 1 to %d", maxBatch), "CloudFront takes no requests of %d items", p.batch)
	case p.entriesPerMinute < 0:
		return usage("flag", "write how many, or 0 for no limit", "%d entries cannot be invalidated a minute", p.entriesPerMinute)
	case p.freePaths < -1:
		return usage("flag", "write how many are left, or -1 to have them counted", "%d paths cannot be free", p.freePaths)
	}
	return nil
}

// guard is the price over which nothing is sent. --yes lifts the default one, never
// one that somebody set.
func (p *planFlags) guard(a *app, yes bool) (limit float64, guarded bool) {
	return float64(p.maxPrice), !yes || a.origins["max-price"].Source != config.Default
}

// money is the value of a flag in dollars.
type money float64

func (m *money) Set(s string) error {
	v, err := strconv.ParseFloat(strings.TrimPrefix(s, "$"), 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
		return fmt.Errorf("write dollars, such as 7.50")
	}
	*m = money(v)
	return nil
}

func (m *money) String() string { return strconv.FormatFloat(float64(*m), 'f', -1, 64) }
func (*money) Type() string     { return "dollars" }

// budgetFlag is the value of --max-collateral.
type budgetFlag struct{ budget *plan.Budget }

func (b *budgetFlag) Set(s string) error {
	v, err := plan.ParseBudget(s)
	if err != nil {
		return errors.New("write a number of entries, such as 12, or a share of those selected, such as 2.5%")
	}
	b.budget = &v
	return nil
}

func (b *budgetFlag) String() string {
	if b.budget == nil {
		return ""
	}
	return b.budget.String()
}

func (*budgetFlag) Type() string { return "budget" }

// atMost is the value of a flag that is a cap, or not given.
type atMost struct{ n *int }

func (m *atMost) Set(s string) error {
	v, err := strconv.Atoi(s)
	if err != nil || v < 0 {
		return errors.New("write a number, such as 5")
	}
	m.n = &v
	return nil
}

func (m *atMost) String() string {
	if m.n == nil {
		return ""
	}
	return strconv.Itoa(*m.n)
}

func (*atMost) Type() string { return "number" }
