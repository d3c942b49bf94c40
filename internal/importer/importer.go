// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package importer brings sightings of the past into an inventory: what a log or a
// person says was served.
package importer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/accesslog"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

const (
	// recordBatch is how many sightings are merged in one call.
	recordBatch = 5000
	// reportChunk keeps documents small.
	reportChunk = 500
)

// An Importer does as every recorder: flush, then read the journal, then report what
// invalidations have to know. It is used by one goroutine; several may share a
// history, see [Importer.Fork].
type Importer struct {
	store   store.Store
	journal *journal.Journal
	history *journal.History // nil: nothing was purged yet
	done    *journal.History // of those purges that are known to be completed
	margin  time.Duration

	held      []heldLine
	selectors map[uint64]*selector.Compiled

	// Recorded, Purged and Reports count sightings that were taken, those that a
	// later purge has settled, and reports.
	Recorded, Purged, Reports int
}

// A heldLine is a line that was not flushed yet. What a purge removes that is under way
// is no entry any more, but whoever is over without it is not over before that purge.
type heldLine struct {
	accesslog.Line
	purged bool
}

// New reads the purge history of a distribution. Spellings are in doubt where the
// rules say so; skew is by how much the caller's times may be off the store's.
func New(ctx context.Context, st store.Store, distribution string, rules *lifetime.Rules, skew time.Duration) (*Importer, error) {
	r := &Importer{store: st, journal: journal.Open(st, distribution), selectors: make(map[uint64]*selector.Compiled),
		margin: lifetime.DefaultMargin + skew}
	batches, err := r.journal.Batches(ctx, 0)
	if err != nil {
		return nil, err
	}
	if batches = journal.WithoutRepeats(batches); len(batches) > 0 {
		r.history = journal.NewHistory(batches, rules.QueryInDoubt)
		done := slices.DeleteFunc(slices.Clone(batches), func(b *journal.Batch) bool { return b.State != journal.BatchDone })
		r.done = journal.NewHistory(done, rules.QueryInDoubt)
	}
	return r, nil
}

// Fork returns an importer beside this one, for another goroutine.
func (r *Importer) Fork() *Importer {
	return &Importer{store: r.store, journal: r.journal, history: r.history, done: r.done, margin: r.margin, selectors: make(map[uint64]*selector.Compiled)}
}

// Margin is how much later than a sighting's end CloudFront may have had the last byte
// of it, by the store's clock: a life begins to count then. What is added has it in.
func (r *Importer) Margin() time.Duration { return r.margin }

// Add takes a sighting, whose tags must not change any more, and tells whether it
// counts: one that a later purge settled does not.
func (r *Importer) Add(ctx context.Context, l accesslog.Line) (bool, error) {
	s := &l.Sighting
	purged := r.history != nil && !l.Folded && r.history.Settles(s.Path, s.End, r.margin)
	if purged {
		r.Purged++
		if r.done.Settles(s.Path, s.End, r.margin) {
			return false, nil
		}
	} else {
		r.Recorded++
	}
	r.held = append(r.held, heldLine{l, purged})
	if len(r.held) < recordBatch {
		return !purged, nil
	}
	return !purged, r.Flush(ctx)
}

// Flush merges what is held, reads the journal, and reports. Only then is it safe to
// say that a source was read.
func (r *Importer) Flush(ctx context.Context) error {
	if len(r.held) == 0 {
		return nil
	}
	updates := make([]inventory.Update, 0, len(r.held))
	index := make(map[string]int, len(r.held))
	for i := range r.held {
		l := &r.held[i]
		if l.purged {
			continue
		}
		if at, ok := index[l.Sighting.Path]; ok {
			updates[at].Record = updates[at].Record.Merge(l.Record())
			continue
		}
		index[l.Sighting.Path] = len(updates)
		updates = append(updates, inventory.Update{Path: l.Sighting.Path, Record: l.Record()})
	}
	if len(updates) > 0 {
		if err := r.store.Merge(ctx, r.journal.Distribution(), updates); err != nil {
			return err
		}
	}
	if err := r.report(ctx); err != nil {
		return err
	}
	clear(r.held)
	r.held = r.held[:0]
	return nil
}

// report tells the invalidations of sightings that may hold content from before
// their cut. A start that is assumed reopens nothing that is over.
func (r *Importer) report(ctx context.Context) error {
	oldest := r.held[0].Sighting.Start
	for i := range r.held {
		if s := r.held[i].Sighting.Start; s.Before(oldest) {
			oldest = s
		}
	}
	invs, err := r.journal.Invalidations(ctx, 0)
	if err != nil {
		return err
	}
	var reports []journal.Report
	for _, inv := range invs {
		if inv.Cut.Before(oldest) || inv.State == journal.Cancelled || inv.State == journal.Failed {
			continue
		}
		c := r.selectors[inv.Number]
		if c == nil {
			if err := r.journal.Load(ctx, inv); err != nil {
				return err
			}
			if c, err = inv.Compile(); err != nil {
				return fmt.Errorf("invalidation %s: %w", inv.ID, err)
			}
			r.selectors[inv.Number] = c
		}
		for i := range r.held {
			l := &r.held[i]
			s := &l.Sighting
			if s.Start.After(inv.Cut) || l.StartAssumed && inv.State.Ended() || !c.MaySelect(s.Path) {
				continue
			}
			reports = append(reports, journal.Report{Invalidation: inv.Number, Path: s.Path, Start: s.Start, End: s.End, Tags: s.Tags})
		}
	}
	for len(reports) > 0 {
		n := min(len(reports), reportChunk)
		if err := r.journal.PutReports(ctx, reportName(reports[:n]), reports[:n]); err != nil {
			return err
		}
		r.Reports += n
		reports = reports[n:]
	}
	return nil
}

// reportName is a name that the same reports have again: repeating an import
// that was interrupted replaces what it reported before, and nothing else.
func reportName(reports []journal.Report) string {
	h := sha256.New()
	enc := json.NewEncoder(h)
	for i := range reports {
		_ = enc.Encode(&reports[i]) // a hash takes everything
	}
	return "import-" + hex.EncodeToString(h.Sum(nil)[:12])
}
