// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cf-invalidation-tracker/cftrack/journal"
)

func newCoverageCmd(a *app) *cobra.Command {
	var verbose bool
	cmd := &cobra.Command{
		Use:   "coverage",
		Short: "Say whether the inventory is complete, and what is missing",
		Long: `Say since when recorders have been tracking, whether everything that CloudFront
may hold is in the inventory, the gaps if not, and what would close each.

An inventory becomes complete by waiting for the longest lifetime, or at once by
invalidating everything after every recorder has been started. Access logs alone
never make it complete.

A recorder that ends without closing leaves a gap: what it had not stored, and
what it still serves if it is only cut off. The gap closes when the recorder
returns, when somebody accepts it ('cftrack coverage accept'), or when the recorder
has been silent for the longest lifetime.

With --output json each of gaps[] and accepted[] has id, from, until, cause,
recorder, closes_at (when waiting alone will have closed it, or null), closing (for
people: what closes it), and accepted (reason, by, at, or null).`,
		Example: `  cftrack coverage
  cftrack coverage -v
  cftrack coverage --output json
  cftrack coverage accept x5g2... --reason 'the machine was replaced'`,
		Args: noArguments,
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
				writeGap(p, &c, g)
			}
			switch {
			case verbose:
				for _, g := range c.Accepted {
					writeGap(p, &c, g)
				}
			case len(c.Accepted) > 0:
				fmt.Fprintf(p, "%s accepted; -v shows them\n", count(len(c.Accepted), "gap was", "gaps were"))
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
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show the gaps that were accepted, too")
	cmd.AddCommand(newAcceptCmd(a))
	return cmd
}

func newAcceptCmd(a *app) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "accept GAP --reason TEXT",
		Short: "Declare that a gap does not matter, or that a lost recorder is dead",
		Long: `Declare that a gap in the coverage does not matter, and why. 'cftrack coverage'
lists the gaps with their IDs. That of a lost recorder declares it dead; if it
returns all the same it catches up, and nothing is missed.

It is your word: what CloudFront got from the recorder while the gap lasted, and
nobody else recorded, stays unknown. Good reasons are that the recorder served
nothing then, that everything was invalidated since, or that its access logs of
that time were imported. cftrack cannot see whether logs are complete, so importing
them closes no gap by itself.

With --output json it prints the gap (id, from, until, cause, recorder, and
accepted: reason, by, at), already_accepted, and the coverage as it is now.`,
		Example: `  cftrack coverage accept x5g2... --reason 'drained before it was killed'
  cftrack coverage accept full-k3f9... --reason 'imported the origin logs of 12:00 to 12:30'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage("arguments", "'cftrack coverage' lists the gaps with their IDs", "accept takes the ID of one gap")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(reason) == "" {
				return usage("reason", "say it with --reason, for whoever asks later", "why does the gap not matter?")
			}
			return a.accept(cmd.Context(), args[0], reason)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why the gap does not matter")
	return cmd
}

func (a *app) accept(ctx context.Context, id, reason string) (err error) {
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer o.close(&err)
	j := journal.Open(o.store, o.id)
	g, err := j.Accept(ctx, id, reason, a.who(), o.now)
	before := errors.Is(err, journal.ErrAccepted)
	if err != nil && !before {
		return a.declined(ctx, o, j, err)
	}
	c, err := j.Coverage(ctx, o.now, o.rules.Longest())
	if err != nil {
		return err
	}
	if a.json() {
		return a.printObject(acceptJSON{newGapJSON(&c, *g), before, newCoverageJSON(c)})
	}
	p := a.printer()
	if before {
		fmt.Fprintf(p, "it was accepted before, and that stays:\n")
	}
	writeGap(p, &c, *g)
	fmt.Fprintln(p, coverLine(c))
	return p.Flush()
}

// declined says why a gap was not accepted, and what can be done.
func (a *app) declined(ctx context.Context, o *opened, j *journal.Journal, err error) error {
	f := &fault{exit: exitFailed, cause: err, message: strings.TrimPrefix(err.Error(), "journal: ")}
	switch {
	case errors.Is(err, journal.ErrLive):
		f.code, f.hint = "live", "it has no gap; to end it, stop the recorder"
	case errors.Is(err, journal.ErrStanding):
		f.code, f.hint = "standing", "have the store keep what it is given (Redis: maxmemory-policy noeviction)"
	case errors.Is(err, journal.ErrNoGap):
		f.code, f.hint = "not-found", "there is no gap"
		c, e := j.Coverage(ctx, o.now, o.rules.Longest())
		if e != nil {
			return e
		}
		var ids []string
		for _, g := range c.Gaps {
			ids = append(ids, g.ID)
		}
		if len(ids) > 0 {
			f.hint = "the gaps are " + strings.Join(ids, ", ")
		}
	default:
		return err
	}
	return f
}

// writeGap shows a gap, and what closes it or why it was accepted.
func writeGap(w io.Writer, c *journal.Coverage, g journal.Gap) {
	end := "still open"
	if !g.Until.IsZero() {
		end = "until " + instant(g.Until)
	}
	fmt.Fprintf(w, "gap %s from %s %s: %s (%s)\n", g.ID, instant(g.From), end, g.Cause, printable(g.Recorder))
	if g.Accepted != "" {
		fmt.Fprintf(w, "  accepted %s by %s: %s\n", instant(g.AcceptedAt), printable(g.AcceptedBy), printable(g.Accepted))
		return
	}
	for _, way := range closing(c, g) {
		fmt.Fprintf(w, "  %s\n", way)
	}
}

// closing says what closes a gap, each way in words of its own.
func closing(c *journal.Coverage, g journal.Gap) []string {
	var ways []string
	switch {
	case g.Cause == journal.CauseStoreEvict:
		return []string{"closes when the store keeps what it is given: set another eviction policy"}
	case g.Until.IsZero():
		ways = append(ways, "closes when the recorder returns")
	default:
		ways = append(ways, "closes with the next completed invalidation of '/*'")
	}
	if at := c.Closes(g); !at.IsZero() {
		ways = append(ways, "closes by itself at "+instant(at))
	}
	what := "if it does not matter"
	if g.Until.IsZero() {
		what = "if the recorder is dead"
	}
	return append(ways, fmt.Sprintf("%s: cftrack coverage accept %s --reason TEXT", what, g.ID))
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
	// Accepted are the gaps that would still matter, had nobody accepted them.
	Accepted []gapJSON `json:"accepted"`
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
	ID       string     `json:"id"`
	// ClosesAt is when waiting alone will have closed it, or null.
	ClosesAt *time.Time `json:"closes_at"`
	// Closing says for people what closes it.
	Closing  []string     `json:"closing"`
	Accepted *acceptedGap `json:"accepted"`
}

// An acceptedGap says who accepted a gap, when and why.
type acceptedGap struct {
	Reason string    `json:"reason"`
	By     string    `json:"by"`
	At     time.Time `json:"at"`
}

// acceptJSON is what 'coverage accept' prints.
type acceptJSON struct {
	gapJSON
	// AlreadyAccepted: nothing was changed.
	AlreadyAccepted bool         `json:"already_accepted"`
	Coverage        coverageJSON `json:"coverage"`
}

func newGapJSON(c *journal.Coverage, g journal.Gap) gapJSON {
	out := gapJSON{From: g.From, Until: given(g.Until), Cause: g.Cause, Recorder: g.Recorder, ID: g.ID, Closing: []string{}}
	if g.Accepted != "" {
		out.Accepted = &acceptedGap{g.Accepted, g.AcceptedBy, g.AcceptedAt}
		return out
	}
	out.ClosesAt, out.Closing = given(c.Closes(g)), closing(c, g)
	return out
}

func newCoverageJSON(c journal.Coverage) coverageJSON {
	out := coverageJSON{Since: given(c.Since), Complete: c.Complete, Gaps: []gapJSON{}, Accepted: []gapJSON{},
		CompleteFrom: given(c.From), Remedy: c.Remedy, Scope: append([]string{}, c.Scope...), Recorders: c.Sessions}
	for _, g := range c.Gaps {
		out.Gaps = append(out.Gaps, newGapJSON(&c, g))
	}
	for _, g := range c.Accepted {
		out.Accepted = append(out.Accepted, newGapJSON(&c, g))
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
