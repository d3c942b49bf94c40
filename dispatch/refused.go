// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"context"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/plan"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// badItem ends a batch of one item that CloudFront refuses. What the item was sent for is
// covered by the next wildcard that hits nothing else, where there is one;
// otherwise it is reported.
func (d *Dispatcher) badItem(ctx context.Context, l *leader, r *run, b *journal.Batch, refusal error, now time.Time) error {
	instead, err := d.instead(ctx, r, b.Items[0], now)
	if err != nil {
		return err
	}
	if instead != "" {
		return d.replace(ctx, l, r, b, refusal.Error()+"; covered by "+instead, now, nil, []string{instead})
	}
	b.State, b.Error = journal.BatchRefused, refusal.Error()
	if err := l.lease.PutBatch(ctx, b); err != nil {
		return err
	}
	delete(r.attempts, b.Reference)
	d.refuse(r, b.Items[0], "refused by CloudFront: "+refusal.Error())
	if err := l.lease.PutInvalidation(ctx, r.inv); err != nil {
		return err
	}
	return d.giveBack(ctx, now, 1)
}

// insteadAtMost is how many wildcards are looked at in place of an item that is
// refused. Each that is sent and refused again is shorter than the one before it.
const insteadAtMost = 16

// instead returns a wildcard that covers what a refused item was sent for and
// reaches nothing that is not selected; empty if there is none, or the inventory cannot
// answer for what is under it.
func (d *Dispatcher) instead(ctx context.Context, r *run, refused string, now time.Time) (string, error) {
	it, err := cfpath.ParseItem(refused)
	if err != nil || it.Kind == cfpath.Tag {
		return "", nil
	}
	o := &r.inv.Options
	if o.Exact || o.Limited() || r.inv.Fixed != nil {
		return "", nil
	}
	c, err := d.journal.Coverage(ctx, now, d.opts.Rules.Longest())
	if err != nil || !c.Complete && !o.AssumeComplete {
		return "", err
	}
	from := shorter
	if it.Kind == cfpath.Path {
		from = cfpath.SureStem
	}
	stem, ok := from(it.Text)
	for range insteadAtMost {
		if !ok {
			return "", nil
		}
		if inside, err := plan.InScope(d.scope(c), stem); err != nil || !inside {
			return "", err
		}
		hits, clean := false, true
		for e, err := range d.journal.Store().Scan(ctx, d.journal.Distribution(), store.Range{Prefix: stem, Now: now}) {
			if err != nil {
				return "", err
			}
			hits = hits || it.Matches(e.Path)
			if !r.sel.Selects(&e, r.inv.Cut) {
				clean = false
				break
			}
		}
		switch {
		case !clean:
			return "", nil // and none that is shorter is
		case hits:
			return stem + "*", nil
		}
		stem, ok = shorter(stem)
	}
	return "", nil
}

// shorter returns the next stem that people would name: up to the '/' or '?' before.
func shorter(stem string) (string, bool) {
	if stem == "" {
		return "", false
	}
	i := strings.LastIndexAny(stem[:len(stem)-1], "/?")
	if i < 0 {
		return "", false
	}
	return stem[:i+1], true
}

// refuse notes what is left stale, and the wildcard that would cover it.
func (d *Dispatcher) refuse(r *run, path, reason string) {
	ref := journal.Refusal{Item: path, Reason: reason}
	if stem, ok := cfpath.SureStem(path); ok {
		ref.Remedy = stem + "*"
	}
	r.inv.Refused = append(r.inv.Refused, ref)
}

// recallable returns a saved batch that is surely not on its way: no call of it was
// left without an answer, and nobody else has ever held it.
func (r *run) recallable() *journal.Batch {
	for _, b := range r.batches {
		if at := r.attempts[b.Reference]; b.State == journal.Saved && at != nil && !at.unsure {
			return b
		}
	}
	return nil
}

// recall drops a batch that a cancelled invalidation has not sent.
func (d *Dispatcher) recall(ctx context.Context, l *leader, r *run, b *journal.Batch, now time.Time) error {
	if err := d.replace(ctx, l, r, b, "cancelled before it was sent", now, nil); err != nil {
		return err
	}
	return d.giveBack(ctx, now, len(b.Items))
}

// covered reports whether a batch of the history surely covers an
// entry, and was sent after whatever was sighted of it had drained.
func covered(h *journal.History, e *inventory.Entry, margin time.Duration) bool {
	sent, ok := h.PurgedAll(e)
	return ok && sent.After(e.Last.Add(margin))
}
