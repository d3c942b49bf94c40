// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"context"
	"slices"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/journal"
)

// apart bounds how far CloudFront's clock and the store's are apart: it refuses
// requests that are dated five minutes off its own.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html
const apart = 5 * time.Minute

// listedTries is how often a list is read again that names what then cannot be
// read: reading may lag behind writing, and it may be what is looked for.
const listedTries = 3

// began notes that this dispatcher opened an invalidation, so that nothing of it
// can be at CloudFront that the journal lost.
func (d *Dispatcher) began(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.own == nil {
		d.own = make(map[string]bool)
	}
	d.own[id] = true
}

// inherits reports whether a run that is read from the journal needs a look at
// CloudFront first: the store may have lost batches that were sent. It is called
// once for each reading.
func (d *Dispatcher) inherits(inv *journal.Invalidation, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	own := d.own[inv.ID]
	delete(d.own, inv.ID) // read a second time, something went wrong in between
	return !own && inv.Compacted == nil && (!inv.Sent || now.Sub(inv.Opened) <= lookup)
}

// recover writes down the batches that CloudFront took for the invalidation and
// that the journal does not have: a store that fails over to a copy that was
// behind forgets batches without anybody noticing, and what stood in them must
// not be planned, and paid for, again. The journal cannot tell, so whoever goes on
// with what it did not begin looks. A positive wait says that it could not yet.
func (d *Dispatcher) recover(ctx context.Context, l *leader, r *run, now time.Time) (time.Duration, error) {
	known := make(map[string]bool) // by reference
	for _, b := range r.batches {
		known[b.Reference] = true
	}
	all, err := d.journal.Batches(ctx, 0)
	if err != nil {
		return 0, err
	}
	for _, b := range all {
		r.seen[b.InvalidationID] = true
	}
	c, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var lost []*journal.Batch
	read := false
	for s, err := range d.cdn.SentSince(c, d.journal.Distribution(), r.inv.Opened.Add(-apart), func(id string) bool { return r.seen[id] }) {
		switch {
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case kind(err) == Denied:
			d.opts.Logger.Warn("cannot look for what was sent and forgotten", "invalidation", r.inv.ID, "err", err)
			r.inherited, l.looks.denied = false, true
			return 0, nil
		case err != nil && kind(err) == NoInvalidation && r.tries >= listedTries:
			continue // it is gone
		case err != nil:
			if read { // it gets on
				r.calm()
			}
			return r.off(now, err, d.opts.Random()), nil
		}
		b, ours := r.inv.Found(s.Reference)
		if !ours {
			r.seen[s.ID], read = true, true // another look need not ask again
			continue
		}
		if known[s.Reference] {
			continue
		}
		// When it was sent is not known; sooner clears less and settles less.
		b.Items, b.State, b.InvalidationID, b.Accepted, b.Sent = s.Items, journal.Accepted, s.ID, now, s.Created.Add(-apart)
		if b.Sent.Before(r.inv.Opened) {
			b.Sent = r.inv.Opened
		}
		lost = append(lost, b)
	}
	all = slices.Concat(r.batches, lost)
	for _, b := range lost {
		for _, x := range all { // what it repeated was sent before it
			if b.Repeat && !x.Repeat && x.Number < b.Number {
				b.Sent = later(b.Sent, x.Sent)
			}
		}
	}
	if len(lost) > 0 {
		d.opts.Logger.Warn("the store lost batches that were sent; CloudFront has them", "invalidation", r.inv.ID, "batches", len(lost))
		if err := l.lease.Adopt(ctx, r.inv, lost); err != nil {
			return 0, err
		}
		r.batches = append(r.batches, lost...)
		l.purges += len(lost)
		r.purges += len(lost)
	}
	r.calm()
	r.inherited = false
	return 0, nil
}
