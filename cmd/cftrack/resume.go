// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
)

func newResumeCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "resume [ID]",
		Short: "Go on with what was interrupted",
		Long: `Go on with an invalidation where it was: one that was interrupted, that failed and
whose cause is mended, or that was sent and not followed. Without an ID, with all
that are open. What may have been sent already is sent again under its reference,
so that it is neither lost nor billed twice.`,
		Example: `  cftrack resume
  cftrack resume inv-12-k3f9`,
		Args: oneID(false),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			ctx := cmd.Context()
			o, err := a.open(ctx)
			if err != nil {
				return err
			}
			defer o.close(&err)
			f := a.follow()
			defer f.end()
			d, err := a.dispatcher(ctx, o, true, f)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				r, id, err := resume(ctx, d, args[0], f)
				if id == "" {
					return err
				}
				f.end()
				return a.conclude(id, r, err, nil)
			}
			return a.resumeAll(ctx, d, f)
		},
	}
}

// resume drives one invalidation on. The ID is empty if there is none to drive.
func resume(ctx context.Context, d *dispatch.Dispatcher, id string, f *follower) (*dispatch.Report, string, error) {
	inv, err := d.Journal().Invalidation(ctx, id)
	if err != nil {
		return nil, "", err
	}
	if inv.Stopped() {
		// Going on would send what somebody set a limit against.
		return nil, "", declined(inv.ErrorCode, inv.ID+" was not sent: "+inv.Error)
	}
	if inv, err = d.Journal().Reopen(ctx, inv.ID); err != nil {
		return nil, "", err
	}
	r, err := d.Drive(ctx, inv.ID, dispatch.UntilDone, f.show)
	return r, inv.ID, err
}

// resumeAll drives on whatever is open, or has reports that nobody has read.
func (a *app) resumeAll(ctx context.Context, d *dispatch.Dispatcher, f *follower) error {
	invs, err := d.Journal().Invalidations(ctx, 0)
	if err != nil {
		return err
	}
	unread, err := d.Journal().Unread(ctx)
	if err != nil {
		return err
	}
	out := struct {
		Resumed       int                `json:"resumed"`
		Invalidations []*dispatch.Report `json:"invalidations"`
	}{Invalidations: []*dispatch.Report{}}
	var faults []error
	for _, inv := range invs {
		_, reported := unread[inv.Number]
		if inv.State.Ended() && !(reported && (inv.State == journal.Completed || inv.State == journal.Partial)) {
			continue
		}
		r, id, err := resume(ctx, d, inv.ID, f)
		if id == "" {
			return err
		}
		out.Resumed++
		if r != nil {
			out.Invalidations = append(out.Invalidations, r)
		}
		if err := ending(id, r, err); err != nil {
			faults = append(faults, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	f.end()
	if a.json() {
		err = a.printObject(out)
	} else {
		p := a.printer()
		if out.Resumed == 0 {
			fmt.Fprintln(p, "nothing is open")
		}
		for _, r := range out.Invalidations {
			writeReport(p, r)
		}
		err = p.Flush()
	}
	if err != nil || len(faults) == 0 {
		return err
	}
	worst := explain(faults[0])
	for _, e := range faults[1:] {
		if f := explain(e); f.exit == exitFailed && worst.exit != exitFailed {
			worst = f
		}
	}
	if more := len(faults) - 1; more > 0 {
		worst.message += fmt.Sprintf(" (and %d more; see 'cftrack status')", more)
	}
	return worst
}

func newCancelCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "cancel ID",
		Short: "Stop an invalidation that is under way",
		Long: `Stop an invalidation: nothing more of it is sent. What CloudFront has accepted, or
may have, cannot be recalled, and is billed.`,
		Example: `  cftrack cancel inv-12-k3f9`,
		Args:    oneID(true),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			ctx := cmd.Context()
			o, err := a.open(ctx)
			if err != nil {
				return err
			}
			defer o.close(&err)
			inv, err := journal.Open(o.store, o.id).RequestCancel(ctx, args[0])
			if err != nil {
				return err
			}
			if inv.State.Ended() && inv.State != journal.Cancelled {
				return &fault{exit: exitFailed, code: "ended", message: fmt.Sprintf("%s cannot be cancelled: it is %s", inv.ID, inv.State),
					hint: "'cftrack status " + inv.ID + "' says what was sent"}
			}
			f := a.follow()
			defer f.end()
			d, err := a.dispatcher(ctx, o, true, f)
			if err != nil {
				return err
			}
			r, err := d.Drive(ctx, inv.ID, dispatch.UntilDone, f.show)
			f.end()
			if r != nil {
				if err := a.printReport(r, nil); err != nil {
					return err
				}
			}
			err = ending(inv.ID, r, err)
			var ended *fault
			if errors.As(err, &ended) && ended.code == "cancelled" {
				a.say("%s", whatIsGone(r))
				return nil
			}
			return err
		},
	}
}

// whatIsGone says what of a cancelled invalidation cannot be recalled.
func whatIsGone(r *dispatch.Report) string {
	var ids []string
	for _, b := range r.Batches {
		if b.InvalidationID != "" {
			ids = append(ids, b.InvalidationID)
		}
	}
	if len(ids) == 0 {
		return "nothing had been sent"
	}
	more := ""
	if n := len(ids) - shownItems; n > 0 {
		ids, more = ids[:shownItems], fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("%s had been sent and cannot be recalled: CloudFront's %s%s", count(r.Items, "item", "items"), strings.Join(ids, ", "), more)
}
