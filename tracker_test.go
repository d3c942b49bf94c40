// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cftrack_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/cf-invalidation-tracker/cftrack"
	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const dist = "E1ABC"

// A site is a store with a tracker on it, and a way to break the store.
type site struct {
	*testing.T
	st *breakable
	tr *cftrack.Tracker
	j  *journal.Journal
}

// open opens a tracker in a bubble; what is left open at the end is closed.
func open(t *testing.T, opts *cftrack.Options) *site {
	t.Helper()
	return openOn(t, &breakable{Store: memstore.New()}, opts)
}

func openOn(t *testing.T, st *breakable, opts *cftrack.Options) *site {
	t.Helper()
	tr, err := cftrack.Open(st, dist, opts)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{T: t, st: st, tr: tr, j: journal.Open(st, dist)}
	t.Cleanup(func() { _ = tr.Close(context.Background()) })
	synctest.Wait()
	return s
}

// pass lets time go by, and whatever it brings about.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (s *site) record(path string, ttl time.Duration, tags ...string) {
	s.Helper()
	if err := s.tr.Record(s.Context(), path, ttl, tags...); err != nil {
		s.Fatal(err)
	}
}

func (s *site) invalidate(patterns ...string) *journal.Invalidation {
	s.Helper()
	inv := &journal.Invalidation{Selector: selector.Selector{Patterns: patterns}, Cut: time.Now()}
	if err := s.j.Create(s.Context(), inv, time.Now(), "test"); err != nil {
		s.Fatal(err)
	}
	return inv
}

func (s *site) session() *journal.Session {
	s.Helper()
	all, err := s.j.Sessions(s.Context())
	if err != nil || len(all) != 1 {
		s.Fatalf("%d sessions, %v; want 1", len(all), err)
	}
	return all[0]
}

func (s *site) reports(inv *journal.Invalidation) []journal.Report {
	s.Helper()
	r, err := s.j.Reports(s.Context(), inv.Number)
	if err != nil {
		s.Fatal(err)
	}
	return r
}

func (s *site) gaps() []*journal.Gap {
	s.Helper()
	g, err := s.j.Gaps(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	return g
}

func (s *site) live() map[string]inventory.Entry { return live(s, s.st) }

func live(t testing.TB, st store.Store) map[string]inventory.Entry {
	t.Helper()
	m := make(map[string]inventory.Entry)
	for e, err := range st.Scan(t.Context(), dist, store.Range{Now: time.Now()}) {
		if err != nil {
			t.Fatal(err)
		}
		m[e.Path] = e
	}
	return m
}

func (s *site) close() {
	s.Helper()
	if err := s.tr.Close(s.Context()); err != nil {
		s.Fatal(err)
	}
	if all, err := s.j.Sessions(s.Context()); err != nil || len(all) != 0 {
		s.Fatalf("%d sessions left, %v", len(all), err)
	}
}

// held is a store whose status is held back until it is let go.
type held struct {
	store.Store
	until chan struct{}
}

func (s held) Status(ctx context.Context) (store.Status, error) {
	<-s.until
	return s.Store.Status(ctx)
}

// A recorder that is killed right after it opened its session leaves a gap from
// before what it had not flushed by then.
func TestOpeningASessionSaysWhatIsFlushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := &breakable{Store: memstore.New()}
		defer down.Store.Close()
		st := held{down, make(chan struct{})}
		tr, err := cftrack.Open(st, dist, nil)
		if err != nil {
			t.Fatal(err)
		}
		pass(time.Second) // the first flush is over, the session is about to be opened
		recorded := time.Now()
		if err := tr.Record(t.Context(), "/a", time.Hour); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		down.set(func() { down.after = 1 }) // it never learns that it has a session
		close(st.until)
		synctest.Wait()
		sessions, err := journal.Open(down.Store, dist).Sessions(t.Context())
		if err != nil || len(sessions) != 1 || sessions[0].Flushed.After(recorded) {
			t.Errorf("opened with %+v, %v, while what was recorded at %v is not flushed", sessions[0], err, recorded)
		}
		if err := tr.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// breakable is a store that can be made to fail, or replaced by an empty one.
type breakable struct {
	store.Store
	mu    sync.Mutex
	all   error // of every call
	merge error // of Merge
	// after is the number of commits that fail although they were made; with
	// deletes only those that delete.
	after   int
	deletes bool
}

var errDown = fmt.Errorf("%w: connection refused", store.ErrUnavailable)

func (b *breakable) set(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

func (b *breakable) now() (store.Store, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Store, b.all
}

func (b *breakable) Now(ctx context.Context) (time.Time, error) {
	st, err := b.now()
	if err != nil {
		return time.Time{}, err
	}
	return st.Now(ctx)
}

func (b *breakable) Merge(ctx context.Context, d string, u []inventory.Update) error {
	st, err := b.now()
	if err = errors.Join(err, b.mergeErr()); err != nil {
		return err
	}
	return st.Merge(ctx, d, u)
}

func (b *breakable) mergeErr() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.merge
}

func (b *breakable) Scan(ctx context.Context, d string, r store.Range) iter.Seq2[inventory.Entry, error] {
	st, _ := b.now()
	return st.Scan(ctx, d, r)
}

func (b *breakable) List(ctx context.Context, d, prefix, after string, limit int) ([]store.Document, error) {
	st, err := b.now()
	if err != nil {
		return nil, err
	}
	return st.List(ctx, d, prefix, after, limit)
}

func (b *breakable) Commit(ctx context.Context, d string, t store.Transaction) (uint64, error) {
	st, err := b.now()
	if err != nil {
		return 0, err
	}
	v, err := st.Commit(ctx, d, t)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.after > 0 && err == nil && (!b.deletes || len(t.Delete) > 0) {
		b.after--
		return 0, errDown
	}
	return v, err
}

func (b *breakable) Status(ctx context.Context) (store.Status, error) {
	st, err := b.now()
	if err != nil {
		return store.Status{}, err
	}
	return st.Status(ctx)
}

func TestFlushesEverySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil)
		s.record("/a", time.Hour)
		time.Sleep(999 * time.Millisecond)
		if n := len(s.live()); n != 0 {
			t.Fatalf("%d entries before the flush", n)
		}
		pass(time.Millisecond)
		e, ok := s.live()["/a"]
		if want := time.Now().Add(time.Hour + drain - time.Second); !ok || !e.Expires.Equal(want) {
			t.Fatalf("after a second: %+v, want it to expire at %v", e, want)
		}
	})
}

func TestFlushWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil)
		s.record("/a", time.Hour)
		if err := s.tr.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(s.live()); n != 1 {
			t.Fatalf("%d entries after Flush returned", n)
		}
		s.st.set(func() { s.st.merge = errDown })
		s.record("/b", time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := s.tr.Flush(ctx); !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Flush = %v while the store was down", err)
		}
	})
}

// An invalidation is not acknowledged as long as something selected from before
// its cut is running, unflushed or unreported; all else is within a second.
func TestAcknowledges(t *testing.T) {
	for _, tc := range []struct {
		name     string
		before   func(*site) // before the cut
		after    func(*site) // after it
		acked    bool        // one round later, or not at all
		reported []string
	}{
		{name: "an idle recorder", acked: true},
		{name: "a young sighting", before: func(s *site) { s.record("/a/1", time.Hour) }, acked: true, reported: []string{"/a/1"}},
		{name: "another path", before: func(s *site) { s.record("/b", time.Hour) }, acked: true},
		{name: "a sighting that began later", after: func(s *site) {
			time.Sleep(time.Millisecond)
			s.record("/a/1", time.Hour)
		}, acked: true},
		{name: "at the very instant of the cut", after: func(s *site) { s.record("/a/1", time.Hour) }, acked: true, reported: []string{"/a/1"}},
		{name: "flushed, but on its way", before: func(s *site) { s.record("/a/1", time.Hour); pass(1900 * time.Millisecond) },
			acked: true, reported: []string{"/a/1"}},
		{name: "arrived long ago", before: func(s *site) { s.record("/a/1", time.Hour); pass(5 * time.Second) }, acked: true},
		{name: "not flushed", before: func(s *site) {
			s.st.set(func() { s.st.merge = store.ErrFull })
			s.record("/a/1", time.Hour)
			pass(3 * time.Second)
		}, acked: false},
		{name: "something else is not flushed", before: func(s *site) {
			s.st.set(func() { s.st.merge = store.ErrFull })
			s.record("/b", time.Hour)
		}, acked: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, nil)
				pass(300 * time.Millisecond)
				if tc.before != nil {
					tc.before(s)
				}
				inv := s.invalidate("/a/*")
				if tc.after != nil {
					tc.after(s)
				}
				pass(time.Second)
				if !tc.acked {
					pass(time.Minute)
				}
				if got := s.session().HasAcked(inv.Number); got != tc.acked {
					t.Fatalf("acknowledged: %v", got)
				}
				s.st.set(func() { s.st.merge = nil })
				pass(10 * time.Second)
				if !s.session().HasAcked(inv.Number) {
					t.Fatal("never acknowledged")
				}
				want := tc.reported
				if !tc.acked {
					want = []string{"/a/1"}
				}
				var got []string
				for _, r := range s.reports(inv) {
					got = append(got, r.Path)
					if r.Start.After(inv.Cut) || r.End.Before(r.Start) {
						t.Errorf("report %+v for a cut at %v", r, inv.Cut)
					}
				}
				if !slices.Equal(got, want) {
					t.Fatalf("reported %q, want %q", got, want)
				}
			})
		})
	}
}

func TestEachSightingIsReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil)
		s.record("/a", time.Hour)
		first := s.invalidate("/a")
		pass(time.Second)
		second := s.invalidate("/a")
		pass(10 * time.Second)
		if a, b := len(s.reports(first)), len(s.reports(second)); a != 1 || b != 1 {
			t.Fatalf("reported %d and %d times", a, b)
		}
	})
}

func TestTagsAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil)
		s.record("/a", time.Hour, "x")
		s.record("/a", time.Hour, "y")
		inv := s.invalidate("/*")
		pass(time.Second)
		if r := s.reports(inv); len(r) != 1 || !slices.Equal(r[0].Tags, []string{"x", "y"}) {
			t.Fatalf("%+v", r)
		}
	})
}

func TestASelectorThatCannotBeReadSelectsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil)
		s.record("/a", time.Hour)
		inv := &journal.Invalidation{Selector: selector.Selector{Regexps: []string{"("}}, Cut: time.Now()}
		if err := s.j.Create(t.Context(), inv, time.Now(), "test"); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if r := s.reports(inv); len(r) != 1 {
			t.Fatalf("%d reports", len(r))
		}
	})
}

// A large selector, which stands in documents of its own, is judged by like any other.
func TestALargeSelectorSelectsWhatItSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil)
		s.record("/a", time.Hour)
		s.record("/page/7", time.Hour)
		var patterns []string
		for i := range 3000 {
			patterns = append(patterns, fmt.Sprintf("/page/%d", i))
		}
		inv := s.invalidate(patterns...)
		pass(time.Second)
		if r := s.reports(inv); inv.Large == nil || len(r) != 1 || r[0].Path != "/page/7" {
			t.Fatalf("%+v", r)
		}
	})
}

func TestManyReportsGoOutInParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil)
		for i := range 5001 {
			s.record(fmt.Sprintf("/p/%d", i), time.Hour)
		}
		inv := s.invalidate("/p/*")
		pass(time.Second)
		if n := len(s.reports(inv)); n != 5001 || !s.session().HasAcked(inv.Number) {
			t.Fatalf("%d reports", n)
		}
	})
}

func TestAnOutageLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil)
		id := s.session().ID
		s.st.set(func() { s.st.all = errDown })
		for i := range 60 {
			s.record(fmt.Sprintf("/p/%d", i%7), time.Hour)
			pass(time.Second)
		}
		if st := s.tr.Stats(); st.Buffered != 7 || st.Lost != 0 || !errors.Is(st.Err, store.ErrUnavailable) {
			t.Fatalf("during the outage: %+v", st)
		}
		s.st.set(func() { s.st.all = nil })
		pass(5 * time.Second) // half the lease: the longest back-off
		hits := uint64(0)
		for _, e := range s.live() {
			hits += e.Hits
		}
		if len(s.live()) != 7 || hits != 60 {
			t.Fatalf("%d entries with %d hits after the outage", len(s.live()), hits)
		}
		if g := s.gaps(); len(g) != 0 || s.session().ID != id {
			t.Fatalf("session %v, gaps %v: nobody had removed it", s.session().ID, g)
		}
	})
}

func TestStartsWhileTheStoreIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openOn(t, &breakable{Store: ahead{memstore.New()}, all: errDown}, nil)
		if err := s.tr.Ready(); !errors.Is(err, cftrack.ErrNotReady) || !errors.Is(err, store.ErrUnavailable) {
			t.Fatalf("Ready = %v", err)
		}
		start := time.Now()
		s.record("/kept", time.Hour)
		s.record("/removed", time.Hour)
		if err := s.tr.Remove(t.Context(), "/removed"); err != nil {
			t.Fatal(err)
		}
		s.record("/forever", cftrack.UntilPurged)
		pass(time.Minute)
		s.st.set(func() { s.st.all = nil })
		pass(10 * time.Second)
		if err := s.tr.Ready(); err != nil {
			t.Fatal(err)
		}
		if got, want := s.session().Oldest, start.Add(skewed); !got.Equal(want) {
			t.Errorf("oldest %v, want %v", got, want)
		}
		m := make(map[string]inventory.Entry)
		for e, err := range s.st.Scan(t.Context(), dist, store.Range{Now: time.Now().Add(skewed)}) {
			if err != nil {
				t.Fatal(err)
			}
			m[e.Path] = e
		}
		if e := m["/kept"]; !e.Last.Equal(start.Add(skewed)) || !e.Expires.Equal(start.Add(skewed+time.Hour+drain)) {
			t.Errorf("%+v; want store time, %v", e, start.Add(skewed))
		}
		if e := m["/forever"]; !e.Expires.Equal(inventory.Never) {
			t.Errorf("%+v; want it never to expire", e)
		}
		if _, ok := m["/removed"]; ok {
			t.Error("a path that was removed is back")
		}
	})
}

// ahead is a store whose clock is ahead of ours.
type ahead struct{ store.Store }

const skewed = 42 * time.Minute

func (a ahead) Now(ctx context.Context) (time.Time, error) {
	now, err := a.Store.Now(ctx)
	return now.Add(skewed), err
}

func TestAFullBufferIsAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, &cftrack.Options{Buffer: 3})
		pass(300 * time.Millisecond)
		from := time.Now()
		full := 0
		for i := range 5 {
			switch err := s.tr.Record(t.Context(), fmt.Sprintf("/%d", i), time.Hour); {
			case errors.Is(err, cftrack.ErrFull):
				full++
			case err != nil:
				t.Fatal(err)
			}
		}
		pass(time.Second)
		gaps := s.gaps()
		if full != 2 || len(gaps) != 1 || s.tr.Stats().Lost != 2 {
			t.Fatalf("%d of 5 refused, %d gaps, %d lost", full, len(gaps), s.tr.Stats().Lost)
		}
		g := gaps[0]
		if g.Cause != journal.CauseFull || g.From.After(from) || !g.Until.After(from) || g.Until.After(time.Now()) {
			t.Fatalf("gap %+v; lost at %v", g, from)
		}
		// Once what is held has been judged there is room again.
		pass(5 * time.Second)
		for i := range 2 {
			s.record(fmt.Sprintf("/new/%d", i), time.Hour)
		}
		pass(time.Second)
		if n := len(s.live()); n != 5 || len(s.gaps()) != 1 {
			t.Fatalf("%d entries, %d gaps", n, len(s.gaps()))
		}
		// What is lost much later is another gap.
		for i := range 4 {
			_ = s.tr.Record(t.Context(), fmt.Sprintf("/more/%d", i), time.Hour)
		}
		pass(time.Second)
		if gaps := s.gaps(); len(gaps) != 2 {
			t.Fatalf("%d gaps", len(gaps))
		}
	})
}

func TestAGapGrowsWhileLossesGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, &cftrack.Options{Buffer: 1})
		s.record("/a", time.Hour)
		from := time.Now()
		s.st.set(func() { s.st.after = 2 }) // it cannot be written at once
		for range 4 {
			s.record("/a", time.Hour) // so that there is no room for another
			if err := s.tr.Record(t.Context(), "/b", time.Hour); !errors.Is(err, cftrack.ErrFull) {
				t.Fatal(err)
			}
			pass(time.Second)
		}
		until := time.Now().Add(-time.Second)
		pass(10 * time.Second)
		if g := s.gaps(); len(g) != 1 || g[0].From.After(from) || g[0].Until.Before(until) {
			t.Fatalf("gaps %+v, want one from %v until %v", g, from, until)
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, &cftrack.Options{Buffer: 1000})
		for i := range 20 {
			for k := range 200 {
				s.record(fmt.Sprintf("/%d/%d", i, k), time.Hour)
			}
			pass(time.Second)
		}
		if st := s.tr.Stats(); st.Paths > 1000 || st.Lost != 0 || len(s.live()) != 4000 {
			t.Fatalf("%+v with %d entries", st, len(s.live()))
		}
	})
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil)
		s.record("/a", time.Hour)
		inv := s.invalidate("/a")
		begun := time.Now()
		s.close()
		if took := time.Since(begun); took < 2*time.Second || took > 3*time.Second {
			t.Errorf("closing took %v; the response needs 2 s to reach CloudFront", took)
		}
		if len(s.live()) != 1 || len(s.reports(inv)) != 1 || len(s.gaps()) != 0 {
			t.Fatalf("%d entries, %d reports, %d gaps", len(s.live()), len(s.reports(inv)), len(s.gaps()))
		}
		if err := s.tr.Close(t.Context()); err != nil {
			t.Fatalf("closing again: %v", err)
		}
		for name, err := range map[string]error{
			"Record": s.tr.Record(t.Context(), "/b", 0), "Remove": s.tr.Remove(t.Context(), "/b"),
			"SetTTL": s.tr.SetTTL(t.Context(), "/b", 1), "Flush": s.tr.Flush(t.Context()),
		} {
			if !errors.Is(err, cftrack.ErrClosed) {
				t.Errorf("%s after Close: %v", name, err)
			}
		}
	})
}

func TestAnIdleTrackerClosesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil)
		pass(time.Minute)
		begun := time.Now()
		s.close()
		if took := time.Since(begun); took != 0 {
			t.Fatalf("took %v", took)
		}
	})
}

// What happens between the last look and the end of Close is reported too.
func TestCloseReadsTheJournalLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil)
		s.record("/a", time.Hour)
		done := make(chan error)
		go func() { done <- s.tr.Close(t.Context()) }()
		pass(1900 * time.Millisecond)
		inv := s.invalidate("/a")
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if r := s.reports(inv); len(r) != 1 {
			t.Fatalf("%d reports", len(r))
		}
	})
}

func TestCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil)
		s.record("/a", time.Hour)
		s.st.set(func() { s.st.all = errDown })
		begun := time.Now()
		err := s.tr.Close(t.Context())
		if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "1 paths not stored") {
			t.Errorf("Close = %v", err)
		}
		if took := time.Since(begun); took > 12*time.Second {
			t.Errorf("took %v", took)
		}
		s.st.set(func() { s.st.all = nil })
		if !s.session().Lost(time.Now().Add(time.Minute)) {
			t.Error("the session does not show as a gap")
		}
	})
}

func TestCloseOfATrackerThatHadNothingToSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openOn(t, &breakable{Store: memstore.New(), all: errDown}, nil)
		if err := s.tr.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestCloseOfATrackerThatNeverReachedItsStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openOn(t, &breakable{Store: memstore.New(), all: errDown}, nil)
		s.record("/a", time.Hour)
		if err := s.tr.Close(t.Context()); !errors.Is(err, store.ErrUnavailable) {
			t.Fatalf("Close = %v, and a sighting is lost", err)
		}
	})
}

func TestAnUnsureAnswerIsNoLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openOn(t, &breakable{Store: memstore.New(), after: 1}, nil) // of the opening
		pass(10 * time.Second)
		id := s.session().ID
		s.record("/a", time.Hour)
		inv := s.invalidate("/a")
		s.st.set(func() { s.st.after = 2 }) // of a renewal with a report, and its repetition
		pass(10 * time.Second)
		if s.session().ID != id || len(s.gaps()) != 0 {
			t.Fatalf("another session, gaps %v", s.gaps())
		}
		if n := len(s.reports(inv)); n != 1 || !s.session().HasAcked(inv.Number) {
			t.Fatalf("%d reports", n)
		}
		s.st.set(func() { s.st.after, s.st.deletes = 1, true }) // of the closing
		s.close()
		if len(s.gaps()) != 0 {
			t.Fatalf("gaps %v", s.gaps())
		}
	})
}

func TestALostSession(t *testing.T) {
	for _, tc := range []struct {
		name  string
		lose  func(*site, store.Document)
		cause string
	}{
		{"the store lost everything", func(s *site, _ store.Document) {
			s.st.set(func() { s.st.Store = memstore.New() })
		}, journal.CauseStoreLost},
		{"the store went back, and knows it", func(s *site, old store.Document) {
			back := memstore.New() // with an epoch of its own
			if _, err := back.Commit(s.Context(), dist, store.Transaction{Put: []store.Put{{Key: old.Key, Value: old.Value}}}); err != nil {
				s.Fatal(err)
			}
			s.st.set(func() { s.st.Store = back })
		}, journal.CauseStoreBack},
		{"the store went back", func(s *site, old store.Document) {
			if _, err := s.st.Commit(s.Context(), dist, store.Transaction{Put: []store.Put{{Key: old.Key, Value: old.Value}}}); err != nil {
				s.Fatal(err)
			}
		}, journal.CauseStoreBack},
		{"somebody removed it", func(s *site, old store.Document) {
			if _, err := s.st.Commit(s.Context(), dist, store.Transaction{Delete: []string{old.Key}}); err != nil {
				s.Fatal(err)
			}
		}, journal.CauseStoreBack},
		{"declared dead", func(s *site, _ store.Document) {
			id := s.session().ID
			if _, err := s.j.Accept(s.Context(), id, "replaced", "ada", time.Now().Add(time.Minute)); err != nil {
				s.Fatal(err)
			}
		}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, nil)
				first := s.session()
				docs, err := s.st.List(t.Context(), dist, "ses/", "", 0)
				if err != nil || len(docs) != 1 {
					t.Fatal(docs, err)
				}
				pass(20 * time.Second)
				start := time.Now()
				s.record("/young", time.Hour)
				inv := s.invalidate("/young")
				tc.lose(s, docs[0])
				if invs, err := s.j.Invalidations(t.Context(), 0); err == nil && len(invs) == 0 {
					inv = s.invalidate("/young") // the old one is gone with the rest
				}
				pass(2 * time.Second)

				all, err := s.j.Sessions(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				all = slices.DeleteFunc(all, func(x *journal.Session) bool { return x.ID == first.ID })
				if len(all) != 1 || all[0].Oldest.After(start) {
					t.Fatalf("sessions %+v; want another one that holds what began at %v", all, start)
				}
				if !all[0].HasAcked(inv.Number) || len(s.reports(inv)) == 0 {
					t.Errorf("acknowledged %v, %d reports", all[0].HasAcked(inv.Number), len(s.reports(inv)))
				}
				gaps := slices.DeleteFunc(s.gaps(), func(g *journal.Gap) bool { return g.Accepted != "" })
				if tc.cause == "" {
					if len(gaps) != 0 {
						t.Fatalf("gaps %+v", gaps)
					}
					return
				}
				// What the session had flushed since it was last seen in the store is
				// gone with the rest.
				if len(gaps) != 1 || gaps[0].Cause != tc.cause || gaps[0].From.After(first.Flushed) || gaps[0].Until.Before(start) {
					t.Fatalf("gaps %+v, want %s from %v", gaps, tc.cause, first.Flushed)
				}
			})
		})
	}
}

func TestAnInvalidationThatIsOverIsAcknowledgedByALateComer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openOn(t, &breakable{Store: memstore.New(), all: errDown}, nil)
		s.record("/a", time.Hour)
		pass(time.Second)
		s.st.set(func() { s.st.all = nil })
		inv := s.invalidate("/a")
		pass(10 * time.Second)
		if r := s.reports(inv); len(r) != 1 || !s.session().HasAcked(inv.Number) {
			t.Fatalf("%d reports", len(r))
		}
	})
}

// Within one process what came later counts, however little later it came.
func TestClaimsKeepTheirOrder(t *testing.T) {
	type step struct {
		do   string
		live bool
	}
	for _, steps := range [][]step{
		{{"record", true}, {"remove", false}, {"record", true}, {"remove", false}},
		{{"remove", false}, {"record", true}},
		{{"record", true}, {"ttl 0", false}, {"record", true}},
		{{"record", true}, {"ttl 1h", true}, {"ttl 0", false}},
	} {
		for _, flush := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, nil)
				for i, st := range steps {
					var err error
					switch st.do {
					case "record":
						err = s.tr.Record(t.Context(), "/a", 2*time.Hour)
					case "remove":
						err = s.tr.Remove(t.Context(), "/a")
					case "ttl 0":
						err = s.tr.SetTTL(t.Context(), "/a", 0)
					case "ttl 1h":
						err = s.tr.SetTTL(t.Context(), "/a", time.Hour)
					}
					if err != nil {
						t.Fatal(err)
					}
					if !flush && i < len(steps)-1 {
						continue
					}
					if err := s.tr.Flush(t.Context()); err != nil {
						t.Fatal(err)
					}
					if _, ok := s.live()["/a"]; ok != st.live {
						t.Errorf("%v: live %v after step %d", steps, ok, i)
					}
				}
			})
		}
	}
}

func TestSetTTLShortensOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil)
		s.record("/short", time.Hour)
		s.record("/long", time.Hour)
		for path, ttl := range map[string]time.Duration{"/short": time.Minute, "/long": 2 * time.Hour, "/unknown": time.Hour} {
			if err := s.tr.SetTTL(t.Context(), path, ttl); err != nil {
				t.Fatal(err)
			}
		}
		now := time.Now()
		pass(time.Second)
		m := s.live()
		if d := m["/short"].Expires.Sub(now); d < time.Minute || d > time.Minute+5*time.Millisecond {
			t.Errorf("/short ends in %v", d)
		}
		if d := m["/long"].Expires.Sub(now); d != time.Hour+drain {
			t.Errorf("/long ends in %v", d)
		}
		if len(m) != 2 {
			t.Errorf("%d entries: a claim alone makes none", len(m))
		}
	})
}

func TestRecord(t *testing.T) {
	rules := lifetime.DefaultRules()
	rules.Default.MaxTTL = 48 * time.Hour
	rules.Default.Query, _ = cfpath.ParseQueryRule("include:page")
	longest := rules.Unknown("/").Lifetime
	synctest.Test(t, func(t *testing.T) {
		s := open(t, &cftrack.Options{Rules: &rules})
		now := time.Now()
		s.record("/unknown", 0)
		s.record("/a b?utm=1&page=2", time.Minute)
		s.record("https://example.com/url", time.Minute)
		s.record("/until-purged", cftrack.UntilPurged)
		pass(time.Second)
		want := map[string]time.Time{
			"/unknown": now.Add(longest + drain), "/a%20b?page=2": now.Add(time.Minute + drain),
			"/url": now.Add(time.Minute + drain), "/until-purged": inventory.Never,
		}
		got := s.live()
		for path, at := range want {
			if !got[path].Expires.Equal(at) {
				t.Errorf("%s expires at %v, want %v", path, got[path].Expires, at)
			}
		}
		if len(got) != len(want) {
			t.Errorf("entries %v", got)
		}
		var pathErr *cfpath.Error
		if err := s.tr.Record(t.Context(), "no-slash", 0); !errors.As(err, &pathErr) || s.tr.Stats().Invalid != 1 {
			t.Errorf("Record of no path: %v", err)
		}
		if err := s.tr.Record(t.Context(), "/a", -1); err == nil {
			t.Error("a negative TTL was taken")
		}
	})
}

func TestOptionsAreChecked(t *testing.T) {
	bad := lifetime.DefaultRules()
	bad.Default.MinTTL = -1
	for field, o := range map[string]cftrack.Options{
		"Rules": {Rules: &bad}, "TTL": {TTL: -1}, "Scope": {Scope: []string{""}}, "FlushEvery": {FlushEvery: time.Minute},
		"Lease": {Lease: time.Second}, "Buffer": {Buffer: -1},
		"OriginPath": {OriginPath: "/" + strings.Repeat("a", cfpath.MaxLength+1)},
	} {
		if tr, err := cftrack.Open(memstore.New(), dist, &o); err == nil || !strings.Contains(err.Error(), "Options."+field) {
			t.Errorf("%s: %v", field, err)
			if err == nil {
				_ = tr.Close(t.Context())
			}
		}
	}
	if _, err := cftrack.Open(nil, dist, nil); err == nil {
		t.Error("opened without a store")
	}
}

// What the store holds after a flush is the merge of all that was recorded,
// through any failures of the store.
func TestTheStoreHoldsTheMergeOfEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Only a testing.TB: a bubble has no deadline.
		rapid.Check(struct{ testing.TB }{t}, func(rt *rapid.T) {
			st := &breakable{Store: memstore.New()}
			tr, err := cftrack.Open(st, dist, &cftrack.Options{Margin: -1})
			if err != nil {
				rt.Fatal(err)
			}
			oracle := make(map[string]*expectation)
			paths := rapid.SampledFrom([]string{"/a", "/b", "/c?x=1"})
			tags := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"s", "t", "u"}), 0, 2, rapid.ID)
			for range rapid.IntRange(1, 40).Draw(rt, "steps") {
				path := paths.Draw(rt, "path")
				ex := oracle[path]
				if ex == nil {
					ex = new(expectation)
					oracle[path] = ex
				}
				now := time.Now()
				switch rapid.SampledFrom([]string{"record", "record", "remove", "ttl", "pass", "break", "mend"}).Draw(rt, "do") {
				case "record":
					tg := tags.Draw(rt, "tags")
					ttl := time.Duration(rapid.IntRange(1, 30).Draw(rt, "ttl")) * time.Second
					err = tr.Record(rt.Context(), path, ttl, tg...)
					ex.record(now, ttl, tg)
				case "remove":
					err = tr.Remove(rt.Context(), path)
					ex.removed = true
				case "ttl":
					ttl := time.Duration(rapid.IntRange(1, 30).Draw(rt, "ttl")) * time.Second
					err = tr.SetTTL(rt.Context(), path, ttl)
					ex.limited, ex.limit = true, now.Add(ttl)
				case "pass":
					pass(time.Duration(rapid.IntRange(0, 2000).Draw(rt, "ms")) * time.Millisecond)
				case "break":
					st.set(func() { st.merge = errDown })
				case "mend":
					st.set(func() { st.merge = nil })
				}
				if err != nil {
					rt.Fatal(err)
				}
			}
			st.set(func() { st.merge = nil })
			if err := tr.Flush(rt.Context()); err != nil {
				rt.Fatal(err)
			}
			got := live(t, st)
			for path, ex := range oracle {
				e, ok := got[path]
				ends, isLive := ex.end()
				// A claim may be some milliseconds later than the call, to come
				// after what it follows.
				const slack = 50 * time.Millisecond
				switch left := time.Until(ends); {
				case isLive && left > 0 && !ok:
					rt.Fatalf("%s is missing; it should live for %v", path, left)
				case (!isLive || left < -slack) && ok:
					rt.Fatalf("%s is live: %+v", path, e)
				case ok && (e.Expires.Before(ends) || e.Expires.After(ends.Add(slack)) || e.Hits != ex.hits || !slices.Equal(e.Tags, ex.tags) || e.Mixed != ex.mixed):
					rt.Fatalf("%s is %+v, want %+v", path, e, *ex)
				}
			}
			if err := tr.Close(rt.Context()); err != nil {
				rt.Fatal(err)
			}
		})
	})
}

// An expectation is what a path should come to, worked out one call at a time.
type expectation struct {
	expires, limit   time.Time
	hits             uint64
	tags             []string
	mixed            bool
	removed, limited bool // since the last record
}

func (x *expectation) record(now time.Time, ttl time.Duration, tags []string) {
	slices.Sort(tags)
	if x.hits > 0 && !slices.Equal(x.tags, tags) {
		x.mixed = true
	}
	x.tags = slices.Concat(x.tags, tags)
	slices.Sort(x.tags)
	x.tags = slices.Compact(x.tags)
	x.hits++
	x.removed, x.limited = false, false
	if at := now.Add(ttl); at.After(x.expires) {
		x.expires = at
	}
}

func (x *expectation) end() (time.Time, bool) {
	if x.limited && x.limit.Before(x.expires) {
		return x.limit, x.hits > 0 && !x.removed
	}
	return x.expires, x.hits > 0 && !x.removed
}
