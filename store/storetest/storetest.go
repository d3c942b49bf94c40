// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package storetest is the suite that every store passes: what package store
// promises, as tests and as benchmarks. A store's own tests are a [Harness], and
// what is peculiar to it.
package storetest

import (
	"context"
	"errors"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// A Harness opens the store under test. The suite closes what it opens.
type Harness struct {
	// Open returns a fresh, empty store.
	Open func(tb testing.TB) store.Store

	// Reopen returns another handle on the data of s, as another process would
	// have. s, which came from Open, may be closed by then. It is nil for a
	// store that nobody shares and that keeps nothing.
	Reopen func(tb testing.TB, s store.Store) store.Store

	// Crash ends what keeps the data of s, as kill -9 does, and sees to it that
	// s can work again soon. It is nil where there is nothing to kill.
	Crash func(tb testing.TB, s store.Store)
}

// Run runs the suite, each part on a store of its own.
func Run(t *testing.T, h Harness) {
	type part struct {
		name string
		run  func(*suite)
	}
	parts := []part{
		{"MergeAgainstClear", (*suite).mergeAgainstClear},
		{"MergeAgainstSweep", (*suite).mergeAgainstSweep},
		{"Model", (*suite).model},
		{"Claims", (*suite).claims},
		{"ClaimsOutliveSweeps", (*suite).claimsOutliveSweeps},
		{"Expiry", (*suite).expiry},
		{"HostileKeys", (*suite).hostileKeys},
		{"Tags", (*suite).tags},
		{"BigBatch", (*suite).bigBatch},
		{"ScanWhileWriting", (*suite).scanWhileWriting},
		{"ScanBreak", (*suite).scanBreak},
		{"ContextDoneBefore", (*suite).contextDoneBefore},
		{"ContextDoneDuringScan", (*suite).contextDoneDuringScan},
		{"CommitConditions", (*suite).commitConditions},
		{"CommitCounts", (*suite).commitCounts},
		{"CommitIsOneView", (*suite).commitIsOneView},
		{"VersionsGrow", (*suite).versionsGrow},
		{"List", (*suite).listing},
		{"Status", (*suite).status},
		{"Close", (*suite).closing},
		{"CloseDuringScan", (*suite).closeDuringScan},
	}
	if h.Reopen != nil {
		parts = append(parts, part{"Reopen", (*suite).reopen})
	}
	if h.Crash != nil {
		parts = append(parts, part{"Crash", (*suite).crash})
	}
	for _, part := range parts {
		t.Run(part.name, func(t *testing.T) {
			s := &suite{T: t, h: h}
			s.store = s.opened(h.Open(t))
			base, err := s.store.Now(t.Context())
			s.must(err)
			s.base = base.Truncate(time.Second)
			part.run(s)
		})
	}
}

// A suite is one part at work.
type suite struct {
	*testing.T
	h     Harness
	store store.Store
	base  time.Time // whole seconds, close to the store's clock
}

// opened closes st in the end, while the harness's own things still stand.
func (s *suite) opened(st store.Store) store.Store {
	s.Cleanup(func() {
		if err := st.Close(); err != nil {
			s.Errorf("Close: %v", err)
		}
	})
	return st
}

// handles returns n handles on the same data, which are one and the same where
// the store cannot be shared.
func (s *suite) handles(n int) []store.Store {
	all := []store.Store{s.store}
	for len(all) < n {
		if s.h.Reopen == nil {
			all = append(all, s.store)
		} else {
			all = append(all, s.opened(s.h.Reopen(s.T, s.store)))
		}
	}
	return all
}

func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// at returns the instant so many seconds after the suite began.
func (s *suite) at(seconds int) time.Time { return s.base.Add(time.Duration(seconds) * time.Second) }

// sight returns a sighting that ended at last and lives until expires, in
// seconds since the suite began.
func (s *suite) sight(path string, last, expires int, tags ...string) inventory.Update {
	return inventory.Update{Path: path, Record: inventory.Sighting{
		End: s.at(last), Expires: s.at(expires), Tags: tags,
	}.Record()}
}

func (s *suite) merge(distribution string, updates ...inventory.Update) {
	s.Helper()
	s.must(s.store.Merge(s.Context(), distribution, updates))
}

func (s *suite) scan(distribution string, r store.Range) []inventory.Entry {
	s.Helper()
	entries, err := collect(s.store.Scan(s.Context(), distribution, r))
	s.must(err)
	return entries
}

// paths scans at a number of seconds since the suite began.
func (s *suite) paths(distribution string, now int) []string {
	s.Helper()
	return pathsOf(s.scan(distribution, store.Range{Now: s.at(now)}))
}

func (s *suite) list(distribution, prefix, after string, limit int) []store.Document {
	s.Helper()
	docs, err := s.store.List(s.Context(), distribution, prefix, after, limit)
	s.must(err)
	return docs
}

func (s *suite) commit(distribution string, t store.Transaction) uint64 {
	s.Helper()
	version, err := s.store.Commit(s.Context(), distribution, t)
	s.must(err)
	return version
}

func collect(seq iter.Seq2[inventory.Entry, error]) ([]inventory.Entry, error) {
	var entries []inventory.Entry
	var failed error
	for e, err := range seq {
		if failed != nil {
			return entries, errors.New("the scan went on after an error")
		}
		if err != nil {
			failed = err
			continue
		}
		entries = append(entries, e)
	}
	return entries, failed
}

func pathsOf(entries []inventory.Entry) []string {
	paths := make([]string, 0, len(entries))
	for _, e := range entries {
		paths = append(paths, e.Path)
	}
	return paths
}

// short makes a hostile key fit for a message.
func short(key string) string {
	if len(key) > 40 {
		return key[:40] + "…"
	}
	return key
}

// wantPaths compares without printing 64 KiB paths in full.
func (s *suite) wantPaths(got, want []string) {
	s.Helper()
	if slices.Equal(got, want) {
		return
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			s.Fatalf("path %d is %q, want %q (%d paths, want %d)", i, short(got[i]), short(want[i]), len(got), len(want))
		}
	}
	s.Fatalf("%d paths, want %d", len(got), len(want))
}

// every calls each method once and passes on what it returned.
func every(ctx context.Context, st store.Store, s *suite, check func(op string, err error)) {
	_, err := st.Now(ctx)
	check("Now", err)
	check("Merge", st.Merge(ctx, "d", []inventory.Update{s.sight("/new", 1, 100)}))
	_, err = collect(st.Scan(ctx, "d", store.Range{Now: s.at(2)}))
	check("Scan", err)
	_, err = st.Clear(ctx, "d", []store.Condition{{Path: "/old", Before: s.at(50)}})
	check("Clear", err)
	_, err = st.Sweep(ctx, "d", s.at(1_000_000))
	check("Sweep", err)
	_, err = st.List(ctx, "d", "", "", 0)
	check("List", err)
	_, err = st.Commit(ctx, "d", store.Transaction{Put: []store.Put{{Key: "new"}}})
	check("Commit", err)
	_, err = st.Status(ctx)
	check("Status", err)
}

func (s *suite) contextDoneBefore() {
	s.merge("d", s.sight("/old", 1, 100))
	s.commit("d", store.Transaction{Put: []store.Put{{Key: "old"}}})
	cancelled, cancel := context.WithCancel(s.Context())
	cancel()
	late, cancel := context.WithDeadline(s.Context(), time.Unix(0, 0))
	defer cancel()
	for ctx, want := range map[context.Context]error{cancelled: context.Canceled, late: context.DeadlineExceeded} {
		every(ctx, s.store, s, func(op string, err error) {
			if !errors.Is(err, want) {
				s.Errorf("%s with a context that is done: %v, want %v", op, err, want)
			}
		})
	}
	s.wantPaths(s.paths("d", 2), []string{"/old"})
	if docs := s.list("d", "", "", 0); len(docs) != 1 || docs[0].Key != "old" {
		s.Errorf("documents changed: %v", docs)
	}
}

func (s *suite) status() {
	var epoch string
	for i, st := range s.handles(2) {
		status, err := st.Status(s.Context())
		s.must(err)
		if status.Kind == "" || status.Address == "" || status.Epoch == "" || status.Durable == "" {
			s.Errorf("something is empty in %+v", status)
		}
		if i > 0 && status.Epoch != epoch {
			s.Errorf("epochs %q and %q of the same data", epoch, status.Epoch)
		}
		epoch = status.Epoch
	}
	other, err := s.opened(s.h.Open(s.T)).Status(s.Context())
	s.must(err)
	if other.Epoch == epoch {
		s.Errorf("another store has the same epoch %q", epoch)
	}
}

func (s *suite) closing() {
	s.merge("d", s.sight("/old", 1, 100))
	s.must(s.store.Close())
	s.must(s.store.Close())
	every(s.Context(), s.store, s, func(op string, err error) {
		if !errors.Is(err, store.ErrClosed) {
			s.Errorf("%s after Close: %v, want ErrClosed", op, err)
		}
	})
}

func (s *suite) closeDuringScan() {
	s.many("d", 5000)
	n := 0
	for _, err := range s.store.Scan(s.Context(), "d", store.Range{Now: s.at(2)}) {
		if n == 0 {
			s.must(s.store.Close())
		}
		if n++; err != nil {
			if !errors.Is(err, store.ErrClosed) {
				s.Errorf("a scan that was closed ended with %v, want ErrClosed", err)
			}
			return
		}
	}
	if n != 5000 {
		s.Errorf("%d entries and no error", n)
	}
}

func (s *suite) reopen() {
	s.merge("d", s.sight("/a", 1, 100, "t"), s.sight("/b", 1, 100))
	s.merge("d", inventory.Update{Path: "/b", Record: inventory.RemovedClaim(s.at(2))})
	s.merge("e", s.sight("/c", 1, 100))
	version := s.commit("d", store.Transaction{Put: []store.Put{{Key: "k", Value: []byte("v")}}})
	before := s.scan("d", store.Range{Now: s.at(2)})
	was, err := s.store.Status(s.Context())
	s.must(err)
	s.must(s.store.Close())

	s.store = s.opened(s.h.Reopen(s.T, s.store))
	if after := s.scan("d", store.Range{Now: s.at(2)}); !slices.EqualFunc(before, after, sameEntry) || len(after) != 1 {
		s.Errorf("entries %+v, want %+v", after, before)
	}
	s.wantPaths(s.paths("e", 2), []string{"/c"})
	docs := s.list("d", "", "", 0)
	if len(docs) != 1 || docs[0].Key != "k" || string(docs[0].Value) != "v" || docs[0].Version != version {
		s.Errorf("documents %+v", docs)
	}
	if v := s.commit("d", store.Transaction{Delete: []string{"k"}}); v <= version {
		s.Errorf("version %d after %d", v, version)
	}
	is, err := s.store.Status(s.Context())
	s.must(err)
	if is.Epoch != was.Epoch {
		s.Errorf("epoch %q, was %q", is.Epoch, was.Epoch)
	}
}

func sameEntry(a, b inventory.Entry) bool {
	return a.Path == b.Path && a.Last.Equal(b.Last) && a.Expires.Equal(b.Expires) && a.Hits == b.Hits &&
		slices.Equal(a.Tags, b.Tags) && a.Mixed == b.Mixed && a.Folded == b.Folded
}

// hostile are keys that trip up separators, patterns, escapes and signed bytes.
func hostile() []string {
	return []string{
		"/", "//", "/a", "/a/", "/a/b", "/ab", "/a\x00", "/a\x00b", "/a\x00\x00", "\x00", "\x00\x01", "\xff", "\xff\xff", "\xff\xff\xff\xff\xff\xff\xff\xff\xff",
		"/\xff", "/a\xff", "/a\xff\xff", "/\x7f\x80\x81", "/*", "*", "/a*", "/a?", "/[a]", "/%00", "%00", "/%2F", "/a%", "/a:b", "/a|b", "/a{b}", "{", "}", "{d}",
		"/a b", "/a\nb", "/a\r\nb", "/a\tb", "/\"quoted\"", "/'", "/\\", "/ä", "/a\u0308", "/日本語", "/\U0001f600", "/\xc3\x28", "/A", "/z", "/~user",
		"e", "d", "k", "m", "0", "-1", "/" + strings.Repeat("x", 255), "/" + strings.Repeat("x", 256), "/" + strings.Repeat("x", 511),
	}
}

// longPaths are as long as a path may be; documents' keys may not.
func longPaths() []string {
	return []string{
		"/" + strings.Repeat("y", 64<<10-1), "/" + strings.Repeat("y", 64<<10-2), "/" + strings.Repeat("y", 64<<10-2) + "\x00",
		strings.Repeat("\x00", 64<<10), strings.Repeat("\xff", 64<<10),
	}
}

// neighbours are names that contain each other and whatever may separate them.
func neighbours() []string {
	return []string{"", "E", "E1", "E1/", "E1/a", "E1\x00", "E1\x00/a", "E1:", "E1:e", "E\xff", "\x00", "\xff", "{E1}", "E1}", "*", strings.Repeat("E", 512)}
}
