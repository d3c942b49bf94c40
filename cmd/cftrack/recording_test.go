// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/accesslog"
	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/internal/config"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/memstore"
)

// instantCDN processes every invalidation at once.
type instantCDN struct {
	mu    sync.Mutex
	items []string
}

func (c *instantCDN) CreateInvalidation(_ context.Context, _, _ string, items []string) (dispatch.Receipt, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.items = append(c.items, items...)
	return dispatch.Receipt{ID: fmt.Sprint("I", len(c.items)), Completed: true}, nil
}

func (c *instantCDN) GetInvalidation(_ context.Context, _, id string) (dispatch.Receipt, error) {
	return dispatch.Receipt{ID: id, Completed: true}, nil
}

func (c *instantCDN) FindInvalidation(context.Context, string, string, time.Time) (dispatch.Receipt, bool, error) {
	return dispatch.Receipt{}, false, nil
}

func (c *instantCDN) SentSince(context.Context, string, time.Time, func(string) bool) iter.Seq2[dispatch.Sent, error] {
	return func(func(dispatch.Sent, error) bool) {}
}

func openedForTest(t *testing.T, st store.Store) *opened {
	t.Helper()
	c, at, err := now(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	return &opened{target: &target{id: "E1", rules: lifetime.DefaultRules()}, store: st, clock: c, now: at}
}

// TestLateComer imports sightings from around an invalidation: what it has
// settled is skipped, what it has to know is reported, and a start that is only
// assumed reopens nothing.
func TestLateComer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memstore.New()
		defer st.Close()
		cdn := &instantCDN{}
		d := dispatch.New(st, "E1", cdn, nil)
		began := time.Now()
		time.Sleep(time.Hour)
		inv, err := d.Invalidate(t.Context(), dispatch.Request{Selector: selector.Selector{Patterns: []string{"/a/*"}}})
		if err != nil || inv.State != journal.Completed {
			t.Fatalf("%+v, %v", inv, err)
		}
		time.Sleep(time.Hour)

		sighting := func(path string, start, end time.Time, assumed bool) accesslog.Line {
			return accesslog.Line{StartAssumed: assumed, Sighting: inventory.Sighting{Path: path, Start: start, End: end, Expires: end.Add(24 * time.Hour)}}
		}
		cut := inv.Cut
		lines := []struct {
			line   accesslog.Line
			counts bool
		}{
			{sighting("/a/purged", began, began.Add(time.Second), false), false},
			{sighting("/b/elsewhere", began, began.Add(time.Second), false), true},
			{sighting("/a/straggler", cut.Add(-time.Minute), cut.Add(time.Minute), false), true},
			{sighting("/a/assumed", cut.Add(-time.Minute), cut.Add(time.Minute), true), true},
			{sighting("/a/after", cut.Add(time.Minute), cut.Add(time.Minute), false), true},
		}
		for range 2 { // repeating changes nothing
			r, err := newImporter(t.Context(), openedForTest(t, st))
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range lines {
				if counts, err := r.Add(t.Context(), c.line); err != nil || counts != c.counts {
					t.Errorf("%s: counts %v, %v", c.line.Sighting.Path, counts, err)
				}
			}
			if err := r.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if r.Recorded != 4 || r.Purged != 1 {
				t.Errorf("recorded %d, purged %d", r.Recorded, r.Purged)
			}
		}
		reports, err := d.Journal().Reports(t.Context(), 1)
		if err != nil || len(reports) != 1 || reports[0].Path != "/a/straggler" {
			t.Errorf("reports %+v, %v", reports, err)
		}

		// It is open again, and the straggler is sent by itself.
		sent := len(cdn.items)
		again, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
		if err != nil || again.State != journal.Completed || again.FollowUps != 1 {
			t.Errorf("%+v, %v", again, err)
		}
		if got := cdn.items[sent:]; len(got) != 1 || got[0] != "/a/straggler" {
			t.Errorf("followed up with %v", got)
		}
	})
}

// TestRecordReportsToOpen: what is recorded while an invalidation is under way
// may have begun before its cut, and is told.
func TestRecordReportsToOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memstore.New()
		defer st.Close()
		d := dispatch.New(st, "E1", &instantCDN{}, nil)
		if _, err := d.Open(t.Context(), dispatch.Request{Selector: selector.Selector{Patterns: []string{"/a*"}}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		o := openedForTest(t, st)
		r, err := newImporter(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		// CloudFront counts from when it has the last byte.
		for ttl, life := range map[config.TTL]time.Duration{
			{}:                            o.rules.Unknown("/a").Lifetime,
			{Given: true, For: time.Hour}: time.Hour,
		} {
			s := recorded(o, "/a", r.Margin(), ttl, nil).Sighting
			if got := s.Expires.Sub(s.End); got != life+lifetime.DefaultMargin {
				t.Errorf("with %+v the life is %v from the end, want %v and the margin", ttl, got, life)
			}
		}
		for _, path := range []string{"/a", "/b"} {
			if _, err := r.Add(t.Context(), recorded(o, path, r.Margin(), config.TTL{}, nil)); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		reports, err := d.Journal().Reports(t.Context(), 1)
		if err != nil || len(reports) != 1 || reports[0].Path != "/a" {
			t.Errorf("reports %+v, %v", reports, err)
		}
		time.Sleep(accesslog.Widen + time.Second)
		if _, err := r.Add(t.Context(), recorded(o, "/a/late", r.Margin(), config.TTL{}, nil)); err != nil {
			t.Fatal(err)
		}
		if err := r.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if reports, err := d.Journal().Reports(t.Context(), 1); err != nil || len(reports) != 1 {
			t.Errorf("reports %+v, %v: a minute later nothing is from before the cut", reports, err)
		}
	})
}

// TestResumeKeepsTheLimit: what was not sent because of its price is not sent by
// going on with it.
func TestResumeKeepsTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memstore.New()
		defer st.Close()
		cdn := &instantCDN{}
		d := dispatch.New(st, "E1", cdn, nil)
		none := 0
		r, err := d.Invalidate(t.Context(), dispatch.Request{Selector: selector.Selector{Patterns: []string{"/a"}}, MaxPrice: new(0.001), FreePaths: &none})
		if err != nil || r.State != journal.Failed {
			t.Fatalf("%+v, %v", r, err)
		}
		_, id, err := resume(t.Context(), d, r.ID, &follower{mute: true})
		if f := explain(err); id != "" || f.exit != exitUndone || f.code != WarnPrice {
			t.Errorf("resumed %q: %+v", id, f)
		}
		if len(cdn.items) != 0 {
			t.Errorf("sent %v", cdn.items)
		}
	})
}
