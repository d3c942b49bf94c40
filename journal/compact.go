// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/store"
)

const (
	// CompactEvery is the least store time between two compactions.
	CompactEvery = time.Hour
	// keepAtLeast is longer than any month: what is spent of its free paths can
	// still be counted.
	keepAtLeast = 32 * 24 * time.Hour
	// compactAtMost bounds the documents that one compaction removes, compactChunk
	// those that it removes in one write.
	compactAtMost = 2000
	compactChunk  = 100
)

// A Summary stands in an invalidation for its batches that were forgotten.
type Summary struct {
	// At is when they were forgotten.
	At time.Time `json:"at"`
	// Batches: those with lower numbers are forgotten.
	Batches int `json:"batches"`
	// Items counts theirs, without those of refused batches.
	Items int `json:"items"`
	// Done: no document of them is left.
	Done bool `json:"done,omitempty"`
}

// A Compaction says how many documents were removed.
type Compaction struct {
	Batches, Reports, Plans, Selectors, Gaps, Sessions, Marks int
}

func (c *Compaction) total() int {
	return c.Batches + c.Reports + c.Plans + c.Selectors + c.Gaps + c.Sessions + c.Marks
}

type compacted struct {
	At time.Time `json:"at"`
}

// Compact forgets what can no longer matter, at now in store time: batches and
// reports of invalidations that have been over for longer than the longest
// lifetime (longest, or what any session ever stated, and at least 32 days), plan
// files that only such were bound to, gaps that closed and recorders that fell silent
// as long ago. Selectors and cuts of invalidations and what these came to are never
// forgotten, nor is a batch whose answer is not known.
//
// So a sighting that is judged afterwards may count as a straggler where it would
// have been known to be purged, never the other way round. That holds for
// lifetimes of any length: a longer one than was stated costs a follow-up.
//
// Within [CompactEvery] of the last compaction it does nothing, and no call
// removes more than some thousand documents. What goes was old enough at the
// last compaction already, so that one wrong reading of the clock forgets nothing.
func (l *Lease) Compact(ctx context.Context, now time.Time, longest time.Duration) (Compaction, error) {
	var c Compaction
	var last compacted
	v, err := l.j.get(ctx, keyCompacted, &last)
	if err != nil || v != 0 && !last.At.After(now) && now.Sub(last.At) < CompactEvery {
		return c, err
	}
	if err := l.commit(ctx, store.Transaction{Put: []store.Put{put(keyCompacted, compacted{now})}}, nil); err != nil || v == 0 {
		return c, err
	}
	if last.At.After(now) {
		last.At = now
	}
	sessions, err := l.j.Sessions(ctx)
	if err != nil {
		return c, err
	}
	var tracking Tracking
	if _, err := l.j.get(ctx, keyTrack, &tracking); err != nil {
		return c, err
	}
	keep := max(longest, tracking.Longest, keepAtLeast)
	for _, s := range sessions {
		keep = max(keep, s.Longest)
	}
	before := last.At.Add(-keep)

	unread, err := l.j.Unread(ctx)
	if err != nil {
		return c, err
	}
	var h head
	hv, err := l.j.get(ctx, keyHead, &h)
	if err != nil {
		return c, err
	}
	invs, err := l.j.Invalidations(ctx, 0)
	if err != nil {
		return c, err
	}
	var open []*Invalidation
	known := make(map[uint64]bool, len(invs))
	for _, inv := range invs {
		known[inv.Number] = true
		switch {
		case !inv.State.Ended():
			open = append(open, inv)
		case unread[inv.Number] == 0 && inv.compactable(before) && c.total() < compactAtMost:
			if err := l.compact(ctx, inv, now, before, &c); err != nil {
				return c, err
			}
		}
	}
	if err := l.compactGaps(ctx, sessions, open, before, &c); err != nil {
		return c, err
	}
	if err := l.compactParts(ctx, invs, hv, &c); err != nil {
		return c, err
	}
	for n, version := range unread {
		if !known[n] { // the invalidation was lost with data of the store
			if err := l.MarkRead(ctx, n, version); err != nil {
				return c, err
			}
			c.Marks++
		}
	}
	return c, nil
}

// compactable reports whether an invalidation that ended has been over for long
// and will not be resumed.
func (inv *Invalidation) compactable(before time.Time) bool {
	if inv.State == Failed && !inv.Stopped() || !inv.Ended.Before(before) {
		return false
	}
	return inv.Compacted == nil || !inv.Compacted.Done || inv.Compacted.Batches != inv.Batches
}

// compact forgets the batches and reports of one invalidation: at once if they are
// few, else after its summary was written, part by part.
func (l *Lease) compact(ctx context.Context, inv *Invalidation, now, before time.Time, c *Compaction) error {
	batches, err := l.j.Batches(ctx, inv.Number)
	if err != nil {
		return err
	}
	sum := Summary{At: now, Batches: inv.Batches}
	if inv.Compacted != nil {
		sum.Items = inv.Compacted.Items
	}
	var gone []store.Requirement
	for _, b := range batches {
		if !b.settledBefore(before) {
			return nil
		}
		if b.State != BatchRefused && (inv.Compacted == nil || b.Number >= inv.Compacted.Batches) {
			sum.Items += len(b.Items)
		}
		gone = append(gone, store.Requirement{Key: b.key(), Version: b.version})
	}
	// Reports go before batches, without which they would count as unsettled.
	reports, err := l.j.store.List(ctx, l.j.dist, dirReports+number(inv.Number)+"/", "", 0)
	if err != nil {
		return err
	}
	all := make([]store.Requirement, 0, len(reports)+len(gone))
	for _, d := range reports {
		all = append(all, store.Requirement{Key: d.Key, Version: d.Version})
	}
	all = append(all, gone...)

	// What is reported comes with a mark, in one write: where there is none, all
	// reports have been read.
	unmarked := store.Requirement{Key: dirUnread + number(inv.Number)}
	next := *inv
	next.Compacted = &sum
	if len(all) > compactChunk {
		if err := l.PutInvalidation(ctx, &next); err != nil {
			return unlessChanged(err)
		}
		for len(all) > compactChunk {
			if c.total() >= compactAtMost {
				return nil // the next compaction goes on
			}
			t := deleting(all[:compactChunk])
			t.Require = append(t.Require, unmarked)
			if err := l.commit(ctx, t, nil); err != nil {
				return unlessChanged(err)
			}
			c.count(all[:compactChunk])
			all = all[compactChunk:]
		}
	}
	sum.Done = true
	key := dirInvalidations + number(inv.Number)
	t := deleting(all)
	t.Require = append(t.Require, unmarked, store.Requirement{Key: key, Version: next.version})
	t.Put = []store.Put{put(key, &next)}
	if err := l.commit(ctx, t, nil); err != nil {
		return unlessChanged(err)
	}
	inv.Compacted = &sum
	c.count(all)
	return nil
}

// settledBefore reports whether all that will ever be known of the batch has been
// known since before t.
func (b *Batch) settledBefore(t time.Time) bool {
	return b.Answered() && (b.Forgotten || !b.Purged()) &&
		b.Sent.Before(t) && b.Accepted.Before(t) && b.Completed.Before(t)
}

// compactGaps forgets gaps that closed, and recorders that fell silent, before an
// instant, unless they owe something to an open invalidation.
func (l *Lease) compactGaps(ctx context.Context, sessions []*Session, open []*Invalidation, before time.Time, c *Compaction) error {
	owed := func(owes func(n uint64) bool) bool {
		for _, inv := range open {
			if owes(inv.Number) {
				return true
			}
		}
		return false
	}
	gaps, err := l.j.Gaps(ctx)
	if err != nil {
		return err
	}
	var gone []store.Requirement
	for _, g := range gaps {
		if !g.Until.IsZero() && g.Until.Before(before) && !owed(g.Owes) {
			gone = append(gone, store.Requirement{Key: dirGaps + g.ID, Version: g.version})
		}
	}
	for _, s := range sessions {
		if s.Renewed.Add(s.Lease).Before(before) && !owed(func(n uint64) bool { return !s.HasAcked(n) }) {
			gone = append(gone, store.Requirement{Key: dirSessions + s.ID, Version: s.version})
		}
	}
	for len(gone) > 0 && c.total() < compactAtMost {
		n := min(len(gone), compactChunk)
		if err := l.commit(ctx, deleting(gone[:n]), nil); err != nil {
			return unlessChanged(err)
		}
		c.count(gone[:n])
		gone = gone[n:]
	}
	return nil
}

// compactParts forgets what plan files said that no invalidation needs any more, and
// selectors of invalidations that there are not: whoever opened one died before, or the
// store has lost it. None may be opened meanwhile, as the head tells: it could refer to
// these.
func (l *Lease) compactParts(ctx context.Context, invs []*Invalidation, head uint64, c *Compaction) error {
	plans, selectors := make(map[string]bool), make(map[string]bool)
	for _, inv := range invs {
		if inv.Fixed != nil && (inv.Compacted == nil || !inv.Compacted.Done) {
			plans[inv.Fixed.Hash] = true
		}
		if inv.Large != nil {
			selectors[inv.Large.Hash] = true
		}
	}
	if err := l.compactUnneeded(ctx, dirFixed, plans, head, c); err != nil {
		return err
	}
	return l.compactUnneeded(ctx, dirSelectors, selectors, head, c)
}

// compactUnneeded forgets the documents dir/HASH/N whose hash is not needed.
func (l *Lease) compactUnneeded(ctx context.Context, dir string, needed map[string]bool, head uint64, c *Compaction) error {
	const page = 16 // they are large
	for after := ""; c.total() < compactAtMost; {
		docs, err := l.j.store.List(ctx, l.j.dist, dir, after, page)
		if err != nil {
			return err
		}
		var gone []store.Requirement
		for _, d := range docs {
			hash, _, _ := strings.Cut(d.Key[len(dir):], "/")
			if !needed[hash] {
				gone = append(gone, store.Requirement{Key: d.Key, Version: d.Version})
			}
			after = d.Key
		}
		if len(gone) > 0 {
			t := deleting(gone)
			t.Require = append(t.Require, store.Requirement{Key: keyHead, Version: head})
			if err := l.commit(ctx, t, nil); err != nil {
				return unlessChanged(err)
			}
			c.count(gone)
		}
		if len(docs) < page {
			return nil
		}
	}
	return nil
}

// deleting removes documents as they were read.
func deleting(docs []store.Requirement) store.Transaction {
	t := store.Transaction{Require: append([]store.Requirement(nil), docs...)}
	for _, d := range docs {
		t.Delete = append(t.Delete, d.Key)
	}
	return t
}

// unlessChanged makes nothing of a conflict: what changed meanwhile stays.
func unlessChanged(err error) error {
	if errors.Is(err, store.ErrConflict) {
		return nil
	}
	return err
}

func (c *Compaction) count(docs []store.Requirement) {
	for _, d := range docs {
		switch d.Key[:4] {
		case dirBatches:
			c.Batches++
		case dirReports:
			c.Reports++
		case dirFixed:
			c.Plans++
		case dirSelectors:
			c.Selectors++
		case dirGaps:
			c.Gaps++
		case dirSessions:
			c.Sessions++
		}
	}
}
