// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// key names an object in a cache. The target is the viewer's own spelling, since CloudFront stores URLs
// as requested (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/LinkFormat.html),
// with the query parameters that count. GET and HEAD share it, OPTIONS has its own
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/understanding-the-cache-key.html).
type key struct {
	target  string
	options bool
	variant string // headers and cookies that count, a line each
}

// keyOf makes the key of a request for a target.
func (s *Simulator) keyOf(b *behavior, target string, r *http.Request) key {
	if s.opts.RootKeyIsIndex {
		target = s.rooted(target)
	}
	k := key{target: b.query.Apply(target), options: r.Method == http.MethodOptions}
	var lines []string
	for _, name := range b.keyHeaders {
		for _, v := range viewerHeader(r, name) {
			lines = append(lines, name+": "+v)
		}
	}
	if e := b.encoding(r); e != "" && e != "identity" {
		lines = append(lines, "Accept-Encoding: "+e)
	}
	if c := cookies(r, b.keyCookies.has); c != "" {
		lines = append(lines, "Cookie: "+c)
	}
	k.variant = strings.Join(lines, "\n")
	return k
}

// rooted puts the default root object in place of "/":
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/DefaultRootObject.html
func (s *Simulator) rooted(target string) string {
	if root := s.config.DefaultRootObject; root != "" && (target == "/" || strings.HasPrefix(target, "/?")) {
		return "/" + root + target[1:]
	}
	return target
}

// viewerHeader returns the lines of a header as the cache key and the origin see it. Headers that
// CloudFront makes about the viewer are made here where a request tells; the others, such as the country,
// are what the request says itself.
func viewerHeader(r *http.Request, name string) []string {
	one := func(s string) []string {
		if s == "" {
			return nil
		}
		return []string{s}
	}
	switch name {
	case "Host":
		return one(r.Host)
	case "Cookie":
		return nil // only by name
	case "Cloudfront-Forwarded-Proto":
		return one(scheme(r))
	case "Cloudfront-Viewer-Http-Version":
		return one(strings.TrimPrefix(r.Proto, "HTTP/"))
	case "Cloudfront-Viewer-Address":
		return one(r.RemoteAddr)
	case "X-Forwarded-For":
		return one(forwardedFor(r))
	}
	return r.Header[name]
}

func forwardedFor(r *http.Request) string {
	ip, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return strings.Join(r.Header["X-Forwarded-For"], ", ")
	}
	return strings.Join(append(slices.Clone(r.Header["X-Forwarded-For"]), ip), ", ")
}

func scheme(r *http.Request) string {
	if r.TLS != nil || r.URL.Scheme == "https" {
		return "https"
	}
	return "http"
}

// encoding is the normalised Accept-Encoding of a request: what is both supported by the viewer and
// enabled, "identity" if nothing is, and "" where it is a header like any other or the viewer sent none.
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cache-key-understand-cache-policy.html
func (b *behavior) encoding(r *http.Request) string {
	if !b.gzip && !b.brotli || len(r.Header["Accept-Encoding"]) == 0 {
		return ""
	}
	gzip, brotli := false, false
	for _, line := range r.Header["Accept-Encoding"] {
		for part := range strings.SplitSeq(line, ",") {
			name, weight, _ := strings.Cut(part, ";")
			if w := strings.ReplaceAll(weight, " ", ""); w == "q=0" || strings.HasPrefix(w, "q=0.") && strings.Trim(w[4:], "0") == "" {
				continue
			}
			gzip = gzip || b.gzip && strings.EqualFold(strings.TrimSpace(name), "gzip")
			brotli = brotli || b.brotli && strings.EqualFold(strings.TrimSpace(name), "br")
		}
	}
	switch {
	case gzip && brotli:
		return "br,gzip"
	case gzip:
		return "gzip"
	case brotli:
		return "br"
	}
	return "identity"
}

// cookies selects cookies of a request and sorts them by name, as CloudFront does
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/Cookies.html).
func cookies(r *http.Request, has func(name string) bool) string {
	var out []string
	for _, line := range r.Header["Cookie"] {
		for c := range strings.SplitSeq(line, ";") {
			c = strings.TrimSpace(c)
			if name, _, _ := strings.Cut(c, "="); c != "" && has(name) {
				out = append(out, c)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b string) int {
		x, _, _ := strings.Cut(a, "=")
		y, _, _ := strings.Cut(b, "=")
		return strings.Compare(x, y)
	})
	return strings.Join(out, "; ")
}

// originTarget is what the origin is asked for: the parameters in the key, and those of the origin
// request policy. What one of them names the other does not take away
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/understanding-how-origin-request-policies-and-cache-policies-work-together.html).
func (b *behavior) originTarget(target string) string {
	stem, query, has := strings.Cut(target, "?")
	if !has || b.query.String() == "all" || b.forward.String() == "all" {
		return target
	}
	var kept []string
	for p := range strings.SplitSeq(query, "&") {
		if b.query.Apply("/?"+p) != "/" || b.forward.Apply("/?"+p) != "/" {
			kept = append(kept, p)
		}
	}
	if len(kept) == 0 {
		return stem
	}
	return stem + "?" + strings.Join(kept, "&")
}

// hopByHop headers concern one connection.
func hopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return strings.HasPrefix(name, "Proxy-")
}

// originHeader is what the origin gets of a viewer's headers, but for conditions and ranges:
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/RequestAndResponseBehaviorCustomOrigin.html
func (b *behavior) originHeader(r *http.Request) http.Header {
	cached := r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions && b.cachesOPT
	h := make(http.Header, len(r.Header)+8)
	for name, lines := range r.Header {
		if hopByHop(name) || strings.HasPrefix(name, "X-Edge-") || strings.HasPrefix(name, "X-Amz-Cf-") || conditional(name) && cached {
			continue
		}
		if _, named := slices.BinarySearch(b.keyHeaders, name); named || b.headers.has(name) || b.passes(name, cached) {
			h[name] = lines
		}
	}
	for _, name := range b.keyHeaders {
		if v := viewerHeader(r, name); len(v) > 0 && name != "Host" {
			h[name] = v
		}
	}
	if b.headers.mode == "whitelist" || b.headers.mode == "allViewerAndWhitelistCloudFront" {
		for _, name := range b.headers.names {
			if v := viewerHeader(r, name); len(v) > 0 && name != "Host" {
				h[name] = v
			}
		}
	}
	delete(h, "X-Real-Ip")
	delete(h, "X-Forwarded-Proto")
	delete(h, "Cookie")
	if c := cookies(r, func(n string) bool { return b.keyCookies.has(n) || b.cookies.has(n) }); c != "" {
		h["Cookie"] = []string{c}
	}
	if e := b.encoding(r); e != "" {
		h["Accept-Encoding"] = []string{e}
	} else if b.gzip || b.brotli {
		delete(h, "Accept-Encoding")
	}
	if _, named := slices.BinarySearch(b.keyHeaders, "User-Agent"); !named && !b.headers.has("User-Agent") {
		h["User-Agent"] = []string{"Amazon CloudFront"}
	}
	if f := forwardedFor(r); f != "" {
		h["X-Forwarded-For"] = []string{f}
	}
	for _, c := range b.origin.custom {
		h[textproto.CanonicalMIMEHeaderKey(c.HeaderName)] = []string{c.HeaderValue}
	}
	return h
}

// passes says whether a header reaches the origin that nothing in the configuration names.
func (b *behavior) passes(name string, cached bool) bool {
	switch name {
	case "Accept", "Accept-Charset", "Accept-Encoding", "Accept-Language", "Cookie", "Expect", "Referer",
		"X-Forwarded-Proto", "X-Http-Method-Override", "X-Real-Ip":
		return false
	case "Authorization":
		return !cached
	case "Cache-Control", "Content-Length", "Content-Md5", "Content-Type", "Date", "From", "Max-Forwards", "Pragma", "Via", "Warning":
		return true
	}
	// Others only without a cache policy, as that page says.
	return b.legacy || conditional(name)
}

// conditional headers ask for a part, or make a request conditional.
func conditional(name string) bool {
	switch name {
	case "Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range":
		return true
	}
	return false
}

// originHost is the Host of an origin request; "" is the origin's own.
func (b *behavior) originHost(r *http.Request) string {
	if _, named := slices.BinarySearch(b.keyHeaders, "Host"); named || b.headers.has("Host") {
		return r.Host
	}
	return b.origin.host
}

// viewerResponseHeader is what a viewer gets of the headers that the origin sent and the cache keeps.
func (b *behavior) viewerResponseHeader(in http.Header) http.Header {
	h := make(http.Header, len(in)+6)
	for k, v := range in {
		h[k] = v
	}
	if vary := in["Vary"]; len(vary) > 0 {
		// Only what the key or the origin request may depend on is left.
		var kept []string
		for v := range strings.SplitSeq(strings.Join(vary, ","), ",") {
			v = strings.TrimSpace(v)
			name := textproto.CanonicalMIMEHeaderKey(v)
			if _, named := slices.BinarySearch(b.keyHeaders, name); named || b.headers.has(name) || v == "*" || name == "Accept-Encoding" || name == "Cookie" {
				kept = append(kept, v)
			}
		}
		delete(h, "Vary")
		if len(kept) > 0 {
			h["Vary"] = []string{strings.Join(kept, ", ")}
		}
	}
	return h
}

// endToEnd is what of a response's headers is kept and passed on. Cookies that are not forwarded do not
// come back either, and a cached object has none if the response says no-cache="Set-Cookie":
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/Cookies.html
func (b *behavior) endToEnd(in http.Header, kept bool) http.Header {
	h := make(http.Header, len(in)+4)
	for k, v := range in {
		if !hopByHop(k) {
			h[k] = v
		}
	}
	for _, line := range in["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			delete(h, textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name)))
		}
	}
	if !b.forwardsCookies || kept && strings.Contains(strings.ToLower(strings.Join(in["Cache-Control"], ",")), `no-cache="set-cookie"`) {
		delete(h, "Set-Cookie")
	}
	return h
}
