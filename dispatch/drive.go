// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
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
		r, wait, err := d.turn(ctx, &l, id, report)
		switch {
		case err == nil:
			report, failed = r, time.Time{}
			if progress != nil {
				if s := r.digest(); s != shown {
					progress(r)
					shown = s
				}
			}
			if done, err := d.reached(r, goal, &l, d.clock.Now()); done {
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

// turn leads if it can, advances what is open, and says how far id is; last is
// what it said before.
func (d *Dispatcher) turn(ctx context.Context, l *leader, id string, last *Report) (*Report, time.Duration, error) {
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
	mine := l.find(id)
	if mine == nil { // somebody else's, or over
		r, err := d.Status(ctx, id)
		return r, wait, err
	}
	// While it leads, what it holds is what the journal says.
	r := last
	if r == nil || r.of != mine || r.changes != mine.changes {
		r = NewReport(mine.inv, mine.batches)
		r.of, r.changes = mine, mine.changes
	}
	next := *r
	next.Holding, next.Trouble = append([]string{}, mine.holding...), ""
	if t := l.trouble(mine); t != nil {
		next.Trouble = t.trouble.Error()
	}
	return &next, wait, nil
}

// release gives the lease up, so that another need not wait for it to run out.
// The caller's context may be over; this courtesy has a bound of its own.
func (d *Dispatcher) release(ctx context.Context, l *leader) {
	if l.lease == nil {
		return
	}
	c, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	for _, r := range l.runs {
		for _, b := range r.batches {
			if at := r.attempts[b.Reference]; b.State == journal.Saved && at != nil && !at.unsure {
				b.Idle = true // whoever goes on need not think that it is on its way
				if err := l.lease.PutBatch(c, b); err != nil {
					d.opts.Logger.Info("batch not let go of", "err", err)
					return
				}
			}
		}
	}
	if err := l.lease.Release(c); err != nil {
		d.opts.Logger.Info("lease not released; it runs out by itself", "err", err)
	}
}

// A leader is a dispatcher that holds the lease, if it does. What it keeps of the
// journal stays true while it leads: nobody else writes batches.
type leader struct {
	name  string
	lease *journal.Lease
	empty bool // the tokens have yet to be taken away, since the lease was another's
	runs  map[uint64]*run
	after uint64    // all invalidations up to this one have ended
	lost  time.Time // when the store was last found to have lost data
	// over are invalidations that have ended, and ended has their batches, where
	// they matter.
	over  map[uint64]bool
	ended map[uint64][]*journal.Batch
	// purges counts the batches accepted, and completions those completed, since
	// this dispatcher leads.
	purges, completions int

	windows *journal.Windows
	blocked bool // something waits for what is in progress to complete
	looks   looks
}

// find returns the run of an ID or number, if it is open here.
func (l *leader) find(id string) *run {
	for _, r := range l.runs {
		if r.inv.ID == id || strconv.FormatUint(r.inv.Number, 10) == id {
			return r
		}
	}
	return nil
}

// trouble is what keeps a run from going on, nil if nothing does.
func (l *leader) trouble(r *run) *backoff {
	if r.trouble != nil {
		return &r.backoff
	}
	if r.inv.State != journal.Sending && l.looks.trouble != nil {
		return &l.looks.backoff
	}
	return nil
}

// reached decides whether Drive is over, and with what error.
func (d *Dispatcher) reached(r *Report, goal Goal, l *leader, now time.Time) (bool, error) {
	if r.State.Ended() {
		return true, nil
	}
	if goal == UntilAccepted && r.State != journal.Sending {
		return true, nil
	}
	if r.NotFollowed != "" {
		return true, fmt.Errorf("%w: everything was sent, but %s", ErrUndone, r.NotFollowed)
	}
	mine := l.find(r.ID)
	if mine == nil {
		return false, nil
	}
	if t := l.trouble(mine); t != nil && now.Sub(t.troubleSince) > d.opts.GiveUp {
		return true, fmt.Errorf("%w: CloudFront has not taken a call for %s: %w", ErrUndone,
			now.Sub(t.troubleSince).Round(time.Second), t.trouble)
	}
	if r.State == journal.Sweeping && !mine.sweepSince.IsZero() &&
		now.Sub(mine.sweepSince) > mine.inv.Options.SweepTimeout && len(mine.holding) > 0 {
		return true, fmt.Errorf("%w: the sweep waits for %s", ErrUndone, mine.holding[0])
	}
	return false, nil
}

// lead renews the lease, or tries to get it.
func (d *Dispatcher) lead(ctx context.Context, l *leader, now time.Time) error {
	if l.lease != nil {
		err := d.keep(ctx, l, now)
		if errors.Is(err, journal.ErrLeaseLost) {
			*l = leader{name: l.name}
			return nil
		}
		return err
	}
	if l.name == "" {
		l.name = d.opts.Holder + "/" + d.opts.Random() // one dispatcher may drive in several goroutines
	}
	lease, _, err := d.journal.Acquire(ctx, l.name, now, leaseFor)
	if err != nil {
		l.empty = true // it may have been taken over all the same
		return err
	}
	if lease == nil {
		return nil
	}
	if l.empty = l.empty || lease.TookOver(); l.empty {
		// Whoever led may yet send what it saved: nothing goes out beside that
		// before the rates have room for both.
		err := d.change(ctx, now, func(a *journal.Account) bool {
			d.pacer().empty(a, now)
			return true
		})
		if err != nil {
			return err
		}
		l.empty = false
	}
	lost, err := lease.DataLost(ctx, now)
	if errors.Is(err, journal.ErrLeaseLost) {
		return nil // it slept in between
	} else if err != nil {
		return err
	}
	windows, err := d.journal.Windows(ctx)
	if err != nil {
		return err
	}
	*l = leader{name: l.name, lease: lease, lost: lost, windows: windows, runs: make(map[uint64]*run),
		over: make(map[uint64]bool), ended: make(map[uint64][]*journal.Batch)}
	l.looks.init()
	return nil
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

// round looks after what is in progress, advances every open invalidation by one
// step, and returns how long nothing needs to be done.
func (d *Dispatcher) round(ctx context.Context, l *leader) (time.Duration, error) {
	open, err := d.refresh(ctx, l)
	if err != nil {
		return 0, err
	}
	wait, err := d.look(ctx, l, d.clock.Now())
	if err != nil {
		l.forgetAll()
		if errors.Is(err, store.ErrConflict) {
			return 0, nil
		}
		return 0, err
	}
	l.blocked = false
	ended := false
	// Whoever has waited longest for its turn to send comes first.
	slices.SortStableFunc(open, func(a, b *run) int { return a.sentAt.Compare(b.sentAt) })
	for _, r := range open {
		if err := d.keep(ctx, l, d.clock.Now()); err != nil {
			return 0, err
		}
		w, err := d.advance(ctx, l, r, d.clock.Now())
		if w == 0 || err != nil {
			r.changes++
		}
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

// forgetAll has everything read again.
func (l *leader) forgetAll() {
	clear(l.runs)
	clear(l.over)
	clear(l.ended)
	l.after = 0
}

// A run is what the leader holds in memory of an open invalidation. All of it
// can be computed again from the journal.
type run struct {
	inv     *journal.Invalidation
	sel     *selector.Compiled
	batches []*journal.Batch
	changes int // counts steps, so that a report is made anew only when it is

	inherited bool            // what CloudFront has of it is yet to be looked for
	seen      map[string]bool // IDs at CloudFront that are known not to matter

	queue    queue // planned, in no batch yet
	queued   bool
	sentAt   time.Time // when its last batch was saved
	full     time.Time // since when others leave no room in progress for what is next
	others   int       // the leader's count of others' purges when it was planned
	purges   int       // own batches accepted
	attempts map[string]*attempt
	bound    *binding       // the plan file, if there is one and it was planned by
	allowed  map[string]int // how many entries that nobody selected an item was planned to reach

	lookBefore time.Time // batches saved up to then are looked for before they are sent
	backoff

	earlier    []uint64 // open invalidations before this one, at its cut
	sweepSince time.Time
	barrier    map[string]bool // batches that completion waits for, by reference
	holding    []string
	reports    []journal.Report
	lost       map[string]bool // sessions already spoken for
	read       bool            // reports holds what there was
	history    *journal.History
	historyOf  int // the leader's purges that history knows of
}

// A backoff is how calls are put off while they fail.
type backoff struct {
	notBefore    time.Time
	tries        int
	trouble      error // the last passing error, until something succeeds
	troubleSince time.Time
}

// off puts the next call off: 0.5 s, doubled each time up to 30 s, and between
// half and all of that by chance.
func (b *backoff) off(now time.Time, err error, random string) time.Duration {
	if b.trouble == nil {
		b.troubleSince = now
	}
	b.trouble = err
	wait := min(500*time.Millisecond<<min(b.tries, 8), 30*time.Second)
	b.tries++
	var h uint32 = 2166136261 // FNV-1a spreads the random word over the interval
	for i := range len(random) {
		h = (h ^ uint32(random[i])) * 16777619
	}
	wait = wait/2 + time.Duration(h%1024)*wait/2/1024
	b.notBefore = now.Add(wait)
	return wait
}

func (b *backoff) calm() { *b = backoff{} }

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
	there := make(map[uint64]bool, len(invs))
	for _, inv := range invs {
		there[inv.Number] = true
		mark := unread[inv.Number]
		if inv.State.Ended() && (mark == 0 || inv.State == journal.Cancelled || inv.State == journal.Failed) {
			if mark != 0 { // what it left stale is known to whoever stopped it
				if err := l.lease.MarkRead(ctx, inv.Number, mark); err != nil {
					return nil, err
				}
			}
			if err := d.retire(ctx, l, inv); err != nil {
				return nil, err
			}
			if ended {
				l.after = max(l.after, inv.Number)
			}
			continue
		}
		ended = false
		if err := d.journal.Load(ctx, inv); err != nil {
			return nil, err
		}
		r := l.runs[inv.Number]
		if r != nil && !inv.Follows(r.inv) {
			// The store went back in time: nothing that is remembered holds any more.
			return nil, journal.ErrLeaseLost
		}
		if r == nil {
			if r, err = d.begin(ctx, l, inv); err != nil {
				return nil, err
			}
			if r == nil {
				continue
			}
		}
		r.inv, r.lookBefore = inv, l.lost
		open = append(open, r)
	}
	for n := range l.runs {
		if !there[n] {
			// Gone, with the lease perhaps that was held: another one may have its version.
			return nil, journal.ErrLeaseLost
		}
	}
	return open, nil
}

// begin takes an invalidation up. One that cannot be read fails, and with it
// nothing else: it returns nil.
func (d *Dispatcher) begin(ctx context.Context, l *leader, inv *journal.Invalidation) (*run, error) {
	r := &run{inv: inv, lost: make(map[string]bool), seen: make(map[string]bool), attempts: make(map[string]*attempt)}
	var err error
	if r.sel, err = inv.Compile(); err != nil {
		inv.Error, inv.ErrorCode = err.Error(), journal.CodeUnreadable
		inv.State, inv.Ended = journal.Failed, d.clock.Now()
		if err := l.lease.PutInvalidation(ctx, inv); err != nil && !errors.Is(err, store.ErrConflict) {
			return nil, err
		}
		d.opts.Logger.Error("an invalidation cannot be carried out", "invalidation", inv.ID, "err", err)
		return nil, nil
	}
	if r.batches, err = d.journal.Batches(ctx, inv.Number); err != nil {
		return nil, err
	}
	for _, b := range r.batches {
		if b.State == journal.Saved && b.Idle {
			b.Idle = false
			if err := l.lease.PutBatch(ctx, b); err != nil {
				return nil, err
			}
			r.attempts[b.Reference] = &attempt{}
		}
	}
	r.inherited = d.inherits(inv, d.clock.Now())
	delete(l.ended, inv.Number)
	delete(l.over, inv.Number)
	l.runs[inv.Number] = r
	return r, nil
}

// retire lets go of an invalidation that is over. What a stopped one had sent
// goes on being looked after: it is in progress, and others may wait for it.
func (d *Dispatcher) retire(ctx context.Context, l *leader, inv *journal.Invalidation) error {
	l.over[inv.Number] = true
	if r := l.runs[inv.Number]; r != nil {
		l.ended[inv.Number] = r.batches
		delete(l.runs, inv.Number)
	}
	stopped := inv.State == journal.Cancelled || inv.State == journal.Failed
	if _, known := l.ended[inv.Number]; known || !stopped || inv.Batches == 0 || d.clock.Now().Sub(inv.Ended) > lookup {
		return nil
	}
	bs, err := d.journal.Batches(ctx, inv.Number)
	l.ended[inv.Number] = bs
	return err
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
