// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestRegionalCachesFeedTheirEdges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin := &pages{version: 1}
		origin.set(1, "Cache-Control", "max-age=60", "Etag", "auto")
		s := start(t, origin, now(Options{Edges: 4, Regional: 2}))
		for _, row := range []struct {
			edge, asked int
			xcache      string
		}{{0, 1, xMiss}, {2, 1, xHit}, {1, 2, xMiss}, {3, 2, xHit}, {0, 2, xHit}} {
			got := get(t, s, row.edge, "/p")
			if got.body != "/p version 1" || got.xcache() != row.xcache || origin.count() != row.asked {
				t.Errorf("edge %d: %q %q, %d at the origin; want %q, %d", row.edge, got.xcache(), got.body, origin.count(), row.xcache, row.asked)
			}
		}
		for i := range 2 {
			if o := s.Regional(i); len(o) != 1 || o[0].Path != "/p" || string(o[0].Body) != "/p version 1" {
				t.Errorf("regional cache %d holds %+v", i, o)
			}
		}
		if v := invalidate(t, s, "/p"); v.Removed != 6 || v.Edges != 4 || v.Regional != 2 || len(s.Regional(0))+len(s.Regional(1)) != 0 {
			t.Errorf("%+v", v)
		}
		// What is not cached skips the regional caches, and so does OPTIONS.
		ask(t, s, 0, http.MethodPost, "/p")
		options := start(t, origin, now(Options{Edges: 1, Regional: 1, Config: load(t,
			"DefaultCacheBehavior: {CachePolicyId: CachingOptimized, AllowedMethods: {Items: [GET, HEAD, OPTIONS], CachedMethods: [GET, HEAD, OPTIONS]}}")}))
		if ask(t, options, 0, http.MethodOptions, "/p"); len(options.Objects(0)) != 1 || len(options.Regional(0)) != 0 {
			t.Errorf("OPTIONS: %d at the edge, %d in the regional cache", len(options.Objects(0)), len(options.Regional(0)))
		}
		origin.set(1, "Cache-Control", "no-store")
		get(t, s, 0, "/q")
		if o := s.Regional(0); len(o) != 0 {
			t.Errorf("held: %+v", o)
		}
	})
}

func TestTiersCountAge(t *testing.T) {
	for _, ignore := range []bool{false, true} {
		t.Run(fmt.Sprintf("ignore %v", ignore), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				origin := &pages{version: 1}
				origin.set(1, "Cache-Control", "max-age=60")
				s := start(t, origin, now(Options{Edges: 2, Regional: 1, TiersIgnoreAge: ignore}))
				get(t, s, 0, "/p")
				origin.set(2)
				time.Sleep(50 * time.Second)
				if got := get(t, s, 1, "/p"); got.header.Get("Age") != "50" || got.xcache() != xHit {
					t.Errorf("from the regional cache: Age %q, %q", got.header.Get("Age"), got.xcache())
				}
				o, _ := s.Peek(1, "/p")
				want := 10 * time.Second
				if ignore {
					want = 60 * time.Second
				}
				if left := time.Until(o.Expires); left != want {
					t.Errorf("the edge keeps it for %v, want %v", left, want)
				}
				time.Sleep(59 * time.Second)
				body := "/p version 2"
				if ignore {
					body = "/p version 1" // 109 s after it left the origin: nearly two lifetimes
				}
				if got := get(t, s, 1, "/p"); got.body != body {
					t.Errorf("after 109 s: %q, want %q", got.body, body)
				}
			})
		})
	}
}

// An edge asks its regional cache whether what it holds is unchanged, and that one the origin.
func TestTiersRevalidate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin := &pages{version: 1}
		origin.set(1, "Cache-Control", "max-age=60", "Etag", "auto")
		s := start(t, origin, now(Options{Edges: 2, Regional: 1}))
		get(t, s, 0, "/p")
		get(t, s, 1, "/p")
		time.Sleep(60 * time.Second)
		if got := get(t, s, 0, "/p"); got.xcache() != xRefreshHit || origin.last().Header.Get("If-None-Match") != `"1"` || origin.count() != 2 {
			t.Errorf("edge 0: %q, %d at the origin, %v", got.xcache(), origin.count(), origin.last().Header)
		}
		time.Sleep(20 * time.Second)
		if got := get(t, s, 1, "/p"); got.xcache() != xRefreshHit || origin.count() != 2 || got.header.Get("Age") != "20" {
			t.Errorf("edge 1: %q, Age %s, %d at the origin", got.xcache(), got.header.Get("Age"), origin.count())
		}
		if o, _ := s.Peek(1, "/p"); time.Until(o.Expires) != 40*time.Second {
			t.Errorf("edge 1 keeps it for %v", time.Until(o.Expires))
		}
		origin.set(2)
		time.Sleep(60 * time.Second)
		if got := get(t, s, 1, "/p"); got.body != "/p version 2" || got.xcache() != xMiss {
			t.Errorf("changed: %q %q", got.xcache(), got.body)
		}
	})
}

// The race in two tiers: both store what was under way when they processed the purge.
func TestFetchUnderWayIsStoredInEachTier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin := &pages{version: 1, wait: make(chan struct{})}
		s := start(t, origin, now(Options{Edges: 2, Regional: 1}))
		go get(t, s, 0, "/p")
		synctest.Wait()
		invalidate(t, s, "/p")
		origin.set(2)
		close(origin.wait)
		synctest.Wait()
		for i := range 2 {
			if got := get(t, s, i, "/p"); got.body != "/p version 1" || got.xcache() != xHit {
				t.Errorf("edge %d: %q %q", i, got.xcache(), got.body)
			}
		}
		if len(s.Regional(0)) != 1 {
			t.Error("the regional cache has not stored it")
		}
		invalidate(t, s, "/p")
		if got := get(t, s, 1, "/p"); got.body != "/p version 2" {
			t.Errorf("after a second purge: %q", got.body)
		}
	})
}

// refilled says whether an edge served the old version after it had processed the purge.
func refilled(t *testing.T, o Options) (again bool) {
	synctest.Test(t, func(t *testing.T) {
		origin := &pages{version: 1}
		o.Propagation, o.Completion = 10*time.Second, -1
		s := start(t, origin, &o)
		all := func(each func(i int, got fetched)) {
			for i := range s.Edges() {
				each(i, get(t, s, i, "/p"))
			}
		}
		all(func(int, fetched) {})
		origin.set(2)
		invalidate(t, s, "/p")
		done := make([]bool, s.Edges())
		for range 101 {
			for i := range done {
				if _, held := s.Peek(i, "/p"); !held {
					done[i] = true
				}
			}
			all(func(i int, got fetched) { again = again || done[i] && got.body == "/p version 1" })
			time.Sleep(100 * time.Millisecond)
		}
		all(func(i int, got fetched) {
			if got.body != "/p version 2" && !o.Harsh {
				t.Errorf("edge %d at the end: %q", i, got.body)
			}
		})
	})
	return again
}

// Whatever the seed, no edge is filled again with what it removed, unless Harsh; and then it is by some.
func TestOnlyHarshRefillsAnEdge(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		o := Options{
			Edges: rapid.IntRange(1, 5).Draw(rt, "edges"), Seed: rapid.Uint64().Draw(rt, "seed"),
			TiersIgnoreAge: rapid.Bool().Draw(rt, "age"),
		}
		o.Regional = rapid.IntRange(0, o.Edges).Draw(rt, "regional")
		if refilled(t, o) {
			rt.Fatalf("an edge was filled again: %+v", o)
		}
	})
	for seed := range uint64(50) {
		if refilled(t, Options{Edges: 3, Regional: 1, Harsh: true, Seed: seed}) {
			return
		}
	}
	t.Error("Harsh did not fill an edge again in 50 tries")
}

func TestTiersOnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin := &pages{version: 1}
		origin.set(1, "Cache-Control", "max-age=5")
		s := start(t, origin, now(Options{Edges: 2, Regional: 1}))
		get(t, s, 0, "/p")
		time.Sleep(5 * time.Second)
		origin.answer(503)
		for i := range 2 { // edge 1 has none of its own, but the regional cache has
			if got := get(t, s, i, "/p"); got.status != 200 || got.body != "/p version 1" {
				t.Errorf("edge %d: %d %q", i, got.status, got.body)
			}
		}
		if n := origin.count(); n != 2 {
			t.Errorf("%d at the origin, want the failure to be remembered for 10 s", n)
		}
		if got := get(t, s, 1, "/none"); got.status != 503 || got.xcache() != xError {
			t.Errorf("%d %q", got.status, got.xcache())
		}
		invalidate(t, s, "/p")
		if got := get(t, s, 0, "/p"); got.status != 503 {
			t.Errorf("a removed object served: %d %q", got.status, got.body)
		}
	})
}

// A viewer that leaves leaves nothing running.
func TestTiersViewerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin := &pages{version: 1, wait: make(chan struct{})}
		s := start(t, origin, now(Options{Edges: 1, Regional: 1}))
		ctx, leave := context.WithCancel(t.Context())
		go func() {
			r := must(http.NewRequestWithContext(ctx, http.MethodGet, "http://edge0.simulator/p", nil))
			if _, err := s.Transport().RoundTrip(r); err == nil {
				t.Error("an answer for a viewer that has gone")
			}
		}()
		synctest.Wait()
		leave()
		synctest.Wait()
		close(origin.wait)
		synctest.Wait()
		if got := get(t, s, 0, "/p"); got.xcache() != xHit || origin.count() != 1 {
			t.Errorf("%q, %d at the origin", got.xcache(), origin.count())
		}
	})
}
