// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// How long an edge serves a response without asking again, by what it says and by the TTLs of its behaviour.
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/Expiration.html#ExpirationDownloadDist
func TestTTLs(t *testing.T) {
	const later = "+" // in Expires: so many seconds from now
	for _, row := range []struct {
		low, def, high int
		header         string
		seconds        int
	}{
		{0, 100, 1000, "Cache-Control: max-age=50", 50},
		{0, 100, 1000, "Cache-Control: max-age=5000", 1000},
		{0, 100, 1000, "Cache-Control: max-age=50, s-maxage=70", 70},
		{0, 100, 1000, "Cache-Control: max-age=50, s-maxage=7000", 1000},
		{0, 100, 1000, "Expires: +60", 60},
		{0, 100, 1000, "Expires: +6000", 1000},
		{0, 100, 1000, "Expires: +60|Cache-Control: max-age=20", 20},
		{0, 100, 1000, "Expires: 0", 0},
		{0, 100, 1000, "", 100},
		{0, 100, 1000, "Cache-Control: public", 100},
		{0, 100, 1000, "Cache-Control: no-store", 0},
		{0, 100, 1000, "Cache-Control: no-cache", 0},
		{0, 100, 1000, "Cache-Control: private", 0},
		{0, 100, 1000, "Cache-Control: max-age=0", 0},
		{10, 100, 1000, "Cache-Control: max-age=50", 50},
		{10, 100, 1000, "Cache-Control: max-age=5", 10},
		{10, 100, 1000, "Cache-Control: max-age=50, s-maxage=5", 10},
		{10, 100, 1000, "Expires: +5", 10},
		{10, 100, 1000, "Expires: +50", 50},
		{10, 100, 1000, "", 100},
		{10, 10, 1000, "", 10},
		{10, 100, 1000, "Cache-Control: no-store", 10},
		{10, 100, 1000, "Cache-Control: no-cache, no-store, private", 10},
		{0, 0, 1000, "", 0},
		{0, 0, 0, "Cache-Control: max-age=50", 0}, // caching is off
	} {
		synctest.Test(t, func(t *testing.T) {
			origin := &pages{version: 1}
			var header []string
			for h := range strings.SplitSeq(row.header, "|") {
				if name, v, ok := strings.Cut(h, ": "); ok {
					if after, ok := strings.CutPrefix(v, later); ok {
						v = time.Now().Add(must(time.ParseDuration(after + "s"))).UTC().Format(http.TimeFormat)
					}
					header = append(header, name, v)
				}
			}
			origin.set(1, append(header, "X", "y")...)
			c := load(t, fmt.Sprintf("DefaultCacheBehavior: {CachePolicyId: own}\nCachePolicies: [{Id: own, CachePolicyConfig: {MinTTL: %d, DefaultTTL: %d, MaxTTL: %d}}]", row.low, row.def, row.high))
			for _, tiers := range []int{0, 1} {
				s := start(t, origin, now(Options{Edges: 1, Regional: tiers, Config: c}))
				asked := origin.count()
				get(t, s, 0, "/p")
				if row.seconds > 0 {
					time.Sleep(time.Duration(row.seconds)*time.Second - 1)
					if got := get(t, s, 0, "/p"); got.xcache() != xHit {
						t.Errorf("%d/%d/%d %q: %s before %d s have passed", row.low, row.def, row.high, row.header, got.xcache(), row.seconds)
					}
					time.Sleep(time.Nanosecond)
				}
				if get(t, s, 0, "/p"); origin.count() != asked+2 {
					t.Errorf("%d/%d/%d %q: %d at the origin after %d s, want 2", row.low, row.def, row.high, row.header, origin.count()-asked, row.seconds)
				}
				if strings.Contains(row.header, later) {
					break // the date is that of the first
				}
			}
		})
	}
}

// Which errors are kept, and how long: https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/HTTPStatusCodes.html
func TestErrorTTLs(t *testing.T) {
	for _, row := range []struct {
		status  int
		control string
		seconds int
	}{
		{404, "", 10}, {404, "no-store", 10}, {404, "max-age=5", 10}, {404, "max-age=50", 50}, {404, "s-maxage=60, max-age=50", 60},
		{414, "", 10}, {500, "", 10}, {501, "", 10}, {502, "", 10}, {503, "", 30}, {503, "max-age=5", 30}, {504, "", 10},
		{400, "", 0}, {400, "max-age=50", 50}, {403, "", 0}, {403, "max-age=5", 10}, {405, "max-age=50", 50}, {412, "max-age=50", 50}, {415, "max-age=50", 50},
		{401, "max-age=50", 0}, {410, "max-age=50", 0}, {416, "max-age=50", 0}, {429, "max-age=50", 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			origin := &pages{version: 1}
			origin.answer(row.status)
			origin.set(1, "Cache-Control", row.control)
			s := start(t, origin, now(Options{Edges: 1, Config: load(t,
				"DefaultCacheBehavior: {CachePolicyId: UseOriginCacheControlHeaders}\nCustomErrorResponses: [{ErrorCode: 503, ErrorCachingMinTTL: 30}]")}))
			get(t, s, 0, "/p")
			if row.seconds > 0 {
				time.Sleep(time.Duration(row.seconds)*time.Second - 1)
				if get(t, s, 0, "/p"); origin.count() != 1 {
					t.Errorf("%d %q: asked again before %d s have passed", row.status, row.control, row.seconds)
				}
				time.Sleep(time.Nanosecond)
			}
			if got := get(t, s, 0, "/p"); origin.count() != 2 || got.status != row.status {
				t.Errorf("%d %q: %d, %d at the origin", row.status, row.control, got.status, origin.count())
			}
		})
	}
}

// A condition of a viewer goes to the origin when nothing is held, and its answer is nobody else's.
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/RequestAndResponseBehaviorCustomOrigin.html
func TestViewerConditionOnAMiss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waited := func(held func(int) []Object) []Object { // a body may come in after its viewer has been told that it has it
			synctest.Wait()
			return held(0)
		}
		origin := &pages{version: 1}
		origin.set(1, "Etag", "auto", "Cache-Control", "max-age=60")
		s := start(t, origin, now(Options{Edges: 1}))
		if got := ask(t, s, 0, "GET", "/p", "If-None-Match", `"1"`); got.status != 304 || got.xcache() != xMiss || len(waited(s.Objects)) != 0 {
			t.Errorf("%d %q, held %v", got.status, got.xcache(), s.Objects(0))
		}
		if got := get(t, s, 0, "/p"); got.status != 200 || got.body != "/p version 1" {
			t.Errorf("%d %q", got.status, got.body)
		}
		// A regional cache fetches the whole, and answers.
		s = start(t, origin, now(Options{Edges: 1, Regional: 1}))
		if got := ask(t, s, 0, "GET", "/p", "If-None-Match", `"1"`); got.status != 304 || len(waited(s.Regional)) != 1 || len(waited(s.Objects)) != 1 {
			t.Errorf("in two tiers: %d %q, held %v", got.status, got.xcache(), s.Objects(0))
		}
		// So is a 412, but only then.
		origin.set(1, "Cache-Control", "max-age=60")
		origin.answer(412)
		s = start(t, origin, now(Options{Edges: 1}))
		if ask(t, s, 0, "GET", "/p", "If-Match", `"2"`); len(waited(s.Objects)) != 0 {
			t.Errorf("held %v", s.Objects(0))
		}
		if get(t, s, 0, "/p"); len(waited(s.Objects)) != 1 {
			t.Errorf("held %v", s.Objects(0))
		}
	})
}

// Conditional requests are not supported where cookies are forwarded:
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/Cookies.html
func TestNoConditionsWithCookies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin := &pages{version: 1}
		origin.set(1, "Etag", "auto", "Cache-Control", "max-age=60")
		s := start(t, origin, now(Options{Edges: 1, Config: load(t, policies("CookiesConfig: {CookieBehavior: all}", ""))}))
		get(t, s, 0, "/p")
		if got := ask(t, s, 0, "GET", "/p", "If-None-Match", `"1"`); got.status != 200 || got.xcache() != xHit {
			t.Errorf("%d %q", got.status, got.xcache())
		}
		time.Sleep(time.Minute)
		if got := get(t, s, 0, "/p"); got.xcache() != xMiss || origin.last().Header.Get("If-None-Match") != "" {
			t.Errorf("%q, asked with %v", got.xcache(), origin.last().Header)
		}
	})
}

func TestRootKeyIsIndex(t *testing.T) {
	c := load(t, "DefaultRootObject: index.html\nDefaultCacheBehavior: {CachePolicyId: UseOriginCacheControlHeaders-QueryStrings}")
	origin := &pages{version: 1}
	origin.set(1, "Cache-Control", "max-age=60")
	for _, is := range []bool{false, true} {
		s := start(t, origin, now(Options{Edges: 1, Config: c, RootKeyIsIndex: is}))
		for _, target := range []string{"/", "/?a", "/dir/"} {
			get(t, s, 0, target)
		}
		if got := get(t, s, 0, "/index.html"); (got.xcache() == xHit) != is || got.body != "/index.html version 1" {
			t.Errorf("%v: %q %q", is, got.xcache(), got.body)
		}
		if v := invalidate(t, s, "/"); (v.Removed == 1) == is {
			t.Errorf("%v: / removed %d", is, v.Removed)
		}
		if v := invalidate(t, s, "/index.html*"); (v.Removed == 2) != is {
			t.Errorf("%v: /index.html* removed %d", is, v.Removed)
		}
	}
}

// GET and HEAD are sent again when the origin does not answer, nothing else is.
func TestConnectionAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		asked := map[string]int{}
		silent := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			mu.Lock()
			asked[r.Method]++
			mu.Unlock()
			<-r.Context().Done()
		})
		s := start(t, silent, now(Options{Edges: 1, Config: load(t, `
Origins: [{Id: a, ConnectionAttempts: 2, CustomOriginConfig: {OriginReadTimeout: 7}}]
DefaultCacheBehavior: {CachePolicyId: CachingDisabled, AllowedMethods: [GET, HEAD, OPTIONS, PUT, POST, PATCH, DELETE]}`)}))
		for _, row := range []struct {
			method string
			times  int
		}{{"GET", 2}, {"HEAD", 2}, {"POST", 1}} {
			began := time.Now()
			got := ask(t, s, 0, row.method, "/p")
			mu.Lock()
			if got.status != 504 || asked[row.method] != row.times || time.Since(began) != time.Duration(row.times)*7*time.Second {
				t.Errorf("%s: %d, asked %d times, %v", row.method, got.status, asked[row.method], time.Since(began))
			}
			mu.Unlock()
		}
	})
}

func TestAgeOfTheOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin := &pages{version: 1}
		origin.set(1, "Age", "30", "Cache-Control", "max-age=60", "Connection", "X-Hop", "X-Hop", "1")
		s := start(t, origin, now(Options{Edges: 1}))
		if got := get(t, s, 0, "/p"); got.header.Get("Age") != "30" || got.header.Get("X-Hop") != "" {
			t.Errorf("%v", got.header)
		}
		time.Sleep(59 * time.Second) // it does not shorten the life
		if got := get(t, s, 0, "/p"); got.header.Get("Age") != "89" || got.xcache() != xHit {
			t.Errorf("%v", got.header)
		}
	})
}

// What a 304 says of the body is not taken over.
func TestHeadersOfA304(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		version := "a"
		s := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for _, name := range []string{"Content-Encoding", "X-Other", "Content-Md5"} {
				w.Header().Set(name, version)
			}
			w.Header().Set("Cache-Control", "max-age=5")
			w.Header().Set("Etag", `"`+version+`"`)
			if r.Header.Get("If-None-Match") != "" {
				w.WriteHeader(http.StatusNotModified)
			}
		}), now(Options{Edges: 1}))
		get(t, s, 0, "/p")
		version = "b"
		time.Sleep(5 * time.Second)
		got := get(t, s, 0, "/p")
		if h := got.header; h.Get("X-Other") != "b" || h.Get("Content-Encoding") != "a" || h.Get("Content-Md5") != "a" || h.Get("Etag") != `"a"` {
			t.Errorf("%v", h)
		}
	})
}

// A part that is not as long as it says.
func TestWrongPart(t *testing.T) {
	for _, length := range []string{"3", ""} {
		origin := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 0-9/20")
			if length != "" {
				w.Header().Set("Content-Length", length)
			}
			w.WriteHeader(http.StatusPartialContent)
			fmt.Fprint(w, "abc")
		})
		s := start(t, origin, now(Options{Edges: 1}))
		got := ask(t, s, 0, "GET", "/p", "Range", "bytes=0-9")
		want := map[string]int{"3": 502, "": 206}[length]
		if got.status != want || want == 206 && (got.body != "abc" || len(s.Objects(0)) != 0) {
			t.Errorf("length %q: %d %q, held %v", length, got.status, got.body, s.Objects(0))
		}
	}
}

func TestConfigOptions(t *testing.T) {
	c := load(t, "DefaultCacheBehavior: {CachePolicyId: CachingOptimized}")
	rules := c.Rules()
	for name, o := range map[string]Options{
		"both":      {Config: c, Rules: &rules},
		"alias":     {Config: c, Aliases: []string{"a"}},
		"bad":       {Config: &Config{}},
		"regional":  {Edges: 2, Regional: 3},
		"regional-": {Regional: -1},
	} {
		if s, err := New(nil, &o); err == nil {
			s.Close()
			t.Errorf("%s: no error", name)
		}
	}
}
