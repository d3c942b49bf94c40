// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/journal"
)

// A Lister is a CDN that can say what is in progress for a distribution, whoever
// sent it. One that cannot is asked for each invalidation by itself, and knows
// nothing of others'.
type Lister interface {
	// ListInvalidations returns a page of the invalidations, newest first; next
	// is the marker of the page after it, empty if there is none.
	ListInvalidations(ctx context.Context, distribution, marker string) (page []Receipt, next string, err error)
}

const (
	// pagesAtMost is how many pages of a list are read in one look, and getsAtMost
	// how many invalidations are asked for by themselves.
	pagesAtMost = 3
	getsAtMost  = 3
	// listEvery is how often the list is read where nothing of ours is in progress.
	listEvery = 10 * time.Second
)

// looks is when and how a leader asks CloudFront what has completed.
type looks struct {
	backoff
	due    map[string]time.Time // of accepted batches, by reference; none: at the first look
	next   time.Time            // the earliest time of the next look
	listed time.Time            // when the list was last read
	soon   bool                 // somebody else's invalidations may be in the way
	denied bool                 // the list may not be read
	// foreign are invalidations in progress that are not in the journal, by ID; the
	// load of one that was not asked for yet is zero.
	foreign map[string]load
	read    map[string]bool
	// beyond are batches, by reference, to which the list did not reach back. They are asked
	// for by themselves, in turns with the list: it costs all calls that there are.
	beyond map[string]bool
	turn   bool // theirs
}

func (k *looks) init() {
	k.due, k.foreign, k.read = make(map[string]time.Time), make(map[string]load), make(map[string]bool)
	k.beyond = make(map[string]bool)
}

// separate parts what is due into what the list reaches and what it does not.
func (k *looks) separate(due []*journal.Batch) (near, far []*journal.Batch) {
	for _, b := range due {
		if k.beyond[b.Reference] {
			far = append(far, b)
		} else {
			near = append(near, b)
		}
	}
	return near, far
}

// each calls f for every batch the leader has, and its run if it is open.
func (l *leader) each(f func(b *journal.Batch, r *run)) {
	for _, r := range l.runs {
		for _, b := range r.batches {
			f(b, r)
		}
	}
	for _, bs := range l.ended {
		for _, b := range bs {
			f(b, nil)
		}
	}
}

// inProgress counts what CloudFront is working on for the distribution, as far as
// is known.
func (l *leader) inProgress() load {
	n := l.own()
	for _, f := range l.looks.foreign {
		n = n.plus(f)
	}
	return n
}

// own is what of it is ours.
func (l *leader) own() (n load) {
	l.each(func(b *journal.Batch, _ *run) {
		if b.State == journal.Accepted {
			n = n.plus(loadOf(b.Items))
		}
	})
	return n
}

// free is how much more may be in progress, and whether CloudFront has taught that
// it is less than was configured.
func (d *Dispatcher) free(l *leader) (load, bool) {
	w, n := d.pacer().windows(l.windows), l.inProgress()
	return load{max(0, w.others-n.others), max(0, w.wildcards-n.wildcards)},
		share(&l.windows.Items) < 1 || share(&l.windows.Wildcards) < 1
}

// look asks after the batches that are due, all at once where the list can be
// read, and says how long to wait for the next look. It is made for all open invalidations
// together, at most once a second.
func (d *Dispatcher) look(ctx context.Context, l *leader, now time.Time) (time.Duration, error) {
	k := &l.looks
	var due []*journal.Batch
	wait := idle
	l.each(func(b *journal.Batch, r *run) {
		if b.State != journal.Accepted {
			return
		}
		at, ok := k.due[b.Reference]
		if !ok {
			at = b.Accepted.Add(d.opts.FirstLook)
		}
		if l.blocked {
			at = earliest(at, b.Accepted.Add(min(d.opts.FirstLook, 2*idle)), k.next)
		}
		if now.Before(at) {
			wait = min(wait, at.Sub(now))
			return
		}
		due = append(due, b)
	})
	list := k.soon || l.blocked && now.Sub(k.listed) >= listEvery || l.crowding(d) && now.Sub(k.listed) >= listEvery
	lister, can := d.cdn.(Lister)
	can = can && !k.denied
	if len(due) == 0 && !(list && can) {
		return wait, nil
	}
	if off := max(k.next.Sub(now), k.notBefore.Sub(now)); off > 0 {
		return min(wait, off), nil
	}
	if w, err := d.takeLook(ctx, l, now); err != nil || w > 0 {
		return min(wait, w), err
	}
	slices.SortFunc(due, func(a, b *journal.Batch) int { return a.Accepted.Compare(b.Accepted) })
	near, far := k.separate(due)
	listing := can && (len(near) > 1 || list)
	if k.turn = !k.turn; len(far) > 0 && (!listing || k.turn) {
		k.next = now.Add(idle)
		return 0, d.lookAt(ctx, l, far[0])
	}
	k.soon = false
	if listing {
		k.next = now.Add(idle)
		return d.lookAtList(ctx, l, lister, near)
	}
	if len(due) == 1 {
		k.next = now.Add(idle)
	}
	return 0, d.lookAt(ctx, l, near[0])
}

// takeLook takes a call for a look. While something is waiting to be sent it leaves
// calls for that: looks are many, and can be late.
func (d *Dispatcher) takeLook(ctx context.Context, l *leader, now time.Time) (wait time.Duration, err error) {
	p := d.pacer()
	sending := false
	for _, r := range l.runs {
		sending = sending || len(r.queue.items) > 0
	}
	err = d.change(ctx, now, func(a *journal.Account) bool {
		calls := 1
		if _, _, most := p.capacity(a); sending {
			calls = min(3, int(most))
		}
		if wait = p.wait(a, load{}, calls); wait > 0 {
			return false
		}
		p.take(a, load{}, 1)
		return true
	})
	return wait, err
}

// crowding reports whether what waits may meet the windows, so that it matters what
// others have in progress.
func (l *leader) crowding(d *Dispatcher) bool {
	var want load
	for _, r := range l.runs {
		if r.queued {
			want = want.plus(r.queue.load())
		}
	}
	if want == (load{}) {
		return false
	}
	w := d.pacer().windows(l.windows)
	want = want.plus(l.inProgress())
	return want.others > w.others/2 || want.wildcards > w.wildcards/2
}

// earliest returns the first of some instants.
func earliest(t time.Time, others ...time.Time) time.Time {
	for _, o := range others {
		if o.Before(t) {
			t = o
		}
	}
	return t
}

// lookAtList reads what is in progress.
func (d *Dispatcher) lookAtList(ctx context.Context, l *leader, lister Lister, due []*journal.Batch) (time.Duration, error) {
	k := &l.looks
	mine := make(map[string]*journal.Batch)
	owner := make(map[string]*run)
	l.each(func(b *journal.Batch, r *run) {
		if b.State == journal.Accepted {
			mine[b.InvalidationID], owner[b.InvalidationID] = b, r
		}
	})
	missing := len(due)
	open := make(map[string]bool)
	marker := ""
	for page := range pagesAtMost {
		if page > 0 {
			if w, err := d.take(ctx, d.clock.Now(), load{}, 1, nil); err != nil || w > 0 {
				break // the rest is asked for another time
			}
		}
		c, cancel := context.WithTimeout(ctx, callTimeout)
		receipts, next, err := lister.ListInvalidations(c, d.journal.Distribution(), marker)
		cancel()
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		now := d.clock.Now()
		if err != nil {
			if kind(err) == Denied {
				k.denied = true
				d.opts.Logger.Warn("invalidations of others are not seen, which may use up CloudFront's quotas", "err", err)
				return 0, nil
			}
			return d.lookFailed(ctx, now, k, err)
		}
		k.calm()
		for _, v := range receipts {
			b := mine[v.ID]
			if b == nil {
				if !v.Completed {
					open[v.ID] = true
				}
				continue
			}
			delete(k.beyond, b.Reference)
			if slices.Contains(due, b) {
				missing--
			}
			if err := d.seen(ctx, l, owner[v.ID], b, v.Completed, now); err != nil {
				return 0, err
			}
		}
		if marker = next; marker == "" || missing <= 0 {
			break
		}
	}
	now := d.clock.Now()
	k.listed = now
	return 0, d.lookAtOthers(ctx, l, due, open)
}

// lookAtOthers asks after what a list left open: batches of ours that were not in
// it, and how much others have in progress.
func (d *Dispatcher) lookAtOthers(ctx context.Context, l *leader, due []*journal.Batch, open map[string]bool) error {
	k := &l.looks
	for id := range k.foreign {
		if !open[id] {
			delete(k.foreign, id)
			delete(k.read, id)
			l.completions++
		}
	}
	gets := 0
	var left []*journal.Batch
	for _, b := range due {
		if b.State == journal.Accepted && !k.due[b.Reference].After(d.clock.Now()) {
			left = append(left, b)
			k.beyond[b.Reference] = true
		}
	}
	for _, b := range left[:min(len(left), getsAtMost)] {
		gets++
		if w, err := d.take(ctx, d.clock.Now(), load{}, 1, nil); err != nil || w > 0 {
			return err
		}
		if err := d.lookAt(ctx, l, b); err != nil {
			return err
		}
	}
	for id := range open {
		if _, known := k.foreign[id]; !known {
			k.foreign[id] = load{}
		}
		if k.read[id] || gets == getsAtMost {
			continue
		}
		gets++
		if w, err := d.take(ctx, d.clock.Now(), load{}, 1, nil); err != nil || w > 0 {
			return err
		}
		c, cancel := context.WithTimeout(ctx, callTimeout)
		v, err := d.cdn.GetInvalidation(c, d.journal.Distribution(), id)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil { // else it is asked for again, or has gone
			k.foreign[id], k.read[id] = load{v.Others, v.Wildcards}, true
		}
	}
	return nil
}

// lookAt asks after one batch.
func (d *Dispatcher) lookAt(ctx context.Context, l *leader, b *journal.Batch) error {
	c, cancel := context.WithTimeout(ctx, callTimeout)
	receipt, err := d.cdn.GetInvalidation(c, d.journal.Distribution(), b.InvalidationID)
	cancel()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	now := d.clock.Now()
	owner := l.runs[b.Invalidation()]
	k := kind(err)
	switch {
	case err == nil:
		l.looks.calm()
		return d.seen(ctx, l, owner, b, receipt.Completed, now)
	case k.Passing():
		// Another look at everything, later: what is wrong is not one batch.
		_, err := d.lookFailed(ctx, now, &l.looks, err)
		return err
	case k == NoInvalidation && now.Sub(b.Accepted) < time.Minute:
		// Reading may lag behind writing.
	default:
		why := err.Error()
		if ce, ok := errors.AsType[*Error](err); ok && ce.Hint != "" {
			why += ": " + ce.Hint
		}
		if err := d.notFollowed(ctx, l, b, "not followed: "+why); err != nil {
			return err
		}
	}
	return d.seen(ctx, l, owner, b, false, now)
}

// notFollowed says so on every invalidation that waits for a batch.
func (d *Dispatcher) notFollowed(ctx context.Context, l *leader, b *journal.Batch, why string) error {
	for _, r := range l.runs {
		waits := r.inv.Number == b.Invalidation() && r.inv.State == journal.Propagating || r.barrier[b.Reference]
		if !waits || r.inv.NotFollowed == why {
			continue
		}
		r.inv.NotFollowed = why
		r.changes++
		if err := l.lease.PutInvalidation(ctx, r.inv); err != nil {
			return err
		}
	}
	return nil
}

// lookFailed puts looks off.
func (d *Dispatcher) lookFailed(ctx context.Context, now time.Time, k *looks, err error) (time.Duration, error) {
	wait := k.off(now, err, d.opts.Random())
	if kind(err) != Throttled {
		return wait, nil
	}
	return wait, d.change(ctx, now, func(a *journal.Account) bool {
		d.pacer().slowDown(&a.Calls, d.opts.Limits.CallsPerSecond, leastCalls, now)
		return true
	})
}

// seen writes down how far a batch is; owner is its run, if it is open.
func (d *Dispatcher) seen(ctx context.Context, l *leader, owner *run, b *journal.Batch, completed bool, now time.Time) error {
	if !completed {
		l.looks.due[b.Reference] = now.Add(interval(now.Sub(b.Accepted)))
		return nil
	}
	next := *b
	next.State, next.Completed = journal.BatchDone, now
	if err := l.lease.PutBatch(ctx, &next); err != nil {
		return err
	}
	*b = next
	delete(l.looks.due, b.Reference)
	delete(l.looks.beyond, b.Reference)
	l.completions++
	if owner != nil {
		owner.changes++
	}
	return nil
}

// interval is how long to wait for the next look at a batch of that age.
func interval(age time.Duration) time.Duration {
	return min(max(2*time.Second, age/10), 20*time.Second)
}

// follow waits until CloudFront has processed all batches.
func (d *Dispatcher) follow(ctx context.Context, l *leader, r *run) (time.Duration, error) {
	for _, b := range r.batches {
		if b.State == journal.Accepted {
			return idle, nil
		}
	}
	r.inv.State, r.inv.NotFollowed = journal.Sweeping, ""
	return 0, l.lease.PutInvalidation(ctx, r.inv)
}
