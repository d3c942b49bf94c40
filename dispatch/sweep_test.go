// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

func TestSettlingWaitsForRecorders(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		var acks atomic.Uint64
		acks.Store(9)
		w.session("a", &acks)
		start := time.Now()
		w.invalidate(pattern("/a"))
		if d := w.sim.Invalidations()[0].Created.Sub(start); d < 3*time.Second || d > 4*time.Second {
			t.Errorf("sent after %v", d)
		}
		r := pattern("/a")
		r.Now = true
		start = time.Now()
		w.invalidate(r)
		if d := w.sim.Invalidations()[1].Created.Sub(start); d > 50*time.Millisecond {
			t.Errorf("--now sent after %v", d)
		}
	})
}

func TestAYoungEntryIsWaitedForWithoutRecorders(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.recordAt(time.Now().Add(-time.Second), "/a")
		start := time.Now()
		w.invalidate(pattern("/a"))
		if d := w.sim.Invalidations()[0].Created.Sub(start); d < 2*time.Second || d > 3*time.Second {
			t.Errorf("sent after %v", d)
		}
	})
}

func TestCompletionWaitsForAcknowledgements(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		var acks atomic.Uint64
		w.session("slow", &acks)
		time.AfterFunc(time.Minute, func() { acks.Store(1) })
		start := time.Now()
		var held bool
		d := w.dispatcher()
		inv, err := d.Open(t.Context(), pattern("/a"))
		if err != nil {
			t.Fatal(err)
		}
		rep, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, func(r *dispatch.Report) {
			held = held || slices.Contains(r.Holding, "recorder web slow")
		})
		if err != nil || rep.State != journal.Completed || !held {
			t.Fatalf("%+v, held %v, %v", rep, held, err)
		}
		if d := time.Since(start); d < time.Minute {
			t.Errorf("completed after %v", d)
		}
	})
}

func TestTheSweepDoesNotWaitForEver(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		var acks atomic.Uint64
		w.session("stuck", &acks)
		r := pattern("/a")
		r.SweepTimeout = time.Minute
		rep, err := w.dispatcher().Invalidate(t.Context(), r)
		if !errors.Is(err, dispatch.ErrUndone) || !strings.Contains(err.Error(), "web stuck") || rep.State != journal.Sweeping {
			t.Fatalf("%+v, %v", rep, err)
		}
	})
}

// The known purge race: a response began before the cut and ended after the
// purge was sent.
func TestStragglersAreFollowedUp(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		var acks atomic.Uint64
		s := w.session("web", nil)
		w.record("/a", "/b")
		d := w.dispatcher()
		j := d.Journal()
		inv, err := d.Open(t.Context(), pattern("/a", "/b"))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(8 * time.Second) // the purge was sent after 3
			end := time.Now()
			w.recordAt(end, "/a")
			rs := []journal.Report{
				{Invalidation: inv.Number, Path: "/a", Start: inv.Cut.Add(-time.Second), End: end},
				{Invalidation: inv.Number, Path: "/b", Start: inv.Cut.Add(-time.Second), End: inv.Cut.Add(-time.Second)},
			}
			acks.Store(1)
			s.Ack(1)
			if err := j.Renew(t.Context(), s, time.Now(), rs, nil); err != nil {
				t.Error(err)
			}
			if err := j.CloseSession(t.Context(), s); err != nil {
				t.Error(err)
			}
		}()
		rep, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
		if err != nil || rep.State != journal.Completed || rep.FollowUps != 1 {
			t.Fatalf("%+v, %v", rep, err)
		}
		want(t, "sent", w.sent(), [][]string{{"/a", "/b"}, {"/a"}})
		invs := w.sim.Invalidations()
		if gap := invs[1].Created.Sub(invs[0].Created); gap < 7*time.Second {
			t.Errorf("followed up %v after the first batch, before the straggler had drained", gap)
		}
		want(t, "left", w.paths(), []string(nil))
	})
}

// hooked is a store in which something happens right before sessions are read.
type hooked struct {
	store.Store
	before func()
}

func (s *hooked) List(ctx context.Context, d, prefix, after string, limit int) ([]store.Document, error) {
	if prefix == "ses/" && s.before != nil {
		s.before()
	}
	return s.Store.List(ctx, d, prefix, after, limit)
}

// A recorder writes what it reports and its acknowledgement in one step: a look
// that sees the one sees the other.
func TestAReportIsSeenWithItsAcknowledgement(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		s := w.session("web", nil)
		st := &hooked{Store: w.st}
		d := dispatch.New(st, dist, w.cdn, nil)
		r := pattern("/a")
		r.Now = true
		inv, err := d.Open(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		st.before = func() {
			now, err := d.Status(t.Context(), inv.ID)
			if err != nil {
				t.Fatal(err)
			}
			if now.State != journal.Sweeping || s.HasAcked(inv.Number) {
				return
			}
			s.Ack(inv.Number)
			end := time.Now()
			report := journal.Report{Invalidation: inv.Number, Path: "/a", Start: inv.Cut.Add(-time.Second), End: end}
			if err := d.Journal().Renew(t.Context(), s, end, []journal.Report{report}, nil); err != nil {
				t.Fatal(err)
			}
		}
		rep, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
		if err != nil || rep.State != journal.Completed || rep.FollowUps != 1 {
			t.Fatalf("%+v, %v", rep, err)
		}
	})
}

func TestALateReportReopens(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		d := w.dispatcher()
		rep := w.invalidate(pattern("/a"))
		late := journal.Report{Invalidation: 1, Path: "/a", Start: rep.Cut.Add(-time.Minute), End: time.Now()}
		if err := d.Journal().PutReports(t.Context(), "late", []journal.Report{late}); err != nil {
			t.Fatal(err)
		}
		// Whoever dispatches next, and whatever for, takes it up again, and another
		// invalidation that is under way at the time does not lose sight of it.
		w.goWrong(func(op string, items []string) *simulator.Fault {
			if slices.Contains(items, "/stuck") {
				return simulator.Throttling()
			}
			return nil
		})
		ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
		defer stop()
		if _, err := d.Invalidate(ctx, pattern("/stuck")); !errors.Is(err, dispatch.ErrUndone) {
			t.Fatal(err)
		}
		rep, err := d.Status(t.Context(), rep.ID)
		if err != nil || rep.FollowUps != 1 || rep.State != journal.Completed {
			t.Fatalf("%+v, %v", rep, err)
		}
	})
}

func TestADeadRecorderIsSpokenFor(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.session("dead", nil)
		time.Sleep(time.Minute)
		w.record("/a")
		w.goWrong(func(op string, items []string) *simulator.Fault {
			if op == simulator.CreateInvalidation && len(w.sent()) == 0 {
				w.recordAt(time.Now(), "/a") // it may hold older content: whose it was died
			}
			return nil
		})
		rep := w.invalidate(pattern("/a"))
		if rep.State != journal.Completed || rep.FollowUps != 1 {
			t.Fatalf("%+v", rep)
		}
		want(t, "sent", w.sent(), [][]string{{"/a"}, {"/a"}})
	})
}

// Declaring a recorder dead in the middle does not take away what it owes.
func TestARecorderDeclaredDeadIsSpokenFor(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.session("dead", nil)
		w.record("/a")
		d := w.dispatcher()
		w.goWrong(func(op string, items []string) *simulator.Fault {
			if op == simulator.CreateInvalidation && len(w.sent()) == 0 {
				w.recordAt(time.Now(), "/a") // flushed, and not reported any more
				if _, err := d.Journal().Accept(t.Context(), "dead", "killed", "ada", time.Now().Add(time.Minute)); err != nil {
					t.Error(err)
				}
			}
			return nil
		})
		rep := w.invalidate(pattern("/a"))
		if rep.State != journal.Completed || rep.FollowUps != 1 {
			t.Fatalf("%+v", rep)
		}
		want(t, "sent", w.sent(), [][]string{{"/a"}, {"/a"}})
		w.goWrong(nil)
		if rep := w.invalidate(pattern("/a")); rep.FollowUps != 0 {
			t.Errorf("spoken for again: %+v", rep)
		}
	})
}

// What nothing can settle is reported for a dead recorder once, not at every look.
func TestADeadRecorderIsSpokenForOnce(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.session("dead", nil)
		w.record("/main~1.js")
		time.Sleep(time.Minute)
		rep := w.invalidate(dispatch.Request{Selector: selector.Selector{Regexps: []string{"main"}}})
		if rep.State != journal.Partial {
			t.Fatalf("%+v", rep)
		}
		// Somebody reports it too, and another dispatcher goes on.
		time.Sleep(time.Second)
		j := journal.Open(w.st, dist)
		err := j.PutReports(t.Context(), "import", []journal.Report{{Invalidation: 1, Path: "/main~1.js", Start: rep.Cut, End: rep.Cut}})
		if err != nil {
			t.Fatal(err)
		}
		if rep, err := w.dispatcher().Drive(t.Context(), rep.ID, dispatch.UntilDone, nil); err != nil || rep.State != journal.Partial {
			t.Fatalf("%+v, %v", rep, err)
		}
		if unread, err := j.Unread(t.Context()); err != nil || len(unread) != 0 {
			t.Errorf("there are reports that nobody read: %v, %v; so it never ends", unread, err)
		}
		if reports, err := j.Reports(t.Context(), 1); err != nil || len(reports) != 2 {
			t.Errorf("reported by the first dispatcher and the import, and now %d times: %v", len(reports), err)
		}
	})
}

func TestADoubtfulSpellingIsFollowedUpOnce(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.session("dead", nil)
		time.Sleep(time.Minute)
		w.record("/it%27s")
		if rep := w.invalidate(pattern("/it%27s")); rep.State != journal.Completed || rep.FollowUps != 0 {
			t.Fatalf("nobody sighted it meanwhile: %+v", rep)
		}
		w.goWrong(func(op string, items []string) *simulator.Fault {
			if op == simulator.CreateInvalidation && len(w.sent()) == 1 {
				w.recordAt(time.Now(), "/it%27s")
			}
			return nil
		})
		rep := w.invalidate(pattern("/it%27s"))
		if rep.FollowUps != 1 || rep.State != journal.Partial || len(rep.Uncovered) != 1 || rep.Uncovered[0].Remedy != "/it*" {
			t.Fatalf("%+v", rep)
		}
		want(t, "left", w.paths(), []string{"/it%27s"})
	})
}

// What another invalidation's batch removes is still being removed: completion
// waits for it.
func TestCompletionWaitsForBatchesInFlight(t *testing.T) {
	inWorld(t, simulator.Options{Propagation: -1, Completion: 40 * time.Second}, func(t *testing.T, w *world) {
		w.record("/a/1", "/a/2", "/b")
		d := w.dispatcher()
		first, err := d.Open(t.Context(), pattern("/a/*"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Drive(t.Context(), first.ID, dispatch.UntilAccepted, nil); err != nil {
			t.Fatal(err)
		}
		sent := time.Now()
		rep := w.invalidate(dispatch.Request{Selector: selector.Selector{Prefixes: []string{"/a/"}}})
		if rep.State != journal.Completed || rep.Items != 0 {
			t.Fatalf("%+v", rep)
		}
		if took := time.Since(sent); took < 40*time.Second {
			t.Errorf("completed after %v, while what it selected was still in flight", took)
		}
	})
}

// A batch that was accepted before its invalidation was cancelled is watched by
// nobody else: whoever waits for it looks after it.
func TestBatchesOfCancelledInvalidationsDoNotHoldOthers(t *testing.T) {
	inWorld(t, simulator.Options{Completion: 30 * time.Second}, func(t *testing.T, w *world) {
		d := w.dispatcher()
		first, err := d.Open(t.Context(), pattern("/a"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Drive(t.Context(), first.ID, dispatch.UntilAccepted, nil); err != nil {
			t.Fatal(err)
		}
		second, err := d.Open(t.Context(), pattern("/b"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Journal().RequestCancel(t.Context(), first.ID); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		rep, err := d.Drive(t.Context(), second.ID, dispatch.UntilDone, nil)
		if err != nil || rep.State != journal.Completed {
			t.Fatalf("%+v, %v", rep, err)
		}
		if d := time.Since(start); d < 30*time.Second || d > time.Minute {
			t.Errorf("completed after %v", d)
		}
	})
}
