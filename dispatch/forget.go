// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"context"
	"strings"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// forget clears what an accepted batch surely removed from CloudFront: entries
// that its items confirmedly cover and that were last sighted before it was
// sent. The condition is checked by the store in the same step, so that what is
// sighted meanwhile stays. A repetition forgets nothing: what has come since the first
// round it removes only once.
func (d *Dispatcher) forget(ctx context.Context, l *leader, r *run, b *journal.Batch) error {
	if b.Repeat {
		b.Forgotten = true
		return l.lease.PutBatch(ctx, b)
	}
	before := b.Sent.Add(-r.inv.Options.Margin - d.clock.Skew())
	var conditions []store.Condition
	flush := func(atLeast int) error {
		if len(conditions) < atLeast {
			return nil
		}
		_, err := d.journal.Store().Clear(ctx, d.journal.Distribution(), conditions)
		conditions = conditions[:0]
		return err
	}
	tags := make(map[string]bool)
	for _, text := range b.Items {
		it, err := cfpath.ParseItem(text)
		if err != nil {
			continue // taken by CloudFront, but we cannot say what it covers
		}
		switch it.Kind {
		case cfpath.Tag:
			tags[strings.ToLower(it.Text)] = true
		case cfpath.Path:
			if it.MatchesSurely(text) && !d.opts.Rules.QueryInDoubt(text) {
				conditions = append(conditions, store.Condition{Path: text, Before: before})
			}
		case cfpath.Wildcard:
			rg := store.Range{Prefix: it.Text, Now: d.clock.Now()}
			for e, err := range d.journal.Store().Scan(ctx, d.journal.Distribution(), rg) {
				if err != nil {
					return err
				}
				if it.MatchesSurely(e.Path) && e.Last.Before(before) {
					conditions = append(conditions, store.Condition{Path: e.Path, Before: before})
				}
				if err := flush(1000); err != nil {
					return err
				}
			}
		}
		if err := flush(1000); err != nil {
			return err
		}
	}
	if len(tags) > 0 {
		for e, err := range d.journal.Store().Scan(ctx, d.journal.Distribution(), store.Range{Now: d.clock.Now()}) {
			if err != nil {
				return err
			}
			if !e.Mixed && anyTag(e.Tags, tags) {
				conditions = append(conditions, store.Condition{Path: e.Path, Before: before, Uniform: true})
			}
			if err := flush(1000); err != nil {
				return err
			}
		}
	}
	if err := flush(1); err != nil {
		return err
	}
	b.Forgotten = true
	return l.lease.PutBatch(ctx, b)
}

func anyTag(have []string, want map[string]bool) bool {
	for _, t := range have {
		if want[strings.ToLower(t)] {
			return true
		}
	}
	return false
}
