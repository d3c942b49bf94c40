// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/plan"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

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
