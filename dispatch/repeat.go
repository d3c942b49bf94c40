// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"context"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/journal"
)

// repetition returns what is to go out once more and has not yet, since it last went out
// for the first time: every item that CloudFront took, but follow-ups that another of them
// reaches.
func repetition(batches []*journal.Batch) (q queue) {
	type sent struct {
		item        cfpath.Item
		last, again time.Time
		planned     bool
	}
	items := make(map[string]*sent)
	var order []*sent
	var repeated []*journal.Batch
	for _, b := range batches {
		if b.Repeat {
			repeated = append(repeated, b)
		}
		if !b.Repeat && !b.Purged() || replaced(b) {
			continue
		}
		for _, text := range b.Items {
			x := items[text]
			if x == nil {
				it, err := cfpath.ParseItem(text)
				if err != nil {
					continue // CloudFront took it; we cannot say what it is
				}
				x = &sent{item: it}
				items[text] = x
				order = append(order, x)
			}
			if b.Repeat { // one that is refused now is not tried again either
				x.again = later(x.again, b.Sent)
				continue
			}
			x.last, x.planned = later(x.last, b.Sent), x.planned || !b.FollowUp
		}
	}
	due := &journal.Batch{State: journal.Accepted, Sent: lastSent(batches).Add(1)} // later than all
	for _, x := range order {
		if x.planned && x.again.Before(x.last) && x.item.Kind == cfpath.Wildcard {
			due.Items = append(due.Items, x.item.String())
		}
	}
	reached := journal.NewHistory(append(repeated, due), nil)
	for _, x := range order {
		if !x.again.Before(x.last) {
			continue
		}
		if !x.planned {
			if at, ok := reached.Purged(x.item.Text); ok && at.After(x.last) {
				continue
			}
		}
		q.add(x.item, 1, false)
	}
	return q
}

// lastSent is when what CloudFront took last went out, repetitions apart.
func lastSent(batches []*journal.Batch) (last time.Time) {
	for _, b := range batches {
		if b.Purged() && !b.Repeat {
			last = later(last, b.Sent)
		}
	}
	return last
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// repeat waits until the items are due once more, and then has them sent. It
// reports whether there is nothing left of that to do.
func (d *Dispatcher) repeat(ctx context.Context, l *leader, r *run, now time.Time) (done bool, wait time.Duration, err error) {
	after := r.inv.Options.RepeatAfter
	if after <= 0 || r.inv.Cancel {
		return true, 0, nil
	}
	// A follow-up that came after that was said puts it off: all has completed only now.
	said := !r.inv.Repeat.IsZero() && !lastSent(r.batches).After(r.inv.Repeat.Add(-after))
	if wait := r.inv.Repeat.Sub(now); said && wait > 0 {
		// This is no delay of anybody's: the time-out of the sweep begins anew.
		r.sweepSince = now
		r.holding = []string{"the repetition, at " + r.inv.Repeat.UTC().Format(time.RFC3339)}
		return false, min(wait, idle), nil
	}
	q := repetition(r.batches)
	if len(q.items) == 0 {
		return true, 0, nil
	}
	if !said {
		r.inv.Repeat = now.Add(after)
		return false, 0, l.lease.PutInvalidation(ctx, r.inv)
	}
	r.queue, r.queued, r.barrier = q, true, nil
	r.inv.State, r.inv.Sent = journal.Sending, false
	return false, 0, l.lease.PutInvalidation(ctx, r.inv)
}

// repeats is how many items are yet to go out once more, with those that are about to go
// out as follow-ups.
func (r *run) repeats(followUps []string, now time.Time) int {
	if r.inv.Options.RepeatAfter <= 0 || r.inv.Cancel {
		return 0
	}
	next := &journal.Batch{Items: followUps, Sent: now, FollowUp: true, State: journal.Accepted}
	return len(repetition(append(r.batches[:len(r.batches):len(r.batches)], next)).items)
}
