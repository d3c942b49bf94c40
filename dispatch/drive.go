// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// A Goal says how far Drive goes.
type Goal uint8

const (
	// UntilDone drives to the end.
	UntilDone Goal = iota
	// UntilAccepted stops once CloudFront has accepted everything; who follows is
	// whoever drives next.
	UntilAccepted
)

const (
	// leaseFor is how long a dispatcher that died is waited for. It is renewed
	// when half is over, and no call to the CDN lasts longer than callTimeout.
	leaseFor    = 20 * time.Second
	callTimeout = 8 * time.Second

	// idle is how long a look at the journal may be put off.
	idle = time.Second

	// storeTimeout is how long Drive waits for a store that does not answer.
	storeTimeout = time.Minute

	// lookup is the age from which a saved batch is looked for at the CDN before
	// it is sent again: how long CloudFront remembers a reference is not known.
	lookup = time.Hour
)

// ErrUndone: something was left undone, but nothing is lost; a later Drive of
// the same invalidation goes on. The error that wraps it says what.
var ErrUndone = errors.New("left undone; nothing is lost")

// ErrGone: the store has lost the invalidation while it was driven. Nobody can go
// on with it; whether CloudFront got all of it is not known. Invalidating the same
// again is safe.
var ErrGone = errors.New("the store has lost the invalidation")

// Drive carries an invalidation out until the goal is reached, and with it,
// while it leads, whatever else is open for the distribution. progress, if not
// nil, is called in the same goroutine whenever something changed.
//
// When Drive returns an error, the report says how far things are, if it could
// be read. The error wraps [ErrUndone] where resuming helps. The invalidation
// itself having failed is not an error of Drive: the report's state says so.
func (d *Dispatcher) Drive(ctx context.Context, id string, goal Goal, progress func(*Report)) (*Report, error) {
	var (
		l      leader
		report *Report
		shown  string
		failed time.Time // since when the store has been unavailable, by the local clock
	)
	defer d.release(ctx, &l)
	for {
		r, wait, err := d.turn(ctx, &l, id)
		switch {
		case err == nil:
			report, failed = r, time.Time{}
			if s := fmt.Sprint(r.State, r.Items, r.FollowUps, r.Batches, r.Holding, r.Trouble); progress != nil && s != shown {
				progress(r)
				shown = s
			}
			if done, err := d.reached(r, goal, l.find(r.ID), d.clock.Now()); done {
				return r, err
			}
		case ctx.Err() != nil:
			return report, fmt.Errorf("%w: %s: %w", ErrUndone, id, ctx.Err())
		case errors.Is(err, journal.ErrNotFound) && report != nil:
			return report, fmt.Errorf("%w: %s, of which %d items were in batches; what CloudFront accepted of it is carried out: %w",
				ErrGone, id, report.Items, err)
		case errors.Is(err, store.ErrUnavailable):
			if failed.IsZero() {
				failed = time.Now()
			}
			if time.Since(failed) > storeTimeout {
				return report, fmt.Errorf("%w: %s: %w", ErrUndone, id, err)
			}
			d.opts.Logger.Warn("the store does not answer", "err", err)
			wait = idle
		default:
			return report, err
		}
		if err := pause(ctx, wait); err != nil {
			return report, fmt.Errorf("%w: %s: %w", ErrUndone, id, err)
		}
	}
}

// turn leads if it can, advances what is open, and reads how far id is.
func (d *Dispatcher) turn(ctx context.Context, l *leader, id string) (*Report, time.Duration, error) {
	now, err := d.now(ctx)
	if err != nil {
		return nil, 0, err
	}
	if err = d.lead(ctx, l, now); err != nil {
		return nil, 0, err
	}
	wait := idle
	if l.lease != nil {
		wait, err = d.round(ctx, l)
		if errors.Is(err, journal.ErrLeaseLost) {
			d.opts.Logger.Warn("another dispatcher took over")
			*l = leader{name: l.name}
		} else if err != nil {
			return nil, 0, err
		}
	}
	r, err := d.Status(ctx, id)
	if err != nil {
		return nil, 0, err
	}
	if mine := l.find(r.ID); mine != nil {
		r.Holding = append(r.Holding, mine.holding...)
		if mine.trouble != nil {
			r.Trouble = mine.trouble.Error()
		}
	}
	return r, wait, nil
}

// release gives the lease up, so that another need not wait for it to run out.
// The caller's context may be over; this courtesy has a bound of its own.
func (d *Dispatcher) release(ctx context.Context, l *leader) {
	if l.lease == nil {
		return
	}
	c, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := l.lease.Release(c); err != nil {
		d.opts.Logger.Info("lease not released; it runs out by itself", "err", err)
	}
}

// A leader is a dispatcher that holds the lease, if it does.
type leader struct {
	name  string
	lease *journal.Lease
	runs  map[uint64]*run
	after uint64    // all invalidations up to this one have ended
	lost  time.Time // when the store was last found to have lost data
}

// find returns the run of an ID, if it is open here.
func (l *leader) find(id string) *run {
	for _, r := range l.runs {
		if r.inv.ID == id {
			return r
		}
	}
	return nil
}

// reached decides whether Drive is over, and with what error.
func (d *Dispatcher) reached(r *Report, goal Goal, mine *run, now time.Time) (bool, error) {
	if r.State.Ended() {
		return true, nil
	}
	if goal == UntilAccepted && r.State != journal.Sending {
		return true, nil
	}
	if r.NotFollowed != "" {
		return true, fmt.Errorf("%w: everything was sent, but %s", ErrUndone, r.NotFollowed)
	}
	if mine == nil {
		return false, nil
	}
	if mine.trouble != nil && now.Sub(mine.troubleSince) > d.opts.GiveUp {
		return true, fmt.Errorf("%w: CloudFront has not taken a call for %s: %w", ErrUndone,
			now.Sub(mine.troubleSince).Round(time.Second), mine.trouble)
	}
	if r.State == journal.Sweeping && !mine.sweepSince.IsZero() &&
		now.Sub(mine.sweepSince) > mine.inv.Options.SweepTimeout && len(mine.holding) > 0 {
		return true, fmt.Errorf("%w: the sweep waits for %s", ErrUndone, mine.holding[0])
	}
	return false, nil
}

// lead renews the lease, or tries to get it.
func (d *Dispatcher) lead(ctx context.Context, l *leader, now time.Time) error {
	if l.lease == nil {
		if l.name == "" {
			l.name = d.opts.Holder + "/" + d.opts.Random() // one dispatcher may drive in several goroutines
		}
		lease, _, err := d.journal.Acquire(ctx, l.name, now, leaseFor)
		*l = leader{name: l.name, lease: lease, runs: make(map[uint64]*run)}
		if lease != nil && err == nil {
			l.lost, err = lease.DataLost(ctx, now)
		}
		return err
	}
	err := d.keep(ctx, l, now)
	if errors.Is(err, journal.ErrLeaseLost) {
		*l = leader{name: l.name}
		return nil
	}
	return err
}

// keep renews the lease when half of it is over.
func (d *Dispatcher) keep(ctx context.Context, l *leader, now time.Time) error {
	if l.lease.Until().Sub(now) > leaseFor/2 {
		return nil
	}
	if err := l.lease.Renew(ctx, now, leaseFor); err != nil {
		return err
	}
	var err error
	l.lost, err = l.lease.DataLost(ctx, now)
	return err
}

// round advances every open invalidation by one step and returns how long
// nothing needs to be done.
func (d *Dispatcher) round(ctx context.Context, l *leader) (time.Duration, error) {
	open, err := d.refresh(ctx, l)
	if err != nil {
		return 0, err
	}
	wait, ended := idle, false
	for _, r := range open {
		if err := d.keep(ctx, l, d.clock.Now()); err != nil {
			return 0, err
		}
		w, err := d.advance(ctx, l.lease, r, d.clock.Now())
		if err != nil {
			// Somebody changed it, or the answer to a write was lost and it was
			// changed by that: the journal knows.
			delete(l.runs, r.inv.Number)
		}
		if errors.Is(err, store.ErrConflict) {
			w, err = 0, nil
		}
		if err != nil {
			return 0, err
		}
		wait = min(wait, w)
		ended = ended || r.inv.State.Ended()
	}
	if ended {
		err = d.compact(ctx, l)
	}
	return max(0, wait), err
}

// compact has the journal forget what can no longer matter. That it could not is
// no reason to stop: another one will.
func (d *Dispatcher) compact(ctx context.Context, l *leader) error {
	c, err := l.lease.Compact(ctx, d.clock.Now(), d.opts.Rules.Longest())
	switch {
	case errors.Is(err, journal.ErrLeaseLost):
		return err
	case err != nil:
		d.opts.Logger.Warn("the journal was not compacted", "err", err)
	case c != journal.Compaction{}:
		d.opts.Logger.Info("the journal was compacted", "removed", c)
	}
	return nil
}

// A run is what the leader holds in memory of an open invalidation. All of it
// can be computed again from the journal.
type run struct {
	inv     *journal.Invalidation
	sel     *selector.Compiled
	batches []*journal.Batch

	inherited bool            // what CloudFront has of it is yet to be looked for
	seen      map[string]bool // IDs at CloudFront that are known not to matter

	queue  []queued // planned, in no batch yet
	queued bool
	bound  *binding // the plan file, if there is one and it was planned by

	lookBefore   time.Time // batches saved up to then are looked for before they are sent
	notBefore    time.Time // back-off
	tries        int
	trouble      error // the last passing error, until something succeeds
	troubleSince time.Time
	nextLook     map[string]time.Time // by reference

	earlier    []uint64 // open invalidations before this one, at its cut
	sweepSince time.Time
	barrier    map[string]bool // batches that completion waits for, by reference
	holding    []string
	reports    []journal.Report
	lost       map[string]bool // sessions already spoken for
	read       bool            // reports holds what there was
}

// refresh reads the open invalidations and returns their runs, oldest first. One
// that ended is open again when something unsettled was reported to it.
func (d *Dispatcher) refresh(ctx context.Context, l *leader) ([]*run, error) {
	unread, err := d.journal.Unread(ctx)
	if err != nil {
		return nil, err
	}
	for n := range unread {
		l.after = min(l.after, n-1)
	}
	invs, err := d.journal.Invalidations(ctx, l.after)
	if err != nil {
		return nil, err
	}
	var open []*run
	ended := true
	for _, inv := range invs {
		mark := unread[inv.Number]
		if inv.State.Ended() && (mark == 0 || inv.State == journal.Cancelled || inv.State == journal.Failed) {
			if mark != 0 { // what it left stale is known to whoever stopped it
				if err := l.lease.MarkRead(ctx, inv.Number, mark); err != nil {
					return nil, err
				}
			}
			delete(l.runs, inv.Number)
			if ended {
				l.after = max(l.after, inv.Number)
			}
			continue
		}
		ended = false
		r := l.runs[inv.Number]
		if r == nil {
			r = &run{nextLook: make(map[string]time.Time), lost: make(map[string]bool), seen: make(map[string]bool)}
			if r.sel, err = inv.Compile(); err != nil {
				return nil, fmt.Errorf("invalidation %s: %w", inv.ID, err)
			}
			if r.batches, err = d.journal.Batches(ctx, inv.Number); err != nil {
				return nil, err
			}
			r.inherited = d.inherits(inv, d.clock.Now())
			l.runs[inv.Number] = r
		}
		r.inv, r.lookBefore = inv, l.lost
		open = append(open, r)
	}
	return open, nil
}

// pause waits without holding anything.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
