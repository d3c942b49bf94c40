// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package ancestor_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cf-invalidation-tracker/cftrack"
	"github.com/cf-invalidation-tracker/cftrack/awscloudfront"
	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/filestore"
	"github.com/cf-invalidation-tracker/cftrack/store/setstore"
)

const century = 100 * 365 * 24 * time.Hour

// storeUrl(url): kept until purged; a lifetime that is not known is the longest
// that CloudFront keeps anything.
func TestStoreURL(t *testing.T) {
	inTime(t, func(s *site) {
		s.storeURL("/kept?a=1", cftrack.UntilPurged)
		s.storeURL("https://www.example.com/plain", 0)
		rules := lifetime.DefaultRules()
		longest := rules.Unknown("/plain").Lifetime
		s.want("at once", s.tracked(), "/kept?a=1", "/plain")
		s.want("as CloudFront's maximum TTL is about to be over", s.trackedIn(longest-time.Minute), "/kept?a=1", "/plain")
		s.want("after it", s.trackedIn(longest+time.Minute), "/kept?a=1")
		s.want("in a hundred years", s.trackedIn(century), "/kept?a=1")
		s.sent()
		s.want("purged", s.tracked())
	})
}

// next(); storeUrl(req.url): the middleware does it, with the times of the request.
func TestStoreURLFromAMiddleware(t *testing.T) {
	inTime(t, func(s *site) {
		h := s.tracker.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.URL.Path = "/changed by a router"
			fmt.Fprintln(w, "content")
		}))
		get(h, "/blog/a%20post?page=2")
		s.want("tracked", s.tracked(), "/blog/a%20post?page=2")
	})
}

func TestStoreURLWithTTL(t *testing.T) {
	inTime(t, func(s *site) {
		s.storeURL("/a", time.Minute)
		s.stored()
		later(59 * time.Second)
		s.want("after 59 s", s.tracked(), "/a")
		later(4 * time.Second) // by when CloudFront counted from the last byte
		s.want("after 63 s", s.tracked())
		s.storeURL("/a", time.Hour)
		s.storeURL("/a", time.Minute) // another edge may hold the first
		s.stored()
		later(59 * time.Minute)
		s.want("stored again for an hour, and for a minute", s.tracked(), "/a")
	})
}

func TestSetURLTTL(t *testing.T) {
	inTime(t, func(s *site) {
		s.storeURL("/a", cftrack.UntilPurged)
		s.storeURL("/b", cftrack.UntilPurged)
		s.stored()
		later(time.Second)
		s.must(s.tracker.SetTTL(s.Context(), "/a", time.Minute))
		s.want("at once", s.tracked(), "/a", "/b")
		later(61 * time.Second)
		s.want("when it is over", s.tracked(), "/b")
	})
}

func TestSetURLTTLOfAnUnknownURL(t *testing.T) {
	inTime(t, func(s *site) {
		s.must(s.tracker.SetTTL(s.Context(), "/unknown", time.Hour))
		s.must(s.tracker.Remove(s.Context(), "/unknown too"))
		s.want("tracked", s.tracked())
		if rep := s.sent(); rep.Items != 0 || s.sim.Billed() != 0 {
			s.Errorf("sent %d items", rep.Items)
		}
	})
}

func TestSetURLTTLOfZero(t *testing.T) {
	for _, ttl := range []time.Duration{0, -time.Second} {
		inTime(t, func(s *site) {
			s.storeURL("/a", cftrack.UntilPurged)
			s.storeURL("/b", cftrack.UntilPurged)
			s.stored()
			later(time.Second)
			s.must(s.tracker.SetTTL(s.Context(), "/a", ttl))
			s.want("tracked", s.tracked(), "/b")
		})
	}
}

func TestRemoveURL(t *testing.T) {
	inTime(t, func(s *site) {
		s.storeURL("/a", 0)
		s.storeURL("/b", 0)
		s.stored()
		later(time.Second)
		s.must(s.tracker.Remove(s.Context(), "/a"))
		s.want("tracked", s.tracked(), "/b")
		later(time.Second)
		s.storeURL("/a", 0)
		s.want("stored again", s.tracked(), "/a", "/b")
	})
}

// With the tracker's middleware around a handler that removes what it does not
// find, the path is gone after the response, however often it was served before.
func TestRemoveURLInA404Handler(t *testing.T) {
	inTime(t, func(s *site) {
		var deleted atomic.Bool
		mux := http.NewServeMux()
		mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
			if !deleted.Load() {
				fmt.Fprintln(w, "content")
				return
			}
			s.must(s.tracker.Remove(r.Context(), r.URL.RequestURI()))
			http.NotFound(w, r)
		})
		h := s.tracker.Middleware(mux)
		get(h, "/post?page=2")
		get(h, "/post")
		s.want("served", s.tracked(), "/post", "/post?page=2")
		for range 2 { // the first use of Remove takes another way than all others
			later(time.Minute)
			deleted.Store(true)
			if code := get(h, "/post?page=2"); code != http.StatusNotFound {
				s.Errorf("answered %d", code)
			}
			s.want("not found", s.tracked(), "/post")
			later(time.Minute)
			deleted.Store(false)
			get(h, "/post?page=2")
			s.want("served again", s.tracked(), "/post", "/post?page=2")
		}
	})
}

// disconnect: what was stored is flushed; what comes after is an error, and harmless.
func TestDisconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := newFullSet()
		s := open(t, setstore.New(set, nil), simulator.Limits{})
		s.storeURL("/a", 0)
		s.must(s.tracker.Close(t.Context()))
		s.must(s.st.Close())
		set.want(t, "/a")
		if last := set.calls[len(set.calls)-1]; last != "disconnect" {
			t.Errorf("the last call is %q", last)
		}
		for name, err := range map[string]error{
			"storeUrl":  s.tracker.Record(t.Context(), "/b", 0),
			"setUrlTTL": s.tracker.SetTTL(t.Context(), "/a", time.Hour),
			"removeUrl": s.tracker.Remove(t.Context(), "/a"),
		} {
			if !errors.Is(err, cftrack.ErrClosed) {
				t.Errorf("%s after disconnect: %v", name, err)
			}
		}
		if _, err := s.send(); !errors.Is(err, store.ErrClosed) {
			t.Errorf("sendInvalidation after disconnect: %v", err)
		}
		served := s.tracker.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }))
		if code := get(served, "/c"); code != http.StatusAccepted {
			t.Errorf("the middleware answers %d", code)
		}
		s.must(s.tracker.Close(t.Context()))
		s.must(s.st.Close())
	})
}

// sendInvalidation: all keys verbatim, in batches of 1,000; then they are cleared.
func TestSendInvalidation(t *testing.T) {
	inTime(t, func(s *site) {
		all := []string{"/", "/dir/", "/dir/?", "/a%20b", "/search?q=%C3%A4&x[]=1", "/A", "/%61"}
		for i := len(all); i < 2500; i++ {
			all = append(all, fmt.Sprintf("/p/%04d", i))
		}
		for _, p := range all {
			s.storeURL(p, 0)
		}
		slices.Sort(all)
		stored := s.tracked()
		later(time.Minute)
		rep := s.sent()
		sizes, items := s.batches()
		if !slices.Equal(sizes, []int{1000, 1000, 500}) {
			s.Errorf("batches of %v", sizes)
		}
		if !slices.Equal(items, stored) {
			s.Error("what was sent is not what was stored")
		}
		if len(stored) != len(all) || rep.State != journal.Completed || rep.Items != 2500 || s.sim.Billed() != 2500 {
			s.Errorf("%d stored, %s, %d items, %d billed", len(stored), rep.State, rep.Items, s.sim.Billed())
		}
		for _, inv := range s.sim.Invalidations() {
			if inv.Status != simulator.Completed {
				s.Errorf("%s is %s", inv.ID, inv.Status)
			}
		}
		// Whether these two spellings are CloudFront's own names is not known, so they
		// stay until their lives are over: sent again rather than missed.
		s.want("tracked", s.tracked(), "/%61", "/dir/?")
	})
}

func TestSendInvalidationOfNothing(t *testing.T) {
	inTime(t, func(s *site) {
		if rep := s.sent(); rep.State != journal.Completed || rep.Items != 0 || len(rep.Batches) != 0 || s.calls != 0 {
			s.Errorf("%+v after %d calls", rep, s.calls)
		}
	})
}

// What failed is not cleared, and is sent by resuming; what went before is.
func TestSendInvalidationThatFails(t *testing.T) {
	inTime(t, func(s *site) {
		s.refuse = func(call int, _ string, _ []string) *simulator.Fault {
			if call == 2 {
				return simulator.AccessDenied()
			}
			return nil
		}
		for i := range 1500 {
			s.storeURL(fmt.Sprintf("/p/%04d", i), 0)
		}
		stored := s.tracked()
		later(time.Minute)
		rep := s.sent()
		if rep.State != journal.Failed || rep.Code != "AccessDenied" {
			s.Errorf("%s, %s", rep.State, rep.Code)
		}
		s.want("tracked", s.tracked(), stored[1000:]...)

		d := s.dispatcher()
		inv, err := d.Journal().Reopen(s.Context(), rep.ID)
		s.must(err)
		rep, err = d.Drive(s.Context(), inv.ID, dispatch.UntilDone, nil)
		s.must(err)
		if rep.State != journal.Completed || s.sim.Billed() != 1500 {
			s.Errorf("resumed: %s, %d billed", rep.State, s.sim.Billed())
		}
		s.want("tracked", s.tracked())
	})
}

// An error while listing clears nothing and sends nothing.
func TestSendInvalidationThatCannotList(t *testing.T) {
	set := newSet("/a", "/b").fails("list")
	onStore(t, func() store.Store { return setstore.New(set, nil) }, simulator.Limits{}, func(s *site) {
		rep, err := s.send()
		if !errors.Is(err, dispatch.ErrUndone) || s.calls != 0 {
			s.Errorf("%+v, %v after %d calls", rep, err, s.calls)
		}
		set.want(s.T, "/a", "/b")
		set.fails("")
		s.want("tracked", s.tracked(), "/a", "/b")
		later(time.Minute)
		d := s.dispatcher()
		open, err := d.Journal().Invalidations(s.Context(), 0)
		s.must(err)
		rep, err = d.Drive(s.Context(), open[0].ID, dispatch.UntilDone, nil)
		s.must(err)
		if rep.State != journal.Completed || len(open) != 1 {
			s.Errorf("%+v, %d open", rep, len(open))
		}
		_, items := s.batches()
		s.want("sent", items, "/a", "/b")
		s.want("tracked", s.tracked())
		set.want(s.T)
	})
}

// connect on first use: a store that is down when the server starts.
func TestConnectOnFirstUse(t *testing.T) {
	set := newFullSet("/old")
	set.fails("connect")
	onStore(t, func() store.Store { return setstore.New(set, nil) }, simulator.Limits{}, func(s *site) {
		later(time.Second)
		if err := s.tracker.Ready(); !errors.Is(err, cftrack.ErrNotReady) || !strings.Contains(err.Error(), errDown.Error()) {
			s.Errorf("ready: %v", err)
		}
		s.storeURL("/new", 0)
		later(time.Minute)
		set.fails("")
		s.want("once it is up", s.tracked(), "/new", "/old")
		later(time.Second)
		s.must(s.tracker.Ready())
		set.want(s.T, "/new", "/old")
		n := set.called("connect")
		later(time.Hour)
		if n < 2 || set.called("connect") != n {
			s.Errorf("connected %d times, then %d more", n, set.called("connect")-n)
		}
	})
}

// The default store keeps everything over a restart, with nothing to connect to.
func TestStoreWithoutAServer(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, dir)
	s.storeURL("/a", 0)
	s.storeURL("/kept", cftrack.UntilPurged)
	s.must(s.tracker.Close(t.Context()))
	s.must(s.st.Close())
	s = openFile(t, dir)
	s.want("after a restart", s.tracked(), "/a", "/kept")
	s.want("in a hundred years", s.trackedIn(century), "/kept")
}

// openFile makes a site on a directory, in real time.
func openFile(t *testing.T, dir string) *site {
	t.Helper()
	alone(t)
	st, err := filestore.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, st, simulator.Limits{})
	s.real = true
	return s
}

// A custom store needs no more than set, list and clear.
func TestCustomStore(t *testing.T) {
	set := newSet("/before")
	onStore(t, func() store.Store { return setstore.New(set, nil) }, simulator.Limits{}, func(s *site) {
		s.storeURL("/a", time.Minute)
		s.storeURL("/b", cftrack.UntilPurged)
		s.want("tracked", s.tracked(), "/a", "/b", "/before")
		set.want(s.T, "/a", "/b", "/before")
		later(2 * time.Minute)
		s.want("after /a is over", s.tracked(), "/b", "/before")
		s.must(s.tracker.Remove(s.Context(), "/before"))
		s.want("after /before was removed", s.tracked(), "/b")
		later(time.Minute)
		s.sent()
		_, items := s.batches()
		s.want("sent", items, "/b")
		s.want("tracked", s.tracked())
		set.want(s.T)
	})
}

func TestCustomStoreThatRestarts(t *testing.T) {
	set := newSet()
	onStore(t, func() store.Store { return setstore.New(set, nil) }, simulator.Limits{}, func(s *site) {
		s.storeURL("/a", 0)
		s.stored()
	})
	onStore(t, func() store.Store { return setstore.New(set, nil) }, simulator.Limits{}, func(s *site) {
		s.want("tracked", s.tracked(), "/a")
		s.want("in a hundred years", s.trackedIn(century), "/a")
		c, err := s.dispatcher().Journal().Coverage(s.Context(), time.Now().Add(century), time.Hour)
		s.must(err)
		if c.Complete {
			s.Error("a store that forgets claims to know everything")
		}
	})
}

// The optional parts: connect, disconnect, delete, TTL.
func TestCustomStoreWithOptionalParts(t *testing.T) {
	set := newFullSet()
	onStore(t, func() store.Store { return setstore.New(set, nil) }, simulator.Limits{}, func(s *site) {
		s.storeURL("/a", time.Minute)
		s.stored()
		s.storeURL("/b", cftrack.UntilPurged)
		s.stored()
		later(time.Second)
		s.must(s.tracker.SetTTL(s.Context(), "/b", time.Hour))
		s.must(s.tracker.Remove(s.Context(), "/a"))
		s.stored()
		set.want(s.T, "/b")
		if len(set.ttls) != 1 || set.ttls["/b"] > time.Hour || set.ttls["/b"] < time.Hour-time.Second {
			s.Errorf("times to live %v", set.ttls)
		}
		later(time.Minute)
		s.sent()
		set.want(s.T)
	})
	if slices.Contains(set.calls, "clear") {
		t.Error("a set that can delete was cleared")
	}
	if first, last := set.calls[0], set.calls[len(set.calls)-1]; first != "connect" || last != "disconnect" {
		t.Errorf("the first call is %q, the last %q", first, last)
	}
}

// The secret and access key may be given, with an early error for half of them.
func TestExplicitKeys(t *testing.T) {
	alone(t)
	for missing, o := range map[string]awscloudfront.Options{
		"access key": {SecretKey: "hidden"}, "secret key": {AccessKey: "AKIDEXAMPLE"},
	} {
		_, err := awscloudfront.New(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), "without its "+missing) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("without the %s: %v", missing, err)
		}
	}
	var signature string
	cdn, err := awscloudfront.New(t.Context(), awscloudfront.Options{
		AccessKey: "AKIDEXAMPLE", SecretKey: "hidden", Endpoint: "http://api.example",
		HTTPClient: &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			signature = r.Header.Get("Authorization")
			return nil, errDown
		})},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = cdn.CreateInvalidation(t.Context(), dist, "reference", []string{"/a"})
	if !strings.Contains(signature, "Credential=AKIDEXAMPLE/") || strings.Contains(signature, "hidden") {
		t.Errorf("signed %q: %v", signature, err)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestCloudFrontsOwnMessage(t *testing.T) {
	inTime(t, func(s *site) {
		const message = "Your request contains one or more invalid invalidation paths."
		s.refuse = func(_ int, op string, _ []string) *simulator.Fault {
			if op == simulator.CreateInvalidation {
				return &simulator.Fault{Status: http.StatusForbidden, Code: "AccessDenied", Message: message}
			}
			return nil
		}
		s.storeURL("/a", 0)
		s.stored()
		rep := s.sent()
		if rep.State != journal.Failed || !strings.Contains(rep.Error, message) || !strings.Contains(rep.Batches[0].Error, message) {
			s.Errorf("%+v", rep)
		}
		s.want("tracked", s.tracked(), "/a")
	})
}

// A set is a custom store as the ancestor asked for one. The lock is for the
// tests, which look into it from outside.
type set struct {
	mu    sync.Mutex
	paths map[string]bool
	calls []string
	down  string // the call that fails
}

func newSet(paths ...string) *set {
	s := &set{paths: make(map[string]bool)}
	for _, p := range paths {
		s.paths[p] = true
	}
	return s
}

// do notes a call and carries it out, unless it is to fail.
func (s *set) do(call string, f func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
	if call == s.down {
		return errDown
	}
	f()
	return nil
}

// fails makes that a call fails from now on; "": none.
func (s *set) fails(call string) *set {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = call
	return s
}

// called counts the calls of a kind.
func (s *set) called(call string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.calls {
		if c == call {
			n++
		}
	}
	return n
}

func (s *set) want(t *testing.T, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := slices.Sorted(maps.Keys(s.paths)); !slices.Equal(got, want) {
		t.Errorf("the set holds %q, want %q", got, want)
	}
}

func (s *set) Set(_ context.Context, path string) error {
	return s.do("set", func() { s.paths[path] = true })
}

func (s *set) List(context.Context) (paths []string, err error) {
	err = s.do("list", func() { paths = slices.Collect(maps.Keys(s.paths)) })
	return paths, err
}

func (s *set) Clear(context.Context) error { return s.do("clear", func() { clear(s.paths) }) }

// A fullSet has the optional parts too.
type fullSet struct {
	*set
	ttls map[string]time.Duration
}

func newFullSet(paths ...string) *fullSet {
	return &fullSet{newSet(paths...), make(map[string]time.Duration)}
}

func (s *fullSet) Connect(context.Context) error    { return s.do("connect", func() {}) }
func (s *fullSet) Disconnect(context.Context) error { return s.do("disconnect", func() {}) }

func (s *fullSet) Delete(_ context.Context, path string) error {
	return s.do("delete", func() { delete(s.paths, path); delete(s.ttls, path) })
}

func (s *fullSet) SetTTL(_ context.Context, path string, ttl time.Duration) error {
	return s.do("ttl", func() { s.ttls[path] = ttl })
}

var (
	_ setstore.Connector    = (*fullSet)(nil)
	_ setstore.Disconnector = (*fullSet)(nil)
	_ setstore.Deleter      = (*fullSet)(nil)
	_ setstore.TTLSetter    = (*fullSet)(nil)
)

// storeUrl and setUrlTTL or removeUrl right after it, as a server would that
// learns from the response how long it counts.
func TestSetURLTTLRightAfterStoreURL(t *testing.T) {
	inTime(t, func(s *site) {
		s.storeURL("/a", cftrack.UntilPurged)
		s.must(s.tracker.SetTTL(s.Context(), "/a", time.Minute))
		s.storeURL("/b", cftrack.UntilPurged)
		s.must(s.tracker.Remove(s.Context(), "/b"))
		h := s.tracker.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintln(w, "content")
			s.must(s.tracker.SetTTL(r.Context(), r.RequestURI, time.Minute))
		}))
		get(h, "/c")
		get(h, "/d")
		s.want("at once", s.tracked(), "/a", "/c", "/d")
		later(61 * time.Second)
		s.want("when it is over", s.tracked())
	})
}
