// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/cf-invalidation-tracker/cftrack/awscloudfront"
	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/journal"
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
