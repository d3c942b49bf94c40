// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// A tester sends batches under references of their own.
type tester struct {
	*Simulator
	n int
}

// send returns the code of the answer, "" when the batch was accepted.
func (s *tester) send(path string, items ...string) string {
	s.n++
	return codeOf(call(s.Simulator, http.MethodPost, path, batch(fmt.Sprintf("%s-%d", path, s.n), items...)))
}

func codeOf(f fetched) string {
	_, rest, _ := strings.Cut(f.body, "<Code>")
	c, _, _ := strings.Cut(rest, "<")
	return c
}

// numbered returns n paths, and with a star so many wildcards.
func numbered(n int, suffix string) []string {
	items := make([]string, n)
	for i := range items {
		items[i] = fmt.Sprintf("/%d%s", i, suffix)
	}
	return items
}

const (
	tooMany    = "TooManyInvalidationsInProgress"
	throttling = "Throttling"
)

// Each row is a switch in both positions, and a course of requests that tells them apart.
func TestLimitsUnderEachReading(t *testing.T) {
	type step struct {
		after            time.Duration
		paths, wildcards int
		want             string
	}
	for _, row := range []struct {
		name   string
		limits Limits
		steps  []step
	}{
		{"no limits", Limits{}, []step{{0, 3000, 0, ""}, {0, 0, 3000, ""}, {0, 3000, 0, ""}, {0, 3001, 0, "BatchTooLarge"}}},
		{"no ceiling of the request", Limits{Batch: -1}, []step{{0, 4000, 0, ""}}},

		{"rates, any size at once", RateQuotas(), []step{
			{0, 300, 0, ""}, {time.Second, 1, 0, tooMany}, {time.Second, 1, 0, ""},
			{0, 0, 3, ""}, {2999 * time.Millisecond, 0, 1, tooMany}, {time.Millisecond, 0, 1, ""},
		}},
		{"rates, a bucket", Limits{PathRate: 150, PathBurst: 150, WildcardRate: 1, WildcardBurst: 2}, []step{
			{0, 151, 0, tooMany}, {time.Hour, 151, 0, tooMany}, {0, 100, 0, ""}, {0, 51, 0, tooMany}, {0, 50, 0, ""},
			{time.Second / 2, 75, 0, ""}, {0, 1, 0, tooMany},
			{0, 0, 3, tooMany}, {0, 0, 2, ""}, {time.Second, 0, 1, ""}, {0, 0, 1, tooMany},
		}},

		{"wildcards are no paths", Limits{PathRate: 150, PathBurst: 150}, []step{{0, 140, 11, ""}, {0, 10, 0, ""}}},
		{"wildcards are paths", Limits{PathRate: 150, PathBurst: 150, WildcardsArePaths: true}, []step{
			{0, 140, 11, tooMany}, {0, 140, 10, ""}, {0, 0, 1, tooMany}}},

		{"each wildcard counts", Limits{WildcardRate: 1, WildcardBurst: 1}, []step{{0, 5, 2, tooMany}, {0, 5, 1, ""}, {0, 0, 1, tooMany}}},
		{"each request with wildcards counts", Limits{WildcardRate: 1, WildcardBurst: 1, WildcardPerRequest: true}, []step{
			{0, 5, 500, ""}, {0, 0, 1, tooMany}, {time.Second, 0, 1, ""}}},

		{"rates answer Throttling", Limits{PathRate: 1, WildcardRate: 1, RateIsThrottling: true, Paths: 2}, []step{
			{0, 1, 1, ""}, {0, 1, 0, throttling}, {0, 0, 1, throttling}, {time.Second, 2, 0, ""}, {2 * time.Second, 3, 0, tooMany}}},

		{"in progress", Limits{Paths: 3, Wildcards: 1}, []step{
			{0, 4, 0, tooMany}, {0, 3, 1, ""}, {0, 1, 0, tooMany}, {0, 0, 1, tooMany}, {time.Second, 3, 1, ""}}},
		{"in progress, wildcards apart", ProgressQuotas(), []step{{0, 2990, 10, ""}, {0, 10, 5, ""}, {0, 0, 1, tooMany}, {0, 1, 0, tooMany}}},

		{"both regimes", StrictQuotas(), []step{
			{0, 150, 0, ""}, {0, 1, 0, tooMany}, {time.Second, 149, 1, ""}, {0, 0, 1, tooMany}, {time.Second, 151, 0, tooMany}}},
		{"calls", Limits{CallRate: 2, CallBurst: 3}, []step{
			{0, 1, 0, ""}, {0, 1, 0, ""}, {0, 1, 0, ""}, {0, 1, 0, throttling}, {500 * time.Millisecond, 1, 0, ""}, {0, 1, 0, throttling}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &tester{Simulator: start(t, nil, &Options{Limits: row.limits})}
				for i, st := range row.steps {
					time.Sleep(st.after)
					if got := s.send(invalidations, append(numbered(st.paths, ""), numbered(st.wildcards, "*")...)...); got != st.want {
						t.Errorf("step %d, %d paths and %d wildcards: %q, want %q", i, st.paths, st.wildcards, got, st.want)
					}
				}
			})
		})
	}
}

func TestLimitsOfCallsOfAllKinds(t *testing.T) {
	for _, all := range []bool{false, true} {
		s := start(t, nil, now(Options{Limits: Limits{CallRate: 1e-6, CallBurst: 2, AllCalls: all}}))
		codes := []string{}
		for range 3 {
			codes = append(codes, codeOf(call(s, http.MethodGet, invalidations, "")))
		}
		codes = append(codes, codeOf(call(s, http.MethodPost, invalidations, batch("r", "/a"))))
		want := "[   ]"
		if all {
			want = "[  Throttling Throttling]"
		}
		if fmt.Sprint(codes) != want {
			t.Errorf("all calls %v: %q", all, codes)
		}
	}
}

func TestLimitsAreTheAccountsOrTheTargets(t *testing.T) {
	const tenant = "/2020-05-31/distribution-tenant/dt_1/invalidation"
	for _, perTarget := range []bool{false, true} {
		s := &tester{Simulator: start(t, nil, &Options{
			Tenants: []string{"dt_1"}, Propagation: time.Hour,
			Limits: Limits{Paths: 2, WildcardRate: 1e-6, WildcardBurst: 1, PerTarget: perTarget},
		})}
		want := tooMany
		if perTarget {
			want = ""
		}
		if got := s.send(invalidations, "/a", "/b", "/c*"); got != "" {
			t.Fatal(got)
		}
		if got := s.send(tenant, "/a"); got != want {
			t.Errorf("per target %v: a path of the tenant: %q, want %q", perTarget, got, want)
		}
		if got := s.send(tenant, "/a*"); got != want {
			t.Errorf("per target %v: a wildcard of the tenant: %q, want %q", perTarget, got, want)
		}
		if got := s.send(invalidations, "/d"); got != tooMany {
			t.Errorf("per target %v: one more of the distribution: %q", perTarget, got)
		}
	}
}

// Whatever the limits and the requests, what was accepted is within the limits over every span of time,
// counted by brute force from the log, and nothing was refused that had room.
func TestLimitsHoldOverEverySpan(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := Limits{
			PathRate: float64(rapid.IntRange(1, 20).Draw(rt, "path rate")), PathBurst: rapid.IntRange(1, 30).Draw(rt, "path burst"),
			WildcardRate: 1, WildcardBurst: rapid.IntRange(1, 3).Draw(rt, "wildcard burst"),
			WildcardsArePaths:  rapid.Bool().Draw(rt, "wildcards are paths"),
			WildcardPerRequest: rapid.Bool().Draw(rt, "per request"),
		}
		requests := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) [3]int {
			return [3]int{rapid.IntRange(0, 3000).Draw(rt, "ms"), rapid.IntRange(0, 31).Draw(rt, "paths"), rapid.IntRange(0, 3).Draw(rt, "wildcards")}
		}), 1, 30).Draw(rt, "requests")
		synctest.Test(t, func(t *testing.T) {
			s := &tester{Simulator: start(t, nil, now(Options{Limits: l}))}
			for _, r := range requests {
				time.Sleep(time.Duration(r[0]) * time.Millisecond)
				if r[1]+r[2] > 0 {
					s.send(invalidations, append(numbered(r[1], ""), numbered(r[2], "*")...)...)
				}
			}
			log := s.Log()
			weights := make([][2]float64, len(log))
			for i, c := range log {
				weights[i] = [2]float64{float64(c.Paths), float64(c.Wildcards)}
				if l.WildcardsArePaths {
					weights[i][0] += float64(c.Wildcards)
				}
				if l.WildcardPerRequest {
					weights[i][1] = min(weights[i][1], 1)
				}
			}
			rates := [2]float64{l.PathRate, l.WildcardRate}
			bursts := [2]float64{float64(l.PathBurst), float64(l.WildcardBurst)}
			// over says by how much the spans that end with call i are too full if it is accepted.
			over := func(i, kind int) float64 {
				sum, worst := weights[i][kind], weights[i][kind]-bursts[kind]
				for j := i - 1; j >= 0; j-- {
					if log[j].Code == "" {
						sum += weights[j][kind]
						worst = max(worst, sum-bursts[kind]-rates[kind]*log[i].Time.Sub(log[j].Time).Seconds())
					}
				}
				return worst
			}
			for i, c := range log {
				p, w := over(i, 0), over(i, 1)
				fits := (weights[i][0] == 0 || p < 1e-6) && (weights[i][1] == 0 || w < 1e-6)
				if fits != (c.Code == "") {
					rt.Errorf("call %d (%d paths, %d wildcards) answered %q, but the spans are %g and %g over", i, c.Paths, c.Wildcards, c.Code, p, w)
				}
				if c.Code != "" && (!c.Own || !c.Cause.Quota()) {
					rt.Errorf("call %d: cause %q, own %v", i, c.Cause, c.Own)
				}
			}
		})
	})
}

func TestLimitsAreChecked(t *testing.T) {
	for name, l := range map[string]Limits{
		"rate":          {PathRate: -1},
		"NaN":           {WildcardRate: math.NaN()},
		"infinite":      {CallRate: math.Inf(1)},
		"progress":      {Paths: -1},
		"burst":         {PathRate: 1, PathBurst: -1},
		"burst alone":   {PathBurst: 10},
		"wildcard":      {WildcardBurst: 1, PathRate: 1},
		"are paths":     {WildcardsArePaths: true, WildcardRate: 1},
		"per request":   {WildcardPerRequest: true, PathRate: 1},
		"throttling":    {RateIsThrottling: true, Paths: 1},
		"calls' burst":  {CallBurst: 1},
		"calls of all":  {AllCalls: true},
		"calls' burst ": {CallRate: 1, CallBurst: -1},
	} {
		if s, err := New(nil, &Options{Limits: l}); err == nil {
			s.Close()
			t.Errorf("%s: accepted", name)
		} else if !strings.Contains(err.Error(), "limits: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, l := range map[string]Limits{"rate": RateQuotas(), "progress": ProgressQuotas(), "strict": StrictQuotas()} {
		if err := l.validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseLimits(t *testing.T) {
	for text, want := range map[string]Limits{
		"none":     {},
		"rate":     RateQuotas(),
		"progress": ProgressQuotas(),
		"strict":   StrictQuotas(),
		"both":     {Paths: 3000, Wildcards: 15, PathRate: 150, WildcardRate: 1},
		"both, path-burst=150,wildcards-are-paths,wildcard-per-request": {Paths: 3000, Wildcards: 15, PathRate: 150, WildcardRate: 1,
			PathBurst: 150, WildcardsArePaths: true, WildcardPerRequest: true},
		"call-rate=0.5,call-burst=3,all-calls,per-target,batch=-1":           {CallRate: 0.5, CallBurst: 3, AllCalls: true, PerTarget: true, Batch: -1},
		"paths=1,wildcards=2,wildcard-rate=3,wildcard-burst=4,path-rate=5e2": {Paths: 1, Wildcards: 2, WildcardRate: 3, WildcardBurst: 4, PathRate: 500},
		"rate,rate-is-throttling,path-rate=0":                                {WildcardRate: 1, RateIsThrottling: true},
	} {
		if got, err := ParseLimits(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"":                 "both, none, progress, rate, strict first",
		"rates":            "both, none, progress, rate, strict first",
		"path-rate=1,rate": "both, none, progress, rate, strict first",
		"all-calls=true":   "takes no value",
		"path-rate":        "path-rate=NUMBER",
		"path-rate=fast":   "path-rate=NUMBER",
		"paths=1.5":        "paths=COUNT",
		"path-rate=-1":     "PathRate is -1",
		"path-rate=NaN":    "PathRate is NaN",
		"path-burst=10":    "says nothing without PathRate",
		"none,all-calls":   "says nothing without CallRate",
	} {
		if got, err := ParseLimits(text); err == nil || !strings.Contains(err.Error(), want) || got != (Limits{}) {
			t.Errorf("%q: %+v, %v; want %q", text, got, err, want)
		}
	}
}

func FuzzParseLimits(f *testing.F) {
	f.Add("both,path-burst=150,wildcards-are-paths")
	f.Add("call-rate=0.5,all-calls")
	f.Fuzz(func(t *testing.T, text string) {
		if l, err := ParseLimits(text); err == nil && l.validate() != nil {
			t.Errorf("%q was read as %+v", text, l)
		}
	})
}
