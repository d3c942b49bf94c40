// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/cf-invalidation-tracker/cftrack/journal"
)

func newCoverageCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "coverage",
		Short: "Say whether the inventory is complete, and what is missing",
		Long: `Say since when recorders have been tracking, whether everything that CloudFront
may hold is in the inventory, the gaps if not, and what would close them.

An inventory becomes complete by waiting for the longest lifetime, or at once by
invalidating everything after every recorder has been started. Access logs alone
never make it complete.`,
		Example: `  cftrack coverage
  cftrack coverage --output json`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) > 0 && args[0] == "accept":
				return usage("not-in-this-version", "a completed '/*' closes every gap: cftrack invalidate '/*'", "this version cannot accept gaps")
			case len(args) > 0:
				return usage("arguments", "it is about the whole distribution", "coverage takes no arguments, not %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			o, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer o.close(&err)
			c, err := journal.Open(o.store, o.id).Coverage(cmd.Context(), o.now, o.rules.Longest())
			if err != nil {
				return err
			}
			if a.json() {
				return a.printObject(newCoverageJSON(c))
			}
			p := a.printer()
			fmt.Fprintln(p, coverLine(c))
			if len(c.Scope) > 0 {
				fmt.Fprintf(p, "recorders see %v\n", c.Scope)
			}
			fmt.Fprintf(p, "%s running\n", count(c.Sessions, "recorder is", "recorders are"))
			for _, g := range c.Gaps {
				end := "still open"
				if !g.Until.IsZero() {
					end = "until " + instant(g.Until)
				}
				fmt.Fprintf(p, "gap from %s %s: %s (%s)\n", instant(g.From), end, g.Cause, printable(g.Recorder))
			}
			if !c.From.IsZero() {
				fmt.Fprintf(p, "by waiting it is complete from %s\n", instant(c.From))
			}
			if c.Remedy != "" {
				fmt.Fprintf(p, "now, with every recorder running: cftrack invalidate '%s'\n", c.Remedy)
			}
			return p.Flush()
		},
	}
}

func coverLine(c journal.Coverage) string {
	switch {
	case c.Complete:
		return "complete: tracking since " + instant(c.Since)
	case c.Since.IsZero():
		return "not complete: no recorder has ever run for this distribution"
	case len(c.Gaps) > 0:
		return fmt.Sprintf("not complete: tracking since %s, with %s", instant(c.Since), count(len(c.Gaps), "gap", "gaps"))
	}
	return fmt.Sprintf("not complete: tracking since %s, and CloudFront may hold what is older", instant(c.Since))
}

type coverageJSON struct {
	Since    *time.Time `json:"since"`
	Complete bool       `json:"complete"`
	Gaps     []gapJSON  `json:"gaps"`
	// CompleteFrom is when waiting alone will have made it complete, or null.
	CompleteFrom *time.Time `json:"complete_from"`
	Remedy       string     `json:"remedy"`
	Scope        []string   `json:"scope"`
	Recorders    int        `json:"recorders"`
}

type gapJSON struct {
	From     time.Time  `json:"from"`
	Until    *time.Time `json:"until"`
	Cause    string     `json:"cause"`
	Recorder string     `json:"recorder"`
}

func newCoverageJSON(c journal.Coverage) coverageJSON {
	out := coverageJSON{Since: given(c.Since), Complete: c.Complete, Gaps: []gapJSON{}, CompleteFrom: given(c.From),
		Remedy: c.Remedy, Scope: append([]string{}, c.Scope...), Recorders: c.Sessions}
	for _, g := range c.Gaps {
		out.Gaps = append(out.Gaps, gapJSON{g.From, given(g.Until), g.Cause, g.Recorder})
	}
	return out
}

// given returns nil for no instant.
func given(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
