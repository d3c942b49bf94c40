// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// span is a part of a whole, both ends included, as a Content-Range says it.
type span struct{ from, to, total int64 }

func (s *span) String() string { return fmt.Sprintf("bytes %d-%d/%d", s.from, s.to, s.total) }

// contentRange reads what part a response is. Anything but a 206 is whole; a 206 whose part cannot be
// told, because there are several of them or none is named, is neither.
func contentRange(resp *http.Response) (part *span, whole bool) {
	if resp.StatusCode != http.StatusPartialContent {
		return nil, true
	}
	var s span
	text, ok := strings.CutPrefix(resp.Header.Get("Content-Range"), "bytes ")
	ends, total, ok2 := strings.Cut(text, "/")
	from, to, ok3 := strings.Cut(ends, "-")
	var errs [3]error
	s.from, errs[0] = strconv.ParseInt(from, 10, 64)
	s.to, errs[1] = strconv.ParseInt(to, 10, 64)
	s.total, errs[2] = strconv.ParseInt(total, 10, 64)
	if !ok || !ok2 || !ok3 || errs != [3]error{} || s.from < 0 || s.from > s.to || s.to >= s.total {
		return nil, false
	}
	return &s, false
}

// wanted is one range of a Range header; from is -1 for the last to bytes, to is -1 for all that follow.
type wanted struct{ from, to int64 }

// parseRange reads a Range header; false if it is none that counts.
func parseRange(header string) ([]wanted, bool) {
	list, ok := strings.CutPrefix(header, "bytes=")
	if !ok {
		return nil, false
	}
	var out []wanted
	for r := range strings.SplitSeq(list, ",") {
		a, b, ok := strings.Cut(strings.TrimSpace(r), "-")
		w := wanted{-1, -1}
		var errA, errB error
		if a != "" {
			w.from, errA = strconv.ParseInt(a, 10, 63)
		}
		if b != "" {
			w.to, errB = strconv.ParseInt(b, 10, 63)
		}
		if !ok || errA != nil || errB != nil || a == "" && b == "" || a != "" && w.from < 0 || b != "" && w.to < 0 || a != "" && b != "" && w.from > w.to {
			return nil, false
		}
		out = append(out, w)
	}
	return out, true
}

// of gives the ends within a whole of that size, which it may lie outside of.
func (w wanted) of(size int64) (from, to int64) {
	switch {
	case w.from < 0:
		return max(0, size-w.to), size - 1
	case w.to < 0:
		return w.from, size - 1
	}
	return w.from, min(w.to, size-1)
}

// within says where in a part it lies.
func (w wanted) within(part *span) (from, to int64, inside bool) {
	from, to = w.of(part.total)
	return from, to, part.from <= from && from <= to && to <= part.to
}

// countsFor says whether CloudFront answers the ranges of a whole with parts: they are in order and do not overlap
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/RangeGETs.html).
func countsFor(size int64, ranges []wanted) bool {
	last := int64(-1)
	for _, w := range ranges {
		from, to := w.of(size)
		if from <= last {
			return false
		}
		last = max(from, to)
	}
	return true
}

// wantsPart is the Range that a request is to be forwarded with, "" if it wants all.
func (q *request) wantsPart() string {
	h := q.r.Header.Get("Range")
	if _, ok := parseRange(h); !ok || q.method != http.MethodGet {
		return ""
	}
	return h + "\n" + q.r.Header.Get("If-Range")
}

// onePart is the only range that a request wants.
func (q *request) onePart() (wanted, bool) {
	ranges, ok := parseRange(q.r.Header.Get("Range"))
	if !ok || len(ranges) != 1 || q.method != http.MethodGet || q.r.Header.Get("If-Range") != "" {
		return wanted{}, false
	}
	return ranges[0], true
}

// sendPart answers with a part, if the request wants one and the object has it.
func (e *edge) sendPart(q *request, o *object) bool {
	if q.whole || q.wantsPart() == "" || o.body == nil || o.status != http.StatusOK && o.part == nil {
		return false
	}
	ranges, _ := parseRange(q.r.Header.Get("Range"))
	if o.part == nil {
		data, err := o.body.whole(q.r.Context())
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if !countsFor(int64(len(data)), ranges) {
			return false
		}
		modified, err := http.ParseTime(o.header.Get("Last-Modified"))
		if err != nil {
			modified = time.Time{}
		}
		only := &http.Request{Method: http.MethodGet, Header: http.Header{"Range": q.r.Header["Range"]}}
		if v := q.r.Header["If-Range"]; len(v) > 0 {
			only.Header["If-Range"] = v
		}
		q.w.Header().Del("Content-Length")
		http.ServeContent(q.w, only.WithContext(q.r.Context()), "", modified, bytes.NewReader(data))
		return true
	}
	from, to, inside := ranges[0].within(o.part)
	if !inside || len(ranges) != 1 || from == o.part.from && to == o.part.to {
		return false // it is what the origin sent
	}
	data, err := o.body.whole(q.r.Context())
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	h := q.w.Header()
	h.Set("Content-Range", (&span{from, to, o.part.total}).String())
	h.Set("Content-Length", strconv.FormatInt(to-from+1, 10))
	q.w.WriteHeader(http.StatusPartialContent)
	_, _ = q.w.Write(data[from-o.part.from : to-o.part.from+1]) // an error is the viewer's
	return true
}
