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

// sweep waits until no recorder holds anything from before the cut, sends again
// what may have reached CloudFront after its batch, and completes.
//
// Completion is decided in one look: every live session has acknowledged, every
// report is settled, and all batches that were accepted for the distribution
// when these two became true are Completed.
func (d *Dispatcher) sweep(ctx context.Context, l *leader, r *run, now time.Time) (time.Duration, error) {
	if r.sweepSince.IsZero() {
		r.sweepSince = now
	}
	margin := r.inv.Options.Margin + d.clock.Skew()
	// A recorder reports and acknowledges in one write: whoever sees the
	// acknowledgement first and reads the reports afterwards sees both.
	sessions, err := d.journal.Sessions(ctx)
	if err != nil {
		return 0, err
	}
	if err := d.readReports(ctx, l, r); err != nil {
		return 0, err
	}
	r.holding = nil
	var lost []*journal.Session
	for _, s := range sessions {
		switch {
		case s.HasAcked(r.inv.Number):
		case s.Lost(now):
			lost = append(lost, s)
		default:
			r.holding = append(r.holding, "recorder "+s.Recorder)
		}
	}
	// After the sessions: one that is declared dead moves from there to here.
	gaps, err := d.journal.Gaps(ctx)
	if err != nil {
		return 0, err
	}
	for _, g := range gaps {
		if g.Owes(r.inv.Number) {
			lost = append(lost, &journal.Session{ID: g.ID})
		}
	}
	all, err := d.relevant(ctx, l, r)
	if err != nil {
		return 0, err
	}
	if r.history == nil || r.historyOf != l.purges {
		r.history, r.historyOf = journal.NewHistory(journal.WithoutRepeats(all), d.opts.Rules.QueryInDoubt), l.purges
	}
	history := r.history
	if err := d.reportForLost(ctx, l, r, lost, history, margin, now); err != nil {
		return 0, err
	}
	var due []string
	wait, refused := idle, false
	for _, rep := range r.reports {
		settled := history.Settles(rep.Path, rep.End, margin)
		if settled && r.settledBeside(history, rep, margin) || !d.concerns(r, rep) {
			continue
		}
		if r.refused(rep.Path) {
			continue // said to be uncovered; the end is Partial
		}
		if ripe := rep.End.Add(margin); !now.After(ripe) {
			r.holding = append(r.holding, "a response on "+rep.Path)
			wait = min(wait, ripe.Sub(now)+time.Millisecond)
			continue
		}
		if !settled && namedSince(history, rep.Path, rep.End.Add(margin)) {
			// The item went out, but AWS leaves open whether it matches: sending
			// it again would not make it surer.
			d.refuse(r, rep.Path, "its spelling is in doubt, and it was sighted again while it was purged")
			refused = true
			continue
		}
		if !slices.Contains(due, rep.Path) {
			due = append(due, rep.Path)
		}
	}
	if refused {
		return 0, l.lease.PutInvalidation(ctx, r.inv)
	}
	if len(due) > 0 {
		r.barrier = nil
		return d.followUp(ctx, l, r, due, now)
	}
	if len(r.holding) > 0 {
		r.barrier = nil
		return wait, nil
	}
	if r.barrier == nil {
		r.barrier = make(map[string]bool)
		for _, b := range all {
			if b.State == journal.Accepted {
				r.barrier[b.Reference] = true
			}
		}
	}
	for _, b := range all {
		if b.State == journal.Accepted && r.barrier[b.Reference] {
			return idle, nil
		}
	}
	if done, wait, err := d.repeat(ctx, l, r, now); !done || err != nil {
		return wait, err
	}
	state := journal.Completed
	if len(r.inv.Refused) > 0 || r.inv.Planned != nil && len(r.inv.Planned.Uncovered) > 0 {
		state = journal.Partial
	}
	r.inv.NotFollowed = ""
	return 0, d.end(ctx, l, r, state, now)
}

// readReports reads what came in since the last look.
func (d *Dispatcher) readReports(ctx context.Context, l *leader, r *run) error {
	unread, err := d.journal.Unread(ctx)
	if err != nil {
		return err
	}
	mark := unread[r.inv.Number]
	if r.read && mark == 0 {
		return nil
	}
	reports, err := d.journal.Reports(ctx, r.inv.Number)
	if err != nil {
		return err
	}
	r.reports, r.read = reports, true
	if r.inv.State.Ended() {
		// Reported after the end: it is open again.
		r.inv.State, r.inv.Ended = journal.Sweeping, time.Time{}
		if err := l.lease.PutInvalidation(ctx, r.inv); err != nil {
			return err
		}
	}
	if mark != 0 {
		return l.lease.MarkRead(ctx, r.inv.Number, mark)
	}
	return nil
}

// concerns reports whether a report is about this invalidation: recorders judge
// by path alone and report too much.
func (d *Dispatcher) concerns(r *run, rep journal.Report) bool {
	e := inventory.Entry{Path: rep.Path, Last: rep.Start, Expires: inventory.Never, Tags: rep.Tags}
	if r.sel.Selects(&e, r.inv.Cut) || r.inv.Selector.Dated() || r.inv.Compacted != nil {
		return true
	}
	for _, b := range r.batches {
		for _, text := range b.Items {
			if it, err := cfpath.ParseItem(text); err == nil && it.Matches(rep.Path) {
				return true
			}
		}
	}
	return false
}

// reportForLost speaks for recorders that died: what is selected and no item has
// settled counts as reported by them, once.
func (d *Dispatcher) reportForLost(ctx context.Context, l *leader, r *run, lost []*journal.Session,
	history *journal.History, margin time.Duration, now time.Time) error {
	lost = slices.DeleteFunc(lost, func(s *journal.Session) bool { return r.lost[s.ID] })
	if len(lost) == 0 {
		return nil
	}
	var reports []journal.Report
	ends := make(map[string]time.Time, len(r.reports)) // by path, of what recorders reported themselves
	for _, rep := range r.reports {
		if rep.End.After(ends[rep.Path]) {
			ends[rep.Path] = rep.End
		}
	}
	for e, err := range d.journal.Store().Scan(ctx, d.journal.Distribution(), store.Range{Now: now}) {
		if err != nil {
			return err
		}
		if end, ok := ends[e.Path]; !r.sel.Selects(&e, r.inv.Cut) || ok && !end.Before(e.Last) {
			continue
		}
		if !covered(history, &e, margin) && (e.Folded || !namedSince(history, e.Path, e.Last.Add(margin))) {
			reports = append(reports, journal.Report{Invalidation: r.inv.Number,
				Path: e.Path, Start: e.Last, End: e.Last, Tags: e.Tags})
		}
	}
	if len(reports) > 0 {
		if err := l.lease.PutReports(ctx, fmt.Sprintf("lost-%s-%d", lost[0].ID, now.UnixMilli()), reports); err != nil {
			return err
		}
		r.reports = append(r.reports, reports...)
	}
	for _, s := range lost {
		r.lost[s.ID] = true
	}
	return nil
}

// namedSince reports whether the exact item of a path was sent after t, be its
// spelling in doubt or not.
func namedSince(h *journal.History, path string, t time.Time) bool {
	name, err := cfpath.Name(path)
	return err == nil && h.Named(name).After(t)
}

// beside returns the item that goes out beside that of a path, because CloudFront may
// hold the page there.
func (r *run) beside(path string) (string, bool) {
	other, ok := r.sel.OtherPath(path)
	if !ok {
		return "", false
	}
	item, err := cfpath.Name(other)
	return item, err == nil
}

// settledBeside reports whether what was sent beside the item of a reported path was
// sent after the report too.
func (r *run) settledBeside(h *journal.History, rep journal.Report, margin time.Duration) bool {
	item, ok := r.beside(rep.Path)
	return !ok || h.Settles(item, rep.End, margin) || h.Named(item).After(rep.End.Add(margin))
}

// relevant returns the batches of this and later invalidations, of the earlier
// ones that had not ended at its cut, and of what else is still in progress.
func (d *Dispatcher) relevant(ctx context.Context, l *leader, r *run) ([]*journal.Batch, error) {
	if r.earlier == nil {
		invs, err := d.journal.Invalidations(ctx, 0)
		if err != nil {
			return nil, err
		}
		r.earlier = []uint64{}
		for _, x := range invs {
			if x.Number < r.inv.Number && !(x.State.Ended() && x.Ended.Before(r.inv.Cut)) {
				r.earlier = append(r.earlier, x.Number)
			}
		}
	}
	later, err := d.journal.Last(ctx)
	if err != nil {
		return nil, err
	}
	var out []*journal.Batch
	numbers := slices.Clone(r.earlier)
	for n := r.inv.Number; n <= later; n++ {
		numbers = append(numbers, n)
	}
	taken := make(map[uint64]bool, len(numbers))
	for _, n := range numbers {
		taken[n] = true
		bs, err := d.batches(ctx, l, n)
		if err != nil {
			return nil, err
		}
		out = append(out, bs...)
	}
	for n, bs := range l.ended { // stopped, and still being processed
		if !taken[n] {
			out = append(out, slices.DeleteFunc(slices.Clone(bs), func(b *journal.Batch) bool { return b.State != journal.Accepted })...)
		}
	}
	return out, nil
}

// batches returns the batches of an invalidation as the leader has them. They are
// read once: nobody else writes them.
func (d *Dispatcher) batches(ctx context.Context, l *leader, n uint64) ([]*journal.Batch, error) {
	if r := l.runs[n]; r != nil {
		return r.batches, nil
	}
	if bs, ok := l.ended[n]; ok {
		return bs, nil
	}
	bs, err := d.journal.Batches(ctx, n)
	if err == nil && l.over[n] { // else it may have been opened since the last look
		l.ended[n] = bs
	}
	return bs, err
}

// followUp saves a batch for stragglers; it is sent in the next step. Sent is
// later than every due report's end and margin, so that the batch settles it. It stays
// within the guards: what they do not let out is refused, by name.
func (d *Dispatcher) followUp(ctx context.Context, l *leader, r *run, paths []string, now time.Time) (time.Duration, error) {
	refused := len(r.inv.Refused)
	var items []string
	for _, p := range paths {
		item, err := cfpath.Name(p)
		if err != nil {
			d.refuse(r, p, fmt.Sprintf("sighted again while it was purged, and %v", err))
			continue
		}
		if !slices.Contains(items, item) {
			items = append(items, item)
		}
		if other, ok := r.beside(p); ok && !slices.Contains(items, other) {
			items = append(items, other)
		}
	}
	if why, err := d.overGuard(ctx, r, len(items)+r.repeats(items, now), now); err != nil {
		return 0, err
	} else if why != "" {
		for _, it := range items {
			d.refuse(r, it, "sighted again while it was purged, and not sent again: "+why)
		}
	}
	if len(r.inv.Refused) > refused {
		return 0, l.lease.PutInvalidation(ctx, r.inv)
	}
	room, err := d.room(ctx, now)
	if err != nil {
		return 0, err
	}
	free, _ := d.free(l)
	free = r.despite(l, free, free.others == 0, false, now)
	n := min(len(items), r.inv.Options.Batch, room.others)
	if n > free.others {
		if n = free.others; n == 0 {
			l.blocked = true
			return idle, nil
		}
	}
	if t := (throttle{float64(r.inv.Options.EntriesPerMinute)}); t.perMinute > 0 {
		t.settle(l.windows, now)
		if wait := t.wait(l.windows.Entries, 1); wait > 0 {
			return min(wait, idle), nil
		}
		n = min(n, max(1, int(t.perMinute/60-l.windows.Entries)))
	}
	b := &journal.Batch{Items: items[:n], Sent: now, FollowUp: true}
	if wait, err := d.reserve(ctx, l, r, b.Items, n, now); err != nil || wait > 0 {
		return min(wait, idle), err
	}
	r.inv.FollowUps += n
	if err := d.saveBatch(ctx, l, r, b); err != nil {
		r.inv.FollowUps -= n
		return 0, err
	}
	return 0, nil
}
