// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"context"
	"errors"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/journal"
)

// An attempt is what this dispatcher knows of a batch that it tries to get
// accepted, beyond the journal.
type attempt struct {
	paid bool // tokens were taken for the next call
	// unsure: somebody may yet make a call of this batch whose answer is not known:
	// one of ours was not answered, or it was saved before this dispatcher led.
	unsure   bool
	split    bool // it is part of one that was refused until it was split
	refusals int  // in a row
	since    time.Time
	last     time.Time
	// What was in progress at the last refusal, and how much had completed by then.
	inflight    load
	completions int
}

// held reports whether it is no use to try again yet: it was refused twice beside
// what is still in progress.
func (a *attempt) held(l *leader, now time.Time) bool {
	return a.refusals > 1 && a.inflight.items() > 0 && a.completions == l.completions && now.Sub(a.last) < impatience
}

// attempt returns what is known of a batch. One that was saved by another leader
// may be in the hands of somebody who sleeps.
func (r *run) attempt(b *journal.Batch) *attempt {
	a := r.attempts[b.Reference]
	if a == nil {
		a = &attempt{unsure: true}
		r.attempts[b.Reference] = a
	}
	return a
}

// send makes the call of a saved batch, for the first time or again, and writes
// down the answer. Every call is paid for: the first before the batch was saved.
func (d *Dispatcher) send(ctx context.Context, l *leader, r *run, b *journal.Batch, now time.Time) (time.Duration, error) {
	at := r.attempt(b)
	if at.held(l, now) {
		l.blocked = true
		return idle, nil
	}
	if !at.paid {
		wait, err := d.take(ctx, now, loadOf(b.Items), 1, nil)
		if err != nil || wait > 0 {
			return min(wait, idle), err
		}
	}
	at.paid = false
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
		at.unsure = true
		return 0, ctx.Err() // the batch stays saved; the same reference goes on
	}
	called := now
	now = d.clock.Now()
	if err == nil {
		return 0, d.accept(ctx, l, r, b, receipt, now.Sub(called), now)
	}
	d.opts.Logger.Warn("batch not accepted", "invalidation", r.inv.ID, "reference", b.Reference, "err", err)
	switch k := kind(err); {
	case k == Throttled || k == Busy:
		return d.pushedBack(ctx, l, r, b, err, now)
	case k.Passing():
		at.unsure = at.unsure || k == NoAnswer
		return r.off(now, err, d.opts.Random()), nil
	case (k == BadItem || k == TooLarge) && len(b.Items) > 1:
		return 0, d.split(ctx, l, r, b, err.Error(), now)
	case k == BadItem:
		return 0, d.badItem(ctx, l, r, b, err, now)
	default:
		// An answer that waiting does not mend. The batch stays saved: once the
		// cause is mended, resuming sends it under its reference.
		b.Error = err.Error()
		if e := l.lease.PutBatch(ctx, b); e != nil {
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

// accept writes down that CloudFront took a batch, and what that teaches.
func (d *Dispatcher) accept(ctx context.Context, l *leader, r *run, b *journal.Batch, receipt Receipt, took time.Duration, now time.Time) error {
	at := r.attempt(b)
	had := l.inProgress()
	b.State, b.InvalidationID, b.Accepted, b.Error = journal.Accepted, receipt.ID, now, ""
	if err := l.lease.PutBatch(ctx, b); err != nil {
		return err
	}
	r.calm()
	delete(r.attempts, b.Reference)
	l.purges++
	r.purges++
	l.looks.due[b.Reference] = now.Add(d.opts.FirstLook)
	return d.learn(ctx, l, at, loadOf(b.Items), had, took, now)
}

// learn adjusts rates and windows after a batch of that load was accepted while so
// much was in progress.
func (d *Dispatcher) learn(ctx context.Context, l *leader, at *attempt, sent, had load, took time.Duration, now time.Time) error {
	p := d.pacer()
	w := *l.windows
	// It was refused once beside what was in progress, and is taken beside the same:
	// what there was no room for was not that. The rate was too high.
	rate := at.refusals == 1 && l.completions == at.completions && at.inflight.items() > 0
	if !rate {
		if sent.others > 0 && near(had.others+sent.others, p.windows(&w).others) {
			accepted(&w.Items, now)
		}
		if sent.wildcards > 0 && near(had.wildcards+sent.wildcards, p.windows(&w).wildcards) {
			accepted(&w.Wildcards, now)
		}
	}
	if w.Items != l.windows.Items || w.Wildcards != l.windows.Wildcards {
		*l.windows = w
		if err := l.lease.PutWindows(ctx, l.windows); err != nil {
			return err
		}
	}
	late := at.refusals > 0 || at.split || took > idle/2
	return d.change(ctx, now, func(a *journal.Account) bool {
		before := *a
		if at.split {
			d.atMost(a, sent, now)
		} else if rate {
			d.slowItems(a, sent, now)
		} else if sent.items() > 0 {
			accepted(&a.Items.Learned, now)
			if sent.wildcards > 0 {
				accepted(&a.Wildcards.Learned, now)
			}
		}
		accepted(&a.Calls.Learned, now)
		if late {
			// It may have arrived only just now: what came in since it left is not there.
			items, wildcards, _ := p.capacity(a)
			a.Items.Tokens = min(a.Items.Tokens, items-float64(sent.items()))
			a.Wildcards.Tokens = min(a.Wildcards.Tokens, wildcards-float64(sent.wildcards))
		}
		return late || before.Items.Learned != a.Items.Learned || before.Wildcards.Learned != a.Wildcards.Learned ||
			before.Calls.Learned != a.Calls.Learned
	})
}

// atMost lowers the rates so that a request holds no more than one that was
// accepted, after larger ones were not.
func (d *Dispatcher) atMost(a *journal.Account, sent load, now time.Time) {
	lim := d.opts.Limits
	if n := float64(sent.items()) / (lim.ItemsPerSecond * lim.Burst); sent.others > 0 && n < share(&a.Items.Learned) {
		refused(&a.Items.Learned, n, leastItems/lim.ItemsPerSecond, now)
	}
	if n := float64(sent.wildcards) / (lim.WildcardsPerSecond * lim.Burst); sent.wildcards > 0 && n < share(&a.Wildcards.Learned) {
		refused(&a.Wildcards.Learned, n, leastWildcards/lim.WildcardsPerSecond, now)
	}
}

// near reports whether so much in progress says anything about a window.
func near(inProgress, window int) bool { return inProgress*5 >= window*4 }

// slowItems halves the rates of what a batch held.
func (d *Dispatcher) slowItems(a *journal.Account, sent load, now time.Time) {
	p := d.pacer()
	if sent.wildcards > 0 {
		p.slowDown(&a.Wildcards, d.opts.Limits.WildcardsPerSecond, leastWildcards, now)
	}
	if sent.others > 0 {
		p.slowDown(&a.Items, d.opts.Limits.ItemsPerSecond, leastItems, now)
	}
}

// impatience is how long a batch is refused before it is made smaller although
// something else is in progress, and how long it waits for that to complete.
const impatience = 30 * time.Second

// pushedBack puts a batch off that CloudFront has no room for now, and lowers what
// the refusal may be about. That does not show: AWS does not say which answer belongs to which
// quota, and others may be using them up. So what happens next tells.
//
//   - Taken soon after, beside the same in progress: the rate was too high (learn).
//   - Refused again beside the same: too much is in progress. The window closes below
//     that, and the batch waits until something completes.
//   - Refused with nothing in progress: the rate is halved; refused again, the batch
//     may be more than is ever taken at once, and is split.
func (d *Dispatcher) pushedBack(ctx context.Context, l *leader, r *run, b *journal.Batch, refusal error, now time.Time) (time.Duration, error) {
	at, n, throttled := r.attempt(b), loadOf(b.Items), kind(refusal) == Throttled
	inflight := l.inProgress()
	if n.others == 0 {
		inflight.others = 0
	}
	if n.wildcards == 0 {
		inflight.wildcards = 0
	}
	same := at.refusals > 0 && at.completions == l.completions
	at.refusals++
	if at.refusals == 1 {
		at.since = now
	}
	at.last, at.inflight, at.completions = now, inflight, l.completions
	l.looks.soon = true
	alone := inflight.items() == 0
	if !throttled && !alone && at.refusals > 1 && (same || at.refusals > 2) {
		win := d.pacer().windows(l.windows)
		if inflight.others > 0 {
			d.pacer().narrow(&l.windows.Items, win.others, inflight.others, now)
		}
		if inflight.wildcards > 0 {
			d.pacer().narrow(&l.windows.Wildcards, win.wildcards, inflight.wildcards, now)
		}
		if err := l.lease.PutWindows(ctx, l.windows); err != nil {
			return 0, err
		}
	}
	rate := !at.split && (throttled && at.refusals == 2 || !throttled && alone && at.refusals == 1)
	if throttled || rate {
		err := d.change(ctx, now, func(a *journal.Account) bool {
			if throttled {
				d.pacer().slowDown(&a.Calls, d.opts.Limits.CallsPerSecond, leastCalls, now)
			}
			if rate {
				d.slowItems(a, n, now)
			}
			return true
		})
		if err != nil {
			return 0, err
		}
	}
	enough := 3
	if at.split {
		enough = 2
	}
	if at.refusals >= enough && len(b.Items) > 1 && !at.unsure && (alone || now.Sub(at.since) >= impatience) {
		// It may be more than CloudFront ever takes at once. Nobody else has ever held
		// it, and every call of it was answered with a no: it will not be accepted.
		return 0, d.split(ctx, l, r, b, refusal.Error(), now)
	}
	return r.off(now, refusal, d.opts.Random()), nil
}
