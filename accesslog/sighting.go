// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"math"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
)

// seen is what a line says of a response, before the rules are asked.
type seen struct {
	method, host []byte
	status       int
	start, end   int64 // UnixNano, widened
	startAssumed bool
	// headers says that the line carries the response's headers, in Reader.header.
	headers bool
}

// server makes the line of a web server a sighting; its target is in r.key.
func (r *Reader) server(s *seen, dst *Line) reason {
	if !r.hostCounts(s.host) {
		return skipHost
	}
	options := string(s.method) == "OPTIONS"
	if !options && string(s.method) != "GET" && string(s.method) != "HEAD" {
		return skipMethod
	}
	t := r.at(ofTarget)
	if t.why != none {
		r.why = t.wrong
		return t.why
	}
	if options && !t.options {
		return skipMethod
	}
	if s.status == 0 {
		return skipStatus // the server answered nothing
	}
	life, keep := t.unknown, t.keep
	switch {
	case s.headers:
		v := r.rules.Of(t.path, lifetime.Response{
			Method: r.text(s.method), Status: s.status, Header: &r.header, End: time.Unix(0, s.end).UTC(),
		})
		life, keep = v.Lifetime, v.Keep
		// What the headers leave open is as unknown as if they were not there.
		s.headers = v.Reason != lifetime.ReasonRenewed && v.Reason != lifetime.ReasonUnread
	case s.status < 200 || s.status >= 400:
		v := r.rules.UnknownError(t.path, s.status)
		life, keep = v.Lifetime, v.Keep
	}
	if !keep {
		return notKept(s.status)
	}
	return r.sighting(t.path, s, life, dst)
}

func notKept(status int) reason {
	if status != 0 && status < 200 || status >= 400 {
		return skipStatus
	}
	return skipNotKept
}

// sighting fills dst.
func (r *Reader) sighting(path string, s *seen, life time.Duration, dst *Line) reason {
	assumed := !s.headers
	if r.opts.TTL > 0 {
		life, assumed = r.opts.TTL, false
	}
	end := time.Unix(0, s.end).UTC()
	expires := end.Add(life).Add(r.opts.Margin)
	if life == math.MaxInt64 {
		expires = inventory.Never
	}
	if r.isOver(expires) {
		return skipExpired
	}
	*dst = Line{
		Sighting:     inventory.Sighting{Path: path, Start: time.Unix(0, s.start).UTC(), End: end, Expires: expires, Tags: r.noted()},
		StartAssumed: s.startAssumed, LifetimeAssumed: assumed,
		// CloudFront reads one header, and may read one of its lines.
		Mixed: r.tagLines > 1,
	}
	return none
}

func (r *Reader) isOver(expires time.Time) bool {
	return r.now != 0 && !expires.After(time.Unix(0, r.now))
}

// instant takes the one instant that a line has, of one-second resolution: some
// servers write when the request began, others when it ended.
func (r *Reader) instant(s *seen, at int64) {
	s.start, s.startAssumed = at-int64(Widen), true
	s.end = at + int64(time.Second)
	// The line had been written by now.
	if wide := s.end + int64(Widen); r.now < at || wide <= r.now {
		s.end = wide
	} else {
		s.end = max(s.end, r.now)
	}
}

// took takes the instant at which a response ended and how long it took, both
// truncated to at worst a millisecond; a negative duration is not known.
func (s *seen) took(end, took int64) {
	const unit = int64(time.Millisecond)
	s.end = end + unit
	if took < 0 {
		s.start, s.startAssumed = end-int64(Widen), true
	} else {
		s.start = end - took - 2*unit
	}
}
