// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package ancestor_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/cf-invalidation-tracker/cftrack"
	"github.com/cf-invalidation-tracker/cftrack/awscloudfront"
	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const dist = simulator.DefaultDistribution

// sendInvalidation is what the ancestor's call of that name asks for.
var sendInvalidation = dispatch.Request{Selector: selector.Selector{All: true}, Exact: true}

// A site is a server with a tracker, its store, and a CloudFront that is
// simulated behind AWS's own client.
type site struct {
	*testing.T
	st      store.Store
	tracker *cftrack.Tracker
	cdn     *awscloudfront.Client
	sim     *simulator.Simulator
	real    bool // the time is not virtual, and precious

	mu     sync.Mutex
	refuse func(call int, op string, items []string) *simulator.Fault
	calls  int // of CreateInvalidation
}

// open makes a site on st, which is closed with it.
func open(t *testing.T, st store.Store, limits simulator.Limits) *site {
	t.Helper()
	s := &site{T: t, st: st}
	s.sim, s.cdn = cloudFront(t, &simulator.Options{Limits: limits, Intercept: s.intercept})
	var err error
	if s.tracker, err = cftrack.Open(st, dist, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.tracker.Close(context.Background()) // some tests leave it no store to say goodbye to
		_ = st.Close()
	})
	return s
}

func cloudFront(t *testing.T, o *simulator.Options) (*simulator.Simulator, *awscloudfront.Client) {
	t.Helper()
	sim, err := simulator.New(nil, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sim.Close(); err != nil {
			t.Error(err)
		}
	})
	cdn, err := awscloudfront.New(t.Context(), awscloudfront.Options{
		AccessKey: "AKIDEXAMPLE", SecretKey: "secret", Endpoint: "http://api.simulator",
		HTTPClient: &http.Client{Transport: sim.Transport()},
	})
	if err != nil {
		t.Fatal(err)
	}
	return sim, cdn
}

func (s *site) intercept(op string, r *http.Request) *simulator.Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	var batch struct {
		Items []string `xml:"Paths>Items>Path"`
	}
	if op == simulator.CreateInvalidation {
		s.calls++
		body, err := io.ReadAll(r.Body)
		if err != nil {
			s.Error(err)
		}
		if err := xml.Unmarshal(body, &batch); err != nil {
			s.Error(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	if s.refuse == nil {
		return nil
	}
	return s.refuse(s.calls, op, batch.Items)
}

// inTime runs f with a site in memory, in virtual time.
func inTime(t *testing.T, f func(*site)) {
	onStore(t, func() store.Store { return memstore.New() }, simulator.Limits{}, f)
}

func onStore(t *testing.T, make func() store.Store, limits simulator.Limits, f func(*site)) {
	t.Helper()
	alone(t)
	synctest.Test(t, func(t *testing.T) { f(open(t, make(), limits)) })
}

// alone keeps what the machine is configured with out of a test.
func alone(t *testing.T) {
	t.Helper()
	for _, name := range []string{"AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_CLOUDFRONT", "AWS_CA_BUNDLE",
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
		t.Setenv(name, "")
	}
	for _, name := range []string{"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"} {
		t.Setenv(name, t.TempDir()+"/none")
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

func (s *site) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *site) storeURL(path string, ttl time.Duration) {
	s.Helper()
	s.must(s.tracker.Record(s.Context(), path, ttl))
}

// stored waits until all is in the store.
func (s *site) stored() {
	s.Helper()
	s.must(s.tracker.Flush(s.Context()))
}

// works stores, lists, sends and clears, while other things are stored.
func (s *site) works() {
	s.Helper()
	s.storeURL("/a", 0)
	s.storeURL("/b?x=1", 0)
	s.want("tracked", s.tracked(), "/a", "/b?x=1")
	s.mu.Lock()
	s.refuse = func(_ int, op string, _ []string) *simulator.Fault {
		if op == simulator.CreateInvalidation {
			s.storeURL("/b?x=1", 0)
			s.storeURL("/new", 0)
			s.stored()
		}
		return nil
	}
	s.mu.Unlock()
	rep := s.sent()
	_, items := s.batches()
	s.want("sent", items, "/a", "/b?x=1")
	if rep.State != journal.Completed {
		s.Errorf("%+v", rep)
	}
	s.want("tracked", s.tracked(), "/b?x=1", "/new")
}

// later lets time go by, and what it brings about.
func later(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// get and post send a request to the handler, as CloudFront does.
func get(h http.Handler, target string) int  { return serve(h, http.MethodGet, target) }
func post(h http.Handler, target string) int { return serve(h, http.MethodPost, target) }

func serve(h http.Handler, method, target string) int {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w.Code
}

// tracked lists what is tracked now.
func (s *site) tracked() []string {
	s.Helper()
	return s.trackedIn(0)
}

// trackedIn lists what will be tracked after so long.
func (s *site) trackedIn(d time.Duration) []string {
	s.Helper()
	s.stored()
	paths := []string{}
	for e, err := range s.st.Scan(s.Context(), dist, store.Range{Now: time.Now().Add(d)}) {
		s.must(err)
		paths = append(paths, e.Path)
	}
	return paths
}

func (s *site) want(what string, got []string, want ...string) {
	s.Helper()
	if !slices.Equal(got, want) {
		s.Errorf("%s: %q, want %q", what, got, want)
	}
}

func (s *site) dispatcher() *dispatch.Dispatcher {
	var o dispatch.Options
	// Requests of 1,000, as it sent them: what the wire and CloudFront take, and
	// more than a second's worth.
	o.Limits.Burst = 1000.0 / 150
	if s.real {
		o.FirstLook, o.Limits.ItemsPerSecond = 100*time.Millisecond, 1e6
	}
	return dispatch.New(s.st, dist, s.cdn, &o)
}

// send invalidates; ten minutes are ample for what is not held up.
func (s *site) send() (*dispatch.Report, error) {
	ctx, cancel := context.WithTimeout(s.Context(), 10*time.Minute)
	defer cancel()
	r := sendInvalidation
	if s.real {
		r.Settle, r.Margin = 500*time.Millisecond, time.Millisecond
	}
	return s.dispatcher().Invalidate(ctx, r)
}

func (s *site) sent() *dispatch.Report {
	s.Helper()
	rep, err := s.send()
	s.must(err)
	return rep
}

// batches lists the sizes of what CloudFront accepted, and all items in order.
func (s *site) batches() (sizes []int, items []string) {
	for _, inv := range s.sim.Invalidations() {
		sizes, items = append(sizes, len(inv.Items)), append(items, inv.Items...)
	}
	slices.Sort(items)
	return sizes, items
}

var errDown = errors.New("connection refused")
