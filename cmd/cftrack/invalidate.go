// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/internal/config"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/plan"
)

// invalidateFlags are the flags of invalidate.
type invalidateFlags struct {
	planFlags
	reason, plan, hash   string
	yes, noWait, now     bool
	settle, sweepTimeout config.Duration
}

func newInvalidateCmd(a *app) *cobra.Command {
	flags := invalidateFlags{settle: config.Duration(dispatch.DefaultSettle), sweepTimeout: config.Duration(dispatch.DefaultSweepTimeout)}
	cmd := &cobra.Command{
		Use:   "invalidate SELECTOR | --plan FILE",
		Short: "Invalidate what is selected, and follow it to the end",
		Long: `Plan as 'cftrack plan' does, send the plan within CloudFront's limits, and follow it
until every edge has processed it and no response from before can come back.

On a terminal the plan is shown and asked about; elsewhere it is sent, unless it
costs more than --max-price. --yes does not ask and lifts the default of --max-price,
but never a limit that was set. Interrupted at any moment, nothing is lost:
'cftrack resume' goes on, and nothing is billed twice.

--plan sends exactly the items of a file that 'cftrack plan --output json' made. If by
now they miss something selected, or hit something that the file does not name,
nothing is sent.

Exit code 3: not sent because of its price, because the plan file no longer fits, or
declined; or sent, and something could not be covered, or the end could not be awaited.
` + selectorHelp,
		Example: `  cftrack invalidate '/blog/*/comments*' --reason 'moderation'
  cftrack invalidate --tag product-17 --max-price 2.50
  git diff --name-only HEAD~1 | sed 's,^public,,' | cftrack invalidate - --yes
  cftrack invalidate --plan plan.json --hash sha256:9f86d0... --yes
  cftrack invalidate '/*' --yes`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.invalidate(cmd.Context(), &flags, args) },
	}
	flags.add(cmd)
	f := cmd.Flags()
	f.StringVar(&flags.reason, "reason", "", "why, for the journal")
	f.BoolVarP(&flags.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&flags.noWait, "no-wait", false, "return once CloudFront has accepted everything")
	f.BoolVar(&flags.now, "now", false, "send at once, without letting recorders flush")
	f.Var(&flags.settle, "settle", "how long recorders may flush before anything is sent")
	f.Var(&flags.sweepTimeout, "sweep-timeout", "how long to wait for recorders at the end")
	f.StringVar(&flags.plan, "plan", "", "send the items of a plan `FILE`, or of - for standard input")
	f.StringVar(&flags.hash, "hash", "", "send the plan file only if this is its hash")
	return cmd
}

func (a *app) invalidate(ctx context.Context, flags *invalidateFlags, args []string) (err error) {
	var r dispatch.Request
	switch {
	case flags.plan != "":
		r, err = flags.fromFile(a, args)
	case flags.hash != "":
		err = usage("flag", "give the file with --plan", "--hash is that of a plan file, and there is none")
	default:
		var t *target
		if t, err = a.target(); err == nil {
			r, err = flags.request(a, args, t)
		}
	}
	if err != nil {
		return err
	}
	r.Reason, r.By = flags.reason, a.who()
	r.Settle, r.SweepTimeout = time.Duration(flags.settle), time.Duration(flags.sweepTimeout)
	r.Now = flags.now || flags.settle == 0
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
	v, err := d.Plan(ctx, r)
	if err != nil {
		return unsent(err)
	}
	ask := !flags.yes && terminal(a.stdin) && terminal(a.stderr)
	if !a.json() || ask {
		w := bufio.NewWriter(a.stderr)
		writePlan(w, a.style(a.stderr), o.id, r.Selector.String(), r.Planning(), v, flags.verbose)
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if v.Review != nil && v.Review.Differs() {
		return a.differs(v.Review)
	}
	if why := v.OverBudget(r.Planning()); why != "" {
		return declined(journal.CodeOverBudget, why+"; nothing was sent")
	}
	if limit, guarded := flags.guard(a, flags.yes); guarded {
		if v.Price() > limit {
			return overPrice(v.Price(), limit, a.origins["max-price"].Source == config.Default)
		}
		r.MaxPrice = &limit // the plan is made anew when it is sent
	}
	if ask && v.Totals.Items > 0 {
		ok, err := a.ask(ctx, fmt.Sprintf("Send %s to %s, for at most %s?", count(v.Sends(), "item", "items"), o.id, dollars(v.Price())))
		if err != nil {
			return unsent(err)
		}
		if !ok {
			return &fault{exit: exitUndone, code: "declined", message: "nothing was sent"}
		}
	}
	inv, err := d.Open(ctx, r)
	if err != nil {
		return unsent(err)
	}
	goal := dispatch.UntilDone
	if flags.noWait {
		goal = dispatch.UntilAccepted
	}
	report, err := d.Drive(ctx, inv.ID, goal, f.show)
	f.end()
	return a.conclude(inv.ID, report, err, v)
}

// unsent explains an error before anything was opened.
func unsent(err error) error {
	if errors.Is(err, context.Canceled) {
		return &fault{exit: exitUndone, code: "interrupted", message: "interrupted; nothing was sent", cause: err}
	}
	return err
}

func overPrice(price, limit float64, byDefault bool) error {
	f := &fault{exit: exitUndone, code: WarnPrice, hint: fmt.Sprintf("--max-price %.2f sends it", price+0.005),
		message: fmt.Sprintf("the plan costs %s, over the limit of %s; nothing was sent", dollars(price), dollars(limit))}
	if byDefault {
		f.hint = fmt.Sprintf("--max-price %.2f sends it, and so does --yes", price+0.005)
	}
	return f
}

// declined is how a command ends that sent nothing since that would not have been
// what was asked for.
func declined(code, message string) *fault {
	hint := "invalidate again with a higher --max-price"
	switch code {
	case journal.CodePlanDiffers:
		hint = remakeHint
	case journal.CodeOverBudget:
		hint = "allow more items, wildcards or collateral, or select less; 'cftrack plan --compare' says what each would take"
	case journal.CodeBudget:
		hint = "raise the month's budget in the configuration, or wait for the next month"
	}
	return &fault{exit: exitUndone, code: code, message: message, hint: hint}
}

// ask asks on the terminal. The goroutine that reads the answer is left behind
// when the question is interrupted: nothing ends a read of a terminal but its
// user, and the process is about to end.
func (a *app) ask(ctx context.Context, question string) (bool, error) {
	fmt.Fprintf(a.stderr, "\n%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(a.stdin).ReadString('\n') // no answer is no
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.stderr)
		return false, ctx.Err()
	case s := <-answer:
		return s == "y" || s == "yes", nil
	}
}

// concluded is a report with the warnings that its plan gave, and what had become
// of its plan file.
type concluded struct {
	*dispatch.Report
	Warnings []plan.Warning   `json:"warnings"`
	Plan     *dispatch.Review `json:"plan,omitempty"`
}

// conclude prints how far an invalidation is, and returns how the command ends. v is
// what was planned, if that was now.
func (a *app) conclude(id string, r *dispatch.Report, driven error, v *dispatch.Preview) error {
	var printed error
	if r != nil {
		printed = a.printReport(r, v)
	}
	// How it ended counts more than that nobody reads it.
	if err := ending(id, r, driven); err != nil {
		return err
	}
	return printed
}

func (a *app) printReport(r *dispatch.Report, v *dispatch.Preview) error {
	if a.json() {
		c := concluded{Report: r, Warnings: []plan.Warning{}}
		if v != nil {
			c.Warnings, c.Plan = append(c.Warnings, v.Warnings...), v.Review
		}
		return a.printObject(c)
	}
	p := a.printer()
	writeReport(p, r)
	return p.Flush()
}

// ending is the error of a command that drove an invalidation, nil if all is well.
func ending(id string, r *dispatch.Report, driven error) error {
	resume := fmt.Sprintf("cftrack resume %s", id)
	if driven != nil {
		f := explain(driven)
		// It stands in the journal: nothing is lost, whatever went wrong.
		f.exit, f.hint = exitUndone, strings.TrimPrefix(f.hint+"; go on with: "+resume, "; ")
		if errors.Is(driven, dispatch.ErrUndone) || errors.Is(driven, context.Canceled) {
			f.hint = "go on with: " + resume
		}
		if errors.Is(driven, dispatch.ErrGone) {
			f.code, f.hint = "store-lost-data", "invalidate the same again: that is safe; 'cftrack coverage' says what else is missing"
		}
		if errors.Is(driven, context.Canceled) {
			f.code, f.message = "interrupted", fmt.Sprintf("interrupted; nothing is lost of %s", id)
		}
		return f
	}
	switch {
	case r.State == journal.Partial:
		f := &fault{exit: exitUndone, code: "uncovered", message: fmt.Sprintf("%s could not be covered", count(len(r.Uncovered), "selected path", "selected paths")),
			hint: "nothing but their end of life, or a tag, removes them"}
		var remedies []string
		for _, u := range r.Uncovered {
			if u.Remedy != "" && len(remedies) < 3 {
				remedies = append(remedies, "'"+u.Remedy+"'")
			}
		}
		if len(remedies) > 0 {
			f.hint = "what would cover: " + strings.Join(remedies, " ")
		}
		return f
	case r.State == journal.Failed && journal.Guard(r.Code):
		return declined(r.Code, r.Error)
	case r.State == journal.Failed:
		return &fault{exit: exitFailed, code: r.Code, message: r.Error, hint: "once the cause is mended: " + resume}
	case r.State == journal.Cancelled:
		return &fault{exit: exitUndone, code: "cancelled", message: id + " was cancelled", hint: "'cftrack status " + id + "' says what had been sent"}
	}
	return nil
}
