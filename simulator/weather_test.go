// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront"
)

// quantile of 95 %.
func p95(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)*95/100]
}

func TestLatency(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, l := range []Latency{{}, {Median: time.Second}, {time.Second, time.Second}, {200 * time.Millisecond, 2 * time.Second}, {2 * time.Second, 5 * time.Second}} {
		d := make([]time.Duration, 20000)
		for i := range d {
			d[i] = l.draw(r)
		}
		near := func(got, want time.Duration) bool { return math.Abs(float64(got-want)) <= 0.05*float64(want) }
		want := l.P95
		if l.P95 == 0 {
			want = l.Median
		}
		if got := p95(d); !near(got, want) || !near(d[len(d)/2], l.Median) {
			t.Errorf("%+v: median %v, 95th percentile %v", l, d[len(d)/2], got)
		}
	}
}

// What AWS announced: in effect within 5 s and Completed within 25 s, for 95 of 100.
func TestRealisticTiming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, nil, &Options{Timing: RealisticTiming(), Edges: 4, Seed: 1})
		const n = 1000
		for i := range n {
			invalidate(t, s, fmt.Sprintf("/%d", i))
		}
		effect, status := make([]time.Duration, n), make([]time.Duration, n)
		for open := n; open > 0; {
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			open = 0
			for i, v := range s.Invalidations() {
				age := time.Since(v.Created)
				if v.Edges < 4 {
					effect[i] = age
				}
				if v.Status == InProgress {
					status[i], open = age, open+1
				} else if v.Edges < 4 {
					t.Fatalf("%s is Completed after %d edges of 4", v.ID, v.Edges)
				}
			}
		}
		e, st := p95(effect), p95(status)
		if e < 4*time.Second || e >= 5*time.Second || st < 20*time.Second || st >= 25*time.Second {
			t.Errorf("95th percentiles: effect %v, status %v", e, st)
		}
		t.Logf("95th percentiles: effect %v, status %v", e, st)
	})
}

// However the two are drawn, no completion comes before the last cache.
func TestNeverCompletedBeforeTheLastCache(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	early := Timing{Effect: Latency{time.Second, time.Minute}, Status: Latency{Median: time.Millisecond}}
	for range 1000 {
		each, done := early.moments(r, 7)
		if len(each) != 7 || done != max(slices.Max(each), time.Millisecond) {
			t.Fatalf("caches at %v, Completed at %v", each, done)
		}
	}
}

func TestWeatherKeepsItsShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := Weather{Unavailable: 0.3, UnavailableBurst: 8, Throttled: 0.2, LostAnswers: 0.1, LostRequests: 0.05}
		s := start(t, nil, now(Options{Weather: w, Seed: 5}))
		const n = 20000
		lost := make([]bool, n)
		for i := range n {
			func() {
				defer func() { lost[i] = recover() != nil }()
				call(s, http.MethodPost, invalidations, batch(fmt.Sprint(i), "/a"))
			}()
		}
		got := map[string]float64{}
		bursts, before := 0.0, false
		for i, c := range s.Log() {
			if c.Lost != lost[i] {
				t.Fatalf("call %d: lost %v, the log says %v", i, lost[i], c.Lost)
			}
			kind := c.Code
			if c.Lost {
				kind = fmt.Sprintf("lost %d", c.Status)
			}
			got[kind]++
			if out := kind == "ServiceUnavailable"; out && !before {
				bursts++
			}
			before = kind == "ServiceUnavailable"
		}
		for kind, want := range map[string]float64{"ServiceUnavailable": 0.3, throttling: 0.2, "lost 201": 0.1, "lost 0": 0.05, "": 0.35} {
			if share := got[kind] / n; math.Abs(share-want) > 0.02 {
				t.Errorf("%q: a share of %.3f, want %.3f", kind, share, want)
			}
		}
		if mean := got["ServiceUnavailable"] / bursts; mean < 7 || mean > 9 {
			t.Errorf("bursts of %.1f calls, want 8", mean)
		}
		// What was lost before anything was done, or refused, was not carried out.
		if n := float64(len(s.Invalidations())); n != got[""]+got["lost 201"] {
			t.Errorf("%v invalidations, but %v answered and %v answers lost", n, got[""], got["lost 201"])
		}
		if r := s.Refusals(); len(r) != 0 {
			t.Errorf("the weather counts as %d refusals by a quota: %+v", len(r), r[0])
		}
	})
}

func TestWeatherDependsOnTheSeedAlone(t *testing.T) {
	run := func(seed uint64) (codes string) {
		synctest.Test(t, func(t *testing.T) {
			w := must(ParseWeather("storm"))
			w.LostAnswers, w.LostRequests = 0, 0
			s := start(t, nil, &Options{Weather: w, Seed: seed})
			for i := range 40 {
				begin := time.Now()
				codes += codeOf(call(s, http.MethodPost, invalidations, batch(fmt.Sprint(i), "/a"))) + time.Since(begin).String() + " "
			}
		})
		return codes
	}
	a, b, c := run(1), run(1), run(2)
	if a != b {
		t.Errorf("one seed, two runs:\n%s\n%s", a, b)
	}
	if a == c {
		t.Errorf("two seeds, one run: %s", a)
	}
}

func TestSlowAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, nil, now(Options{Weather: Weather{Delay: Latency{time.Second, 3 * time.Second}}}))
		const n = 1000
		whole, before := make([]time.Duration, n), 0
		for i := range n {
			begin := time.Now()
			call(s, http.MethodPost, invalidations, batch(fmt.Sprint(i), "/a"))
			whole[i] = time.Since(begin)
			if s.Invalidations()[i].Created.Sub(begin) > whole[i]/2 {
				before++
			}
		}
		if p := p95(whole); p < 2500*time.Millisecond || p > 3500*time.Millisecond {
			t.Errorf("95th percentile %v", p)
		}
		if before < 400 || before > 600 {
			t.Errorf("of %d calls, %d were carried out in the second half of their time", n, before)
		}
	})
}

// A client that gives up has its work done or not, and the simulator goes on.
func TestClientGivesUpOnASlowAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, nil, now(Options{Weather: Weather{Delay: Latency{Median: time.Minute}}, Seed: 3}))
		c := &http.Client{Transport: s.Transport(), Timeout: 20 * time.Second}
		for i := range 40 {
			r := must(http.NewRequest(http.MethodPost, "http://api.simulator"+invalidations, strings.NewReader(batch(fmt.Sprint(i), "/a"))))
			r.Header.Set("Authorization", signature)
			if _, err := c.Do(r); err == nil {
				t.Fatal("answered within 20 s of a minute")
			}
		}
		synctest.Wait()
		if n := len(s.Invalidations()); n == 0 || n == 40 {
			t.Errorf("%d of 40 were carried out: want some, and not all", n)
		}
		lost := slices.DeleteFunc(s.Log(), func(c Call) bool { return c.Status == 0 })
		if len(lost) != len(s.Invalidations()) || len(s.Log()) != 40 {
			t.Errorf("the log has %d calls, %d of them carried out, not %d", len(s.Log()), len(lost), len(s.Invalidations()))
		}
	})
}

func TestLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, nil, &Options{
			Propagation: -1, Completion: 10 * time.Second,
			Weather: Weather{Lag: Latency{Median: 3 * time.Second}, StatusLag: Latency{Median: 4 * time.Second}},
		})
		v := invalidate(t, s, "/a")
		read := func() string {
			got := call(s, http.MethodGet, invalidations+"/"+v.ID, "")
			list := call(s, http.MethodGet, invalidations, "")
			_, rest, _ := strings.Cut(got.body, "<Status>")
			status, _, _ := strings.Cut(rest, "<")
			return codeOf(got) + status + fmt.Sprint(strings.Count(list.body, "<Status>"+status))
		}
		for _, step := range []struct {
			after time.Duration
			want  string
		}{
			{0, "NoSuchInvalidation0"}, {2999 * time.Millisecond, "NoSuchInvalidation0"}, {time.Millisecond, "InProgress1"},
			{7 * time.Second, "InProgress1"}, {3999 * time.Millisecond, "InProgress1"}, {time.Millisecond, "Completed1"},
		} {
			time.Sleep(step.after)
			synctest.Wait()
			if got := read(); got != step.want {
				t.Errorf("at %v: %q, want %q", time.Since(v.Created), got, step.want)
			}
			d := call(s, http.MethodGet, strings.TrimSuffix(invalidations, "/invalidation"), "")
			if open := strings.Contains(d.body, "<InProgressInvalidationBatches>1<"); open == (step.want == "Completed1") {
				t.Errorf("at %v: the distribution has it in progress: %v", time.Since(v.Created), open)
			}
		}
		if again := call(s, http.MethodPost, invalidations, batch("test-0", "/a")); !strings.Contains(again.body, v.ID) {
			t.Errorf("its reference: %s", again.body)
		}
	})
}

// The SDK's waiter and its retries come through rough weather.
func TestSDKInRoughWeather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, nil, &Options{Timing: RealisticTiming(), Weather: must(ParseWeather("rough")), Seed: 11})
		c := client(s, func(o *cloudfront.Options) { o.RetryMaxAttempts = 20 })
		for i := range 50 {
			out, err := c.CreateInvalidation(t.Context(), input(fmt.Sprint(i), "/a", "/b"))
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second) // NoSuchInvalidation would end the waiter
			err = cloudfront.NewInvalidationCompletedWaiter(c).Wait(t.Context(),
				&cloudfront.GetInvalidationInput{DistributionId: aws.String(DefaultDistribution), Id: out.Invalidation.Id}, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
		}
		if s.Billed() != 100 {
			t.Errorf("billed %d, want 100", s.Billed())
		}
		if calls := s.Calls()[CreateInvalidation]; calls <= 50 {
			t.Errorf("%d calls for 50 batches: the weather was fine", calls)
		}
	})
}

func TestParseWeather(t *testing.T) {
	for text, want := range map[string]Weather{
		"calm":                               {},
		"rough":                              weathers["rough"],
		"unavailable=50%":                    {Unavailable: 0.5},
		"calm, throttled=0.25":               {Throttled: 0.25},
		"delay=200ms/2s,lag=1s":              {Delay: Latency{200 * time.Millisecond, 2 * time.Second}, Lag: Latency{Median: time.Second}},
		"lost-answers=1":                     {LostAnswers: 1},
		"lost-requests=1%":                   {LostRequests: 0.01},
		"status-lag=1s/1s":                   {StatusLag: Latency{time.Second, time.Second}},
		"unavailable=.1,unavailable-burst=3": {Unavailable: 0.1, UnavailableBurst: 3},
	} {
		if got, err := ParseWeather(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"":                                     "calm, rough, storm first",
		"foggy":                                "calm, rough, storm first",
		"throttled=1%,calm":                    "calm, rough, storm first",
		"throttled":                            "SHARE",
		"throttle=1%":                          "throttled",
		"throttled=x":                          "SHARE",
		"throttled=-1%":                        "from 0 to 1",
		"throttled=NaN":                        "from 0 to 1",
		"throttled=101%":                       "from 0 to 1",
		"unavailable=51%":                      "at most 0.5",
		"throttled=60%,lost-answers=60%":       "at most 1 in all",
		"delay=fast":                           "MEDIAN",
		"delay=1s/":                            "MEDIAN",
		"delay=2s/1s":                          "not below",
		"delay=0/1s":                           "above 0",
		"lag=-1s":                              "above 0",
		"unavailable-burst=x":                  "NUMBER",
		"unavailable-burst=5":                  "without Unavailable",
		"unavailable=1%,unavailable-burst=0.5": "1 to 1,000,000",
	} {
		if got, err := ParseWeather(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v; want %q", text, got, err, want)
		}
	}
	for name, w := range weathers {
		if err := w.validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseWeather(f *testing.F) {
	f.Add("storm,lost-answers=0,delay=200ms/2s")
	f.Add("unavailable=30%,unavailable-burst=10,throttled=0.1")
	f.Fuzz(func(t *testing.T, text string) {
		w, err := ParseWeather(text)
		if err != nil {
			return
		}
		if err := w.validate(); err != nil {
			t.Errorf("%q was read as %+v: %v", text, w, err)
		}
		k := sky{weather: w, rand: rand.New(rand.NewPCG(1, 1))}
		for range 100 {
			if f, after := k.next(); after < 0 || f != nil && f.Delay < 0 {
				t.Fatalf("%q: %+v, %v", text, f, after)
			}
		}
	})
}

func TestTimingIsChecked(t *testing.T) {
	for name, o := range map[string]Options{
		"both":        {Timing: RealisticTiming(), Propagation: time.Second},
		"completion":  {Timing: RealisticTiming(), Completion: -1},
		"negative":    {Timing: Timing{Effect: Latency{Median: -1}}},
		"percentile":  {Timing: Timing{Status: Latency{Median: 2, P95: 1}}},
		"weather":     {Weather: Weather{Unavailable: 0.6}},
		"memory":      {ReferenceMemory: -1},
		"foreign":     {Foreign: Foreign{Rate: 1}},
		"foreign -1":  {Foreign: Foreign{Rate: 1, Paths: -1, Wildcards: 2}},
		"foreign inf": {Foreign: Foreign{Rate: math.Inf(1), Paths: 1}},
		"foreign bad": {Foreign: Foreign{Rate: 1, Paths: 1, From: []string{"no-slash"}}},
	} {
		if s, err := New(nil, &o); err == nil {
			s.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestSigningRegion(t *testing.T) {
	for _, row := range []struct{ option, signed, code string }{
		{"", "us-east-1", ""}, {"", "eu-west-1", "SignatureDoesNotMatch"}, {"cn-northwest-1", "cn-northwest-1", ""},
		{"cn-northwest-1", "us-east-1", "SignatureDoesNotMatch"}, {"*", "eu-west-1", ""},
	} {
		s := start(t, nil, now(Options{SigningRegion: row.option}))
		r := httptest.NewRequest(http.MethodGet, invalidations, nil)
		r.Header.Set("Authorization", strings.Replace(signature, "us-east-1", row.signed, 1))
		w := httptest.NewRecorder()
		s.API().ServeHTTP(w, r)
		if got := codeOf(fetched{body: w.Body.String()}); got != row.code || (row.code != "") != (w.Code == http.StatusForbidden) {
			t.Errorf("option %q, signed for %s: %d %s", row.option, row.signed, w.Code, w.Body)
		}
	}
}
