// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package journaltest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// Each part below asks other for the journal as another process reads it.

// keys lists the documents below a directory.
func keys(t *testing.T, j *journal.Journal, dir string) (all []string) {
	t.Helper()
	docs, err := j.Store().List(t.Context(), j.Distribution(), dir, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range docs {
		all = append(all, d.Key)
	}
	return all
}

func remove(t *testing.T, j *journal.Journal, key string) {
	t.Helper()
	if _, err := j.Store().Commit(t.Context(), j.Distribution(), store.Transaction{Delete: []string{key}}); err != nil {
		t.Fatal(err)
	}
}

func named(n int, form string) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf(form, i))
	}
	return all
}

// end writes down that an invalidation was completed at T0.
func end(t *testing.T, l *journal.Lease, inv *journal.Invalidation) {
	t.Helper()
	inv.State, inv.Ended = journal.Completed, T0
	if err := l.PutInvalidation(t.Context(), inv); err != nil {
		t.Fatal(err)
	}
}

// What a plan file says is read as it was written, in its order, however much it
// is, and stays as long as an invalidation is bound to it.
func aPlanFileIsReadByOthers(t *testing.T, j *journal.Journal, other func() *journal.Journal) {
	ctx := t.Context()
	long := strings.Repeat("x", 200)
	said := &journal.Fixed{Items: named(2500, "/ä/%d/"+long), Collateral: named(400, "/hit/%d/"+long)}
	slices.Reverse(said.Items) // not in byte order
	for _, path := range named(300, "/~%d/"+long) {
		said.Uncovered = append(said.Uncovered, journal.Refusal{Item: path, Reason: "tilde", Remedy: "/*"})
	}
	bind := func(hash string, f *journal.Fixed) *journal.Invalidation {
		t.Helper()
		inv := &journal.Invalidation{Cut: T0, Fixed: &journal.FixedPlan{Hash: hash, Cut: T0.Add(-time.Hour)}}
		if err := j.CreateFixed(ctx, inv, f, T0, "w"); err != nil {
			t.Fatal(err)
		}
		return inv
	}
	same := func(inv *journal.Invalidation, want *journal.Fixed) {
		t.Helper()
		o := other()
		read, err := o.Invalidation(ctx, inv.ID)
		if err != nil {
			t.Fatal(err)
		}
		got, err := o.Fixed(ctx, read.Fixed)
		if err != nil || !slices.Equal(got.Items, want.Items) || !slices.Equal(got.Collateral, want.Collateral) || !slices.Equal(got.Uncovered, want.Uncovered) {
			t.Errorf("%s: %d items, %d collateral, %d uncovered, %v", read.Fixed.Hash, len(got.Items), len(got.Collateral), len(got.Uncovered), err)
		}
	}
	small, alike := &journal.Fixed{Items: []string{"/a"}}, &journal.Fixed{Items: []string{"/b", "/c*"}}
	large, again := bind("sha256:1", said), bind("sha256:1", said)
	one, open := bind("sha256:1-", small), bind("sha256:2", alike) // one hash begins as another does
	if large.Fixed.Parts < 4 || len(keys(t, j, "fix/")) != large.Fixed.Parts+2 {
		t.Fatalf("%d parts, %d documents", large.Fixed.Parts, len(keys(t, j, "fix/")))
	}
	for range 2 {
		same(large, said)
		same(again, said)
		same(one, small)
		same(open, alike)
	}

	l := Lease(t, j, "a", T0)
	all := len(keys(t, j, "fix/"))
	end(t, l, large)
	end(t, l, one)
	now := T0
	tidy := func() journal.Compaction {
		t.Helper()
		now = now.Add(40 * day)
		lease, _, err := other().Acquire(ctx, "tidy", now, time.Hour)
		if err != nil || lease == nil {
			t.Fatal(err)
		}
		return compact(t, lease, now)
	}
	tidy() // notes when it was
	if c := tidy(); c.Plans != one.Fixed.Parts || len(keys(t, j, "fix/")) != all-1 {
		t.Fatalf("what one invalidation is over with and another is bound to: %+v of %d", c, all)
	}
	same(again, said)
	same(open, alike)
	l, _, err := j.Acquire(ctx, "a", now.Add(time.Hour), time.Hour)
	if err != nil || l == nil {
		t.Fatal(err)
	}
	end(t, l, again)
	now = now.Add(2 * time.Hour)
	if c := tidy(); c.Plans != large.Fixed.Parts || len(keys(t, j, "fix/")) != 1 {
		t.Fatalf("what nobody is bound to: %+v", c)
	}
	same(open, alike)

	// A part that the store has lost is missed, not read over.
	lost := bind("sha256:3", said)
	if !slices.Contains(keys(t, j, "fix/"), "fix/sha256:3/000001") {
		t.Fatalf("keys %q", keys(t, j, "fix/"))
	}
	remove(t, j, "fix/sha256:3/000001")
	if _, err := other().Fixed(ctx, lost.Fixed); err == nil {
		t.Error("a plan of which a part is gone was read")
	}
}

// A large selector selects what it says whoever reads it, for as long as its
// invalidation stands, which is for ever.
func aLargeSelectorIsReadByOthers(t *testing.T, j *journal.Journal, other func() *journal.Journal) {
	ctx := t.Context()
	large := selector.Selector{Patterns: named(3000, "/page/%d/"+strings.Repeat("ä", 50)), Exclude: []string{"/page/7/*"}}
	create := func(s selector.Selector) *journal.Invalidation {
		t.Helper()
		inv := &journal.Invalidation{Selector: s, Cut: T0}
		if err := j.Create(ctx, inv, T0, "w"); err != nil {
			t.Fatal(err)
		}
		return inv
	}
	a, b, small := create(large), create(large), create(selector.Selector{Patterns: []string{"/a"}})
	if a.Large == nil || a.Large.Parts < 3 || len(keys(t, j, "sel/")) != a.Large.Parts || small.Large != nil {
		t.Fatalf("%+v, %d documents, %+v", a.Large, len(keys(t, j, "sel/")), small.Large)
	}
	l := Lease(t, j, "a", T0)
	end(t, l, a)
	check := func(n int) {
		t.Helper()
		o := other()
		invs, err := o.Invalidations(ctx, 0)
		if err != nil || len(invs) != n {
			t.Fatalf("%d invalidations, %v", len(invs), err)
		}
		for _, inv := range invs[:2] {
			if _, err := inv.Compile(); err == nil {
				t.Error("a selector that was not loaded was compiled")
			}
			if inv.SelectorText() != a.SelectorText() {
				t.Errorf("it reads %q, not %q", inv.SelectorText(), a.SelectorText())
			}
			if err := o.Load(ctx, inv); err != nil {
				t.Fatal(err)
			}
			c, err := inv.Compile()
			if err != nil || !slices.Equal(inv.Selector.Patterns, large.Patterns) || !slices.Equal(inv.Selector.Exclude, large.Exclude) {
				t.Fatalf("%d patterns, %v", len(inv.Selector.Patterns), err)
			}
			for _, i := range []int{0, 7, 2999, 3000} {
				path := fmt.Sprintf("/page/%d/%s", i, strings.Repeat("%C3%A4", 50))
				if got, want := c.MaySelect(path), i != 7 && i < 3000; got != want {
					t.Errorf("%.20s…: selected %v", path, got)
				}
			}
		}
	}
	check(3)

	// Opening one more may have been interrupted before it referred to its selector.
	stray := store.Put{Key: "sel/" + strings.Repeat("0", 64) + "/000000", Value: []byte(`{"json":"{}"}`)}
	if _, err := j.Store().Commit(ctx, "E1", store.Transaction{Put: []store.Put{stray}}); err != nil {
		t.Fatal(err)
	}
	now := T0
	for i, want := range []int{0, 1, 0} {
		now = now.Add(40 * day)
		lease, _, err := other().Acquire(ctx, "tidy", now, time.Hour)
		if err != nil || lease == nil {
			t.Fatal(err)
		}
		if c := compact(t, lease, now); c.Selectors != want || len(keys(t, j, "sel/")) != a.Large.Parts+max(0, 1-i) {
			t.Fatalf("compaction %d: %+v, %d documents", i, c, len(keys(t, j, "sel/")))
		}
		check(3)
	}
	if got, err := other().Invalidation(ctx, a.ID); err != nil || got.Compacted == nil {
		t.Errorf("an invalidation that is over: %+v, %v", got, err)
	}

	remove(t, j, keys(t, j, "sel/")[1])
	o := other()
	got, err := o.Invalidation(ctx, b.ID)
	if err == nil {
		err = o.Load(ctx, got)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := got.Compile(); err == nil {
		t.Error("a selector of which a part is gone was compiled")
	}
}

// A gap is the same to everybody, and gone when it has long been closed.
func gapsAreReadByOthers(t *testing.T, j *journal.Journal, other func() *journal.Journal) {
	ctx := t.Context()
	inv := Create(t, j, "/a")
	dead, back := Session(t, j, "dead", T0), Session(t, j, "back", T0)
	lost := journal.Gap{ID: "full-1", From: T0, Until: T0.Add(time.Minute), Cause: journal.CauseFull, Recorder: "web"}
	open := journal.Gap{ID: "open", From: T0, Cause: journal.CauseStoreLost, Recorder: "web"}
	if err := j.PutGaps(ctx, lost, open); err != nil {
		t.Fatal(err)
	}
	at := T0.Add(time.Hour)
	if _, err := other().Accept(ctx, "full-1", "why", "ada", at); err != nil {
		t.Fatal(err)
	}
	if _, err := other().Accept(ctx, dead.ID, "killed", "bob", at); err != nil {
		t.Fatal(err)
	}
	if err := other().Supersede(ctx, back, journal.Gap{From: T0, Until: at, Cause: journal.CauseStoreBack}); err != nil {
		t.Fatal(err)
	}
	gaps, err := j.Gaps(ctx)
	if err != nil || len(gaps) != 4 {
		t.Fatalf("%+v, %v", gaps, err)
	}
	by := map[string]*journal.Gap{}
	for _, g := range gaps {
		by[g.ID] = g
	}
	if g := by["full-1"]; g.Accepted != "why" || g.AcceptedBy != "ada" || !g.AcceptedAt.Equal(at) || !g.Until.Equal(lost.Until) || g.Recorder != "web" {
		t.Errorf("%+v", g)
	}
	if g := by["open"]; !g.Until.IsZero() || g.Accepted != "" || g.Cause != journal.CauseStoreLost {
		t.Errorf("%+v", g)
	}
	for _, id := range []string{"dead", "back"} {
		if !by[id].Owes(inv.Number) || by[id].Owes(inv.Number+1) {
			t.Errorf("%+v owes something else", by[id])
		}
	}
	if all, err := other().Sessions(ctx); err != nil || len(all) != 0 {
		t.Errorf("sessions %+v, %v", all, err)
	}

	// What a gap owes an open invalidation keeps it; what is still open stays.
	now := T0
	for i, want := range []int{0, 1, 0} {
		now = now.Add(40 * day)
		l, _, err := other().Acquire(ctx, "tidy", now, time.Hour)
		if err != nil || l == nil {
			t.Fatal(err)
		}
		if c := compact(t, l, now); c.Gaps != want {
			t.Fatalf("compaction %d: %+v", i, c)
		}
		if i == 2 {
			end(t, l, inv)
		}
	}
	now = now.Add(40 * day)
	l, _, err := j.Acquire(ctx, "last", now, time.Hour)
	if err != nil || l == nil {
		t.Fatal(err)
	}
	if c := compact(t, l, now); c.Gaps != 2 {
		t.Errorf("%+v", c)
	}
	if got := keys(t, other(), "gap/"); !slices.Equal(got, []string{"gap/open"}) {
		t.Errorf("left: %q", got)
	}
}

// Processes that spend from one account at once lose nothing of each other's.
func anAccountIsSharedByProcesses(t *testing.T, _ *journal.Journal, other func() *journal.Journal) {
	const processes, each = 3, 8
	var wg sync.WaitGroup
	for i := range processes {
		o := journal.Open(other().Store(), fmt.Sprint("E", i)) // of a distribution each
		wg.Go(func() {
			conflicts := 0
			for n := 0; n < each && conflicts < 10_000; {
				a, err := o.ReadAccount(t.Context(), "shared")
				if err == nil {
					a.Sent++
					if a.Promised == nil {
						a.Promised = map[string]int{}
					}
					a.Promised[o.Distribution()]++
					err = o.WriteAccount(t.Context(), "shared", a)
				}
				if err == nil {
					n++
				} else if conflicts++; !errors.Is(err, store.ErrConflict) {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	a, err := other().ReadAccount(t.Context(), "shared")
	if err != nil || a.Sent != processes*each || len(a.Promised) != processes || a.Promised["E0"] != each {
		t.Errorf("%+v, %v", a, err)
	}
}

// Whoever leads finds out that the store's data is not what the journal was last
// written in, and everybody after that is told when.
func anotherEpochIsNoticed(t *testing.T, j *journal.Journal, other func() *journal.Journal) {
	ctx := t.Context()
	old := Lease(t, j, "old", T0)
	l := Lease(t, other(), "new", T0.Add(time.Minute))
	lostAt := func(l *journal.Lease, now, want time.Time) {
		t.Helper()
		if got, err := l.DataLost(ctx, now); err != nil || !got.Equal(want) {
			t.Errorf("data was lost at %v, %v; want %v", got, err, want)
		}
	}
	if _, err := old.DataLost(ctx, T0); !errors.Is(err, journal.ErrLeaseLost) {
		t.Errorf("noted without the lease: %v", err)
	}
	lostAt(l, T0, time.Time{})
	lostAt(l, T0.Add(time.Hour), time.Time{})
	lostAt(old, T0.Add(time.Hour), time.Time{}) // reading needs no lease

	set := store.Transaction{Put: []store.Put{{Key: "epoch", Value: []byte(`{"epoch":"of data that is gone"}`)}}}
	if _, err := j.Store().Commit(ctx, "E1", set); err != nil {
		t.Fatal(err)
	}
	found := T0.Add(2 * time.Hour)
	lostAt(l, found, found)
	lostAt(l, found.Add(time.Hour), found)
	next, _, err := other().Acquire(ctx, "next", found.Add(time.Hour), time.Hour)
	if err != nil || next == nil {
		t.Fatal(err)
	}
	lostAt(next, found.Add(2*time.Hour), found)
	now := found
	for range 2 {
		now = now.Add(40 * day)
		compact(t, Lease(t, other(), "tidy", now), now)
	}
	lostAt(Lease(t, other(), "last", now.Add(time.Minute)), now, found)
}
