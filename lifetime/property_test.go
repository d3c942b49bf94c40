// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package lifetime

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// answer is a response in the terms of AWS's pages, before it is spelled as headers.
type answer struct {
	method                      string
	status                      int
	maxAge, sMaxAge, expires    int // seconds; -1 is none
	revalidate, ifError         int // seconds; -1 is none
	noStore, noCache, isPrivate bool
	public                      bool
}

func seconds(t *rapid.T, name string, from int) int {
	return rapid.OneOf(rapid.IntRange(from, 12), rapid.IntRange(from, 2000)).Draw(t, name)
}

var answers = rapid.Custom(func(t *rapid.T) answer {
	return answer{
		method: rapid.SampledFrom([]string{"GET", "GET", "GET", "HEAD", "OPTIONS", "POST"}).Draw(t, "method"),
		status: rapid.OneOf(
			rapid.SampledFrom([]int{200, 200, 200, 206, 301, 304, 400, 403, 404, 500, 503}),
			rapid.IntRange(100, 599),
		).Draw(t, "status"),
		maxAge: seconds(t, "max-age", -1), sMaxAge: seconds(t, "s-maxage", -1), expires: seconds(t, "Expires", -1),
		revalidate: seconds(t, "stale-while-revalidate", -1), ifError: seconds(t, "stale-if-error", -1),
		noStore: rapid.Bool().Draw(t, "no-store"), noCache: rapid.Bool().Draw(t, "no-cache"),
		isPrivate: rapid.Bool().Draw(t, "private"), public: rapid.Bool().Draw(t, "public"),
	}.thinned(t)
})

// thinned leaves out most of the fields, so that every row of the table is met.
func (a answer) thinned(t *rapid.T) answer {
	out := func(p *int) {
		if rapid.Bool().Draw(t, "without") {
			*p = -1
		}
	}
	out(&a.maxAge)
	out(&a.sMaxAge)
	out(&a.expires)
	out(&a.revalidate)
	out(&a.ifError)
	if rapid.Bool().Draw(t, "allowed") {
		a.noStore, a.noCache, a.isPrivate = false, false, false
	}
	return a
}

func (a answer) directives() []string {
	var list []string
	add := func(has bool, d string) {
		if has {
			list = append(list, d)
		}
	}
	add(a.maxAge >= 0, fmt.Sprintf("max-age=%d", a.maxAge))
	add(a.sMaxAge >= 0, fmt.Sprintf("s-maxage=%d", a.sMaxAge))
	add(a.revalidate >= 0, fmt.Sprintf("stale-while-revalidate=%d", a.revalidate))
	add(a.ifError >= 0, fmt.Sprintf("stale-if-error=%d", a.ifError))
	add(a.noStore, "no-store")
	add(a.noCache, "no-cache")
	add(a.isPrivate, "private")
	add(a.public, "public")
	return list
}

func (a answer) response() Response {
	h := http.Header{}
	if list := a.directives(); len(list) > 0 {
		h.Set("Cache-Control", strings.Join(list, ", "))
	}
	if a.expires >= 0 {
		h.Set("Expires", in(time.Duration(a.expires)*s))
	}
	return Response{Method: a.method, Status: a.status, Header: h, End: end}
}

var ruleSets = rapid.Custom(func(t *rapid.T) *Rules {
	minTTL := seconds(t, "min", 0) * rapid.IntRange(0, 1).Draw(t, "has min")
	defTTL := minTTL + seconds(t, "default", 0)
	maxTTL := defTTL + seconds(t, "max", 0)
	r := &Rules{
		Default: Behavior{
			MinTTL: time.Duration(minTTL) * s, DefaultTTL: time.Duration(defTTL) * s, MaxTTL: time.Duration(maxTTL) * s,
			CacheOptions: rapid.Bool().Draw(t, "options"),
		},
		ErrorTTL: time.Duration(rapid.IntRange(0, 30).Draw(t, "error")) * s,
		Tiers:    rapid.IntRange(0, MaxTiers).Draw(t, "tiers"),
	}
	for _, status := range []int{403, 404} {
		if rapid.Bool().Draw(t, "listed") {
			if r.ErrorTTLs == nil {
				r.ErrorTTLs = map[int]time.Duration{}
			}
			r.ErrorTTLs[status] = time.Duration(seconds(t, "error", 0)) * s
		}
	}
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	return r
})

// model is AWS's tables, cell by cell, in seconds: TTL and stale time.
func model(r *Rules, a answer) (ttl, stale int) {
	b := r.Default
	lo, def, hi := int(b.MinTTL/s), int(b.DefaultTTL/s), int(b.MaxTTL/s)
	if hi == 0 || a.method == "POST" || a.method == "OPTIONS" && !b.CacheOptions {
		return 0, 0
	}
	forbidden := a.noStore || a.noCache || a.isPrivate
	aged := a.maxAge >= 0 || a.sMaxAge >= 0
	explicit := a.expires
	if a.maxAge >= 0 {
		explicit = a.maxAge
	}
	if a.sMaxAge >= 0 {
		explicit = a.sMaxAge
	}
	stale = min(max(a.revalidate, a.ifError, 0), hi)
	switch a.status {
	case 404, 414, 500, 501, 502, 503, 504, 400, 403, 405, 412, 415:
		least, listed := r.ErrorTTLs[a.status]
		switch {
		case !listed && (a.status < 404 || a.status == 405 || a.status == 412 || a.status == 415) && !aged:
			return 0, 0
		case !listed && r.ErrorTTL == 0:
			least = 10 * s
		case !listed:
			least = r.ErrorTTL
		}
		return max(int(least/s), min(explicit, hi)), stale
	}
	switch {
	case a.status < 200 || a.status > 399:
		return 0, 0
	case a.status == 304 && !aged && !forbidden:
		return hi, hi
	case explicit < 0 && forbidden:
		return lo, stale
	case explicit < 0:
		return max(lo, def), stale
	case lo == 0:
		return min(explicit, hi), stale
	}
	return max(lo, min(explicit, hi)), stale
}

func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, a := ruleSets.Draw(t, "rules"), answers.Draw(t, "answer")
		got := r.Of("/a", a.response())
		ttl, stale := model(r, a)
		if got.TTL != time.Duration(ttl)*s || got.Stale != time.Duration(stale)*s {
			t.Fatalf("got %+v, want %d s and %d s stale", got, ttl, stale)
		}
		sound(t, r, got)
	})
}

var reasonsKept = []string{
	ReasonMaxAge, ReasonSMaxAge, ReasonExpires, ReasonDefault, ReasonMin, ReasonMax, ReasonError, ReasonStale,
	ReasonUnread, ReasonRenewed, ReasonUnknown, ReasonMinOverNoStore, ReasonMinOverPrivate, ReasonMinOverNoCache,
}

var reasonsNot = []string{
	ReasonNoStore, ReasonPrivate, ReasonNoCache, ReasonZero, ReasonMethod, ReasonStatus, ReasonErrorNoAge,
	ReasonNoCaching, ReasonAllHeaders,
}

// sound checks what holds for every verdict.
func sound(t interface {
	Helper()
	Errorf(string, ...any)
}, r *Rules, v Verdict,
) {
	t.Helper()
	reasons := reasonsNot
	if v.Keep {
		reasons = reasonsKept
	}
	if !slices.Contains(reasons, v.Reason) {
		t.Errorf("%+v: not a reason for this", v)
	}
	if v.Keep != (v.Lifetime > 0) || v.TTL < 0 || v.Stale < 0 || !v.Keep && v != not(v.Reason) {
		t.Errorf("%+v contradicts itself", v)
	}
	tiers := r.Tiers
	if tiers <= 0 {
		tiers = DefaultTiers
	}
	if want := (v.TTL + v.Stale) * time.Duration(tiers); v.Lifetime != math.MaxInt64 && v.Lifetime != want {
		t.Errorf("%+v: lifetime is not %d times TTL and stale time", v, tiers)
	}
	if longest := r.Longest(); v.Lifetime > longest {
		t.Errorf("%+v is longer than the longest, %v", v, longest)
	}
}

// Stale time apart: what is not known is not taken to have allowed it.
func TestUnknownIsNeverShorter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, a := ruleSets.Draw(t, "rules"), answers.Draw(t, "answer")
		known := r.Of("/a", a.response())
		unknown := r.UnknownError("/a", a.status)
		sound(t, r, unknown)
		if unknown.TTL < known.TTL {
			t.Fatalf("status known: %+v, response known: %+v", unknown, known)
		}
		if a.status < 400 {
			if unknown := r.Unknown("/a"); unknown.TTL < known.TTL {
				t.Fatalf("unknown: %+v, known: %+v", unknown, known)
			}
		}
	})
}

// TestLongestIsReached: Longest is no more than some response can have.
func TestLongestIsReached(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := ruleSets.Draw(t, "rules")
		found := time.Duration(0)
		for _, status := range []int{200, 403, 404, 500} {
			h := cc("max-age=999999, stale-if-error=999999")
			found = max(found, r.Of("/a", Response{Status: status, Header: h, End: end}).Lifetime)
		}
		if longest := r.Longest(); found != longest {
			t.Fatalf("Longest is %v, the longest found is %v", longest, found)
		}
	})
}

// TestRaising: no setting that is raised makes a lifetime shorter.
func TestRaising(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, a := ruleSets.Draw(t, "rules"), answers.Draw(t, "answer")
		more := *r
		by := time.Duration(rapid.IntRange(1, 100).Draw(t, "by")) * s
		switch rapid.SampledFrom([]string{"max", "default", "min", "error", "tiers"}).Draw(t, "what") {
		case "min":
			more.Default.MinTTL += by
			fallthrough
		case "default":
			more.Default.DefaultTTL += by
			fallthrough
		case "max":
			more.Default.MaxTTL += by
		case "error":
			more.ErrorTTL = max(r.ErrorTTL, DefaultErrorTTL) + by
		case "tiers":
			more.Tiers = max(r.Tiers, DefaultTiers) + 1
		}
		was, is := r.Of("/a", a.response()), more.Of("/a", a.response())
		if is.Lifetime < was.Lifetime {
			t.Fatalf("was %+v, is %+v", was, is)
		}
	})
}

// TestSpelling: order, case, blanks and lines of Cache-Control do not matter.
func TestSpelling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, a := ruleSets.Draw(t, "rules"), answers.Draw(t, "answer")
		plain := a.response()
		h := plain.Header.(http.Header).Clone()
		h.Del("Cache-Control")
		line := ""
		for _, d := range rapid.Permutation(a.directives()).Draw(t, "order") {
			if rapid.Bool().Draw(t, "capitals") {
				d = strings.ToUpper(d)
			}
			if name, value, ok := strings.Cut(d, "="); ok && rapid.Bool().Draw(t, "quoted") {
				d = name + `="` + value + `"`
			}
			line += rapid.SampledFrom([]string{"", " ", "\t ", `x="no-store, max-age=1", `}).Draw(t, "before") + d
			if rapid.Bool().Draw(t, "new line") {
				h.Add("Cache-Control", line)
				line = ""
			} else {
				line += rapid.SampledFrom([]string{",", " , ", ",,"}).Draw(t, "after")
			}
		}
		h.Add("Cache-Control", line)
		other := plain
		other.Header = h
		if was, is := r.Of("/a", plain), r.Of("/a", other); was != is {
			t.Fatalf("%q is %+v, %q is %+v", plain.Header.Values("Cache-Control"), was, h["Cache-Control"], is)
		}
	})
}

func FuzzOf(f *testing.F) {
	f.Add("GET", 200, "max-age=60, stale-if-error=5", "0", "", int64(0), int64(86400), int64(31536000), 2)
	f.Add("HEAD", 404, "no-store", in(time.Hour), in(0), int64(1), int64(5), int64(5), 1)
	f.Add("OPTIONS", 304, `private="a`, "Sun Nov 22 12:05:00 2026", "x", int64(-1), int64(math.MinInt64), int64(math.MaxInt64), 8)
	f.Fuzz(func(t *testing.T, method string, status int, control, expires, date string, lo, def, hi int64, tiers int) {
		r := &Rules{
			Default: Behavior{MinTTL: time.Duration(lo), DefaultTTL: time.Duration(def), MaxTTL: time.Duration(hi)},
			Tiers:   tiers,
		}
		resp := Response{Method: method, Status: status, End: end}
		bare := r.Of("/a", resp)
		sound(t, r, bare)
		resp.Header = header("Cache-Control", control, "Expires", expires, "Date", date)
		known := r.Of("/a", resp)
		sound(t, r, known)
		unknown := r.UnknownError("/a", status)
		sound(t, r, unknown)
		if unknown.TTL < max(known.TTL, bare.TTL) && known.Reason != ReasonMethod {
			t.Errorf("unknown %+v is shorter than %+v or %+v", unknown, known, bare)
		}
	})
}

// common are the headers that most responses have.
var common = map[string]http.Header{
	"max-age":    cc("public, max-age=31536000, immutable"),
	"s-maxage":   cc("public, max-age=0, s-maxage=3600, stale-while-revalidate=60"),
	"no-store":   cc("no-cache, no-store, must-revalidate, private"),
	"expires":    header("Expires", in(time.Hour), "Content-Type", "text/html"),
	"expires-0":  header("Cache-Control", "no-cache", "Expires", "0"),
	"no-headers": {},
}

func typicalRules(t testing.TB) *Rules {
	r := DefaultRules()
	for _, p := range []string{"/static/*", "/api/*", "*.png"} {
		b := DefaultBehavior()
		b.Pattern = pattern(t, p)
		r.Behaviors = append(r.Behaviors, b)
	}
	return &r
}

func TestOfAllocatesNothing(t *testing.T) {
	r := typicalRules(t)
	for name, h := range common {
		resp := Response{Method: "GET", Status: 200, Header: h, End: end}
		if n := testing.AllocsPerRun(100, func() { r.Of("/blog/2026/some-post?page=2", resp) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkOf(b *testing.B) {
	r := typicalRules(b)
	for name, h := range common {
		b.Run(name, func(b *testing.B) {
			resp := Response{Method: "GET", Status: 200, Header: h, End: end}
			b.ReportAllocs()
			for b.Loop() {
				r.Of("/blog/2026/some-post?page=2", resp)
			}
		})
	}
}
