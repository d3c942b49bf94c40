// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"maps"
	"slices"
	"time"
)

// A Cause says why a call was refused.
type Cause string

// Causes.
const (
	BadRequest          Cause = "request"               // what was asked for, or how
	PathRate            Cause = "path rate"             // Limits.PathRate
	WildcardRate        Cause = "wildcard rate"         // Limits.WildcardRate
	PathsInProgress     Cause = "paths in progress"     // Limits.Paths
	WildcardsInProgress Cause = "wildcards in progress" // Limits.Wildcards
	CallRate            Cause = "call rate"             // Limits.CallRate
	BadWeather          Cause = "weather"               // Options.Weather
	Intercepted         Cause = "intercept"             // Options.Intercept
)

// Quota says whether a limit was exceeded.
func (c Cause) Quota() bool {
	switch c {
	case PathRate, WildcardRate, PathsInProgress, WildcardsInProgress, CallRate:
		return true
	}
	return false
}

// SomebodyElse is the caller of what Options.Foreign and Simulator.Invalidate create.
const SomebodyElse = "somebody-else"

// A Call is one call of the control API, as a judge sees it.
type Call struct {
	// Time is when it was decided on: for a creation when it was accepted or refused, else when it came.
	Time      time.Time
	Operation string // "" if the request names none
	// Caller is the access key ID that signed the request, "" if none did, or SomebodyElse.
	Caller string
	Target string // ID of the distribution or tenant, of the invalidation's; "" where there is none
	// Paths (tags count as paths) and Wildcards are the items of a creation, refused ones included,
	// unless the request could not be read.
	Paths, Wildcards int
	Reference        string // of a creation
	ID               string // of the invalidation created, returned or asked for
	Status           int    // HTTP status of the answer, also of a lost one; 0 if the call was not carried out and got no answer
	Code             string // of the error; "" if there is none
	Cause            Cause  // why it was refused or lost; "" if it was not
	// Own says of a refusal by a quota that it would have come had this caller been the only one.
	Own    bool
	Repeat bool // a creation that returned an earlier invalidation
	Lost   bool // the connection was dropped in place of an answer
}

// logSize is how many calls are remembered. A test has far fewer; a simulator that runs for weeks must
// not grow without bound.
const logSize = 100_000

// record remembers a call. It holds s.mu.
func (s *Simulator) record(c *Call) {
	if len(s.callLog) >= 2*logSize {
		s.callLog = append(s.callLog[:0], s.callLog[len(s.callLog)-logSize:]...)
	}
	s.callLog = append(s.callLog, *c)
}

// Log returns the calls of the control API in the order of their times, creations by somebody else
// included. A call is in it once it has been decided on, before it is answered. The last 100,000
// are kept.
func (s *Simulator) Log() []Call {
	s.mu.Lock()
	out := slices.Clone(s.callLog[max(0, len(s.callLog)-logSize):])
	s.mu.Unlock()
	slices.SortStableFunc(out, func(a, b Call) int { return a.Time.Compare(b.Time) })
	return out
}

// Refusals returns those of Log that a quota refused, creations by somebody else left out. Those with
// Own set are their caller's own fault; the others would have been accepted had nobody else been there.
func (s *Simulator) Refusals() []Call {
	return slices.DeleteFunc(s.Log(), func(c Call) bool { return !c.Cause.Quota() || c.Caller == SomebodyElse })
}

// Calls returns how often each operation of the control API was called, refused calls included and
// what somebody else did left out. Requests that name no operation count under "".
func (s *Simulator) Calls() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.calls)
}
