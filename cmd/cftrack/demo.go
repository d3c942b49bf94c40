// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/cf-invalidation-tracker/cftrack/internal/demo"
)

func newDemoCmd(a *app) *cobra.Command {
	var o demo.Options
	var keep bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "The whole story on this machine, with proof at the end",
		Long: `Show what cftrack does, with real parts on free ports of this machine: an origin
behind the tracker's middleware, a simulated CloudFront with three edges, the
embedded store in a fresh directory, and the AWS SDK, for which no credentials are
needed. Viewers fill the edges, pages change, the change is planned, sent and
followed; then every page is asked for again at every edge and compared.

It takes about half a minute and fails if a single copy is stale, or if one that
did not change was thrown away.`,
		Example: `  cftrack demo
  cftrack demo --keep
  cftrack demo --site ./public --change '*/index.html'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.demo(cmd.Context(), o, keep) },
	}
	f := cmd.Flags()
	f.StringVar(&o.Site, "site", "", "serve this directory in place of the paths of developer.mozilla.org")
	f.StringVar(&o.Change, "change", "", "the pattern of the pages that change (default '"+demo.EmbeddedChange+"', with --site '*.html')")
	f.BoolVar(&keep, "keep", false, "leave everything running until Ctrl-C, to go on by hand")
	return cmd
}

func (a *app) demo(ctx context.Context, o demo.Options, keep bool) (err error) {
	o.Out = a.stdout
	if a.json() {
		o.Out = io.Discard
	}
	if terminal(a.stderr) {
		if a.json() {
			o.Out = a.stderr
		}
		o.Progress = func(what string, total int) demo.Bar { return newBar(a.stderr, what, total) }
	}
	d, err := demo.Start(ctx, o)
	if err != nil {
		return err
	}
	defer func() {
		if e := d.Close(); err == nil {
			err = e
		}
	}()
	res, err := d.Run(ctx)
	if a.json() && res != nil {
		o := struct {
			*demo.Result
			Environment []string `json:"environment,omitempty"` // of commands against what is kept
		}{Result: res}
		if keep && err == nil {
			o.Environment = d.Environment()
		}
		if e := a.printObject(o); e != nil {
			return e
		}
	}
	if errors.Is(err, demo.ErrDisproved) {
		return &fault{exit: exitFailed, code: "disproved", message: err.Error(), hint: "please report this with the whole output", cause: err}
	}
	if err != nil {
		return err
	}
	d.Invite(keep)
	if keep {
		<-ctx.Done()
	}
	return nil
}

// A bar is a progress bar on a terminal, which it leaves as it was.
type bar struct{ *progressbar.ProgressBar }

func newBar(w io.Writer, what string, total int) demo.Bar {
	return bar{progressbar.NewOptions(total,
		progressbar.OptionSetWriter(w), progressbar.OptionSetDescription("  "+what),
		progressbar.OptionSetWidth(30), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())}
}

// Set implements demo.Bar.
func (b bar) Set(done int) { _ = b.ProgressBar.Set(done) } // what is not drawn is no loss

// End implements demo.Bar.
func (b bar) End() { _ = b.Finish() }
