// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

// The fields of a standard log that matter here.
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/standard-logs-reference.html
const (
	fieldDate = iota + 1
	fieldTime
	fieldTimestamp
	fieldMethod
	fieldHost
	fieldViewerHost
	fieldStem
	fieldQuery
	fieldStatus
	fieldResult
	fieldResponseResult
	fieldDetailedResult
	fieldProtocol
	fieldTaken
	numFields
)

var fieldNames = [numFields]string{
	fieldDate: "date", fieldTime: "time", fieldTimestamp: "timestamp(ms)", fieldMethod: "cs-method",
	fieldHost: "cs(Host)", fieldViewerHost: "x-host-header", fieldStem: "cs-uri-stem", fieldQuery: "cs-uri-query",
	fieldStatus: "sc-status", fieldResult: "x-edge-result-type", fieldResponseResult: "x-edge-response-result-type",
	fieldDetailedResult: "x-edge-detailed-result-type", fieldProtocol: "cs-protocol", fieldTaken: "time-taken",
}

// documentedFields is the order in which CloudFront writes them.
const documentedFields = "date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status cs(Referer) " +
	"cs(User-Agent) cs-uri-query cs(Cookie) x-edge-result-type x-edge-request-id x-host-header cs-protocol cs-bytes " +
	"time-taken x-forwarded-for ssl-protocol ssl-cipher x-edge-response-result-type cs-protocol-version fle-status " +
	"fle-encrypted-fields c-port time-to-first-byte x-edge-detailed-result-type"

// fields says which column is which field.
type fields struct {
	column []uint8 // field of each column, 0 for one that does not matter
	least  int     // columns that a line must have
	wrong  string  // why no line can be read
	v      [numFields][]byte
}

// reset takes the documented order. CloudFront has added fields over the years:
// those up to time-taken have always been there.
func (f *fields) reset() {
	f.set(documentedFields)
	f.least = slices.Index(f.column, fieldTaken) + 1
}

// set takes what a #Fields line says, and returns what is wrong with it.
func (f *fields) set(names string) string {
	f.column, f.wrong = f.column[:0], ""
	var have [numFields]bool
	for name := range strings.FieldsSeq(names) {
		var field uint8
		for i := fieldDate; i < numFields; i++ {
			if fieldNames[i] == name && !have[i] {
				field, have[i] = uint8(i), true
			}
		}
		f.column = append(f.column, field)
	}
	f.least = len(f.column)
	for len(f.column) > 0 && f.column[len(f.column)-1] == 0 {
		f.column = f.column[:len(f.column)-1]
	}
	for _, i := range []int{fieldStem, fieldQuery} {
		if !have[i] {
			f.wrong = "#Fields names no " + fieldNames[i] + ": the path cannot be known without it"
		}
	}
	if !have[fieldTimestamp] && !(have[fieldDate] && have[fieldTime]) {
		f.wrong = "#Fields names no date and time"
	}
	return f.wrong
}

// split finds the fields in a line. Columns beyond those named are let pass:
// CloudFront adds fields at the end.
func (f *fields) split(line []byte) bool {
	clear(f.v[:])
	for i, field := range f.column {
		tab := bytes.IndexByte(line, '\t')
		if tab < 0 {
			f.v[field] = line
			return i+1 >= f.least
		}
		f.v[field] = line[:tab]
		line = line[tab+1:]
	}
	// A line that was cut off lacks columns, also beyond those that matter.
	return len(f.column)+1+bytes.Count(line, []byte{'\t'}) >= f.least
}

// comment takes a blank line or one that begins with '#'. Only a #Fields line
// that cannot be used is something wrong.
func (r *Reader) comment(line []byte) string {
	if r.format != CloudFront && r.format != "" {
		return ""
	}
	names, ok := bytes.CutPrefix(line, []byte("#Fields:"))
	if !ok {
		return ""
	}
	r.format = CloudFront
	return r.fields.set(string(names))
}

func (r *Reader) cloudFront(line []byte, dst *Line) reason {
	f := &r.fields
	if f.wrong != "" {
		return r.wrong(f.wrong)
	}
	if !f.split(line) {
		return r.wrong("fewer columns than the log has fields")
	}
	if !r.hostCounts(f.v[fieldViewerHost]) && !(len(f.v[fieldHost]) > 1 && r.hostCounts(f.v[fieldHost])) {
		return skipHost
	}
	method := f.v[fieldMethod]
	options := string(method) == "OPTIONS"
	if !options && len(method) > 0 && string(method) != "GET" && string(method) != "HEAD" {
		return skipMethod
	}
	switch string(f.v[fieldProtocol]) {
	case "ws", "wss", "grpc", "grpcs":
		return skipProtocol
	}
	keeps, hit, why := f.result()
	if !keeps {
		return why
	}
	code := 0
	if b := f.v[fieldStatus]; len(b) > 0 && string(b) != "-" {
		if code = number(b); code < 0 || code > 999 {
			return r.wrong("sc-status is not a number of three digits")
		}
	}

	r.key = append(r.key[:0], f.v[fieldStem]...)
	r.key = append(append(r.key, '\t'), f.v[fieldQuery]...)
	t := r.at(ofLog)
	if t.why != none {
		r.why = t.wrong
		return t.why
	}
	if options && !t.options {
		return skipMethod
	}
	life, keep := t.unknown, t.keep
	if code != 0 && code < 200 || code >= 400 {
		v := r.rules.UnknownError(t.path, code)
		life, keep = v.Lifetime, v.Keep
	}
	if !keep && hit {
		// It came out of the cache, whatever the rules say now.
		life = r.rules.Longest()
		keep = life > 0
	}
	if !keep {
		return notKept(code)
	}

	var s seen
	if why := r.edgeTimes(&s); why != "" {
		return r.wrong(why)
	}
	if hit && !s.startAssumed {
		// The origin began it before this viewer asked: at least the time that a
		// collapsed request may have waited.
		s.start, s.startAssumed = s.start-int64(Widen), true
	}
	return r.sighting(t.path, &s, life, dst)
}

// edgeTimes reads when the edge had answered, and how long it took. The instant
// has a resolution of one second, timestamp(ms) of one millisecond.
func (r *Reader) edgeTimes(s *seen) string {
	f := &r.fields
	var end int64
	resolution := int64(time.Second)
	if b := f.v[fieldTimestamp]; len(b) > 1 {
		ms, ok := decimal(b, time.Millisecond)
		if !ok {
			return "timestamp(ms) is not a number of milliseconds"
		}
		end, resolution = ms, int64(time.Millisecond)
	} else {
		var ok bool
		if end, ok = r.dates.iso(f.v[fieldDate], f.v[fieldTime]); !ok {
			return "date and time are not like 2006-01-02 and 15:04:05"
		}
	}
	s.end = end + resolution
	s.start, s.startAssumed = end-int64(Widen), true
	if b := f.v[fieldTaken]; len(b) > 0 && string(b) != "-" {
		taken, ok := decimal(b, time.Second)
		if !ok {
			return "time-taken is not a number of seconds"
		}
		s.start, s.startAssumed = end-taken-int64(time.Millisecond), false
	}
	return ""
}

func ofLog(_ *Reader, raw string) target {
	stem, query, _ := strings.Cut(raw, "\t")
	path, err := cfpath.FromLog(stem, query)
	if err != nil {
		return target{why: malformed, wrong: err.Error()}
	}
	return target{path: path}
}

// result says whether the line tells of something that may be in the cache, and
// whether it was served from there. What AWS does not list counts as kept.
func (f *fields) result() (keeps, hit bool, why reason) {
	switch string(f.v[fieldResult]) {
	case "Hit", "RefreshHit":
		return true, string(f.v[fieldResult]) == "Hit", none
	case "Redirect":
		return false, false, skipRedirect
	case "LimitExceeded":
		return false, false, skipLimit
	case "CapacityExceeded":
		return false, false, skipCapacity
	case "Error":
	default:
		return true, string(f.v[fieldDetailedResult]) == "OriginShieldHit", none
	}
	switch string(f.v[fieldResponseResult]) {
	case "Hit", "RefreshHit", "Miss":
		// The viewer left while it was served.
		return true, string(f.v[fieldResponseResult]) == "Hit", none
	case "Redirect":
		return false, false, skipRedirect
	case "LimitExceeded":
		return false, false, skipLimit
	case "CapacityExceeded":
		return false, false, skipCapacity
	}
	switch string(f.v[fieldDetailedResult]) {
	case "ClientGeoBlocked":
		return false, false, skipBlocked
	case "InvalidRequest", "InvalidRequestBlocked", "InvalidRequestCertificate", "InvalidRequestHeader", "InvalidRequestMethod":
		return false, false, skipInvalid
	case "LambdaLimitExceeded":
		return false, false, skipLimit
	}
	return true, false, none
}
