// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestSomebodyElseInvalidates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin := &pages{}
		s := start(t, origin, now(Options{Edges: 1, Foreign: Foreign{Rate: 0.5, Paths: 2, Wildcards: 1, From: []string{"/a", "#tag", "/b*"}}}))
		get(t, s, 0, "/a")
		get(t, s, 0, "/b/c")
		get(t, s, 0, "/d")
		time.Sleep(1000 * time.Second)
		synctest.Wait()
		all := s.Invalidations()
		if n := len(all); n < 400 || n > 600 {
			t.Fatalf("%d batches in 1000 s, want about 500", n)
		}
		gaps := map[time.Duration]bool{}
		for i, v := range all {
			if v.Caller != SomebodyElse || len(v.Items) != 3 || v.Items[2] != "/b*" || v.Items[0] != "/a" && v.Items[0] != "#tag" {
				t.Fatalf("%+v", v)
			}
			if i > 0 {
				gaps[v.Created.Sub(all[i-1].Created).Round(100*time.Millisecond)] = true
			}
		}
		if len(gaps) < 20 {
			t.Errorf("only %d different distances between batches", len(gaps))
		}
		if _, held := s.Peek(0, "/a"); held {
			t.Error("/a is held still")
		}
		if _, held := s.Peek(0, "/b/c"); held {
			t.Error("/b/c is held still")
		}
		if _, held := s.Peek(0, "/d"); !held {
			t.Error("/d is gone")
		}
		if s.Billed() != 0 || len(s.Calls()) != 0 {
			t.Errorf("billed %d, calls %v, though nobody called", s.Billed(), s.Calls())
		}
		if got := call(s, http.MethodGet, invalidations, ""); !strings.Contains(got.body, all[len(all)-1].ID) {
			t.Errorf("not listed: %.300s", got.body)
		}
	})
}

func TestForeignItemsAreMadeUp(t *testing.T) {
	run := func(seed uint64) []Invalidation {
		var all []Invalidation
		synctest.Test(t, func(t *testing.T) {
			s := start(t, nil, now(Options{Seed: seed, Foreign: Foreign{Rate: 1, Paths: 1, Wildcards: 1}}))
			time.Sleep(20 * time.Second)
			synctest.Wait()
			all = s.Invalidations()
		})
		return all
	}
	a, b, c := run(1), run(1), run(2)
	for _, v := range a {
		if !strings.HasPrefix(v.Items[0], "/somebody-else/") || !strings.HasPrefix(v.Items[1], "/somebody-else/") || !strings.HasSuffix(v.Items[1], "/*") {
			t.Errorf("%q", v.Items)
		}
	}
	if fmt.Sprint(a) != fmt.Sprint(b) || fmt.Sprint(a) == fmt.Sprint(c) {
		t.Error("what somebody else does does not depend on the seed alone")
	}
}

// The fault of a refusal is its caller's if the caller alone would have been refused.
func TestWhoseFaultARefusalIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &tester{Simulator: start(t, nil, &Options{Propagation: time.Minute, Limits: Limits{Paths: 10, WildcardRate: 1, WildcardBurst: 1, CallRate: 1, CallBurst: 5}})}
		other := func(items ...string) string {
			s.n++
			r := batch(fmt.Sprint("other", s.n), items...)
			req := must(http.NewRequest(http.MethodPost, "http://api.simulator"+invalidations, strings.NewReader(r)))
			req.Header.Set("Authorization", strings.Replace(signature, "AKIDEXAMPLE", "AKIDOTHER", 1))
			resp, err := s.Transport().RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Sprint(resp.StatusCode)
		}
		inject := func(want string, items ...string) {
			t.Helper()
			if _, err := s.Invalidate(items...); !strings.HasPrefix(fmt.Sprint(err), want) {
				t.Errorf("somebody else's %q: %v, want %s", items, err, want)
			}
		}
		inject("<nil>", numbered(6, "")...)       // 6 of 10
		s.send(invalidations, numbered(5, "")...) // refused: theirs
		s.send(invalidations, numbered(3, "")...) // 9 of 10
		s.send(invalidations, numbered(8, "")...) // refused: ours, 3 and 8 are over 10
		inject(tooMany, "/x", "/y")               // theirs, and not in Refusals
		inject(throttling, "/x")                  // sixth call
		s.send(invalidations, "/a")               // seventh call: theirs, we had made three
		time.Sleep(10 * time.Second)
		inject("<nil>", "/w*")
		s.send(invalidations, "/v*") // refused: theirs
		time.Sleep(time.Second)
		s.send(invalidations, "/v*")
		s.send(invalidations, "/v*") // refused: ours
		if got := other("/v*"); got != "400" {
			t.Errorf("another caller: %s", got)
		}
		time.Sleep(time.Second)
		inject("InvalidArgument", "bad path")
		inject("InvalidArgument")

		got := []string{}
		for _, c := range s.Refusals() {
			got = append(got, fmt.Sprintf("%s %s %s own=%v", c.Caller, c.Code, c.Cause, c.Own))
		}
		want := []string{
			"AKIDEXAMPLE TooManyInvalidationsInProgress paths in progress own=false",
			"AKIDEXAMPLE TooManyInvalidationsInProgress paths in progress own=true",
			"AKIDEXAMPLE Throttling call rate own=false",
			"AKIDEXAMPLE TooManyInvalidationsInProgress wildcard rate own=false",
			"AKIDEXAMPLE TooManyInvalidationsInProgress wildcard rate own=true",
			"AKIDOTHER TooManyInvalidationsInProgress wildcard rate own=false",
		}
		if !slices.Equal(got, want) {
			t.Errorf("refusals:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		// Once all is Completed, nothing is held back by what was.
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		for k, q := range s.quotas {
			if q.pathsInProgress != 0 || q.wildsInProgress != 0 {
				t.Errorf("%+v still has %d paths and %d wildcards in progress", k, q.pathsInProgress, q.wildsInProgress)
			}
		}
	})
}

func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, nil, now(Options{Tenants: []string{"dt_1"}, Limits: Limits{Paths: 2}}))
		begin := time.Now()
		calls := []struct{ method, path, body string }{
			{http.MethodPost, invalidations, batch("r1", "/a", "/b*", "#t")},
			{http.MethodPost, invalidations, batch("r1", "/a", "/b*", "#t")},
			{http.MethodPost, invalidations, batch("r2", "/a", "bad")},
			{http.MethodPost, invalidations, batch("r3", "/a", "/b", "/c")},
			{http.MethodPost, invalidations, "<"},
			{http.MethodGet, invalidations + "/INONE", ""},
			{http.MethodGet, "/2020-05-31/distribution-tenant/dt_1/invalidation", ""},
			{http.MethodGet, "/", ""},
		}
		for _, c := range calls {
			call(s, c.method, c.path, c.body)
			time.Sleep(time.Second)
		}
		id := s.Invalidations()[0].ID
		want := []Call{
			{Operation: CreateInvalidation, Target: DefaultDistribution, Paths: 2, Wildcards: 1, Reference: "r1", ID: id, Status: 201},
			{Operation: CreateInvalidation, Target: DefaultDistribution, Paths: 2, Wildcards: 1, Reference: "r1", ID: id, Status: 201, Repeat: true},
			{Operation: CreateInvalidation, Target: DefaultDistribution, Paths: 2, Reference: "r2", Status: 400, Code: "InvalidArgument", Cause: BadRequest},
			{Operation: CreateInvalidation, Target: DefaultDistribution, Paths: 3, Reference: "r3", Status: 400, Code: tooMany, Cause: PathsInProgress, Own: true},
			{Operation: CreateInvalidation, Target: DefaultDistribution, Status: 400, Code: "MalformedXML", Cause: BadRequest},
			{Operation: GetInvalidation, Target: DefaultDistribution, ID: "INONE", Status: 404, Code: "NoSuchInvalidation", Cause: BadRequest},
			{Operation: ListInvalidationsForTenant, Target: "dt_1", Status: 200},
			{Status: 404, Code: "UnknownOperation", Cause: BadRequest},
		}
		for i := range want {
			want[i].Time, want[i].Caller = begin.Add(time.Duration(i)*time.Second), "AKIDEXAMPLE"
		}
		if got := s.Log(); !slices.Equal(got, want) {
			for i := range min(len(got), len(want)) {
				if got[i] != want[i] {
					t.Errorf("call %d:\n%+v, want\n%+v", i, got[i], want[i])
				}
			}
			if len(got) != len(want) {
				t.Errorf("%d calls, want %d", len(got), len(want))
			}
		}
	})
}

// A refusal whose answer was lost, or that was answered otherwise, is still one.
func TestLostRefusalsAreRefusals(t *testing.T) {
	s := start(t, nil, &Options{Limits: Limits{Paths: 1}, Intercept: func(string, *http.Request) *Fault { return &Fault{Work: true, Status: 503, Code: "ServiceUnavailable"} }})
	call(s, http.MethodPost, invalidations, batch("r", "/a", "/b"))
	call(s, http.MethodPost, invalidations, batch("r2", "/a"))
	if r := s.Refusals(); len(r) != 1 || r[0].Cause != PathsInProgress || r[0].Code != "ServiceUnavailable" {
		t.Errorf("%+v", r)
	}
	if l := s.Log(); l[1].Cause != Intercepted || l[1].ID == "" {
		t.Errorf("%+v", l[1])
	}
}

func TestTheLogDoesNotGrowForEver(t *testing.T) {
	s := start(t, nil, nil)
	s.mu.Lock()
	for i := range 3*logSize + 5 {
		s.record(&Call{Status: i})
	}
	s.mu.Unlock()
	l := s.Log()
	if len(l) != logSize || l[0].Status != 2*logSize+5 || l[logSize-1].Status != 3*logSize+4 || cap(s.callLog) > 4*logSize {
		t.Errorf("%d calls, from %d, capacity %d", len(l), l[0].Status, cap(s.callLog))
	}
}

func TestReferenceMemoryAndOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, row := range []struct {
			memory  time.Duration
			reorder bool
			after   time.Duration
			items   []string
			status  int
			billed  int
		}{
			{0, false, 1e6 * time.Second, []string{"/a", "/b"}, 201, 2},
			{0, false, 0, []string{"/b", "/a"}, 409, 2},
			{0, true, 0, []string{"/b", "/a"}, 201, 2},
			{0, true, 0, []string{"/b", "/a", "/a"}, 409, 2},
			{time.Hour, false, time.Hour - 1, []string{"/a", "/b"}, 201, 2},
			{time.Hour, false, time.Hour - 1, []string{"/c"}, 409, 2},
			{time.Hour, false, time.Hour, []string{"/a", "/b"}, 201, 4},
			{time.Hour, false, time.Hour, []string{"/c"}, 201, 3},
		} {
			s := start(t, nil, now(Options{ReferenceMemory: row.memory, ReorderedIsSame: row.reorder}))
			call(s, http.MethodPost, invalidations, batch("r", "/a", "/b"))
			time.Sleep(row.after)
			if got := call(s, http.MethodPost, invalidations, batch("r", row.items...)); got.status != row.status || s.Billed() != row.billed {
				t.Errorf("%+v: %d %s, billed %d", row, got.status, got.body, s.Billed())
			}
		}
	})
}

func TestInvalidateAfterClose(t *testing.T) {
	s := start(t, nil, &Options{Foreign: Foreign{Rate: math.SmallestNonzeroFloat64, Paths: 1}})
	s.Close()
	if _, err := s.Invalidate("/a"); err == nil {
		t.Error("accepted")
	}
}

func TestParseForeign(t *testing.T) {
	if got, err := ParseForeign("rate=0.1, paths=20,wildcards=1"); err != nil || got.Rate != 0.1 || got.Paths != 20 || got.Wildcards != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	for text, want := range map[string]string{
		"": "rate, paths, wildcards", "rate": "rate=NUMBER", "rate=1": "nothing in a batch", "rate=-1,paths=1": "0 to 1,000",
		"rate=1,paths=x": "paths=COUNT", "rate=1,paths=3001": "0 to 3,000", "10": "rate, paths, wildcards",
	} {
		if got, err := ParseForeign(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v; want %q", text, got, err, want)
		}
	}
}
