// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/cf-invalidation-tracker/cftrack/awscloudfront"
	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
	"github.com/cf-invalidation-tracker/cftrack/plan"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const dist = simulator.DefaultDistribution

// A world is a store, a simulated CloudFront and AWS's own client between them,
// in a bubble of virtual time.
type world struct {
	t   *testing.T
	st  *memstore.Store
	sim *simulator.Simulator
	cdn *awscloudfront.Client
	// fault, if set, decides what goes wrong with a call.
	fault atomic.Pointer[fault]
}

type fault func(op string, items []string) *simulator.Fault

// goWrong sets what goes wrong from now on; nil: nothing.
func (w *world) goWrong(f fault) {
	if f == nil {
		w.fault.Store(nil)
		return
	}
	w.fault.Store(&f)
}

func inWorld(t *testing.T, opts simulator.Options, f func(*testing.T, *world)) {
	t.Helper()
	for _, name := range []string{"AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_CLOUDFRONT", "AWS_CA_BUNDLE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, st: memstore.New()}
		opts.Intercept = func(op string, r *http.Request) *simulator.Fault {
			f := w.fault.Load()
			if f == nil {
				return nil
			}
			var batch struct {
				Items []string `xml:"Paths>Items>Path"`
			}
			if r.Body != nil {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				_ = xml.Unmarshal(body, &batch) // GET calls have none
				r.Body = io.NopCloser(bytes.NewReader(body))
			}
			return (*f)(op, batch.Items)
		}
		var err error
		if w.sim, err = simulator.New(nil, &opts); err != nil {
			t.Fatal(err)
		}
		w.cdn, err = awscloudfront.New(t.Context(), awscloudfront.Options{
			AccessKey: "AKIDEXAMPLE", SecretKey: "secret", Endpoint: "http://api.simulator",
			HTTPClient: &http.Client{Transport: w.sim.Transport()},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer w.sim.Close()
		defer w.st.Close()
		f(t, w)
	})
}

func (w *world) dispatcher() *dispatch.Dispatcher { return dispatch.New(w.st, dist, w.cdn, nil) }

// inRequestsOf lets a request hold as many items as the API has long taken, for
// what is not about rates.
func (w *world) inRequestsOf(n float64) *dispatch.Dispatcher {
	return dispatch.New(w.st, dist, w.cdn, &dispatch.Options{Limits: plan.Limits{Burst: n / 150}})
}

// record puts sightings into the inventory that ended an hour ago.
func (w *world) record(paths ...string) {
	w.t.Helper()
	w.recordAt(time.Now().Add(-time.Hour), paths...)
}

func (w *world) recordAt(end time.Time, paths ...string) {
	w.t.Helper()
	if err := w.merge(w.t.Context(), end, paths...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) merge(ctx context.Context, end time.Time, paths ...string) error {
	var us []inventory.Update
	for _, p := range paths {
		s := inventory.Sighting{Path: p, Start: end, End: end, Expires: end.Add(48 * time.Hour)}
		us = append(us, inventory.Update{Path: p, Record: s.Record()})
	}
	return w.st.Merge(ctx, dist, us)
}

func (w *world) paths() []string {
	w.t.Helper()
	var out []string
	for e, err := range w.st.Scan(w.t.Context(), dist, store.Range{Now: time.Now()}) {
		if err != nil {
			w.t.Fatal(err)
		}
		out = append(out, e.Path)
	}
	return out
}

// sent returns the items that CloudFront accepted, a list for each batch.
func (w *world) sent() [][]string {
	var out [][]string
	for _, inv := range w.sim.Invalidations() {
		out = append(out, inv.Items)
	}
	return out
}

func pattern(p ...string) dispatch.Request {
	return dispatch.Request{Selector: selector.Selector{Patterns: p}}
}

func (w *world) invalidate(r dispatch.Request) *dispatch.Report {
	w.t.Helper()
	rep, err := w.dispatcher().Invalidate(w.t.Context(), r)
	if err != nil {
		w.t.Fatal(err)
	}
	return rep
}

func want[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if g, w := fmt.Sprintf("%q", any(got)), fmt.Sprintf("%q", any(want)); g != w {
		t.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
}

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

func TestLostAnswersAreBilledOnce(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/a", "/b")
		calls := 0
		w.goWrong(func(op string, _ []string) *simulator.Fault {
			if op != simulator.CreateInvalidation {
				return nil
			}
			if calls++; calls <= 3 {
				return simulator.LostAnswer()
			}
			return nil
		})
		rep := w.invalidate(dispatch.Request{Selector: selector.Selector{All: true}})
		if rep.State != journal.Completed || w.sim.Billed() != 2 || calls != 4 {
			t.Errorf("%s, billed %d items in %d calls", rep.State, w.sim.Billed(), calls)
		}
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

func TestGivingUpLosesNothing(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/a")
		w.goWrong(func(string, []string) *simulator.Fault { return simulator.ServiceUnavailable() })
		rep, err := w.dispatcher().Invalidate(t.Context(), pattern("/a"))
		if !errors.Is(err, dispatch.ErrUndone) || rep == nil || rep.State != journal.Sending {
			t.Fatalf("%+v, %v", rep, err)
		}
		want(t, "left", w.paths(), []string{"/a"})
		w.goWrong(nil)
		rep, err = w.dispatcher().Drive(t.Context(), rep.ID, dispatch.UntilDone, nil)
		if err != nil || rep.State != journal.Completed || len(rep.Batches) != 1 {
			t.Fatalf("resumed: %+v, %v", rep, err)
		}
	})
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

// dying is a store that fails for good after a number of writes, as a process
// does that is killed between two of them.
type dying struct {
	store.Store
	left atomic.Int64
}

var errKilled = errors.New("killed")

func (s *dying) Commit(ctx context.Context, d string, t store.Transaction) (uint64, error) {
	if s.left.Add(-1) < 0 {
		return 0, errKilled
	}
	return s.Store.Commit(ctx, d, t)
}

func (s *dying) Clear(ctx context.Context, d string, c []store.Condition) (int, error) {
	if s.left.Add(-1) < 0 {
		return 0, errKilled
	}
	return s.Store.Clear(ctx, d, c)
}

// killed drives an invalidation with a dispatcher that dies before its write n, and
// then with another; whole says that the first got to the end.
func (w *world) killed(id string, n int64) (rep *dispatch.Report, whole bool) {
	w.t.Helper()
	st := &dying{Store: w.st}
	st.left.Store(n)
	rep, err := dispatch.New(st, dist, w.cdn, nil).Drive(w.t.Context(), id, dispatch.UntilDone, nil)
	if err == nil {
		return rep, true
	}
	if !errors.Is(err, errKilled) {
		w.t.Fatal(err)
	}
	if rep, err = w.dispatcher().Drive(w.t.Context(), id, dispatch.UntilDone, nil); err != nil {
		w.t.Fatal(err)
	}
	return rep, false
}

// A dispatcher is killed before each of its writes in turn; another goes on.
func TestKilledBetweenAnyTwoWrites(t *testing.T) {
	for n := int64(1); ; n++ {
		finished := false
		inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
			w.record("/a", "/b", "/c", "/d", "/e")
			r := dispatch.Request{Selector: selector.Selector{Patterns: []string{"/[abcd]", "/a", "/b", "/c", "/d"}}, Batch: 2}
			inv, err := w.dispatcher().Open(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			rep, whole := w.killed(inv.ID, n)
			finished = whole
			if rep.State != journal.Completed {
				t.Errorf("killed at write %d: %s", n, rep.State)
			}
			var all []string
			for _, s := range w.sent() {
				all = append(all, s...)
			}
			slices.Sort(all)
			want(t, fmt.Sprintf("killed at write %d: billed", n), all, []string{"/%5Babcd%5D", "/a", "/b", "/c", "/d"})
			want(t, "left", w.paths(), []string{"/e"})
		})
		if finished {
			if n < 8 {
				t.Errorf("only %d writes", n)
			}
			return
		}
	}
}

// forgetful is a store that carries a write out and says that it is unavailable.
type forgetful struct {
	store.Store
	at atomic.Int64
}

func (s *forgetful) Commit(ctx context.Context, d string, t store.Transaction) (uint64, error) {
	v, err := s.Store.Commit(ctx, d, t)
	if s.at.Add(-1) == 0 && err == nil {
		return 0, store.ErrUnavailable
	}
	return v, err
}

// The answer to each write in turn is lost: what was written counts all the same.
func TestWritesWhoseAnswerIsLost(t *testing.T) {
	for n, whole := int64(1), false; !whole; n++ {
		inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
			w.record("/a", "/b", "/c", "/d", "/e")
			r := pattern("/a", "/b", "/c", "/d")
			r.Batch = 2
			inv, err := w.dispatcher().Open(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			st := &forgetful{Store: w.st}
			st.at.Store(n)
			rep, err := dispatch.New(st, dist, w.cdn, nil).Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
			if err != nil || rep.State != journal.Completed {
				t.Fatalf("write %d: %+v, %v", n, rep, err)
			}
			var all []string
			for _, s := range w.sent() {
				all = append(all, s...)
			}
			slices.Sort(all)
			want(t, fmt.Sprintf("write %d: billed", n), all, []string{"/a", "/b", "/c", "/d"})
			if len(rep.Batches) != len(w.sent()) {
				t.Errorf("write %d: %d batches for %d calls", n, len(rep.Batches), len(w.sent()))
			}
			if whole = st.at.Load() > 0; whole && n < 20 {
				t.Errorf("only %d writes", n)
			}
		})
	}
}

func TestOldBatchesAreLookedForBeforeTheyAreSentAgain(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/a")
		w.goWrong(func(op string, _ []string) *simulator.Fault {
			if op == simulator.CreateInvalidation {
				return simulator.LostAnswer()
			}
			return simulator.ServiceUnavailable()
		})
		rep, err := w.dispatcher().Invalidate(t.Context(), pattern("/a"))
		if !errors.Is(err, dispatch.ErrUndone) {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		calls := w.sim.Calls()[simulator.CreateInvalidation]
		w.goWrong(nil)
		if rep, err = w.dispatcher().Drive(t.Context(), rep.ID, dispatch.UntilDone, nil); err != nil || rep.State != journal.Completed {
			t.Fatalf("%+v, %v", rep, err)
		}
		if w.sim.Calls()[simulator.CreateInvalidation] != calls || w.sim.Billed() != 1 {
			t.Errorf("sent again after hours without looking: billed %d", w.sim.Billed())
		}
	})
}

func TestAnotherDispatcherTakesOver(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/a")
		w.goWrong(func(string, []string) *simulator.Fault { return simulator.ServiceUnavailable() })
		first, stop := context.WithCancel(t.Context())
		inv, err := w.dispatcher().Open(t.Context(), pattern("/a"))
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() {
			_, err := w.dispatcher().Drive(first, inv.ID, dispatch.UntilDone, nil)
			done <- err
		}()
		time.Sleep(5 * time.Second)
		go func() {
			rep, err := w.dispatcher().Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
			if err == nil && rep.State != journal.Completed {
				err = fmt.Errorf("%+v", rep)
			}
			done <- err
		}()
		time.Sleep(5 * time.Second)
		w.goWrong(nil)
		stop()
		if err := <-done; !errors.Is(err, dispatch.ErrUndone) || !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if w.sim.Billed() != 1 {
			t.Errorf("billed %d", w.sim.Billed())
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

func TestCancelSettlesWhatIsUnanswered(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/1", "/2", "/3", "/4")
		w.goWrong(func(op string, items []string) *simulator.Fault {
			if op == simulator.CreateInvalidation {
				return simulator.LostAnswer()
			}
			return nil
		})
		d := w.dispatcher()
		r := dispatch.Request{Selector: selector.Selector{All: true}, Exact: true, Batch: 2}
		inv, err := d.Open(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		c, stop := context.WithTimeout(t.Context(), 3*time.Second)
		defer stop()
		if _, err := d.Drive(c, inv.ID, dispatch.UntilDone, nil); !errors.Is(err, dispatch.ErrUndone) {
			t.Fatal(err)
		}
		w.goWrong(nil)
		if _, err := d.Journal().RequestCancel(t.Context(), inv.ID); err != nil {
			t.Fatal(err)
		}
		rep, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
		if err != nil || rep.State != journal.Cancelled || len(rep.Batches) != 1 || rep.Batches[0].InvalidationID == "" {
			t.Fatalf("%+v, %v", rep, err)
		}
		want(t, "sent", w.sent(), [][]string{{"/1", "/2"}})
		want(t, "left", w.paths(), []string{"/3", "/4"})
	})
}

// session opens a recorder's session and keeps it renewed until the test ends.
func (w *world) session(id string, acks *atomic.Uint64) *journal.Session {
	w.t.Helper()
	j := journal.Open(w.st, dist)
	s := &journal.Session{ID: id, Recorder: "web " + id, Lease: 10 * time.Second}
	if err := j.OpenSession(w.t.Context(), s, time.Now()); err != nil {
		w.t.Fatal(err)
	}
	if acks != nil {
		ctx, stop := context.WithCancel(context.Background())
		var alive sync.WaitGroup
		w.t.Cleanup(func() { stop(); alive.Wait() })
		tick := time.NewTicker(time.Second)
		alive.Go(func() {
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				for n := s.Acked + 1; n <= acks.Load(); n++ {
					s.Ack(n)
				}
				if err := j.Renew(ctx, s, time.Now(), nil, nil); err != nil {
					return
				}
			}
		})
	}
	return s
}

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

// outage is a store that can be away.
type outage struct {
	store.Store
	away atomic.Bool
}

func (s *outage) List(ctx context.Context, d, prefix, after string, limit int) ([]store.Document, error) {
	if s.away.Load() {
		return nil, store.ErrUnavailable
	}
	return s.Store.List(ctx, d, prefix, after, limit)
}

func TestAStoreThatIsAwayIsWaitedFor(t *testing.T) {
	for away, undone := range map[time.Duration]bool{30 * time.Second: false, 5 * time.Minute: true} {
		t.Run(away.String(), func(t *testing.T) {
			inWorld(t, simulator.Options{Completion: 10 * time.Second}, func(t *testing.T, w *world) {
				st := &outage{Store: w.st}
				d := dispatch.New(st, dist, w.cdn, nil)
				time.AfterFunc(2*time.Second, func() { st.away.Store(true) })
				time.AfterFunc(2*time.Second+away, func() { st.away.Store(false) })
				rep, err := d.Invalidate(t.Context(), pattern("/a"))
				if errors.Is(err, dispatch.ErrUndone) != undone || !undone && (err != nil || rep.State != journal.Completed) {
					t.Fatalf("%+v, %v", rep, err)
				}
				if w.sim.Billed() != 1 {
					t.Errorf("billed %d", w.sim.Billed())
				}
			})
		})
	}
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

// What a batch of this invalidation covers is not sent again after a crash, even
// where new sightings would make the plan another one.
func TestResumingDoesNotPayAgainForWhatWasSightedMeanwhile(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.record("/b/1", "/b/2", "/x")
		w.goWrong(func(op string, _ []string) *simulator.Fault {
			if op == simulator.CreateInvalidation {
				w.recordAt(time.Now(), "/b/2")
			}
			return nil
		})
		d := w.dispatcher()
		r := dispatch.Request{Selector: selector.Selector{Prefixes: []string{"/b/"}}, AssumeComplete: true}
		inv, err := d.Open(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		st := &dying{Store: w.st}
		st.left.Store(8) // lease, epoch, plan, tokens, batch, answer, clearing, forgotten
		if _, err := dispatch.New(st, dist, w.cdn, nil).Drive(t.Context(), inv.ID, dispatch.UntilDone, nil); !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		want(t, "left when it was killed", w.paths(), []string{"/b/2", "/x"})
		w.goWrong(nil)
		rep, err := d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
		if err != nil || rep.State != journal.Completed || w.sim.Billed() != 1 {
			t.Fatalf("%+v, billed %d: %v, %v", rep, w.sim.Billed(), w.sent(), err)
		}
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

func TestALivingLeaderKeepsItsLease(t *testing.T) {
	inWorld(t, simulator.Options{Completion: time.Minute}, func(t *testing.T, w *world) {
		done := make(chan error)
		d := w.dispatcher()
		go func() {
			_, err := d.Invalidate(t.Context(), pattern("/a"))
			done <- err
		}()
		for range 50 {
			time.Sleep(time.Second)
			if l, _, err := d.Journal().Acquire(t.Context(), "rival", time.Now(), time.Second); err != nil || l != nil {
				t.Fatalf("a rival got the lease: %v", err)
			}
		}
		if err := <-done; err != nil {
			t.Fatal(err)
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
