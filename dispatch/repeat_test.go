// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
)

func TestRepeatAfter(t *testing.T) {
	inWorld(t, simulator.Options{Completion: 10 * time.Second}, func(t *testing.T, w *world) {
		w.record("/a", "/b/1", "/b/2")
		d := w.dispatcher()
		r := pattern("/a", "/b/*")
		r.RepeatAfter = 15 * time.Minute
		p, err := d.Plan(t.Context(), r)
		if err != nil || !p.Repeats || p.Sends() != 4 || p.Totals.Items != 2 {
			t.Fatalf("%+v, %v", p, err)
		}
		inv, err := d.Open(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		waited := false
		// Whoever drives is killed now and then, and somebody goes on.
		var rep *dispatch.Report
		for left := int64(7); ; left += 5 {
			st := &dying{Store: w.st}
			st.left.Store(left)
			rep, err = dispatch.New(st, dist, w.cdn, nil).Drive(t.Context(), inv.ID, dispatch.UntilDone, func(r *dispatch.Report) {
				waited = waited || slices.ContainsFunc(r.Holding, func(s string) bool { return strings.Contains(s, "the repetition, at ") })
			})
			if err == nil {
				break
			}
			if !errors.Is(err, errKilled) {
				t.Fatal(err)
			}
		}
		if rep.State != journal.Completed || rep.Items != 4 || !waited || rep.FollowUps != 0 || w.sim.Billed() != 4 {
			t.Fatalf("%+v, waited %v, billed %d", rep, waited, w.sim.Billed())
		}
		invs := w.sim.Invalidations()
		first, last := invs[0], invs[len(invs)-1]
		if gap := last.Created.Sub(first.Completed); gap < 15*time.Minute || gap > 17*time.Minute {
			t.Errorf("repeated %v after it had completed", gap)
		}
		for _, b := range rep.Batches {
			if b.Repeat != b.Sent.After(first.Completed) {
				t.Errorf("%+v", b)
			}
		}
	})
}

// A follow-up below a wildcard that goes out once more needs no repetition of its own.
func TestWhatTheRepetitionReachesIsNotRepeatedByItself(t *testing.T) {
	inWorld(t, simulator.Options{Completion: 20 * time.Second}, func(t *testing.T, w *world) {
		w.record("/d/x")
		d := w.dispatcher()
		r := pattern("/d/*")
		r.RepeatAfter = time.Minute
		inv, err := d.Open(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		w.straggle(d, inv, "/d/x")
		if rep, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil); err != nil || rep.State != journal.Completed {
			t.Fatalf("%+v, %v", rep, err)
		}
		want(t, "sent", w.sent(), [][]string{{"/d/*"}, {"/d/x"}, {"/d/*"}})
	})
}

// A follow-up that nothing planned reaches goes out once more too, and is paid for
// within the guards.
func TestFollowUpsAreRepeated(t *testing.T) {
	for name, tc := range map[string]struct {
		opts  dispatch.Options
		max   *float64
		sent  [][]string
		state journal.State
	}{
		"none":   {sent: [][]string{{"/d/x"}, {"/d/new"}, {"/d/x", "/d/new"}}, state: journal.Completed},
		"price":  {max: new(0.01), sent: [][]string{{"/d/x"}, {"/d/x"}}, state: journal.Partial},
		"budget": {opts: dispatch.Options{Budget: new(0.01)}, sent: [][]string{{"/d/x"}, {"/d/x"}}, state: journal.Partial},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, simulator.Options{Completion: 20 * time.Second}, func(t *testing.T, w *world) {
				w.record("/d/x")
				d := dispatch.New(w.st, dist, w.cdn, &tc.opts)
				r := dispatch.Request{Selector: selector.Selector{Prefixes: []string{"/d/"}}, RepeatAfter: time.Minute, MaxPrice: tc.max, FreePaths: new(0)}
				if name == "budget" { // of which a cent is left: two items, and three
					w.drive(dispatch.New(w.st, dist, w.cdn, nil), pattern(paths("/spent", 999)...))
				}
				before := len(w.sent())
				inv, err := d.Open(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				w.straggle(d, inv, "/d/new")
				rep, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
				if err != nil || rep.State != tc.state {
					t.Fatalf("%+v, %v", rep, err)
				}
				want(t, "sent", w.sent()[before:], tc.sent)
			})
		})
	}
}

// What is followed up while the repetition is waited for, or after it, goes out once
// more that long after it has completed; by itself where no wildcard is due.
func TestLateFollowUpsAreRepeated(t *testing.T) {
	x, xy, all := []string{"/d/x"}, []string{"/d/x", "/d/y"}, []string{"/d/*"}
	for name, tc := range map[string]struct {
		late, ended time.Duration
		patterns    []string
		sent        [][]string
	}{
		"before":                      {3 * time.Minute, 3 * time.Minute, xy, [][]string{xy, x, xy}},
		"before, with a wildcard":     {3 * time.Minute, 3 * time.Minute, all, [][]string{all, x, all}},
		"after":                       {time.Hour, time.Hour, xy, [][]string{xy, xy, x, x}},
		"after, with a wildcard":      {time.Hour, time.Hour, all, [][]string{all, all, x, x}},
		"after, of what ended before": {time.Hour, 3 * time.Minute, all, [][]string{all, all, x, x}}, // it was removed once
		"after, and settled before":   {time.Hour, -time.Minute, all, [][]string{all, all}},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, simulator.Options{Completion: 10 * time.Second}, func(t *testing.T, w *world) {
				w.record("/d/x", "/d/y")
				d := w.dispatcher()
				r := pattern(tc.patterns...)
				r.RepeatAfter = 5 * time.Minute
				inv, err := d.Open(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				time.AfterFunc(tc.late, func() {
					rep := journal.Report{Invalidation: inv.Number, Path: "/d/x", Start: inv.Cut.Add(-time.Hour), End: inv.Cut.Add(tc.ended)}
					if err := d.Journal().PutReports(t.Context(), "late", []journal.Report{rep}); err != nil {
						t.Error(err)
					}
				})
				for range 2 {
					if _, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil); err != nil {
						t.Fatal(err)
					}
					time.Sleep(max(0, time.Until(inv.Opened.Add(tc.late+time.Second))))
				}
				want(t, "sent", w.sent(), tc.sent)
				invs := w.sim.Invalidations()
				last := len(invs) - 1
				if gap := invs[last].Created.Sub(invs[last-1].Completed); gap < r.RepeatAfter || gap > r.RepeatAfter+time.Minute {
					t.Errorf("repeated %v after the follow-up had completed", gap)
				}
			})
		})
	}
}

// What was cached between the two rounds is removed once, by the second, and an edge may
// take it back from a tier: it stays in the inventory, for whoever purges it next.
func TestTheRepetitionForgetsNothing(t *testing.T) {
	inWorld(t, simulator.Options{Completion: 10 * time.Second}, func(t *testing.T, w *world) {
		w.record("/d/x", "/d/y")
		r := pattern("/d/*")
		r.RepeatAfter = 5 * time.Minute
		time.AfterFunc(2*time.Minute, func() {
			want(t, "left by the first round", w.paths(), nil)
			w.recordAt(time.Now(), "/d/x")
		})
		if rep := w.drive(w.dispatcher(), r); rep.State != journal.Completed || rep.Items != 2 {
			t.Errorf("%+v", rep)
		}
		want(t, "left in the end", w.paths(), []string{"/d/x"})
	})
}

// Batches that the store has lost and CloudFront has are known for what they were: nothing
// goes out a third time.
func TestARepetitionThatIsFoundAgain(t *testing.T) {
	for name, after := range map[string]time.Duration{"soon": time.Second, "later": 20 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, simulator.Options{Completion: 10 * time.Second}, func(t *testing.T, w *world) {
				w.record("/d/x", "/d/y")
				r := pattern("/d/x", "/d/y")
				r.RepeatAfter = after
				d := w.dispatcher()
				inv, err := d.Open(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				w.straggle(d, inv, "/d/x")
				var then map[string][]byte
				rep, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, func(r *dispatch.Report) {
					if r.RepeatAt != nil && then == nil {
						then = w.documents()
					}
				})
				if err != nil || rep.State != journal.Completed || then == nil {
					t.Fatalf("%+v, %v", rep, err)
				}
				sent := w.sent()
				want(t, "sent", sent, [][]string{{"/d/x", "/d/y"}, {"/d/x"}, {"/d/x", "/d/y"}})
				w.goBack(then)
				rep, err = w.dispatcher().Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
				if err != nil || rep.State != journal.Completed || rep.Items != 5 {
					t.Errorf("%+v, %v", rep, err)
				}
				want(t, "sent in the end", w.sent(), sent)
				for i, b := range rep.Batches {
					if b.FollowUp != (i == 1) || b.Repeat != (i == 2) {
						t.Errorf("batch %d: %+v", i, b)
					}
				}
			})
		})
	}
}

// What goes out once more has to have gone out here: that batches of others, saved or
// accepted, remove the same is not enough.
func TestWhatIsRepeatedIsSentHere(t *testing.T) {
	for name, wildcards := range map[string]bool{"exact": false, "wildcards": true} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, simulator.Options{Completion: 5 * time.Second}, func(t *testing.T, w *world) {
				w.record(slices.Concat(paths("/a", 40), paths("/b", 40), paths("/c", 40))...)
				d := w.dispatcher()
				calls := 0
				w.goWrong(func(op string, _ []string) *simulator.Fault {
					if op != simulator.CreateInvalidation {
						return nil
					}
					if calls++; calls < 4 { // what is saved stays that for a while
						return simulator.ServiceUnavailable()
					}
					return nil
				})
				var opened []*journal.Invalidation
				for _, both := range []string{"^/[ab]/", "^/[bc]/"} {
					inv, err := d.Open(t.Context(), dispatch.Request{Selector: selector.Selector{Regexps: []string{both}},
						Exact: !wildcards, AssumeComplete: wildcards, Batch: 30, RepeatAfter: time.Minute})
					if err != nil {
						t.Fatal(err)
					}
					opened = append(opened, inv)
				}
				want := 2 * 80
				if wildcards {
					want = 2 * 2
				}
				for _, inv := range opened {
					rep, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
					if err != nil || rep.State != journal.Completed || rep.Items != want || rep.Saved.Items != 0 {
						t.Errorf("%d items, not %d; %+v, %v", rep.Items, want, rep, err)
					}
				}
			})
		})
	}
}
