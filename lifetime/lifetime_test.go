// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package lifetime

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

var _ Header = http.Header{}

var end = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func in(d time.Duration) string { return end.Add(d).Format(http.TimeFormat) }

// header makes a header of fields and values, in turn.
func header(fields ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(fields); i += 2 {
		h.Add(fields[i], fields[i+1])
	}
	return h
}

func cc(lines ...string) http.Header { return http.Header{"Cache-Control": lines} }

// one is rules with one tier, so that lifetimes are those of one cache.
func one(minTTL, defTTL, maxTTL time.Duration) *Rules {
	return &Rules{Default: Behavior{MinTTL: minTTL, DefaultTTL: defTTL, MaxTTL: maxTTL}, Tiers: 1}
}

func pattern(t testing.TB, s string) cfpath.Pattern {
	t.Helper()
	p, err := cfpath.ParsePattern(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const s = time.Second

// kept and not are the verdicts of one tier that tests expect.
func kept(ttl time.Duration, reason string) Verdict {
	return Verdict{Keep: true, Lifetime: ttl, TTL: ttl, Reason: reason}
}

func stale(ttl, after time.Duration, reason string) Verdict {
	return Verdict{Keep: true, Lifetime: ttl + after, TTL: ttl, Stale: after, Reason: reason}
}

func not(reason string) Verdict { return Verdict{Reason: reason} }

func TestTTLTable(t *testing.T) {
	// Default 500 s and maximum 1000 s, under a minimum of 0 and of 100 s.
	for _, tt := range []struct {
		name      string
		header    http.Header
		zero, min Verdict
	}{
		{"max-age", cc("max-age=300"), kept(300*s, "max-age"), kept(300*s, "max-age")},
		{"max-age below min", cc("max-age=60"), kept(60*s, "max-age"), kept(100*s, "min")},
		{"max-age at min", cc("max-age=100"), kept(100*s, "max-age"), kept(100*s, "max-age")},
		{"max-age above max", cc("max-age=5000"), kept(1000*s, "max"), kept(1000*s, "max")},
		{"max-age at max", cc("max-age=1000"), kept(1000*s, "max-age"), kept(1000*s, "max-age")},
		{"max-age 0", cc("max-age=0"), not("zero-ttl"), kept(100*s, "min")},
		{"s-maxage wins, longer", cc("max-age=200, s-maxage=300"), kept(300*s, "s-maxage"), kept(300*s, "s-maxage")},
		{"s-maxage wins, shorter", cc("s-maxage=200, max-age=300"), kept(200*s, "s-maxage"), kept(200*s, "s-maxage")},
		{"s-maxage 0 wins", cc("max-age=300, s-maxage=0"), not("zero-ttl"), kept(100*s, "min")},
		{"s-maxage above max", cc("max-age=300, s-maxage=5000"), kept(1000*s, "max"), kept(1000*s, "max")},
		{"Expires", header("Expires", in(300*s)), kept(300*s, "expires"), kept(300*s, "expires")},
		{"Expires below min", header("Expires", in(60*s)), kept(60*s, "expires"), kept(100*s, "min")},
		{"Expires above max", header("Expires", in(5000*s)), kept(1000*s, "max"), kept(1000*s, "max")},
		{"Expires past", header("Expires", in(-s)), not("zero-ttl"), kept(100*s, "min")},
		{"Expires now", header("Expires", in(0)), not("zero-ttl"), kept(100*s, "min")},
		{"Expires 0", header("Expires", "0"), not("zero-ttl"), kept(100*s, "min")},
		{"max-age beats later Expires", header("Cache-Control", "max-age=200", "Expires", in(900*s)), kept(200*s, "max-age"), kept(200*s, "max-age")},
		{"max-age beats past Expires", header("Cache-Control", "max-age=200", "Expires", "0"), kept(200*s, "max-age"), kept(200*s, "max-age")},
		{"nothing", nil, kept(500*s, "default"), kept(500*s, "default")},
		{"public", cc("public"), kept(500*s, "default"), kept(500*s, "default")},
		{"public and Expires", header("Cache-Control", "public", "Expires", in(300*s)), kept(300*s, "expires"), kept(300*s, "expires")},
		{"no-cache", cc("no-cache"), not("no-cache"), kept(100*s, "min-over-no-cache")},
		{"no-store", cc("no-store"), not("no-store"), kept(100*s, "min-over-no-store")},
		{"private", cc("private"), not("private"), kept(100*s, "min-over-private")},
		{"all three", cc("private, no-cache, no-store"), not("no-store"), kept(100*s, "min-over-no-store")},
		{"private and no-cache", cc("no-cache, private"), not("private"), kept(100*s, "min-over-private")},
		{"no-store and Expires 0", header("Cache-Control", "no-store", "Expires", "0"), not("no-store"), kept(100*s, "min-over-no-store")},
		{"frameworks' refusal", cc("max-age=0, private, must-revalidate"), not("private"), kept(100*s, "min-over-private")},

		// What AWS does not say: the longer.
		{"no-cache with max-age", cc("no-cache, max-age=60"), kept(60*s, "max-age"), kept(100*s, "min-over-no-cache")},
		{"private with max-age", cc("private, max-age=300"), kept(300*s, "max-age"), kept(300*s, "max-age")},
		{"no-store with Expires", header("Cache-Control", "no-store", "Expires", in(300*s)), kept(300*s, "expires"), kept(300*s, "expires")},
		{"no-cache for a field", cc(`no-cache="Set-Cookie"`), kept(500*s, "default"), kept(500*s, "default")},
		{"private for fields", cc(`private="X-A, no-store"`), kept(500*s, "default"), kept(500*s, "default")},
		{"max-age twice", cc("max-age=200, max-age=300"), kept(300*s, "max-age"), kept(300*s, "max-age")},
		{"max-age on two lines", cc("max-age=300", "max-age=200"), kept(300*s, "max-age"), kept(300*s, "max-age")},
		{"directives on two lines", cc("no-store", "max-age=0"), not("no-store"), kept(100*s, "min-over-no-store")},
		{"max-age no number", cc("max-age=soon"), kept(500*s, "unreadable"), kept(500*s, "unreadable")},
		{"max-age negative", cc("max-age=-1"), kept(500*s, "unreadable"), kept(500*s, "unreadable")},
		{"max-age without value", cc("max-age"), kept(500*s, "unreadable"), kept(500*s, "unreadable")},
		{"max-age with a fraction", cc("max-age=700.5"), kept(700*s, "unreadable"), kept(700*s, "unreadable")},
		{"max-age unreadable beside another", cc("max-age=x, s-maxage=700"), kept(700*s, "unreadable"), kept(700*s, "unreadable")},
		{"s-maxage unreadable, Expires", header("Cache-Control", "s-maxage=x", "Expires", in(700*s)), kept(700*s, "unreadable"), kept(700*s, "unreadable")},
		{"max-age unreadable, no-store", cc("max-age=x, no-store"), not("no-store"), kept(100*s, "min-over-no-store")},
		{"max-age overflows", cc("max-age=99999999999999999999999"), kept(1000*s, "max"), kept(1000*s, "max")},
		{"Age is not subtracted", header("Cache-Control", "max-age=300", "Age", "299"), kept(300*s, "max-age"), kept(300*s, "max-age")},
		{"Expires by the origin's clock", header("Expires", in(60*s), "Date", in(-240*s)), kept(300*s, "expires"), kept(300*s, "expires")},
		{"Expires by ours", header("Expires", in(300*s), "Date", in(240*s)), kept(300*s, "expires"), kept(300*s, "expires")},
		{"Expires twice", header("Expires", "0", "Expires", in(300*s)), kept(300*s, "expires"), kept(300*s, "expires")},

		// What people expect to prevent caching, and does not.
		{"Set-Cookie", header("Set-Cookie", "a=b"), kept(500*s, "default"), kept(500*s, "default")},
		{"Vary", header("Vary", "*", "Cache-Control", "max-age=300"), kept(300*s, "max-age"), kept(300*s, "max-age")},
		{"Pragma", header("Pragma", "no-cache"), kept(500*s, "default"), kept(500*s, "default")},
		{"must-revalidate", cc("must-revalidate, proxy-revalidate"), kept(500*s, "default"), kept(500*s, "default")},

		{"stale-while-revalidate", cc("max-age=300, stale-while-revalidate=60"), stale(300*s, 60*s, "max-age"), stale(300*s, 60*s, "max-age")},
		{"stale-if-error", cc("max-age=300, stale-if-error=70"), stale(300*s, 70*s, "max-age"), stale(300*s, 70*s, "max-age")},
		{"stale, both", cc("max-age=300, stale-if-error=70, stale-while-revalidate=60"), stale(300*s, 70*s, "max-age"), stale(300*s, 70*s, "max-age")},
		{"stale up to max", cc("max-age=300, stale-while-revalidate=5000"), stale(300*s, 1000*s, "max-age"), stale(300*s, 1000*s, "max-age")},
		{"stale-if-error up to max", cc("max-age=300, stale-if-error=5000"), stale(300*s, 1000*s, "max-age"), stale(300*s, 1000*s, "max-age")},
		{"stale alone", cc("stale-while-revalidate=60"), stale(500*s, 60*s, "default"), stale(500*s, 60*s, "default")},
		{"stale after nothing", cc("max-age=0, stale-while-revalidate=60"), stale(0, 60*s, "stale"), stale(100*s, 60*s, "min")},
		{"stale beside no-store", cc("no-store, stale-if-error=60"), stale(0, 60*s, "stale"), stale(100*s, 60*s, "min-over-no-store")},
		{"stale-if-error=0", cc("no-store, stale-if-error=0"), not("no-store"), kept(100*s, "min-over-no-store")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := Response{Method: "GET", Status: 200, Header: tt.header, End: end}
			if got := one(0, 500*s, 1000*s).Of("/a", resp); got != tt.zero {
				t.Errorf("minimum 0: got %+v, want %+v", got, tt.zero)
			}
			if got := one(100*s, 500*s, 1000*s).Of("/a", resp); got != tt.min {
				t.Errorf("minimum 100 s: got %+v, want %+v", got, tt.min)
			}
		})
	}
}

func TestTTLsThatTouch(t *testing.T) {
	for _, tt := range []struct {
		name   string
		rules  *Rules
		header http.Header
		want   Verdict
	}{
		{"min = default = max, short", one(60*s, 60*s, 60*s), cc("max-age=1"), kept(60*s, "min")},
		{"min = default = max, long", one(60*s, 60*s, 60*s), cc("max-age=100"), kept(60*s, "max")},
		{"default 0", one(0, 0, 60*s), nil, not("zero-ttl")},
		{"default 0, no header value", one(0, 0, 60*s), cc("public"), not("zero-ttl")},
		{"default 0, max-age", one(0, 0, 60*s), cc("max-age=30"), kept(30*s, "max-age")},
		{"all 0", one(0, 0, 0), cc("max-age=30, stale-if-error=30"), not("caching-disabled")},
		// Rules that were not validated.
		{"default below min", one(60*s, 30*s, 90*s), nil, kept(60*s, "min")},
		{"max below min", one(60*s, 60*s, 30*s), cc("max-age=90"), kept(60*s, "min")},
		{"negative", one(-60*s, 30*s, 90*s), cc("no-store"), not("no-store")},
		{"negative, max-age=0", one(-60*s, 30*s, 90*s), cc("max-age=0"), not("zero-ttl")},
		{"negative, stale", one(-60*s, 30*s, 90*s), cc("max-age=0, no-transform, stale-if-error=30"), stale(0, 30*s, "stale")},
		{"negative default, stale", one(-60*s, -30*s, 90*s), cc("stale-if-error=30"), stale(0, 30*s, "stale")},
		{"all negative", one(-s, -s, -s), nil, not("caching-disabled")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.rules.Of("/", Response{Header: tt.header, End: end}); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// TestManagedMinimum: CachingOptimized stores what says no-store.
func TestManagedMinimum(t *testing.T) {
	b, ok := ManagedPolicy("CachingOptimized")
	if !ok {
		t.Fatal("not known")
	}
	r := Rules{Default: b, Tiers: 1}
	want := kept(s, "min-over-no-store")
	if got := r.Of("/", Response{Header: cc("no-store")}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestExpires(t *testing.T) {
	// ANSIC states no zone: it must not take the machine's.
	defer func(l *time.Location) { time.Local = l }(time.Local)
	time.Local = time.FixedZone("GMT", 3*3600)
	later := end.Add(300 * s)
	for _, tt := range []struct {
		value string
		want  Verdict
	}{
		{later.Format(http.TimeFormat), kept(300*s, "expires")},
		{"sun, 22 nov 2026 12:05:00 GMT", kept(300*s, "expires")},
		{later.Format("Monday, 02-Jan-06 15:04:05 GMT"), kept(300*s, "expires")},
		{later.Format(time.ANSIC), kept(300*s, "expires")},
		{later.Format(time.RFC1123), kept(300*s, "expires")}, // UTC for GMT
		{later.In(time.FixedZone("", -5*3600)).Format(time.RFC1123Z), kept(300*s, "expires")},
		{"  " + later.Format(http.TimeFormat) + "\t", kept(300*s, "expires")},
		{"Fri, 31 Dec 9999 23:59:59 GMT", kept(1000*s, "max")},
		{"Thu, 01 Jan 1970 00:00:00 GMT", not("zero-ttl")},
		{"Mon, 01 Jan 0000 00:00:00 GMT", not("zero-ttl")},
		{"", not("zero-ttl")},
		{"0", not("zero-ttl")},
		{"-1", not("zero-ttl")},
		{"never", not("zero-ttl")},
		{later.Format(time.RFC3339), not("zero-ttl")},
		{"Sun, 22 Nov 2026 12:05:00 XYZ", not("zero-ttl")},
		{"Sun, 32 Nov 2026 12:05:00 GMT", not("zero-ttl")},
		{fmt.Sprint(later.Unix()), not("zero-ttl")},
	} {
		t.Run(tt.value, func(t *testing.T) {
			resp := Response{Header: header("Expires", tt.value), End: end}
			if got := one(0, 500*s, 1000*s).Of("/", resp); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
	t.Run("no end", func(t *testing.T) {
		want := kept(1000*s, "max")
		if got := one(0, 500*s, 1000*s).Of("/", Response{Header: header("Expires", in(0))}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

func TestStatuses(t *testing.T) {
	always := []int{404, 414, 500, 501, 502, 503, 504}
	withAge := []int{400, 403, 405, 412, 415}
	r := one(0, 500*s, 1000*s)
	for status := -1; status <= 1000; status++ {
		bare := r.Of("/", Response{Status: status})
		aged := r.Of("/", Response{Status: status, Header: cc("max-age=60")})
		wantBare, wantAged := not("not-cacheable-status"), not("not-cacheable-status")
		switch {
		case status == 304:
			wantBare, wantAged = stale(1000*s, 1000*s, "not-modified"), kept(60*s, "max-age")
		case status == 0 || 200 <= status && status <= 399:
			wantBare, wantAged = kept(500*s, "default"), kept(60*s, "max-age")
		case slices.Contains(always, status):
			wantBare, wantAged = kept(10*s, "error"), kept(60*s, "max-age")
		case slices.Contains(withAge, status):
			wantBare, wantAged = not("error-without-max-age"), kept(60*s, "max-age")
		}
		if bare != wantBare {
			t.Errorf("%d: got %+v, want %+v", status, bare, wantBare)
		}
		if aged != wantAged {
			t.Errorf("%d with max-age: got %+v, want %+v", status, aged, wantAged)
		}
	}
}

func TestErrors(t *testing.T) {
	r := one(0, 500*s, 1000*s)
	r.ErrorTTLs = map[int]time.Duration{403: 30 * s, 405: 0, 416: 30 * s, 500: 0, 503: 2000 * s}
	optimized := one(100*s, 500*s, 1000*s)
	other := one(0, 500*s, 1000*s)
	other.ErrorTTL = 40 * s
	for _, tt := range []struct {
		name   string
		rules  *Rules
		status int
		header http.Header
		want   Verdict
	}{
		{"no header", r, 404, nil, kept(10*s, "error")},
		{"max-age below", r, 404, cc("max-age=5"), kept(10*s, "error")},
		{"max-age above", r, 404, cc("max-age=50"), kept(50*s, "max-age")},
		{"s-maxage wins", r, 404, cc("max-age=50, s-maxage=20"), kept(20*s, "s-maxage")},
		{"max-age above max", r, 404, cc("max-age=5000"), kept(1000*s, "max")},
		{"Expires", r, 404, header("Expires", in(50*s)), kept(50*s, "expires")},
		{"Expires past", r, 404, header("Expires", "0"), kept(10*s, "error")},
		{"no-store", r, 404, cc("no-store"), kept(10*s, "error")},
		{"no-store and max-age", r, 404, cc("no-store, max-age=50"), kept(50*s, "max-age")},
		{"unreadable", r, 404, cc("max-age=50s"), kept(50*s, "unreadable")},
		{"stale", r, 404, cc("max-age=50, stale-while-revalidate=20"), stale(50*s, 20*s, "max-age")},
		{"minimum TTL is not for errors", optimized, 404, nil, kept(10*s, "error")},
		{"ErrorTTL", other, 404, nil, kept(40*s, "error")},
		{"listed 0", r, 500, nil, not("zero-ttl")},
		{"listed 0, max-age", r, 500, cc("max-age=5"), kept(5*s, "max-age")},
		{"listed, above max", r, 503, cc("max-age=5000"), kept(2000*s, "error")},
		{"only with max-age: Expires", r, 412, header("Expires", in(50*s)), not("error-without-max-age")},
		{"only with max-age: max-age=0", r, 412, cc("max-age=0"), kept(10*s, "error")},
		{"only with max-age: s-maxage", r, 412, cc("s-maxage=50"), kept(50*s, "s-maxage")},
		{"only with max-age: unreadable", r, 412, cc("max-age=x"), kept(10*s, "error")},
		{"only with max-age: listed", r, 403, nil, kept(30*s, "error")},
		{"only with max-age: listed 0", r, 405, nil, not("zero-ttl")},
		{"never, though listed", r, 416, cc("max-age=50"), not("not-cacheable-status")},
		{"caching disabled", one(0, 0, 0), 404, cc("max-age=50"), not("caching-disabled")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := Response{Method: "GET", Status: tt.status, Header: tt.header, End: end}
			if got := tt.rules.Of("/a", resp); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestNotModified(t *testing.T) {
	r := one(100*s, 500*s, 1000*s)
	unknown := stale(1000*s, 1000*s, "not-modified")
	for _, tt := range []struct {
		name   string
		header http.Header
		want   Verdict
	}{
		{"no header", nil, unknown},
		{"public", cc("public"), unknown},
		{"Expires alone", header("Expires", in(300*s)), unknown}, // a stored max-age would win
		{"max-age", cc("max-age=300"), kept(300*s, "max-age")},
		{"no-store", cc("no-store"), kept(100*s, "min-over-no-store")},
		{"stale", cc("max-age=300, stale-if-error=60"), stale(300*s, 60*s, "max-age")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := r.Of("/a", Response{Status: 304, Header: tt.header, End: end}); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestMethods(t *testing.T) {
	r := one(0, 500*s, 1000*s)
	options := one(0, 500*s, 1000*s)
	options.Default.CacheOptions = true
	all := one(0, 500*s, 1000*s)
	all.Default.AllHeaders = true
	for _, status := range []int{200, 206, 301, 304, 404} {
		for _, tt := range []struct {
			method string
			rules  *Rules
			reason string // "" for kept
		}{
			{"GET", r, ""},
			{"", r, ""},
			{"HEAD", r, ""},
			{"OPTIONS", r, "method"},
			{"OPTIONS", options, ""},
			{"GET", options, ""},
			{"POST", options, "method"},
			{"PUT", r, "method"},
			{"PATCH", r, "method"},
			{"DELETE", r, "method"},
			{"get", r, "method"},
			{"CONNECT", r, "method"},
			{"PURGE", r, "method"},
			{"GET", all, "all-headers"},
			{"HEAD", all, "all-headers"},
		} {
			got := tt.rules.Of("/", Response{Method: tt.method, Status: status, Header: cc("max-age=60")})
			if tt.reason != "" && got != not(tt.reason) || tt.reason == "" && !got.Keep {
				t.Errorf("%s %d: got %+v, want reason %q", tt.method, status, got, tt.reason)
			}
		}
	}
}

func TestTiers(t *testing.T) {
	for tiers, times := range map[int]time.Duration{-1: 2, 0: 2, 1: 1, 2: 2, 3: 3, 8: 8} {
		r := one(0, 500*s, 1000*s)
		r.Tiers = tiers
		got := r.Of("/", Response{Header: cc("max-age=60, stale-if-error=30")})
		want := Verdict{Keep: true, Lifetime: times * 90 * s, TTL: 60 * s, Stale: 30 * s, Reason: "max-age"}
		if got != want {
			t.Errorf("%d tiers: got %+v, want %+v", tiers, got, want)
		}
	}
}

// TestCentury: the sum over tiers is more than a Duration can hold.
func TestCentury(t *testing.T) {
	century := 100 * 365 * 24 * time.Hour
	r := one(0, 0, century)
	r.Tiers = 2
	for name, got := range map[string]Verdict{
		"max-age": r.Of("/", Response{Header: cc("max-age=9999999999, stale-while-revalidate=9999999999")}),
		"renewed": r.Of("/", Response{Status: 304}),
	} {
		if got.Lifetime != math.MaxInt64 || got.TTL != century || got.Stale != century {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	r.Default.MaxTTL = math.MaxInt64
	if got := r.Longest(); got != math.MaxInt64 {
		t.Errorf("Longest: got %v", got)
	}
}

func TestMatch(t *testing.T) {
	r := DefaultRules()
	for i, p := range []string{"/img/*.png", "/img/*", "api/?", "/img/never"} {
		r.Behaviors = append(r.Behaviors, Behavior{Pattern: pattern(t, p), MaxTTL: time.Duration(i+1) * s})
	}
	for path, want := range map[string]*Behavior{
		"/img/a.png":     &r.Behaviors[0],
		"/img/a.png?b=c": &r.Behaviors[0],
		"/img/a.gif":     &r.Behaviors[1],
		"/img/never":     &r.Behaviors[1],
		"/api/1":         &r.Behaviors[2],
		"/api/12":        &r.Default,
		"/IMG/a.png":     &r.Default,
		"/":              &r.Default,
		"":               &r.Default,
	} {
		if got := r.Match(path); got != want {
			t.Errorf("%s: got %v, want %v", path, got.Pattern, want.Pattern)
		}
	}
	// The behaviour decides, for each of the verdicts.
	if got := r.Of("/img/a.gif", Response{Header: cc("max-age=60")}); got.TTL != 2*s {
		t.Errorf("Of: got %+v", got)
	}
	if got := r.Unknown("/img/a.gif"); got.TTL != 2*s {
		t.Errorf("Unknown: got %+v", got)
	}
	if got := r.UnknownError("/img/a.gif", 404); got.TTL != 10*s {
		t.Errorf("UnknownError: got %+v", got)
	}
}

func TestUnknown(t *testing.T) {
	r := one(0, 500*s, 1000*s)
	r.Tiers = 2
	r.ErrorTTLs = map[int]time.Duration{503: 2000 * s}
	longest := Verdict{Keep: true, Lifetime: 2000 * s, TTL: 1000 * s, Reason: "unknown"}
	if got := r.Unknown("/"); got != longest {
		t.Errorf("got %+v, want %+v", got, longest)
	}
	for status, want := range map[int]Verdict{
		0: longest, 200: longest, 304: longest, 404: longest, 403: longest,
		100: not("not-cacheable-status"), 401: not("not-cacheable-status"), 416: not("not-cacheable-status"),
		503: {Keep: true, Lifetime: 4000 * s, TTL: 2000 * s, Reason: "unknown"},
	} {
		if got := r.UnknownError("/", status); got != want {
			t.Errorf("%d: got %+v, want %+v", status, got, want)
		}
	}
	if got := r.Longest(); got != 6000*s {
		t.Errorf("Longest: got %v, want 6000 s", got)
	}
	for reason, r := range map[string]*Rules{
		"caching-disabled": {},
		"all-headers":      {Default: Behavior{AllHeaders: true, MaxTTL: s}},
	} {
		if got := r.Unknown("/"); got != not(reason) {
			t.Errorf("got %+v, want %s", got, reason)
		}
		if got := r.UnknownError("/", 404); got != not(reason) {
			t.Errorf("404: got %+v, want %s", got, reason)
		}
		if got := r.Longest(); got != 0 {
			t.Errorf("%s: Longest: got %v, want 0", reason, got)
		}
	}
}

func TestLongest(t *testing.T) {
	r := DefaultRules()
	if got, want := r.Longest(), 4*365*24*time.Hour; got != want {
		t.Errorf("default rules: got %v, want %v", got, want)
	}
	r = Rules{
		Default: Behavior{MaxTTL: 20 * s}, Tiers: 1,
		Behaviors: []Behavior{
			{Pattern: pattern(t, "/a"), MaxTTL: 300 * s},
			{Pattern: pattern(t, "/b"), MaxTTL: 9000 * s, AllHeaders: true},
		},
	}
	if got := r.Longest(); got != 600*s {
		t.Errorf("several behaviours: got %v, want 600 s", got)
	}
	r.Behaviors = nil
	r.ErrorTTL = 50 * s
	if got := r.Longest(); got != 70*s {
		t.Errorf("errors are kept longer: got %v, want 70 s", got)
	}
	r.ErrorTTL, r.Default.MaxTTL = 0, s
	if got := r.Longest(); got != 11*s {
		t.Errorf("errors without a setting: got %v, want 11 s", got)
	}
}

func TestManagedPolicy(t *testing.T) {
	const day, year = 86400 * s, 31536000 * s
	for _, tt := range []struct {
		name, id      string
		min, def, max time.Duration
		query         string
	}{
		{"CachingOptimized", "658327ea-f89d-4fab-a63d-7e88639e58f6", s, day, year, "none"},
		{"CachingOptimizedForUncompressedObjects", "b2884449-e4de-46a7-ac36-70bc7f1ddd6d", s, day, year, "none"},
		{"CachingDisabled", "4135ea2d-6df8-44a3-9df3-4b5a84be39ad", 0, 0, 0, "none"},
		{"UseOriginCacheControlHeaders", "83da9c7e-98b4-4e11-a168-04f0df8e2c65", 0, 0, year, "none"},
		{"UseOriginCacheControlHeaders-QueryStrings", "4cc15a8a-d715-48a4-82b8-cc0b614638fe", 0, 0, year, "all"},
		{"Amplify", "2e54312d-136d-493c-8eb9-b001f22f67d2", 2 * s, 2 * s, 600 * s, "all"},
		{"Elemental-MediaPackage", "08627262-05a9-4f76-9ded-b50ca2e3a84f", 0, day, year, "include:aws.manifestfilter,start,end,m"},
	} {
		rule, err := cfpath.ParseQueryRule(tt.query)
		if err != nil {
			t.Fatal(err)
		}
		want := Behavior{MinTTL: tt.min, DefaultTTL: tt.def, MaxTTL: tt.max, Query: rule}
		for _, key := range []string{tt.name, "Managed-" + tt.name, tt.id} {
			if got, ok := ManagedPolicy(key); !ok || got != want {
				t.Errorf("%s: got %+v, %v, want %+v", key, got, ok, want)
			}
		}
		r := Rules{Default: want}
		if err := r.Validate(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	for _, other := range []string{"", "Managed-", "cachingoptimized", "mine"} {
		if got, ok := ManagedPolicy(other); ok {
			t.Errorf("%q: got %+v", other, got)
		}
	}
}

func TestValidate(t *testing.T) {
	img := pattern(t, "/img/*")
	for _, tt := range []struct {
		name   string
		change func(*Rules)
		want   string // "" for valid
	}{
		{"default", func(*Rules) {}, ""},
		{"zero", func(r *Rules) { *r = Rules{} }, ""},
		{"catch-all that somebody wrote", func(r *Rules) { r.Behaviors = []Behavior{{Pattern: pattern(t, "*")}} }, ""},
		{"default's own pattern", func(r *Rules) { r.Default.Pattern = pattern(t, "*") }, ""},
		{"error TTLs", func(r *Rules) { r.ErrorTTLs = map[int]time.Duration{404: 0, 599: s} }, ""},
		{"8 tiers", func(r *Rules) { r.Tiers = 8 }, ""},
		{
			"no pattern", func(r *Rules) { r.Behaviors = []Behavior{{Pattern: img}, {}} },
			"Behaviors[1].Pattern is empty: it would match every path and hide what comes after it; give it a pattern, or put its settings into Default",
		},
		{
			"pattern of the default", func(r *Rules) { r.Default.Pattern = img },
			`Default.Pattern is "/img/*": the default behaviour is for every path; leave it empty, or move this behaviour to Behaviors`,
		},
		{
			"negative minimum", func(r *Rules) { r.Default.MinTTL = -s },
			"Default.MinTTL is -1s: it is negative; write 0 or more",
		},
		{
			"minimum over default", func(r *Rules) { r.Behaviors = []Behavior{{Pattern: img, MinTTL: 60 * s, MaxTTL: 60 * s}} },
			"Behaviors[0].DefaultTTL is 0s: it is below MinTTL, 1m0s; CloudFront takes MinTTL <= DefaultTTL <= MaxTTL: raise it or lower MinTTL",
		},
		{
			"default over maximum", func(r *Rules) { r.Default.MaxTTL = time.Hour },
			"Default.MaxTTL is 1h0m0s: it is below DefaultTTL, 24h0m0s; CloudFront takes MinTTL <= DefaultTTL <= MaxTTL: raise it or lower DefaultTTL",
		},
		{
			"all headers with a minimum", func(r *Rules) { r.Default.AllHeaders, r.Default.MinTTL = true, s },
			"Default.MinTTL is 1s: with AllHeaders nothing is cached, and CloudFront takes only 0; write 0, or clear AllHeaders",
		},
		{
			"negative error TTL", func(r *Rules) { r.ErrorTTL = -s },
			"ErrorTTL is -1s: it is negative; write 0 or more",
		},
		{
			"negative error TTL of a status", func(r *Rules) { r.ErrorTTLs = map[int]time.Duration{404: -s} },
			"ErrorTTLs[404] is -1s: it is negative; write 0 or more",
		},
		{
			"no error", func(r *Rules) { r.ErrorTTLs = map[int]time.Duration{404: s, 200: s, 999: s} },
			"ErrorTTLs[200] is 1s: it is not the status of an error; list statuses from 400 to 599",
		},
		{
			"9 tiers", func(r *Rules) { r.Tiers = 9 },
			"Tiers is 9: a distribution has from 1 to 8 tiers of caches; write 0 for the default, 2; one more with Origin Shield",
		},
		{
			"negative tiers", func(r *Rules) { r.Tiers = -1 },
			"Tiers is -1: a distribution has from 1 to 8 tiers of caches; write 0 for the default, 2; one more with Origin Shield",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := DefaultRules()
			tt.change(&r)
			got := ""
			if err := r.Validate(); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func ExampleRules_Of() {
	r := DefaultRules()
	h := http.Header{"Cache-Control": {"public, max-age=60, stale-while-revalidate=30"}}
	v := r.Of("/blog/", Response{Method: "GET", Status: 200, Header: h, End: time.Now()})
	fmt.Println(v.Keep, v.Lifetime, v.Reason)
	// Output: true 3m0s max-age
}
