// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package store declares what cftrack needs of a place to keep inventories and
// journals in. Backends live in the directories below it; package storetest is
// the suite that every one of them passes. docs/stores.md says how to write one.
//
// A [Store] keeps two things for each distribution. The inventory maps paths to
// merged records ([Store.Merge], [Store.Scan], [Store.Clear], [Store.Sweep]); it is
// large, written blindly and read in order. The documents ([Store.List],
// [Store.Commit]) are small, few, and written under conditions: the journal, the
// sessions and the leases are built on them by package journal.
//
// Paths, keys and distribution names are arbitrary bytes (paths up to 64 KiB,
// keys and names up to 512 bytes); a backend MUST keep them apart and intact.
// Distributions never see each other. The name "" is a valid distribution, used
// for what concerns a whole account.
package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
)

// A Store keeps inventories and documents. All methods are safe for concurrent
// use, from any number of processes.
//
// Opening a store MUST NOT dial: an unreachable backend shows in the first call
// that needs it, as an error that wraps [ErrUnavailable], and a later call MUST
// work once the backend is back, without reopening.
//
// A method MUST return soon after its context is done, with the context's error,
// and MUST NOT change anything when the context was done before the call. When a
// call that writes returns another error than [ErrConflict] or [ErrFull], the
// write may or may not have happened; all writes can be repeated.
type Store interface {
	// Now returns the store's clock, of which every process sees the same value
	// within the duration of the call. Clocks MAY jump; they SHOULD not.
	Now(ctx context.Context) (time.Time, error)

	// Merge merges each update into what is kept for its path, as
	// inventory.Record.Merge does, and is atomic for each path. When it returns
	// nil the updates are acknowledged: they survive the death of any process,
	// every later call sees them, and no Clear or Sweep that runs at the same
	// time may lose or hide them unless its own condition says so. Paths may
	// repeat within one call.
	Merge(ctx context.Context, distribution string, updates []inventory.Update) error

	// Scan yields the entries within r that are live at r.Now, in byte order of
	// path. An entry that was acknowledged before the call and is not cleared
	// while it runs is yielded exactly once; what is merged meanwhile may or may
	// not be. Memory does not grow with the number of entries. After an error,
	// which comes last, no more is yielded. Breaking off early is fine. The
	// entries' strings and slices may be kept but not changed.
	Scan(ctx context.Context, distribution string, r Range) iter.Seq2[inventory.Entry, error]

	// Clear removes the record of each condition's path if the condition holds,
	// looking and removing in one atomic step for each path, and returns how
	// many it removed. Paths that are not there are no error.
	Clear(ctx context.Context, distribution string, conditions []Condition) (int, error)

	// Sweep removes records that are dead at now (inventory.Record.Dead), atomic
	// as Clear is, and returns how many. It may stop early, and MUST not hold up
	// other callers for long.
	Sweep(ctx context.Context, distribution string, now time.Time) (int, error)

	// List returns the documents whose keys begin with prefix and are greater
	// than after, in byte order of key, at most limit of them (0: all). It is
	// one consistent view of those documents.
	List(ctx context.Context, distribution, prefix, after string, limit int) ([]Document, error)

	// Commit applies t as a whole or not at all. If one of its requirements does
	// not hold it returns [ErrConflict] and changes nothing. When it returns nil
	// the change is durable as Merge's is. The version it returns is that of
	// every document it put, and greater than any that the distribution had.
	Commit(ctx context.Context, distribution string, t Transaction) (version uint64, err error)

	// Status describes the store as it is now, dialling if need be.
	Status(ctx context.Context) (Status, error)

	// Close ends the store's goroutines and connections and waits for them. It
	// may be called more than once; other calls after it return [ErrClosed].
	Close() error
}

// A Range bounds a scan.
type Range struct {
	// Prefix is what the paths must begin with.
	Prefix string
	// From is the first path wanted; "" is from the beginning.
	From string
	// Now is the instant at which entries must be live, in store time. It is
	// required: a zero Now yields nothing.
	Now time.Time
}

// A Condition says when the record of a path may be removed.
type Condition struct {
	Path string
	// Before: only if the latest sighting ended before this (Record.Before).
	Before time.Time
	// Uniform: only if the record is not Mixed.
	Uniform bool
}

// Holds reports whether r may be removed under the condition. A folded record
// never may: what it stands for is more than its path.
func (c Condition) Holds(r *inventory.Record) bool {
	return r.Before(c.Before) && !(c.Uniform && r.Mixed) && !r.Folded
}

// A Document is a small value under a key, with a version that changes with
// every write.
type Document struct {
	Key     string
	Value   []byte
	Version uint64
}

// A Transaction is a set of writes under a set of requirements. A key may occur
// in Put or in Delete, once.
type Transaction struct {
	Require []Requirement
	Put     []Put
	Delete  []string
}

// A Requirement holds if the document of that key has that version; version 0
// means that there is no such document.
type Requirement struct {
	Key     string
	Version uint64
}

// A Put writes a document.
type Put struct {
	Key   string
	Value []byte
}

// Status describes a store.
type Status struct {
	// Kind is "memory", "file", "redis" or "set".
	Kind string
	// Address names the store for people; it holds no secret.
	Address string
	// Epoch is a random name for the data's life. It changes when the data was
	// lost as a whole; a store that lost data in part SHOULD change it too.
	Epoch string
	// Evicts says that the store may drop data on its own, and under which
	// policy; empty is good.
	Evicts string
	// Durable says what an acknowledged write survives, for people.
	Durable string
}

var (
	// ErrConflict: a requirement of a transaction did not hold.
	ErrConflict = errors.New("store: conflict: a document changed meanwhile")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store: already closed")
	// ErrUnavailable: the backend cannot be reached or does not answer.
	ErrUnavailable = errors.New("store: unavailable")
	// ErrFull: the backend refuses writes for want of space; reading works.
	ErrFull = errors.New("store: full")
)

// An Error adds to a sentinel which operation on which store hit it, and what a
// person can do.
type Error struct {
	Op    string // "merge", "scan", …
	Store string // the address, without secrets
	Err   error
	Hint  string
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s: %s: %v", e.Store, e.Op, e.Err)
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }
