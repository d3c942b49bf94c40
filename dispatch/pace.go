// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"math"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/plan"
)

// What is learned of CloudFront's limits moves between these. The configured
// limits are where it begins, not what it believes against CloudFront's answers.
const (
	// growth is the step by which more is tried, growAfter how long a level is kept
	// before. A step that is refused is taken back, and the next one waits twice as
	// long, up to growAtMost: refusals become rare, and a limit that was raised is
	// found all the same.
	growth     = 1.25
	growAfter  = 5 * time.Second
	growAtMost = 30 * time.Minute

	// The least rates that refusals lead to, a second.
	leastItems     = 0.2
	leastWildcards = 1.0 / 60
	leastCalls     = 0.2

	// callBurst is how many calls may be made at once. People were refused after
	// some ten calls within a second
	// (https://mhdez.com/notes/hidden-cloudfront-invalidation-rate-limits/).
	callBurst = 5

	// slower is how much slower tokens come than the rate says: whoever counts at
	// the other end counts by another clock.
	slower = 0.995
)

// A load is a number of items: wildcards, and others (paths and tags).
type load struct{ others, wildcards int }

func (a load) plus(b load) load { return load{a.others + b.others, a.wildcards + b.wildcards} }
func (a load) items() int       { return a.others + a.wildcards }

// loadOf counts items as they are sent.
func loadOf(items []string) load {
	var l load
	for _, it := range items {
		if strings.HasSuffix(it, "*") {
			l.wildcards++
		}
	}
	l.others = len(items) - l.wildcards
	return l
}

// share is the part of a limit that is in force.
func share(l *journal.Learned) float64 {
	if l.Share <= 0 || l.Share > 1 {
		return 1
	}
	return l.Share
}

// refused lowers what was learned to a share, or, where it was just trying more, to
// what it had been before; never below least.
func refused(l *journal.Learned, to, least float64, now time.Time) {
	hold := max(l.Hold, growAfter)
	if l.Trying {
		to = max(to, share(l)/growth)
		hold = min(2*hold, growAtMost)
	}
	l.Share, l.Hold, l.Since, l.Trying = max(min(to, share(l)), min(least, 1)), hold, now, false
}

// accepted tries more when a level has held for long enough.
func accepted(l *journal.Learned, now time.Time) {
	if share(l) == 1 || now.Sub(l.Since) < l.Hold {
		return
	}
	if l.Trying {
		l.Hold = max(growAfter, l.Hold/2) // the last step was right
	}
	l.Share, l.Since, l.Trying = min(1, share(l)*growth), now, true
}

// A pacer decides over an account's tokens by the limits that were configured.
type pacer struct{ limits plan.Limits }

// rates are how many tokens come a second.
func (p pacer) rates(a *journal.Account) (items, wildcards, calls float64) {
	return p.limits.ItemsPerSecond * share(&a.Items.Learned),
		p.limits.WildcardsPerSecond * share(&a.Wildcards.Learned),
		p.limits.CallsPerSecond * share(&a.Calls.Learned)
}

// capacity is the most tokens there are at a time: what a request may hold.
func (p pacer) capacity(a *journal.Account) (items, wildcards, calls float64) {
	items, wildcards, _ = p.rates(a)
	return max(1, math.Floor(items*p.limits.Burst)), max(1, math.Floor(wildcards*p.limits.Burst)),
		max(1, math.Floor(callBurst*share(&a.Calls.Learned)))
}

// fill adds the tokens that have come until now. An account that nobody has used
// begins with all it holds.
func (p pacer) fill(a *journal.Account, now time.Time) {
	items, wildcards, calls := p.capacity(a)
	if a.At.IsZero() {
		a.Items.Tokens, a.Wildcards.Tokens, a.Calls.Tokens, a.At = items, wildcards, calls, now
	}
	s := 0.0
	if now.After(a.At) { // another's clock may be ahead
		s = now.Sub(a.At).Seconds() * slower
		a.At = now
	}
	ri, rw, rc := p.rates(a)
	a.Items.Tokens = min(items, a.Items.Tokens+s*ri)
	a.Wildcards.Tokens = min(wildcards, a.Wildcards.Tokens+s*rw)
	a.Calls.Tokens = min(calls, a.Calls.Tokens+s*rc)
	if m := now.UTC().Format("2006-01"); m > a.Month {
		a.Month, a.Sent = m, 0
	}
}

// empty takes all tokens away: somebody who is not known to have stopped may be
// using them.
func (p pacer) empty(a *journal.Account, now time.Time) {
	p.fill(a, now)
	a.Items.Tokens, a.Wildcards.Tokens, a.Calls.Tokens = 0, 0, 0
}

// almost is a token, give or take what arithmetic loses.
const almost = 1e-6

// wait is how long it takes until a load and so many calls may go out. Items wait
// until nothing is owed, which is when the account holds all it can: less would do by the
// rate, but CloudFront may refuse whoever owes anything, and a request is never more
// than the account holds.
func (p pacer) wait(a *journal.Account, l load, calls int) time.Duration {
	ci, cw, _ := p.capacity(a)
	ri, rw, rc := p.rates(a)
	until := func(want, have, rate float64) time.Duration {
		if want <= have+almost {
			return 0
		}
		return time.Duration((want-have)/(rate*slower)*float64(time.Second)) + time.Millisecond
	}
	wait := until(float64(calls), a.Calls.Tokens, rc)
	if l.items() > 0 {
		wait = max(wait, until(ci, a.Items.Tokens, ri))
	}
	if l.wildcards > 0 {
		wait = max(wait, until(cw, a.Wildcards.Tokens, rw))
	}
	return wait
}

// take takes what wait said there is.
func (p pacer) take(a *journal.Account, l load, calls int) {
	a.Items.Tokens -= float64(l.items())
	a.Wildcards.Tokens -= float64(l.wildcards)
	a.Calls.Tokens -= float64(calls)
}

// atHand is the most that may go out together: no wildcards where some are owed,
// so that what need not wait for them does not.
func (p pacer) atHand(a *journal.Account) load {
	ci, cw, _ := p.capacity(a)
	room := load{others: int(ci)}
	if a.Wildcards.Tokens >= cw-almost {
		room.wildcards = int(min(cw, ci))
	}
	return room
}

// slowDown halves a rate at once.
func (p pacer) slowDown(al *journal.Allowance, rate, least float64, now time.Time) {
	refused(&al.Learned, share(&al.Learned)/2, least/rate, now)
	al.Tokens = min(al.Tokens, 0)
}

// windows are what may be in progress.
func (p pacer) windows(w *journal.Windows) load {
	o, c := p.limits.Windows()
	return load{window(o, &w.Items), window(c, &w.Wildcards)}
}

func window(n int, l *journal.Learned) int {
	if n == math.MaxInt {
		if share(l) == 1 {
			return n
		}
		n = unlimited
	}
	return max(1, int(math.Round(float64(n)*share(l))))
}

// unlimited is what a window without a limit is taken for once CloudFront shows
// that it has one.
const unlimited = 3000

// narrow lowers a window to what was in progress when CloudFront refused more.
func (p pacer) narrow(l *journal.Learned, window, inProgress int, now time.Time) {
	if inProgress >= window {
		return
	}
	// Shares are of what was configured, windows of what is in force.
	n := float64(min(window, unlimited)) / share(l)
	refused(l, float64(max(1, inProgress))/n, 1/n, now)
}

// A throttle bounds how many entries are invalidated a minute: what was sent is a
// debt that is paid off at that rate. A second's worth may go out at once, and an
// item that is more than that goes out when nothing is owed.
type throttle struct{ perMinute float64 }

func (t throttle) settle(w *journal.Windows, now time.Time) {
	if now.After(w.EntriesAt) {
		w.Entries = max(0, w.Entries-now.Sub(w.EntriesAt).Minutes()*t.perMinute)
		w.EntriesAt = now
	}
}

// fits reports whether more entries may go out beside what is owed.
func (t throttle) fits(owed, more float64) bool {
	return t.perMinute <= 0 || owed <= almost || owed+more <= t.perMinute/60
}

// wait is how long until more entries fit.
func (t throttle) wait(owed, more float64) time.Duration {
	if t.fits(owed, more) {
		return 0
	}
	over := min(owed, owed+more-t.perMinute/60)
	return time.Duration(over/t.perMinute*float64(time.Minute)) + time.Millisecond
}
