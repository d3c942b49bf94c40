// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
)

// readAll reads everything and says what became of each line.
func readAll(t *testing.T, r *Reader) (outcomes []string, lines []Line) {
	t.Helper()
	for {
		var l Line
		o, err := r.Next(&l)
		if err == io.EOF {
			checkSum(t, r)
			return outcomes, lines
		}
		if err != nil {
			t.Fatal(err)
		}
		if o == Recorded {
			outcomes = append(outcomes, l.Sighting.Path)
			lines = append(lines, l)
		} else {
			outcomes = append(outcomes, o.String()+" "+r.Why())
		}
	}
}

// checkSum checks that nothing was lost.
func checkSum(t *testing.T, r *Reader) {
	t.Helper()
	s := r.Summary()
	sum := s.Recorded + s.Malformed
	for _, n := range s.Skipped {
		sum += n
	}
	if sum != s.Lines || s.Lines+s.Comments != r.src.line {
		t.Errorf("%d lines are accounted for of %d, and %d comments, of %d read: %+v", sum, s.Lines, s.Comments, r.src.line, s)
	}
	if len(s.Problems) != min(s.Malformed, MaxProblems) {
		t.Errorf("%d problems for %d malformed lines", len(s.Problems), s.Malformed)
	}
}

func read(t *testing.T, text string, opts *Options) ([]string, []Line, *Reader) {
	t.Helper()
	r := NewReader(strings.NewReader(text), "test.log", opts)
	outcomes, lines := readAll(t, r)
	return outcomes, lines, r
}

func one(t *testing.T, text string, opts *Options) Line {
	t.Helper()
	outcomes, lines, _ := read(t, text, opts)
	if len(lines) != 1 {
		t.Fatalf("%q gives %q, want one sighting", text, outcomes)
	}
	return lines[0]
}

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	return t
}

func rules(change func(*lifetime.Rules)) *lifetime.Rules {
	r := lifetime.DefaultRules()
	change(&r)
	return &r
}

func mustQuery(s string) cfpath.QueryRule {
	q, err := cfpath.ParseQueryRule(s)
	if err != nil {
		panic(err)
	}
	return q
}

const (
	combinedLine = `192.0.2.1 - - [22/Nov/2026:18:13:06 +0000] "GET /a?x=1 HTTP/1.1" 200 3 "-" "agent"`
	cftrackLine  = `{"cftrack":1,"end":"1795371186.187","took":"0.250","host":"www.example.com","method":"GET",` +
		`"target":"/a?x=1","status":"200","cache_control":"max-age=600","expires":"","age":"","cache_tag":"t1, t2","surrogate_key":"k1 k2"}`
	caddyLine = `{"level":"info","ts":1795371186.1875,"logger":"http.log.access.log0","msg":"handled request",` +
		`"request":{"remote_ip":"192.0.2.1","proto":"HTTP/2.0","method":"GET","host":"www.example.com","uri":"/a?x=1","headers":{"Accept":["*/*"]}},` +
		`"bytes_read":0,"user_id":"","duration":0.25,"size":3,"status":200,"resp_headers":{"Cache-Control":["public","max-age=600"],"Cache-Tag":["t1, t2","t3"]}}`
	listLine = `{"path":"/a?x=1","last":"2026-11-22T18:13:06.187Z","expires":"2026-11-23T18:13:06Z","hits":7,"tags":["t1"],"folded":false}`
)

func TestTimesAndLifetimes(t *testing.T) {
	end := at("2026-11-22T18:13:06Z")
	rs := lifetime.DefaultRules()
	unknown := rs.Unknown("/a").Lifetime
	renewed := rs.Of("/a", lifetime.Response{Status: 304}).Lifetime
	ms := time.Millisecond
	for _, tc := range []struct {
		name, text   string
		opts         Options
		start, end   time.Time
		life         time.Duration
		assumedStart bool
		assumedLife  bool
	}{
		{
			"combined: one instant, which may be the beginning or the end", combinedLine, Options{},
			end.Add(-Widen), end.Add(time.Second + Widen), unknown, true, true,
		},
		{
			"combined: nothing ends after it was read", combinedLine, Options{Now: end.Add(10 * time.Second)},
			end.Add(-Widen), end.Add(10 * time.Second), unknown, true, true,
		},
		{
			"combined: within the second of the reading", combinedLine, Options{Now: end.Add(300 * ms)},
			end.Add(-Widen), end.Add(time.Second), unknown, true, true,
		},
		{
			"combined: written after Now, which says nothing then", combinedLine, Options{Now: end.Add(-ms)},
			end.Add(-Widen), end.Add(time.Second + Widen), unknown, true, true,
		},
		{
			"combined: zone east", strings.Replace(combinedLine, "18:13:06 +0000", "23:43:06 +0530", 1), Options{},
			end.Add(-Widen), end.Add(time.Second + Widen), unknown, true, true,
		},
		{
			"combined: zone west", strings.Replace(combinedLine, "18:13:06 +0000", "10:13:06 -0800", 1), Options{},
			end.Add(-Widen), end.Add(time.Second + Widen), unknown, true, true,
		},
		{
			"an explicit TTL counts once, and is not assumed", combinedLine, Options{TTL: time.Hour},
			end.Add(-Widen), end.Add(time.Second + Widen), time.Hour, true, false,
		},
		{
			"cftrack: everything is told", cftrackLine, Options{},
			end.Add((187 - 250 - 2) * ms), end.Add(188 * ms), 20 * time.Minute, false, false,
		},
		{
			"cftrack of Apache: microseconds", strings.Replace(cftrackLine, `"took":"0.250"`, `"took_us":"250999"`, 1), Options{},
			end.Add((187-2)*ms - 250999*time.Microsecond), end.Add(188 * ms), 20 * time.Minute, false, false,
		},
		{
			"cftrack without a duration", strings.Replace(cftrackLine, `"took":"0.250",`, ``, 1), Options{},
			end.Add(187*ms - Widen), end.Add(188 * ms), 20 * time.Minute, true, false,
		},
		{
			"cftrack without a header that decides", strings.Replace(cftrackLine, `"expires":"",`, ``, 1), Options{},
			end.Add((187 - 250 - 2) * ms), end.Add(188 * ms), unknown, false, true,
		},
		{
			"cftrack: no headers sent is not the same as not known", strings.Replace(cftrackLine, `max-age=600`, `-`, 1), Options{},
			end.Add((187 - 250 - 2) * ms), end.Add(188 * ms), 48 * time.Hour, false, false,
		},
		{
			"cftrack: a 304 that says nothing", strings.Replace(strings.Replace(cftrackLine, `max-age=600`, ``, 1), `"200"`, `"304"`, 1), Options{},
			end.Add((187 - 250 - 2) * ms), end.Add(188 * ms), renewed, false, true,
		},
		{
			"caddy: all lines of a header", caddyLine, Options{},
			end.Add(187500*time.Microsecond - 252*ms), end.Add(188500 * time.Microsecond), 20 * time.Minute, false, false,
		},
		{
			"caddy with an ISO time and a duration as text",
			strings.Replace(strings.Replace(caddyLine, `1795371186.1875`, `"2026-11-22T19:13:06.187+0100"`, 1), `0.25,`, `"250ms",`, 1), Options{},
			end.Add((187 - 252) * ms), end.Add(188 * ms), 20 * time.Minute, false, false,
		},
		{
			"list: its own expiry", listLine, Options{},
			end.Add(187*ms - Widen), end.Add(187 * ms), 24*time.Hour - 187*ms, true, false,
		},
		{
			"list with an explicit TTL", listLine, Options{TTL: time.Minute},
			end.Add(187*ms - Widen), end.Add(187 * ms), time.Minute, true, false,
		},
		{
			"list without an expiry", strings.Replace(listLine, `"2026-11-23T18:13:06Z"`, `null`, 1), Options{},
			end.Add(187*ms - Widen), end.Add(187 * ms), rs.Longest(), true, true,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := one(t, tc.text, &tc.opts)
			s := l.Sighting
			if s.Path != "/a?x=1" {
				t.Errorf("path %q", s.Path)
			}
			if !s.Start.Equal(tc.start) || !s.End.Equal(tc.end) {
				t.Errorf("from %v to %v, want %v to %v", s.Start, s.End, tc.start, tc.end)
			}
			life := tc.life + lifetime.DefaultMargin
			if strings.HasPrefix(tc.name, "list: its own expiry") {
				life = tc.life
			}
			if got := s.Expires.Sub(s.End); got != life {
				t.Errorf("lifetime %v, want %v", got, life)
			}
			if l.StartAssumed != tc.assumedStart || l.LifetimeAssumed != tc.assumedLife {
				t.Errorf("start assumed %v, lifetime assumed %v", l.StartAssumed, l.LifetimeAssumed)
			}
		})
	}
}

func TestUntilPurged(t *testing.T) {
	if l := one(t, combinedLine, &Options{TTL: math.MaxInt64}); !l.Sighting.Expires.Equal(inventory.Never) {
		t.Errorf("expires %v", l.Sighting.Expires)
	}
}

// A life begins when CloudFront has the last byte, which is up to a margin after
// the server was done with it. Until its last moment the line counts.
func TestLifeCountsFromTheMargin(t *testing.T) {
	const hour, none = time.Hour, -1
	cloudFrontLine := "#Fields: date time cs-uri-stem cs-uri-query\n2026-11-22\t18:13:06\t/a\t-\n"
	unstated := strings.Replace(listLine, `"2026-11-23T18:13:06Z"`, `null`, 1)
	for _, text := range []string{combinedLine, cftrackLine, caddyLine, cloudFrontLine, listLine, unstated} {
		bare := one(t, text, &Options{TTL: hour, Margin: none}).Sighting
		if got := bare.Expires.Sub(bare.End); got != hour {
			t.Errorf("%.40q: without a margin the life is %v from the end", text, got)
		}
		for _, m := range []struct{ given, want time.Duration }{{0, 2 * time.Second}, {5 * time.Second, 5 * time.Second}} {
			over := bare.Expires.Add(m.want)
			for _, c := range []struct {
				now   time.Time
				lines int
			}{{over.Add(-1), 1}, {over, 0}} {
				outcomes, lines, _ := read(t, text, &Options{TTL: hour, Margin: m.given, Now: c.now})
				if len(lines) != c.lines || c.lines == 1 && !lines[0].Sighting.Expires.Equal(over) {
					t.Errorf("%.40q: margin %v, read %v before its end: %q, %+v", text, m.given, over.Sub(c.now), outcomes, lines)
				}
			}
		}
	}
	// A list says when an entry ends, and that is after the margin already.
	if l := one(t, listLine, nil); !l.Sighting.Expires.Equal(at("2026-11-23T18:13:06Z")) {
		t.Errorf("an entry of a list ends at %v", l.Sighting.Expires)
	}
}

func TestOutcomes(t *testing.T) {
	get := func(request, status string) string {
		return `192.0.2.1 - - [22/Nov/2026:18:13:06 +0000] "` + request + `" ` + status + ` 3`
	}
	json := func(from, to string) string { return strings.Replace(cftrackLine, from, to, 1) }
	noQuery := rules(func(r *lifetime.Rules) { r.Default.Query = mustQuery("none") })
	options := rules(func(r *lifetime.Rules) { r.Default.CacheOptions = true })
	disabled := rules(func(r *lifetime.Rules) { r.Default.MinTTL, r.Default.DefaultTTL, r.Default.MaxTTL = 0, 0, 0 })
	for _, tc := range []struct {
		text string
		opts Options
		want string
	}{
		{get("GET /a HTTP/1.1", "200"), Options{}, "/a"},
		{get("HEAD /a HTTP/1.1", "206"), Options{}, "/a"},
		{get("GET /a", "200"), Options{}, "/a"},
		{get(`GET /say\"hi\" HTTP/1.1`, "200"), Options{}, "/say%22hi%22"},
		{get(`GET /say\x22hi\x22 HTTP/1.1`, "200"), Options{}, "/say%22hi%22"},
		{get(`GET /back\\slash HTTP/1.1`, "200"), Options{}, "/back%5Cslash"},
		{get(`GET /back\x5cx41 HTTP/1.1`, "200"), Options{}, "/back%5Cx41"},
		{get(`GET /a b HTTP/1.1`, "200"), Options{}, "/a%20b"},
		{get(`GET /a HTTP/9 b HTTP/1.1`, "200"), Options{}, "/a%20HTTP/9%20b"},
		{get("GET http://www.example.com/a?b HTTP/1.1", "200"), Options{}, "/a?b"},
		{get("GET /a?b=c?d#e HTTP/1.1", "200"), Options{}, "/a?b=c?d%23e"},
		{get("POST /a HTTP/1.1", "200"), Options{}, "skipped method"},
		{get("CONNECT a:443 HTTP/1.1", "200"), Options{}, "skipped method"},
		{get("OPTIONS /a HTTP/1.1", "200"), Options{}, "skipped method"},
		{get("OPTIONS /a HTTP/1.1", "200"), Options{Rules: options}, "/a"},
		{get("OPTIONS * HTTP/1.1", "200"), Options{}, "skipped no-request"},
		{get("OPTIONS * HTTP/1.1", "200"), Options{Rules: options}, "skipped no-request"},
		{get("GET /a HTTP/1.1", "404"), Options{}, "/a"},
		{get("GET /a HTTP/1.1", "301"), Options{}, "/a"},
		{get("GET /a HTTP/1.1", "304"), Options{}, "/a"},
		{get("GET /a HTTP/1.1", "401"), Options{}, "skipped status"},
		{get("GET /a HTTP/1.1", "416"), Options{}, "skipped status"},
		{get("GET /a HTTP/1.1", "499"), Options{}, "skipped status"},
		{get("GET /a HTTP/1.1", "101"), Options{}, "skipped status"},
		{get("GET /a HTTP/1.1", "-"), Options{}, "skipped status"},
		{get("-", "408"), Options{}, "skipped no-request"},
		{get("", "400"), Options{}, "skipped no-request"},
		{get(`\x16\x03\x01`, "400"), Options{}, "skipped no-request"},
		{get("GET a HTTP/1.1", "400"), Options{}, "skipped no-request"},
		{get("GET /"+strings.Repeat("x", 8192)+" HTTP/1.1", "200"), Options{}, "skipped too-long"},
		{get("GET /a HTTP/1.1", "200"), Options{Rules: disabled}, "skipped not-kept"},
		{get("GET /a?b HTTP/1.1", "200"), Options{Rules: noQuery}, "/a"},
		{get("GET /a HTTP/1.1", "200"), Options{TTL: time.Hour, Now: at("2026-11-22T19:14:06Z")}, "/a"},
		{get("GET /a HTTP/1.1", "200"), Options{TTL: time.Hour, Now: at("2026-11-22T19:14:09Z")}, "skipped expired"},
		{get("GET /p/a HTTP/1.1", "200"), Options{OriginPath: "/p"}, "/a"},
		{get("GET /q/a HTTP/1.1", "200"), Options{OriginPath: "/p"}, "skipped origin-path"},
		{get("GET /a HTTP/1.1", "200"), Options{Hosts: []string{"www.example.com"}}, "/a"},
		{"www.example.com:80 " + get("GET /a HTTP/1.1", "200"), Options{Hosts: []string{"www.example.com"}}, "/a"},
		{"www.example.com:80 " + get("GET /a HTTP/1.1", "200"), Options{Hosts: []string{"example.com"}}, "skipped other-host"},
		{"::1 - user [x] \\\" - [22/Nov/2026:18:13:06 +0000] \"GET /a HTTP/1.1\" 200 3", Options{}, "/a"},

		{cftrackLine, Options{Hosts: []string{"*.EXAMPLE.com"}}, "/a?x=1"},
		{cftrackLine, Options{Hosts: []string{"*.www.example.com", "example.com"}}, "skipped other-host"},
		{json(`www.example.com`, `www.example.com:8080`), Options{Hosts: []string{"www.example.com"}}, "/a?x=1"},
		{json(`max-age=600`, `no-store`), Options{}, "skipped not-kept"},
		{json(`max-age=600`, `no-store`), Options{TTL: time.Hour}, "skipped not-kept"},
		{json(`/a?x=1`, `/\u00e9\xff\"\\x`), Options{}, "/%C3%A9%FF%22%5Cx"},
		{json(`/a?x=1`, "/\xff\xc3\xa9"), Options{}, "/%FF%C3%A9"},
		{json(`/a?x=1`, `/\ud83d\ude00`), Options{}, "/%F0%9F%98%80"},
		{json(`"target":"/a?x=1"`, `"target":""`), Options{}, "skipped no-request"},
		{json(`"200"`, `"-"`), Options{}, "skipped status"},
		{json(`"method":"GET","target":"/a?x=1"`, `"request":"GET /b\"c HTTP/1.1"`), Options{}, "/b%22c"},
		{json(`"method":"GET","target":"/a?x=1"`, `"request":"-"`), Options{}, "skipped no-request"},
		{json(`"host"`, `"more":{"a":[1,{"b":"]}"}],"c":null},"host"`), Options{}, "/a?x=1"},

		{caddyLine, Options{}, "/a?x=1"},
		{strings.Replace(caddyLine, `http.log.access.log0`, `http.log.error`, 1), Options{}, "skipped not-access"},
		{strings.Replace(caddyLine, `"/a?x=1"`, `"/\ufffd"`, 1), Options{}, `malformed "uri" has bytes that are not UTF-8, which Caddy does not log`},
		{strings.Replace(caddyLine, `"/a?x=1"`, "\"/\uFFFD\"", 1), Options{}, "/%EF%BF%BD"},
		{strings.Replace(caddyLine, `"/a?x=1"`, `""`, 1), Options{}, "skipped no-request"},
		{strings.Replace(caddyLine, `200`, `0`, 1), Options{}, "skipped status"},

		{listLine, Options{OriginPath: "/p", Hosts: []string{"h"}, Rules: noQuery}, "/a?x=1"},
		{listLine, Options{Now: at("2026-11-23T18:13:06Z")}, "skipped expired"},
		{strings.Replace(strings.Replace(listLine, "/a?x=1", "/a%2", 1), `"folded":false`, `"folded":true`, 1), Options{}, "/a"},
	} {
		outcomes, _, _ := read(t, tc.text, &tc.opts)
		if len(outcomes) != 1 || outcomes[0] != tc.want {
			t.Errorf("%.300s\n gives %q, want %q", tc.text, outcomes, tc.want)
		}
	}
}

func TestMalformed(t *testing.T) {
	for _, tc := range []struct{ format, text, want string }{
		{"combined", `nonsense`, "no [time]"},
		{"combined", strings.Replace(combinedLine, "Nov", "Nix", 1), "time is not like"},
		{"combined", strings.Replace(combinedLine, "22/", "31/", 1), "time is not like"},
		{"combined", strings.Replace(combinedLine, "18:", "24:", 1), "time is not like"},
		{"combined", strings.Replace(combinedLine, "+0000", "*0000", 1), "time is not like"},
		{"combined", combinedLine[:60], "no closing quote"},
		{"combined", strings.Replace(combinedLine, " 200 ", " 20 ", 1), "no status"},
		{"cftrack", cftrackLine[:100], "not a whole JSON object"},
		{"cftrack", cftrackLine + "x", "not a whole JSON object"},
		{"cftrack", strings.Replace(cftrackLine, "/a", `/\u12`, 1), "not a whole JSON object"},
		{"cftrack", strings.Replace(cftrackLine, "/a", `/\ud800x`, 1), "not a whole JSON object"},
		{"cftrack", strings.Replace(cftrackLine, `":1,`, `":2,`, 1), "of a later version"},
		{"cftrack", caddyLine, `no "cftrack":1`},
		{"cftrack", strings.Replace(cftrackLine, `1795371186.187`, `now`, 1), `"end" is not`},
		{"cftrack", strings.Replace(cftrackLine, `0.250`, `-1`, 1), `"took" is not`},
		{"cftrack", strings.Replace(cftrackLine, `"200"`, `"OK"`, 1), `"status" is not`},
		{"caddy", strings.Replace(caddyLine, `"ts":1795371186.1875`, `"ts":"yesterday"`, 1), `"ts" is neither`},
		{"caddy", strings.Replace(caddyLine, `0.25`, `"long"`, 1), `"duration" is neither`},
		{"caddy", strings.Replace(caddyLine, `"Cache-Control":[`, `"Cache-Control":[3,`, 1), "not a whole JSON object"},
		{"list", strings.Replace(listLine, `"path"`, `"pass"`, 1), `no "path"`},
		{"list", strings.Replace(listLine, `/a?x=1`, `a`, 1), `begins with '/'`},
		{"list", strings.Replace(listLine, `2026-11-22T`, `2026-22-11T`, 1), `"last" is not`},
		{"list", strings.Replace(listLine, `2026-11-23T`, `soon`, 1), `"expires" is not`},
	} {
		outcomes, _, r := read(t, tc.text, &Options{Format: Format(tc.format)})
		if len(outcomes) != 1 || !strings.HasPrefix(outcomes[0], "malformed") || !strings.Contains(outcomes[0], tc.want) {
			t.Errorf("%s as %s gives %q, want %q", tc.text, tc.format, outcomes, tc.want)
			continue
		}
		if got := r.Summary().Problems[0].String(); !strings.HasPrefix(got, "test.log:1: ") {
			t.Errorf("problem %q does not say where", got)
		}
	}
}

func TestTags(t *testing.T) {
	for _, tc := range []struct {
		text, header string
		want         []string
		mixed        bool
	}{
		{cftrackLine, "", []string{"t1", "t2", "k1", "k2"}, true},
		{cftrackLine, "surrogate-key", []string{"k1", "k2"}, false},
		{cftrackLine, "Edge-Cache-Tag", nil, false},
		{cftrackLine, "Edge-Cache-Tag, cache-tag", []string{"t1", "t2"}, false},
		{strings.Replace(cftrackLine, "cache_tag", "edge_cache_tag", 1), "Edge-Cache-Tag", []string{"t1", "t2"}, false},
		{strings.Replace(cftrackLine, "t1, t2", ",, a b ,", 1), "Cache-Tag", []string{"a b"}, false},
		{strings.Replace(cftrackLine, "k1 k2", `k1,k2\tk3  k4`, 1), "Surrogate-Key", []string{"k1", "k2", "k3", "k4"}, false},
		{strings.Replace(cftrackLine, "k1 k2", "-", 1), "", []string{"t1", "t2"}, false},
		{caddyLine, "", []string{"t1", "t2", "t3"}, true},
		{strings.Replace(caddyLine, `,"t3"`, "", 1), "", []string{"t1", "t2"}, false},
		{listLine, "", []string{"t1"}, true},
		{strings.Replace(listLine, `"t1"`, `"a, b","c d "`, 1), "", []string{"a, b", "c d "}, true},
	} {
		l := one(t, tc.text, &Options{TagHeader: tc.header})
		if !slices.Equal(l.Sighting.Tags, tc.want) || l.Mixed != tc.mixed || l.Record().Mixed != tc.mixed {
			t.Errorf("%s with %q: tags %q, mixed %v, want %q", tc.text, tc.header, l.Sighting.Tags, l.Mixed, tc.want)
		}
	}
	// Lines share their tags: one more line must not change an earlier one's.
	_, lines, _ := read(t, cftrackLine+"\n"+strings.Replace(cftrackLine, "k1 k2", "k3", 1)+"\n", nil)
	if want := []string{"t1", "t2", "k1", "k2"}; !slices.Equal(lines[0].Sighting.Tags, want) {
		t.Errorf("after a second line the first has the tags %q, want %q", lines[0].Sighting.Tags, want)
	}
}

func TestListRecord(t *testing.T) {
	r := inventory.Record{
		Last: at("2026-11-22T18:13:06.187Z").UnixMilli(), Expires: at("2026-11-23T18:13:06Z").UnixMilli(),
		Hits: 7, Tags: []string{"t1"}, Mixed: true, Folded: true,
	}
	l := one(t, strings.Replace(listLine, `"folded":false`, `"folded":true`, 1), nil)
	if got := l.Record(); fmt.Sprint(got) != fmt.Sprint(r) {
		t.Errorf("a folded entry comes back as %+v, want %+v", got, r)
	}
	l = one(t, strings.Replace(listLine, `"folded":false`, `"mixed":false`, 1), nil)
	if got := l.Record(); got.Folded || got.Mixed {
		t.Errorf("a plain entry comes back as %+v", got)
	}
}

func TestDetect(t *testing.T) {
	for _, tc := range []struct {
		text string
		want Format
	}{
		{combinedLine, Combined},
		{strings.TrimSuffix(combinedLine, ` "-" "agent"`), Common},
		{"www.example.com:80 " + combinedLine, Combined},
		{cftrackLine, CFTrack},
		{caddyLine, Caddy},
		{listLine, List},
		{"#Version: 1.0\n#Fields: date time cs-uri-stem cs-uri-query\n", CloudFront},
		{cloudFrontLine("/a", "-", "200", "Hit"), CloudFront},
		{combinedLine[30:] + "\n" + combinedLine, Combined}, // rotated in the middle of a line
		{"\n\n" + cftrackLine[30:] + "\n" + cftrackLine, CFTrack},
		{"", ""},
		{"# nothing\n\n", ""},
	} {
		_, _, r := read(t, tc.text, nil)
		if got := r.Summary().Format; got != tc.want {
			t.Errorf("%.100s is taken for %q, want %q", tc.text, got, tc.want)
		}
	}
	for _, text := range []string{"abc", strings.Repeat("hello\n", 30), "{}", `{"a":1}`, "a\tb\tc"} {
		r := NewReader(strings.NewReader(text), "odd.txt", nil)
		var err error
		for err == nil {
			var o Outcome
			if o, err = r.Next(new(Line)); err == nil && o != Malformed {
				t.Errorf("%q: %v", text, o)
			}
		}
		if err == io.EOF || !strings.Contains(err.Error(), "odd.txt: in no known log format (cloudfront, ") {
			t.Errorf("%.10q: error %v", text, err)
		}
		checkSum(t, r)
	}
	if _, err := NewReader(strings.NewReader(combinedLine), "x", &Options{Format: "iis"}).Next(new(Line)); err == nil || !strings.Contains(err.Error(), `"iis"`) {
		t.Errorf("an unknown format gives %v", err)
	}
	for _, f := range Formats() {
		if got, err := ParseFormat(string(f)); got != f || err != nil {
			t.Errorf("ParseFormat(%q) = %q, %v", f, got, err)
		}
	}
	for _, name := range []string{"nginx", "apache"} {
		if got, err := ParseFormat(name); got != CFTrack || err != nil {
			t.Errorf("ParseFormat(%q) = %q, %v", name, got, err)
		}
	}
}

func gzipped(t testing.TB, parts ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, p := range parts {
		w := gzip.NewWriter(&b)
		if _, err := io.WriteString(w, p); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// oneByte gives one byte at a time.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(len(p), 1)]) }

func TestSources(t *testing.T) {
	text := combinedLine + "\r\n\r\n" + strings.Replace(combinedLine, "/a", "/b", 1) + "\n" + strings.Replace(combinedLine, "/a", "/c", 1)
	want := []string{"/a?x=1", "/b?x=1", "/c?x=1"}
	for name, data := range map[string][]byte{
		"plain":           []byte(text),
		"byte order mark": []byte("\xef\xbb\xbf" + text),
		"gzip":            gzipped(t, text),
		"gzip with mark":  gzipped(t, "\xef\xbb\xbf"+text),
		"members":         gzipped(t, text[:50], text[50:]),
	} {
		for _, r := range []io.Reader{bytes.NewReader(data), oneByte{bytes.NewReader(data)}} {
			rd := NewReader(r, name, nil)
			if got, _ := readAll(t, rd); !slices.Equal(got, want) {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
			if s := rd.Summary(); s.Bytes != int64(len(data)) || s.Comments != 1 {
				t.Errorf("%s: %d bytes read of %d, %d blank lines", name, s.Bytes, len(data), s.Comments)
			}
		}
	}
}

func TestCutOffGzip(t *testing.T) {
	var text strings.Builder
	for i := range 5000 {
		fmt.Fprintln(&text, strings.Replace(combinedLine, "/a?x=1", fmt.Sprintf("/a?x=%d", i*7919), 1))
	}
	data := gzipped(t, text.String())
	r := NewReader(bytes.NewReader(data[:len(data)/2]), "cut.gz", nil)
	var l Line
	var err error
	n := 0
	for {
		var o Outcome
		if o, err = r.Next(&l); err != nil {
			break
		}
		if o == Recorded {
			if want := fmt.Sprintf("/a?x=%d", n*7919); l.Sighting.Path != want {
				t.Fatalf("path %q, want %q", l.Sighting.Path, want)
			}
			n++
		}
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "cut.gz: unreadable after line") {
		t.Errorf("error %v", err)
	}
	if n < 1000 || n >= 5000 {
		t.Errorf("%d lines were kept of the half that is there", n)
	}
	if s := r.Summary(); s.Recorded != n || s.Malformed > 1 {
		t.Errorf("%+v", s)
	}
	checkSum(t, r)
	if _, again := r.Next(&l); again != err {
		t.Errorf("after the error: %v", again)
	}
	for _, data := range [][]byte{data[:2], data[:9], append(gzipped(t, "x\n"), "rubbish"...)} {
		r := NewReader(bytes.NewReader(data), "cut.gz", &Options{Format: Combined})
		for err = nil; err == nil; {
			_, err = r.Next(&l)
		}
		if err == io.EOF {
			t.Errorf("%q counts as whole", data)
		}
	}
}

func TestLongLines(t *testing.T) {
	pad := func(n int) string { // a line of n bytes
		return combinedLine[:len(combinedLine)-1] + strings.Repeat("x", n-len(combinedLine)) + `"`
	}
	for _, r := range []func(string) io.Reader{
		func(s string) io.Reader { return strings.NewReader(s) },
		func(s string) io.Reader { return bytes.NewReader(gzipped(t, s)) },
	} {
		text := pad(maxLine) + "\n" + pad(maxLine+1) + "\n" + pad(3*maxLine) + "\n" + combinedLine + "\n" + pad(2*maxLine)
		rd := NewReader(r(text), "long.log", nil)
		got, _ := readAll(t, rd)
		long := "malformed longer than 1048576 bytes: no server writes such a line"
		if want := []string{"/a?x=1", long, long, "/a?x=1", long}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		if p := rd.Summary().Problems; len(p) != 3 || p[1].Line != 3 || p[2].Line != 5 {
			t.Errorf("problems %v", p)
		}
	}
}

// What a reader remembers is bounded, whatever the log holds, and what it says
// does not depend on it.
func TestBounded(t *testing.T) {
	const n = 3 * maxTexts
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, `{"cftrack":1,"end":"1795371186","method":"GET","target":"/n%d","status":"200","host":"n%d.example.com",`+
			`"cache_control":"max-age=%d","expires":"","cache_tag":"n%d"}`+"\n", i, i, i+1, i)
	}
	text.WriteString(strings.Replace(cftrackLine, "t1", strings.Repeat("t", 5*maxText), 1))
	r := NewReader(strings.NewReader(text.String()), "test.log", &Options{Hosts: []string{"*.example.com"}})
	_, lines := readAll(t, r)
	if len(r.hosts) > maxTexts || len(r.tags) > maxTexts || len(r.texts) > maxTexts {
		t.Errorf("%d hosts, %d tags, %d values are remembered", len(r.hosts), len(r.tags), len(r.texts))
	}
	for i, l := range lines[:n] {
		if want := fmt.Sprintf("n%d", i); l.Sighting.Path != "/"+want || l.Sighting.Tags[0] != want ||
			l.Sighting.Expires.Sub(l.Sighting.End) != 2*time.Second*time.Duration(i+1)+lifetime.DefaultMargin {
			t.Fatalf("line %d is %+v", i+1, l.Sighting)
		}
	}

	for name, path := range map[string]func(i int) string{
		"many": func(i int) string { return fmt.Sprint("/n", i) },
		"long": func(i int) string { return fmt.Sprint("/", i, strings.Repeat("x", 8000)) },
	} {
		r := NewReader(nil, "test.log", nil)
		for i := range map[string]int{"many": maxPaths + 5000, "long": maxPathBytes/8000 + 50}[name] {
			r.key = append(r.key[:0], path(i)...)
			if got := r.at(ofTarget); got.path != path(i) {
				t.Fatalf("%q is %+v", path(i), got)
			}
			if len(r.paths) > maxPaths || r.pathBytes > maxPathBytes+20000 {
				t.Fatalf("%d paths with %d bytes are remembered", len(r.paths), r.pathBytes)
			}
		}
	}
}

func TestSetNow(t *testing.T) {
	r := NewReader(strings.NewReader(combinedLine+"\n"+combinedLine+"\n"+combinedLine), "test.log", &Options{TTL: time.Hour})
	var l Line
	end := at("2026-11-22T18:13:07Z")
	for _, tc := range []struct {
		now  time.Time
		want Outcome
		end  time.Time
	}{
		{time.Time{}, Recorded, end.Add(Widen)},
		{end.Add(5 * time.Second), Recorded, end.Add(5 * time.Second)},
		{end.Add(24 * time.Hour), Skipped, time.Time{}},
	} {
		r.SetNow(tc.now)
		if o, err := r.Next(&l); o != tc.want || err != nil || o == Recorded && !l.Sighting.End.Equal(tc.end) {
			t.Errorf("now %v: %v %v, end %v, want %v, end %v", tc.now, o, err, l.Sighting.End, tc.want, tc.end)
		}
	}
}

// Every reason is explained to people, and no other.
func TestReasonsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("formats.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "## Reasons for skipped lines")
	parts := strings.Split(table, "`")
	var documented []string
	for i := 1; i < len(parts); i += 2 {
		documented = append(documented, parts[i])
	}
	names := slices.Clone(reasonNames[skipMethod:])
	slices.Sort(names)
	slices.Sort(documented)
	if !slices.Equal(names, documented) {
		t.Errorf("the reasons are %q, but formats.md has %q", names, documented)
	}
}

// TestRealLog reads the requests of a real site, where they are at hand.
func TestRealLog(t *testing.T) {
	dir := os.Getenv("CFTRACK_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "data")
	}
	f, err := os.Open(filepath.Join(dir, "apache-combined-10k.log.gz"))
	if err != nil {
		t.Skipf("the real log is missing: %v", err)
	}
	defer f.Close()
	r := NewReader(f, "apache-combined-10k.log.gz", nil)
	_, lines := readAll(t, r)
	// Counted with awk: 10,000 lines, 5 POST and 1 OPTIONS, 2 of status 416.
	s := r.Summary()
	if s.Lines != 10000 || s.Recorded != 9992 || s.Skipped["method"] != 6 || s.Skipped["status"] != 2 || s.Malformed != 0 {
		t.Errorf("%+v", s)
	}
	if first := lines[0].Sighting; first.Path != "/presentations/logstash-monitorama-2013/images/kibana-search.png" ||
		!first.Start.Equal(at("2015-05-17T10:04:03Z")) {
		t.Errorf("first line: %+v", first)
	}
}
