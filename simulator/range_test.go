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

	"pgregory.net/rapid"
)

// file is an origin with one long page, with or without ranges.
type file struct {
	mu      sync.Mutex
	content string
	etag    string
	ranges  bool
	asked   []string // the Range headers
}

func (f *file) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.asked = append(f.asked, r.Header.Get("Range"))
	content, etag, ranges := f.content, f.etag, f.ranges
	f.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Cache-Control", "max-age=60")
	if etag != "" {
		w.Header().Set("Etag", etag)
	}
	if !ranges {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		fmt.Fprint(w, content)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
}

const digits = "0123456789abcdefghij"

// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/RangeGETs.html
func TestRangesOfAWhole(t *testing.T) {
	origin := &file{content: digits, etag: `"1"`}
	s := start(t, origin, now(Options{Edges: 1}))
	get(t, s, 0, "/p")
	for _, row := range []struct {
		ask          string
		status       int
		body, answer string
	}{
		{"bytes=0-4", 206, "01234", "bytes 0-4/20"},
		{"bytes=18-", 206, "ij", "bytes 18-19/20"},
		{"bytes=18-99", 206, "ij", "bytes 18-19/20"},
		{"bytes=-3", 206, "hij", "bytes 17-19/20"},
		{"bytes=-99", 206, digits, "bytes 0-19/20"},
		{"bytes=20-", 416, "", "bytes */20"},
		// What does not keep to the rules gets it all.
		{"bytes=4-0", 200, digits, ""},
		{"bytes=a-b", 200, digits, ""},
		{"bytes=-", 200, digits, ""},
		{"lines=0-1", 200, digits, ""},
		{"bytes=10-12,0-2", 200, digits, ""}, // not in order
		{"bytes=0-5,3-9", 200, digits, ""},   // they overlap
		{"bytes=0-1,-1", 206, "", ""},
		{"bytes=0-1,4-5", 206, "", ""},
	} {
		got := ask(t, s, 0, "GET", "/p", "Range", row.ask)
		if got.status != row.status || got.header.Get("Content-Range") != row.answer || row.body != "" && got.body != row.body {
			t.Errorf("%s: %d %q %q", row.ask, got.status, got.header.Get("Content-Range"), got.body)
		}
		if multi := strings.HasPrefix(got.header.Get("Content-Type"), "multipart/byteranges"); multi != (row.status == 206 && row.answer == "") {
			t.Errorf("%s: %s", row.ask, got.header.Get("Content-Type"))
		}
		if row.status != 416 && got.xcache() != xHit {
			t.Errorf("%s: %s", row.ask, got.xcache())
		}
	}
	for _, row := range []struct {
		ifRange string
		status  int
	}{{`"1"`, 206}, {`"2"`, 200}, {`W/"1"`, 200}} {
		if got := ask(t, s, 0, "GET", "/p", "Range", "bytes=0-4", "If-Range", row.ifRange); got.status != row.status {
			t.Errorf("If-Range %s: %d, want %d", row.ifRange, got.status, row.status)
		}
	}
	if got := ask(t, s, 0, "GET", "/p", "Range", "bytes=0-4", "If-None-Match", `"1"`); got.status != 304 {
		t.Errorf("a condition and a range: %d", got.status)
	}
	if got := ask(t, s, 0, "HEAD", "/p", "Range", "bytes=0-4"); got.status != 200 || got.header.Get("Content-Length") != "20" {
		t.Errorf("HEAD with a range: %d %v", got.status, got.header)
	}
	if len(origin.asked) != 1 {
		t.Errorf("the origin was asked for %q", origin.asked)
	}
}

func TestRangeMiss(t *testing.T) {
	for _, tiers := range []int{0, 1} {
		origin := &file{content: digits, etag: `"1"`, ranges: true}
		s := start(t, origin, now(Options{Edges: 1, Regional: tiers}))
		for i, row := range []struct {
			ask, body, xcache string
			asked             int
		}{
			{"bytes=5-9", "56789", xMiss, 1},
			{"bytes=5-9", "56789", xHit, 1},
			{"bytes=6-7", "67", xHit, 1},    // it lies within
			{"bytes=8-10", "89a", xMiss, 2}, // it does not
			{"bytes=15-", "fghij", xMiss, 3},
			{"bytes=-2", "ij", xHit, 3},
		} {
			got := ask(t, s, 0, "GET", "/p", "Range", row.ask)
			if got.status != 206 || got.body != row.body || got.xcache() != row.xcache || len(origin.asked) != row.asked {
				t.Errorf("%d, %s: %d %q %q, the origin %q", i, row.ask, got.status, got.body, got.xcache(), origin.asked)
			}
			if want := fmt.Sprint(len(row.body)); got.header.Get("Content-Length") != want {
				t.Errorf("%s: Content-Length %s", row.ask, got.header.Get("Content-Length"))
			}
		}
		if o := s.Objects(0); len(o) != 3 || o[0].Status != 206 || o[0].Header.Get("Content-Range") != "bytes 15-19/20" {
			t.Errorf("held: %+v", o)
		}
		// Another version: the parts of the old one go.
		origin.etag, origin.content = `"2"`, strings.ToUpper(digits)
		if got := ask(t, s, 0, "GET", "/p", "Range", "bytes=10-12"); got.body != "ABC" || len(s.Objects(0)) != 1 {
			t.Errorf("%q, %d parts", got.body, len(s.Objects(0)))
		}
		if v := invalidate(t, s, "/p"); v.Removed != 1+tiers || len(s.Objects(0)) != 0 {
			t.Errorf("removed %d", v.Removed)
		}
		// The whole takes the place of its parts.
		ask(t, s, 0, "GET", "/p", "Range", "bytes=0-1")
		get(t, s, 0, "/p")
		if o := s.Objects(0); len(o) != 1 || o[0].Status != 200 {
			t.Errorf("held: %+v", o)
		}
		if got := ask(t, s, 0, "GET", "/none", "Range", "bytes=90-"); got.status != 416 || len(s.Objects(0)) != 1 {
			t.Errorf("outside: %d", got.status)
		}
	}
}

// Without ranges at the origin the whole is served, kept, and serves the next range.
func TestRangeMissOfAWhole(t *testing.T) {
	origin := &file{content: digits}
	s := start(t, origin, now(Options{Edges: 1}))
	for _, row := range []struct {
		ask, body string
		status    int
	}{{"bytes=5-9", digits, 200}, {"bytes=5-9", "56789", 206}} {
		if got := ask(t, s, 0, "GET", "/p", "Range", row.ask); got.status != row.status || got.body != row.body {
			t.Errorf("%d %q, want %d %q", got.status, got.body, row.status, row.body)
		}
	}
	origin = &file{content: digits, ranges: true}
	s = start(t, origin, now(Options{Edges: 1}))
	if got := ask(t, s, 0, "GET", "/p", "Range", "bytes=0-1,4-5"); got.status != 206 || len(s.Objects(0)) != 0 {
		t.Errorf("several ranges: %d, held %v", got.status, s.Objects(0))
	}
}

// Whoever asks for whatever part in whatever order gets what the origin has.
func TestRangesAgreeWithTheOrigin(t *testing.T) {
	type request struct {
		from, to, edge int
		part, wait     bool
	}
	requests := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) request {
		from := rapid.IntRange(0, 19).Draw(t, "from")
		return request{
			from, rapid.IntRange(from, 25).Draw(t, "to"), rapid.IntRange(0, 1).Draw(t, "edge"),
			rapid.Bool().Draw(t, "part"), rapid.IntRange(0, 4).Draw(t, "wait") == 0,
		}
	}), 1, 12)
	rapid.Check(t, func(rt *rapid.T) {
		origin := &file{content: digits, etag: `"1"`, ranges: rapid.Bool().Draw(rt, "ranges")}
		regional, program := rapid.IntRange(0, 1).Draw(rt, "regional"), requests.Draw(rt, "requests")
		synctest.Test(t, func(t *testing.T) {
			s := start(t, origin, now(Options{Edges: 2, Regional: regional}))
			for _, r := range program {
				var header []string
				want := digits
				if r.part {
					header = []string{"Range", fmt.Sprintf("bytes=%d-%d", r.from, r.to)}
					want = digits[r.from:min(r.to+1, 20)]
				}
				got := ask(t, s, r.edge, "GET", "/p", header...)
				if got.body != want && (got.status != 200 || got.body != digits) {
					rt.Errorf("%v: %d %q", header, got.status, got.body)
				}
				if got.status == 206 && got.header.Get("Content-Range") != fmt.Sprintf("bytes %d-%d/20", r.from, min(r.to, 19)) {
					rt.Errorf("%v: %s", header, got.header.Get("Content-Range"))
				}
				if r.wait {
					time.Sleep(40 * time.Second)
				}
			}
		})
	})
}

func FuzzParseRange(f *testing.F) {
	for _, s := range []string{"bytes=0-1", "bytes=-5", "bytes=1-,3-4", "bytes=9223372036854775807-", "bytes=--1", "bytes=,"} {
		f.Add(s, int64(20))
	}
	f.Fuzz(func(t *testing.T, s string, size int64) {
		ranges, ok := parseRange(s)
		if ok && len(ranges) == 0 {
			t.Error("no ranges, but fine")
		}
		if size < 0 {
			return
		}
		for _, w := range ranges {
			if from, to := w.of(size); from < 0 || to >= max(size, 1) {
				t.Errorf("%q of %d: %d-%d", s, size, from, to)
			}
		}
		countsFor(size, ranges)
	})
}
