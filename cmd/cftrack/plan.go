// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/dispatch"
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
			if limit, _ := flags.guard(a, false); v.Totals.Price > limit {
				v.Warnings = append(v.Warnings, priceWarning(v.Totals.Price, limit))
			}
			if a.json() {
				f, err := d.PlanFile(cmd.Context(), r, v)
				if err != nil {
					return err
				}
				return a.printObject(planJSON{f, newCoverageJSON(v.Coverage), v.FreePaths})
			}
			p := a.printer()
			writePlan(p, a.style(a.stdout), o.id, r.Selector.String(), v, flags.verbose)
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
	}
	return reason
}

// shownItems is how many items of a plan are shown unless all are asked for.
const shownItems = 20

// writePlan draws a plan for people.
func writePlan(w interface{ WriteString(string) (int, error) }, st style, id, selected string, v *dispatch.Preview, all bool) {
	line := func(format string, args ...any) { _, _ = w.WriteString(fmt.Sprintf(format, args...) + "\n") }
	t := v.Totals
	line("%s", st.bold(fmt.Sprintf("Plan for %s: %s", id, printable(st.cut(selected, st.width-len(id)-12)))))
	if r := v.Review; r != nil {
		since := "nothing that it selects was sighted since"
		if n := r.Sighted.Count; n > 0 {
			since = count(n, "entry that it selects was", "entries that it selects were") + " sighted since"
		}
		line("  %s", st.faint(fmt.Sprintf("from a file made at %s; %s", instant(r.Made), since)))
	}
	line("  %s of %s selected, %s", thousands(t.Selected), count(t.Entries, "entry", "entries"), itemCounts(t))
	if t.Items > 0 {
		line("  at most %s, about %s until every edge has processed it, %s", dollars(t.Price), lasting(t.Seconds), alsoHits(t.Collateral))
		if v.FreePaths > 0 {
			line("  %s", st.faint(fmt.Sprintf("as far as the journal knows, %s free yet this month", count(v.FreePaths, "path is", "paths are"))))
		}
	}
	if t.Items > 0 {
		line("")
		line("  %s", st.faint("   covers  also hits  item"))
	}
	for i := range v.Items {
		it := &v.Items[i]
		if i == shownItems && len(v.Items) > shownItems+5 && !all {
			line("  %s", st.faint(fmt.Sprintf("%19s  and %s more; -v shows all", "", thousands(len(v.Items)-i))))
			break
		}
		also := "-"
		if it.Collateral > 0 {
			also = thousands(it.Collateral)
		}
		text := it.Item.String()
		row := fmt.Sprintf("%9s  %9s  %s", thousands(it.Covers), also, text)
		why := it.Reason.Text
		if it.Reason.Code == plan.ReasonExact || it.Reason.Code == plan.ReasonNamed && !st.wide() {
			why = ""
		}
		switch {
		case why == "":
			line("  %s", row)
		case st.wide() && 2+len(row)+2+len(why) <= st.width:
			line("  %-60s  %s", row, st.faint(why))
		default:
			line("  %s", row)
			line("  %21s%s", "", st.faint(why))
		}
	}
	if t.Selected > 0 {
		line("")
		line("  %s", st.faint(fmt.Sprintf("%-24s  %7s  %9s  %7s  %9s", "compared", "items", "price", "time", "also hits")))
		row := func(name string, items, also int, price, seconds float64) {
			line("  %-24s  %7s  %9s  %7s  %9s", name, thousands(items), dollars(price), lasting(seconds), thousands(also))
		}
		row("this plan", t.Items, t.Collateral, t.Price, t.Seconds)
		for _, alt := range v.Alternatives {
			name := map[string]string{plan.EveryPath: "every path by itself", plan.Everything: "everything, /*", plan.WithComplete: "with --assume-complete"}[alt.Name]
			row(name, alt.Items, alt.Collateral, alt.Price, alt.Seconds)
		}
	}
	if n := len(v.Uncovered); n > 0 {
		line("")
		line("  %s", st.faint("not covered"))
		for i, u := range v.Uncovered {
			if i == shownItems && !all {
				line("  and %s more; -v shows all", thousands(n-i))
				break
			}
			line("  %s  (%s)", u.Path, whyNot(u.Reason))
			if u.Remedy != "" {
				line("    %s", st.faint(fmt.Sprintf("%s would cover it, and hit %s beside", u.Remedy, count(u.RemedyCollateral, "other entry", "other entries"))))
			}
		}
	}
	for _, x := range v.Warnings {
		line("")
		for i, l := range wrap(printable(x.Message), st.width-9) {
			if i == 0 {
				line("%s %s", st.warn("warning:"), l)
			} else {
				line("         %s", l)
			}
		}
	}
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
