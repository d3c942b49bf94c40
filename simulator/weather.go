// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// A Latency is a random time: its logarithm is normally distributed, so that most are near the median
// and a few are many times longer. The zero value is no time at all.
type Latency struct {
	Median time.Duration
	// P95 is what 95 of 100 do not exceed. 0 makes every one the median.
	P95 time.Duration
}

func (l Latency) validate(name string) error {
	if l.Median < 0 || l.P95 < 0 || l.P95 != 0 && (l.P95 < l.Median || l.Median == 0) {
		return fmt.Errorf("%s: median %v and 95th percentile %v: give a median above 0, and a percentile that is not below it", name, l.Median, l.P95)
	}
	return nil
}

// z95 is the 95th percentile of the normal distribution.
const z95 = 1.6448536269514722

func (l Latency) draw(r *rand.Rand) time.Duration {
	x := r.NormFloat64() // always drawn, so that a setting does not shift what comes after
	if l.P95 == 0 {
		return l.Median
	}
	sigma := math.Log(float64(l.P95)/float64(l.Median)) / z95
	d := float64(l.Median) * math.Exp(sigma*x)
	return time.Duration(min(d, math.MaxInt64/4))
}

// Timing is how long an invalidation takes. An invalidation is never Completed before every cache has
// processed it.
type Timing struct {
	// Effect is the time until the last cache has processed it; the others take less.
	Effect Latency
	// Status is the time until it is Completed.
	Status Latency
}

// RealisticTiming is what AWS announced in 2026: 95 of 100 invalidations take effect in under 5 s, and
// are Completed in under 25 s. The announcement gives no medians: 2 s and 12 s are assumed. (Older
// reports go from 10 s to 40 minutes; for them give a Timing of your own.)
func RealisticTiming() Timing {
	return Timing{
		Effect: Latency{Median: 2 * time.Second, P95: 4800 * time.Millisecond},
		Status: Latency{Median: 12 * time.Second, P95: 24 * time.Second},
	}
}

// moments draws when each of n caches processes an invalidation, and when it is Completed, counted from
// its acceptance.
func (t Timing) moments(r *rand.Rand, n int) (each []time.Duration, done time.Duration) {
	last := t.Effect.draw(r)
	done = max(last, t.Status.draw(r))
	each = make([]time.Duration, n)
	slowest := r.IntN(n)
	for i := range each {
		each[i] = time.Duration(r.Float64() * float64(last))
		if i == slowest {
			each[i] = last
		}
	}
	return each, done
}

// Weather is how badly the control API does. The zero value is fine weather. It goes over every call, but
// not over those that Options.Intercept has taken. Shares are from 0 to 1, of all calls; what happens to
// which call depends on Options.Seed and the order of the calls alone.
type Weather struct {
	// Unavailable is the share of calls answered with 503 ServiceUnavailable, at most 0.5. They come in
	// bursts of UnavailableBurst calls on average (default 5), since an outage outlasts the retry
	// after it.
	Unavailable      float64
	UnavailableBurst float64
	// Throttled is the share of calls answered with Throttling, whatever the limits say.
	Throttled float64
	// LostAnswers is the share of calls that are carried out and whose connection is then dropped.
	LostAnswers float64
	// LostRequests is the share of calls whose connection is dropped before anything is done.
	LostRequests float64
	// Delay is how long an answer takes. A random part of it passes before the call is carried out.
	Delay Latency
	// Lag is how long a new invalidation is unknown to GetInvalidation (NoSuchInvalidation) and to
	// ListInvalidations. AWS does not document that one reads what one created.
	Lag Latency
	// StatusLag is how long a Completed invalidation is still reported as InProgress.
	StatusLag Latency
}

// weathers are those that ParseWeather knows by name. Calm is none at all; Rough is a bad day; Storm is worse than
// anything that was reported.
var weathers = map[string]Weather{
	"calm": {},
	"rough": {
		Unavailable: 0.02, Throttled: 0.05, LostAnswers: 0.01, LostRequests: 0.01,
		Delay: Latency{150 * time.Millisecond, time.Second}, Lag: Latency{200 * time.Millisecond, time.Second},
		StatusLag: Latency{500 * time.Millisecond, 3 * time.Second},
	},
	"storm": {
		Unavailable: 0.3, UnavailableBurst: 10, Throttled: 0.2, LostAnswers: 0.1, LostRequests: 0.1,
		Delay: Latency{500 * time.Millisecond, 5 * time.Second}, Lag: Latency{time.Second, 10 * time.Second},
		StatusLag: Latency{2 * time.Second, 20 * time.Second},
	},
}

// ParseWeather reads weather as "cftrack simulate --weather" takes it: the name calm, rough or storm, or
// settings, or a name and settings that change it, with commas between:
//
//	rough
//	unavailable=30%,unavailable-burst=10,throttled=0.1
//	storm,lost-answers=0,delay=200ms/2s
//
// The settings are unavailable, throttled, lost-answers and lost-requests (shares: a number from 0 to 1 or a
// percentage), unavailable-burst (a number of calls), and delay, lag and status-lag (a median, or a median and
// a 95th percentile).
func ParseWeather(text string) (Weather, error) {
	var w Weather
	if err := parseSettings("weather", text, weathers, &w, []setting{
		shareSetting("unavailable", &w.Unavailable), numberSetting("unavailable-burst", &w.UnavailableBurst),
		shareSetting("throttled", &w.Throttled), shareSetting("lost-answers", &w.LostAnswers), shareSetting("lost-requests", &w.LostRequests),
		latencySetting("delay", &w.Delay), latencySetting("lag", &w.Lag), latencySetting("status-lag", &w.StatusLag),
	}); err != nil {
		return Weather{}, err
	}
	if err := w.validate(); err != nil {
		return Weather{}, err
	}
	return w, nil
}

func (w Weather) validate() error {
	sum := 0.0
	for _, s := range []struct {
		name string
		v    float64
	}{{"Unavailable", w.Unavailable}, {"Throttled", w.Throttled}, {"LostAnswers", w.LostAnswers}, {"LostRequests", w.LostRequests}} {
		if !(s.v >= 0 && s.v <= 1) {
			return fmt.Errorf("weather: %s is %v: give a share from 0 to 1", s.name, s.v)
		}
		sum += s.v
	}
	if w.Unavailable > 0.5 {
		return fmt.Errorf("weather: Unavailable is %v: give at most 0.5", w.Unavailable)
	}
	if sum > 1 {
		return fmt.Errorf("weather: the shares come to %v: give at most 1 in all", sum)
	}
	if b := w.UnavailableBurst; b != 0 && !(b >= 1 && b <= 1e6) {
		return fmt.Errorf("weather: UnavailableBurst is %v: give 1 to 1,000,000 calls", b)
	}
	if w.UnavailableBurst != 0 && w.Unavailable == 0 {
		return errors.New("weather: UnavailableBurst says nothing without Unavailable: set that too, or neither")
	}
	return cmp.Or(w.Delay.validate("weather: Delay"), w.Lag.validate("weather: Lag"), w.StatusLag.validate("weather: StatusLag"))
}

// A sky draws what happens to each call. It is guarded by Simulator.mu.
type sky struct {
	weather Weather
	rand    *rand.Rand
	out     bool // in a burst of 503
}

// next returns what goes wrong with a call, nil if nothing does, and how much of the delay comes after
// it was carried out.
func (k *sky) next() (f *Fault, after time.Duration) {
	w := &k.weather
	if *w == (Weather{}) {
		return nil, 0
	}
	turn, which, split := k.rand.Float64(), k.rand.Float64(), k.rand.Float64()
	delay := w.Delay.draw(k.rand)

	// A chain of two states: a burst ends with 1/length, and begins so often that the share comes out.
	ends := 1 / cmp.Or(w.UnavailableBurst, 5)
	if k.out {
		k.out = turn >= ends
	} else {
		k.out = turn < ends*w.Unavailable/(1-w.Unavailable)
	}
	f = &Fault{}
	which *= 1 - w.Unavailable
	switch {
	case k.out:
		f = ServiceUnavailable()
	case which < w.Throttled:
		f = Throttling()
	case which < w.Throttled+w.LostAnswers:
		f = LostAnswer()
	case which < w.Throttled+w.LostAnswers+w.LostRequests:
		f = LostRequest()
	}
	f.Delay = time.Duration(split * float64(delay))
	return f, delay - f.Delay
}
