// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// logFields are those of a standard log, in the documented order:
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/standard-logs-reference.html
const logFields = "date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status cs(Referer) cs(User-Agent) " +
	"cs-uri-query cs(Cookie) x-edge-result-type x-edge-request-id x-host-header cs-protocol cs-bytes time-taken x-forwarded-for " +
	"ssl-protocol ssl-cipher x-edge-response-result-type cs-protocol-version fle-status fle-encrypted-fields c-port " +
	"time-to-first-byte x-edge-detailed-result-type sc-content-type sc-content-len sc-range-start sc-range-end"

// accessLog writes what the edges served.
type accessLog struct {
	mu      sync.Mutex
	w       io.Writer
	started bool
	err     error // the first; nothing is written after it
}

// servedLine is what an edge knows of a request for the log.
type servedLine struct {
	began  time.Time
	result string // x-edge-result-type
	detail string // x-edge-detailed-result-type, where it is another
}

// write logs one request, at its end; deferred, it sees an answer that broke off.
func (l *accessLog) write(e *edge, q *request, v *viewer) {
	broken := recover()
	end := time.Now()
	r, h := q.r, v.Header()
	ip, port, _ := net.SplitHostPort(r.RemoteAddr)
	status := strconv.Itoa(v.status)
	result, response := q.served.result, q.served.result
	detail := cmp.Or(q.served.detail, result)
	if result != "Error" {
		detail = result
	}
	if broken != nil || v.failed || v.late {
		// The type before the response was sent stays in x-edge-response-result-type.
		result, detail = "Error", "ClientCommError"
		if v.status == 0 || v.late {
			status, response = "000", "Error"
		}
	}
	stem, query, _ := strings.Cut(q.target, "?")
	from, to := "", ""
	if part, whole := contentRange(&http.Response{StatusCode: v.status, Header: h}); !whole && part != nil {
		from, to = strconv.FormatInt(part.from, 10), strconv.FormatInt(part.to, 10)
	}
	host := e.sim.domain
	fields := []string{
		end.UTC().Format("2006-01-02"), end.UTC().Format("15:04:05"), e.pop, strconv.FormatInt(v.bytes+headBytes(h), 10), ip,
		r.Method, host, logEscape(stem), status, logEscape(r.Referer()), logEscape(r.UserAgent()), logEscape(query),
		logEscape(strings.Join(r.Header["Cookie"], "; ")), result, q.id, logEscape(r.Host), scheme(r),
		strconv.FormatInt(max(0, r.ContentLength)+headBytes(r.Header)+int64(len(q.target)), 10), logSeconds(end.Sub(q.served.began)),
		logEscape(strings.Join(r.Header["X-Forwarded-For"], ", ")), "", "", response, r.Proto, "", "", port,
		logSeconds(v.firstByte(end).Sub(q.served.began)), detail, logEscape(h.Get("Content-Type")), h.Get("Content-Length"), from, to,
	}
	for i, f := range fields {
		if f == "" {
			fields[i] = "-"
		}
	}
	l.line(strings.Join(fields, "\t"))
	if broken != nil {
		panic(broken)
	}
}

func (l *accessLog) line(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	var b bytes.Buffer
	if !l.started {
		b.WriteString("#Version: 1.0\n#Fields: " + logFields + "\n")
		l.started = true
	}
	b.WriteString(text + "\n")
	_, l.err = l.w.Write(b.Bytes())
}

func (l *accessLog) failure() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return fmt.Errorf("simulator: access log: %w", l.err)
	}
	return nil
}

func logSeconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 3, 64) }

// headBytes is about how long headers are on the wire.
func headBytes(h http.Header) int64 {
	n := 0
	for k, lines := range h {
		for _, v := range lines {
			n += len(k) + len(v) + 4
		}
	}
	return int64(n)
}

// logEscape encodes a value as the page says: what is not printable ASCII, and <>"#%{}|\^~[]` and '.
func logEscape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 127 || strings.IndexByte("<>\"#%{}|\\^~[]`'", c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// viewer notes what it was sent.
type viewer struct {
	http.ResponseWriter
	left   context.Context
	status int
	bytes  int64
	first  time.Time
	failed bool // it has gone
	late   bool // it had gone before there was an answer
}

// Unwrap is for http.ResponseController.
func (v *viewer) Unwrap() http.ResponseWriter { return v.ResponseWriter }

func (v *viewer) WriteHeader(status int) {
	if v.status == 0 {
		v.status, v.first = status, time.Now()
		v.late = v.left.Err() != nil
	}
	v.ResponseWriter.WriteHeader(status)
}

func (v *viewer) Write(p []byte) (int, error) {
	if v.status == 0 {
		v.WriteHeader(http.StatusOK)
	}
	n, err := v.ResponseWriter.Write(p)
	v.bytes += int64(n)
	v.failed = v.failed || err != nil
	return n, err
}

func (v *viewer) firstByte(end time.Time) time.Time {
	if v.first.IsZero() {
		return end
	}
	return v.first
}
