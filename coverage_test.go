// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cftrack_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cf-invalidation-tracker/cftrack"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
	"github.com/cf-invalidation-tracker/cftrack/store/memstore"
)

// A fleet is several trackers, each with a way of its own to one store, in which
// there has been tracking for longer than anything can be cached.
type fleet struct {
	*testing.T
	shared  *memstore.Store
	j       *journal.Journal
	rules   lifetime.Rules
	longest time.Duration
	alive   *site
}

func newFleet(t *testing.T) *fleet {
	f := &fleet{T: t, shared: memstore.New(), rules: lifetime.DefaultRules()}
	t.Cleanup(func() { _ = f.shared.Close() })
	f.j = journal.Open(f.shared, dist)
	f.rules.Default.MaxTTL, f.rules.Default.DefaultTTL = 48*time.Hour, time.Hour
	f.longest = f.rules.Longest()
	s := &journal.Session{ID: "first", Longest: f.longest}
	if err := f.j.OpenSession(t.Context(), s, time.Now().Add(-f.longest)); err != nil {
		t.Fatal(err)
	}
	if err := f.j.CloseSession(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fleet) open(name string) *site {
	f.Helper()
	return openOn(f.T, &breakable{Store: f.shared}, &cftrack.Options{Name: name, Rules: &f.rules})
}

// kill has a tracker do nothing that others could see, from now on.
func (s *site) kill() { s.st.set(func() { s.st.all = errDown }) }

func (f *fleet) coverage() journal.Coverage { return f.coverageAt(time.Now()) }

func (f *fleet) coverageAt(at time.Time) journal.Coverage {
	f.Helper()
	c, err := f.j.Coverage(f.Context(), at, f.longest)
	if err != nil {
		f.Fatal(err)
	}
	return c
}

func TestARollingRestartLeavesNoGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		running := []*site{f.open("1a"), f.open("1b"), f.open("1c")}
		pass(time.Minute)
		if c := f.coverage(); !c.Complete || c.Sessions != 3 {
			t.Fatalf("%+v", c)
		}
		for i, old := range running {
			old.record("/old", time.Hour)
			next := f.open(string(rune('a' + i)))
			next.record("/new", time.Hour)
			if err := old.tr.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			pass(time.Minute)
			if c := f.coverage(); !c.Complete || c.Sessions != 3 {
				t.Fatalf("after %d: %+v", i, c)
			}
		}
	})
}

func TestAnUncleanDeathIsAGap(t *testing.T) {
	die := func(t *testing.T) (f *fleet, dead *site, lost journal.Gap) {
		f = newFleet(t)
		dead = f.open("dead")
		f.alive = f.open("alive")
		pass(time.Minute)
		if c := f.coverage(); !c.Complete {
			t.Fatalf("%+v", c)
		}
		flushed := time.Now()
		dead.record("/unflushed", time.Hour)
		dead.kill()
		pass(11 * time.Second)
		c := f.coverage()
		if c.Complete || len(c.Gaps) != 1 || c.Sessions != 1 {
			t.Fatalf("%+v", c)
		}
		if g := c.Gaps[0]; g.Cause != journal.CauseLost || g.Recorder != "dead" || g.From.After(flushed) || !g.Until.IsZero() {
			t.Fatalf("%+v", g)
		}
		return f, dead, c.Gaps[0]
	}
	t.Run("until nothing of it can be cached", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f, _, _ := die(t)
			if err := f.alive.tr.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			over := f.coverage().From
			if d := time.Until(over); d < f.longest-time.Minute || d > f.longest {
				t.Fatalf("over in %v", d)
			}
			if c := f.coverageAt(over.Add(-time.Second)); c.Complete || len(c.Gaps) != 1 {
				t.Fatalf("a second before: %+v", c)
			}
			if c := f.coverageAt(over); !c.Complete {
				t.Fatalf("%+v", c)
			}
		})
	})
	t.Run("until it returns", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f, dead, _ := die(t)
			dead.st.set(func() { dead.st.all = nil })
			pass(6 * time.Second)
			if c := f.coverage(); !c.Complete || c.Sessions != 2 {
				t.Fatalf("%+v", c)
			}
			if live(t, f.shared)["/unflushed"].Path == "" {
				t.Error("it did not catch up")
			}
		})
	})
	t.Run("until somebody accepts it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f, dead, lost := die(t)
			if _, err := f.j.Accept(t.Context(), lost.ID, "replaced", "ada", time.Now()); err != nil {
				t.Fatal(err)
			}
			c := f.coverage()
			if !c.Complete || len(c.Accepted) != 1 || c.Accepted[0].Accepted != "replaced" || c.Accepted[0].AcceptedBy != "ada" {
				t.Fatalf("%+v", c)
			}
			// It was not dead. What it held is caught up with, and no gap is left.
			inv := &journal.Invalidation{Cut: time.Now()}
			inv.Selector.Patterns = []string{"/unflushed"}
			if err := f.j.Create(t.Context(), inv, time.Now(), "w"); err != nil {
				t.Fatal(err)
			}
			dead.st.set(func() { dead.st.all = nil })
			pass(6 * time.Second)
			if c := f.coverage(); !c.Complete || c.Sessions != 2 {
				t.Fatalf("%+v", c)
			}
			if reports, err := f.j.Reports(t.Context(), inv.Number); err != nil || len(reports) != 1 {
				t.Errorf("%d reports, %v", len(reports), err)
			}
			if live(t, f.shared)["/unflushed"].Path == "" {
				t.Error("it did not catch up")
			}
			_, err := f.j.Accept(t.Context(), lost.ID, "again", "bob", time.Now())
			if !errors.Is(err, journal.ErrAccepted) {
				t.Errorf("accepted twice: %v", err)
			}
		})
	})
	t.Run("unless it lost more", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t)
			s := openOn(t, &breakable{Store: f.shared}, &cftrack.Options{Rules: &f.rules, Buffer: 10})
			pass(time.Minute)
			id := s.session().ID
			s.kill()
			for i := range 20 {
				_ = s.tr.Record(t.Context(), "/"+string(rune('a'+i)), time.Hour) // some do not fit
			}
			pass(11 * time.Second)
			if _, err := f.j.Accept(t.Context(), id, "replaced", "ada", time.Now()); err != nil {
				t.Fatal(err)
			}
			s.st.set(func() { s.st.all = nil })
			pass(6 * time.Second)
			if c := f.coverage(); c.Complete || len(c.Gaps) != 1 || c.Gaps[0].Cause != journal.CauseFull {
				t.Fatalf("%+v", c)
			}
		})
	})
}

// A recorder that stalls over an invalidation and its end tells what it holds when
// it is back, and its session goes on.
func TestAStalledRecorderReturnsAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		s := f.open("stalled")
		id := s.session().ID
		s.record("/a", time.Hour)
		s.kill()
		pass(time.Second)
		inv := &journal.Invalidation{Cut: time.Now()}
		inv.Selector.Patterns = []string{"/a"}
		if err := f.j.Create(t.Context(), inv, time.Now(), "w"); err != nil {
			t.Fatal(err)
		}
		pass(20 * time.Second)
		lease, _, err := f.j.Acquire(t.Context(), "d", time.Now(), time.Minute)
		if err != nil || lease == nil {
			t.Fatal(err)
		}
		inv.State, inv.Ended = journal.Completed, time.Now()
		if err := lease.PutInvalidation(t.Context(), inv); err != nil {
			t.Fatal(err)
		}
		s.st.set(func() { s.st.all = nil })
		pass(6 * time.Second)
		if got := s.session(); got.ID != id || !got.HasAcked(inv.Number) {
			t.Errorf("%+v", got)
		}
		if r := s.reports(inv); len(r) != 1 || r[0].Path != "/a" {
			t.Errorf("reports %+v", r)
		}
		if n := len(s.gaps()); n != 0 {
			t.Errorf("%d gaps", n)
		}
	})
}
