// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package journaltest holds a store to what the journal needs of it. Every
// store's own tests run it beside storetest.
package journaltest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/storetest"
)

// T0 is when the tests take place.
var T0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Run runs the suite, each part on a store of its own. Of the harness, Reopen is
// used for what another process reads, and Crash where the store crashes, if there are any.
func Run(t *testing.T, h storetest.Harness) {
	for _, part := range []struct {
		name string
		run  func(*testing.T, *journal.Journal)
	}{
		{"InvalidationsAreNumberedAndFound", invalidationsAreNumberedAndFound},
		{"ConcurrentCreationLosesNothing", concurrentCreationLosesNothing},
		{"LeaseIsForOne", leaseIsForOne},
		{"ALostLeaseWritesNothing", aLostLeaseWritesNothing},
		{"ABatchIsCountedAndSavedInOneWrite", aBatchIsCountedAndSavedInOneWrite},
		{"ReopenOnlyWhatCanGoOn", reopenOnlyWhatCanGoOn},
		{"AccountsAreWrittenByCompareAndWrite", accountsAreWrittenByCompareAndWrite},
		{"AnUnreadableSelectorHidesNoOther", anUnreadableSelectorHidesNoOther},
		{"SessionProtocol", sessionProtocol},
		{"ASessionNoticesThatItWasRemoved", aSessionNoticesThatItWasRemoved},
		{"AGapIsAccepted", aGapIsAccepted},
		{"ADeadRecorderLeavesAGap", aDeadRecorderLeavesAGap},
		{"CompactionForgetsWhatIsOver", compactionForgetsWhatIsOver},
	} {
		t.Run(part.name, func(t *testing.T) {
			part.run(t, journal.Open(h.Open(t), "E1"))
		})
	}
	for _, part := range []struct {
		name string
		run  func(*testing.T, *journal.Journal, func() *journal.Journal)
	}{
		{"APlanFileIsReadByOthers", aPlanFileIsReadByOthers},
		{"ALargeSelectorIsReadByOthers", aLargeSelectorIsReadByOthers},
		{"GapsAreReadByOthers", gapsAreReadByOthers},
		{"AnAccountIsSharedByProcesses", anAccountIsSharedByProcesses},
		{"AnotherEpochIsNoticed", anotherEpochIsNoticed},
	} {
		t.Run(part.name, func(t *testing.T) {
			st := h.Open(t)
			part.run(t, journal.Open(st, "E1"), func() *journal.Journal {
				if h.Reopen == nil {
					return journal.Open(st, "E1")
				}
				again := h.Reopen(t, st)
				t.Cleanup(func() {
					if err := again.Close(); err != nil {
						t.Error(err)
					}
				})
				return journal.Open(again, "E1")
			})
		})
	}
	t.Run("DispatcherCrashes", func(t *testing.T) { crashes(t, h, dispatching) })
	t.Run("StoreCrashes", func(t *testing.T) { crashes(t, h, recording) })
}

// Create opens an invalidation of these patterns at T0, with a margin of 2 s.
func Create(t *testing.T, j *journal.Journal, patterns ...string) *journal.Invalidation {
	t.Helper()
	inv := &journal.Invalidation{Selector: selector.Selector{Patterns: patterns}, Cut: T0,
		Options: journal.Options{Margin: 2 * time.Second}}
	if err := j.Create(t.Context(), inv, T0, "word"); err != nil {
		t.Fatal(err)
	}
	return inv
}

// Lease takes the lease for 10 s, or fails the test.
func Lease(t *testing.T, j *journal.Journal, holder string, now time.Time) *journal.Lease {
	t.Helper()
	l, by, err := j.Acquire(t.Context(), holder, now, 10*time.Second)
	if err != nil || l == nil {
		t.Fatalf("no lease for %s: held by %+v, %v", holder, by, err)
	}
	return l
}

// Session opens a session with a lease of 10 s and lifetimes of up to an hour.
func Session(t *testing.T, j *journal.Journal, id string, now time.Time) *journal.Session {
	t.Helper()
	s := &journal.Session{ID: id, Recorder: "web@" + id, Lease: 10 * time.Second, Longest: time.Hour}
	if err := j.OpenSession(t.Context(), s, now); err != nil {
		t.Fatal(err)
	}
	return s
}

func invalidationsAreNumberedAndFound(t *testing.T, j *journal.Journal) {
	a, b := Create(t, j, "/a"), Create(t, j, "/b")
	if a.ID != "inv-1-word" || b.ID != "inv-2-word" {
		t.Fatalf("IDs %s, %s", a.ID, b.ID)
	}
	for _, id := range []string{"inv-2-word", "2"} {
		got, err := j.Invalidation(t.Context(), id)
		if err != nil || got.ID != b.ID || got.Selector.Patterns[0] != "/b" {
			t.Fatalf("%s: %+v, %v", id, got, err)
		}
	}
	for _, id := range []string{"inv-3-word", "inv-2-other", "0", "", "x", "-", "inv-"} {
		if _, err := j.Invalidation(t.Context(), id); !errors.Is(err, journal.ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
	got, err := j.Invalidations(t.Context(), 1)
	if err != nil || len(got) != 1 || got[0].Number != 2 {
		t.Fatalf("after 1: %v, %v", got, err)
	}
}

func concurrentCreationLosesNothing(t *testing.T, j *journal.Journal) {
	const n = 32
	errs := make(chan error)
	for range n {
		go func() {
			errs <- j.Create(context.Background(), &journal.Invalidation{Cut: T0}, T0, "w")
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	got, err := j.Invalidations(t.Context(), 0)
	if err != nil || len(got) != n || got[n-1].Number != n {
		t.Fatalf("%d invalidations, %v", len(got), err)
	}
}

func leaseIsForOne(t *testing.T, j *journal.Journal) {
	inv := Create(t, j, "/a")
	a := Lease(t, j, "a", T0)
	if l, by, err := j.Acquire(t.Context(), "b", T0.Add(9*time.Second), time.Second); err != nil || l != nil || by.Holder != "a" {
		t.Fatalf("b got %v while %+v holds, %v", l, by, err)
	}
	b := Lease(t, j, "b", T0.Add(10*time.Second))

	if err := a.Renew(t.Context(), T0.Add(11*time.Second), time.Second); !errors.Is(err, journal.ErrLeaseLost) {
		t.Errorf("renewed what is another's: %v", err)
	}
	batch := &journal.Batch{Items: []string{"/a"}, Sent: T0}
	if err := b.SaveBatch(t.Context(), inv, batch, "r"); err != nil {
		t.Fatal(err)
	}
	if err := b.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	Lease(t, j, "c", T0.Add(10*time.Second))
}

func aBatchIsCountedAndSavedInOneWrite(t *testing.T, j *journal.Journal) {
	inv := Create(t, j, "/a")
	l := Lease(t, j, "a", T0)
	b := &journal.Batch{Items: []string{"/a", "/b", "/c"}, Sent: T0}
	if err := l.SaveBatch(t.Context(), inv, b, "x1"); err != nil {
		t.Fatal(err)
	}
	if b.Reference != "cftrack/inv-1-word/0/x1" || b.State != journal.Saved || inv.Batches != 1 {
		t.Fatalf("%+v, %d", b, inv.Batches)
	}

	// Somebody asks to stop: what the dispatcher holds is stale, and it is told.
	if _, err := j.RequestCancel(t.Context(), inv.ID); err != nil {
		t.Fatal(err)
	}
	err := l.SaveBatch(t.Context(), inv, &journal.Batch{Items: []string{"/d"}}, "x2")
	if !errors.Is(err, store.ErrConflict) {
		t.Fatalf("a batch was saved over a request to stop: %v", err)
	}
	if inv, err = j.Invalidation(t.Context(), inv.ID); err != nil || !inv.Cancel {
		t.Fatal(inv, err)
	}

	words := []string{"y", "z"}
	random := func() string { w := words[0]; words = words[1:]; return w }
	halves := []*journal.Batch{{Items: b.Items[:1], Sent: T0, Collateral: 2}, {Items: b.Items[1:], Sent: T0}}
	if err := l.Replace(t.Context(), inv, b, "InvalidArgument", halves, random); err != nil {
		t.Fatal(err)
	}
	got, err := j.Batches(t.Context(), inv.Number)
	if err != nil || len(got) != 3 {
		t.Fatalf("%d batches, %v", len(got), err)
	}
	if got[0].State != journal.BatchRefused || got[0].Error != "InvalidArgument" ||
		!slices.Equal(got[0].Items, []string{"/a", "/b", "/c"}) {
		t.Errorf("closed batch %+v", got[0])
	}
	if all := append(slices.Clone(got[1].Items), got[2].Items...); !slices.Equal(all, []string{"/a", "/b", "/c"}) {
		t.Errorf("halves hold %v", all)
	}
	if got[1].Reference == got[2].Reference || got[1].Reference == got[0].Reference {
		t.Error("a reference was used twice")
	}

	for _, b := range []*journal.Batch{{Items: []string{"/f"}, FollowUp: true, Sent: T0}, {Items: []string{"/r"}, Repeat: true, Sent: T0}} {
		if err := l.SaveBatch(t.Context(), inv, b, "x3"); err != nil {
			t.Fatal(err)
		}
		if f, ok := inv.Found(b.Reference); !ok || f.Number != b.Number || f.FollowUp != b.FollowUp || f.Repeat != b.Repeat {
			t.Errorf("%s stands for %+v, %v", b.Reference, f, ok)
		}
	}
}

func accountsAreWrittenByCompareAndWrite(t *testing.T, j *journal.Journal) {
	ctx := t.Context()
	a, err := j.ReadAccount(ctx, "a")
	if err != nil || a.Known() {
		t.Fatalf("%+v, %v", a, err)
	}
	late := *a
	a.Items.Tokens, a.Items.Share = 7, 0.5
	if err := j.WriteAccount(ctx, "a", a); err != nil || !a.Known() {
		t.Fatalf("%+v, %v", a, err)
	}
	a.Sent = 3
	if err := j.WriteAccount(ctx, "a", a); err != nil { // what was written can be written again
		t.Fatal(err)
	}
	if err := j.WriteAccount(ctx, "a", &late); !errors.Is(err, store.ErrConflict) {
		t.Errorf("somebody who had read it before the others wrote over them: %v", err)
	}
	// It belongs to no distribution, and accounts do not see each other.
	other := journal.Open(j.Store(), "E2")
	if got, err := other.ReadAccount(ctx, "a"); err != nil || got.Items.Tokens != 7 || got.Items.Share != 0.5 || got.Sent != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, name := range []string{"", "a2", "A"} {
		if got, err := j.ReadAccount(ctx, name); err != nil || got.Known() {
			t.Errorf("account %q: %+v, %v", name, got, err)
		}
	}

	w := &journal.Windows{Items: journal.Learned{Share: 0.25, Since: T0}}
	old, l := Lease(t, j, "old", T0), Lease(t, j, "new", T0.Add(time.Minute))
	if err := old.PutWindows(ctx, w); !errors.Is(err, journal.ErrLeaseLost) {
		t.Errorf("windows written without the lease: %v", err)
	}
	if err := l.PutWindows(ctx, w); err != nil {
		t.Fatal(err)
	}
	if got, err := j.Windows(ctx); err != nil || got.Items.Share != 0.25 {
		t.Errorf("%+v, %v", got, err)
	}
	if old.TookOver() || !l.TookOver() {
		t.Error("a lease that ran out was taken over, one that nobody had was not")
	}
	if err := l.Release(ctx); err != nil {
		t.Fatal(err)
	}
	if Lease(t, j, "next", T0).TookOver() {
		t.Error("what was released is not taken over")
	}
}

// A selector of a newer version, or damaged, keeps nobody from the others.
func anUnreadableSelectorHidesNoOther(t *testing.T, j *journal.Journal) {
	ctx := t.Context()
	Create(t, j, "/a")
	Create(t, j, "/b")
	docs, err := j.Store().List(ctx, j.Distribution(), "inv/", "", 0)
	if err != nil || len(docs) != 2 {
		t.Fatalf("%d documents, %v", len(docs), err)
	}
	broken := bytes.Replace(docs[0].Value, []byte(`"patterns":["/a"]`), []byte(`"patterns":{"new":"form"}`), 1)
	if bytes.Equal(broken, docs[0].Value) {
		t.Fatalf("%s", docs[0].Value)
	}
	if _, err := j.Store().Commit(ctx, j.Distribution(), store.Transaction{Put: []store.Put{{Key: docs[0].Key, Value: broken}}}); err != nil {
		t.Fatal(err)
	}
	invs, err := j.Invalidations(ctx, 0)
	if err != nil || len(invs) != 2 || invs[1].Selector.Patterns[0] != "/b" {
		t.Fatalf("%v, %v", invs, err)
	}
	if _, err := invs[0].Compile(); err == nil {
		t.Error("what cannot be read was compiled")
	}
	if _, err := invs[1].Compile(); err != nil {
		t.Error(err)
	}
	// Writing down what became of it keeps the selector for whoever can read it.
	l := Lease(t, j, "a", T0)
	invs[0].State = journal.Failed
	if err := l.PutInvalidation(ctx, invs[0]); err != nil {
		t.Fatal(err)
	}
	if docs, err = j.Store().List(ctx, j.Distribution(), "inv/", "", 0); err != nil ||
		!bytes.Contains(docs[0].Value, []byte(`{"new":"form"}`)) || !bytes.Contains(docs[0].Value, []byte(`"failed"`)) {
		t.Errorf("%s, %v", docs[0].Value, err)
	}
}

func reopenOnlyWhatCanGoOn(t *testing.T, j *journal.Journal) {
	l := Lease(t, j, "a", T0)
	for state, want := range map[journal.State]journal.State{
		journal.Failed: journal.Sending, journal.Completed: journal.Completed,
		journal.Cancelled: journal.Cancelled, journal.Partial: journal.Partial,
	} {
		inv := Create(t, j, "/a")
		inv.State, inv.Error, inv.Ended = state, "why", T0
		if err := l.PutInvalidation(t.Context(), inv); err != nil {
			t.Fatal(err)
		}
		if got, err := j.Reopen(t.Context(), inv.ID); err != nil || got.State != want {
			t.Errorf("%s became %s, %v", state, got.State, err)
		}
	}
}

func sessionProtocol(t *testing.T, j *journal.Journal) {
	inv := Create(t, j, "/a")
	s := Session(t, j, "s1", T0)
	if s.HasAcked(inv.Number) {
		t.Fatal("a new session has acknowledged what it never saw")
	}
	rep := journal.Report{Invalidation: inv.Number, Path: "/a", Start: T0, End: T0.Add(time.Second)}
	s.Ack(inv.Number)
	if err := j.Renew(t.Context(), s, T0.Add(time.Second), []journal.Report{rep}, nil); err != nil {
		t.Fatal(err)
	}
	got, err := j.Reports(t.Context(), inv.Number)
	if err != nil || len(got) != 1 || got[0].Path != "/a" || !got[0].End.Equal(rep.End) {
		t.Fatalf("%+v, %v", got, err)
	}
	unread, err := j.Unread(t.Context())
	if err != nil || unread[inv.Number] == 0 {
		t.Fatalf("unread %v, %v", unread, err)
	}
	l := Lease(t, j, "d", T0)
	if err := l.MarkRead(t.Context(), inv.Number, unread[inv.Number]-1); err != nil {
		t.Fatal(err)
	}
	if u, _ := j.Unread(t.Context()); len(u) != 1 {
		t.Fatal("an older mark took a newer one away")
	}
	if err := l.MarkRead(t.Context(), inv.Number, unread[inv.Number]); err != nil {
		t.Fatal(err)
	}
	if u, _ := j.Unread(t.Context()); len(u) != 0 {
		t.Fatal("still unread")
	}
	all, err := j.Sessions(t.Context())
	if err != nil || len(all) != 1 || !all[0].HasAcked(inv.Number) {
		t.Fatalf("%+v, %v", all, err)
	}
	if err := j.CloseSession(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if err := j.CloseSession(t.Context(), s); err != nil {
		t.Fatalf("closing twice: %v", err)
	}
	if all, _ := j.Sessions(t.Context()); len(all) != 0 {
		t.Fatal("a closed session is still there")
	}
}

func aSessionNoticesThatItWasRemoved(t *testing.T, j *journal.Journal) {
	s := Session(t, j, "s1", T0)
	if _, err := j.Store().Commit(t.Context(), "E1", store.Transaction{Delete: []string{"ses/s1"}}); err != nil {
		t.Fatal(err)
	}
	if err := j.Renew(t.Context(), s, T0.Add(time.Second), nil, nil); !errors.Is(err, journal.ErrSessionLost) {
		t.Fatalf("renewed what is gone: %v", err)
	}
}
