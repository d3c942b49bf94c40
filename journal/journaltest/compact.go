// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package journaltest

import (
	"fmt"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/journal"
)

const day = 24 * time.Hour

// over returns an invalidation that was completed at T0, with so many batches of
// three items and so many reports, all read.
func over(t *testing.T, j *journal.Journal, l *journal.Lease, batches, reports int) *journal.Invalidation {
	t.Helper()
	inv := Create(t, j, "/a*")
	for i := range batches {
		b := &journal.Batch{Items: []string{"/a", "/b", fmt.Sprint("/", i)}, Sent: T0}
		if err := l.SaveBatch(t.Context(), inv, b, "r"); err != nil {
			t.Fatal(err)
		}
		b.State, b.Accepted, b.Completed, b.Forgotten = journal.BatchDone, T0, T0, true
		if err := l.PutBatch(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	for i := range reports {
		rep := journal.Report{Invalidation: inv.Number, Path: fmt.Sprint("/a", i), Start: T0, End: T0}
		if err := j.PutReports(t.Context(), fmt.Sprint("r", i), []journal.Report{rep}); err != nil {
			t.Fatal(err)
		}
	}
	unread, err := j.Unread(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.MarkRead(t.Context(), inv.Number, unread[inv.Number]); err != nil {
		t.Fatal(err)
	}
	inv.State, inv.Ended = journal.Completed, T0
	if err := l.PutInvalidation(t.Context(), inv); err != nil {
		t.Fatal(err)
	}
	return inv
}

func compact(t *testing.T, l *journal.Lease, now time.Time) journal.Compaction {
	t.Helper()
	c, err := l.Compact(t.Context(), now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func compactionForgetsWhatIsOver(t *testing.T, j *journal.Journal) {
	ctx := t.Context()
	l := Lease(t, j, "a", T0)
	many, few, marked := over(t, j, l, 4, 250), over(t, j, l, 1, 1), over(t, j, l, 1, 1)
	late := journal.Report{Invalidation: marked.Number, Path: "/a", Start: T0, End: T0}
	if err := j.PutReports(ctx, "late", []journal.Report{late}); err != nil {
		t.Fatal(err)
	}
	if err := j.PutReports(ctx, "stray", []journal.Report{{Invalidation: 99, Path: "/a"}}); err != nil {
		t.Fatal(err)
	}
	for _, g := range []journal.Gap{
		{ID: "old", From: T0, Until: T0, Accepted: "why"}, {ID: "open", From: T0},
		{ID: "recent", From: T0, Until: T0.Add(40 * day)},
	} {
		if err := j.PutGaps(ctx, g); err != nil {
			t.Fatal(err)
		}
	}
	Session(t, j, "silent", T0)
	Session(t, j, "recent", T0.Add(40*day))

	now := T0.Add(41 * day)
	if c := compact(t, l, now); c != (journal.Compaction{}) {
		t.Fatalf("on a first reading of the clock: %+v", c)
	}
	if c := compact(t, l, now.Add(59*time.Minute)); c != (journal.Compaction{}) {
		t.Fatalf("within the hour: %+v", c)
	}
	now = now.Add(time.Hour)
	if c, want := compact(t, l, now), (journal.Compaction{Batches: 5, Reports: 251, Gaps: 1, Sessions: 1, Marks: 1}); c != want {
		t.Fatalf("%+v, want %+v", c, want)
	}
	for inv, items := range map[*journal.Invalidation]int{many: 12, few: 3, marked: 0} {
		got, err := j.Invalidation(ctx, inv.ID)
		if err != nil {
			t.Fatal(err)
		}
		batches, err := j.Batches(ctx, inv.Number)
		if err != nil {
			t.Fatal(err)
		}
		reports, err := j.Reports(ctx, inv.Number)
		switch {
		case err != nil:
			t.Fatal(err)
		case items == 0:
			if got.Compacted != nil || len(batches) != 1 || len(reports) != 2 {
				t.Errorf("with a report that nobody read: %+v, %d batches, %d reports", got.Compacted, len(batches), len(reports))
			}
		case len(batches) != 0 || len(reports) != 0 || got.Compacted == nil || !got.Compacted.Done ||
			got.Compacted.Items != items || got.Compacted.Batches != got.Batches || got.Selector.String() != inv.Selector.String():
			t.Errorf("%+v: %+v, %d batches, %d reports", got, got.Compacted, len(batches), len(reports))
		}
	}
	if gaps, err := j.Gaps(ctx); err != nil || len(gaps) != 2 {
		t.Errorf("gaps %+v, %v", gaps, err)
	}
	if all, err := j.Sessions(ctx); err != nil || len(all) != 1 || all[0].ID != "recent" {
		t.Errorf("sessions %+v, %v", all, err)
	}

	// It goes on where it was, under numbers of its own.
	got, err := j.Invalidation(ctx, few.ID)
	if err != nil {
		t.Fatal(err)
	}
	b := &journal.Batch{Items: []string{"/again"}, Sent: now}
	if err := l.SaveBatch(ctx, got, b, "r"); err != nil || b.Number != 1 {
		t.Fatalf("%+v, %v", b, err)
	}
	b.State, b.Accepted, b.Forgotten = journal.Accepted, now, true
	if err := l.PutBatch(ctx, b); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		now = now.Add(40 * day)
		compact(t, l, now)
	}
	if got, err = j.Invalidation(ctx, few.ID); err != nil || got.Compacted.Items != 4 || got.Compacted.Batches != 2 {
		t.Errorf("%+v, %v", got.Compacted, err)
	}

	// A clock that stood in the future for a while holds up nothing.
	late.Invalidation = few.Number
	l, _, err = j.Acquire(ctx, "b", now.Add(1000*day), 10000*day)
	if err != nil || l == nil {
		t.Fatal(err)
	}
	recent := over(t, j, l, 1, 0)
	recent.Ended = now
	if err := l.PutInvalidation(ctx, recent); err != nil {
		t.Fatal(err)
	}
	if c := compact(t, l, now.Add(1000*day)); c.Batches > 1 { // the marked one's stays
		t.Errorf("a wrong clock: %+v", c)
	}
	if bs, err := j.Batches(ctx, recent.Number); err != nil || len(bs) != 1 {
		t.Errorf("one wrong reading of the clock has forgotten %+v, %v", recent, err)
	}
	now = now.Add(20 * time.Minute)
	compact(t, l, now)
	if bs, err := j.Batches(ctx, recent.Number); err != nil || len(bs) != 1 {
		t.Errorf("back in the present: %d batches, %v", len(bs), err)
	}
	if docs, err := j.Store().List(ctx, j.Distribution(), "compacted", "", 0); err != nil || len(docs) != 1 {
		t.Errorf("%v, %v", docs, err)
	}
}
