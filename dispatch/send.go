// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// advance takes one step with an invalidation and returns how long the next one
// can wait.
func (d *Dispatcher) advance(ctx context.Context, l *leader, r *run, now time.Time) (time.Duration, error) {
	if r.inherited && !now.Before(r.notBefore) {
		if wait, err := d.recover(ctx, l, r, now); err != nil || wait > 0 {
			return wait, err
		}
	}
	for _, b := range r.batches {
		if b.Purged() && !b.Forgotten {
			return 0, d.forget(ctx, l, r, b)
		}
	}
	if r.inv.Cancel && !r.inv.State.Ended() {
		if b := r.recallable(); b != nil {
			return 0, d.recall(ctx, l, r, b, now)
		}
	}
	if now.Before(r.notBefore) {
		return r.notBefore.Sub(now), nil
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
		return d.follow(ctx, l, r)
	default:
		return d.sweep(ctx, l, r, now)
	}
}

// sending settles, plans and saves the next batch.
func (d *Dispatcher) sending(ctx context.Context, l *leader, r *run, now time.Time) (time.Duration, error) {
	if !r.queued {
		wait, err := d.fill(ctx, l, r, now)
		if err != nil || wait > 0 || r.inv.State.Ended() {
			return wait, err
		}
	}
	if len(r.queue.items) == 0 {
		r.inv.State, r.inv.Sent = journal.Propagating, true
		r.queue = queue{}
		return 0, l.lease.PutInvalidation(ctx, r.inv)
	}
	places, wait, err := d.choose(ctx, l, r, now)
	if err != nil || len(places) == 0 {
		return wait, err
	}
	needless, clean, err := d.check(ctx, l, r, places, now)
	switch {
	case err != nil:
		return 0, err
	case !clean:
		r.queued = false // something was sighted under a wildcard: plan again
		return 0, nil
	case len(needless) > 0:
		r.inv.Saved.Entries += r.queue.entries(needless)
		r.inv.Saved.Items += len(needless)
		r.inv.Planned.Dropped += len(needless)
		r.inv.Saved.Price = d.saved(r.inv)
		r.queue.remove(needless)
		return 0, l.lease.PutInvalidation(ctx, r.inv)
	}
	b := &journal.Batch{Sent: now, Repeat: !r.inv.Repeat.IsZero()}
	for _, i := range places {
		text := r.queue.items[i].item.String()
		b.Items = append(b.Items, text)
		b.Collateral += r.allowed[text]
	}
	if wait, err := d.reserve(ctx, l, r, b.Items, r.queue.entries(places), now); err != nil || wait > 0 {
		return wait, err
	}
	if err := d.saveBatch(ctx, l, r, b); err != nil {
		return 0, err
	}
	r.queue.remove(places)
	return 0, nil
}

// saveBatch writes a batch that was paid for.
func (d *Dispatcher) saveBatch(ctx context.Context, l *leader, r *run, b *journal.Batch) error {
	if err := l.lease.SaveBatch(ctx, r.inv, b, d.opts.Random()); err != nil {
		return err
	}
	r.sentAt = b.Sent
	r.batches = append(r.batches, b)
	r.attempts[b.Reference] = &attempt{paid: true}
	return nil
}

// fill plans from the inventory as it is now, less what this invalidation has
// sent already. A positive wait says that it is not time yet.
func (d *Dispatcher) fill(ctx context.Context, l *leader, r *run, now time.Time) (time.Duration, error) {
	inv := r.inv
	if !inv.Repeat.IsZero() {
		r.queue, r.queued = repetition(r.batches), true
		return 0, nil
	}
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
		if replaced(b) {
			continue // what was not left out stands in another one
		}
		for _, it := range b.Items {
			sent[it] = true
		}
	}
	r.queue, r.queued, r.others = queue{}, true, l.purges-r.purges
	r.queue.addPlan(p.Plan, sent)
	if inv.Planned != nil {
		// What a wildcard was to cover may have no other name.
		if p.addUncovered(inv) {
			return 0, l.lease.PutInvalidation(ctx, inv)
		}
		return 0, nil
	}
	inv.Planned = &journal.Planned{
		At: now, Items: p.Totals.Items, Selected: p.Totals.Selected, Entries: p.Totals.Entries,
		Price: p.Price(), FreePaths: p.FreePaths,
	}
	inv.Saved = p.Saved
	p.addUncovered(inv)
	if limit := inv.Options.MaxPrice; limit >= 0 && p.Price() > limit {
		return 0, d.stop(ctx, l, r, journal.CodePriceGuard, now,
			fmt.Sprintf("the plan costs $%.2f, over the limit of $%.2f; nothing was sent", p.Price(), limit))
	}
	why, err := d.admit(ctx, now, inv, p.Sends(), p.sentThisMonth)
	if err != nil {
		return 0, err
	}
	if why != "" {
		return 0, d.stop(ctx, l, r, journal.CodeBudget, now, "the plan is over the budget: "+why+"; nothing was sent")
	}
	return 0, l.lease.PutInvalidation(ctx, inv)
}

// addUncovered notes what a plan cannot cover, and tells whether that is new.
func (p *Preview) addUncovered(inv *journal.Invalidation) (added bool) {
	for _, u := range p.Uncovered {
		if !slices.ContainsFunc(inv.Planned.Uncovered, func(x journal.Refusal) bool { return x.Item == u.Path }) {
			inv.Planned.Uncovered = append(inv.Planned.Uncovered, journal.Refusal{Item: u.Path, Reason: u.Reason, Remedy: u.Remedy})
			added = true
		}
	}
	return added
}

// stop ends an invalidation before anything was sent.
func (d *Dispatcher) stop(ctx context.Context, l *leader, r *run, code string, now time.Time, why string) error {
	r.inv.Error, r.inv.ErrorCode = why, code
	return d.end(ctx, l, r, journal.Failed, now)
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

// choose picks what goes into the next batch, by its places in the queue, or says
// how long to wait.
func (d *Dispatcher) choose(ctx context.Context, l *leader, r *run, now time.Time) ([]int, time.Duration, error) {
	room, err := d.room(ctx, now)
	if err != nil {
		return nil, 0, err
	}
	atOnce := room.others // wildcards count among them
	free, learned := d.free(l)
	want := r.queue.load()
	// A few that fit are not worth a call while more is about to complete.
	if inflight := l.inProgress(); want.others > free.others && free.others < min(room.others, want.others)/4 && inflight.others > 0 {
		free.others = 0
	}
	windowed := want.others > 0 && free.others == 0 || want.wildcards > 0 && free.wildcards == 0
	free = r.despite(l, free, windowed, r.queue.wildcards > 0, now)
	room.others, room.wildcards = min(room.others, free.others), min(room.wildcards, free.wildcards)
	if learned { // one kind at a time, so that a refusal tells which there is no room for
		if wild := r.queue.items[0].item.Kind == cfpath.Wildcard; room.wildcards > 0 && (wild || room.others == 0 || want.others == 0) {
			room.others = 0
		} else {
			room.wildcards = 0
		}
	}
	t := throttle{float64(r.inv.Options.EntriesPerMinute)}
	t.settle(l.windows, now)
	places := r.queue.next(room, min(r.inv.Options.Batch, atOnce), t, l.windows.Entries)
	places, others := l.withoutSaved(r, places)
	if len(places) == 0 {
		switch {
		case others:
			return nil, idle / 4, nil
		case windowed:
			l.blocked = true
			return nil, idle, nil
		case room.wildcards == 0 && (room.others == 0 || want.others == 0):
			wait, err := d.wait(ctx, now, load{wildcards: 1}, 0)
			return nil, min(idle, max(time.Millisecond, wait)), err
		}
		return nil, min(idle, max(time.Millisecond, t.wait(l.windows.Entries, float64(r.queue.items[0].entries)))), nil
	}
	wait, err := d.wait(ctx, now, r.queue.loadAt(places), 1)
	if err != nil || wait == 0 {
		return places, 0, err
	}
	return nil, min(wait, idle), nil
}

// despite makes room for an item where others alone have held all of it for so long that
// it may never come: the window may be a limit that this account does not have, and
// if it is one, CloudFront says so, at no cost.
func (r *run) despite(l *leader, free load, full, wildcard bool, now time.Time) load {
	if !full || l.own().items() > 0 {
		r.full = time.Time{}
		return free
	}
	if r.full.IsZero() {
		r.full = now
	}
	if now.Sub(r.full) >= impatience {
		if wildcard {
			free.wildcards = max(1, free.wildcards)
		} else {
			free.others = max(1, free.others)
		}
	}
	return free
}

// withoutSaved leaves out what was looked up and stands in a batch of another
// invalidation that is about to be sent: it need not go out twice.
func (l *leader) withoutSaved(r *run, places []int) (left []int, some bool) {
	if r.inv.Fixed != nil { // a plan file is sent as it is
		return places, false
	}
	saved := make(map[string]bool)
	for _, other := range l.runs {
		if other == r {
			continue
		}
		for _, b := range other.batches {
			if b.State == journal.Saved || b.Purged() && !b.Forgotten {
				for _, it := range b.Items {
					saved[it] = true
				}
			}
		}
	}
	if len(saved) == 0 {
		return places, false
	}
	left = slices.DeleteFunc(places, func(i int) bool {
		q := &r.queue.items[i]
		return q.lookedUp && saved[q.item.String()]
	})
	return left, len(left) < len(places)
}

// reserve takes the tokens of a new batch and counts what it costs, before it is
// saved: whoever dies in between has lost tokens, and sent nothing too early.
func (d *Dispatcher) reserve(ctx context.Context, l *leader, r *run, items []string, entries int, now time.Time) (time.Duration, error) {
	wait, err := d.take(ctx, now, loadOf(items), 1, d.countSent(r.inv, len(items)))
	if err != nil || wait > 0 {
		return wait, err
	}
	if r.inv.Options.EntriesPerMinute == 0 {
		return 0, nil
	}
	l.windows.Entries += float64(entries)
	return 0, l.lease.PutWindows(ctx, l.windows)
}

// check looks once more at what was looked up: what has gone from the inventory
// meanwhile, since another batch has cleared it, need not be sent; and all that is
// under a wildcard must still be selected.
func (d *Dispatcher) check(ctx context.Context, l *leader, r *run, places []int, now time.Time) (needless []int, clean bool, err error) {
	inv := r.inv
	// A plan file is sent as it is; and what is to go out twice has to go out here.
	drop := inv.Fixed == nil && inv.Options.RepeatAfter == 0
	exact := drop && l.purges-r.purges != r.others
	gone := make(map[string]int) // exact items that were not found yet, with their place
	var first, last string
	for _, i := range places {
		q := &r.queue.items[i]
		if !q.lookedUp {
			continue
		}
		switch q.item.Kind {
		case cfpath.Wildcard:
			clean, some, err := d.cleanBelow(ctx, r, q.item, now)
			if err != nil || !clean {
				return nil, false, err
			}
			if !some && drop {
				needless = append(needless, i)
			}
		case cfpath.Path:
			if !exact {
				continue
			}
			if len(gone) == 0 || q.item.Text < first {
				first = q.item.Text
			}
			last = max(last, q.item.Text)
			gone[q.item.Text] = i
		}
	}
	if len(gone) == 0 {
		return needless, true, nil
	}
	for e, err := range d.journal.Store().Scan(ctx, d.journal.Distribution(), store.Range{From: first, Now: now}) {
		if err != nil {
			return nil, false, err
		}
		delete(gone, e.Path)
		if len(gone) == 0 || e.Path >= last {
			break
		}
	}
	for _, i := range gone {
		needless = append(needless, i)
	}
	slices.Sort(needless)
	return needless, true, nil
}

// end writes down how an invalidation ended.
func (d *Dispatcher) end(ctx context.Context, l *leader, r *run, s journal.State, now time.Time) error {
	r.inv.State, r.inv.Ended = s, now
	if err := d.settle(ctx, now, r.inv); err != nil {
		return err
	}
	return l.lease.PutInvalidation(ctx, r.inv)
}
