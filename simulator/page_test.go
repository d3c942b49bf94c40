// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// broken is an origin whose error pages are fine: a target that begins with /errors/ is answered 200, unless
// down; all else with status.
type broken struct {
	status, asked, pages atomic.Int64
	down                 atomic.Bool
	control              string
}

func (b *broken) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if len(r.URL.Path) > 8 && r.URL.Path[:8] == "/errors/" {
		b.pages.Add(1)
		w.Header().Set("Content-Type", "text/html")
		if b.down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintf(w, "page %s", r.URL.Path)
		return
	}
	b.asked.Add(1)
	if b.control != "" {
		w.Header().Set("Cache-Control", b.control)
	}
	w.WriteHeader(int(b.status.Load()))
	fmt.Fprintf(w, "status %d", b.status.Load())
}

const withPages = `
DefaultCacheBehavior: {CachePolicyId: UseOriginCacheControlHeaders, AllowedMethods: [GET, HEAD, OPTIONS, PUT, POST, PATCH, DELETE]}
CacheBehaviors:
  - {PathPattern: /errors/*, CachePolicyId: CachingOptimized}
  - {PathPattern: /dynamic/*, CachePolicyId: CachingDisabled}
CustomErrorResponses:
  - {ErrorCode: 404, ResponsePagePath: /errors/404.html, ResponseCode: 200, ErrorCachingMinTTL: 30}
  - {ErrorCode: 500, ResponsePagePath: /errors/500.html, ResponseCode: 500}
  - {ErrorCode: 403, ErrorCachingMinTTL: 60}
`

// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/HTTPStatusCodes.html
func TestErrorPages(t *testing.T) {
	for _, tiers := range []int{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			origin := &broken{}
			s := start(t, origin, now(Options{Edges: 1, Regional: tiers, Config: load(t, withPages)}))
			expect := func(method, target string, status int, body string, asked, pages int64) {
				t.Helper()
				got := ask(t, s, 0, method, target)
				synctest.Wait() // the regional cache takes in an error that nobody reads to its end
				if got.status != status || got.body != body || got.xcache() != xError && status != 200 || origin.asked.Load() != asked || origin.pages.Load() != pages {
					t.Errorf("%s %s: %d %q %q, asked %d and %d; want %d %q, %d and %d", method, target, got.status, got.body, got.xcache(),
						origin.asked.Load(), origin.pages.Load(), status, body, asked, pages)
				}
			}
			origin.status.Store(404)
			expect("GET", "/a", 200, "page /errors/404.html", 1, 1)
			if got := get(t, s, 0, "/a"); got.xcache() != xError {
				t.Errorf("a page in place of an error is %q", got.xcache())
			}
			expect("HEAD", "/a", 200, "", 1, 1)
			expect("GET", "/b", 200, "page /errors/404.html", 2, 1) // the page is an object of its own
			time.Sleep(29 * time.Second)
			expect("GET", "/a", 200, "page /errors/404.html", 2, 1)
			time.Sleep(time.Second)
			expect("GET", "/a", 200, "page /errors/404.html", 3, 1)
			// Cached under the URL that was asked for, and removed by that alone.
			invalidate(t, s, "/errors/*")
			expect("GET", "/a", 200, "page /errors/404.html", 3, 1)
			invalidate(t, s, "/a")
			origin.status.Store(500)
			expect("GET", "/a", 500, "page /errors/500.html", 4, 2)
			time.Sleep(10 * time.Second)
			expect("GET", "/a", 500, "page /errors/500.html", 5, 2)
			// Without caching too, but for a POST.
			expect("GET", "/dynamic/a", 500, "page /errors/500.html", 6, 2)
			expect("GET", "/dynamic/a", 500, "page /errors/500.html", 7, 2)
			expect("POST", "/p", 500, "status 500", 8, 2)
			// A page that cannot be had: the status of asking for it.
			invalidate(t, s, "/*")
			origin.down.Store(true)
			origin.status.Store(404)
			expect("GET", "/c", 503, "status 404", 9, 3)
			// No page, only a time.
			origin.status.Store(403)
			expect("GET", "/d", 403, "status 403", 10, 3)
		})
	}
}

// The page of an error that is itself in error neither waits for itself nor is replaced again.
func TestErrorPageOfItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin := &pages{version: 1}
		origin.answer(404)
		s := start(t, origin, now(Options{Edges: 1, Config: load(t, `
DefaultCacheBehavior: {CachePolicyId: CachingOptimized}
CustomErrorResponses: [{ErrorCode: 404, ResponsePagePath: /404.html, ResponseCode: 404}]
`)}))
		if got := get(t, s, 0, "/404.html"); got.status != 404 || got.body != "/404.html version 1" || origin.count() != 1 {
			t.Errorf("%d %q, asked %d times", got.status, got.body, origin.count())
		}
	})
}

// Two errors that are each other's page do not wait for each other.
func TestErrorPagesOfEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		both := make(chan struct{})
		origin := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-both
			w.WriteHeader(map[string]int{"/a.html": 404, "/b.html": 500}[r.URL.Path])
			fmt.Fprint(w, r.URL.Path)
		})
		s := start(t, origin, now(Options{Edges: 1, Config: load(t, `
DefaultCacheBehavior: {CachePolicyId: CachingOptimized}
CustomErrorResponses:
  - {ErrorCode: 404, ResponsePagePath: /b.html, ResponseCode: 404}
  - {ErrorCode: 500, ResponsePagePath: /a.html, ResponseCode: 500}
`)}))
		var a, b fetched
		go func() { a = get(t, s, 0, "/a.html") }()
		go func() { b = get(t, s, 0, "/b.html") }()
		synctest.Wait()
		close(both)
		synctest.Wait()
		// Each gets the status of asking for its page, which depends on who is first.
		if a.status < 400 || a.body != "/a.html" || b.status < 400 || b.body != "/b.html" {
			t.Errorf("%d %q, %d %q", a.status, a.body, b.status, b.body)
		}
	})
}

// Stale content before a custom error page:
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/Expiration.html
func TestStaleIfError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin := &broken{control: "max-age=10, stale-if-error=60"}
		origin.status.Store(200)
		s := start(t, origin, now(Options{Edges: 1, Config: load(t, withPages)}))
		get(t, s, 0, "/a")
		origin.status.Store(500)
		time.Sleep(10 * time.Second)
		for range 6 { // the error has max-age=10 too, and the old one serves that long each time
			if got := get(t, s, 0, "/a"); got.status != 200 || got.body != "status 200" {
				t.Errorf("%d %q", got.status, got.body)
			}
			time.Sleep(10 * time.Second)
		}
		if got := get(t, s, 0, "/a"); got.status != 500 || got.body != "page /errors/500.html" {
			t.Errorf("after its time: %d %q", got.status, got.body)
		}
	})
}

func TestKeepForErrors(t *testing.T) {
	for _, row := range []struct {
		control string
		keep    bool
		status  int
	}{
		{"no-store", false, 503}, {"no-store", true, 200}, {"private", true, 200}, {"max-age=0", true, 200}, {"no-cache", true, 200},
		{"no-store, stale-if-error=0", true, 503},
	} {
		synctest.Test(t, func(t *testing.T) {
			origin := &pages{version: 1}
			origin.set(1, "Cache-Control", row.control, "Etag", "auto")
			s := start(t, origin, now(Options{Edges: 1, KeepForErrors: row.keep}))
			get(t, s, 0, "/p")
			if got := get(t, s, 0, "/p"); got.status != 200 || origin.count() != 2 || got.xcache() == xHit {
				t.Errorf("%s: it was served again: %q", row.control, got.xcache())
			}
			if held := len(s.Objects(0)); held != map[bool]int{true: 1}[row.keep] {
				t.Errorf("%s: %d held", row.control, held)
			}
			origin.set(1, "X", "y")
			origin.answer(503)
			if got := get(t, s, 0, "/p"); got.status != row.status {
				t.Errorf("%s, keep %v: %d, want %d", row.control, row.keep, got.status, row.status)
			}
			invalidate(t, s, "/p")
			if got := get(t, s, 0, "/p"); got.status != 503 {
				t.Errorf("%s: it served when it was removed: %d", row.control, got.status)
			}
		})
	}
}
