// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/awscloudfront"
	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
	"github.com/cf-invalidation-tracker/cftrack/plan"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
)

func TestInvalidateSendsForgetsAndCompletes(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/a", "/b", "/blog/1", "/blog/2", "/blog/2?x=1")
		r := pattern("/blog/*")
		r.Reason = "release 7"
		start := time.Now()
		rep := w.invalidate(r)
		if rep.State != journal.Completed || rep.Items != 1 || rep.Reason != "release 7" || rep.Price != 0 {
			t.Errorf("%+v", rep)
		}
		want(t, "sent", w.sent(), [][]string{{"/blog/*"}})
		want(t, "left", w.paths(), []string{"/a", "/b"})
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("took %v with nobody to wait for", d)
		}
		if b := rep.Batches[0]; b.State != journal.BatchDone || b.InvalidationID == "" ||
			b.CallerReference != w.sim.Invalidations()[0].CallerReference {
			t.Errorf("%+v", b)
		}
	})
}

func TestNothingSelectedSendsNothing(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/a")
		rep := w.invalidate(dispatch.Request{Selector: selector.Selector{Prefixes: []string{"/none"}}})
		if rep.State != journal.Completed || rep.Items != 0 || len(rep.Batches) != 0 || len(w.sent()) != 0 {
			t.Errorf("%+v, sent %v", rep, w.sent())
		}
		want(t, "left", w.paths(), []string{"/a"})
	})
}

func TestVerbatimInBatchesOfAThousand(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		var paths []string
		for i := range 2500 {
			paths = append(paths, fmt.Sprintf("/p/%04d", i))
		}
		w.record(paths...)
		rep, err := w.inRequestsOf(1000).Invalidate(t.Context(), dispatch.Request{Selector: selector.Selector{All: true}, Exact: true})
		if err != nil {
			t.Fatal(err)
		}
		var sizes []int
		var all []string
		for _, s := range w.sent() {
			sizes, all = append(sizes, len(s)), append(all, s...)
		}
		want(t, "batches", fmt.Sprint(sizes), "[1000 1000 500]")
		if slices.Sort(all); !slices.Equal(all, paths) {
			t.Error("what was sent is not what was tracked, verbatim")
		}
		if rep.State != journal.Completed || rep.Items != 2500 || rep.Price != 7.5 || len(w.paths()) != 0 {
			t.Errorf("%s, %d items, $%v, %d left", rep.State, rep.Items, rep.Price, len(w.paths()))
		}
	})
}

func TestABatchOfAnExactMultipleSendsNoEmptyOne(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/1", "/2", "/3", "/4")
		w.invalidate(dispatch.Request{Selector: selector.Selector{All: true}, Exact: true, Batch: 2})
		want(t, "sent", w.sent(), [][]string{{"/1", "/2"}, {"/3", "/4"}})
	})
}

// What was recorded while a batch was on its way must stay.
func TestForgettingIsConditional(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/a", "/b")
		w.goWrong(func(op string, _ []string) *simulator.Fault {
			if op == simulator.CreateInvalidation {
				w.recordAt(time.Now(), "/b", "/c")
			}
			return nil
		})
		w.invalidate(dispatch.Request{Selector: selector.Selector{All: true}})
		want(t, "left", w.paths(), []string{"/b", "/c"})
	})
}

func TestPushBackIsWaitedOut(t *testing.T) {
	for name, fault := range map[string]func() *simulator.Fault{
		"throttling": simulator.Throttling, "too many in progress": simulator.TooManyInvalidationsInProgress,
		"internal error": simulator.ServiceUnavailable, "lost request": simulator.LostRequest,
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
				w.record("/a")
				var creates int
				w.goWrong(func(op string, _ []string) *simulator.Fault {
					if op == simulator.CreateInvalidation {
						creates++
					}
					if creates < 8 {
						return fault()
					}
					return nil
				})
				start := time.Now()
				rep := w.invalidate(pattern("/a"))
				if rep.State != journal.Completed || w.sim.Billed() != 1 || creates != 8 {
					t.Errorf("%s, billed %d, %d calls", rep.State, w.sim.Billed(), creates)
				}
				if d := time.Since(start); d < 20*time.Second || d > 3*time.Minute {
					t.Errorf("seven refusals were waited out in %v", d)
				}
			})
		})
	}
}

func TestABadItemIsIsolated(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/1", "/2", "/bad", "/4", "/5")
		w.goWrong(func(op string, items []string) *simulator.Fault {
			if slices.Contains(items, "/bad") {
				return &simulator.Fault{Status: 400, Code: "InvalidArgument",
					Message: "Your request contains one or more invalid invalidation paths."}
			}
			return nil
		})
		rep := w.invalidate(dispatch.Request{Selector: selector.Selector{All: true}, Exact: true})
		if rep.State != journal.Partial || len(rep.Uncovered) != 1 || rep.Uncovered[0].Item != "/bad" ||
			!strings.Contains(rep.Uncovered[0].Reason, "invalid invalidation paths") {
			t.Errorf("%s, uncovered %+v", rep.State, rep.Uncovered)
		}
		want(t, "left", w.paths(), []string{"/bad"})
		if w.sim.Billed() != 4 || rep.Items != 4 {
			t.Errorf("billed %d, reported %d", w.sim.Billed(), rep.Items)
		}
	})
}

func TestRefusalsAreExplained(t *testing.T) {
	for _, tc := range []struct {
		name, distribution string
		fault              *simulator.Fault
		code, says         string
	}{
		{"no permission", dist, simulator.AccessDenied(), "AccessDenied", `"cloudfront:CreateInvalidation","cloudfront:GetInvalidation"`},
		{"no such distribution", "EOTHER", nil, "NoSuchDistribution", "EOTHER is not a distribution of this account"},
		{"bad credentials", dist, &simulator.Fault{Status: 403, Code: "InvalidClientTokenId", Message: "The security token included in the request is invalid."},
			"InvalidClientTokenId", "check the credentials"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
				w.goWrong(func(string, []string) *simulator.Fault { return tc.fault })
				d := dispatch.New(w.st, tc.distribution, w.cdn, nil)
				rep, err := d.Invalidate(t.Context(), pattern("/a"))
				if err != nil {
					t.Fatal(err)
				}
				if rep.State != journal.Failed || rep.Code != tc.code || !strings.Contains(rep.Error, tc.says) {
					t.Errorf("%s, %s: %s", rep.State, rep.Code, rep.Error)
				}
				if tc.fault == nil {
					return
				}
				// The cause is mended: it goes on where it was.
				w.goWrong(nil)
				if _, err := d.Journal().Reopen(t.Context(), rep.ID); err != nil {
					t.Fatal(err)
				}
				again, err := d.Drive(t.Context(), rep.ID, dispatch.UntilDone, nil)
				if err != nil || again.State != journal.Completed || len(again.Batches) != 1 ||
					again.Batches[0].CallerReference != rep.Batches[0].CallerReference {
					t.Errorf("resumed: %+v, %v", again, err)
				}
			})
		})
	}
}

func TestMissingCredentials(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	c, err := awscloudfront.New(t.Context(), awscloudfront.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.CreateInvalidation(t.Context(), dist, "ref", []string{"/a"})
	var e *dispatch.Error
	if !errors.As(err, &e) || e.Kind != dispatch.BadCredentials || !strings.Contains(e.Hint, "AWS_PROFILE") {
		t.Fatalf("%v", err)
	}
}

func TestWithoutPermissionToLook(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/a")
		denied := true
		w.goWrong(func(op string, _ []string) *simulator.Fault {
			if denied && op == simulator.GetInvalidation {
				return simulator.AccessDenied()
			}
			return nil
		})
		d := w.dispatcher()
		rep, err := d.Invalidate(t.Context(), pattern("/a"))
		if !errors.Is(err, dispatch.ErrUndone) || !strings.Contains(rep.NotFollowed, "cloudfront:GetInvalidation") ||
			rep.Batches[0].State != journal.Accepted || len(w.sent()) != 1 {
			t.Fatalf("%+v, %v", rep, err)
		}
		denied = false
		if _, err := d.Journal().Reopen(t.Context(), rep.ID); err != nil {
			t.Fatal(err)
		}
		if rep, err = d.Drive(t.Context(), rep.ID, dispatch.UntilDone, nil); err != nil || rep.State != journal.Completed {
			t.Fatalf("%+v, %v", rep, err)
		}
	})
}

func TestPriceGuard(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/1", "/2", "/3")
		none := 0
		r := dispatch.Request{Selector: selector.Selector{All: true}, Exact: true, MaxPrice: new(0.01), FreePaths: &none}
		rep := w.invalidate(r)
		if rep.State != journal.Failed || rep.Code != "price-guard" || len(w.sent()) != 0 || len(w.paths()) != 3 {
			t.Errorf("%s %s, sent %v", rep.State, rep.Code, w.sent())
		}
		// What the guard stopped is over: it may not be sent by going on.
		if again, err := w.dispatcher().Journal().Reopen(t.Context(), rep.ID); err != nil || again.State != journal.Failed {
			t.Errorf("reopened as %s, %v", again.State, err)
		}
		r.MaxPrice = new(0.0)
		if rep = w.invalidate(r); rep.Code != "price-guard" || len(w.sent()) != 0 {
			t.Errorf("at most $0: %s %s, sent %v", rep.State, rep.Code, w.sent())
		}
		r.MaxPrice = new(0.015)
		if rep = w.invalidate(r); rep.State != journal.Completed || rep.Price != 0.015 {
			t.Errorf("at the limit: %s $%v", rep.State, rep.Price)
		}
	})
}

func TestFreePathsAreCountedOverTheMonth(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		paths := make([]string, 995)
		for i := range paths {
			paths[i] = fmt.Sprintf("/%d", i)
		}
		w.record(paths...)
		d := w.dispatcher()
		w.invalidate(dispatch.Request{Selector: selector.Selector{All: true}, Exact: true})
		p, err := d.Plan(t.Context(), pattern("/a", "/b"))
		if err != nil || p.FreePaths != 5 || p.Totals.Price != 0 {
			t.Fatalf("%d free, $%v, %v", p.FreePaths, p.Totals.Price, err)
		}
		time.Sleep(32 * 24 * time.Hour)
		if p, err = d.Plan(t.Context(), pattern("/a")); err != nil || p.FreePaths != 1000 {
			t.Fatalf("%d free next month, %v", p.FreePaths, err)
		}
	})
}

func TestOneProcessDrivesSeveralAtOnce(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		d := w.dispatcher()
		done := make(chan error)
		for i := range 4 {
			go func() {
				rep, err := d.Invalidate(t.Context(), pattern(fmt.Sprintf("/%d", i)))
				if err == nil && rep.State != journal.Completed {
					err = fmt.Errorf("%+v", rep)
				}
				done <- err
			}()
		}
		for range 4 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if w.sim.Billed() != 4 {
			t.Errorf("billed %d", w.sim.Billed())
		}
	})
}

func TestAPlanNamesItsGaps(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.session("dead", nil)
		w.record("/a")
		time.Sleep(time.Minute)
		for named, warned := range map[string]bool{"/a": true, "/a*": false} {
			p, err := w.dispatcher().Plan(t.Context(), pattern(named))
			if err != nil {
				t.Fatal(err)
			}
			has := slices.ContainsFunc(p.Warnings, func(x plan.Warning) bool {
				return x.Code == dispatch.WarnGap && strings.Contains(x.Message, "web dead")
			})
			if has != warned {
				t.Errorf("%s: %+v", named, p.Warnings)
			}
		}
	})
}

// Where only some parameters are in the cache key, AWS does not say how an
// item must be spelled: what was sent is not forgotten.
func TestAReducedQueryIsNotForgotten(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/a", "/a?x=1")
		rules := lifetime.DefaultRules()
		var err error
		if rules.Default.Query, err = cfpath.ParseQueryRule("include:x"); err != nil {
			t.Fatal(err)
		}
		d := dispatch.New(w.st, dist, w.cdn, &dispatch.Options{Rules: &rules})
		if rep, err := d.Invalidate(t.Context(), pattern("/a")); err != nil || rep.State != journal.Completed || rep.Items != 2 {
			t.Fatalf("%+v, %v", rep, err)
		}
		want(t, "left", w.paths(), []string{"/a?x=1"})
		if rep, err := d.Invalidate(t.Context(), pattern("/a*")); err != nil || rep.State != journal.Completed {
			t.Fatalf("%+v, %v", rep, err)
		}
		want(t, "left after a wildcard", w.paths(), []string(nil))
	})
}

func TestUnnameablePathsAreReported(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/main~1.js", "/other")
		rep := w.invalidate(dispatch.Request{Selector: selector.Selector{Regexps: []string{"main"}}})
		if rep.State != journal.Partial || rep.Items != 0 || len(rep.Uncovered) != 1 || rep.Uncovered[0].Remedy != "/main*" {
			t.Fatalf("%+v", rep)
		}
		want(t, "left", w.paths(), []string{"/main~1.js", "/other"})
		r := dispatch.Request{Selector: selector.Selector{Regexps: []string{"main"}}, AssumeComplete: true}
		if rep = w.invalidate(r); rep.State != journal.Completed || rep.Items != 1 {
			t.Fatalf("vouched for: %+v", rep)
		}
		want(t, "left", w.paths(), []string{"/other"})
	})
}

func TestWhatIsNamedButCannotBeSentIsNotPassedOver(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/a")
		rep := w.invalidate(pattern("/never~seen.js", "/a"))
		if rep.State != journal.Partial || rep.Items != 1 || len(rep.Uncovered) != 1 || rep.Uncovered[0].Remedy != "/never*" {
			t.Fatalf("%+v", rep)
		}
		if rep = w.invalidate(pattern("/never~seen.js", "/never*")); rep.State != journal.Completed {
			t.Fatalf("covered by another name: %+v", rep)
		}
		r := pattern("/never~seen.js")
		r.OnlySeen = true
		if rep = w.invalidate(r); rep.State != journal.Completed || rep.Items != 0 {
			t.Fatalf("only what was seen: %+v", rep)
		}
	})
}

// A wildcard that nobody typed is checked again right before it is saved.
func TestAWildcardIsCheckedOnceMore(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		var us []inventory.Update
		at := time.Now().Add(-time.Hour)
		for _, p := range []string{"/b/1", "/b/2", "/c/1", "/c/2", "/d"} {
			s := inventory.Sighting{Path: p, End: at, Expires: at.Add(9 * time.Hour), Tags: []string{"x"}}
			if p == "/d" {
				s.Tags = nil
			}
			us = append(us, inventory.Update{Path: p, Record: s.Record()})
		}
		if err := w.st.Merge(t.Context(), dist, us); err != nil {
			t.Fatal(err)
		}
		w.goWrong(func(op string, items []string) *simulator.Fault {
			if op == simulator.CreateInvalidation && len(w.sent()) == 0 {
				w.recordAt(time.Now(), "/c/untagged")
			}
			return nil
		})
		w.invalidate(dispatch.Request{Selector: selector.Selector{Tags: []string{"x"}}, AssumeComplete: true, Batch: 1})
		for _, s := range w.sent() {
			for _, item := range s {
				if item == "/c*" || item == "/c/*" {
					t.Errorf("sent %s, which hits /c/untagged", item)
				}
			}
		}
		if got := w.paths(); !slices.Equal(got, []string{"/c/untagged", "/d"}) {
			t.Errorf("left %v", got)
		}
	})
}

// Where the wildcard may not go out any more and nothing else can name what it was
// for, the end says so.
func TestAWildcardThatWasTheOnlyWay(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.recordAt(time.Now().Add(-time.Hour), "/b/1", "/b/2", "/c/it~1", "/c/it~2", "/d")
		w.goWrong(func(op string, items []string) *simulator.Fault {
			if op == simulator.CreateInvalidation && len(w.sent()) == 0 {
				w.recordAt(time.Now(), "/c/it")
			}
			return nil
		})
		rep := w.invalidate(dispatch.Request{Selector: selector.Selector{Regexps: []string{"/b/", "~"}}, AssumeComplete: true, Batch: 1})
		if rep.State != journal.Partial || len(rep.Uncovered) != 2 || rep.Uncovered[0].Item != "/c/it~1" {
			t.Fatalf("%+v", rep)
		}
		want(t, "left", w.paths(), []string{"/c/it", "/c/it~1", "/c/it~2", "/d"})
	})
}

func TestTenantsHaveTheirOwnOperations(t *testing.T) {
	inWorld(t, simulator.Options{Tenants: []string{"dt_1"}}, func(t *testing.T, w *world) {
		rep, err := dispatch.New(w.st, "dt_1", w.cdn, nil).Invalidate(t.Context(), pattern("/a"))
		if err != nil || rep.State != journal.Completed {
			t.Fatalf("%+v, %v", rep, err)
		}
		if inv := w.sim.Invalidations()[0]; !inv.Tenant || inv.Target != "dt_1" {
			t.Fatalf("%+v", inv)
		}
	})
}

// Whoever counts at the other end by the same rates never has to refuse.
func TestTheRatesAreKept(t *testing.T) {
	limits := simulator.Limits{PathRate: 150, WildcardRate: 1}
	inWorld(t, simulator.Options{Limits: limits}, func(t *testing.T, w *world) {
		var paths []string
		for i := range 4000 {
			paths = append(paths, fmt.Sprintf("/p/%04d", i))
		}
		w.record(paths...)
		w.invalidate(dispatch.Request{Selector: selector.Selector{All: true}, Exact: true})
		if calls := w.sim.Calls()[simulator.CreateInvalidation]; calls != 27 {
			t.Errorf("%d calls for 27 batches of at most 150", calls)
		}
	})
}

// A crowd of others slows it down; afterwards it is fast again.
func TestPushBackShrinksOnlyForAWhile(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		var paths []string
		for i := range 4000 {
			paths = append(paths, fmt.Sprintf("/p/%04d", i))
		}
		w.record(paths...)
		busy := time.Now().Add(20 * time.Second)
		w.goWrong(func(op string, _ []string) *simulator.Fault {
			if op == simulator.CreateInvalidation && time.Now().Before(busy) {
				return simulator.TooManyInvalidationsInProgress()
			}
			return nil
		})
		start := time.Now()
		w.invalidate(dispatch.Request{Selector: selector.Selector{All: true}, Exact: true})
		sent := w.sent()
		if first, last := len(sent[0]), len(sent[len(sent)-2]); first > 75 || last != 150 {
			t.Errorf("%d batches, the first of %d items, the last but one of %d", len(sent), first, last)
		}
		if took := time.Since(start); took > 3*time.Minute {
			t.Errorf("took %v, of which it was held up for 20 s", took)
		}
	})
}

func TestWildcardsStayWithinWhatMayBeInProgress(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		var ps []string
		for i := range 30 {
			ps = append(ps, fmt.Sprintf("/d%02d/*", i), fmt.Sprintf("/d%02d", i))
		}
		start := time.Now()
		w.invalidate(pattern(ps...))
		total := 0
		for _, items := range w.sent() {
			wild := 0
			for _, it := range items {
				if strings.HasSuffix(it, "*") {
					wild++
				}
			}
			if total += wild; wild > 1 {
				t.Errorf("a batch with %d wildcards", wild)
			}
		}
		if total != 30 {
			t.Errorf("%d wildcards in all", total)
		}
		if last := w.sim.Invalidations()[len(w.sent())-1].Created.Sub(start); last < 26*time.Second {
			t.Errorf("30 wildcards left within %v, at one a second", last)
		}
	})
}
