// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
)

// allFields is the #Fields line of a log of today.
const allFields = "#Fields: " + documentedFields + " sc-content-type sc-content-len sc-range-start sc-range-end"

// edge returns the values of a line; change sets some of them.
func edge(change map[string]string) map[string]string {
	v := map[string]string{
		"date": "2026-11-22", "time": "18:13:06", "x-edge-location": "FRA56-P2", "sc-bytes": "392", "c-ip": "192.0.2.100",
		"cs-method": "GET", "cs(Host)": "d111111abcdef8.cloudfront.net", "cs-uri-stem": "/a", "sc-status": "200",
		"cs(User-Agent)": "Mozilla/5.0%20(X11)", "cs-uri-query": "-", "x-edge-result-type": "Miss", "x-host-header": "www.example.com",
		"cs-protocol": "https", "time-taken": "0.250", "x-edge-response-result-type": "Miss", "x-edge-detailed-result-type": "Miss",
	}
	for k, c := range change {
		v[k] = c
	}
	return v
}

// edgeLine writes values in the order of a #Fields line.
func edgeLine(fields string, values map[string]string) string {
	var b strings.Builder
	for i, name := range strings.Fields(strings.TrimPrefix(fields, "#Fields:")) {
		if i > 0 {
			b.WriteByte('\t')
		}
		if v, ok := values[name]; ok {
			b.WriteString(v)
		} else {
			b.WriteByte('-')
		}
	}
	return b.String()
}

func cloudFrontLine(stem, query, status, result string) string {
	return edgeLine(allFields, edge(map[string]string{
		"cs-uri-stem": stem, "cs-uri-query": query, "sc-status": status,
		"x-edge-result-type": result, "x-edge-response-result-type": result, "x-edge-detailed-result-type": result,
	}))
}

func TestCloudFrontResults(t *testing.T) {
	disabled := rules(func(r *lifetime.Rules) {
		r.Behaviors = []lifetime.Behavior{{Pattern: mustPattern("/api/*")}}
	})
	options := rules(func(r *lifetime.Rules) { r.Default.CacheOptions = true })
	noQuery := rules(func(r *lifetime.Rules) { r.Default.Query = mustQuery("include:a") })
	m := func(kv ...string) map[string]string {
		out := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			out[kv[i]] = kv[i+1]
		}
		return out
	}
	const rt, rrt, dt = "x-edge-result-type", "x-edge-response-result-type", "x-edge-detailed-result-type"
	for _, tc := range []struct {
		change map[string]string
		opts   Options
		want   string
	}{
		{m(), Options{}, "/a"},
		{m(rt, "Hit"), Options{}, "/a"},
		{m(rt, "RefreshHit", "sc-status", "304"), Options{}, "/a"},
		{m(dt, "OriginShieldHit"), Options{}, "/a"},
		{m(dt, "MissGeneratedResponse"), Options{}, "/a"},
		{m(rt, "SomethingNew"), Options{}, "/a"},
		{m(rt, "-"), Options{}, "/a"},
		{m(rt, "Error", "sc-status", "404", rrt, "Error", dt, "Error"), Options{}, "/a"},
		{m(rt, "Error", "sc-status", "502", rrt, "Error", dt, "OriginConnectError"), Options{}, "/a"},
		{m(rt, "Error", "sc-status", "403", rrt, "Error", dt, "Error"), Options{}, "/a"}, // may have had a max-age
		{m(rt, "Error", "sc-status", "401", rrt, "Error", dt, "Error"), Options{}, "skipped status"},
		{m(rt, "Error", "sc-status", "416", rrt, "Error", dt, "Error"), Options{}, "skipped status"},
		{m(rt, "Error", "sc-status", "200", rrt, "Error", dt, "Error"), Options{}, "/a"}, // custom error response
		{m(rt, "Error", "sc-status", "000", rrt, "Miss", dt, "Error"), Options{}, "/a"},  // the viewer left
		{m(rt, "Error", "sc-status", "000", rrt, "Error", dt, "Error"), Options{}, "/a"}, // the same
		{m(rt, "Error", "sc-status", "200", rrt, "Hit", dt, "ClientCommError"), Options{}, "/a"},
		{m(rt, "Error", "sc-status", "403", rrt, "Error", dt, "ClientGeoBlocked"), Options{}, "skipped blocked"},
		{m(rt, "Error", "sc-status", "403", rrt, "Error", dt, "InvalidRequestBlocked"), Options{}, "skipped invalid-request"},
		{m(rt, "Error", "sc-status", "503", rrt, "Error", dt, "LambdaLimitExceeded"), Options{}, "skipped limit-exceeded"},
		{m(rt, "Error", "sc-status", "503", rrt, "CapacityExceeded", dt, "-"), Options{}, "skipped capacity-exceeded"},
		{m(rt, "LambdaExecutionError", "sc-status", "502", rrt, "LambdaExecutionError"), Options{}, "/a"},
		{m(rt, "Redirect", "sc-status", "301"), Options{}, "skipped redirect"},
		{m(rt, "LimitExceeded", "sc-status", "503"), Options{}, "skipped limit-exceeded"},
		{m(rt, "CapacityExceeded", "sc-status", "503"), Options{}, "skipped capacity-exceeded"},
		{m("cs-method", "POST"), Options{}, "skipped method"},
		{m("cs-method", "OPTIONS"), Options{}, "skipped method"},
		{m("cs-method", "OPTIONS"), Options{Rules: options}, "/a"},
		{m("cs-protocol", "wss"), Options{}, "skipped protocol"},
		{m("cs-protocol", "grpcs"), Options{}, "skipped protocol"},
		{m("sc-status", "101"), Options{}, "skipped status"},
		{m("cs-uri-stem", "/api/x"), Options{Rules: disabled}, "skipped not-kept"},
		{m("cs-uri-stem", "/api/x", rt, "Hit"), Options{Rules: disabled}, "/api/x"}, // the cache knows better
		{m("cs-uri-query", "b=1&a=2&a=3"), Options{}, "/a?b=1&a=2&a=3"},
		{m("cs-uri-query", "b=1&a=2&a=3"), Options{Rules: noQuery}, "/a?a=2&a=3"},
		{m("cs-uri-stem", "/a%2520b%25C3%25A9", "cs-uri-query", "q=%2522"), Options{}, "/a%20b%C3%A9?q=%22"},
		{m(), Options{OriginPath: "/p"}, "/a"},
		{m(), Options{Hosts: []string{"www.example.com"}}, "/a"},
		{m(), Options{Hosts: []string{"d111111abcdef8.cloudfront.net"}}, "/a"},
		{m(), Options{Hosts: []string{"example.com"}}, "skipped other-host"},
		{m(), Options{TTL: time.Hour, Now: at("2026-11-22T19:13:09Z")}, "skipped expired"},
		{m(), Options{TTL: time.Hour, Now: at("2026-11-22T19:13:08.999Z")}, "/a"},
		{m("sc-status", "2xx"), Options{}, "malformed sc-status is not a number of three digits"},
		{m("time", "18:13"), Options{}, "malformed date and time are not like 2006-01-02 and 15:04:05"},
		{m("date", "2026-02-29"), Options{}, "malformed date and time are not like 2006-01-02 and 15:04:05"},
		{m("time-taken", "long"), Options{}, "malformed time-taken is not a number of seconds"},
	} {
		got, _, _ := read(t, allFields+"\n"+edgeLine(allFields, edge(tc.change)), &tc.opts)
		if len(got) != 1 || got[0] != tc.want {
			t.Errorf("%v gives %q, want %q", tc.change, got, tc.want)
		}
	}
}

func mustPattern(s string) cfpath.Pattern {
	p, err := cfpath.ParsePattern(s)
	if err != nil {
		panic(err)
	}
	return p
}

// The examples of AWS's guide, of two ages.
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/standard-logs-reference.html
func TestCloudFrontExamples(t *testing.T) {
	for _, tc := range []struct {
		text, path string
		end        time.Time
	}{
		{
			"2014-05-23\t01:13:12\tLAX1\t2390282\t192.0.2.202\tGET\td111111abcdef8.cloudfront.net\t/soundtrack/happy.mp3\t304\t" +
				"www.unknownsingers.com\tMozilla/4.0%20(compatible;%20MSIE%207.0;%20Windows%20NT%205.1)\ta=b&c=d\tzip=50158\tHit\t" +
				"xGN7KWpVEmB9Dp7ctcVFQC4E-nrcOcEKS3QyAez--06dV7TEXAMPLE==\td111111abcdef8.cloudfront.net\thttp\t-\t0.002\t-\t-\t-\tHit\tHTTP/1.1\t-\t-",
			"/soundtrack/happy.mp3?a=b&c=d", at("2014-05-23T01:13:13Z"),
		},
		{
			"2019-12-04\t21:02:31\tLAX1\t392\t192.0.2.100\tGET\td111111abcdef8.cloudfront.net\t/index.html\t200\t-\t" +
				"Mozilla/5.0%20(Windows%20NT%2010.0;%20Win64;%20x64)\t-\t-\tHit\tSOX4xwn4XV6Q4rgb7XiVGOHms_BGlTAC4KyHmureZmBNrjGdRLiNIQ==\t" +
				"d111111abcdef8.cloudfront.net\thttps\t23\t0.001\t-\tTLSv1.2\tECDHE-RSA-AES128-GCM-SHA256\tHit\tHTTP/2.0\t-\t-\t11040\t0.001\t" +
				"Hit\ttext/html\t78\t-\t-",
			"/index.html", at("2019-12-04T21:02:32Z"),
		},
	} {
		if s := one(t, tc.text, nil).Sighting; s.Path != tc.path || !s.End.Equal(tc.end) {
			t.Errorf("%s, %v, want %s, %v", s.Path, s.End, tc.path, tc.end)
		}
	}
}

func TestCloudFrontTimes(t *testing.T) {
	end := at("2026-11-22T18:13:06Z")
	for _, tc := range []struct {
		change  map[string]string
		start   time.Time
		assumed bool
	}{
		{nil, end.Add(-251 * time.Millisecond), false},
		{map[string]string{"time-taken": "-"}, end.Add(-Widen), true},
		{map[string]string{"x-edge-result-type": "Hit"}, end.Add(-251*time.Millisecond - Widen), true},
		{map[string]string{"x-edge-result-type": "RefreshHit"}, end.Add(-251 * time.Millisecond), false},
	} {
		l := one(t, allFields+"\n"+edgeLine(allFields, edge(tc.change)), nil)
		if !l.Sighting.Start.Equal(tc.start) || l.StartAssumed != tc.assumed {
			t.Errorf("%v: start %v, assumed %v, want %v", tc.change, l.Sighting.Start, l.StartAssumed, tc.start)
		}
		if !l.Sighting.End.Equal(end.Add(time.Second)) || !l.LifetimeAssumed {
			t.Errorf("%v: end %v, lifetime assumed %v", tc.change, l.Sighting.End, l.LifetimeAssumed)
		}
	}
	fields := "#Fields: timestamp(ms) cs-uri-stem cs-uri-query time-taken"
	l := one(t, fields+"\n1795371186187\t/a\t-\t0.250", nil)
	if s := l.Sighting; !s.Start.Equal(end.Add((187-251)*time.Millisecond)) || !s.End.Equal(end.Add(188*time.Millisecond)) {
		t.Errorf("timestamp(ms): from %v to %v", s.Start, s.End)
	}
}

func TestCloudFrontFields(t *testing.T) {
	line := cloudFrontLine("/a", "-", "200", "Miss")
	old := strings.Join(strings.Split(line, "\t")[:26], "\t")
	oldFields := strings.Join(strings.Fields(allFields)[:27], " ")
	for _, tc := range []struct {
		text string
		want []string
	}{
		{line, []string{"/a"}}, // no #Fields: the documented order
		{old, []string{"/a"}},  // which was shorter once
		{line + "\n" + line[:90], []string{"/a", "malformed fewer columns than the log has fields"}},
		{allFields + "\n" + line + "\tmore\tcolumns\n", []string{"/a"}},
		{allFields + " distribution-tenant-id connection-id\n" + line + "\t-\t-\n", []string{"/a"}},
		{oldFields + "\n" + old + "\n" + allFields + "\n" + line + "\n", []string{"/a", "/a"}},
		{allFields + "\n" + old + "\n", []string{"malformed fewer columns than the log has fields"}},
		{allFields + "\n" + line[:len(line)-2] + "\n", []string{"malformed fewer columns than the log has fields"}},
		{allFields + "\n" + line[:60] + "\n", []string{"malformed fewer columns than the log has fields"}},
		{
			"#Fields: date time cs-uri-query\n2026-11-22\t18:13:06\t-\n",
			[]string{"malformed #Fields names no cs-uri-stem: the path cannot be known without it", "malformed #Fields names no cs-uri-stem: the path cannot be known without it"},
		},
		{
			"#Fields: date cs-uri-stem cs-uri-query\n",
			[]string{"malformed #Fields names no date and time"},
		},
	} {
		got, _, _ := read(t, tc.text, nil)
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s\n gives %q, want %q", tc.text, got, tc.want)
		}
	}
}

// Whatever the order of the fields, and whichever others are among them, a path
// comes back from the log as it went in.
func TestCloudFrontAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := append(strings.Fields(documentedFields), "x-new-field", "sc-content-type")
		names = rapid.Permutation(names).Draw(t, "fields")
		fields := "#Fields: " + strings.Join(names, " ")
		var text strings.Builder
		text.WriteString(fields + "\n")
		var want []string
		for range rapid.IntRange(1, 4).Draw(t, "lines") {
			path, err := cfpath.Canonical("/" + rapid.StringMatching(`[ -~é]{0,12}(\?[!-~]{1,9})?`).Draw(t, "path"))
			if err != nil {
				t.Fatal(err)
			}
			stem, query := cfpath.ToLog(path)
			if back, err := cfpath.FromLog(stem, query); err != nil || back != path {
				continue // "/a?" and "/a?-" cannot be told from "/a"
			}
			want = append(want, path)
			text.WriteString(edgeLine(fields, edge(map[string]string{"cs-uri-stem": stem, "cs-uri-query": query})) + "\n")
		}
		r := NewReader(strings.NewReader(text.String()), "test.log", nil)
		var l Line
		for _, path := range want {
			if o, err := r.Next(&l); o != Recorded || err != nil || l.Sighting.Path != path {
				t.Fatalf("%v %v %q (%s), want %q", o, err, l.Sighting.Path, r.Why(), path)
			}
		}
	})
}
