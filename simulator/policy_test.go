// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// policies gives the default behaviour a cache policy and an origin request policy, written as flow mappings.
func policies(key, request string) string {
	text := "DefaultCacheBehavior: {CachePolicyId: own, OriginRequestPolicyId: '" + map[bool]string{true: "ask"}[request != ""] + "'}\n" +
		"CachePolicies: [{Id: own, CachePolicyConfig: {Name: own, MinTTL: 0, ParametersInCacheKeyAndForwardedToOrigin: {" + key + "}}}]\n"
	if request != "" {
		text += "OriginRequestPolicies: [{Id: ask, OriginRequestPolicyConfig: {Name: ask, " + request + "}}]\n"
	}
	return text
}

func forwarded(values string) string {
	return "DefaultCacheBehavior: {ForwardedValues: {" + values + "}}\n"
}

// Which requests share an object, and what the origin gets of the first.
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cache-key-understand-cache-policy.html
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/understanding-how-origin-request-policies-and-cache-policies-work-together.html
func TestCacheKey(t *testing.T) {
	const (
		noQuery  = "QueryStringsConfig: {QueryStringBehavior: none}"
		onlyW    = "QueryStringsConfig: {QueryStringBehavior: whitelist, QueryStrings: [w]}"
		exceptW  = "QueryStringsConfig: {QueryStringBehavior: allExcept, QueryStrings: {Quantity: 1, Items: [w]}}"
		allQuery = "QueryStringsConfig: {QueryStringBehavior: all}"
	)
	for _, row := range []struct {
		name, config string
		a, b         string // "target|Name: value|..."
		same         bool
		origin       string // target and, after |, headers at the origin for a; "-Name" is one that must not be there
	}{
		{"no query", policies(noQuery, ""), "/p?a=1", "/p", true, "/p"},
		{"all query", policies(allQuery, ""), "/p?a=1&b=2", "/p?b=2&a=1", false, "/p?a=1&b=2"},
		{"whitelist", policies(onlyW, ""), "/p?a=1&w=1", "/p?w=1&a=2", true, "/p?w=1"},
		{"whitelist differs", policies(onlyW, ""), "/p?w=1", "/p?w=2", false, "/p?w=1"},
		{"allExcept", policies(exceptW, ""), "/p?a=1&w=1", "/p?a=1&w=2", true, "/p?a=1"},
		{"allExcept of nothing", policies("QueryStringsConfig: {QueryStringBehavior: allExcept}", ""), "/p?a=1", "/p", false, "/p?a=1"},
		{"origin gets more", policies(onlyW, allQuery), "/p?a=1&w=1", "/p?a=2&w=1", true, "/p?a=1&w=1"},
		{"cache policy wins over allExcept", policies(onlyW, exceptW), "/p?a=1&w=1", "/p?a=2&w=1", true, "/p?a=1&w=1"},
		{"allow-list wins over the cache policy's exclusion", policies(exceptW, onlyW), "/p?w=1", "/p?w=2", true, "/p?w=1"},
		{"names have a case", policies(onlyW, ""), "/p?W=1", "/p?W=2", true, "/p"},

		{"no header", policies("", ""), "/p|X-A: 1", "/p|X-A: 2", true, "/p|-X-A"},
		{"header", policies("HeadersConfig: {HeaderBehavior: whitelist, Headers: [x-a]}", ""), "/p|X-A: 1", "/p|X-A: 2", false, "/p|X-A: 1"},
		{"header and none", policies("HeadersConfig: {HeaderBehavior: whitelist, Headers: [X-A]}", ""), "/p|X-A: 1", "/p", false, "/p|X-A: 1"},
		{"the same header", policies("HeadersConfig: {HeaderBehavior: whitelist, Headers: [X-A]}", ""), "/p|X-A: 1|X-B: 1", "/p|X-A: 1", true, "/p|X-A: 1|-X-B"},
		{"host is not in the key", policies("", ""), "/p|Host: a.example", "/p|Host: b.example", true, "/p|Host: origin.simulator"},
		{"host in the key", policies("HeadersConfig: {HeaderBehavior: whitelist, Headers: [Host]}", ""), "/p|Host: a.example", "/p|Host: b.example", false, "/p|Host: a.example"},
		{"host forwarded", policies("", "HeadersConfig: {HeaderBehavior: allViewer}"), "/p|Host: a.example", "/p|Host: b.example", true, "/p|Host: a.example"},
		{"all but host", policies("", "HeadersConfig: {HeaderBehavior: allExcept, Headers: [Host]}"), "/p|X-A: 1|Referer: r", "/p", true, "/p|Host: origin.simulator|X-A: 1|Referer: r"},
		{"listed for the origin", policies("", "HeadersConfig: {HeaderBehavior: whitelist, Headers: [User-Agent, CloudFront-Forwarded-Proto]}"),
			"/p|User-Agent: curl|X-A: 1", "/p|User-Agent: x", true, "/p|User-Agent: curl|Cloudfront-Forwarded-Proto: http|-X-A"},
		{"user agent", policies("", ""), "/p|User-Agent: curl", "/p|User-Agent: x", true, "/p|User-Agent: Amazon CloudFront"},
		{"country", policies("HeadersConfig: {HeaderBehavior: whitelist, Headers: [CloudFront-Viewer-Country]}", ""),
			"/p|Cloudfront-Viewer-Country: DE", "/p|Cloudfront-Viewer-Country: FR", false, "/p|Cloudfront-Viewer-Country: DE"},

		{"no cookies", policies("", ""), "/p|Cookie: a=1", "/p", true, "/p|-Cookie"},
		{"all cookies, sorted", policies("CookiesConfig: {CookieBehavior: all}", ""), "/p|Cookie: b=2; a=1", "/p|Cookie: a=1; b=2", true, "/p|Cookie: a=1; b=2"},
		{"a cookie", policies("CookiesConfig: {CookieBehavior: whitelist, Cookies: [a]}", ""), "/p|Cookie: a=1; b=1", "/p|Cookie: a=1; b=2", true, "/p|Cookie: a=1"},
		{"a cookie differs", policies("CookiesConfig: {CookieBehavior: whitelist, Cookies: [a]}", ""), "/p|Cookie: a=1", "/p|Cookie: a=2", false, "/p|Cookie: a=1"},
		{"all but a cookie", policies("CookiesConfig: {CookieBehavior: allExcept, Cookies: [a]}", ""), "/p|Cookie: a=1; b=1", "/p|Cookie: b=1", true, "/p|Cookie: b=1"},
		{"cookies for the origin", policies("CookiesConfig: {CookieBehavior: whitelist, Cookies: [a]}", "CookiesConfig: {CookieBehavior: all}"),
			"/p|Cookie: c=3; a=1", "/p|Cookie: a=1", true, "/p|Cookie: a=1; c=3"},
		{"no wildcard in a policy", policies("CookiesConfig: {CookieBehavior: whitelist, Cookies: ['a*']}", ""), "/p|Cookie: ab=1", "/p", true, "/p|-Cookie"},

		{"both encodings", policies("EnableAcceptEncodingGzip: true, EnableAcceptEncodingBrotli: true", ""),
			"/p|Accept-Encoding: gzip, deflate, br;q=0.5", "/p|Accept-Encoding: br,gzip", true, "/p|Accept-Encoding: br,gzip"},
		{"gzip alone", policies("EnableAcceptEncodingGzip: true, EnableAcceptEncodingBrotli: true", ""),
			"/p|Accept-Encoding: gzip, br;q=0", "/p|Accept-Encoding: br,gzip", false, "/p|Accept-Encoding: gzip"},
		{"brotli not enabled", policies("EnableAcceptEncodingGzip: true", ""), "/p|Accept-Encoding: br, gzip", "/p|Accept-Encoding: gzip", true, "/p|Accept-Encoding: gzip"},
		{"none supported", policies("EnableAcceptEncodingGzip: true", ""), "/p|Accept-Encoding: br", "/p", true, "/p|Accept-Encoding: identity"},
		{"none sent", policies("EnableAcceptEncodingGzip: true", ""), "/p", "/p|Accept-Encoding: gzip", false, "/p|-Accept-Encoding"},
		{"not enabled", policies("", ""), "/p|Accept-Encoding: gzip", "/p", true, "/p|-Accept-Encoding"},
		{"like any other header", policies("HeadersConfig: {HeaderBehavior: whitelist, Headers: [Accept-Encoding]}", ""),
			"/p|Accept-Encoding: zstd", "/p", false, "/p|Accept-Encoding: zstd"},

		{"legacy, no query", forwarded("QueryString: false"), "/p?a=1", "/p", true, "/p"},
		{"legacy, query", forwarded("QueryString: true"), "/p?a=1", "/p?a=2", false, "/p?a=1"},
		{"legacy, some in the key, all forwarded", forwarded("QueryString: true, QueryStringCacheKeys: [w]"), "/p?a=1&w=1", "/p?a=2&w=1", true, "/p?a=1&w=1"},
		{"legacy, other headers", forwarded("QueryString: false"), "/p|X-A: 1|Accept-Language: de", "/p", true, "/p|X-A: 1|-Accept-Language"},
		{"legacy, a header", forwarded("QueryString: false, Headers: [Accept-Language]"), "/p|Accept-Language: de", "/p|Accept-Language: fr", false, "/p|Accept-Language: de"},
		{"legacy, cookies by wildcard", forwarded("QueryString: false, Cookies: {Forward: whitelist, WhitelistedNames: [s*_?d]}"),
			"/p|Cookie: session_id=1; x=1", "/p|Cookie: session_id=1; sd=1", true, "/p|Cookie: session_id=1"},
		{"legacy, all headers: nothing is cached", forwarded("QueryString: false, Headers: ['*']"), "/p|X-A: 1", "/p|X-A: 1", false, "/p|X-A: 1"},
		{"origin's own header", "Origins: [{Id: a, CustomHeaders: [{HeaderName: x-secret, HeaderValue: s}], OriginPath: /o, DomainName: o.example}]\n" + forwarded("QueryString: false"),
			"/p|X-Secret: forged", "/p", true, "/o/p|X-Secret: s|Host: o.example"},
	} {
		t.Run(row.name, func(t *testing.T) {
			origin := &pages{version: 1}
			s := start(t, origin, now(Options{Edges: 1, Config: load(t, row.config)}))
			first, second := asked(t, s, row.a), asked(t, s, row.b)
			if first.xcache() != xMiss || (second.xcache() == xHit) != row.same {
				t.Errorf("%q, %q: want the same object: %v", first.xcache(), second.xcache(), row.same)
			}
			got := origin.asked[0]
			for i, want := range strings.Split(row.origin, "|") {
				name, value, _ := strings.Cut(want, ": ")
				have := got.Header.Get(name)
				if name == "Host" {
					have = got.Host
				}
				absent, mustNot := strings.CutPrefix(want, "-")
				switch {
				case i == 0 && got.RequestURI != want:
					t.Errorf("the origin was asked for %s, want %s", got.RequestURI, want)
				case mustNot && got.Header.Get(absent) != "":
					t.Errorf("the origin got %s: %q", absent, got.Header.Get(absent))
				case i > 0 && !mustNot && have != value:
					t.Errorf("the origin got %s: %q, want %q", name, have, value)
				}
			}
			// Whatever the variant, the path removes it.
			held := len(s.Objects(0))
			items := []string{"/p*"}
			if v := invalidate(t, s, items...); v.Removed != held || len(s.Objects(0)) != 0 {
				t.Errorf("%d of %d objects removed", v.Removed, held)
			}
		})
	}
}

// asked sends a request as TestCacheKey writes it.
func asked(t *testing.T, s *Simulator, text string) fetched {
	t.Helper()
	parts := strings.Split(text, "|")
	r := httptest.NewRequest(http.MethodGet, parts[0], nil)
	for _, h := range parts[1:] {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			r.Host = value
		} else {
			r.Header.Set(name, value)
		}
	}
	w := httptest.NewRecorder()
	s.Edge(0).ServeHTTP(w, r)
	return fetched{w.Code, w.Header(), w.Body.String()}
}

// A path removes all variants, and only Objects tells them apart.
func TestVariants(t *testing.T) {
	c := load(t, policies("HeadersConfig: {HeaderBehavior: whitelist, Headers: [X-A]}, CookiesConfig: {CookieBehavior: all}", ""))
	s := start(t, &pages{version: 1}, now(Options{Edges: 1, Config: c}))
	for _, text := range []string{"/p|X-A: 1", "/p|X-A: 2|Cookie: z=1; b=2", "/p", "/q|X-A: 1"} {
		asked(t, s, text)
	}
	var got []string
	for _, o := range s.Objects(0) {
		got = append(got, o.Path+" "+strings.ReplaceAll(o.Variant, "\n", ", "))
	}
	if want := "/p |/p X-A: 1|/p X-A: 2, Cookie: b=2; z=1|/q X-A: 1"; strings.Join(got, "|") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, "|"), want)
	}
	if o, ok := s.Peek(0, "/q"); !ok || o.Variant != "X-A: 1" {
		t.Errorf("peek: %v %+v", ok, o)
	}
	if v := invalidate(t, s, "/p"); v.Removed != 3 || len(s.Objects(0)) != 1 {
		t.Errorf("removed %d", v.Removed)
	}
}

// Requests for different variants are not collapsed:
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/RequestAndResponseBehaviorCustomOrigin.html
func TestVariantsAreNotCollapsed(t *testing.T) {
	for config, want := range map[string]int{
		policies("HeadersConfig: {HeaderBehavior: whitelist, Headers: [X-A]}", ""): 2,
		policies("", ""): 1,
		"DefaultCacheBehavior: {CachePolicyId: CachingDisabled}": 2,
	} {
		synctest.Test(t, func(t *testing.T) {
			origin := &pages{version: 1, wait: make(chan struct{})}
			s := start(t, origin, now(Options{Edges: 1, Config: load(t, config)}))
			for _, text := range []string{"/p|X-A: 1", "/p|X-A: 2"} {
				go asked(t, s, text)
				synctest.Wait()
			}
			if n := origin.count(); n != want {
				t.Errorf("%d requests at the origin, want %d: %s", n, want, config)
			}
			close(origin.wait)
			synctest.Wait() // an answer that Close breaks off ends in a panic
		})
	}
}

func TestSetCookieAndVary(t *testing.T) {
	for _, row := range []struct{ name, config, control, cookie, again, vary string }{
		{"not forwarded", policies("", ""), "max-age=60", "", "", "Accept-Encoding"},
		{"forwarded", policies("CookiesConfig: {CookieBehavior: all}", ""), "max-age=60", "a=b", "a=b", "Accept-Encoding"},
		{"kept without it", policies("CookiesConfig: {CookieBehavior: all}", ""), `max-age=60, no-cache="Set-Cookie"`, "", "", "Accept-Encoding"},
		{"vary by what is in the key", policies("HeadersConfig: {HeaderBehavior: whitelist, Headers: [Accept-Language]}", ""), "max-age=60", "", "", "Accept-Encoding, Accept-Language"},
	} {
		origin := &pages{version: 1}
		origin.set(1, "Set-Cookie", "a=b", "Cache-Control", row.control, "Vary", "Accept-Encoding, Accept-Language, X-Other")
		s := start(t, origin, now(Options{Edges: 1, Config: load(t, row.config)}))
		first, again := get(t, s, 0, "/p"), get(t, s, 0, "/p")
		if c := first.header.Get("Set-Cookie"); c != row.cookie && row.name != "kept without it" {
			t.Errorf("%s: Set-Cookie %q", row.name, c)
		}
		if c := again.header.Get("Set-Cookie"); c != row.again || again.xcache() != xHit {
			t.Errorf("%s: again Set-Cookie %q, %q", row.name, c, again.xcache())
		}
		if v := again.header.Get("Vary"); v != row.vary {
			t.Errorf("%s: Vary %q, want %q", row.name, v, row.vary)
		}
	}
}

func TestAllowedMethods(t *testing.T) {
	origin := &pages{version: 1}
	s := start(t, origin, now(Options{Edges: 1, EnforceHTTPS: true, Config: load(t, `
DefaultCacheBehavior: {CachePolicyId: UseOriginCacheControlHeaders}
CacheBehaviors:
  - {PathPattern: /opt/*, CachePolicyId: CachingOptimized, AllowedMethods: {Items: [GET, HEAD, OPTIONS], CachedMethods: [GET, HEAD, OPTIONS]}}
  - {PathPattern: /api/*, CachePolicyId: CachingDisabled, AllowedMethods: [GET, HEAD, OPTIONS, PUT, POST, PATCH, DELETE]}
  - {PathPattern: /secure/*, CachePolicyId: CachingOptimized, ViewerProtocolPolicy: https-only}
  - {PathPattern: /moved/*, CachePolicyId: CachingOptimized, ViewerProtocolPolicy: redirect-to-https, AllowedMethods: [GET, HEAD, OPTIONS, PUT, POST, PATCH, DELETE]}
`)}))
	for _, row := range []struct {
		method, target string
		status         int
		first, again   string
	}{
		{"POST", "/p", 403, xError, xError}, {"OPTIONS", "/p", 403, xError, xError}, {"GET", "/p", 200, xMiss, xMiss},
		{"OPTIONS", "/opt/a", 200, xMiss, xHit}, {"GET", "/opt/a", 200, xMiss, xHit}, {"DELETE", "/opt/a", 403, xError, xError},
		{"POST", "/api/a", 200, xMiss, xMiss}, {"GET", "/api/a", 200, xMiss, xMiss},
		{"GET", "/secure/a", 403, xError, xError}, {"GET", "/moved/a?b", 301, xRedirect, xRedirect}, {"POST", "/moved/a", 307, xRedirect, xRedirect},
	} {
		first, again := ask(t, s, 0, row.method, row.target), ask(t, s, 0, row.method, row.target)
		if first.status != row.status || first.xcache() != row.first || again.xcache() != row.again {
			t.Errorf("%s %s: %d %q, then %q; want %d %q %q", row.method, row.target, first.status, first.xcache(), again.xcache(), row.status, row.first, row.again)
		}
	}
	if l := ask(t, s, 0, "GET", "http://www.example.com/moved/a?b").header.Get("Location"); l != "https://www.example.com/moved/a?b" {
		t.Errorf("Location %q", l)
	}
	resp, err := s.Transport().RoundTrip(must(http.NewRequest(http.MethodGet, "https://edge0.simulator/secure/a", nil)))
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("over HTTPS: %v %v", err, resp)
	}
	resp.Body.Close()
}

func TestVaryAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin := &pages{version: 1}
		origin.set(1, "Vary", "*", "Etag", "auto", "Cache-Control", "max-age=60")
		s := start(t, origin, now(Options{Edges: 1, Config: load(t, "DefaultCacheBehavior: {CachePolicyId: UseOriginCacheControlHeaders}\nCacheBehaviors: [{PathPattern: /min/*, CachePolicyId: CachingOptimized}]")}))
		get(t, s, 0, "/p")
		got := get(t, s, 0, "/p")
		if got.xcache() != xMiss || origin.last().Header.Get("If-None-Match") != "" || len(s.Objects(0)) != 1 {
			t.Errorf("%q, asked with %v", got.xcache(), origin.last().Header)
		}
		origin.answer(500)
		time.Sleep(time.Second)
		origin.set(1, "X", "y")
		if got := get(t, s, 0, "/p"); got.status != 200 {
			t.Errorf("it is kept, but does not serve on error: %d", got.status)
		}
		origin.answer(200)
		origin.set(1, "Vary", "*")
		get(t, s, 0, "/min/p")
		if got := get(t, s, 0, "/min/p"); got.xcache() != xHit {
			t.Errorf("with a minimum TTL: %q", got.xcache())
		}
	})
}
