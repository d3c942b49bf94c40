// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/store"
)

// A Lease makes its holder the one dispatcher of the distribution until it runs
// out or is released. CloudFront knows no fencing tokens, so what a holder that
// overslept may still do is bounded by what it saved before: a batch under its
// own reference, which CloudFront takes once. Every write goes through the lease
// and is refused with [ErrLeaseLost] once somebody else has taken it.
//
// A Lease is for one goroutine.
type Lease struct {
	j        *Journal
	holder   string
	until    time.Time
	tookOver bool
	version  uint64 // of the lease's document, which others read
	own      uint64 // of the holder's own, which is gone as soon as somebody else leads
}

type leaseDoc struct {
	Holder string    `json:"holder"`
	Until  time.Time `json:"until"`
}

// Holding says who leads, until when, in store time.
type Holding struct {
	Holder string
	Until  time.Time
}

// Acquire takes the lease for a holder until now+d, if nobody else holds it at
// now. Otherwise it returns who does, and no lease.
func (j *Journal) Acquire(ctx context.Context, holder string, now time.Time, d time.Duration) (*Lease, Holding, error) {
	var cur leaseDoc
	v, err := j.get(ctx, keyLease, &cur)
	if err != nil {
		return nil, Holding{}, err
	}
	if v != 0 && cur.Holder != holder && now.Before(cur.Until) {
		return nil, Holding(cur), nil
	}
	l := &Lease{j: j, holder: holder, until: now.Add(d), tookOver: v != 0 && cur.Holder != holder, version: v}
	t := store.Transaction{Require: []store.Requirement{{Key: keyLease, Version: v}},
		Put: []store.Put{put(keyLease, leaseDoc{holder, l.until}), put(dirLease+holder, struct{}{})}}
	if l.tookOver {
		t.Delete = []string{dirLease + cur.Holder}
	}
	l.version, err = j.store.Commit(ctx, j.dist, t)
	l.own = l.version
	if errors.Is(err, store.ErrConflict) {
		return nil, Holding{Holder: "another dispatcher", Until: now.Add(d)}, nil
	}
	if err != nil {
		return nil, Holding{}, err
	}
	return l, Holding{}, nil
}

// Until is when the lease runs out.
func (l *Lease) Until() time.Time { return l.until }

// TookOver reports whether the lease was another's and ran out: that holder may
// not know yet, and still make a call.
func (l *Lease) TookOver() bool { return l.tookOver }

// Renew extends the lease to now+d.
func (l *Lease) Renew(ctx context.Context, now time.Time, d time.Duration) error {
	l.until = now.Add(d)
	return l.commit(ctx, store.Transaction{Put: []store.Put{put(keyLease, leaseDoc{l.holder, l.until})}},
		func(v uint64) { l.version = v })
}

// Release gives the lease up, so that another need not wait for it to run out.
func (l *Lease) Release(ctx context.Context) error {
	return l.commit(ctx, store.Transaction{Delete: []string{keyLease, dirLease + l.holder}}, nil)
}

// held is true of the store as long as nobody else leads.
func (l *Lease) held() []store.Requirement {
	return []store.Requirement{{Key: keyLease, Version: l.version}, {Key: dirLease + l.holder, Version: l.own}}
}

// SaveBatch writes a new batch and the invalidation that counts it, in one
// write, before it is sent. It gives the batch its number and reference.
func (l *Lease) SaveBatch(ctx context.Context, inv *Invalidation, b *Batch, random string) error {
	return l.saveBatches(ctx, inv, nil, []*Batch{b}, []string{random})
}

// Adopt writes down batches that the CDN has and the journal does not. Their
// references, items, times and states are the caller's; they get numbers that are
// free.
func (l *Lease) Adopt(ctx context.Context, inv *Invalidation, batches []*Batch) error {
	return l.saveBatches(ctx, inv, nil, batches, nil)
}

// Replace closes a batch that CloudFront refuses and saves others in its place, in one
// write; with none it is dropped. They get numbers and references, and are unsent as far
// as the journal knows. The caller has made sure that the closed batch is not accepted
// any more, whoever sends it.
func (l *Lease) Replace(ctx context.Context, inv *Invalidation, b *Batch, reason string, instead []*Batch, random func() string) error {
	words := make([]string, len(instead))
	for i := range words {
		words[i] = random()
	}
	closed := *b
	closed.State, closed.Error = BatchRefused, reason
	err := l.saveBatches(ctx, inv, &closed, instead, words)
	if err == nil {
		*b = closed
	}
	return err
}

// saveBatches numbers and writes new batches. With random words, one a batch, they
// get references and are saved; without, they have both already.
func (l *Lease) saveBatches(ctx context.Context, inv *Invalidation, closed *Batch, batches []*Batch, random []string) error {
	next := *inv
	t := store.Transaction{Require: []store.Requirement{
		{Key: dirInvalidations + number(inv.Number), Version: inv.version}}}
	for i, b := range batches {
		b.Number, b.inv = next.Batches, inv.Number
		if random != nil {
			b.Reference = inv.reference(b, random[i])
			b.State = Saved
		}
		next.Batches++
		key := b.key()
		t.Require = append(t.Require, store.Requirement{Key: key})
		t.Put = append(t.Put, put(key, b))
	}
	if closed != nil {
		t.Require = append(t.Require, store.Requirement{Key: closed.key(), Version: closed.version})
		t.Put = append(t.Put, put(closed.key(), closed))
	}
	t.Put = append(t.Put, put(dirInvalidations+number(inv.Number), &next))
	return l.commit(ctx, t, func(v uint64) {
		next.version = v
		*inv = next
		for _, b := range batches {
			b.version = v
		}
		if closed != nil {
			closed.version = v
		}
	})
}

// PutBatch records what became of a saved batch.
func (l *Lease) PutBatch(ctx context.Context, b *Batch) error {
	return l.commit(ctx, store.Transaction{
		Require: []store.Requirement{{Key: b.key(), Version: b.version}},
		Put:     []store.Put{put(b.key(), b)},
	}, func(v uint64) { b.version = v })
}

// PutInvalidation records how far an invalidation is. It returns
// [store.ErrConflict] if the invalidation was changed since it was read (it may
// have been asked to stop): read it again.
func (l *Lease) PutInvalidation(ctx context.Context, inv *Invalidation) error {
	key := dirInvalidations + number(inv.Number)
	return l.commit(ctx, store.Transaction{
		Require: []store.Requirement{{Key: key, Version: inv.version}},
		Put:     []store.Put{put(key, inv)},
	}, func(v uint64) { inv.version = v })
}

func (b *Batch) key() string { return fmt.Sprintf("%s%s/%06d", dirBatches, number(b.inv), b.Number) }

// commit writes t under the lease. A conflict is told apart from a lost lease by
// looking at the lease itself.
func (l *Lease) commit(ctx context.Context, t store.Transaction, done func(version uint64)) error {
	t.Require = append(t.Require, l.held()...)
	v, err := l.j.store.Commit(ctx, l.j.dist, t)
	if errors.Is(err, store.ErrConflict) {
		var cur leaseDoc
		switch now, e := l.j.get(ctx, keyLease, &cur); {
		case e != nil:
			return e
		case now != l.version || cur.Holder != l.holder:
			return ErrLeaseLost
		}
	}
	if err == nil && done != nil {
		done(v)
	}
	return err
}
