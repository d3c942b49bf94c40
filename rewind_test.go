// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cftrack_test

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cf-invalidation-tracker/cftrack"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/memstore"
)

// rewindable is a store whose documents can go back in time, with their versions,
// as a replica's do that was behind when it took over. It has one distribution.
type rewindable struct {
	*memstore.Store
	mu           sync.Mutex
	version      uint64
	docs         map[string]store.Document
	stepped      time.Duration // of its clock
	savedVersion uint64
	saved        map[string]store.Document
}

func (s *rewindable) save() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saved, s.savedVersion = maps.Clone(s.docs), s.version
}

func (s *rewindable) rewind() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.docs, s.version = maps.Clone(s.saved), s.savedVersion
}

func (s *rewindable) step(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stepped += d
}

func (s *rewindable) Now(ctx context.Context) (time.Time, error) {
	now, err := s.Store.Now(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	return now.Add(s.stepped), err
}

func (s *rewindable) List(_ context.Context, _, prefix, after string, limit int) ([]store.Document, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []store.Document
	for key, d := range s.docs {
		if strings.HasPrefix(key, prefix) && key > after {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b store.Document) int { return cmp.Compare(a.Key, b.Key) })
	if limit > 0 {
		out = out[:min(limit, len(out))]
	}
	return out, nil
}

func (s *rewindable) Commit(_ context.Context, _ string, t store.Transaction) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range t.Require {
		if s.docs[r.Key].Version != r.Version {
			return 0, store.ErrConflict
		}
	}
	s.version++
	if s.docs == nil {
		s.docs = make(map[string]store.Document)
	}
	for _, p := range t.Put {
		s.docs[p.Key] = store.Document{Key: p.Key, Value: p.Value, Version: s.version}
	}
	for _, key := range t.Delete {
		delete(s.docs, key)
	}
	return s.version, nil
}

func TestAStoreThatWentBack(t *testing.T) {
	for name, tc := range map[string]struct {
		back, opened int // how many sessions and invalidations are still there
		gap          func(*journal.Gap) bool
	}{
		"by some renewals":            {1, 1, func(g *journal.Gap) bool { return g.Left != nil && g.Owes(1) }},
		"to before an invalidation":   {1, 0, func(g *journal.Gap) bool { return g.Left != nil && !g.Owes(1) }},
		"to before the session began": {0, 0, func(g *journal.Gap) bool { return g.Left == nil }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := &rewindable{Store: memstore.New()}
				shared := &breakable{Store: st}
				if tc.back == 0 {
					st.save()
				}
				s := openOn(t, shared, &cftrack.Options{Name: "web"})
				s.record("/a", time.Hour)
				pass(10 * time.Second)
				if tc.back > 0 && tc.opened == 0 {
					st.save()
				}
				first := s.session()
				inv := s.invalidate("/a")
				if tc.opened > 0 {
					st.save()
				}
				s.record("/a", time.Hour)
				pass(5 * time.Second)
				if !s.session().HasAcked(inv.Number) {
					t.Fatal("not acknowledged")
				}
				st.rewind()
				went := time.Now()
				pass(5 * time.Second)

				again := s.session() // there is one
				if again.ID == first.ID || again.Recorder != "web" {
					t.Fatalf("%+v", again)
				}
				if tc.opened > 0 && !again.HasAcked(inv.Number) {
					t.Error("what the store still has is not acknowledged again")
				}
				gaps := s.gaps()
				if len(gaps) != 1 || gaps[0].Cause != journal.CauseStoreBack || gaps[0].Until.Before(went) || gaps[0].From.After(first.Flushed) || !tc.gap(gaps[0]) {
					t.Fatalf("%+v", gaps)
				}
				c, err := s.j.Coverage(t.Context(), time.Now(), time.Minute)
				if err != nil || len(c.Gaps) != 1 || c.Sessions != 1 {
					t.Errorf("%+v, %v", c, err)
				}
				// It goes on as usual, and closes by waiting.
				pass(2 * time.Minute)
				s.record("/b", time.Hour)
				s.close()
				if n := len(s.gaps()); n != 1 {
					t.Errorf("%d gaps", n)
				}
				if c, err := s.j.Coverage(t.Context(), time.Now(), time.Minute); err != nil || tc.back > 0 && !c.Complete {
					t.Errorf("%+v, %v", c, err)
				}
			})
		})
	}
}

// Setting the store's clock loses nothing: a recorder that seems lost for a moment
// is there again with its next renewal, and leaves no gap.
func TestAStoreWhoseClockSteps(t *testing.T) {
	for _, step := range []time.Duration{-time.Hour, -time.Second, time.Second, time.Hour} {
		t.Run(step.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := &rewindable{Store: memstore.New()}
				s := openOn(t, &breakable{Store: st}, nil)
				s.record("/a", 10*time.Hour)
				pass(5 * time.Second)
				id := s.session().ID
				s.record("/b", 10*time.Hour)
				st.step(step)
				s.record("/c", 10*time.Hour)
				pass(5 * time.Second)
				now, err := st.Now(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				got := s.session()
				if got.ID != id || got.Lost(now) || now.Sub(got.Flushed) > 2*time.Second || len(s.gaps()) != 0 {
					t.Errorf("%+v at %v, %d gaps", got, now, len(s.gaps()))
				}
				inv := &journal.Invalidation{Cut: now}
				inv.Selector.Patterns = []string{"/d"}
				s.record("/d", 10*time.Hour)
				if err := s.j.Create(t.Context(), inv, now, "w"); err != nil {
					t.Fatal(err)
				}
				pass(5 * time.Second)
				if !s.session().HasAcked(inv.Number) || len(s.reports(inv)) != 1 {
					t.Errorf("%+v, %d reports", s.session(), len(s.reports(inv)))
				}
				for e, err := range st.Scan(t.Context(), dist, store.Range{Now: now}) {
					if err != nil || e.Last.After(now.Add(6*time.Second).Add(max(0, -step))) {
						t.Errorf("%+v, %v", e, err)
					}
				}
				if n := len(s.live()); step < time.Hour && n != 4 {
					t.Errorf("%d entries", n)
				}
				s.close()
			})
		})
	}
}
