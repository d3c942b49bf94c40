// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/cf-invalidation-tracker/cftrack/accesslog"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
)

// logged is an access log as lines of fields by name.
func logged(t testing.TB, text string) []map[string]string {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 2 || lines[0] != "#Version: 1.0" || lines[1] != "#Fields: "+logFields {
		t.Fatalf("begins with %.200q", text)
	}
	names := strings.Fields(logFields)
	var out []map[string]string
	for _, l := range lines[2:] {
		values := strings.Split(l, "\t")
		if len(values) != len(names) {
			t.Fatalf("%d fields, want %d: %q", len(values), len(names), l)
		}
		m := map[string]string{}
		for i, n := range names {
			if values[i] == "" || strings.ContainsAny(values[i], " \r") {
				t.Errorf("%s is %q", n, values[i])
			}
			m[n] = values[i]
		}
		out = append(out, m)
	}
	return out
}

// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/standard-logs-reference.html
func TestAccessLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		origin := &pages{version: 1}
		origin.set(1, "Cache-Control", "max-age=60", "Content-Type", "text/plain; charset=utf-8", "Etag", "auto")
		s := start(t, origin, now(Options{Edges: 2, AccessLog: &log}))
		expect := func(want ...string) { // of the last line
			t.Helper()
			lines := logged(t, log.String())
			got := lines[len(lines)-1]
			for i := 0; i < len(want); i += 2 {
				if got[want[i]] != want[i+1] {
					t.Errorf("line %d: %s is %q, want %q", len(lines), want[i], got[want[i]], want[i+1])
				}
			}
		}
		at := time.Now().UTC()
		got := ask(t, s, 1, "GET", "http://www.example.com/a%20b'c?x=%C3%A4&y", "User-Agent", "A b\t~", "Referer", "http://r/?q#", "Cookie", "c=d; e=f", "X-Forwarded-For", "198.51.100.1")
		expect("date", at.Format("2006-01-02"), "time", at.Format("15:04:05"), "x-edge-location", "SIM2-C1", "c-ip", "192.0.2.1", "c-port", "1234",
			"cs-method", "GET", "cs(Host)", s.domain, "x-host-header", "www.example.com", "cs-uri-stem", "/a%2520b%27c", "cs-uri-query", "x=%25C3%25A4&y",
			"sc-status", "200", "cs(User-Agent)", "A%20b%09%7E", "cs(Referer)", "http://r/?q%23", "cs(Cookie)", "c=d;%20e=f", "x-edge-result-type", "Miss",
			"x-edge-response-result-type", "Miss", "x-edge-detailed-result-type", "Miss", "x-edge-request-id", got.header.Get("X-Amz-Cf-Id"), "cs-protocol", "http",
			"cs-protocol-version", "HTTP/1.1", "x-forwarded-for", "198.51.100.1", "sc-content-type", "text/plain;%20charset=utf-8", "ssl-protocol", "-", "sc-range-start", "-")
		get(t, s, 1, "/p")
		get(t, s, 1, "/p")
		expect("x-edge-result-type", "Hit", "cs-uri-query", "-", "cs(Referer)", "-", "time-taken", "0.000", "sc-content-len", fmt.Sprint(len("/p version 1")))
		ask(t, s, 1, "GET", "/p", "Range", "bytes=1-3")
		expect("sc-status", "206", "sc-range-start", "1", "sc-range-end", "3", "sc-content-len", "3")
		time.Sleep(time.Minute)
		get(t, s, 1, "/p")
		expect("x-edge-result-type", "RefreshHit", "sc-status", "200")
		ask(t, s, 1, "GET", "/p", "If-None-Match", `"1"`)
		expect("x-edge-result-type", "Hit", "sc-status", "304")
		origin.answer(404)
		get(t, s, 0, "/none")
		expect("sc-status", "404", "x-edge-result-type", "Error", "x-edge-response-result-type", "Error", "x-edge-detailed-result-type", "Error")
		bad := must(http.NewRequest(http.MethodGet, "/", nil))
		bad.RequestURI = "*"
		s.Edge(0).ServeHTTP(&bufferWriter{header: http.Header{}}, bad)
		expect("sc-status", "400", "x-edge-detailed-result-type", "InvalidRequest", "c-ip", "-")

		// A viewer that leaves before, and one that leaves in between.
		origin.answer(200)
		origin.wait = make(chan struct{})
		ctx, leave := context.WithCancel(t.Context())
		go s.Transport().RoundTrip(must(http.NewRequestWithContext(ctx, http.MethodGet, "http://edge0.simulator/slow", nil)))
		synctest.Wait()
		leave()
		synctest.Wait()
		close(origin.wait) // the fetch goes on without it, and then the line is written
		synctest.Wait()
		expect("cs-uri-stem", "/slow", "sc-status", "000", "x-edge-result-type", "Error", "x-edge-detailed-result-type", "ClientCommError")
		s.Edge(0).ServeHTTP(gone{}, must(http.NewRequest(http.MethodGet, "/slow", nil)))
		expect("sc-status", "200", "x-edge-result-type", "Error", "x-edge-response-result-type", "Hit", "x-edge-detailed-result-type", "ClientCommError")

		slow := start(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(1500 * time.Millisecond)
			fmt.Fprint(w, "x")
			w.(http.Flusher).Flush()
			time.Sleep(250 * time.Millisecond)
		}), now(Options{Edges: 1, AccessLog: &log}))
		log.Reset()
		get(t, slow, 0, "/p")
		expect("time-taken", "1.750", "time-to-first-byte", "1.500")
		none := start(t, nil, now(Options{Edges: 1, AccessLog: &log}))
		log.Reset()
		get(t, none, 0, "/p")
		expect("sc-status", "502", "x-edge-detailed-result-type", "OriginConnectError")
	})
}

// gone is a viewer that cannot be written to.
type gone struct{}

func (gone) Header() http.Header       { return http.Header{} }
func (gone) WriteHeader(int)           {}
func (gone) Write([]byte) (int, error) { return 0, errors.New("gone") }

func TestAccessLogThatCannotBeWritten(t *testing.T) {
	r, w := io.Pipe()
	r.CloseWithError(errors.New("disk full"))
	s, err := New(&pages{}, now(Options{Edges: 1, AccessLog: w}))
	if err != nil {
		t.Fatal(err)
	}
	if got := get(t, s, 0, "/p"); got.status != 200 {
		t.Errorf("%d", got.status)
	}
	if err := s.Close(); err == nil || !strings.Contains(err.Error(), "access log: disk full") {
		t.Errorf("Close: %v", err)
	}
}

// What any cache holds is covered by what the access log of the edges says, read by package accesslog
// under the rules of the same distribution, for as long as it is held.
func TestAccessLogCoversWhatIsHeld(t *testing.T) {
	const config = `
DefaultCacheBehavior: {CachePolicyId: own, OriginRequestPolicyId: AllViewer}
CacheBehaviors:
  - {PathPattern: /q/*, CachePolicyId: UseOriginCacheControlHeaders-QueryStrings}
  - {PathPattern: /w/*, ForwardedValues: {QueryString: true, QueryStringCacheKeys: [w]}, MinTTL: 5, DefaultTTL: 60, MaxTTL: 600}
  - {PathPattern: /min/*, CachePolicyId: CachingOptimized}
  - {PathPattern: /off/*, CachePolicyId: CachingDisabled}
CachePolicies: [{Id: own, CachePolicyConfig: {Name: own, MinTTL: 0, DefaultTTL: 30, MaxTTL: 100, ParametersInCacheKeyAndForwardedToOrigin: {
  EnableAcceptEncodingGzip: true, HeadersConfig: {HeaderBehavior: whitelist, Headers: [X-A]}}}}]
CustomErrorResponses: [{ErrorCode: 404, ErrorCachingMinTTL: 20}]
`
	targets := []string{"/", "/p", "/p?x=1", "/q/a?x=1", "/q/a?b&x=%C3", "/w/a?w=1&z=2", "/w/a?z=3", "/min/a'b", "/min/a%20b//c", "/off/a"}
	controls := []string{"max-age=40", "no-store", "s-maxage=70, stale-while-revalidate=30", "private", "max-age=0, stale-if-error=50", ""}
	type step struct {
		kind                                    string
		status, seconds, edge                   int
		control, etag, method, target, variance string
	}
	steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		return step{
			rapid.SampledFrom([]string{"status", "headers", "time", "ask", "ask", "ask"}).Draw(t, "kind"),
			rapid.SampledFrom([]int{200, 200, 301, 404, 403, 500}).Draw(t, "status"), rapid.IntRange(1, 60).Draw(t, "seconds"), rapid.IntRange(0, 1).Draw(t, "edge"),
			rapid.SampledFrom(controls).Draw(t, "control"), rapid.SampledFrom([]string{"auto", ""}).Draw(t, "etag"),
			rapid.SampledFrom([]string{"GET", "GET", "GET", "HEAD"}).Draw(t, "method"), rapid.SampledFrom(targets).Draw(t, "target"),
			rapid.SampledFrom([]string{"1", "2"}).Draw(t, "variance"),
		}
	}), 1, 25)
	rapid.Check(t, func(rt *rapid.T) {
		regional, age, program := rapid.IntRange(0, 2).Draw(rt, "regional"), rapid.Bool().Draw(rt, "age"), steps.Draw(rt, "steps")
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			c := load(t, config)
			rules := c.Rules()
			origin := &pages{version: 1}
			s := start(t, origin, now(Options{Edges: 2, Regional: regional, Config: c, AccessLog: &log, TiersIgnoreAge: age}))
			for _, step := range program {
				switch step.kind {
				case "status":
					origin.answer(step.status)
				case "headers":
					origin.set(1, "Cache-Control", step.control, "Etag", step.etag)
				case "time":
					time.Sleep(time.Duration(step.seconds) * time.Second)
				case "ask":
					ask(t, s, step.edge, step.method, step.target, "X-A", step.variance)
				}
				synctest.Wait()
			}
			if log.Len() == 0 {
				return
			}
			entries := map[string]inventory.Record{}
			r := accesslog.NewReader(&log, "access.log", &accesslog.Options{Rules: &rules, Now: time.Now().Add(time.Second)})
			for {
				var line accesslog.Line
				outcome, err := r.Next(&line)
				if err == io.EOF {
					break
				}
				if err != nil || outcome == accesslog.Malformed {
					rt.Error(err, r.Summary().Problems)
					return
				}
				if outcome == accesslog.Recorded {
					entries[line.Sighting.Path] = entries[line.Sighting.Path].Merge(line.Record())
				}
			}
			if sum := r.Summary(); sum.Format != accesslog.CloudFront {
				rt.Errorf("format %q", sum.Format)
			}
			held := append(s.Objects(0), s.Objects(1)...)
			for i := range s.upper {
				held = append(held, s.Regional(i)...)
			}
			for _, o := range held {
				until := o.Expires
				if o.Stale.After(until) {
					until = o.Stale
				}
				if !until.After(time.Now()) {
					continue
				}
				record := entries[o.Path]
				if e := record.Entry(o.Path); !record.Live(time.Now()) || e.Expires.Before(o.Expires) {
					rt.Errorf("%s is held until %v; the log says %+v, live %v", o.Path, o.Expires, e, record.Live(time.Now()))
				}
			}
		})
	})
}
