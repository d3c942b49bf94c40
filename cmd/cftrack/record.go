// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cf-invalidation-tracker/cftrack/accesslog"
	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/internal/config"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/selector"
)

func newRecordCmd(a *app) *cobra.Command {
	var (
		ttl  config.TTL
		tags []string
	)
	cmd := &cobra.Command{
		Use:   "record PATH...|-",
		Short: "Record that CloudFront was served these paths",
		Long: `Record paths into the inventory, as the viewer spells them, with their query
strings, as served until now. With - they are read from standard input, one a
line. A URL is a path if its host is an alias of the distribution.

Without --ttl the lifetime is not known: the maximum TTL of the matching cache
behaviour, counted once for each cache tier. With --ttl it is that long;
'--ttl forever' is until purged.`,
		Example: `  cftrack record /blog/2024/hello '/search?q=hats'
  cftrack record - --ttl 1h --tag product-17 < paths.txt`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.record(cmd, args, ttl, tags) },
	}
	cmd.Flags().Var(&ttl, "ttl", "how long CloudFront may keep it, or forever")
	cmd.Flags().StringArrayVar(&tags, "tag", nil, "a cache `tag` that the response carried")
	return cmd
}

func (a *app) record(cmd *cobra.Command, args []string, ttl config.TTL, tags []string) (err error) {
	if len(args) == 0 {
		return usage("arguments", "give paths, or - to read them from standard input", "record what?")
	}
	if err := expanded(args); err != nil {
		return err
	}
	for _, t := range tags {
		if _, err := cfpath.ParseItem("#" + t); err != nil {
			return usage("tag", "CloudFront's tags are printable ASCII without spaces and commas, at most 256 characters", "%q is no tag", t)
		}
	}
	t, err := a.target()
	if err != nil {
		return err
	}
	// What was typed is checked as a whole before anything is written.
	paths := make([]string, len(args))
	for i, arg := range args {
		if paths[i], err = recordable(arg, t); err != nil && arg != "-" {
			return err
		}
	}
	o, err := a.open(cmd.Context())
	if err != nil {
		return err
	}
	defer o.close(&err)
	r, err := newImporter(cmd.Context(), o)
	if err != nil {
		return err
	}
	distinct := map[string]struct{}{}
	add := func(path string) error {
		distinct[path] = struct{}{}
		_, err := r.Add(cmd.Context(), recorded(o, path, r.Margin(), ttl, tags))
		return err
	}
	for i, arg := range args {
		if arg == "-" {
			err = a.recordLines(cmd.Context(), t, add)
		} else {
			err = add(paths[i])
		}
		if err != nil {
			break
		}
	}
	// What came before a wrong line is recorded, and said to be.
	if e := r.Flush(cmd.Context()); e != nil {
		return errors.Join(e, err)
	}
	if err != nil {
		f := explain(err)
		if r.Recorded > 0 {
			f.message += fmt.Sprintf(" (%s before it recorded)", count(r.Recorded, "path", "paths"))
		}
		return f
	}
	if a.json() {
		return a.printObject(struct {
			Recorded int `json:"recorded"`
			Paths    int `json:"paths"`
		}{r.Recorded, len(distinct)})
	}
	a.say("recorded %s", count(len(distinct), "path", "paths"))
	return nil
}

// recorded is the sighting of a response that has ended now, so that CloudFront has
// it, and begins to count, within the margin. When it began is not known.
func recorded(o *opened, path string, margin time.Duration, ttl config.TTL, tags []string) accesslog.Line {
	end := o.clock.Now()
	begins := end.Add(margin)
	s := inventory.Sighting{Path: path, Start: end.Add(-accesslog.Widen), End: end, Tags: tags}
	switch {
	case ttl.Forever:
		s.Expires = inventory.Never
	case ttl.Given:
		s.Expires = begins.Add(ttl.For)
	default:
		s.Expires = begins.Add(o.rules.Unknown(path).Lifetime)
	}
	return accesslog.Line{Sighting: s, StartAssumed: true, LifetimeAssumed: !ttl.Given}
}

// recordable is the path under which CloudFront would hold what was named.
func recordable(arg string, t *target) (string, error) {
	path, err := selector.StripURL(arg, t.aliases)
	if err != nil {
		return "", err
	}
	if path, err = cfpath.Canonical(path); err != nil {
		return "", err
	}
	return t.rules.Match(path).Query.Apply(path), nil
}

// recordLines reads paths, one a line.
func (a *app) recordLines(ctx context.Context, t *target, add func(string) error) error {
	in := bufio.NewReaderSize(a.stdin, 64<<10)
	for n := 1; ; n++ {
		line, err := in.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("standard input: %w", err)
		}
		if text := strings.TrimRight(line, "\r\n"); strings.TrimSpace(text) != "" {
			path, e := recordable(text, t)
			if e != nil {
				f := explain(e)
				f.message = fmt.Sprintf("standard input:%d: %s", n, f.message)
				return f
			}
			if e := add(path); e != nil {
				return e
			}
		}
		if err != nil {
			return ctx.Err()
		}
	}
}

func newTTLCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "ttl PATH DURATION",
		Short: "Say how much longer CloudFront keeps a path at most",
		Long: `Say of a path that whatever CloudFront holds of it now is gone after DURATION at
the latest. 0 says that it is gone already. Later responses count anew. It is your
word: what CloudFront keeps longer all the same is then missed.`,
		Example: `  cftrack ttl /news/today 10m
  cftrack ttl /old-page 0`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if len(args) != 2 {
				return usage("arguments", "cftrack ttl /news/today 10m", "ttl takes a path and a duration")
			}
			t, err := a.target()
			if err != nil {
				return err
			}
			path, err := recordable(args[0], t)
			if err != nil {
				return err
			}
			if args[1] == config.Forever {
				return usage("duration", "record it anew: cftrack record --ttl forever PATH", "ttl can shorten a life, not lengthen it")
			}
			d, err := config.ParseDuration(args[1])
			if err != nil {
				return usage("duration", config.DurationHint, "%v", err)
			}
			claim := inventory.TTLClaim
			if d == 0 {
				claim = func(at time.Time, _ time.Duration) inventory.Record { return inventory.RemovedClaim(at) }
			}
			o, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer o.close(&err)
			if err := o.store.Merge(cmd.Context(), o.id, []inventory.Update{{Path: path, Record: claim(o.now, d)}}); err != nil {
				return err
			}
			if a.json() {
				return a.printObject(struct {
					Path string  `json:"path"`
					TTL  float64 `json:"ttl"`
				}{path, d.Seconds()})
			}
			if d == 0 {
				a.say("%s counts as gone", path)
			} else {
				a.say("%s counts until %s at the latest", path, instant(o.now.Add(d)))
			}
			return nil
		},
	}
}

func newRemoveCmd(a *app) *cobra.Command {
	var sel selectorFlags
	cmd := &cobra.Command{
		Use:   "remove SELECTOR",
		Short: "Say that CloudFront no longer holds these paths",
		Long: `Take entries out of the inventory, without sending anything. It is your word:
what CloudFront holds of them all the same is then missed. Later responses count
anew. A pattern without * counts for its path even if it was never recorded.
` + selectorHelp,
		Example: `  cftrack remove /deleted-page
  cftrack remove '/tmp/*' --older-than 30d`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.remove(cmd, &sel, args) },
	}
	sel.add(cmd)
	return cmd
}

// removeBatch is how many claims are merged in one call.
const removeBatch = 5000

func (a *app) remove(cmd *cobra.Command, sel *selectorFlags, args []string) (err error) {
	o, err := a.open(cmd.Context())
	if err != nil {
		return err
	}
	defer o.close(&err)
	s, _, err := sel.read(a, args, o.target)
	if err != nil {
		return err
	}
	if err := required(s, args); err != nil {
		return err
	}
	claim := inventory.RemovedClaim(o.now)
	var updates []inventory.Update
	removed := 0
	flush := func() error {
		err := o.store.Merge(cmd.Context(), o.id, updates)
		updates = updates[:0]
		return err
	}
	add := func(path string) error {
		if updates = append(updates, inventory.Update{Path: path, Record: claim}); len(updates) < removeBatch {
			return nil
		}
		return flush()
	}
	seen := map[string]bool{}
	compiled, err := s.Compile()
	if err != nil {
		return err
	}
	for _, it := range compiled.Named() {
		if it.Kind == cfpath.Path {
			seen[it.Text] = false
		}
	}
	for e, err := range o.store.Scan(cmd.Context(), o.id, rangeOf(compiled, o)) {
		if err != nil {
			return err
		}
		if !compiled.Selects(&e, o.now) {
			continue
		}
		removed++
		if _, named := seen[e.Path]; named {
			seen[e.Path] = true
		}
		if err := add(e.Path); err != nil {
			return err
		}
	}
	for path, done := range seen {
		if !done {
			if err := add(path); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	if a.json() {
		return a.printObject(struct {
			Removed int `json:"removed"`
		}{removed})
	}
	a.say("removed %s", count(removed, "entry", "entries"))
	return nil
}
