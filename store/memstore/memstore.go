// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package memstore keeps inventories and documents in the memory of one process:
// the store of tests, of demonstrations, and of a recorder and dispatcher that
// live and die together. It is also the reference for what package store says.
//
// It starts no goroutine and does no I/O, so it works within the bubbles of
// testing/synctest, where it follows their clock.
package memstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

const (
	address = "memory:"

	// chunk is how many items a call looks at before it lets others in.
	chunk = 1000
)

// A Store is a [store.Store] in memory. Make one with [New].
type Store struct {
	epoch string

	mu            sync.RWMutex // over what is below, the distributions' contents included
	closed        bool
	distributions map[string]*distribution
}

type distribution struct {
	entries   sorted
	documents []store.Document // in order of key
	version   uint64
}

var _ store.Store = (*Store)(nil)

// New returns an empty store.
func New() *Store {
	return &Store{epoch: rand.Text(), distributions: make(map[string]*distribution)}
}

// begin says why a call may not go on; the caller holds s.mu.
func (s *Store) begin(ctx context.Context, op string) error {
	if s.closed {
		return fault(op, store.ErrClosed)
	}
	return ctx.Err()
}

func fault(op string, err error) error {
	return &store.Error{Op: op, Store: address, Err: err}
}

func (s *Store) distribution(name string) *distribution {
	d := s.distributions[name]
	if d == nil {
		d = new(distribution)
		s.distributions[strings.Clone(name)] = d
	}
	return d
}

// Now implements [store.Store] with this process's clock.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.begin(ctx, "now"); err != nil {
		return time.Time{}, err
	}
	return time.Now().UTC().Round(0), nil // a clock that others share has no monotonic part
}

// Merge implements [store.Store].
func (s *Store) Merge(ctx context.Context, distribution string, updates []inventory.Update) error {
	return s.chunked(ctx, "merge", len(updates), func(lo, hi int) {
		d := s.distribution(distribution)
		for _, u := range updates[lo:hi] {
			r := d.entries.at(u.Path)
			had := r.Last != 0
			if *r = r.Merge(u.Record); !had && len(r.Tags) > 0 {
				r.Tags = slices.Clone(r.Tags) // they were the caller's
			}
		}
	})
}

// chunked calls f for each chunk of n items, holding the lock during each.
func (s *Store) chunked(ctx context.Context, op string, n int, f func(lo, hi int)) error {
	for lo := 0; ; lo += chunk {
		hi := min(lo+chunk, n)
		err := func() error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if err := s.begin(ctx, op); err != nil {
				return err
			}
			f(lo, hi)
			return nil
		}()
		if err != nil || hi == n {
			return err
		}
	}
}

// Scan implements [store.Store].
func (s *Store) Scan(ctx context.Context, distribution string, r store.Range) iter.Seq2[inventory.Entry, error] {
	return func(yield func(inventory.Entry, error) bool) {
		var entries []inventory.Entry
		for next, more := max(r.Prefix, r.From), true; more; {
			var err error
			entries, next, more, err = s.scanChunk(ctx, distribution, r, next, entries[:0])
			if err != nil {
				yield(inventory.Entry{}, err)
				return
			}
			for _, e := range entries {
				// Nothing comes after a cancellation, not even the rest of a chunk.
				if err := ctx.Err(); err != nil {
					yield(inventory.Entry{}, err)
					return
				}
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

// scanChunk appends to entries the live ones among the next items, and returns
// the path to go on from.
func (s *Store) scanChunk(ctx context.Context, distribution string, r store.Range, from string, entries []inventory.Entry) (
	_ []inventory.Entry, next string, more bool, err error,
) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.begin(ctx, "scan"); err != nil {
		return nil, "", false, err
	}
	d := s.distributions[distribution]
	if d == nil || r.Now.IsZero() {
		return entries, "", false, nil
	}
	seen := 0
	d.entries.from(from, func(it *item) bool {
		if !strings.HasPrefix(it.path, r.Prefix) {
			return false
		}
		if seen++; seen > chunk {
			next, more = it.path, true
			return false
		}
		if it.record.Live(r.Now) {
			entries = append(entries, it.record.Entry(it.path))
		}
		return true
	})
	return entries, next, more, nil
}

// Clear implements [store.Store].
func (s *Store) Clear(ctx context.Context, distribution string, conditions []store.Condition) (int, error) {
	cleared := 0
	err := s.chunked(ctx, "clear", len(conditions), func(lo, hi int) {
		d := s.distributions[distribution]
		if d == nil {
			return
		}
		for _, c := range conditions[lo:hi] {
			if b, i, found := d.entries.find(c.Path); found && c.Holds(&d.entries.blocks[b][i].record) {
				d.entries.remove(b, i)
				cleared++
			}
		}
	})
	return cleared, err
}

// Sweep implements [store.Store].
func (s *Store) Sweep(ctx context.Context, distribution string, now time.Time) (int, error) {
	swept := 0
	for next, more := "", true; more; {
		err := func() error {
			s.mu.Lock()
			defer s.mu.Unlock()
			more = false
			if err := s.begin(ctx, "sweep"); err != nil {
				return err
			}
			d := s.distributions[distribution]
			if d == nil {
				return nil
			}
			var dead []string
			seen := 0
			d.entries.from(next, func(it *item) bool {
				if seen++; seen > chunk {
					next, more = it.path, true
					return false
				}
				if it.record.Dead(now) {
					dead = append(dead, it.path)
				}
				return true
			})
			for _, path := range dead {
				b, i, _ := d.entries.find(path)
				d.entries.remove(b, i)
			}
			swept += len(dead)
			return nil
		}()
		if err != nil {
			return swept, err
		}
	}
	return swept, nil
}

// document returns where key is in d, or would be.
func (d *distribution) document(key string) (int, bool) {
	return slices.BinarySearchFunc(d.documents, key, func(doc store.Document, key string) int {
		return cmp.Compare(doc.Key, key)
	})
}

// List implements [store.Store].
func (s *Store) List(ctx context.Context, distribution, prefix, after string, limit int) ([]store.Document, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.begin(ctx, "list"); err != nil {
		return nil, err
	}
	d := s.distributions[distribution]
	if d == nil {
		return nil, nil
	}
	var docs []store.Document
	i, _ := d.document(max(prefix, after))
	for ; i < len(d.documents) && (limit <= 0 || len(docs) < limit); i++ {
		doc := d.documents[i]
		if !strings.HasPrefix(doc.Key, prefix) {
			break
		}
		if doc.Key > after {
			doc.Value = slices.Clone(doc.Value)
			docs = append(docs, doc)
		}
	}
	return docs, nil
}

// Commit implements [store.Store].
func (s *Store) Commit(ctx context.Context, distribution string, t store.Transaction) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.begin(ctx, "commit"); err != nil {
		return 0, err
	}
	d := s.distribution(distribution)
	for _, r := range t.Require {
		var version uint64
		if i, found := d.document(r.Key); found {
			version = d.documents[i].Version
		}
		if version != r.Version {
			return 0, fault("commit", store.ErrConflict)
		}
	}
	d.version++
	for _, p := range t.Put {
		doc := store.Document{Key: strings.Clone(p.Key), Value: slices.Clone(p.Value), Version: d.version}
		if i, found := d.document(p.Key); found {
			d.documents[i] = doc
		} else {
			d.documents = slices.Insert(d.documents, i, doc)
		}
	}
	for _, key := range t.Delete {
		if i, found := d.document(key); found {
			d.documents = slices.Delete(d.documents, i, i+1)
		}
	}
	return d.version, nil
}

// Status implements [store.Store].
func (s *Store) Status(ctx context.Context) (store.Status, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.begin(ctx, "status"); err != nil {
		return store.Status{}, err
	}
	return store.Status{
		Kind: "memory", Address: address, Epoch: s.epoch,
		Durable: "nothing: all is gone when this process ends",
	}, nil
}

// Close implements [store.Store] and drops everything.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed, s.distributions = true, nil
	return nil
}
