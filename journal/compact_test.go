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

	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/journal/journaltest"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/memstore"
)

const day = 24 * time.Hour

// A past is a journal with whatever may have happened in it.
type past struct {
	*rapid.T
	st *memstore.Store
	j  *journal.Journal
	l  *journal.Lease
}

func (p *past) must(err error) {
	if err != nil {
		p.Helper()
		p.Fatal(err)
	}
}

func (p *past) days(label string, from, to int) time.Duration {
	return time.Duration(rapid.IntRange(from*24, to*24).Draw(p.T, label)) * time.Hour
}

func newPast(rt *rapid.T) *past {
	p := &past{T: rt, st: memstore.New()}
	p.j = journal.Open(p.st, "E1")
	p.renew(p.st)
	ctx := context.Background()
	for i := range rapid.IntRange(1, 6).Draw(rt, "invalidations") {
		p.invalidate(ctx, i)
	}
	for i := range rapid.IntRange(0, 3).Draw(rt, "gaps") {
		g := journal.Gap{ID: fmt.Sprint("gap", i), From: t0.Add(p.days("from", 0, 100)), Cause: journal.CauseFull}
		if rapid.Bool().Draw(rt, "closed") {
			g.Until = g.From.Add(p.days("for", 0, 2))
		}
		if rapid.Bool().Draw(rt, "accepted") {
			g.Accepted = "why"
		}
		p.must(p.j.PutGaps(ctx, g))
	}
	for i := range rapid.IntRange(0, 3).Draw(rt, "sessions") {
		s := &journal.Session{ID: fmt.Sprint("s", i), Lease: 10 * time.Second, Longest: p.days("longest", 0, 40)}
		p.must(p.j.OpenSession(ctx, s, t0.Add(p.days("opened", 0, 100))))
		s.Acked = uint64(rapid.IntRange(0, 6).Draw(rt, "acked"))
		p.must(p.j.Renew(ctx, s, s.Opened.Add(p.days("alive", 0, 30)), nil, nil))
		if rapid.Bool().Draw(rt, "ended") {
			p.must(p.j.CloseSession(ctx, s))
		}
	}
	return p
}

// renew takes the lease through st.
func (p *past) renew(st store.Store) {
	l, _, err := journal.Open(st, "E1").Acquire(context.Background(), "d", t0, 1000*day)
	p.must(err)
	p.l = l
}

var somePath = rapid.SampledFrom([]string{"/", "/a", "/a/b", "/a/c?x=1", "/b", "/b/it's"})

func (p *past) invalidate(ctx context.Context, i int) {
	at := t0.Add(p.days("cut", 0, 100))
	item := func(label string) string {
		s := somePath.Draw(p.T, label)
		if rapid.Bool().Draw(p.T, "wild") {
			s += "*"
		}
		return s
	}
	inv := &journal.Invalidation{Cut: at, Selector: selector.Selector{Patterns: []string{item("selected")}},
		Options: journal.Options{Margin: 2 * time.Second}}
	p.must(p.j.Create(ctx, inv, at, "w"))
	inv.Planned = &journal.Planned{At: at, Items: 3}
	for range rapid.IntRange(0, 3).Draw(p.T, "batches") {
		b := &journal.Batch{Sent: at.Add(p.days("sent", 0, 2))}
		for range rapid.IntRange(1, 3).Draw(p.T, "items") {
			b.Items = append(b.Items, strings.ReplaceAll(item("item"), "'", "%27"))
		}
		p.must(p.l.SaveBatch(ctx, inv, b, "r"))
		b.State = rapid.SampledFrom([]journal.BatchState{journal.Saved, journal.Accepted, journal.BatchDone, journal.BatchDone, journal.BatchRefused}).Draw(p.T, "state")
		if b.Purged() {
			b.Accepted, b.Forgotten = b.Sent.Add(time.Second), rapid.IntRange(0, 9).Draw(p.T, "forgotten") > 0
		}
		if b.State == journal.BatchDone {
			b.Completed = b.Sent.Add(time.Minute)
		}
		p.must(p.l.PutBatch(ctx, b))
	}
	for k := range rapid.IntRange(0, 3).Draw(p.T, "reports") {
		path := somePath.Draw(p.T, "reported")
		p.must(p.j.PutReports(ctx, fmt.Sprint("r", k), []journal.Report{{Invalidation: inv.Number, Path: path, Start: at, End: at}}))
	}
	if unread, err := p.j.Unread(ctx); err == nil && rapid.IntRange(0, 3).Draw(p.T, "read") > 0 {
		p.must(p.l.MarkRead(ctx, inv.Number, unread[inv.Number]))
	}
	inv.State = rapid.SampledFrom([]journal.State{journal.Sending, journal.Sweeping, journal.Completed, journal.Completed,
		journal.Partial, journal.Cancelled, journal.Failed}).Draw(p.T, "state")
	if inv.State.Ended() {
		inv.Ended = at.Add(p.days("took", 0, 3))
	}
	if inv.State == journal.Failed && rapid.Bool().Draw(p.T, "guarded") {
		inv.ErrorCode = journal.CodePriceGuard
	}
	p.must(p.l.PutInvalidation(ctx, inv))
}

// A view is all that anybody judges by.
type view struct {
	journal.Knowledge
	history *journal.History
	unread  map[uint64]uint64
	reports map[uint64][]journal.Report
}

func (p *past) view() *view {
	ctx := context.Background()
	k, err := p.j.Know(ctx)
	p.must(err)
	v := &view{Knowledge: k, history: journal.NewHistory(k.Batches, nil), reports: make(map[uint64][]journal.Report)}
	v.unread, err = p.j.Unread(ctx)
	p.must(err)
	for _, inv := range k.Invalidations {
		v.reports[inv.Number], err = p.j.Reports(ctx, inv.Number)
		p.must(err)
	}
	return v
}

// selected are the invalidations that a late comer reports a sighting to.
func (v *view) selected(t *rapid.T, path string, start time.Time) (all []string) {
	for _, inv := range v.Invalidations {
		c, err := inv.Compile()
		if err != nil {
			t.Fatal(err)
		}
		if !start.After(inv.Cut) && c.MaySelect(path) && inv.State != journal.Cancelled && inv.State != journal.Failed {
			all = append(all, inv.ID)
		}
	}
	return all
}

func (v *view) of(n uint64) (batches []*journal.Batch) {
	for _, b := range v.Batches {
		if b.Invalidation() == n {
			batches = append(batches, b)
		}
	}
	return batches
}

func (v *view) sentInMonth(now time.Time) (items int) {
	for _, b := range v.Batches {
		if b.Purged() && b.Accepted.Format("2006-01") == now.Format("2006-01") {
			items += len(b.Items)
		}
	}
	return items
}

// limited is a store that fails after a number of writes.
type limited struct {
	store.Store
	left int
}

var errCrash = errors.New("crash")

func (s *limited) Commit(ctx context.Context, d string, t store.Transaction) (uint64, error) {
	if s.left--; s.left < 0 {
		return 0, errCrash
	}
	return s.Store.Commit(ctx, d, t)
}

func TestCompactionForgetsNothingThatMatters(t *testing.T) {
	forgot := 0
	rapid.Check(t, func(rt *rapid.T) {
		p := newPast(rt)
		defer p.st.Close()
		ctx := context.Background()
		before := p.view()
		longest := p.days("rules say", 0, 60)
		keep := max(longest, before.Tracking.Longest, 32*day)
		var stated time.Duration // what a session states counts as long as it is there
		for _, s := range before.Sessions {
			stated = max(stated, s.Longest)
		}
		now := t0.Add(p.days("now", 30, 250))
		for i := range rapid.IntRange(2, 5).Draw(rt, "runs") {
			if rapid.Bool().Draw(rt, "crash") {
				l := p.l
				p.renew(&limited{p.st, rapid.IntRange(1, 6).Draw(rt, "after")})
				if _, err := p.l.Compact(ctx, now, longest); err != nil && !errors.Is(err, errCrash) {
					rt.Fatal(err)
				}
				p.l = l
				p.renew(p.st)
				now = now.Add(2 * time.Hour)
			}
			c, err := p.l.Compact(ctx, now, longest)
			p.must(err)
			if i == 0 && rapid.Bool().Draw(rt, "too soon") {
				again, err := p.l.Compact(ctx, now.Add(59*time.Minute), longest)
				if err != nil || again != (journal.Compaction{}) {
					rt.Fatalf("within the hour: %+v, %v", again, err)
				}
			}
			forgot += c.Batches
			now = now.Add(p.days("later", 1, 40))
		}
		after := p.view()

		for range 20 {
			path, start := somePath.Draw(rt, "path"), t0.Add(p.days("start", -5, 105))
			end := start.Add(p.days("lasted", 0, 1))
			was, is := before.history.Settles(path, end, 2*time.Second), after.history.Settles(path, end, 2*time.Second)
			if is && !was {
				rt.Fatalf("%s until %v counts as purged, and did not before", path, end)
			}
			if was && !is && now.Sub(end) < keep {
				rt.Fatalf("%s until %v may still be cached, and that it was purged was forgotten", path, end)
			}
			if was, is := before.selected(rt, path, start), after.selected(rt, path, start); !slices.Equal(was, is) {
				rt.Fatalf("%s from %v is selected by %v, was by %v", path, start, is, was)
			}
			at, rules := now.Add(p.days("asked", 0, 100)), time.Duration(rapid.Int64Range(int64(stated), int64(keep)).Draw(rt, "rules"))
			if cov, had := journal.ComputeCoverage(after.Knowledge, at, rules), journal.ComputeCoverage(before.Knowledge, at, rules); cov.Complete && !had.Complete {
				rt.Fatalf("complete at %v: %+v, was not: %+v", at, cov, had)
			}
		}
		if was, is := before.sentInMonth(now), after.sentInMonth(now); was != is {
			rt.Fatalf("%d items sent this month, were %d", is, was)
		}
		for i, inv := range after.Invalidations {
			old := before.Invalidations[i]
			was, is := dispatch.NewReport(old, before.of(old.Number)), dispatch.NewReport(inv, after.of(old.Number))
			if was.ID != is.ID || was.Items != is.Items || was.Price != is.Price || was.FollowUps != is.FollowUps || was.State != is.State {
				rt.Fatalf("%+v, was %+v", is, was)
			}
			if before.unread[inv.Number] != after.unread[inv.Number] {
				rt.Fatal("a mark is gone")
			}
			goesOn := !inv.State.Ended() || inv.State == journal.Failed && !inv.Stopped() || after.unread[inv.Number] != 0 || now.Sub(inv.Ended) < keep
			if goesOn && (len(before.reports[inv.Number]) != len(after.reports[inv.Number]) || len(before.of(inv.Number)) != len(after.of(inv.Number))) {
				rt.Fatalf("%s (%s) goes on, and part of it is forgotten", inv.ID, inv.State)
			}
		}
		for _, b := range before.Batches {
			if b.State == journal.Saved && !slices.ContainsFunc(after.Batches, func(x *journal.Batch) bool { return x.Reference == b.Reference }) {
				rt.Fatalf("%s may not have been sent, and is forgotten", b.Reference)
			}
		}
		for _, g := range before.Gaps {
			if (g.Until.IsZero() || now.Sub(g.Until) < keep) && !slices.ContainsFunc(after.Gaps, func(x *journal.Gap) bool { return x.ID == g.ID }) {
				rt.Fatalf("gap %+v is forgotten", g)
			}
		}
	})
	if forgot == 0 {
		t.Error("nothing was ever forgotten")
	}
}

// intruded is a store in which something happens before a list below a prefix, or
// before the first deletion.
type intruded struct {
	store.Store
	prefix  string
	intrude func()
}

func (s *intruded) now() {
	if f := s.intrude; f != nil {
		s.intrude = nil
		f()
	}
}

func (s *intruded) List(ctx context.Context, d, prefix, after string, limit int) ([]store.Document, error) {
	if s.prefix != "" && strings.HasPrefix(prefix, s.prefix) {
		s.now()
	}
	return s.Store.List(ctx, d, prefix, after, limit)
}

func (s *intruded) Commit(ctx context.Context, d string, t store.Transaction) (uint64, error) {
	if s.prefix == "" && len(t.Delete) > 0 {
		s.now()
	}
	return s.Store.Commit(ctx, d, t)
}

func TestAReportThatComesMeanwhileIsKept(t *testing.T) {
	for _, reports := range []int{1, 250} {
		st := &intruded{Store: memstore.New(), prefix: "rep/"}
		j := journal.Open(st, "E1")
		inv := journaltest.Create(t, j, "/a")
		l := journaltest.Lease(t, j, "d", t0)
		for i := range reports {
			if err := j.PutReports(t.Context(), fmt.Sprint("r", i), []journal.Report{{Invalidation: 1, Path: "/a"}}); err != nil {
				t.Fatal(err)
			}
		}
		unread, err := j.Unread(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := l.MarkRead(t.Context(), 1, unread[1]); err != nil {
			t.Fatal(err)
		}
		inv.State, inv.Ended = journal.Completed, t0
		if err := l.PutInvalidation(t.Context(), inv); err != nil {
			t.Fatal(err)
		}
		for _, now := range []time.Time{t0.Add(40 * day), t0.Add(80 * day)} {
			st.intrude = func() {
				if err := j.PutReports(t.Context(), "late", []journal.Report{{Invalidation: 1, Path: "/late"}}); err != nil {
					t.Error(err)
				}
			}
			if _, err := l.Compact(t.Context(), now, 0); err != nil {
				t.Fatal(err)
			}
		}
		got, err := j.Reports(t.Context(), 1)
		if err != nil || !slices.ContainsFunc(got, func(r journal.Report) bool { return r.Path == "/late" }) {
			t.Errorf("of %d reports, the late one is gone: %+v, %v", reports, got, err)
		}
	}
}

// What lost recorders owe to an open invalidation is kept as long as that is open.
func TestWhatIsOwedIsKept(t *testing.T) {
	j := journal.Open(memstore.New(), "E1")
	inv := journaltest.Create(t, j, "/a")
	journaltest.Session(t, j, "lost", t0)
	journaltest.Session(t, j, "dead", t0)
	if _, err := j.Accept(t.Context(), "dead", "why", "ada", t0.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	l, _, err := j.Acquire(t.Context(), "d", t0, 1000*day)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{1, 1, 0} {
		if want == 0 {
			inv.State, inv.Ended = journal.Completed, t0
			if err := l.PutInvalidation(t.Context(), inv); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := l.Compact(t.Context(), t0.Add(time.Duration(i+1)*40*day), 0); err != nil {
			t.Fatal(err)
		}
		sessions, err := j.Sessions(t.Context())
		gaps, e := j.Gaps(t.Context())
		if err != nil || e != nil || len(sessions) != want || len(gaps) != want {
			t.Errorf("run %d: %d sessions, %d gaps, %v, %v", i, len(sessions), len(gaps), err, e)
		}
	}
}

// Parts of a plan file stay as long as an invalidation is bound to them, one that is
// opened meanwhile included.
func TestPlanFilesAreForgottenWhenNobodyNeedsThem(t *testing.T) {
	st := &intruded{Store: memstore.New()}
	j := journal.Open(st, "E1")
	fixed := func(hash string) *journal.Invalidation {
		t.Helper()
		inv := &journal.Invalidation{Cut: t0, Fixed: &journal.FixedPlan{Hash: hash}}
		if err := j.CreateFixed(t.Context(), inv, &journal.Fixed{Items: []string{"/a"}}, t0, "w"); err != nil {
			t.Error(err)
		}
		return inv
	}
	kept := func() (all []string) {
		t.Helper()
		docs, err := st.List(t.Context(), "E1", "fix/", "", 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range docs {
			all = append(all, strings.Split(d.Key, "/")[1])
		}
		return all
	}
	l, _, err := j.Acquire(t.Context(), "d", t0, 1000*day)
	if err != nil {
		t.Fatal(err)
	}
	open, over := fixed("open"), fixed("over")
	over.State, over.Ended = journal.Completed, t0
	if err := l.PutInvalidation(t.Context(), over); err != nil {
		t.Fatal(err)
	}
	run := 0
	compact := func() {
		t.Helper()
		run++
		if _, err := l.Compact(t.Context(), t0.Add(time.Duration(run)*40*day), 0); err != nil {
			t.Fatal(err)
		}
	}
	compact()
	// Somebody sends the plan file of an invalidation that is over, once more, as it
	// is about to be forgotten.
	st.prefix = "fix/"
	var again *journal.Invalidation
	st.intrude = func() { again = fixed("over") }
	compact()
	st.prefix = ""
	if got := kept(); !slices.Equal(got, []string{"open", "over"}) {
		t.Fatalf("kept %v", got)
	}
	if f, err := j.Fixed(t.Context(), again.Fixed); err != nil || len(f.Items) != 1 {
		t.Errorf("%+v, %v", f, err)
	}
	again.State, again.Ended = journal.Completed, t0
	if err := l.PutInvalidation(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	compact()
	if got := kept(); !slices.Equal(got, []string{"open"}) || open.State != journal.Sending {
		t.Errorf("kept %v", got)
	}
}

// An invalidation that is opened while a recorder is declared dead is owed too.
func TestAcceptCountsWhatIsOpenedMeanwhile(t *testing.T) {
	st := &intruded{Store: memstore.New()}
	j := journal.Open(st, "E1")
	journaltest.Session(t, j, "dead", t0)
	st.intrude = func() { journaltest.Create(t, j, "/a") }
	g, err := j.Accept(t.Context(), "dead", "why", "ada", t0.Add(time.Hour))
	if err != nil || !g.Owes(1) {
		t.Errorf("%+v, %v", g, err)
	}
	old := journaltest.Session(t, j, "old", t0)
	st.intrude = func() { journaltest.Create(t, j, "/b") }
	if err := j.Supersede(t.Context(), old, journal.Gap{From: t0, Until: t0}); err != nil {
		t.Fatal(err)
	}
	gaps, err := j.Gaps(t.Context())
	if err != nil || len(gaps) != 2 || !gaps[1].Owes(2) {
		t.Errorf("%+v, %v", gaps, err)
	}
	if err := j.Supersede(t.Context(), old, journal.Gap{From: t0}); err != nil {
		t.Errorf("repeated: %v", err)
	}
}
