// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package journal_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/journal/journaltest"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/memstore"
	"github.com/cf-invalidation-tracker/cftrack/store/storetest"
)

var t0 = journaltest.T0

func open(t *testing.T) *journal.Journal {
	t.Helper()
	st := memstore.New()
	t.Cleanup(func() { st.Close() })
	return journal.Open(st, "E1")
}

func TestJournal(t *testing.T) {
	journaltest.Run(t, memory)
}

func BenchmarkJournal(b *testing.B) { journaltest.Bench(b, memory) }

var memory = storetest.Harness{Open: func(tb testing.TB) store.Store {
	st := memstore.New()
	tb.Cleanup(func() { st.Close() })
	return st
}}

func TestAcksKeepTheirGaps(t *testing.T) {
	var s journal.Session
	s.Ack(3)
	s.Ack(1)
	if !s.HasAcked(1) || s.HasAcked(2) || !s.HasAcked(3) {
		t.Fatalf("%+v", s)
	}
	s.Ack(2)
	if s.Acked != 3 || len(s.AckedAlso) != 0 {
		t.Fatalf("%+v", s)
	}
}

// lostAnswers is a store whose writes happen but are reported as failed.
type lostAnswers struct {
	store.Store
	lose bool
}

func (s *lostAnswers) Commit(ctx context.Context, d string, t store.Transaction) (uint64, error) {
	v, err := s.Store.Commit(ctx, d, t)
	if s.lose && err == nil {
		return 0, store.ErrUnavailable
	}
	return v, err
}

func TestRenewingAfterALostAnswer(t *testing.T) {
	st := &lostAnswers{Store: memstore.New()}
	j := journal.Open(st, "E1")
	s := journaltest.Session(t, j, "s1", t0)
	st.lose = true
	now := t0.Add(time.Second)
	if err := j.Renew(t.Context(), s, now, nil, nil); !errors.Is(err, store.ErrUnavailable) {
		t.Fatal(err)
	}
	st.lose = false
	if err := j.Renew(t.Context(), s, now, nil, nil); err != nil {
		t.Fatalf("the session does not know its own write: %v", err)
	}
	if err := j.Renew(t.Context(), s, now.Add(time.Second), nil, nil); err != nil {
		t.Fatal(err)
	}
}

func TestCoverage(t *testing.T) {
	const longest = 24 * time.Hour
	live := func() *journal.Session {
		return &journal.Session{ID: "s", Recorder: "web", Renewed: t0, Flushed: t0, Lease: time.Minute}
	}
	purged := func(sent time.Time, item string) ([]*journal.Invalidation, []*journal.Batch) {
		j := open(t)
		inv := journaltest.Create(t, j, "/*")
		l := journaltest.Lease(t, j, "d", t0)
		b := &journal.Batch{Items: []string{item}, Sent: sent}
		if err := l.SaveBatch(t.Context(), inv, b, "r"); err != nil {
			t.Fatal(err)
		}
		b.State, inv.State = journal.BatchDone, journal.Completed
		return []*journal.Invalidation{inv}, []*journal.Batch{b}
	}
	everything, sentLate := purged(t0.Add(time.Hour), "/*")
	partOf, sentPart := purged(t0.Add(time.Hour), "/blog/*")
	tooSoon, sentSoon := purged(t0.Add(time.Second), "/*") // within the margin of the tracking's beginning
	accepted := journal.Gap{ID: "g", From: t0, Until: t0.Add(time.Minute), Accepted: "was a test server"}

	for _, tc := range []struct {
		name     string
		k        journal.Knowledge
		now      time.Time
		complete bool
		gaps     string
		waiting  bool
	}{
		{name: "never recorded", now: t0},
		{name: "just begun", k: journal.Knowledge{Tracking: journal.Tracking{Since: t0}}, now: t0.Add(time.Minute), waiting: true},
		{name: "the longest lifetime has passed", k: journal.Knowledge{Tracking: journal.Tracking{Since: t0}},
			now: t0.Add(longest), complete: true},
		{name: "everything was purged since", k: journal.Knowledge{Tracking: journal.Tracking{Since: t0},
			Invalidations: everything, Batches: sentLate}, now: t0.Add(2 * time.Hour), complete: true},
		{name: "only a part was purged", k: journal.Knowledge{Tracking: journal.Tracking{Since: t0},
			Invalidations: partOf, Batches: sentPart}, now: t0.Add(2 * time.Hour), waiting: true},
		{name: "a part that is the whole scope", k: journal.Knowledge{Tracking: journal.Tracking{Since: t0},
			Sessions: []*journal.Session{func() *journal.Session {
				s := live()
				s.Renewed, s.Scope, s.Acked = t0.Add(2*time.Hour), []string{"/blog/*"}, 1
				return s
			}()}, Invalidations: partOf, Batches: sentPart}, now: t0.Add(2 * time.Hour), complete: true},
		{name: "a recorder is back and has not caught up", k: journal.Knowledge{Tracking: journal.Tracking{Since: t0},
			Sessions: []*journal.Session{func() *journal.Session {
				s := live()
				s.Oldest, s.Renewed = t0, t0.Add(2*time.Hour)
				return s
			}()}, Invalidations: everything, Batches: sentLate}, now: t0.Add(2 * time.Hour), gaps: "recorder-behind"},
		{name: "a recorder that holds nothing from before the cut", k: journal.Knowledge{Tracking: journal.Tracking{Since: t0},
			Sessions: []*journal.Session{func() *journal.Session {
				s := live()
				s.Oldest, s.Renewed = everything[0].Cut.Add(1), t0.Add(2*time.Hour)
				return s
			}()}, Invalidations: everything, Batches: sentLate}, now: t0.Add(2 * time.Hour), complete: true},
		{name: "purged too soon after the beginning", k: journal.Knowledge{Tracking: journal.Tracking{Since: t0},
			Invalidations: tooSoon, Batches: sentSoon}, now: t0.Add(2 * time.Hour), waiting: true},
		{name: "a recorder is lost", k: journal.Knowledge{Tracking: journal.Tracking{Since: t0},
			Sessions: []*journal.Session{live()}}, now: t0.Add(longest), gaps: "recorder-lost", waiting: true},
		{name: "a recorder is lost, and everything purged since", k: journal.Knowledge{Tracking: journal.Tracking{Since: t0},
			Sessions: []*journal.Session{live()}, Invalidations: everything, Batches: sentLate}, now: t0.Add(2 * time.Hour), gaps: "recorder-lost", waiting: true},
		{name: "it has been silent for the longest lifetime", k: journal.Knowledge{Tracking: journal.Tracking{Since: t0},
			Sessions: []*journal.Session{live()}},
			now: t0.Add(time.Minute + longest), complete: true},
		{name: "not for quite as long, and everything was purged", k: journal.Knowledge{Tracking: journal.Tracking{Since: t0},
			Sessions: []*journal.Session{live()}, Invalidations: everything, Batches: sentLate},
			now: t0.Add(longest), gaps: "recorder-lost", waiting: true},
		{name: "a gap that closed", k: journal.Knowledge{Tracking: journal.Tracking{Since: t0},
			Gaps: []*journal.Gap{{ID: "g", From: t0, Until: t0.Add(time.Hour), Cause: journal.CauseFull}}},
			now: t0.Add(longest), gaps: "buffer-full", waiting: true},
		{name: "a gap that can no longer matter", k: journal.Knowledge{Tracking: journal.Tracking{Since: t0},
			Gaps: []*journal.Gap{{ID: "g", From: t0, Until: t0.Add(time.Hour), Cause: journal.CauseFull}}},
			now: t0.Add(longest + time.Hour), complete: true},
		{name: "a gap that was accepted", k: journal.Knowledge{Tracking: journal.Tracking{Since: t0},
			Gaps: []*journal.Gap{&accepted}}, now: t0.Add(longest), complete: true},
		{name: "a store that evicts", k: journal.Knowledge{Tracking: journal.Tracking{Since: t0}, Evicts: "allkeys-lru"},
			now: t0.Add(longest), gaps: "store-may-evict"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := journal.ComputeCoverage(tc.k, tc.now, longest)
			var causes []string
			for _, g := range c.Gaps {
				causes = append(causes, g.Cause)
			}
			if c.Complete != tc.complete || strings.Join(causes, ",") != tc.gaps {
				t.Fatalf("complete %v, gaps %v", c.Complete, causes)
			}
			if (c.Remedy == "") != c.Complete {
				t.Errorf("remedy %q", c.Remedy)
			}
			if waits := !c.From.IsZero(); waits != tc.waiting {
				t.Errorf("complete by waiting from %v", c.From)
			} else if waits {
				if !journal.ComputeCoverage(tc.k, c.From, longest).Complete {
					t.Errorf("not complete at %v as announced", c.From)
				}
				if journal.ComputeCoverage(tc.k, c.From.Add(-time.Second), longest).Complete {
					t.Errorf("complete before %v", c.From)
				}
			}
		})
	}
}

func TestASessionsLongerLifetimeCounts(t *testing.T) {
	k := journal.Knowledge{Tracking: journal.Tracking{Since: t0}, Sessions: []*journal.Session{
		{ID: "s", Renewed: t0.Add(2 * time.Hour), Lease: time.Minute, Longest: 3 * time.Hour}}}
	if journal.ComputeCoverage(k, t0.Add(2*time.Hour), time.Hour).Complete {
		t.Fatal("complete although a recorder's responses may live longer")
	}
}

// A recorder that is back, and dies before it has caught up, has flushed what an
// invalidation that ended without it does not know of.
func TestWhoDiesBehindLeavesAGapFromItsBeginning(t *testing.T) {
	for name, tc := range map[string]struct {
		renewed time.Duration // after the end
		acked   uint64
		from    time.Duration
	}{
		"back, and behind":         {time.Minute, 0, 0},
		"back, and it caught up":   {time.Minute, 1, 3 * time.Hour},
		"lost before it had ended": {-time.Minute, 0, 3 * time.Hour}, // the dispatcher spoke for it
	} {
		t.Run(name, func(t *testing.T) {
			j := open(t)
			inv := journaltest.Create(t, j, "/*")
			inv.State, inv.Ended = journal.Completed, t0.Add(2*time.Hour)
			journaltest.Lease(t, j, "d", t0)
			s := journaltest.Session(t, j, "s", t0)
			s.Oldest, s.Flushed, s.Renewed, s.Acked = t0, t0.Add(3*time.Hour), inv.Ended.Add(tc.renewed), tc.acked
			k := journal.Knowledge{Tracking: journal.Tracking{Since: t0}, Sessions: []*journal.Session{s}, Invalidations: []*journal.Invalidation{inv}}
			c := journal.ComputeCoverage(k, t0.Add(4*time.Hour), time.Hour)
			if len(c.Gaps) != 1 || c.Gaps[0].Cause != journal.CauseLost || !c.Gaps[0].From.Equal(t0.Add(tc.from)) {
				t.Errorf("%+v", c.Gaps)
			}
		})
	}
}

// TestHistoryAgreesWithLookingAtEveryItem compares the index with the definition.
func TestHistoryAgreesWithLookingAtEveryItem(t *testing.T) {
	path := rapid.Custom(func(t *rapid.T) string {
		return "/" + rapid.StringMatching(`[ab/]{0,4}(\?[ab])?`).Draw(t, "path")
	})
	rapid.Check(t, func(t *rapid.T) {
		var batches []*journal.Batch
		for i := range rapid.IntRange(0, 8).Draw(t, "batches") {
			b := &journal.Batch{Sent: t0.Add(time.Duration(rapid.IntRange(1, 9).Draw(t, fmt.Sprint("sent", i))) * time.Second),
				State: rapid.SampledFrom([]journal.BatchState{journal.Accepted, journal.BatchDone, journal.Saved}).Draw(t, "state")}
			for range rapid.IntRange(1, 3).Draw(t, "items") {
				item := path.Draw(t, "item")
				if rapid.Bool().Draw(t, "wild") {
					item += "*"
				}
				b.Items = append(b.Items, item)
			}
			batches = append(batches, b)
		}
		h := journal.NewHistory(batches, nil)
		p := path.Draw(t, "asked")
		var want time.Time
		for _, b := range batches {
			for _, text := range b.Items {
				it, err := cfpath.ParseItem(text)
				if err != nil {
					t.Fatal(err)
				}
				if b.State != journal.Saved && it.MatchesSurely(p) && b.Sent.After(want) {
					want = b.Sent
				}
			}
		}
		got, ok := h.Purged(p)
		if !got.Equal(want) || ok != !want.IsZero() {
			t.Fatalf("purged at %v, want %v", got, want)
		}
		for s := range 10 {
			end := t0.Add(time.Duration(s) * time.Second)
			if h.Settles(p, end, time.Second) != want.After(end.Add(time.Second)) {
				t.Fatalf("settles content until %v: %v", end, !want.After(end.Add(time.Second)))
			}
		}
	})
}

func TestHistoryDoubtsSpellings(t *testing.T) {
	b := &journal.Batch{Items: []string{"/it%27s", "/a?x=1"}, Sent: t0, State: journal.BatchDone}
	h := journal.NewHistory([]*journal.Batch{b}, func(p string) bool { return strings.Contains(p, "?") })
	for _, p := range b.Items {
		if _, ok := h.Purged(p); ok {
			t.Errorf("%s counts as purged although its spelling is in doubt", p)
		}
		if !h.Named(p).Equal(t0) {
			t.Errorf("%s is not known to have been sent", p)
		}
	}
}

func TestAFoldedEntryIsPurgedAsAWhole(t *testing.T) {
	b := &journal.Batch{Items: []string{"/s", "/s/a*", "/t*"}, Sent: t0, State: journal.BatchDone}
	h := journal.NewHistory([]*journal.Batch{b}, nil)
	for path, want := range map[string]bool{"/s": false, "/s/": false, "/s/a": true, "/s/ab": true, "/t": true, "/t?": true} {
		if _, got := h.PurgedAll(&inventory.Entry{Path: path, Folded: true}); got != want {
			t.Errorf("all that begins with %s was purged: %v", path, got)
		}
	}
	if _, ok := h.PurgedAll(&inventory.Entry{Path: "/s"}); !ok {
		t.Error("one path was not")
	}
}

// tidied is a store in which somebody tidies up between two of the writes that
// open an invalidation.
type tidied struct {
	store.Store
	prefix string
	done   bool
}

func (s *tidied) Commit(ctx context.Context, d string, t store.Transaction) (uint64, error) {
	if !s.done && slices.ContainsFunc(t.Put, func(p store.Put) bool { return strings.HasPrefix(p.Key, "inv/") }) {
		s.done = true
		docs, err := s.List(ctx, d, s.prefix, "", 0)
		if err != nil {
			return 0, err
		}
		var gone store.Transaction
		for _, doc := range docs {
			gone.Delete = append(gone.Delete, doc.Key)
		}
		if _, err := s.Store.Commit(ctx, d, gone); err != nil {
			return 0, err
		}
	}
	return s.Store.Commit(ctx, d, t)
}

// What an invalidation refers to is there when it is, though a compaction took it
// for what nobody needs.
func TestPartsAreThereWithTheirInvalidation(t *testing.T) {
	for _, prefix := range []string{"fix/", "sel/"} {
		t.Run(prefix, func(t *testing.T) {
			st := memstore.New()
			defer st.Close()
			j := journal.Open(&tidied{Store: st, prefix: prefix}, "E1")
			inv := &journal.Invalidation{Selector: selector.Selector{Patterns: []string{"/a"}}, Cut: t0}
			var err error
			if prefix == "fix/" {
				inv.Fixed = &journal.FixedPlan{Hash: "sha256:1", Cut: t0}
				err = j.CreateFixed(t.Context(), inv, &journal.Fixed{Items: []string{"/a"}}, t0, "x")
			} else {
				for i := range 3000 {
					inv.Selector.Patterns = append(inv.Selector.Patterns, fmt.Sprintf("/page/%04d", i))
				}
				err = j.Create(t.Context(), inv, t0, "x")
			}
			if err != nil {
				t.Fatal(err)
			}
			// As somebody else reads it.
			j = journal.Open(st, "E1")
			read, err := j.Invalidation(t.Context(), inv.ID)
			if err == nil {
				err = j.Load(t.Context(), read)
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := read.Compile(); err != nil {
				t.Error(err)
			}
			if read.Fixed != nil {
				if f, err := j.Fixed(t.Context(), read.Fixed); err != nil || len(f.Items) != 1 {
					t.Errorf("%+v, %v", f, err)
				}
			}
		})
	}
}

// swapped is a store whose data may be exchanged, as by a failover.
type swapped struct{ store.Store }

// A store that went back to before a lease gives out its version again.
func TestALeaseIsNotTakenForAnothersOfTheSameVersion(t *testing.T) {
	before, after := memstore.New(), memstore.New()
	defer before.Close()
	defer after.Close()
	st := &swapped{before}
	j := journal.Open(st, "E1")
	a := journaltest.Lease(t, j, "a", t0)
	st.Store = after
	b := journaltest.Lease(t, j, "b", t0.Add(time.Second))
	if err := a.Renew(t.Context(), t0.Add(2*time.Second), time.Minute); !errors.Is(err, journal.ErrLeaseLost) {
		t.Errorf("renewing: %v", err)
	}
	if err := a.PutWindows(t.Context(), &journal.Windows{}); !errors.Is(err, journal.ErrLeaseLost) {
		t.Errorf("writing: %v", err)
	}
	if err := a.Release(t.Context()); !errors.Is(err, journal.ErrLeaseLost) {
		t.Errorf("releasing: %v", err)
	}
	if err := b.Renew(t.Context(), t0.Add(3*time.Second), time.Minute); err != nil {
		t.Errorf("who holds it: %v", err)
	}
	if err := b.Release(t.Context()); err != nil {
		t.Error(err)
	}
	if docs, err := after.List(t.Context(), "E1", "lease", "", 0); err != nil || len(docs) != 0 {
		t.Errorf("left: %v, %v", docs, err)
	}
}

func TestAReferenceSaysWhatItIsOf(t *testing.T) {
	inv := &journal.Invalidation{ID: "inv-7-abc", Number: 7}
	for ref, want := range map[string]*journal.Batch{
		"cftrack/inv-7-abc/0/k3f9":           {Number: 0},
		"cftrack/inv-7-abc/12/follow-up/k3f": {Number: 12, FollowUp: true},
		"cftrack/inv-7-abc/13/again/k3f9":    {Number: 13, Repeat: true},
		"cftrack/inv-7-abc/14/later/k3f9":    {Number: 14},
		"cftrack/inv-7-abc/15":               {Number: 15},
		"cftrack/inv-7-abc/x/k3f9":           nil,
		"cftrack/inv-7-abcd/0/k3f9":          nil,
		"cftrack/inv-7-abc":                  nil,
		"deploy-7":                           nil,
		"":                                   nil,
	} {
		got, ok := inv.Found(ref)
		if ok != (want != nil) || ok && (got.Number != want.Number || got.FollowUp != want.FollowUp || got.Repeat != want.Repeat ||
			got.Reference != ref || got.Invalidation() != 7) {
			t.Errorf("%q: %+v, %v", ref, got, ok)
		}
	}
}
