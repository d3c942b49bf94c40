// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/cf-invalidation-tracker/cftrack/accesslog"
	"github.com/cf-invalidation-tracker/cftrack/internal/config"
	"github.com/cf-invalidation-tracker/cftrack/internal/importer"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
)

func newImportCmd(a *app) *cobra.Command {
	var (
		format, tagHeader string
		ttl               config.TTL
		hosts             []string
	)
	cmd := &cobra.Command{
		Use:   "import FILE...|-",
		Short: "Read access logs into the inventory",
		Long: `Read access logs, of CloudFront or of the servers behind it, into the inventory;
also what 'cftrack list --output json' prints. gzip is recognised, and so is the
format: cloudfront, cftrack (as nginx and Apache can write it), caddy, combined,
common and list. - is standard input. Reading a file again changes nothing but
the count of responses.

A lifetime that a log does not tell is the longest that is possible; --ttl sets it.
What a later invalidation has purged is skipped. Malformed lines are counted and
skipped; only if no line at all can be read does import fail.`,
		Example: `  cftrack import /var/log/nginx/access.log*
  aws s3 cp s3://logs/E2EXAMPLE.2026-10-01.gz - | cftrack import -
  cftrack import --ttl 1h access.log --output json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("arguments", "name log files, or - for standard input", "import what?")
			}
			f, err := accesslog.ParseFormat(format)
			if err != nil {
				return usage("format", "leave --format out to have it found out", "%v", err)
			}
			return a.importLogs(cmd.Context(), args, accesslog.Options{Format: f, Hosts: hosts, TagHeader: tagHeader}, ttl)
		},
	}
	f := cmd.Flags()
	f.StringVar(&format, "format", "", "the format of the lines (default found out)")
	f.Var(&ttl, "ttl", "how long CloudFront may keep what the lines tell of, or forever")
	f.StringArrayVar(&hosts, "host", nil, "read only lines of this `host`, where they name one; *.example.com is allowed")
	f.StringVar(&tagHeader, "tag-header", "", "the response header that carries the tags (default Cache-Tag and Surrogate-Key)")
	_ = cmd.RegisterFlagCompletionFunc("format", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var names []string
		for _, f := range accesslog.Formats() {
			names = append(names, string(f))
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

// An importResult is what import prints.
type importResult struct {
	Files     int            `json:"files"`
	Lines     int            `json:"lines"`
	Recorded  int            `json:"recorded"`
	Paths     int            `json:"paths"`
	Skipped   map[string]int `json:"skipped"`
	Malformed int            `json:"malformed"`
	Seconds   float64        `json:"seconds"`
	// AssumedLifetimes counts the recorded lines that do not tell the lifetime.
	AssumedLifetimes int       `json:"assumed_lifetimes"`
	Reports          int       `json:"reports"`
	Problems         []problem `json:"problems"`

	longest time.Duration
	paths   map[uint64]struct{} // hashes: enough to count by
	err     error
}

// A problem is a malformed line.
type problem struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Why  string `json:"why"`
}

// A source is a file to import, open.
type source struct {
	name string
	r    io.Reader
	size int64 // -1: not known
	f    *os.File
}

func (a *app) sources(names []string) (_ []*source, err error) {
	var out []*source
	defer func() {
		if err != nil {
			closeAll(out)
		}
	}()
	for i, name := range names {
		if name == "-" {
			if slices.Contains(names[:i], "-") {
				return out, usage("arguments", "give - once", "standard input cannot be read twice")
			}
			out = append(out, &source{name: "standard input", r: a.stdin, size: -1})
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			return out, usage("file", "name files that can be read; nothing was imported", "%v", err)
		}
		s := &source{name: name, r: f, f: f, size: -1}
		out = append(out, s)
		info, err := f.Stat()
		if err != nil {
			return out, err
		}
		if info.IsDir() {
			return out, usage("file", "name the files in it: "+name+"/*", "%s is a directory; nothing was imported", name)
		}
		if info.Mode().IsRegular() {
			s.size = info.Size()
		}
	}
	return out, nil
}

func closeAll(all []*source) {
	for _, s := range all {
		if s.f != nil {
			_ = s.f.Close() // only read
		}
	}
}

func (a *app) importLogs(ctx context.Context, names []string, opts accesslog.Options, ttl config.TTL) (err error) {
	all, err := a.sources(names)
	if err != nil {
		return err
	}
	defer closeAll(all)
	o, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer o.close(&err)
	began := time.Now()
	opts.Rules, opts.Now, opts.OriginPath = &o.rules, o.now, a.originPath(o.target)
	if opts.TagHeader == "" && o.Distribution != nil && o.TagHeader != nil {
		opts.TagHeader = *o.TagHeader
	}
	switch {
	case ttl.Forever:
		opts.TTL = 1<<63 - 1
	case ttl.Given:
		opts.TTL = ttl.For
	}
	first, err := newImporter(ctx, o)
	if err != nil {
		return err
	}
	opts.Margin = first.Margin()

	// Each worker takes the next file; its results are its own until it is done.
	bar := a.newImportBar(all)
	defer bar.done()
	workers := min(runtime.NumCPU(), len(all))
	results := make([]importResult, len(all))
	seed := maphash.MakeSeed()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		r := first.Fork()
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(all) {
					return
				}
				results[i] = importOne(ctx, r, all[i], &opts, ttl, seed, bar)
			}
		})
	}
	wg.Wait()
	bar.done()

	total := importResult{Skipped: map[string]int{}, Problems: []problem{}, paths: map[uint64]struct{}{}}
	for i := range results {
		total.join(&results[i])
	}
	total.Paths, total.Seconds = len(total.paths), time.Since(began).Seconds()
	if err := a.printImport(&total); err != nil {
		return err
	}
	switch {
	case errors.Is(total.err, context.Canceled):
		return &fault{exit: exitUndone, code: "interrupted", cause: total.err,
			message: "interrupted; what was read is recorded", hint: "run the same import again: reading twice changes nothing but the count of responses"}
	case total.err != nil:
		f := explain(total.err)
		if total.Recorded > 0 && f.hint == "" {
			f.hint = "what was read before is recorded; once the cause is mended run the same import again"
		}
		return f
	case total.Lines > 0 && total.Malformed == total.Lines:
		return &fault{exit: exitFailed, code: "no-line-read", hint: "name the format with --format", message: "no line could be read; the first: " + total.Problems[0].String()}
	}
	return nil
}

func (p problem) String() string { return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Why) }

func newImporter(ctx context.Context, o *opened) (*importer.Importer, error) {
	return importer.New(ctx, o.store, o.id, &o.rules, o.clock.Skew())
}

// importOne reads one source to its end, and confirms it with a last flush.
func importOne(ctx context.Context, r *importer.Importer, s *source, opts *accesslog.Options, ttl config.TTL, seed maphash.Seed, bar *importBar) importResult {
	res := importResult{Files: 1, paths: map[uint64]struct{}{}}
	r.Recorded, r.Purged, r.Reports = 0, 0, 0
	rd := accesslog.NewReader(&meter{s.r, bar}, s.name, opts)
	var err error
	for n := 0; ; n++ {
		var line accesslog.Line
		var what accesslog.Outcome
		if what, err = rd.Next(&line); err != nil {
			break
		}
		if n%1024 == 0 && ctx.Err() != nil {
			err = ctx.Err()
			break
		}
		if what != accesslog.Recorded {
			continue
		}
		if ttl.Forever {
			line.Sighting.Expires = inventory.Never
		}
		var counts bool
		if counts, err = r.Add(ctx, line); err != nil {
			break
		}
		if !counts {
			continue
		}
		res.paths[maphash.String(seed, line.Sighting.Path)] = struct{}{}
		if line.LifetimeAssumed {
			res.AssumedLifetimes++
			res.longest = max(res.longest, line.Sighting.Expires.Sub(line.Sighting.End)-opts.Margin)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if e := r.Flush(context.WithoutCancel(ctx)); err == nil {
		err = e
	}
	sum := rd.Summary()
	res.Lines, res.Malformed, res.Skipped = sum.Lines, sum.Malformed, sum.Skipped
	res.Recorded, res.Reports, res.err = r.Recorded, r.Reports, err
	if r.Purged > 0 {
		res.Skipped["purged"] = r.Purged
	}
	for _, p := range sum.Problems {
		res.Problems = append(res.Problems, problem{p.Name, p.Line, p.Why})
	}
	return res
}

func (t *importResult) join(o *importResult) {
	t.Files += o.Files
	t.Lines += o.Lines
	t.Recorded += o.Recorded
	t.Malformed += o.Malformed
	t.AssumedLifetimes += o.AssumedLifetimes
	t.Reports += o.Reports
	t.longest = max(t.longest, o.longest)
	for why, n := range o.Skipped {
		t.Skipped[why] += n
	}
	maps.Copy(t.paths, o.paths)
	t.Problems = append(t.Problems, o.Problems...)
	if t.err == nil {
		t.err = o.err
	}
}

// skipReasons say for people why lines are skipped.
var skipReasons = map[string]string{
	"purged":            "purged by a later invalidation",
	"method":            "neither GET nor HEAD",
	"status":            "a status that CloudFront does not keep",
	"not-kept":          "not to be kept, by their headers or the cache behaviour",
	"expired":           "no longer in CloudFront",
	"other-host":        "of other hosts",
	"origin-path":       "not under the origin path",
	"no-request":        "no request that CloudFront would send",
	"too-long":          "longer than CloudFront passes on",
	"protocol":          "WebSocket or gRPC",
	"redirect":          "CloudFront's own redirects",
	"limit-exceeded":    "refused by CloudFront",
	"capacity-exceeded": "refused by CloudFront",
	"invalid-request":   "refused by CloudFront",
	"blocked":           "refused by CloudFront",
	"not-access":        "not records of access",
}

func (a *app) printImport(t *importResult) error {
	if a.json() {
		return a.printObject(t)
	}
	p := a.printer()
	fmt.Fprintf(p, "%s of %s: %s recorded, %s, in %.1f s\n", count(t.Lines, "line", "lines"), count(t.Files, "file", "files"),
		thousands(t.Recorded), count(t.Paths, "path", "paths"), t.Seconds)
	for _, why := range slices.Sorted(maps.Keys(t.Skipped)) {
		text := skipReasons[why]
		if text == "" {
			text = why
		}
		fmt.Fprintf(p, "  %s skipped: %s\n", thousands(t.Skipped[why]), text)
	}
	if t.Malformed > 0 && len(t.Problems) > 0 {
		fmt.Fprintf(p, "  %s malformed; the first: %s\n", thousands(t.Malformed), printable(t.Problems[0].String()))
	}
	if t.AssumedLifetimes > 0 {
		fmt.Fprintf(p, "  %s an assumed lifetime of %s, the maximum; give --ttl if you know better\n",
			count(t.AssumedLifetimes, "response has", "responses have"), config.FormatDuration(t.longest))
	}
	if t.Reports > 0 {
		fmt.Fprintf(p, "  %s may be from before the cut of an invalidation that has been sent: 'cftrack resume' sees to them\n", count(t.Reports, "response", "responses"))
	}
	return p.Flush()
}

// An importBar shows progress on a terminal. A nil one shows nothing.
type importBar struct{ bar *progressbar.ProgressBar }

func (a *app) newImportBar(all []*source) *importBar {
	if !terminal(a.stderr) {
		return nil
	}
	size := int64(0)
	for _, s := range all {
		if s.size < 0 {
			size = -1
			break
		}
		size += s.size
	}
	return &importBar{progressbar.NewOptions64(size, progressbar.OptionSetWriter(a.stderr), progressbar.OptionShowBytes(true),
		progressbar.OptionSetDescription("reading"), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish(),
		progressbar.OptionSetWidth(30), progressbar.OptionSpinnerType(14))}
}

func (b *importBar) done() {
	if b != nil {
		_ = b.bar.Finish() // only a picture
	}
}

// A meter counts what is read for the bar.
type meter struct {
	r   io.Reader
	bar *importBar
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if m.bar != nil {
		_ = m.bar.bar.Add(n)
	}
	return n, err
}
