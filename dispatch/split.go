// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"context"
	"slices"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/journal"
)

// halves splits a list; its wildcards from the others, if it has both.
func halves(items []string) [][]string {
	if len(items) < 2 {
		return [][]string{items}
	}
	if l := loadOf(items); l.wildcards > 0 && l.others > 0 {
		var wild, others []string
		for _, it := range items {
			if loadOf([]string{it}).wildcards > 0 {
				wild = append(wild, it)
			} else {
				others = append(others, it)
			}
		}
		return [][]string{others, wild}
	}
	mid := len(items) / 2
	return [][]string{items[:mid:mid], items[mid:]}
}

// split saves a batch anew, in halves, that CloudFront refuses as a whole. What is saved
// anew is looked at anew: wildcards that nobody typed and that reach by now what they
// did not when they were planned are left out. What they were for is planned again, or
// of a plan file reported.
func (d *Dispatcher) split(ctx context.Context, l *leader, r *run, b *journal.Batch, why string, now time.Time) error {
	left, hit, err := d.stillClean(ctx, r, b, now)
	if err != nil {
		return err
	}
	var lists [][]string
	if len(left) > 0 {
		lists = halves(left)
	}
	out := len(b.Items) - len(left)
	if out > 0 && r.inv.Fixed != nil {
		for _, it := range b.Items {
			if !slices.Contains(left, it) {
				r.inv.Refused = append(r.inv.Refused, journal.Refusal{Item: it, Reason: reachesMore})
			}
		}
	}
	if err := d.replace(ctx, l, r, b, why, now, hit, lists...); err != nil || out == 0 {
		return err
	}
	r.queued = false
	return d.giveBack(ctx, now, out)
}

// stillClean returns the items of a refused batch that may go out as they are, and how
// much each of them hits that nobody selected: together no more than the batch was
// planned to.
func (d *Dispatcher) stillClean(ctx context.Context, r *run, b *journal.Batch, now time.Time) (left []string, hit map[string]int, err error) {
	if b.FollowUp || b.Repeat {
		return b.Items, nil, nil // as it went out before
	}
	if r.inv.Fixed != nil && r.bound == nil { // planned by somebody else
		f, err := d.journal.Fixed(ctx, r.inv.Fixed)
		if err != nil {
			return nil, nil, err
		}
		if r.bound, err = bind(f, r.sel); err != nil {
			return nil, nil, err
		}
	}
	named := r.sel.Named() // they select all that they reach
	hit = make(map[string]int)
	spare := b.Collateral
	for _, text := range b.Items {
		it, err := cfpath.ParseItem(text)
		if err != nil || it.Kind != cfpath.Wildcard || slices.Contains(named, it) {
			left = append(left, text)
			continue
		}
		n, _, err := d.hitBelow(ctx, r, it, spare, now)
		if err != nil {
			return nil, nil, err
		}
		if n <= spare {
			left = append(left, text)
			hit[text] = n
			spare -= n
		}
	}
	return left, hit, nil
}

// replaced tells whether a batch was closed for others: what one of several items is, and
// one of one is not, whose item CloudFront refuses.
func replaced(b *journal.Batch) bool { return b.State == journal.BatchRefused && len(b.Items) > 1 }

// replace closes a batch that is not accepted any more, and saves others in its place;
// hit says how much each item hits that nobody selected.
func (d *Dispatcher) replace(ctx context.Context, l *leader, r *run, b *journal.Batch, why string, now time.Time,
	hit map[string]int, lists ...[]string) error {
	split := r.attempt(b).refusals > 0
	var instead []*journal.Batch
	for _, items := range lists {
		c := &journal.Batch{Items: items, Sent: now, FollowUp: b.FollowUp, Repeat: b.Repeat}
		for _, it := range items {
			c.Collateral += hit[it]
		}
		instead = append(instead, c)
	}
	if err := l.lease.Replace(ctx, r.inv, b, why, instead, d.opts.Random); err != nil {
		return err
	}
	for _, c := range instead {
		r.attempts[c.Reference] = &attempt{split: split}
	}
	delete(r.attempts, b.Reference)
	r.batches = append(r.batches, instead...)
	r.tries = 0
	return nil
}
