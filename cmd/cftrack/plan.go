// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cf-invalidation-tracker/cftrack/plan"
)

func newPlanCmd(a *app) *cobra.Command {
	var flags planFlags
	cmd := &cobra.Command{
		Use:   "plan SELECTOR",
		Short: "Show what an invalidation would send, and why",
		Long: `Plan the cheapest invalidation that covers what is selected and touches nothing
else, and show it with its price, its duration and what it would hit beside.
Nothing is sent.

A pattern without *, or with its only * at the end, goes out as it is named, recorded
or not. All else is looked up in the inventory; wildcards that nobody typed are used
only if the inventory is complete, or with --assume-complete.
` + selectorHelp,
		Example: `  cftrack plan '/blog/*/comments*'
  cftrack plan --tag product-17 --exclude '/checkout/*'
  cftrack plan --all --output json >plan.json; cftrack invalidate --plan plan.json`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			t, err := a.target()
			if err != nil {
				return err
			}
			r, err := flags.request(a, args, t)
			if err != nil {
				return err
			}
			o, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer o.close(&err)
			d, err := a.dispatcher(cmd.Context(), o, false, a.stderr)
			if err != nil {
				return err
			}
			v, err := d.Plan(cmd.Context(), r)
			if err != nil {
				return err
			}
			if limit, _ := flags.guard(a, false); v.Price() > limit {
				v.Warnings = append(v.Warnings, priceWarning(v.Price(), limit))
			}
			if a.json() {
				f, err := d.PlanFile(cmd.Context(), r, v)
				if err != nil {
					return err
				}
				return a.printObject(planJSON{f, newCoverageJSON(v.Coverage), v.FreePaths, v.Saved, v.FollowUps, repetitionOf(v)})
			}
			p := a.printer()
			writePlan(p, a.style(a.stdout), o.id, r.Selector.String(), r.Planning(), v, flags.verbose)
			return p.Flush()
		},
	}
	flags.add(cmd)
	return cmd
}

// WarnPrice is the code of the warning that a plan is over the price guard.
const WarnPrice = "price-guard"

func priceWarning(price, limit float64) plan.Warning {
	return plan.Warning{Code: WarnPrice, Message: fmt.Sprintf(
		"at %s it is over the limit of %s, and invalidate will not send it; --max-price sets another limit", dollars(price), dollars(limit))}
}
