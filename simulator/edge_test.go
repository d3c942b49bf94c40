// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
)

func TestFreshness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin := &pages{version: 1}
		s := start(t, origin, now(Options{Edges: 1}))
		expect := func(after time.Duration, xcache, body, age string) {
			t.Helper()
			time.Sleep(after)
			got := get(t, s, 0, "/p")
			if got.xcache() != xcache || got.body != body || got.header.Get("Age") != age {
				t.Errorf("X-Cache %q, body %q, Age %q; want %q %q %q", got.xcache(), got.body, got.header.Get("Age"), xcache, body, age)
			}
		}
		origin.set(1, "Cache-Control", "max-age=60", "Etag", "auto")
		expect(0, xMiss, "/p version 1", "")
		expect(59*time.Second, xHit, "/p version 1", "59")
		expect(time.Second, xRefreshHit, "/p version 1", "0")
		expect(59*time.Second, xHit, "/p version 1", "59")
		origin.set(2)
		expect(time.Second, xMiss, "/p version 2", "")
		expect(time.Second, xHit, "/p version 2", "1")
		if n := origin.count(); n != 3 {
			t.Errorf("the origin was asked %d times, want 3", n)
		}
		// Not even while fresh: what must not be kept.
		origin.set(3, "Cache-Control", "no-store")
		expect(time.Hour, xMiss, "/p version 3", "")
		origin.set(4)
		expect(0, xMiss, "/p version 4", "")
		if o := s.Objects(0); len(o) != 0 {
			t.Errorf("held: %+v", o)
		}
		// Nothing stated: the default TTL of a day.
		origin.set(5, "X", "y")
		expect(0, xMiss, "/p version 5", "")
		o, ok := s.Peek(0, "/p")
		if !ok || o.Expires.Sub(o.Stored) != 24*time.Hour || string(o.Body) != "/p version 5" || !o.Fresh(time.Now()) || o.Fresh(o.Expires) {
			t.Errorf("peek: %v %+v", ok, o)
		}
	})
}

func TestStaleWhileRevalidate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin := &pages{version: 1}
		origin.set(1, "Cache-Control", "max-age=10, stale-while-revalidate=20")
		s := start(t, origin, now(Options{Edges: 1}))
		get(t, s, 0, "/p")
		origin.set(2)
		origin.wait = make(chan struct{})
		time.Sleep(29 * time.Second)
		for range 3 {
			if got := get(t, s, 0, "/p"); got.body != "/p version 1" || got.xcache() != xHit {
				t.Errorf("while it is renewed: %q %q", got.xcache(), got.body)
			}
			synctest.Wait()
		}
		close(origin.wait)
		origin.mu.Lock()
		origin.wait = nil
		origin.mu.Unlock()
		synctest.Wait()
		if got := get(t, s, 0, "/p"); got.body != "/p version 2" || got.xcache() != xHit {
			t.Errorf("after it was renewed: %q %q", got.xcache(), got.body)
		}
		if n := origin.count(); n != 2 {
			t.Errorf("the origin was asked %d times, want 2", n)
		}
		// A failing origin does not end the time that the response allows.
		origin.answer(503)
		time.Sleep(15 * time.Second)
		get(t, s, 0, "/p")
		synctest.Wait()
		origin.answer(200)
		origin.set(3)
		time.Sleep(14 * time.Second)
		if got := get(t, s, 0, "/p"); got.body != "/p version 2" || got.xcache() != xHit {
			t.Errorf("29 s after it was stored: %q %q", got.xcache(), got.body)
		}
		synctest.Wait()
		origin.set(3)
		time.Sleep(30 * time.Second)
		if got := get(t, s, 0, "/p"); got.body != "/p version 3" || got.xcache() != xMiss {
			t.Errorf("after the stale time: %q %q", got.xcache(), got.body)
		}
	})
}

func TestErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin := &pages{version: 1}
		s := start(t, origin, now(Options{Edges: 1}))
		expect := func(target string, after time.Duration, status int, asked int) fetched {
			t.Helper()
			time.Sleep(after)
			before := origin.count()
			got := get(t, s, 0, target)
			if got.status != status || origin.count()-before != asked {
				t.Errorf("%s: status %d, %d origin requests; want %d, %d", target, got.status, origin.count()-before, status, asked)
			}
			if (status >= 400) != (got.xcache() == xError) {
				t.Errorf("%s: status %d with X-Cache %q", target, status, got.xcache())
			}
			return got
		}
		// A 404 is kept for 10 s, a 401 is not.
		origin.answer(404)
		expect("/none", 0, 404, 1)
		expect("/none", 9*time.Second, 404, 0)
		expect("/none", time.Second, 404, 1)
		origin.answer(401)
		expect("/auth", 0, 401, 1)
		expect("/auth", 0, 401, 1)
		origin.answer(404)
		// A condition is not applied to it.
		origin.set(1, "Etag", `"e"`)
		expect("/tagged", 0, 404, 1)
		if got := ask(t, s, 0, "GET", "/tagged", "If-None-Match", `"e"`); got.status != 404 {
			t.Errorf("a condition met by an error: %d", got.status)
		}
		// A cached error is removed like any object.
		expect("/late", 0, 404, 1)
		origin.answer(200)
		invalidate(t, s, "/late")
		expect("/late", 0, 200, 1)

		// An expired object serves when the origin fails, for 10 s at a time.
		origin.set(1, "Cache-Control", "max-age=5")
		expect("/old", 0, 200, 1)
		origin.answer(503)
		expect("/old", 5*time.Second, 200, 1)
		expect("/old", 9*time.Second, 200, 0)
		expect("/old", time.Second, 200, 1)
		// A removed one does not.
		invalidate(t, s, "/old")
		expect("/old", 0, 503, 1)
		// Neither does one that forbids it.
		origin.set(1, "Cache-Control", "max-age=5, stale-if-error=0")
		origin.answer(200)
		expect("/never", 0, 200, 1)
		origin.answer(503)
		expect("/never", 5*time.Second, 503, 1)
	})
}

// An object that is removed while the origin is being asked does not come back because the origin fails.
func TestRemovedObjectDoesNotServeOnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin := &pages{version: 1}
		origin.set(1, "Cache-Control", "max-age=5")
		s := start(t, origin, now(Options{Edges: 1}))
		get(t, s, 0, "/p")
		time.Sleep(5 * time.Second)
		origin.answer(500)
		origin.wait = make(chan struct{})
		var got fetched
		go func() { got = get(t, s, 0, "/p") }()
		synctest.Wait()
		invalidate(t, s, "/p")
		close(origin.wait)
		synctest.Wait()
		if got.status != 500 {
			t.Errorf("%d %q after removal", got.status, got.body)
		}
	})
}

func TestUnreachableOrigin(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	closed, err := NewForURL("http://"+addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer closed.Close()
	panics := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("no") })
	for name, s := range map[string]*Simulator{"closed port": closed, "no origin": start(t, nil, nil), "panic": start(t, panics, nil)} {
		got := get(t, s, 0, "/p")
		if got.status != http.StatusBadGateway || got.xcache() != xError {
			t.Errorf("%s: %d %q", name, got.status, got.xcache())
		}
		if got := ask(t, s, 0, http.MethodPost, "/p"); got.status != http.StatusBadGateway {
			t.Errorf("%s: POST %d", name, got.status)
		}
	}
}

// The race that the tracker exists for: an old response that began before the purge and ends after it.
func TestFetchUnderWayIsStoredAfterThePurge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin := &pages{version: 1, wait: make(chan struct{})}
		s := start(t, origin, now(Options{Edges: 1}))
		go get(t, s, 0, "/p")
		synctest.Wait()
		origin.set(2)
		if v := invalidate(t, s, "/p"); v.Removed != 0 || v.Status != Completed {
			t.Errorf("%+v", v)
		}
		close(origin.wait)
		synctest.Wait()
		if got := get(t, s, 0, "/p"); got.body != "/p version 1" || got.xcache() != xHit {
			t.Errorf("after the purge: %q %q; want the old page from the cache", got.xcache(), got.body)
		}
		invalidate(t, s, "/p")
		if got := get(t, s, 0, "/p"); got.body != "/p version 2" {
			t.Errorf("after a second purge: %q", got.body)
		}
	})
}

func TestRequestsForOneKeyAreCollapsed(t *testing.T) {
	for _, row := range []struct {
		control string
		asked   int
	}{{"max-age=60", 1}, {"no-store", 10}} {
		t.Run(row.control, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				origin := &pages{version: 1, wait: make(chan struct{})}
				origin.set(1, "Cache-Control", row.control)
				s := start(t, origin, now(Options{Edges: 1}))
				xc := make(chan string, 10)
				for i := range 10 {
					method := http.MethodGet
					if i == 5 {
						method = http.MethodHead
					}
					go func() {
						got := ask(t, s, 0, method, "/p")
						if want := map[string]string{"GET": "/p version 1"}[method]; got.body != want {
							t.Errorf("%s: body %q", method, got.body)
						}
						xc <- got.xcache()
					}()
					synctest.Wait()
				}
				if n := origin.count(); n != 1 {
					t.Errorf("%d requests at the origin before its first answer", n)
				}
				close(origin.wait)
				seen := map[string]int{}
				for range 10 {
					seen[<-xc]++
				}
				if n := origin.count(); n != row.asked || seen[xMiss] != row.asked {
					t.Errorf("%d requests at the origin, %v; want %d", n, seen, row.asked)
				}
			})
		})
	}
}

// A viewer that leaves does not end a fetch that the cache is to keep.
func TestFetchGoesOnWithoutItsViewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin := &pages{version: 1, wait: make(chan struct{})}
		s := start(t, origin, nil)
		ctx, leave := context.WithCancel(t.Context())
		gone := make(chan error)
		go func() {
			_, err := s.Transport().RoundTrip(must(http.NewRequestWithContext(ctx, http.MethodGet, "http://edge0.simulator/p", nil)))
			gone <- err
		}()
		synctest.Wait()
		leave()
		if err := <-gone; err == nil {
			t.Error("an answer for a viewer that has gone")
		}
		close(origin.wait)
		synctest.Wait()
		if o, held := s.Peek(0, "/p"); !held || string(o.Body) != "/p version 1" {
			t.Errorf("held: %v %+v", held, o)
		}
	})
}

// A GET does not wait for a HEAD, which has no body to give.
func TestGetDoesNotWaitForHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin := &pages{version: 1, wait: make(chan struct{})}
		s := start(t, origin, nil)
		var head, body, second fetched
		go func() { head = ask(t, s, 0, http.MethodHead, "/p") }()
		synctest.Wait()
		go func() { second = ask(t, s, 0, http.MethodHead, "/p") }()
		go func() { body = get(t, s, 0, "/p") }()
		synctest.Wait()
		if n := origin.count(); n != 2 {
			t.Errorf("%d requests at the origin, want one HEAD and one GET", n)
		}
		close(origin.wait)
		synctest.Wait()
		if head.status != 200 || second.status != 200 || body.body != "/p version 1" {
			t.Errorf("%+v %+v %+v", head, second, body)
		}
	})
}

func TestOriginTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(time.Minute):
			case <-r.Context().Done():
			}
		})
		s := start(t, slow, nil)
		begin := time.Now()
		if got := get(t, s, 0, "/p"); got.status != http.StatusGatewayTimeout || time.Since(begin) != 30*time.Second {
			t.Errorf("%d after %v", got.status, time.Since(begin))
		}
		// What has begun in time may take as long as it needs.
		origin := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "a")
			time.Sleep(time.Minute)
			io.WriteString(w, "b")
		})
		if got := get(t, start(t, origin, nil), 0, "/p"); got.body != "ab" {
			t.Errorf("a long answer: %d %q", got.status, got.body)
		}
	})
}

// Many read a body while it comes in, and one that breaks off is not kept.
func TestBodyIsPassedOnAsItComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		step := make(chan string)
		origin := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for part := range step {
				if part == "break" {
					panic(http.ErrAbortHandler)
				}
				io.WriteString(w, part)
			}
		})
		s := start(t, origin, now(Options{Edges: 1}))
		c := &http.Client{Transport: s.Transport()}
		open := func() *bufio.Reader {
			resp, err := c.Get("http://edge0.simulator/stream")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { resp.Body.Close() })
			return bufio.NewReader(resp.Body)
		}
		var a *bufio.Reader
		opened := make(chan struct{})
		go func() { a = open(); close(opened) }()
		step <- "one\n"
		<-opened
		if line, err := a.ReadString('\n'); line != "one\n" || err != nil {
			t.Fatalf("first reader: %q %v", line, err)
		}
		b := open()
		step <- "two\n"
		for name, r := range map[string]*bufio.Reader{"first": a, "second": b} {
			want := map[string]string{"first": "two\n", "second": "one\n"}[name]
			if line, err := r.ReadString('\n'); line != want || err != nil {
				t.Errorf("%s reader: %q %v", name, line, err)
			}
		}
		step <- "break"
		if rest, err := io.ReadAll(b); err == nil {
			t.Errorf("the break was hidden after %q", rest)
		}
		synctest.Wait()
		if _, held := s.Peek(0, "/stream"); held {
			t.Error("an incomplete body is held")
		}
		close(step)
		if got := get(t, s, 0, "/stream"); got.status != 200 || got.xcache() != xMiss || got.body != "" {
			t.Errorf("after the break: %d %q %q", got.status, got.xcache(), got.body)
		}
	})
}

// A viewer that leaves ends a response that nobody else may have.
func TestViewerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := false
		origin := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "no-store")
			io.WriteString(w, "event\n")
			<-r.Context().Done()
			ended = true
		})
		s := start(t, origin, nil)
		ctx, leave := context.WithCancel(t.Context())
		r := must(http.NewRequestWithContext(ctx, http.MethodGet, "http://edge0.simulator/events", nil))
		resp, err := s.Transport().RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if line, err := bufio.NewReader(resp.Body).ReadString('\n'); line != "event\n" || err != nil {
			t.Fatalf("%q %v", line, err)
		}
		synctest.Wait()
		if ended {
			t.Fatal("the response ended while the viewer was there")
		}
		leave()
		synctest.Wait()
		if !ended {
			t.Error("the response goes on without a viewer")
		}
	})
}

func TestShortBodyIsNotKept(t *testing.T) {
	short := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "12345")
	})
	server := httptest.NewServer(short)
	defer server.Close()
	over, err := NewForURL(server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer over.Close()
	for name, s := range map[string]*Simulator{"in process": start(t, short, nil), "over HTTP": over} {
		func() {
			defer func() {
				if p := recover(); p != http.ErrAbortHandler {
					t.Errorf("%s: the short body looked complete (%v)", name, p)
				}
			}()
			get(t, s, 0, "/p")
		}()
		if _, held := s.Peek(0, "/p"); held {
			t.Errorf("%s: it is held", name)
		}
	}
}

func TestMethods(t *testing.T) {
	origin := &pages{version: 1}
	rules := lifetime.DefaultRules()
	options := lifetime.DefaultBehavior()
	options.Pattern, options.CacheOptions = must(cfpath.ParsePattern("/api/*")), true
	rules.Behaviors = []lifetime.Behavior{options}
	s := start(t, origin, now(Options{Edges: 1, Rules: &rules}))
	for _, row := range []struct {
		method, target, xcache string
		asked                  string // the method at the origin, if it was asked
	}{
		{"HEAD", "/a", xMiss, "HEAD"},
		{"HEAD", "/a", xHit, ""},
		{"GET", "/a", xMiss, "GET"}, // a HEAD has no body to serve
		{"GET", "/a", xHit, ""},
		{"HEAD", "/a", xHit, ""},
		{"POST", "/a", xMiss, "POST"},
		{"GET", "/a", xHit, ""}, // a POST changes nothing
		{"DELETE", "/a", xMiss, "DELETE"},
		{"OPTIONS", "/a", xMiss, "OPTIONS"},
		{"OPTIONS", "/a", xMiss, "OPTIONS"},
		{"OPTIONS", "/api/a", xMiss, "OPTIONS"},
		{"OPTIONS", "/api/a", xHit, ""},
		{"GET", "/api/a", xMiss, "GET"}, // OPTIONS has a key of its own
	} {
		before := origin.count()
		got := ask(t, s, 0, row.method, row.target)
		asked := ""
		if origin.count() > before {
			asked = origin.last().Method
		}
		if got.xcache() != row.xcache || asked != row.asked || (row.method == "HEAD") != (got.body == "") {
			t.Errorf("%s %s: %q, origin asked with %q, body %q; want %q, %q", row.method, row.target, got.xcache(), asked, got.body, row.xcache, row.asked)
		}
	}
	if v := invalidate(t, s, "/api/a"); v.Removed != 2 {
		t.Errorf("an item removed %d objects of GET and OPTIONS", v.Removed)
	}

	r := httptest.NewRequest(http.MethodGet, "/a", strings.NewReader("body"))
	w := httptest.NewRecorder()
	s.Edge(0).ServeHTTP(w, r)
	if w.Code != http.StatusForbidden {
		t.Errorf("GET with a body: %d", w.Code)
	}
	r = httptest.NewRequest(http.MethodPut, "/echo", strings.NewReader("body"))
	w = httptest.NewRecorder()
	start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }), nil).Edge(0).ServeHTTP(w, r)
	if w.Body.String() != "body" {
		t.Errorf("PUT: the origin got %q", w.Body)
	}
}

// What a viewer asks for reaches the origin as it was spelled, in process and over HTTP.
func TestRawTargets(t *testing.T) {
	var mu sync.Mutex
	var seen string
	origin := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = r.RequestURI
	})
	server := httptest.NewServer(origin)
	defer server.Close()
	for _, row := range []struct{ name, path string }{{"over HTTP", "/production"}, {"over HTTP", ""}, {"in process", "/production"}, {"in process", ""}} {
		name := row.name + " " + row.path
		s, err := New(origin, &Options{OriginPath: row.path})
		if row.name == "over HTTP" {
			s, err = NewForURL(server.URL, &Options{OriginPath: row.path})
		}
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Listen("127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		_, edges := s.URLs()
		for _, target := range []string{
			"http://other.example", "/a", "/a%20b", "/a+b", "/a%2fb", "/a%2Fb", "//double//x", "//host.example/a", "/a/../b/./c", "/a~b", "/a%7Eb", "/a'b", "/(x)!$,;:@", "/a*",
			"/?", "/a?", "/a?x=1&y=2", "/a?y=2&x=1", "/a?x=%20+;z", "/a?b?c", "/caf%C3%A9", "/[x]{y}|", `/a"b<c>`, "/caf\u00e9", "/a#b", "/a%25zz",
			"http://other.example/abs?x=1", "http://other.example?q",
		} {
			want := strings.TrimPrefix(target, "http://other.example")
			if want == "" || want[0] != '/' {
				want = "/" + want
			}
			want = row.path + want
			mu.Lock()
			seen = ""
			mu.Unlock()
			status := raw(t, edges[0], target)
			mu.Lock()
			if seen != want {
				t.Errorf("%s: %q (status %d) reached the origin as %q, want %q", name, target, status, seen, want)
			}
			mu.Unlock()
			if _, held := s.Peek(0, target); !held {
				t.Errorf("%s: %q is not held", name, target)
			}
		}
	}
}

// raw sends a request line as it is.
func raw(t *testing.T, edge, target string) int {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(edge, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", target)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Error(err)
	}
	return resp.StatusCode
}

func TestEverySpellingIsAnObject(t *testing.T) {
	origin := &pages{version: 1}
	s := start(t, origin, now(Options{Edges: 1}))
	spellings := []string{"/a'b", "/a%27b", "/a%20b", "/a+b", "/A%20b", "/x?a=1&b=2", "/x?b=2&a=1", "/x", "/x/", "/x?"}
	for _, p := range spellings {
		if got := get(t, s, 0, p); got.xcache() != xMiss {
			t.Errorf("%s: %s", p, got.xcache())
		}
	}
	if n := len(s.Objects(0)); n != len(spellings) {
		t.Errorf("%d objects for %d spellings", n, len(spellings))
	}
	if v := invalidate(t, s, "/a%27b"); v.Removed != 2 {
		t.Errorf("/a%%27b removed %d objects, want both spellings of the apostrophe", v.Removed)
	}
	if v := invalidate(t, s, "/x"); v.Removed != 1 {
		t.Errorf("/x removed %d", v.Removed)
	}
}

func TestQueryRule(t *testing.T) {
	rules := lifetime.DefaultRules()
	rules.Default.Query = must(cfpath.ParseQueryRule("include:w"))
	img := lifetime.DefaultBehavior()
	img.Pattern, img.Query = must(cfpath.ParsePattern("/img/*")), must(cfpath.ParseQueryRule("none"))
	rules.Behaviors = []lifetime.Behavior{img}
	origin := &pages{version: 1}
	s := start(t, origin, now(Options{Edges: 1, Rules: &rules}))
	for _, row := range []struct{ target, asked string }{
		{"/p?w=1&utm=x", "/p?w=1"}, {"/p?utm=y&w=1", ""}, {"/p?w=2", "/p?w=2"}, {"/p?z", "/p"}, {"/p", ""},
		{"/img/a?w=1", "/img/a"}, {"/img/a?w=2", ""},
	} {
		before := origin.count()
		get(t, s, 0, row.target)
		asked := ""
		if origin.count() > before {
			asked = origin.last().RequestURI
		}
		if asked != row.asked {
			t.Errorf("%s: the origin was asked for %q, want %q", row.target, asked, row.asked)
		}
	}
	if o, ok := s.Peek(0, "/p?a=b&w=1"); !ok || o.Path != "/p?w=1" {
		t.Errorf("peek: %v %+v", ok, o)
	}
	if v := invalidate(t, s, "/p?w=1&utm=x"); v.Removed != 0 {
		t.Errorf("the full query removed %d; the object has the reduced one", v.Removed)
	}
	if v := invalidate(t, s, "/p?w=1"); v.Removed != 1 {
		t.Errorf("the reduced query removed %d", v.Removed)
	}
}

func TestDefaultRootObject(t *testing.T) {
	origin := &pages{version: 1}
	s := start(t, origin, now(Options{Edges: 1, DefaultRootObject: "index.html", OriginPath: "/p"}))
	for target, want := range map[string]string{"/": "/p/index.html", "/?a": "/p/index.html?a", "/dir/": "/p/dir/"} {
		if got := get(t, s, 0, target); got.body != want+" version 1" {
			t.Errorf("%s: %q", target, got.body)
		}
	}
	if v := invalidate(t, s, "/index.html"); v.Removed != 0 {
		t.Error("the root is held under the name of the root object")
	}
	if v := invalidate(t, s, "/"); v.Removed != 1 {
		t.Errorf("/ removed %d", v.Removed)
	}
}

func TestHeaders(t *testing.T) {
	origin := &pages{version: 1}
	origin.set(1, "Set-Cookie", "a=b", "X-App", "1", "Via", "1.1 app", "Keep-Alive", "x", "Cache-Control", "max-age=60")
	s := start(t, origin, now(Options{Edges: 2}))
	viewer := []string{"Cookie", "c=d", "Accept", "text/html", "Accept-Encoding", "gzip", "Authorization", "Basic x", "Referer", "r",
		"User-Agent", "Mozilla", "Via", "1.1 proxy", "X-Custom", "kept", "X-Edge-X", "x", "If-None-Match", `"none"`, "Range", "bytes=0-1", "X-Forwarded-For", "198.51.100.7"}
	got := ask(t, s, 1, "GET", "/p", viewer...)
	for k, want := range map[string]string{
		"Cookie": "", "Accept": "", "Accept-Encoding": "", "Authorization": "", "Referer": "", "X-Edge-X": "", "If-None-Match": `"none"`, "Range": "bytes=0-1",
		"User-Agent": "Amazon CloudFront", "X-Custom": "kept", "X-Forwarded-For": "198.51.100.7, 192.0.2.1", "X-Amz-Cf-Id": got.header.Get("X-Amz-Cf-Id"),
	} {
		if v := origin.last().Header.Get(k); v != want {
			t.Errorf("the origin got %s %q, want %q", k, v, want)
		}
	}
	if v := origin.last().Header.Get("Via"); !strings.HasPrefix(v, "1.1 proxy, 1.1 ") || !strings.HasSuffix(v, ".cloudfront.net (CloudFront)") {
		t.Errorf("the origin got Via %q", v)
	}
	for k, want := range map[string]string{"Set-Cookie": "", "Keep-Alive": "", "X-App": "1", "X-Amz-Cf-Pop": "SIM2-C1", "X-Cache": xMiss} {
		if v := got.header.Get(k); v != want {
			t.Errorf("the viewer got %s %q, want %q", k, v, want)
		}
	}
	if v := got.header.Values("Via"); len(v) != 1 || !strings.HasPrefix(v[0], "1.1 ") || !strings.HasSuffix(v[0], ".cloudfront.net (CloudFront)") {
		t.Errorf("the viewer got Via %q", v)
	}
	again := ask(t, s, 1, "GET", "/p")
	if again.xcache() != xHit || again.header.Get("X-Amz-Cf-Id") == got.header.Get("X-Amz-Cf-Id") || len(again.header.Values("Via")) != 1 {
		t.Errorf("again: %v", again.header)
	}
	if again.header.Get("Content-Length") != fmt.Sprint(len(again.body)) {
		t.Errorf("Content-Length %q of %d", again.header.Get("Content-Length"), len(again.body))
	}
	ask(t, s, 0, "POST", "/p", "Authorization", "Basic x")
	if origin.last().Header.Get("Authorization") != "Basic x" {
		t.Error("POST: Authorization did not reach the origin")
	}
}

func TestViewerConditions(t *testing.T) {
	origin := &pages{version: 1}
	const day = "Mon, 02 Nov 2026 10:00:00 GMT"
	origin.set(1, "Etag", `W/"1"`, "Last-Modified", day)
	s := start(t, origin, nil)
	for _, row := range []struct {
		name, value string
		status      int
	}{
		{"If-None-Match", `"1"`, 304}, {"If-None-Match", `"0", W/"1"`, 304}, {"If-None-Match", "*", 304}, {"If-None-Match", `"2"`, 200},
		{"If-Modified-Since", day, 304}, {"If-Modified-Since", "Mon, 02 Nov 2026 09:59:59 GMT", 200}, {"If-Modified-Since", "x", 200},
	} {
		got := ask(t, s, 0, "GET", "/p", row.name, row.value)
		if got.status != row.status || (got.status == 304) != (got.body == "") {
			t.Errorf("%s %s: %d %q", row.name, row.value, got.status, got.body)
		}
	}
}

func TestTags(t *testing.T) {
	origin := &pages{version: 1}
	s := start(t, origin, now(Options{Edges: 1, TagHeader: "Cache-Tag"}))
	fill := func(target string, header ...string) {
		origin.set(1, header...)
		get(t, s, 0, target)
	}
	var many []string
	for i := range 51 {
		many = append(many, fmt.Sprintf("t%d", i+1))
	}
	fill("/a", "Cache-Tag", " Blog ,news", "Cache-Tag", "second-line")
	fill("/b", "Cache-Tag", "news,,b l a n k,caf\u00e9,"+strings.Repeat("x", 257))
	fill("/many", "Cache-Tag", strings.Join(many, ","))
	fill("/none", "X", "y")
	if o, _ := s.Peek(0, "/a"); !reflect.DeepEqual(o.Tags, []string{"blog", "news", "second-line"}) {
		t.Errorf("tags of /a: %q", o.Tags)
	}
	if o, _ := s.Peek(0, "/b"); !reflect.DeepEqual(o.Tags, []string{"news"}) {
		t.Errorf("tags of /b: %q", o.Tags)
	}
	for _, row := range []struct {
		item    string
		removed int
	}{{"#t51", 0}, {"#new", 0}, {"#NEWS", 2}, {"#T50", 1}, {"#blog", 0}} {
		if v := invalidate(t, s, row.item); v.Removed != row.removed {
			t.Errorf("%s removed %d, want %d", row.item, v.Removed, row.removed)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		s := start(t, origin, now(Options{Edges: 1, TagHeader: "Cache-Tag"}))
		origin.set(1, "Etag", "auto", "Cache-Control", "max-age=5", "Cache-Tag", "before")
		get(t, s, 0, "/304")
		origin.set(1, "Etag", "auto", "Cache-Control", "max-age=5", "Cache-Tag", "after")
		time.Sleep(5 * time.Second)
		got := get(t, s, 0, "/304")
		if o, _ := s.Peek(0, "/304"); got.xcache() != xRefreshHit || !reflect.DeepEqual(o.Tags, []string{"after"}) {
			t.Errorf("%s, then tags %q", got.xcache(), o.Tags)
		}
	})
	off := start(t, origin, now(Options{Edges: 1}))
	origin.set(1, "Cache-Tag", "x")
	get(t, off, 0, "/a")
	if v := invalidate(t, off, "#x"); v.Removed != 0 {
		t.Error("a tag removed something without a tag header in the configuration")
	}
}

func TestItems(t *testing.T) {
	paths := []string{"/", "/?x", "/a", "/a?x=1", "/a*b", "/ab", "/dir", "/dir/", "/dir/?q", "/dir/x", "/dir/sub/", "/t~x", "/t%7Ex", "/A", "/a%2Fb", "/a//b", "/@x"}
	for _, row := range []struct {
		item              string
		plain, dir, doubt string // what is removed, by option; "=" as the one before
	}{
		{"/a", "/a", "=", "="},
		{"/a*", "/a /a*b /a//b /a?x=1 /a%2Fb /ab", "=", "="},
		{"/a*b", "/a*b", "=", "="},
		{"/a?*", "/a?x=1", "=", "="},
		{"/dir/*", "/dir/ /dir/?q /dir/sub/ /dir/x", "/dir/?q /dir/sub/ /dir/x", "="},
		{"/dir*", "/dir /dir/ /dir/?q /dir/sub/ /dir/x", "=", "="},
		{"/dir/", "/dir/", "=", "="},
		{"/*", strings.Join(paths, " "), "=", "="},
		{"/", "/", "=", "="},
		{"/t%7Ex", "", "=", "="},
		{"/t%7E*", "", "=", "="},
		{"/t*", "/t%7Ex /t~x", "=", "="},
		{"/a%2Fb", "/a%2Fb", "=", ""},
		{"/a//*", "/a//b", "=", ""},
		{"/@x", "/@x", "=", ""},
	} {
		last := ""
		for _, mode := range []struct {
			name, want string
			o          Options
		}{
			{"plain", row.plain, Options{}},
			{"SpareDirectory", row.dir, Options{SpareDirectory: true}},
			{"SpareDoubtful", row.doubt, Options{SpareDoubtful: true}},
		} {
			if mode.want != "=" {
				last = mode.want
			}
			mode.o.Edges = 1
			s := start(t, &pages{}, now(mode.o))
			for _, p := range paths {
				get(t, s, 0, p)
			}
			before := s.Objects(0)
			invalidate(t, s, row.item)
			left := map[string]bool{}
			for _, o := range s.Objects(0) {
				left[o.Path] = true
			}
			want := map[string]bool{}
			for _, p := range strings.Fields(last) {
				want[p] = true
			}
			for _, o := range before {
				if left[o.Path] == want[o.Path] {
					t.Errorf("%s, %s: %s left: %v", row.item, mode.name, o.Path, left[o.Path])
				}
			}
			if len(before) != len(paths) {
				t.Fatalf("%d objects of %d paths", len(before), len(paths))
			}
		}
	}
}

// The index of exact items agrees with each item asked by itself.
func TestMatcherAgreesWithItems(t *testing.T) {
	letters := []string{"/", "a", "b", "*", "?", "~", "%7E", "%2F", "@", "//", "x=1", "%27", "%C3", "%C3%A9"}
	path := rapid.Custom(func(t *rapid.T) string {
		return "/" + strings.Join(rapid.SliceOfN(rapid.SampledFrom(letters), 0, 4).Draw(t, "path"), "")
	})
	rapid.Check(t, func(t *rapid.T) {
		o := Options{SpareDirectory: rapid.Bool().Draw(t, "dir"), SpareDoubtful: rapid.Bool().Draw(t, "doubt")}
		m := newMatcher(&o)
		var items []cfpath.Item
		for _, text := range rapid.SliceOfN(rapid.OneOf(path, rapid.SampledFrom([]string{"#a", "#B"})), 1, 5).Draw(t, "items") {
			it, err := cfpath.ParseItem(text)
			if err != nil {
				continue
			}
			items = append(items, it)
			m.add(it)
		}
		p, tags := path.Draw(t, "object"), rapid.SampledFrom([][]string{nil, {"a"}, {"x", "b"}}).Draw(t, "tags")
		want := false
		for _, it := range items {
			hit := it.Matches(p) && !strings.Contains(it.Text, "%7E")
			if it.Kind == cfpath.Wildcard && o.SpareDirectory && strings.HasSuffix(p, "/") && p == it.Text && p != "/" {
				hit = false
			}
			if o.SpareDoubtful {
				hit = it.MatchesSurely(p)
			}
			for _, tag := range tags {
				hit = hit || it.Kind == cfpath.Tag && strings.EqualFold(tag, it.Text)
			}
			want = want || hit
		}
		if got := m.matches(p, tags); got != want {
			t.Fatalf("%v on %s %q: %v, want %v", items, p, tags, got, want)
		}
	})
}

// Against a model: an edge is a map that forgets by time and by item.
func TestEdgeAgreesWithModel(t *testing.T) {
	paths := []string{"/", "/a", "/a/", "/a/b", "/a?x=1", "/ab"}
	type action struct {
		kind string // "content", "time", "item" or "get"
		n    int    // max-age, seconds, edge
		text string // item, path
	}
	actions := rapid.Custom(func(t *rapid.T) action {
		switch a := (action{kind: rapid.SampledFrom([]string{"content", "time", "item", "get", "get", "get"}).Draw(t, "kind")}); a.kind {
		case "item":
			a.text = rapid.SampledFrom(append([]string{"/*", "/a*", "/a/*", "/a?*"}, paths...)).Draw(t, "item")
			return a
		case "get":
			a.n, a.text = rapid.IntRange(0, 1).Draw(t, "edge"), rapid.SampledFrom(paths).Draw(t, "path")
			return a
		default:
			a.n = rapid.IntRange(0, 15).Draw(t, "seconds")
			return a
		}
	})
	type held struct {
		body    string
		expires time.Time
	}
	run := func(t *testing.T, program []action) string {
		origin := &pages{}
		s := start(t, origin, now(Options{Edges: 2}))
		model := []map[string]held{{}, {}}
		version, ttl := 0, 24*time.Hour
		for step, a := range program {
			switch a.kind {
			case "content":
				version, ttl = step, time.Duration(a.n)*time.Second
				origin.set(version, "Cache-Control", fmt.Sprintf("max-age=%d", a.n))
			case "time":
				time.Sleep(time.Duration(a.n) * time.Second)
			case "item":
				invalidate(t, s, a.text)
				for _, m := range model {
					for p := range m {
						if stem, wild := strings.CutSuffix(a.text, "*"); p == a.text || wild && strings.HasPrefix(p, stem) {
							delete(m, p)
						}
					}
				}
			case "get":
				got := get(t, s, a.n, a.text)
				h, ok := model[a.n][a.text]
				hit := ok && time.Now().Before(h.expires)
				if !hit {
					h = held{fmt.Sprintf("%s version %d", a.text, version), time.Now().Add(ttl)}
					model[a.n][a.text] = h
				}
				if got.body != h.body || (got.xcache() == xHit) != hit {
					return fmt.Sprintf("step %d, edge %d, %s: %q %q; the model has %q, hit %v", step, a.n, a.text, got.xcache(), got.body, h.body, hit)
				}
			}
		}
		return ""
	}
	rapid.Check(t, func(rt *rapid.T) {
		program := rapid.SliceOfN(actions, 1, 40).Draw(rt, "program")
		wrong := ""
		synctest.Test(t, func(t *testing.T) { wrong = run(t, program) })
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
}

func TestBadTargets(t *testing.T) {
	s := start(t, &pages{}, nil)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for target, status := range map[string]int{"/" + strings.Repeat("a", 8192): 414, "*": 400, "x": 400} {
		r.RequestURI = target
		w := httptest.NewRecorder()
		s.Edge(0).ServeHTTP(w, r)
		if w.Code != status {
			t.Errorf("%.20q: %d, want %d", target, w.Code, status)
		}
	}
}

func FuzzEdge(f *testing.F) {
	for _, seed := range []string{"/", "/a?b", "//x", "http://h/a", "http://h?a", "*", "", "/%zz", "/\x00\xff", "/a b", "h:80", "://"} {
		f.Add(seed, "max-age=5, stale-while-revalidate=99999999999999999999")
	}
	f.Fuzz(func(t *testing.T, target, control string) {
		origin := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", control)
			w.Header().Set("Cache-Tag", control)
		})
		s := start(t, origin, now(Options{Edges: 1, TagHeader: "Cache-Tag"}))
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		if target == "" {
			target = "/" // a request without a target is asked by its URL
		}
		r.RequestURI = target
		w := httptest.NewRecorder()
		s.Edge(0).ServeHTTP(w, r)
		if w.Header().Get("X-Cache") == "" {
			t.Errorf("%d without X-Cache", w.Code)
		}
		for _, o := range s.Objects(0) {
			if want, err := cfpath.FromTarget(target); err != nil || o.Path != want {
				t.Errorf("%q is held as %q, canonical %q %v", target, o.Path, want, err)
			}
		}
	})
}

// What is held in many goroutines at once, for the race detector.
func TestConcurrency(t *testing.T) {
	var origin pages
	s := start(t, &origin, &Options{Propagation: time.Millisecond, Completion: time.Millisecond})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 100 {
				switch i % 10 {
				case 0:
					call(s, http.MethodPost, invalidations, batch(fmt.Sprintf("%d-%d", g, i), fmt.Sprintf("/%d", i), "/1*"))
				case 1:
					s.Objects(g % 3)
					s.Invalidations()
				case 2:
					origin.set(i, "Cache-Control", "max-age=0, stale-while-revalidate=5")
				default:
					target := fmt.Sprintf("/%d", i%7)
					if got := get(t, s, i%3, target); got.status != 200 || !strings.HasPrefix(got.body, target+" ") {
						t.Errorf("%s: %d %q", target, got.status, got.body)
					}
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkEdgeHit(b *testing.B) {
	s := start(b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(bytes.Repeat([]byte("x"), 4096)) }), nil)
	if err := s.Listen("127.0.0.1:0"); err != nil {
		b.Fatal(err)
	}
	_, edges := s.URLs()
	benchmarkGets(b, func(int) string { return edges[0] + "/a" })
}

func BenchmarkEdgeMiss(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(bytes.Repeat([]byte("x"), 4096)) }))
	defer server.Close()
	s, err := NewForURL(server.URL, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if err := s.Listen("127.0.0.1:0"); err != nil {
		b.Fatal(err)
	}
	_, edges := s.URLs()
	benchmarkGets(b, func(i int) string { return fmt.Sprintf("%s/%d", edges[i%len(edges)], i) })
}

func benchmarkGets(b *testing.B, url func(i int) string) {
	tr := &http.Transport{MaxIdleConnsPerHost: 64}
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr}
	var mu sync.Mutex
	n := 0
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			mu.Lock()
			n++
			i := n
			mu.Unlock()
			resp, err := c.Get(url(i))
			if err != nil {
				b.Error(err)
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	})
}

func BenchmarkInvalidate100k(b *testing.B) {
	s := start(b, nil, now(Options{Edges: 1}))
	e := s.edges[0]
	m := newMatcher(&s.opts)
	for i := range 1000 {
		m.add(must(cfpath.ParseItem(fmt.Sprintf("/none/%d", i))))
	}
	for i := range 15 {
		m.add(must(cfpath.ParseItem(fmt.Sprintf("/none%d/*", i))))
	}
	for i := range 100_000 {
		p := fmt.Sprintf("/dir%d/page-%d.html", i%100, i)
		e.objects[key{target: p}] = &object{path: p}
	}
	for b.Loop() {
		e.invalidate(m)
	}
}
