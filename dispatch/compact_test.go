// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch_test

import (
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
)

// What an invalidation came to outlives its batches, and so does what it selected.
func TestTheJournalIsCompacted(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		rules := lifetime.DefaultRules()
		rules.Default.MaxTTL, rules.Default.DefaultTTL = time.Hour, time.Hour
		d := dispatch.New(w.st, dist, w.cdn, &dispatch.Options{Rules: &rules})
		r := dispatch.Request{Selector: selector.Selector{Patterns: []string{"/a", "/b"}, Tags: []string{"red"}}, Reason: "why"}
		first, err := d.Invalidate(t.Context(), r)
		if err != nil || first.State != journal.Completed {
			t.Fatalf("%+v, %v", first, err)
		}
		w.record("/x", "/y")
		second, err := d.Invalidate(t.Context(), pattern("/x", "/y"))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			time.Sleep(40 * 24 * time.Hour)
			if _, err := d.Invalidate(t.Context(), pattern("/other")); err != nil {
				t.Fatal(err)
			}
		}
		for _, was := range []*dispatch.Report{first, second} {
			is, err := d.Status(t.Context(), was.ID)
			if err != nil || is.Compacted == nil || len(is.Batches) != 0 {
				t.Fatalf("%+v, %v", is, err)
			}
			if is.Items != was.Items || is.Price != was.Price || is.State != was.State || is.Selected != was.Selected || is.Reason != was.Reason {
				t.Errorf("%+v, was %+v", is, was)
			}
		}
		if second.Items != 2 {
			t.Fatalf("%+v", second)
		}

		// A late comer says what it has. Whether it lay under an item is forgotten,
		// so it goes out, whatever its tags.
		sent := len(w.sent())
		end := first.Cut
		rep := journal.Report{Invalidation: 1, Path: "/a", Start: end.Add(-time.Second), End: end}
		if err := d.Journal().PutReports(t.Context(), "late", []journal.Report{rep}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Invalidate(t.Context(), pattern("/once-more")); err != nil {
			t.Fatal(err)
		}
		again, err := d.Drive(t.Context(), first.ID, dispatch.UntilDone, nil)
		if err != nil || again.State != journal.Completed || again.FollowUps != 1 || again.Items != first.Items+1 || len(again.Batches) != 1 {
			t.Errorf("%+v, %v", again, err)
		}
		if got := w.sent(); len(got) != sent+2 {
			t.Errorf("sent %v", got[sent:])
		}
	})
}
