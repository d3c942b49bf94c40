// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/plan"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// paths are so many exact paths below a directory.
func paths(dir string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s/%05d", dir, i)
	}
	return out
}

func (w *world) drive(d *dispatch.Dispatcher, r dispatch.Request) *dispatch.Report {
	w.t.Helper()
	rep, err := d.Invalidate(w.t.Context(), r)
	if err != nil {
		w.t.Error(err)
		return &dispatch.Report{}
	}
	return rep
}

// Distributions of an account share its budget; what would go over it is not sent,
// and a new month begins with nothing spent.
func TestTheBudgetIsTheAccounts(t *testing.T) {
	inWorld(t, simulator.Options{Tenants: []string{"dt_1"}}, func(t *testing.T, w *world) {
		o := &dispatch.Options{Budget: new(0.03), Account: "prod"}
		mine, other := dispatch.New(w.st, dist, w.cdn, o), dispatch.New(w.st, "dt_1", w.cdn, o)
		if rep := w.drive(mine, pattern(paths("/a", 1004)...)); rep.State != journal.Completed || rep.Price != 0.02 {
			t.Fatalf("%s, $%v", rep.State, rep.Price)
		}
		rep := w.drive(other, pattern("/1", "/2", "/3"))
		if rep.State != journal.Failed || rep.Code != "budget" || !strings.Contains(rep.Error, "$0.01 is left of this month's budget of $0.03") ||
			rep.Items != 0 {
			t.Errorf("%+v", rep)
		}
		p, err := other.Plan(t.Context(), pattern("/1", "/2", "/3"))
		if err != nil || !slices.ContainsFunc(p.Warnings, func(x plan.Warning) bool { return x.Code == "budget" }) || p.FreePaths != 0 {
			t.Errorf("%+v, %d free, %v", p.Warnings, p.FreePaths, err)
		}
		if again, err := other.Journal().Reopen(t.Context(), rep.ID); err != nil || again.State != journal.Failed {
			t.Errorf("reopened as %s, %v", again.State, err)
		}
		twice := pattern("/1", "/2")
		twice.RepeatAfter = time.Minute
		if rep := w.drive(other, twice); rep.Code != "budget" {
			t.Errorf("twice two items: %+v", rep)
		}
		if rep := w.drive(other, pattern("/1", "/2")); rep.State != journal.Completed {
			t.Errorf("%+v", rep)
		}
		if rep := w.drive(mine, pattern("/4")); rep.Code != "budget" {
			t.Errorf("%+v", rep)
		}
		elsewhere := dispatch.New(w.st, dist, w.cdn, &dispatch.Options{Budget: new(0.03), Account: "test"})
		if rep := w.drive(elsewhere, pattern("/4", "/5", "/6")); rep.Code != "budget" {
			t.Errorf("the journal knows more than an account of another name: %+v", rep)
		}
		time.Sleep(32 * 24 * time.Hour)
		if rep := w.drive(mine, pattern("/4")); rep.State != journal.Completed {
			t.Errorf("next month: %+v", rep)
		}
	})
}

// Plans that are admitted at the same time do not spend the same money.
func TestTheBudgetIsPromisedOnce(t *testing.T) {
	inWorld(t, simulator.Options{Tenants: []string{"dt_1", "dt_2", "dt_3"}}, func(t *testing.T, w *world) {
		var done sync.WaitGroup
		var failed atomic.Int64
		for _, id := range []string{"dt_1", "dt_2", "dt_3"} {
			d := dispatch.New(w.st, id, w.cdn, &dispatch.Options{Budget: new(0.0)})
			done.Go(func() {
				if rep := w.drive(d, pattern(paths("/"+id, 400)...)); rep.Code == "budget" {
					failed.Add(1)
				} else if rep.State != journal.Completed {
					t.Errorf("%+v", rep)
				}
			})
		}
		done.Wait()
		if failed.Load() != 1 || w.sim.Billed() != 800 {
			t.Errorf("%d were stopped, %d items were sent; 1,000 are free", failed.Load(), w.sim.Billed())
		}
	})
}

// straggle reports a straggler on path once its invalidation is sweeping.
func (w *world) straggle(d *dispatch.Dispatcher, inv *journal.Invalidation, path string) {
	w.t.Helper()
	go func() {
		for {
			time.Sleep(time.Second)
			r, err := d.Status(w.t.Context(), inv.ID)
			if err != nil || r.State.Ended() {
				return
			}
			if r.State != journal.Propagating {
				continue
			}
			end := time.Now()
			w.recordAt(end, path)
			rep := journal.Report{Invalidation: inv.Number, Path: path, Start: inv.Cut.Add(-time.Second), End: end}
			if err := d.Journal().PutReports(w.t.Context(), "late", []journal.Report{rep}); err != nil {
				w.t.Error(err)
			}
			return
		}
	}()
}

func TestFollowUpsStayWithinTheGuards(t *testing.T) {
	none := 0
	for name, tc := range map[string]struct {
		opts dispatch.Options
		max  *float64
		says string
	}{
		"price":  {max: new(0.01), says: "it would cost $0.01 in all, over the limit of $0.01"},
		"budget": {opts: dispatch.Options{Budget: new(0.0)}, says: "left of this month's budget of $0.00"},
		"none":   {},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, simulator.Options{Completion: 20 * time.Second}, func(t *testing.T, w *world) {
				w.record("/a", "/b")
				d := dispatch.New(w.st, dist, w.cdn, &tc.opts)
				r := pattern("/a", "/b")
				r.MaxPrice = tc.max
				if tc.max != nil {
					r.FreePaths = &none
				} else {
					// All but two of what is free this month is gone.
					w.drive(dispatch.New(w.st, dist, w.cdn, nil), pattern(paths("/x", 998)...))
				}
				inv, err := d.Open(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				w.straggle(d, inv, "/a")
				rep, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
				if err != nil {
					t.Fatal(err)
				}
				if tc.says == "" {
					if rep.State != journal.Completed || rep.FollowUps != 1 {
						t.Errorf("%+v", rep)
					}
					return
				}
				if rep.State != journal.Partial || rep.FollowUps != 0 || len(rep.Uncovered) != 1 || rep.Uncovered[0].Item != "/a" ||
					!strings.Contains(rep.Uncovered[0].Reason, tc.says) {
					t.Errorf("%+v", rep)
				}
			})
		})
	}
}

func TestLikelyFollowUps(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		none := 0
		r := pattern(paths("/a", 100)...)
		r.FreePaths = &none
		d := w.dispatcher()
		p, err := d.Plan(t.Context(), r)
		if err != nil || p.FollowUps != (dispatch.Likely{Share: 0.02, Items: 2, Price: 0.01}) {
			t.Errorf("before anything was sent: %+v, %v", p.FollowUps, err)
		}
		inv, err := d.Open(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		w.straggle(d, inv, "/a/00001")
		if rep, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil); err != nil || rep.FollowUps != 1 {
			t.Fatalf("%+v, %v", rep, err)
		}
		if p, err = d.Plan(t.Context(), r); err != nil || p.FollowUps != (dispatch.Likely{Share: 0.01, Items: 1, Price: 0.005, Known: true}) {
			t.Errorf("after one in a hundred: %+v, %v", p.FollowUps, err)
		}
	})
}

func TestEntriesPerMinute(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		var want int
		var named []string
		for i, n := range []int{30, 10, 200, 1, 1, 60} {
			dir := fmt.Sprintf("/d%d", i)
			w.record(paths(dir, n)...)
			named = append(named, dir+"/*")
			want += n
		}
		r := pattern(named...)
		r.EntriesPerMinute = 60
		rep := w.drive(w.dispatcher(), r)
		if rep.State != journal.Completed || rep.Items != len(named) {
			t.Fatalf("%+v", rep)
		}
		entries := map[string]int{"/d0/*": 30, "/d1/*": 10, "/d2/*": 200, "/d3/*": 1, "/d4/*": 1, "/d5/*": 60}
		invs := w.sim.Invalidations()
		for i := range invs {
			sum, largest := 0, 0
			for j := i; j < len(invs) && invs[j].Created.Sub(invs[i].Created) < time.Minute; j++ {
				for _, it := range invs[j].Items {
					sum, largest = sum+entries[it], max(largest, entries[it])
				}
			}
			if sum > 60+1+largest {
				t.Errorf("%d entries within a minute from %v on", sum, invs[i].Created)
			}
		}
		if took := invs[len(invs)-1].Created.Sub(invs[0].Created); took < 4*time.Minute || took > 5*time.Minute {
			t.Errorf("the %d entries before the last were paid off in %v, at 60 a minute", want-60, took)
		}
	})
}

// Two invalidations that overlap and are under way together do not send, or pay
// for, the same path twice.
func TestOverlappingInvalidationsSendNothingTwice(t *testing.T) {
	inWorld(t, simulator.Options{Completion: 5 * time.Second}, func(t *testing.T, w *world) {
		w.record(slices.Concat(paths("/a", 500), paths("/b", 500), paths("/c", 500))...)
		d := w.dispatcher()
		request := func(prefixes ...string) dispatch.Request {
			return dispatch.Request{Selector: selector.Selector{Prefixes: prefixes}, Exact: true}
		}
		first, err := d.Open(t.Context(), request("/a/", "/b/"))
		if err != nil {
			t.Fatal(err)
		}
		second, err := d.Open(t.Context(), request("/b/", "/c/"))
		if err != nil {
			t.Fatal(err)
		}
		// What is named goes out all the same.
		named, err := d.Open(t.Context(), pattern("/b/00007"))
		if err != nil {
			t.Fatal(err)
		}
		saved := 0
		for _, inv := range []*journal.Invalidation{first, second, named} {
			rep, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
			if err != nil || rep.State != journal.Completed {
				t.Fatalf("%+v, %v", rep, err)
			}
			saved += rep.Saved.Items
			if rep.Saved.Items != rep.Saved.Entries {
				t.Errorf("%+v", rep.Saved)
			}
		}
		seen := make(map[string]int)
		for _, it := range slices.Concat(w.sent()...) {
			seen[it]++
		}
		twice := 0
		for it, n := range seen {
			if n > 1 && it != "/b/00007" {
				twice++
			}
		}
		if len(seen) != 1500 || twice > 0 || saved < 499 || len(w.paths()) != 0 {
			t.Errorf("%d paths, %d of them sent twice, %d saved, %d left", len(seen), twice, saved, len(w.paths()))
		}
	})
}

// What stands in a batch that CloudFront puts off is not sent by another meanwhile.
func TestWhatIsPutOffIsNotSentByAnother(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record(paths("/a", 20)...)
		busy := time.Now().Add(10 * time.Second)
		w.goWrong(func(op string, _ []string) *simulator.Fault {
			if op == simulator.CreateInvalidation && time.Now().Before(busy) {
				return simulator.ServiceUnavailable()
			}
			return nil
		})
		d := w.dispatcher()
		var opened []*journal.Invalidation
		for range 3 {
			inv, err := d.Open(t.Context(), dispatch.Request{Selector: selector.Selector{Prefixes: []string{"/a/"}}, Exact: true})
			if err != nil {
				t.Fatal(err)
			}
			opened = append(opened, inv)
		}
		for _, inv := range opened {
			if rep, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil); err != nil || rep.State != journal.Completed {
				t.Errorf("%+v, %v", rep, err)
			}
		}
		if w.sim.Billed() != 20 {
			t.Errorf("%d items were sent for 20 paths", w.sim.Billed())
		}
	})
}

// Under complete coverage, what a batch under way removes is not planned again,
// whoever plans; the invalidation waits for that batch.
func TestWhatIsUnderWayIsNotPlannedAgain(t *testing.T) {
	inWorld(t, simulator.Options{Propagation: -1, Completion: 40 * time.Second}, func(t *testing.T, w *world) {
		none := 0
		all := dispatch.Request{Selector: selector.Selector{Patterns: []string{"/*"}}}
		var acks atomic.Uint64
		acks.Store(99)
		w.session("web", &acks)
		w.drive(w.dispatcher(), all) // makes the coverage complete
		w.record("/p/1", "/p/2", "/p/3", "/q")
		d := w.dispatcher()
		// The batch is accepted, and its dispatcher dies before it has cleared anything.
		inv, err := d.Open(t.Context(), pattern("/p/1", "/p/2"))
		if err != nil {
			t.Fatal(err)
		}
		accepted := &clearless{Store: w.st}
		if _, err := dispatch.New(accepted, dist, w.cdn, nil).Drive(t.Context(), inv.ID, dispatch.UntilAccepted, nil); !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		sent := time.Now()
		w.recordAt(time.Now(), "/p/2") // sighted since
		r := dispatch.Request{Selector: selector.Selector{Regexps: []string{"^/p/[12]$"}}, FreePaths: &none}
		p, err := d.Plan(t.Context(), r)
		if err != nil || !p.Coverage.Complete || p.Totals.Items != 1 || p.Items[0].Item.Text != "/p/2" ||
			p.Saved.Entries != 1 || p.Saved.Items != 1 || p.Saved.Price != 0.005 {
			t.Fatalf("%+v, saved %+v, coverage %+v, %v", p.Totals, p.Saved, p.Coverage, err)
		}
		twice := r
		twice.RepeatAfter = time.Minute
		if p, err := d.Plan(t.Context(), twice); err != nil || p.Totals.Items != 2 || p.Saved.Items != 0 {
			t.Errorf("what is to go out twice leaves it to another: %+v, %v", p.Totals, err)
		}
		r.Selector.Regexps = []string{"^/p/1$"}
		rep := w.drive(d, r)
		if rep.State != journal.Completed || rep.Items != 0 {
			t.Errorf("%+v", rep)
		}
		if took := time.Since(sent); took < 35*time.Second {
			t.Errorf("completed %v after the batch it relied on was sent", took)
		}
	})
}

// clearless is a store whose process dies when it is to clear.
type clearless struct{ store.Store }

func (clearless) Clear(context.Context, string, []store.Condition) (int, error) { return 0, errKilled }

// What CloudFront refuses is covered by the next wildcard that hits nothing else,
// where the inventory can answer for that.
func TestARefusedItemIsCoveredOtherwise(t *testing.T) {
	for name, tc := range map[string]struct {
		complete bool
		scope    []string
		refuses  []string
		sent     string
		state    journal.State
	}{
		"next wildcard":       {true, nil, []string{"/a/bad"}, "/a/bad*", journal.Completed},
		"that is refused too": {true, nil, []string{"/a/bad", "/a/bad*"}, "/a/*", journal.Completed},
		"within the scope":    {true, []string{"/a/*"}, []string{"/a/bad", "/a/bad*"}, "/a/*", journal.Completed},
		"beyond the scope":    {true, []string{"/a/b*"}, []string{"/a/bad", "/a/bad*"}, "", journal.Partial},
		"collateral":          {true, nil, []string{"/a/bad", "/a/bad*", "/a/*"}, "", journal.Partial}, // "/*" would hit "/z"
		"cannot answer":       {false, nil, []string{"/a/bad"}, "", journal.Partial},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
				w.record("/a/bad", "/a/bad?x=1", "/a/good", "/z")
				w.goWrong(func(op string, items []string) *simulator.Fault {
					for _, x := range tc.refuses {
						if slices.Contains(items, x) {
							return &simulator.Fault{Code: "InvalidArgument", Message: "Your request contains one or more invalid invalidation paths."}
						}
					}
					return nil
				})
				r := pattern("/a/bad", "/a/good")
				r.AssumeComplete = tc.complete
				rep := w.drive(dispatch.New(w.st, dist, w.cdn, &dispatch.Options{Scope: tc.scope}), r)
				if rep.State != tc.state {
					t.Fatalf("%+v", rep)
				}
				all := slices.Concat(w.sent()...)
				if tc.sent != "" && !slices.Contains(all, tc.sent) || slices.Contains(all, "/*") {
					t.Errorf("sent %v", all)
				}
				if tc.sent == "" && (len(rep.Uncovered) != 1 || !slices.Contains(tc.refuses, rep.Uncovered[0].Item)) {
					t.Errorf("uncovered %+v", rep.Uncovered)
				}
			})
		})
	}
}

// Two processes, two distributions, one account: together they keep to its rates.
func TestDistributionsOfAnAccountShareItsRates(t *testing.T) {
	inWorld(t, simulator.Options{Tenants: []string{"dt_1"}}, func(t *testing.T, w *world) {
		var done sync.WaitGroup
		for _, id := range []string{dist, "dt_1"} {
			d := dispatch.New(w.st, id, w.cdn, nil)
			done.Go(func() { w.drive(d, pattern(append(paths("/p", 1000), "/w1/*", "/w2/*", "/w3/*")...)) })
		}
		elsewhere := time.Now()
		done.Wait()
		invs := w.sim.Invalidations()
		for i := range invs {
			items, wild := 0, 0
			for j := i; j < len(invs); j++ {
				s := invs[j].Created.Sub(invs[i].Created).Seconds()
				for _, it := range invs[j].Items {
					items++
					if strings.HasSuffix(it, "*") {
						wild++
					}
				}
				if float64(items) > 150+150*s || float64(wild) > 1+s {
					t.Fatalf("%d items, %d wildcards within %v s", items, wild, s)
				}
			}
		}
		if took := invs[len(invs)-1].Created.Sub(elsewhere); took < 12*time.Second || took > 16*time.Second {
			t.Errorf("2,006 items went out in %v", took)
		}
	})
}

// A dispatcher that takes over begins with nothing: who led may yet send.
func TestATakeoverBeginsWithNothing(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		wildcard := func(d *dispatch.Dispatcher, p string) time.Duration {
			start := time.Now()
			w.drive(d, pattern(p))
			invs := w.sim.Invalidations()
			return invs[len(invs)-1].Created.Sub(start)
		}
		if d := wildcard(w.dispatcher(), "/a/*"); d > 50*time.Millisecond {
			t.Errorf("the first was sent after %v", d)
		}
		time.Sleep(10 * time.Second)
		if d := wildcard(w.dispatcher(), "/b/*"); d > 50*time.Millisecond {
			t.Errorf("one after another that let go of the lease was sent after %v", d)
		}
		time.Sleep(10 * time.Second)
		j := journal.Open(w.st, dist)
		if l, _, err := j.Acquire(t.Context(), "somebody who died", time.Now(), time.Second); err != nil || l == nil {
			t.Fatal(l, err)
		}
		time.Sleep(2 * time.Second)
		if d := wildcard(w.dispatcher(), "/c/*"); d < time.Second || d > 1100*time.Millisecond {
			t.Errorf("one that took over was sent after %v", d)
		}
		time.Sleep(10 * time.Second)
		if l, _, err := j.Acquire(t.Context(), "somebody else who died", time.Now(), time.Second); err != nil || l == nil {
			t.Fatal(l, err)
		}
		time.Sleep(2 * time.Second)
		st := &forgetful{Store: w.st}
		st.at.Store(2) // the opening, the lease
		if d := wildcard(dispatch.New(st, dist, w.cdn, nil), "/d/*"); d < 2*time.Second {
			t.Errorf("one that took over without knowing it was sent after %v", d)
		}
	})
}

// sleepy is a store in which whoever uses it sleeps before one of its writes, for
// longer than its lease lasts.
type sleepy struct {
	store.Store
	left  atomic.Int64
	sleep time.Duration
}

func (s *sleepy) Commit(ctx context.Context, d string, t store.Transaction) (uint64, error) {
	if s.left.Add(-1) == 0 {
		time.Sleep(s.sleep)
	}
	return s.Store.Commit(ctx, d, t)
}

// A leader sleeps over a takeover, at any step, in the store or in a call, and wakes
// when another has gone on, or is done: everything is sent and billed once.
func TestALeaderThatSleepsAtAnyStep(t *testing.T) {
	for _, inCall := range []bool{false, true} {
		for n := int64(1); n <= 26; n++ {
			slept := false
			inWorld(t, simulator.Options{Seed: uint64(n)}, func(t *testing.T, w *world) {
				w.record(paths("/a", 12)...)
				st := &sleepy{Store: w.st, sleep: time.Duration(21+n%4*10) * time.Second}
				if inCall {
					var calls atomic.Int64
					w.goWrong(func(string, []string) *simulator.Fault {
						if calls.Add(1) == n {
							slept = true
							return &simulator.Fault{Delay: st.sleep, Work: true}
						}
						return nil
					})
				} else {
					st.left.Store(n)
				}
				r := dispatch.Request{Selector: selector.Selector{Prefixes: []string{"/a/"}}, Exact: true, Batch: 3}
				first := dispatch.New(st, dist, w.cdn, nil)
				inv, err := first.Open(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				var done sync.WaitGroup
				for _, d := range []*dispatch.Dispatcher{first, w.dispatcher()} {
					done.Go(func() {
						rep, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
						if err != nil || rep.State != journal.Completed || rep.Items != 12 {
							t.Errorf("asleep at step %d: %+v, %v", n, rep, err)
						}
					})
					synctest.Wait()
				}
				done.Wait()
				slept = slept || st.left.Load() <= 0
				all := slices.Concat(w.sent()...)
				if slices.Sort(all); !slices.Equal(all, paths("/a", 12)) || len(w.paths()) != 0 {
					t.Errorf("asleep at step %d: sent %v, left %v", n, all, w.paths())
				}
			})
			if !slept {
				if n < 6 {
					t.Errorf("only %d steps", n)
				}
				break
			}
		}
	}
}

// It is cancelled before each step in turn: what had been accepted is named, the
// rest is not sent, and nothing stays unsettled.
func TestCancelAtAnyStep(t *testing.T) {
	for n := int64(1); n < 60; n++ {
		over := false
		inWorld(t, simulator.Options{Completion: 2 * time.Second}, func(t *testing.T, w *world) {
			w.record(paths("/a", 9)...)
			d := w.dispatcher()
			r := dispatch.Request{Selector: selector.Selector{Prefixes: []string{"/a/"}}, Exact: true, Batch: 3, RepeatAfter: time.Minute}
			inv, err := d.Open(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			st := &cancelling{Store: w.st}
			st.left.Store(n)
			st.cancel = func() {
				if _, err := d.Journal().RequestCancel(t.Context(), inv.ID); err != nil {
					t.Error(err)
				}
			}
			rep, err := dispatch.New(st, dist, w.cdn, nil).Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
			if err != nil {
				t.Fatal(err)
			}
			over = st.left.Load() > 0
			if over {
				return
			}
			items := 0
			for _, b := range rep.Batches {
				if b.State == journal.Saved || (b.State != journal.BatchRefused) != (b.InvalidationID != "") {
					t.Errorf("cancelled at step %d: %+v", n, b)
				}
				if b.InvalidationID != "" {
					items += b.Items
				}
			}
			if rep.State != journal.Cancelled && rep.State != journal.Completed || rep.Items != items || w.sim.Billed() != items {
				t.Errorf("cancelled at step %d: %s, %d items in batches, %d said, %d billed", n, rep.State, items, rep.Items, w.sim.Billed())
			}
			if rep.State == journal.Completed && items != 18 {
				t.Errorf("cancelled at step %d, and it is completed with %d items", n, items)
			}
		})
		if over {
			if n < 12 {
				t.Errorf("only %d steps", n)
			}
			return
		}
	}
	t.Error("it never ends")
}

// cancelling is a store in which somebody asks to stop before one of the writes.
type cancelling struct {
	store.Store
	left   atomic.Int64
	cancel func()
}

func (s *cancelling) Commit(ctx context.Context, d string, t store.Transaction) (uint64, error) {
	if s.left.Add(-1) == 0 {
		s.cancel()
	}
	return s.Store.Commit(ctx, d, t)
}

// What was saved and only ever refused is not sent once it is cancelled.
func TestCancelRecallsWhatWasOnlyRefused(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.goWrong(func(op string, _ []string) *simulator.Fault {
			if op != simulator.CreateInvalidation {
				return nil
			}
			return simulator.TooManyInvalidationsInProgress()
		})
		d := w.dispatcher()
		inv, err := d.Open(t.Context(), pattern("/a"))
		if err != nil {
			t.Fatal(err)
		}
		c, stop := context.WithTimeout(t.Context(), 10*time.Second)
		defer stop()
		if _, err := d.Drive(c, inv.ID, dispatch.UntilDone, nil); !errors.Is(err, dispatch.ErrUndone) {
			t.Fatal(err)
		}
		calls := w.sim.Calls()[simulator.CreateInvalidation]
		if _, err := d.Journal().RequestCancel(t.Context(), inv.ID); err != nil {
			t.Fatal(err)
		}
		rep, err := w.dispatcher().Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
		if err != nil || rep.State != journal.Cancelled || rep.Items != 0 || w.sim.Calls()[simulator.CreateInvalidation] != calls {
			t.Errorf("%+v, %v", rep, err)
		}
	})
}

// What was not answered may have been accepted: it is settled, and named, by
// whoever tried it too.
func TestCancelSettlesWhatItTriedItself(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		d := w.dispatcher()
		inv, err := d.Open(t.Context(), pattern("/a"))
		if err != nil {
			t.Fatal(err)
		}
		w.goWrong(func(op string, _ []string) *simulator.Fault {
			if op == simulator.CreateInvalidation {
				return simulator.LostAnswer()
			}
			return nil
		})
		time.AfterFunc(5*time.Second, func() {
			if _, err := d.Journal().RequestCancel(t.Context(), inv.ID); err != nil {
				t.Error(err)
			}
			w.goWrong(nil)
		})
		rep, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
		if err != nil || rep.State != journal.Cancelled || rep.Items != 1 || rep.Batches[0].InvalidationID == "" || w.sim.Billed() != 1 {
			t.Errorf("%+v, %v", rep, err)
		}
	})
}

// An invalidation that cannot be read fails, and no other waits for it.
func TestAnUnreadableInvalidationFailsAlone(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		d := w.dispatcher()
		bad, err := d.Open(t.Context(), pattern("/a"))
		if err != nil {
			t.Fatal(err)
		}
		docs, err := w.st.List(t.Context(), dist, "inv/", "", 0)
		if err != nil {
			t.Fatal(err)
		}
		value := strings.Replace(string(docs[0].Value), `"patterns":["/a"]`, `"patterns":7`, 1)
		if _, err := w.st.Commit(t.Context(), dist, store.Transaction{Put: []store.Put{{Key: docs[0].Key, Value: []byte(value)}}}); err != nil {
			t.Fatal(err)
		}
		if rep := w.drive(d, pattern("/b")); rep.State != journal.Completed {
			t.Errorf("%+v", rep)
		}
		rep, err := d.Status(t.Context(), bad.ID)
		if err != nil || rep.State != journal.Failed || rep.Code != journal.CodeUnreadable || !strings.Contains(rep.Error, "damaged or of a newer version") {
			t.Errorf("%+v, %v", rep, err)
		}
	})
}

// counting counts reads of batches.
type counting struct {
	store.Store
	batches atomic.Int64
}

func (s *counting) List(ctx context.Context, d, prefix, after string, limit int) ([]store.Document, error) {
	if strings.HasPrefix(prefix, "bat/") {
		s.batches.Add(1)
	}
	return s.Store.List(ctx, d, prefix, after, limit)
}

// Looks do not read again what did not change, however many are open.
func TestLooksAreCheap(t *testing.T) {
	inWorld(t, simulator.Options{Completion: 5 * time.Minute}, func(t *testing.T, w *world) {
		st := &counting{Store: w.st}
		d := dispatch.New(st, dist, w.cdn, nil)
		const n = 40
		var last *journal.Invalidation
		for i := range n {
			var err error
			if last, err = d.Open(t.Context(), pattern(fmt.Sprintf("/%d", i))); err != nil {
				t.Fatal(err)
			}
		}
		rep, err := d.Drive(t.Context(), last.ID, dispatch.UntilDone, nil)
		if err != nil || rep.State != journal.Completed {
			t.Fatalf("%+v, %v", rep, err)
		}
		if reads := st.batches.Load(); reads > 3*n {
			t.Errorf("batches were read %d times for %d invalidations", reads, n)
		}
		calls := w.sim.Calls()
		if looks := calls[simulator.GetInvalidation] + calls[simulator.ListInvalidations]; looks > 200 {
			t.Errorf("%d looks in five minutes: %v", looks, calls)
		}
	})
}

// One that is held up does not read those that came and went since, at each look.
func TestLooksDoNotReadWhatIsOver(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		var acks atomic.Uint64
		w.session("slow", &acks)
		held := w.dispatcher()
		first, err := held.Open(t.Context(), pattern("/held"))
		if err != nil {
			t.Fatal(err)
		}
		const n = 20
		for i := range n {
			d := w.dispatcher()
			inv, err := d.Open(t.Context(), pattern(fmt.Sprintf("/%d", i)))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := d.Journal().RequestCancel(t.Context(), inv.ID); err != nil {
				t.Fatal(err)
			}
			if rep, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil); err != nil || rep.State != journal.Cancelled {
				t.Fatalf("%+v, %v", rep, err)
			}
		}
		st := &counting{Store: w.st}
		time.AfterFunc(2*time.Minute, func() { acks.Store(n + 1) })
		rep, err := dispatch.New(st, dist, w.cdn, nil).Drive(t.Context(), first.ID, dispatch.UntilDone, nil)
		if err != nil || rep.State != journal.Completed {
			t.Fatalf("%+v, %v", rep, err)
		}
		if reads := st.batches.Load(); reads > 3*n {
			t.Errorf("batches were read %d times in two minutes, of %d invalidations", reads, n)
		}
	})
}

// The plan's time is the time it takes.
func TestThePlanKnowsHowLongItTakes(t *testing.T) {
	for name, tc := range map[string]struct {
		l             plan.Limits
		others, wilds int
	}{
		"a second's worth": {plan.Limits{}, 150, 1},
		"rate":             {plan.Limits{ItemsInProgress: -1}, 6000, 0},
		"window":           {plan.Limits{}, 7000, 0},
		"wildcards":        {plan.Limits{}, 100, 40},
		"wildcards alone":  {plan.Limits{WildcardsInProgress: -1}, 0, 60},
		"large requests":   {plan.Limits{Burst: 6, ItemsInProgress: -1}, 5000, 0},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, simulator.Options{Propagation: -1, Completion: 25 * time.Second}, func(t *testing.T, w *world) {
				d := dispatch.New(w.st, dist, w.cdn, &dispatch.Options{Limits: tc.l})
				named := paths("/p", tc.others)
				for i := range tc.wilds {
					named = append(named, fmt.Sprintf("/w%02d/*", i))
				}
				r := pattern(named...)
				r.Now = true
				p, err := d.Plan(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				rep := w.drive(d, r)
				took := time.Since(start).Seconds()
				if rep.State != journal.Completed || took < p.Totals.Seconds*0.9 || took > p.Totals.Seconds*1.1 {
					t.Errorf("%s in %v s; the plan said %v", rep.State, took, p.Totals.Seconds)
				}
			})
		})
	}
}

// Items in doubt are not taken for sent because another batch named them.
func TestWhatIsInDoubtIsNotSaved(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		doubtful := "/it%27s"
		if !cfpath.InDoubt(doubtful) {
			t.Fatal("no longer in doubt")
		}
		w.record(doubtful)
		for range 2 {
			if rep := w.drive(w.dispatcher(), dispatch.Request{Selector: selector.Selector{Prefixes: []string{"/it"}}}); rep.Saved.Entries != 0 {
				t.Errorf("%+v", rep)
			}
		}
		if w.sim.Billed() != 2 {
			t.Errorf("billed %d", w.sim.Billed())
		}
	})
}

// A batch that was let go of is in somebody's hands again once it is taken up: who
// comes next cannot know what became of it, and does not drop it.
func TestWhatIsTakenUpAgainIsNotIdle(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		inv, err := w.dispatcher().Open(t.Context(), pattern("/a"))
		if err != nil {
			t.Fatal(err)
		}
		w.goWrong(func(op string, _ []string) *simulator.Fault {
			if op == simulator.CreateInvalidation {
				return simulator.TooManyInvalidationsInProgress()
			}
			return nil
		})
		ctx, stop := context.WithTimeout(t.Context(), 5*time.Second)
		defer stop()
		if _, err := w.dispatcher().Drive(ctx, inv.ID, dispatch.UntilDone, nil); !errors.Is(err, dispatch.ErrUndone) {
			t.Fatal(err)
		}
		batches, err := w.dispatcher().Journal().Batches(t.Context(), inv.Number)
		if err != nil || len(batches) != 1 || !batches[0].Idle {
			t.Fatalf("%+v, %v", batches, err)
		}
		// The next one is killed when CloudFront has taken it.
		st := &dying{Store: w.st}
		st.left.Store(1 << 30)
		w.goWrong(func(op string, _ []string) *simulator.Fault {
			if op != simulator.CreateInvalidation {
				return nil
			}
			st.left.Store(0)
			return simulator.LostAnswer()
		})
		if _, err := dispatch.New(st, dist, w.cdn, nil).Drive(t.Context(), inv.ID, dispatch.UntilDone, nil); !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		w.goWrong(nil)
		if _, err := w.dispatcher().Journal().RequestCancel(t.Context(), inv.ID); err != nil {
			t.Fatal(err)
		}
		rep, err := w.dispatcher().Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
		if err != nil || rep.State != journal.Cancelled || rep.Items != 1 || rep.Batches[0].InvalidationID == "" {
			t.Errorf("%+v, %v", rep, err)
		}
	})
}

// A call that took long may have reached CloudFront only at its end: the tokens that
// came in since it was sent are not there.
func TestAnswersThatComeLate(t *testing.T) {
	limits := simulator.StrictQuotas()
	limits.CallRate, limits.CallBurst = 0, 0
	inWorld(t, simulator.Options{Limits: limits}, func(t *testing.T, w *world) {
		calls := 0
		w.goWrong(func(op string, _ []string) *simulator.Fault {
			if op != simulator.CreateInvalidation {
				return nil
			}
			if calls++; calls%2 == 0 {
				return nil
			}
			return &simulator.Fault{Delay: 4 * time.Second}
		})
		rep := w.drive(w.dispatcher(), pattern(append(paths("/p", 600), "/w1/*", "/w2/*", "/w3/*")...))
		if refused := w.sim.Refusals(); rep.State != journal.Completed || len(refused) > 0 {
			t.Errorf("%s, refused: %+v", rep.State, refused)
		}
	})
}

// A window that was narrowed to what somebody else always has in progress does not
// stop what is left for ever.
func TestOthersWhoAlwaysHoldAllRoom(t *testing.T) {
	foreign := simulator.Foreign{Rate: 1, Wildcards: 1, Paths: 1}
	inWorld(t, simulator.Options{Foreign: foreign, Completion: 40 * time.Second}, func(t *testing.T, w *world) {
		j := journal.Open(w.st, dist)
		l, _, err := j.Acquire(t.Context(), "somebody", time.Now(), time.Minute)
		if err != nil || l == nil {
			t.Fatal(l, err)
		}
		narrow := journal.Learned{Share: 0.01, Since: time.Now(), Hold: time.Hour}
		if err := l.PutWindows(t.Context(), &journal.Windows{Items: narrow, Wildcards: narrow}); err != nil {
			t.Fatal(err)
		}
		if err := l.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Minute)
		defer stop()
		rep, err := w.dispatcher().Invalidate(ctx, pattern("/a/*", "/b/*", "/c/*"))
		if err != nil || rep.State != journal.Completed {
			t.Errorf("%+v, %v", rep, err)
		}
	})
}
