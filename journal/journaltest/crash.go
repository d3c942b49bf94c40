// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package journaltest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/storetest"
)

var errCrashed = errors.New("crashed")

// dying is a way to a store that ends with its nth write, before or after it is
// made: what the process that used it does from then on has no effect.
type dying struct {
	store.Store
	left    int
	written bool // the last write is made
}

func (s *dying) Commit(ctx context.Context, d string, t store.Transaction) (v uint64, err error) {
	if s.last(func() { v, err = s.Store.Commit(ctx, d, t) }) {
		return v, err
	}
	return 0, errCrashed
}

func (s *dying) Clear(ctx context.Context, d string, c []store.Condition) (n int, err error) {
	if s.last(func() { n, err = s.Store.Clear(ctx, d, c) }) {
		return n, err
	}
	return 0, errCrashed
}

// last makes a write if it may be made, and reports whether its answer counts.
func (s *dying) last(write func()) bool {
	s.left--
	if s.left > 0 || s.left == 0 && s.written {
		write()
	}
	return s.left > 0
}

// A script is what a process does to a journal, as often as it takes: it finds out
// how far things are, takes the next step, and reports whether there is none.
type script func(ctx context.Context, j *journal.Journal) (done bool, err error)

// crashes runs a script with a crash at each of its writes in turn and holds what
// there is in the end against a run without. The crash comes before the write is
// made or after it; where crashing takes time, at every other write before it.
func crashes(t *testing.T, h storetest.Harness, fresh func() script) {
	first := h.Open(t)
	st := first
	play(t, journal.Open(st, "E"), fresh())
	want := dump(t, st, "E")
	for n := 1; ; n++ {
		if n > 200 {
			t.Fatal("the script does not end")
		}
		for _, written := range []bool{false, true} {
			if h.Crash != nil && written == (n%2 == 0) {
				continue
			}
			dist := fmt.Sprintf("E%d%v", n, written)
			s := fresh()
			err := attempt(t.Context(), journal.Open(&dying{st, n, written}, dist), s)
			if err == nil {
				if n < 8 {
					t.Fatalf("only %d writes", n-1)
				}
				t.Logf("crashed at each of %d writes", n-1)
				return
			}
			if !errors.Is(err, errCrashed) {
				t.Fatalf("write %d: %v", n, err)
			}
			if h.Crash != nil {
				h.Crash(t, st)
			}
			if h.Reopen != nil {
				if err := st.Close(); err != nil {
					t.Fatal(err)
				}
				st = h.Reopen(t, first)
			}
			play(t, journal.Open(st, dist), s)
			if got := dump(t, st, dist); strings.ReplaceAll(got, dist, "E") != want {
				t.Fatalf("crashed at write %d (made: %v):\n%s\nwithout a crash:\n%s", n, written, got, want)
			}
		}
	}
}

// attempt plays a script to its end, or to its first error.
func attempt(ctx context.Context, j *journal.Journal, s script) error {
	for {
		if done, err := s(ctx, j); done || err != nil {
			return err
		}
	}
}

// play plays a script to its end over a store that may not be back yet.
func play(t *testing.T, j *journal.Journal, s script) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		err := attempt(ctx, j, s)
		if err == nil {
			return
		}
		if !errors.Is(err, store.ErrUnavailable) {
			t.Fatal(err)
		}
	}
}

// dump is all that a store holds of a distribution, but for versions, and for when
// it was compacted.
func dump(t *testing.T, st store.Store, dist string) string {
	t.Helper()
	var b strings.Builder
	docs, err := st.List(t.Context(), dist, "", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range docs {
		if d.Key != "compacted" {
			fmt.Fprintf(&b, "%s %s\n", d.Key, d.Value)
		}
	}
	for e, err := range st.Scan(t.Context(), dist, store.Range{Now: T0}) {
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %v\n", e.Path, e.Last)
	}
	return b.String()
}

// dispatching carries one invalidation out, from opening it to forgetting it. It
// remembers nothing but the lease, until it crashes.
func dispatching() script {
	compactions := 0
	var l *journal.Lease
	var under *journal.Journal // of the process that holds the lease
	return func(ctx context.Context, j *journal.Journal) (bool, error) {
		if under != j {
			var by journal.Holding
			var err error
			if l, by, err = j.Acquire(ctx, "d", T0, time.Hour); err != nil {
				return false, err
			}
			if l == nil {
				return false, fmt.Errorf("the lease is held by %+v", by)
			}
			under = j
		}
		invs, err := j.Invalidations(ctx, 0)
		if err != nil {
			return false, err
		}
		if len(invs) == 0 {
			var updates []inventory.Update
			for path, last := range map[string]time.Time{"/a": T0.Add(-time.Minute), "/b": T0.Add(-time.Minute), "/c": T0.Add(time.Minute)} {
				updates = append(updates, inventory.Update{Path: path,
					Record: inventory.Sighting{Path: path, Start: last, End: last, Expires: last.Add(time.Hour)}.Record()})
			}
			if err := j.Store().Merge(ctx, j.Distribution(), updates); err != nil {
				return false, err
			}
			return false, j.Create(ctx, &journal.Invalidation{Cut: T0, Options: journal.Options{Margin: time.Second}}, T0, "w")
		}
		inv := invs[0]
		batches, err := j.Batches(ctx, inv.Number)
		if err != nil {
			return false, err
		}
		random := func() string { return "r" }
		if inv.Compacted == nil {
			if len(batches) == 0 {
				return false, l.SaveBatch(ctx, inv, &journal.Batch{Items: []string{"/a", "/b", "/c", "/~d"}, Sent: T0}, random())
			}
			for _, b := range batches {
				switch {
				case b.State == journal.Saved && len(b.Items) > 2:
					later := T0.Add(time.Second)
					halves := []*journal.Batch{{Items: b.Items[:2], Sent: later}, {Items: b.Items[2:3], Sent: later}}
					return false, l.Replace(ctx, inv, b, "InvalidArgument", halves, random)
				case b.State == journal.Saved:
					b.State, b.Accepted, b.InvalidationID = journal.Accepted, T0.Add(2*time.Second), "I"
					return false, l.PutBatch(ctx, b)
				case b.Purged() && !b.Forgotten:
					var c []store.Condition
					for _, it := range b.Items {
						c = append(c, store.Condition{Path: it, Before: b.Sent.Add(-inv.Options.Margin)})
					}
					if _, err := j.Store().Clear(ctx, j.Distribution(), c); err != nil {
						return false, err
					}
					b.Forgotten = true
					return false, l.PutBatch(ctx, b)
				case b.State == journal.Accepted:
					b.State, b.Completed = journal.BatchDone, T0.Add(3*time.Second)
					return false, l.PutBatch(ctx, b)
				}
			}
			unread, err := j.Unread(ctx)
			if err != nil {
				return false, err
			}
			switch {
			case inv.State == journal.Sending:
				inv.State, inv.Sent = journal.Sweeping, true
				return false, l.PutInvalidation(ctx, inv)
			case inv.FollowUps == 0:
				// Reported and counted: a repetition replaces the report.
				rep := journal.Report{Invalidation: inv.Number, Path: "/c", Start: T0, End: T0.Add(time.Minute)}
				if err := j.PutReports(ctx, "import", []journal.Report{rep}); err != nil {
					return false, err
				}
				inv.FollowUps = 1
				return false, l.PutInvalidation(ctx, inv)
			case unread[inv.Number] != 0:
				return false, l.MarkRead(ctx, inv.Number, unread[inv.Number])
			case inv.State != journal.Completed:
				inv.State, inv.Ended = journal.Completed, T0.Add(time.Minute)
				return false, l.PutInvalidation(ctx, inv)
			}
		}
		// Each compaction goes on where the one before was cut off.
		compactions++
		now := T0.Add(time.Duration(compactions) * 40 * day)
		if inv.Compacted != nil {
			now = inv.Compacted.At.Add(40 * day)
		}
		c, err := l.Compact(ctx, now, time.Hour)
		if err != nil || inv.Compacted == nil || c != (journal.Compaction{}) {
			return false, err
		}
		// When it was forgotten depends on crashes, and that only.
		if !inv.Compacted.At.Equal(T0) {
			inv.Compacted.At = T0
			return false, l.PutInvalidation(ctx, inv)
		}
		return true, l.Release(ctx)
	}
}

// recording is a recorder that outlives the crashes of its store: it repeats the
// call that failed. Another one was killed, and is declared dead in the end.
func recording() script {
	s := &journal.Session{ID: "s1", Recorder: "web", Lease: 10 * time.Second, Longest: time.Hour}
	dead := &journal.Session{ID: "s2", Recorder: "killed", Lease: 10 * time.Second, Longest: 2 * time.Hour}
	gap := journal.Gap{ID: "full-1", From: T0, Until: T0.Add(time.Second), Cause: journal.CauseFull, Recorder: "web"}
	at := func(n int) time.Time { return T0.Add(time.Duration(n) * time.Second) }
	report := []journal.Report{{Invalidation: 1, Path: "/a", Start: T0, End: at(1)}}
	accept := func(id string) func(context.Context, *journal.Journal) error {
		return func(ctx context.Context, j *journal.Journal) error {
			_, err := j.Accept(ctx, id, "killed", "ada", at(60))
			if errors.Is(err, journal.ErrAccepted) {
				return nil
			}
			return err
		}
	}
	steps := []func(context.Context, *journal.Journal) error{
		func(ctx context.Context, j *journal.Journal) error { return j.OpenSession(ctx, dead, T0) },
		func(ctx context.Context, j *journal.Journal) error { return j.OpenSession(ctx, s, T0) },
		func(ctx context.Context, j *journal.Journal) error { return j.Renew(ctx, s, at(1), nil, nil) },
		func(ctx context.Context, j *journal.Journal) error {
			next := *s // acknowledged by the write, or not at all
			next.Ack(1)
			if err := j.Renew(ctx, &next, at(2), report, []journal.Gap{gap}); err != nil {
				return err
			}
			*s = next
			return nil
		},
		func(ctx context.Context, j *journal.Journal) error { return j.Renew(ctx, s, at(3), nil, nil) },
		accept("s2"),
		accept("full-1"),
		func(ctx context.Context, j *journal.Journal) error { return j.CloseSession(ctx, s) },
	}
	return func(ctx context.Context, j *journal.Journal) (bool, error) {
		if err := steps[0](ctx, j); err != nil {
			return false, err
		}
		steps = steps[1:]
		return len(steps) == 0, nil
	}
}

// Every write under a lease that was lost is refused, and changes nothing.
func aLostLeaseWritesNothing(t *testing.T, j *journal.Journal) {
	ctx := t.Context()
	l := Lease(t, j, "a", T0)
	inv := Create(t, j, "/a")
	b := &journal.Batch{Items: []string{"/a", "/b"}, Sent: T0}
	if err := l.SaveBatch(ctx, inv, b, "r"); err != nil {
		t.Fatal(err)
	}
	over(t, j, l, 2, 2)
	if err := j.PutReports(ctx, "r", []journal.Report{{Invalidation: 1, Path: "/a"}}); err != nil {
		t.Fatal(err)
	}
	if err := j.PutGaps(ctx, journal.Gap{ID: "g", From: T0, Until: T0}); err != nil {
		t.Fatal(err)
	}
	compact(t, l, T0.Add(50*day))
	unread, err := j.Unread(ctx)
	if err != nil || len(unread) != 1 {
		t.Fatal(unread, err)
	}
	if _, err := l.DataLost(ctx, T0); err != nil {
		t.Fatal(err)
	}
	Lease(t, j, "b", T0.Add(time.Minute))
	before := dump(t, j.Store(), j.Distribution())
	writes := map[string]func() error{
		"Renew":           func() error { return l.Renew(ctx, T0, time.Hour) },
		"SaveBatch":       func() error { return l.SaveBatch(ctx, inv, &journal.Batch{Items: []string{"/c"}, Sent: T0}, "r") },
		"PutBatch":        func() error { return l.PutBatch(ctx, b) },
		"PutInvalidation": func() error { return l.PutInvalidation(ctx, inv) },
		"PutWindows":      func() error { return l.PutWindows(ctx, &journal.Windows{}) },
		"MarkRead":        func() error { return l.MarkRead(ctx, 1, unread[1]) },
		"Replace": func() error {
			halves := []*journal.Batch{{Items: []string{"/a"}, Sent: T0}, {Items: []string{"/b"}, Sent: T0}}
			return l.Replace(ctx, inv, b, "why", halves, func() string { return "r" })
		},
		"Compact": func() error {
			_, err := l.Compact(ctx, T0.Add(100*day), time.Hour)
			return err
		},
		"Release": func() error { return l.Release(ctx) },
	}
	for _, name := range slices.Sorted(maps.Keys(writes)) {
		if err := writes[name](); !errors.Is(err, journal.ErrLeaseLost) {
			t.Errorf("%s under a lost lease: %v", name, err)
		}
		if after := dump(t, j.Store(), j.Distribution()); after != before {
			t.Errorf("%s under a lost lease changed\n%s\nto\n%s", name, before, after)
			before = after
		}
	}
	if b.State != journal.Saved || inv.Batches != 1 {
		t.Errorf("what was refused counts all the same: %+v, %+v", b, inv)
	}
}
