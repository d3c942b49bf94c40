// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/plan"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// A queued item was planned and stands in no batch yet.
type queued struct {
	item     cfpath.Item
	lookedUp bool // not typed by the user
}

// advance takes one step with an invalidation and returns how long the next one
// can wait.
func (d *Dispatcher) advance(ctx context.Context, l *journal.Lease, r *run, now time.Time) (time.Duration, error) {
	if now.Before(r.notBefore) {
		return r.notBefore.Sub(now), nil
	}
	if r.inherited {
		if wait, err := d.recover(ctx, l, r, now); err != nil || wait > 0 {
			return wait, err
		}
	}
	for _, b := range r.batches {
		if b.Purged() && !b.Forgotten {
			return 0, d.forget(ctx, l, r, b)
		}
	}
	for _, b := range r.batches {
		if b.State == journal.Saved {
			return d.send(ctx, l, r, b, now)
		}
	}
	switch {
	case r.inv.Cancel && !r.inv.State.Ended():
		return 0, d.end(ctx, l, r, journal.Cancelled, now)
	case r.inv.State == journal.Sending:
		return d.sending(ctx, l, r, now)
	case r.inv.State == journal.Propagating:
		return d.follow(ctx, l, r, now)
	default:
		return d.sweep(ctx, l, r, now)
	}
}

// sending settles, plans and saves the next batch.
func (d *Dispatcher) sending(ctx context.Context, l *journal.Lease, r *run, now time.Time) (time.Duration, error) {
	if !r.queued {
		wait, err := d.queue(ctx, l, r, now)
		if err != nil || wait > 0 || r.inv.State.Ended() {
			return wait, err
		}
	}
	if len(r.queue) == 0 {
		r.inv.State, r.inv.Sent = journal.Propagating, true
		return 0, l.PutInvalidation(ctx, r.inv)
	}
	if wait := d.pace.wait(now); wait > 0 {
		return wait, nil
	}
	next, rest := d.pace.take(r.queue, r.inv.Options.Batch)
	if ok, err := d.stillClean(ctx, r, next, now); err != nil {
		return 0, err
	} else if !ok {
		r.queued = false // something was sighted under a wildcard: plan again
		return 0, nil
	}
	b := &journal.Batch{Sent: now}
	for _, q := range next {
		b.Items = append(b.Items, q.item.String())
	}
	if err := l.SaveBatch(ctx, r.inv, b, d.opts.Random()); err != nil {
		return 0, err
	}
	r.batches = append(r.batches, b)
	r.queue = rest
	return 0, nil
}

// queue plans from the inventory as it is now, less what this invalidation has
// sent already. A positive wait says that it is not time yet.
func (d *Dispatcher) queue(ctx context.Context, l *journal.Lease, r *run, now time.Time) (time.Duration, error) {
	inv := r.inv
	settled := inv.Opened.Add(inv.Options.Settle)
	if now.Before(settled) {
		// Waiting saves follow-ups only where something can still arrive.
		live, err := d.liveSessions(ctx, now)
		if err != nil {
			return 0, err
		}
		if live {
			return settled.Sub(now), nil
		}
	}
	own := journal.NewHistory(r.batches, d.opts.Rules.QueryInDoubt)
	p, err := d.planOpen(ctx, r, now, func(e *inventory.Entry) bool {
		_, sent := own.PurgedAll(e)
		return sent
	})
	if err != nil {
		return 0, err
	}
	if wait := p.Young.Add(inv.Options.Settle).Sub(now); wait > 0 && now.Before(settled) {
		return min(wait, settled.Sub(now)), nil
	}
	if err := d.keepToPlan(ctx, l, r, p, now); err != nil || inv.State.Ended() {
		return 0, err
	}
	sent := make(map[string]bool)
	for _, x := range inv.Refused {
		sent[x.Item] = inv.Fixed != nil
	}
	for _, b := range r.batches {
		for _, it := range b.Items {
			sent[it] = true
		}
	}
	r.queue, r.queued = nil, true
	for _, it := range p.Items {
		if !sent[it.Item.String()] {
			r.queue = append(r.queue, queued{it.Item, it.Reason.Code != plan.ReasonNamed})
		}
	}
	if inv.Planned != nil {
		return 0, nil
	}
	inv.Planned = &journal.Planned{
		At: now, Items: p.Totals.Items, Selected: p.Totals.Selected, Entries: p.Totals.Entries,
		Price: p.Totals.Price, FreePaths: p.FreePaths,
	}
	for _, u := range p.Uncovered {
		inv.Planned.Uncovered = append(inv.Planned.Uncovered,
			journal.Refusal{Item: u.Path, Reason: u.Reason, Remedy: u.Remedy})
	}
	if limit := inv.Options.MaxPrice; limit >= 0 && p.Totals.Price > limit {
		inv.Error = fmt.Sprintf("the plan costs $%.2f, over the limit of $%.2f; nothing was sent", p.Totals.Price, limit)
		inv.ErrorCode = journal.CodePriceGuard
		return 0, d.end(ctx, l, r, journal.Failed, now)
	}
	return 0, l.PutInvalidation(ctx, inv)
}

func (d *Dispatcher) liveSessions(ctx context.Context, now time.Time) (bool, error) {
	sessions, err := d.journal.Sessions(ctx)
	for _, s := range sessions {
		if !s.Lost(now) {
			return true, err
		}
	}
	return false, err
}

// stillClean looks once more under each wildcard that nobody typed: all that is
// there must still be selected.
func (d *Dispatcher) stillClean(ctx context.Context, r *run, items []queued, now time.Time) (bool, error) {
	for _, q := range items {
		if !q.lookedUp || q.item.Kind != cfpath.Wildcard {
			continue
		}
		if clean, err := d.cleanBelow(ctx, r, q.item, now); err != nil || !clean {
			return false, err
		}
	}
	return true, nil
}

// send makes the call of a saved batch, for the first time or again, and writes
// down the answer.
func (d *Dispatcher) send(ctx context.Context, l *journal.Lease, r *run, b *journal.Batch, now time.Time) (time.Duration, error) {
	c, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var receipt Receipt
	var found bool
	var err error
	if now.Sub(b.Sent) > lookup || !b.Sent.After(r.lookBefore) {
		receipt, found, err = d.cdn.FindInvalidation(c, d.journal.Distribution(), b.Reference, b.Sent.Add(-lookup))
		if kind(err) == Denied {
			err = nil // then the reference is all there is
		}
	}
	if err == nil && !found {
		receipt, err = d.cdn.CreateInvalidation(c, d.journal.Distribution(), b.Reference, b.Items)
	}
	if ctx.Err() != nil {
		return 0, ctx.Err() // the batch stays saved; the same reference goes on
	}
	now = d.clock.Now()
	if err == nil {
		r.calm()
		d.pace.sent(now, b.Items, d.limits())
		b.State, b.InvalidationID, b.Accepted, b.Error = journal.Accepted, receipt.ID, now, ""
		r.nextLook[b.Reference] = now.Add(d.opts.FirstLook)
		return 0, l.PutBatch(ctx, b)
	}
	d.opts.Logger.Warn("batch not accepted", "invalidation", r.inv.ID, "reference", b.Reference, "err", err)
	switch k := kind(err); {
	case k.Passing():
		// Smaller batches help against too much in progress, not against too
		// many calls; and one refusal may only mean that it was a moment early.
		if k == Busy && r.tries == 1 {
			d.pace.shrink()
		}
		return r.backOff(now, err, d.opts.Random()), nil
	case (k == BadItem || k == TooLarge) && len(b.Items) > 1:
		mid := len(b.Items) / 2
		halves, e := l.Replace(ctx, r.inv, b, err.Error(), now, [][]string{b.Items[:mid:mid], b.Items[mid:]}, d.opts.Random)
		if e != nil {
			return 0, e
		}
		r.batches = append(r.batches, halves...)
		return 0, nil
	case k == BadItem:
		b.State, b.Error = journal.BatchRefused, err.Error()
		if e := l.PutBatch(ctx, b); e != nil {
			return 0, e
		}
		d.refuse(r, b.Items[0], "refused by CloudFront: "+err.Error())
		return 0, l.PutInvalidation(ctx, r.inv)
	default:
		// An answer that waiting does not mend. The batch stays saved: once the
		// cause is mended, resuming sends it under its reference.
		b.Error = err.Error()
		if e := l.PutBatch(ctx, b); e != nil {
			return 0, e
		}
		r.inv.Error, r.inv.ErrorCode = err.Error(), "cloudfront"
		var ce *Error
		if errors.As(err, &ce) {
			if ce.Code != "" {
				r.inv.ErrorCode = ce.Code
			}
			if ce.Hint != "" {
				r.inv.Error += ": " + ce.Hint
			}
		}
		return 0, d.end(ctx, l, r, journal.Failed, now)
	}
}

func kind(err error) Kind {
	var ce *Error
	if errors.As(err, &ce) {
		return ce.Kind
	}
	return NoAnswer
}

// backOff puts the next call off: 0.5 s, doubled each time up to 30 s, and
// between half and all of that by chance.
func (r *run) backOff(now time.Time, err error, random string) time.Duration {
	if r.trouble == nil {
		r.troubleSince = now
	}
	r.trouble = err
	wait := min(500*time.Millisecond<<min(r.tries, 8), 30*time.Second)
	r.tries++
	var h uint32 = 2166136261 // FNV-1a spreads the random word over the interval
	for i := range len(random) {
		h = (h ^ uint32(random[i])) * 16777619
	}
	wait = wait/2 + time.Duration(h%1024)*wait/2/1024
	r.notBefore = now.Add(wait)
	return wait
}

func (r *run) calm() { r.trouble, r.tries, r.notBefore = nil, 0, time.Time{} }

// forget clears what an accepted batch surely removed from CloudFront: entries
// that its items confirmedly cover and that were last sighted before it was
// sent. The condition is checked by the store in the same step, so that what is
// sighted meanwhile stays.
func (d *Dispatcher) forget(ctx context.Context, l *journal.Lease, r *run, b *journal.Batch) error {
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
	return l.PutBatch(ctx, b)
}

func anyTag(have []string, want map[string]bool) bool {
	for _, t := range have {
		if want[strings.ToLower(t)] {
			return true
		}
	}
	return false
}

// follow asks after the batches that CloudFront is still working on.
func (d *Dispatcher) follow(ctx context.Context, l *journal.Lease, r *run, now time.Time) (time.Duration, error) {
	wait, open, err := d.look(ctx, l, r, r.batches, now)
	if err != nil || open {
		return wait, err
	}
	r.inv.State, r.inv.NotFollowed = journal.Sweeping, ""
	return 0, l.PutInvalidation(ctx, r.inv)
}

// look asks after each accepted batch that is due, and says how long to wait for
// the next and whether any is still open.
func (d *Dispatcher) look(ctx context.Context, l *journal.Lease, r *run, batches []*journal.Batch, now time.Time) (time.Duration, bool, error) {
	wait, open := idle, false
	for _, b := range batches {
		if b.State != journal.Accepted {
			continue
		}
		due, ok := r.nextLook[b.Reference]
		if !ok {
			due = b.Accepted.Add(d.opts.FirstLook)
		}
		if now.Before(due) {
			wait, open = min(wait, due.Sub(now)), true
			continue
		}
		c, cancel := context.WithTimeout(ctx, callTimeout)
		receipt, err := d.cdn.GetInvalidation(c, d.journal.Distribution(), b.InvalidationID)
		cancel()
		if ctx.Err() != nil {
			return 0, true, ctx.Err()
		}
		now = d.clock.Now()
		switch k := kind(err); {
		case err == nil && receipt.Completed:
			r.calm()
			b.State, b.Completed = journal.BatchDone, now
			if err := l.PutBatch(ctx, b); err != nil {
				return 0, true, err
			}
			continue
		case err == nil:
			r.calm()
		case k.Passing():
			// Another look at everything, later: what is wrong is not one batch.
			return r.backOff(now, err, d.opts.Random()), true, nil
		case k == NoInvalidation && now.Sub(b.Accepted) < time.Minute:
			// Reading may lag behind writing.
		default:
			var ce *Error
			why := err.Error()
			if errors.As(err, &ce) && ce.Hint != "" {
				why += ": " + ce.Hint
			}
			if why != r.inv.NotFollowed {
				r.inv.NotFollowed = "not followed: " + why
				return idle, true, l.PutInvalidation(ctx, r.inv)
			}
		}
		r.nextLook[b.Reference] = now.Add(interval(now.Sub(b.Accepted)))
		open = true
	}
	return wait, open, nil
}

// interval is how long to wait for the next look at a batch of that age.
func interval(age time.Duration) time.Duration {
	return min(max(2*time.Second, age/10), 20*time.Second)
}

// end writes down how an invalidation ended.
func (d *Dispatcher) end(ctx context.Context, l *journal.Lease, r *run, s journal.State, now time.Time) error {
	r.inv.State, r.inv.Ended = s, now
	return l.PutInvalidation(ctx, r.inv)
}
