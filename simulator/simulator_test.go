// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start builds a simulator that is closed with the test.
func start(t testing.TB, origin http.Handler, o *Options) *Simulator {
	t.Helper()
	s, err := New(origin, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// fetched is an answer read in full.
type fetched struct {
	status int
	header http.Header
	body   string
}

func (f fetched) xcache() string { return f.header.Get("X-Cache") }

// ask sends one request to an edge in process.
func ask(t testing.TB, s *Simulator, edge int, method, target string, header ...string) fetched {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.Edge(edge).ServeHTTP(w, r)
	return fetched{w.Code, w.Header(), w.Body.String()}
}

func get(t testing.TB, s *Simulator, edge int, target string) fetched {
	t.Helper()
	return ask(t, s, edge, http.MethodGet, target)
}

// pages is an origin whose content has a version, so that a test sees how old an answer is.
type pages struct {
	mu      sync.Mutex
	version int
	header  http.Header
	status  int
	asked   []*http.Request
	wait    chan struct{} // if not nil, answers wait for it with the version already read
}

func (p *pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, r)
	version, wait, status := p.version, p.wait, p.status
	for k, v := range p.header {
		w.Header()[k] = v
	}
	p.mu.Unlock()
	if wait != nil {
		<-wait
	}
	if status == 0 {
		status = http.StatusOK
	}
	if tag := fmt.Sprintf(`"%d"`, version); w.Header().Get("Etag") == "auto" {
		w.Header().Set("Etag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	w.WriteHeader(status)
	fmt.Fprintf(w, "%s version %d", r.RequestURI, version)
}

func (p *pages) set(version int, header ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.version = version
	if len(header) > 0 {
		p.header = http.Header{}
	}
	for i := 0; i < len(header); i += 2 {
		p.header.Add(header[i], header[i+1])
	}
}

func (p *pages) answer(status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status = status
}

func (p *pages) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.asked)
}

func (p *pages) last() *http.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[len(p.asked)-1]
}

const signature = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/us-east-1/cloudfront/aws4_request, SignedHeaders=host;x-amz-date, Signature=" +
	"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// call sends one signed request to the control API in process.
func call(s *Simulator, method, path, body string) fetched {
	r := httptest.NewRequest(method, "http://api.simulator"+path, strings.NewReader(body))
	r.Header.Set("Authorization", signature)
	w := httptest.NewRecorder()
	s.API().ServeHTTP(w, r)
	return fetched{w.Code, w.Header(), w.Body.String()}
}

func batch(reference string, items ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<InvalidationBatch><Paths><Quantity>%d</Quantity><Items>", len(items))
	for _, it := range items {
		b.WriteString("<Path>" + strings.ReplaceAll(it, "&", "&amp;") + "</Path>")
	}
	b.WriteString("</Items></Paths><CallerReference>" + reference + "</CallerReference></InvalidationBatch>")
	return b.String()
}

const invalidations = "/2020-05-31/distribution/" + DefaultDistribution + "/invalidation"

// invalidate sends items under a reference of their own, which must be accepted.
func invalidate(t testing.TB, s *Simulator, items ...string) Invalidation {
	t.Helper()
	got := call(s, http.MethodPost, invalidations, batch(fmt.Sprintf("test-%d", len(s.Invalidations())), items...))
	if got.status != http.StatusCreated {
		t.Fatalf("%q: %d %s", items, got.status, got.body)
	}
	all := s.Invalidations()
	return all[len(all)-1]
}

// now is for tests in which an invalidation has been processed when it is accepted.
func now(o Options) *Options {
	o.Propagation, o.Completion = -1, -1
	return &o
}

// The whole course, in a bubble of fake time and without a socket.
func TestInvalidationReachesEdgesOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin := &pages{version: 1}
		s := start(t, origin, &Options{Edges: 5, Seed: 7})
		for i := range 5 {
			if got := get(t, s, i, "/a"); got.xcache() != xMiss || got.body != "/a version 1" {
				t.Fatalf("edge %d: %q %q", i, got.xcache(), got.body)
			}
			if got := get(t, s, i, "/a"); got.xcache() != xHit {
				t.Fatalf("edge %d again: %q", i, got.xcache())
			}
		}
		origin.set(2)
		begin := time.Now()
		inv := invalidate(t, s, "/a")
		moments := map[int]time.Duration{}
		var completed time.Duration
		for completed == 0 {
			synctest.Wait()
			for i := range 5 {
				_, held := s.Peek(i, "/a")
				if _, seen := moments[i]; !held && !seen {
					moments[i] = time.Since(begin)
				}
			}
			v := s.Invalidations()[0]
			if v.Edges != len(moments) || v.Removed != len(moments) {
				t.Fatalf("%d edges processed and %d objects removed, but %d edges lost theirs", v.Edges, v.Removed, len(moments))
			}
			if v.Status == Completed {
				completed = time.Since(begin)
			} else if got := call(s, http.MethodGet, invalidations+"/"+inv.ID, ""); !strings.Contains(got.body, "<Status>InProgress</Status>") {
				t.Fatalf("before all edges: %s", got.body)
			}
			time.Sleep(time.Millisecond)
		}
		distinct := map[time.Duration]bool{}
		for i, m := range moments {
			if m >= 301*time.Millisecond {
				t.Errorf("edge %d took %v", i, m)
			}
			distinct[m] = true
		}
		if len(moments) != 5 || len(distinct) < 3 {
			t.Errorf("moments of the edges: %v; want five, and not the same", moments)
		}
		for i, m := range moments {
			if completed < m+200*time.Millisecond {
				t.Errorf("completed after %v, edge %d processed after %v", completed, i, m)
			}
		}
		for i := range 5 {
			if got := get(t, s, i, "/a"); got.body != "/a version 2" || got.xcache() != xMiss {
				t.Errorf("edge %d after completion: %q %q", i, got.xcache(), got.body)
			}
		}
	})
}

func TestSeedDecidesEverything(t *testing.T) {
	run := func(seed uint64) (ids string) {
		s := start(t, &pages{}, now(Options{Seed: seed}))
		ids = get(t, s, 0, "/x").header.Get("X-Amz-Cf-Id")
		for range 3 {
			ids += " " + invalidate(t, s, "/x").ID
		}
		return ids
	}
	if a, b := run(1), run(1); a != b {
		t.Errorf("one seed, two runs: %s and %s", a, b)
	}
	if a, b := run(1), run(2); a == b {
		t.Errorf("two seeds, one run: %s", a)
	}
}

func TestListenAndClose(t *testing.T) {
	origin := httptest.NewUnstartedServer(&pages{version: 3})
	hungUp := make(chan struct{})
	origin.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			close(hungUp)
		}
	}
	origin.Start()
	defer origin.Close()
	s, err := NewForURL(origin.URL+"/base/", &Options{Edges: 2, OriginPath: "/v1"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if api, edges := s.URLs(); api != "" || edges != nil {
		t.Errorf("URLs before Listen: %q %q", api, edges)
	}
	if err := s.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if err := s.Listen("127.0.0.1:0"); err == nil {
		t.Error("a second Listen was accepted")
	}
	api, edges := s.URLs()
	if len(edges) != 2 || !strings.HasPrefix(api, "http://127.0.0.1:") {
		t.Fatalf("URLs: %q %q", api, edges)
	}
	for _, want := range []string{xMiss, xHit} {
		resp, err := http.Get(edges[1] + "/p?q=1")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(body) != "/base/v1/p?q=1 version 3" || resp.Header.Get("X-Cache") != want {
			t.Errorf("%q %q %v; want %s", resp.Header.Get("X-Cache"), body, err, want)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	<-hungUp // no connection to the origin is left
	if got := get(t, s, 0, "/p"); got.status != http.StatusServiceUnavailable {
		t.Errorf("an edge after Close: %d", got.status)
	}
	if got := call(s, http.MethodPost, invalidations, batch("r", "/a")); got.status != http.StatusServiceUnavailable {
		t.Errorf("the API after Close: %d", got.status)
	}
	if err := s.Listen("127.0.0.1:0"); err == nil {
		t.Error("Listen after Close was accepted")
	}
}

func TestListenOnPortsAfterTheFirst(t *testing.T) {
	// A port that is free and has two free ones after it is found by trying.
	for range 20 {
		probe := httptest.NewServer(nil)
		addr := probe.Listener.Addr().String()
		probe.Close()
		s := start(t, nil, &Options{Edges: 2})
		if err := s.Listen(addr); err != nil {
			continue
		}
		var first, second, third int
		api, edges := s.URLs()
		for i, u := range append([]string{api}, edges...) {
			if _, err := fmt.Sscanf(u, "http://127.0.0.1:%d", []*int{&first, &second, &third}[i]); err != nil {
				t.Fatal(err)
			}
		}
		if second != first+1 || third != first+2 || api != "http://"+addr {
			t.Errorf("asked for %s, got %s and %v", addr, api, edges)
		}
		return
	}
	t.Fatal("no three free ports in a row in 20 tries")
}

func TestCloseEndsWhatRuns(t *testing.T) {
	blocked := make(chan struct{})
	origin := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(blocked)
		<-r.Context().Done()
		panic(http.ErrAbortHandler) // returning would be an answer, which may yet be seen
	})
	s := start(t, origin, &Options{Propagation: time.Hour})
	invalidate(t, s, "/a")
	done := make(chan fetched)
	go func() { done <- get(t, s, 0, "/slow") }()
	<-blocked
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := <-done; got.status != http.StatusBadGateway {
		t.Errorf("a request under way when the simulator closed: %d", got.status)
	}
	if v := s.Invalidations()[0]; v.Status != InProgress {
		t.Errorf("an invalidation under way when the simulator closed: %s", v.Status)
	}
}

// Neither does a viewer that does not read keep Close waiting, nor is what it sent left open.
func TestCloseDoesNotWaitForViewers(t *testing.T) {
	origin := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, strings.Repeat("x", 1<<20)) })
	s := start(t, origin, nil)
	sent := &tracked{Reader: strings.NewReader("body")}
	r := must(http.NewRequestWithContext(t.Context(), http.MethodPost, "http://edge0.simulator/p", sent))
	resp, err := s.Transport().RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("the answer came in full after Close")
	}
	resp.Body.Close()
	if !sent.closed.Load() {
		t.Error("the request body was not closed")
	}
}

type tracked struct {
	io.Reader
	closed atomic.Bool
}

func (b *tracked) Close() error { b.closed.Store(true); return nil }

func TestOptionsAreChecked(t *testing.T) {
	for name, o := range map[string]Options{
		"edges":        {Edges: -1},
		"distribution": {Distribution: "E/1"},
		"tenant":       {Tenants: []string{""}},
		"origin path":  {OriginPath: "production"},
		"origin slash": {OriginPath: "/production/"},
		"root":         {DefaultRootObject: "/index.html"},
	} {
		if s, err := New(nil, &o); err == nil {
			s.Close()
			t.Errorf("%s: accepted", name)
		}
	}
	for _, u := range []string{"", "localhost:80", "ftp://host", "http://", "http://h/?q", "http://h/#f", "http://u:p@h", "http://h:x"} {
		if s, err := NewForURL(u, nil); err == nil {
			s.Close()
			t.Errorf("origin %q: accepted", u)
		} else if strings.Contains(err.Error(), ":p@") {
			t.Errorf("origin %q: the error shows the password: %v", u, err)
		}
	}
	for _, addr := range []string{"", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:99999", "127.0.0.1:65535"} {
		s := start(t, nil, nil)
		if err := s.Listen(addr); err == nil {
			t.Errorf("listen %q: accepted", addr)
		}
	}
}
