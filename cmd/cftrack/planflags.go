// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/internal/config"
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
	batch, freePaths                         int
	maxPrice                                 money

	// What this version does not have yet is refused, not ignored.
	maxCollateral, maxItems, maxWildcards string
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
	f.BoolVarP(&p.verbose, "verbose", "v", false, "show all items")
	f.StringVar(&p.maxCollateral, "max-collateral", "", "not in this version")
	f.StringVar(&p.maxItems, "max-items", "", "not in this version")
	f.StringVar(&p.maxWildcards, "max-wildcards", "", "not in this version")
	for _, name := range []string{"max-collateral", "max-items", "max-wildcards"} {
		_ = f.MarkHidden(name)
	}
}

// request returns what to plan.
func (p *planFlags) request(a *app, args []string, t *target) (dispatch.Request, error) {
	for _, later := range []struct{ name, value, instead string }{
		{"max-collateral", p.maxCollateral, "name a wider pattern yourself, such as '/blog/*': what is named goes out as named"},
		{"max-items", p.maxItems, "name wider patterns yourself, such as '/blog/*', or bound the price with --max-price"},
		{"max-wildcards", p.maxWildcards, "--exact uses no wildcards at all"},
	} {
		if later.value != "" {
			return dispatch.Request{}, usage("not-in-this-version", later.instead, "this version does not have --%s", later.name)
		}
	}
	if err := p.checkCounts(); err != nil {
		return dispatch.Request{}, err
	}
	s, _, err := p.read(a, args, t.aliases)
	if err != nil {
		return dispatch.Request{}, err
	}
	if err := required(s, args); err != nil {
		return dispatch.Request{}, err
	}
	if err := p.inScope(t); err != nil {
		return dispatch.Request{}, err
	}
	r := dispatch.Request{Selector: s, AssumeComplete: p.assumeComplete, OnlySeen: p.onlySeen, Exact: p.exact, Batch: p.batch}
	if p.freePaths >= 0 {
		r.FreePaths = &p.freePaths
	}
	return r, nil
}

func (p *planFlags) checkCounts() error {
	switch {
	case p.batch < 1 || p.batch > maxBatch:
		return usage("flag", fmt.Sprintf("write 1 to %d", maxBatch), "CloudFront takes no requests of %d items", p.batch)
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
