// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package ancestor_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack"
	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/memstore"
	"github.com/cf-invalidation-tracker/cftrack/store/setstore"
)

// The fault: all keys were listed, sent, and then the whole store was cleared;
// what was stored meanwhile was forgotten.
func TestFaultStoredBetweenListAndClearIsLost(t *testing.T) {
	for name, empty := range map[string]func() store.Store{
		"memory":       func() store.Store { return memstore.New() },
		"custom store": func() store.Store { return setstore.New(newSet(), nil) },
		"with delete":  func() store.Store { return setstore.New(newFullSet(), nil) },
	} {
		t.Run(name, func(t *testing.T) { onStore(t, empty, simulator.Limits{}, (*site).works) })
	}
	t.Run("file", func(t *testing.T) {
		s := openFile(t, t.TempDir())
		s.works()
	})
	t.Run("redis", func(t *testing.T) {
		r := startRedis(t, "")
		r.open("redis://"+r.host(), nil).works()
	})
}

// The fault: when one batch failed nothing was cleared, so all were sent again,
// and billed again.
func TestFaultOneFailedBatchRepeatsAll(t *testing.T) {
	inTime(t, func(s *site) {
		for i := range 2500 {
			s.storeURL(fmt.Sprintf("/p/%04d", i), 0)
		}
		stored := s.tracked()
		later(time.Minute)
		s.refuse = func(call int, op string, _ []string) *simulator.Fault {
			switch {
			case op != simulator.CreateInvalidation:
			case call == 2:
				return simulator.ServiceUnavailable()
			case call == 3:
				return simulator.LostAnswer() // taken, but who knows
			}
			return nil
		}
		rep := s.sent()
		if rep.State != journal.Completed || s.sim.Billed() != 2500 {
			s.Errorf("%s, %d billed", rep.State, s.sim.Billed())
		}
		var answered []int
		for _, inv := range s.sim.Invalidations() {
			answered = append(answered, inv.Calls)
		}
		if !slices.Equal(answered, []int{1, 2, 1}) {
			s.Errorf("the batches were answered %v times", answered)
		}
		if _, items := s.batches(); !slices.Equal(items, stored) {
			s.Error("what was sent is not what was stored")
		}
		s.want("tracked", s.tracked())
	})
}

// The fault: all batches at once, whatever CloudFront takes.
func TestFaultNoLimits(t *testing.T) {
	// 150 paths a second, and as much more as a nanosecond makes in a batch.
	limits := simulator.Limits{Batch: 3000, Paths: 3000, PathRate: 150, CallRate: 1, CallBurst: 1}
	onStore(t, func() store.Store { return memstore.New() }, limits, func(s *site) {
		for i := range 4000 {
			s.storeURL(fmt.Sprintf("/p/%04d", i), 0)
		}
		s.stored()
		later(time.Minute)
		start := time.Now()
		rep := s.sent()
		if rep.State != journal.Completed || s.sim.Billed() != 4000 {
			s.Errorf("%s, %d billed", rep.State, s.sim.Billed())
		}
		if n := len(s.sim.Invalidations()); s.calls != n {
			s.Errorf("%d calls for %d batches: some were refused", s.calls, n)
		}
		if d := time.Since(start); d < 3000/150*time.Second {
			s.Errorf("4,000 paths within %v, at 150 a second", d)
		}
	})
}

// The fault: whatever did not work the first time was not tried again.
func TestFaultNoRetry(t *testing.T) {
	inTime(t, func(s *site) {
		trouble := []func() *simulator.Fault{
			simulator.Throttling, simulator.TooManyInvalidationsInProgress, simulator.ServiceUnavailable,
			simulator.LostRequest, simulator.LostAnswer,
		}
		s.storeURL("/a", 0)
		s.stored()
		later(time.Minute)
		s.refuse = func(call int, op string, _ []string) *simulator.Fault {
			if op == simulator.CreateInvalidation && call <= len(trouble) {
				return trouble[call-1]()
			}
			return nil
		}
		rep := s.sent()
		if rep.State != journal.Completed || s.calls != len(trouble)+1 || s.sim.Billed() != 1 {
			s.Errorf("%s after %d calls, %d billed", rep.State, s.calls, s.sim.Billed())
		}
	})
}

// The fault: an empty batch after the last, where the count was a multiple of 1,000.
func TestFaultEmptyBatch(t *testing.T) {
	for n, want := range map[int][]int{999: {999}, 1000: {1000}, 1001: {1000, 1}, 2000: {1000, 1000}} {
		inTime(t, func(s *site) {
			for i := range n {
				s.storeURL(fmt.Sprintf("/p/%04d", i), 0)
			}
			s.stored()
			later(time.Minute)
			rep := s.sent()
			if sizes, _ := s.batches(); !slices.Equal(sizes, want) || s.calls != len(want) || len(rep.Batches) != len(want) {
				s.Errorf("%d keys: batches of %v in %d calls", n, sizes, s.calls)
			}
		})
	}
}

// The fault: batches ran in parallel, and got in each other's way.
func TestFaultParallelBatches(t *testing.T) {
	inTime(t, func(s *site) {
		const slow = 5 * time.Second
		var began []time.Time
		s.refuse = func(_ int, op string, _ []string) *simulator.Fault {
			if op != simulator.CreateInvalidation {
				return nil
			}
			began = append(began, time.Now())
			return &simulator.Fault{Delay: slow}
		}
		for i := range 3000 {
			s.storeURL(fmt.Sprintf("/p/%04d", i), 0)
		}
		s.stored()
		later(time.Minute)
		s.sent()
		if len(began) != 3 {
			s.Fatalf("%d batches", len(began))
		}
		for i := 1; i < len(began); i++ {
			if d := began[i].Sub(began[i-1]); d < slow {
				s.Errorf("batch %d began %v after the one before, which took %v", i+1, d, slow)
			}
		}
	})
}

// The fault: every request was stored, whether or not CloudFront keeps what came of it.
func TestFaultStoresWhatIsNotCached(t *testing.T) {
	inTime(t, func(s *site) {
		h := s.tracker.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/private" {
				w.Header().Set("Cache-Control", "private")
			}
			fmt.Fprintln(w, r.Method)
		}))
		get(h, "/page")
		get(h, "/private")
		post(h, "/form")
		s.want("tracked", s.tracked(), "/page")
	})
}

// The fault: a URL with one of <>[] in it, or of more than 2,000 characters, was
// left out with a line in a log.
func TestFaultRejectsURLs(t *testing.T) {
	inTime(t, func(s *site) {
		long, longer := "/"+strings.Repeat("x", 3999), "/"+strings.Repeat("y", 4000)
		for _, p := range []string{"/a[0]<b>", long, longer} {
			s.storeURL(p, 0)
		}
		var e *cfpath.Error
		if err := s.tracker.Record(s.Context(), "no path", 0); !errors.As(err, &e) || e.Input != "no path" {
			s.Errorf("%v", err)
		}
		s.stored()
		later(time.Minute)
		rep := s.sent()
		_, items := s.batches()
		if len(items) != 2 || items[1] != long {
			s.Errorf("sent %d items", len(items))
		}
		// CloudFront takes no more than 4,000 characters: that one is named, and stays.
		if rep.State != journal.Partial || len(rep.Uncovered) != 1 || rep.Uncovered[0].Item != longer || rep.Uncovered[0].Remedy == "" {
			s.Errorf("%s, uncovered %+v", rep.State, rep.Uncovered)
		}
		if tracked := s.tracked(); !slices.Contains(tracked, longer) || slices.Contains(tracked, long) {
			s.Errorf("%d paths are still tracked", len(tracked))
		}
	})
}

// The fault: nobody was told the IDs of the invalidations, nor how they ended.
func TestFaultNobodyLearnsTheIDs(t *testing.T) {
	inTime(t, func(s *site) {
		s.storeURL("/a", 0)
		s.stored()
		rep := s.sent()
		again, err := s.dispatcher().Status(s.Context(), rep.ID)
		s.must(err)
		inv := s.sim.Invalidations()[0]
		for _, b := range append(rep.Batches, again.Batches...) {
			if b.InvalidationID != inv.ID || b.CallerReference != inv.CallerReference || b.State != journal.BatchDone {
				s.Errorf("%+v, want %s", b, inv.ID)
			}
		}
	})
}

// The fault: an error of the store took the whole process down.
func TestFaultStoreErrorsEndTheProcess(t *testing.T) {
	set := newSet()
	onStore(t, func() store.Store { return setstore.New(set, nil) }, simulator.Limits{}, func(s *site) {
		later(time.Second)
		set.fails("set")
		h := s.tracker.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "content") }))
		for i := range 100 {
			if code := get(h, fmt.Sprintf("/%02d", i)); code != http.StatusOK {
				s.Fatalf("answered %d", code)
			}
			later(time.Second)
		}
		if err := s.tracker.Stats().Err; !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, errDown) {
			s.Errorf("the tracker says %v", err)
		}
		set.fails("")
		if n := len(s.tracked()); n != 100 {
			s.Errorf("%d of 100 paths are tracked", n)
		}
		if err := s.tracker.Record(s.Context(), "/new", cftrack.UntilPurged); err != nil {
			s.Error(err)
		}
	})
}
