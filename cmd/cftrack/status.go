// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
)

func newStatusCmd(a *app) *cobra.Command {
	var verbose bool
	cmd := &cobra.Command{
		Use:   "status [ID]",
		Short: "Say how far invalidations are, and what was sent",
		Long: `List the invalidations of the distribution, the newest first: state, items, price,
who opened it and why. With an ID, say all about one: its batches under their
references, the items that were sent, what could not be covered and what it waits
for.`,
		Example: `  cftrack status
  cftrack status inv-12-k3f9 --output json`,
		Args: oneID(false),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			o, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer o.close(&err)
			j := journal.Open(o.store, o.id)
			if len(args) == 1 {
				return a.statusOne(cmd, j, args[0], verbose)
			}
			invs, err := j.Invalidations(cmd.Context(), 0)
			if err != nil {
				return err
			}
			all, err := j.Batches(cmd.Context(), 0)
			if err != nil {
				return err
			}
			batches := make(map[uint64][]*journal.Batch)
			for _, b := range all {
				batches[b.Invalidation()] = append(batches[b.Invalidation()], b)
			}
			p := a.printer()
			for _, inv := range slices.Backward(invs) {
				r := dispatch.NewReport(inv, batches[inv.Number])
				if a.json() {
					err = p.object(r)
				} else {
					why := r.Reason
					if why == "" {
						why = r.Selector
					}
					_, err = fmt.Fprintf(p, "%-18s  %-11s  %s  %8s  %8s  %s  %s\n", r.ID, r.State, instant(r.Opened),
						count(r.Items, "item", "items"), dollars(r.Price), printable(r.By), printable(a.style(a.stdout).cut(why, 60)))
				}
				if err != nil {
					return err
				}
			}
			return p.Flush()
		},
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show all items")
	return cmd
}

// oneID takes an ID, or at most one.
func oneID(required bool) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 || required && len(args) == 0 {
			return usage("arguments", "'cftrack status' lists them", "%s takes the ID of one invalidation", cmd.Name())
		}
		return nil
	}
}

func (a *app) statusOne(cmd *cobra.Command, j *journal.Journal, id string, verbose bool) error {
	inv, err := j.Invalidation(cmd.Context(), id)
	if err != nil {
		return err
	}
	batches, err := j.Batches(cmd.Context(), inv.Number)
	if err != nil {
		return err
	}
	r := dispatch.NewReport(inv, batches)
	sent := []string{}
	for _, b := range batches {
		if b.State != journal.BatchRefused {
			sent = append(sent, b.Items...)
		}
	}
	if a.json() {
		return a.printObject(struct {
			*dispatch.Report
			SentItems []string `json:"sent_items"`
		}{r, sent})
	}
	p := a.printer()
	writeReport(p, r)
	writeDetails(p, r, sent, verbose)
	return p.Flush()
}

func writeDetails(w io.Writer, r *dispatch.Report, sent []string, all bool) {
	fmt.Fprintf(w, "  selector:  %s\n", printable(r.Selector))
	if r.Reason != "" {
		fmt.Fprintf(w, "  reason:    %s\n", printable(r.Reason))
	}
	fmt.Fprintf(w, "  opened:    %s by %s\n", instant(r.Opened), printable(r.By))
	fmt.Fprintf(w, "  cut:       %s\n", instant(r.Cut))
	fmt.Fprintf(w, "  selected:  %s\n", count(r.Selected, "entry", "entries"))
	if r.Error != "" {
		fmt.Fprintf(w, "  error:     %s (%s)\n", printable(r.Error), r.Code)
	}
	if r.Compacted != nil {
		fmt.Fprintf(w, "  batches:   forgotten %s, when nothing depended on them any more\n", instant(*r.Compacted))
	}
	for _, b := range r.Batches {
		id := b.InvalidationID
		if id == "" {
			id = "-"
		}
		fmt.Fprintf(w, "  batch:     %s  %s  %s  %s  sent %s\n", b.CallerReference, id, b.State, count(b.Items, "item", "items"), instant(b.Sent))
		if b.Error != "" {
			fmt.Fprintf(w, "             %s\n", printable(b.Error))
		}
	}
	for i, it := range sent {
		if i == shownItems && !all {
			fmt.Fprintf(w, "  and %s more; -v shows all\n", thousands(len(sent)-i))
			break
		}
		fmt.Fprintf(w, "  item:      %s\n", printable(it))
	}
}
