// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"bytes"
	"strconv"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
)

const notJSON = "not a whole JSON object"

// cftrack reads the JSON lines of formats.md. nginx and Apache write every value
// as a string, "-" or "" for none:
//
//	cftrack           version of the format, 1
//	end               when the response had been sent, in seconds since 1970
//	took, took_us     how long the request lasted, in seconds or microseconds
//	method, target    of the request, or
//	request           its whole first line
//	status, host
//	cache_control, expires, age, and one key for each header with tags
func (r *Reader) cftrack(line []byte, dst *Line) reason {
	var s seen
	var end, took, request, status []byte
	unit := time.Second
	headers := 0
	version := false
	r.header.reset()
	r.key = r.key[:0]
	r.resetTags()
	j := &r.json
	j.reset(line)
	j.each(func(key []byte) {
		switch string(key) {
		case "cftrack":
			version = string(j.text()) == "1"
		case "end":
			end = j.text()
		case "took":
			took, unit = j.text(), time.Second
		case "took_us":
			took, unit = j.text(), time.Microsecond
		case "method":
			s.method = j.text()
		case "target":
			r.key = append(r.key[:0], j.text()...)
		case "request":
			request = j.text()
		case "status":
			status = j.text()
		case "host":
			s.host = j.text()
		case "cache_control":
			headers++
			r.addHeader(&r.header.cacheControl, j.text())
		case "expires":
			headers++
			r.addHeader(&r.header.expires, j.text())
		case "age":
			r.addHeader(&r.header.age, j.text())
		default:
			for i := range r.tagHeaders {
				if h := &r.tagHeaders[i]; h.key == string(key) {
					r.addTags(h.by, j.text())
					return
				}
			}
			j.skip()
		}
	})
	switch {
	case !version:
		return r.wrong(`no "cftrack":1 in the line: another format, or one of a later version`)
	case !j.done():
		return r.wrong(notJSON)
	}
	at, ok := decimal(end, time.Second)
	if !ok {
		return r.wrong(`"end" is not a number of seconds since 1970`)
	}
	lasted := int64(-1)
	if len(took) > 0 && string(took) != "-" {
		if lasted, ok = decimal(took, unit); !ok {
			return r.wrong(`"took" is not a number`)
		}
	}
	if s.status = number(status); s.status < 0 {
		if s.status = 0; len(status) > 0 && string(status) != "-" {
			return r.wrong(`"status" is not a number`)
		}
	}
	if request != nil {
		if s.method, r.key, ok = splitRequest(r.key[:0], request); !ok {
			return skipNoRequest
		}
	}
	if len(s.method) == 0 || len(r.key) == 0 {
		return skipNoRequest
	}
	s.took(at, lasted)
	s.headers = headers == 2
	return r.server(&s, dst)
}

// caddy reads Caddy's access log in its default encoding
// (https://caddyserver.com/docs/caddyfile/directives/log). Its "ts" is when the
// response had been sent.
func (r *Reader) caddy(line []byte, dst *Line) reason {
	var s seen
	var ts, took, status []byte
	access, hasURI, lost := true, false, false
	r.header.reset()
	r.key = r.key[:0]
	r.resetTags()
	j := &r.json
	j.reset(line)
	tags := func(h *tagHeader) {
		j.items(func(value []byte) { r.addTags(h.by, value) })
	}
	responseHeader := func(key []byte) {
		if lines := r.header.lines(string(key)); lines != nil {
			j.items(func(value []byte) { r.addHeader(lines, value) })
			return
		}
		for i := range r.tagHeaders {
			if h := &r.tagHeaders[i]; h.name == string(key) {
				tags(h)
				return
			}
		}
		j.skip()
	}
	j.each(func(key []byte) {
		switch string(key) {
		case "logger":
			access = bytes.HasPrefix(j.text(), []byte("http.log.access"))
		case "ts":
			ts = j.text()
		case "duration":
			took = j.text()
		case "status":
			status = j.text()
		case "request":
			j.each(func(key []byte) {
				switch string(key) {
				case "method":
					s.method = j.text()
				case "host":
					s.host = j.text()
				case "uri":
					j.lost = false
					r.key = append(r.key[:0], j.text()...)
					hasURI, lost = true, j.lost
				default:
					j.skip()
				}
			})
		case "resp_headers":
			s.headers = true
			j.each(responseHeader)
		default:
			j.skip()
		}
	})
	switch {
	case !j.done():
		return r.wrong(notJSON)
	case !access || !hasURI && len(s.method) == 0 && status == nil:
		return skipNotAccess
	}
	at, ok := timestamp(ts)
	if !ok {
		return r.wrong(`"ts" is neither a number nor an RFC 3339 time`)
	}
	lasted := int64(-1)
	if len(took) > 0 {
		if lasted, ok = decimal(took, time.Second); !ok {
			d, err := time.ParseDuration(string(took))
			if err != nil || d < 0 {
				return r.wrong(`"duration" is neither a number nor a duration`)
			}
			lasted = int64(d)
		}
	}
	if s.status = number(status); s.status < 0 {
		return r.wrong(`"status" is not a number`)
	}
	switch {
	case len(s.method) == 0 || len(r.key) == 0:
		return skipNoRequest
	case lost:
		return r.wrong(`"uri" has bytes that are not UTF-8, which Caddy does not log`)
	}
	s.took(at, lasted)
	return r.server(&s, dst)
}

// list reads what "cftrack list --output json" prints. Its paths are canonical and
// in the form that an invalidation takes.
func (r *Reader) list(line []byte, dst *Line) reason {
	var path, last, expires, hits, mixed, folded []byte
	s := seen{headers: true, startAssumed: true}
	hasPath := false
	r.resetTags()
	j := &r.json
	j.reset(line)
	j.each(func(key []byte) {
		switch string(key) {
		case "path":
			path, hasPath = j.text(), true
		case "last":
			last = j.text()
		case "expires":
			expires = j.text()
		case "hits":
			hits = j.text()
		case "mixed":
			mixed = j.text()
		case "folded":
			folded = j.text()
		case "tags":
			j.items(func(tag []byte) { r.addTags(byNothing, tag) })
		default:
			j.skip()
		}
	})
	if !j.done() {
		return r.wrong(notJSON)
	}
	if !hasPath {
		return r.wrong(`no "path" in the line`)
	}
	isFolded := string(folded) == "true"
	if isFolded {
		// Every prefix of a prefix stands for more: one that ends inside an escape
		// must not have it encoded.
		if i := bytes.LastIndexByte(path, '%'); i >= 0 && i > len(path)-3 {
			path = path[:i]
		}
	}
	name, err := cfpath.Canonical(string(path))
	if err != nil {
		return r.wrong(err.Error())
	}
	lastAt, ok := timestamp(last)
	if !ok {
		return r.wrong(`"last" is not an RFC 3339 time`)
	}
	s.start, s.end = lastAt-int64(Widen), lastAt
	life := r.rules.Longest()
	if len(expires) > 0 {
		at, err := time.Parse(time.RFC3339Nano, string(expires))
		if err != nil {
			return r.wrong(`"expires" is not an RFC 3339 time`)
		}
		if r.opts.TTL == 0 {
			return r.entry(name, &s, at, hits, mixed, isFolded, dst)
		}
	} else {
		s.headers = false
	}
	if why := r.sighting(name, &s, life, dst); why != none {
		return why
	}
	return r.entry(name, &s, dst.Sighting.Expires, hits, mixed, isFolded, dst)
}

// entry fills dst from a line of a list.
func (r *Reader) entry(path string, s *seen, expires time.Time, hits, mixed []byte, folded bool, dst *Line) reason {
	if r.isOver(expires) {
		return skipExpired
	}
	tags := r.noted()
	*dst = Line{
		Sighting: inventory.Sighting{
			Path: path, Start: time.Unix(0, s.start).UTC(), End: time.Unix(0, s.end).UTC(), Expires: expires.UTC(),
			Tags: tags, Hits: uint64(max(number(hits), 0)),
		},
		StartAssumed: true, LifetimeAssumed: !s.headers && r.opts.TTL == 0, Folded: folded,
		// A union of tags: unless the list says so, not every sighting had them.
		Mixed: string(mixed) == "true" || mixed == nil && len(tags) > 0,
	}
	return none
}

// timestamp reads a number of seconds since 1970 (one of milli-, micro- or
// nanoseconds is told by its size) or an RFC 3339 time.
func timestamp(b []byte) (int64, bool) {
	if len(b) == 0 {
		return 0, false
	}
	// 1e11 seconds is the year 5138, 1e11 milliseconds is March 1973.
	for unit, most := time.Second, 1e11; unit > 0; unit, most = unit/1000, most*1000 {
		if f, err := strconv.ParseFloat(string(b), 64); err != nil {
			break
		} else if f < most {
			return decimal(b, unit)
		}
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999Z0700"} {
		if t, err := time.Parse(layout, string(b)); err == nil && t.Year() >= 1970 && t.Year() < 2262 {
			return t.UnixNano(), true
		}
	}
	return 0, false
}
