// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"html"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
)

// Values of X-Cache.
const (
	xHit        = "Hit from cloudfront"
	xMiss       = "Miss from cloudfront"
	xRefreshHit = "RefreshHit from cloudfront"
	xError      = "Error from cloudfront"
)

// key names an object in an edge. The target is the viewer's own spelling, since CloudFront stores URLs
// as requested (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/LinkFormat.html),
// with the query parameters that count. GET and HEAD share it, OPTIONS has its own
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/understanding-the-cache-key.html).
type key struct {
	target  string
	options bool
}

// object never changes once an edge holds it, but for the body that still comes in.
type object struct {
	path    string // canonical, reduced: what invalidations match
	method  string
	status  int
	header  http.Header
	body    *stream // nil: only the headers are known
	tags    []string
	stored  time.Time // zero until the body is complete
	expires time.Time
	stale   time.Time // until then it may be served while it is being renewed
}

// keep begins a life of the object.
func (o *object) keep(v lifetime.Verdict, now time.Time) {
	o.stored, o.expires = now, now.Add(v.TTL)
	o.stale = o.expires
	if n, ok := directive(o.header, "stale-while-revalidate"); ok {
		o.stale = o.expires.Add(min(n, v.Stale))
	}
}

// directive returns the seconds of a Cache-Control directive that is written plainly.
func directive(h http.Header, name string) (time.Duration, bool) {
	for _, line := range h["Cache-Control"] {
		for d := range strings.SplitSeq(line, ",") {
			k, v, _ := strings.Cut(strings.TrimSpace(d), "=")
			if n, err := strconv.ParseUint(v, 10, 31); err == nil && strings.EqualFold(k, name) {
				return time.Duration(n) * time.Second, true
			}
		}
	}
	return 0, false
}

// neverOnError says whether the response forbids to serve it when the origin fails:
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/Expiration.html
func (o *object) neverOnError() bool {
	n, ok := directive(o.header, "stale-if-error")
	return ok && n == 0
}

func (o *object) serves(method string) bool { return o.body != nil || method == http.MethodHead }

// flight is a fetch that requests for the same key wait for.
type flight struct {
	ready chan struct{} // closed when the next two are set
	obj   *object       // nil: each request fetches by itself
	xc    string
}

// flightKey keeps a HEAD from being waited for by a GET.
type flightKey struct {
	key
	head bool
}

type edge struct {
	sim *Simulator
	pop string
	via string

	mu      sync.Mutex
	rand    *rand.Rand
	objects map[key]*object
	flights map[flightKey]*flight
}

func newEdge(s *Simulator, i int) *edge {
	e := &edge{
		sim: s, pop: fmt.Sprintf("SIM%d-C1", i+1),
		rand:    rand.New(rand.NewPCG(s.opts.Seed, uint64(i)+2)),
		objects: map[key]*object{},
		flights: map[flightKey]*flight{},
	}
	e.via = fmt.Sprintf("1.1 %016x%016x.cloudfront.net (CloudFront)", e.rand.Uint64(), e.rand.Uint64())
	return e
}

// request is what an edge knows of one viewer request.
type request struct {
	w      http.ResponseWriter
	r      *http.Request
	id     string
	key    key
	path   string // canonical, whole: decides the behaviour
	method string
}

func (e *edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !e.sim.enter() {
		http.Error(w, "the simulator is closed", http.StatusServiceUnavailable)
		return
	}
	defer e.sim.active.Done()

	q := &request{w: w, r: r, method: r.Method}
	e.mu.Lock()
	q.id = e.newID()
	e.mu.Unlock()

	target := r.RequestURI
	if target == "" {
		target = r.URL.RequestURI() // a request made in process
	}
	var err error
	if q.path, err = cfpath.FromTarget(target); err != nil {
		status := http.StatusBadRequest
		if len(target) > cfpath.MaxLength {
			status = http.StatusRequestURITooLong
		}
		e.refuse(q, status, err.Error())
		return
	}
	b := e.sim.rules.Match(q.path)
	q.key = key{b.Query.Apply(originForm(target)), r.Method == http.MethodOptions}

	switch {
	case r.Method == http.MethodGet && r.ContentLength != 0:
		// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/RequestAndResponseBehaviorCustomOrigin.html
		e.refuse(q, http.StatusForbidden, "a GET request has no body")
	case r.Method == http.MethodGet, r.Method == http.MethodHead, r.Method == http.MethodOptions && b.CacheOptions:
		e.serve(q)
	default:
		e.pass(q, nil)
	}
}

// originForm is a request target without scheme and host, in the viewer's spelling.
func originForm(t string) string {
	if strings.HasPrefix(t, "/") {
		return t
	}
	if _, rest, ok := strings.Cut(t, "://"); ok {
		i := strings.IndexAny(rest, "/?")
		switch {
		case i < 0:
			return "/"
		case rest[i] == '?':
			return "/" + rest[i:]
		}
		return rest[i:]
	}
	return t
}

// serve answers a request that the cache may answer.
func (e *edge) serve(q *request) {
	fk := flightKey{q.key, q.method == http.MethodHead}
	e.mu.Lock()
	old := e.objects[q.key]
	if old != nil && !old.serves(q.method) {
		old = nil
	}
	now := time.Now()
	if old != nil && now.Before(old.expires) {
		e.mu.Unlock()
		e.send(q, old, xHit)
		return
	}
	fl := e.flights[flightKey{q.key, false}]
	if fl == nil {
		fl = e.flights[fk]
	}
	if old != nil && now.Before(old.stale) {
		if fl == nil {
			e.renew(q, fk, old)
		}
		e.mu.Unlock()
		e.send(q, old, xHit)
		return
	}
	if fl == nil {
		fl = &flight{ready: make(chan struct{})}
		e.flights[fk] = fl
		e.mu.Unlock()
		if resp := e.fetch(q, fk, fl, old); resp != nil {
			e.relay(q, resp)
			return
		}
		e.send(q, fl.obj, fl.xc)
		return
	}
	e.mu.Unlock()

	select {
	case <-fl.ready:
	case <-q.r.Context().Done():
		panic(http.ErrAbortHandler) // when the simulator closes, the fetch ends too
	}
	if fl.obj == nil {
		e.pass(q, nil)
		return
	}
	// Those who waited are hits:
	// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/RequestAndResponseBehaviorCustomOrigin.html
	e.send(q, fl.obj, xHit)
}

// renew asks the origin in the background. It holds e.mu.
func (e *edge) renew(q *request, fk flightKey, old *object) {
	fl := &flight{ready: make(chan struct{})}
	e.flights[fk] = fl
	own := *q
	own.w, own.r = nil, q.r.Clone(e.sim.ctx)
	e.sim.goFunc(func() {
		if resp := e.fetch(&own, fk, fl, old); resp != nil {
			_ = resp.Body.Close()
		}
	})
}

// fetch asks the origin on behalf of a flight. It either makes fl.obj, whose body may still be coming
// in, or returns a response that only this request may have. The flight goes on when the viewer leaves.
func (e *edge) fetch(q *request, fk flightKey, fl *flight, old *object) *http.Response {
	settle := func(obj *object, xc string) {
		fl.obj, fl.xc = obj, xc
		close(fl.ready)
	}
	resp, err := e.roundTrip(e.sim.ctx, q, old)
	if err != nil {
		resp = e.unreachable(q, err)
	}
	end := time.Now()

	if resp.StatusCode >= 500 && old != nil && old.status < 400 && !old.neverOnError() {
		// The old object serves for the error caching time, and then the origin is asked again:
		// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/HTTPStatusCodes.html
		// One that was removed meanwhile does not.
		stale := *old
		stale.expires = end.Add(e.judge(q, resp.StatusCode, resp.Header, end).TTL)
		if stale.stale.Before(stale.expires) {
			stale.stale = stale.expires
		}
		if e.prolong(q.key, fk, old, &stale) {
			_ = resp.Body.Close()
			settle(&stale, xHit)
			return nil
		}
	}
	if resp.StatusCode == http.StatusNotModified && old != nil {
		_ = resp.Body.Close()
		renewed := *old
		renewed.header = old.header.Clone()
		for k, v := range endToEnd(resp.Header) {
			if k != "Content-Length" {
				renewed.header[k] = v
			}
		}
		renewed.tags = e.tags(renewed.header)
		v := e.judge(q, old.status, renewed.header, end)
		renewed.keep(v, end)
		if v.Keep {
			e.finish(q.key, fk, &renewed)
		} else {
			e.finish(q.key, fk, nil)
		}
		settle(&renewed, xRefreshHit)
		return nil
	}

	v := e.judge(q, resp.StatusCode, resp.Header, end)
	if !v.Keep {
		e.finish(q.key, fk, nil)
		settle(nil, "")
		return resp
	}
	obj := &object{
		path: e.keyPath(q), method: q.method, status: resp.StatusCode,
		header: endToEnd(resp.Header), tags: e.tags(resp.Header),
	}
	if q.method == http.MethodHead {
		_ = resp.Body.Close()
		obj.keep(v, end)
		e.finish(q.key, fk, obj)
		settle(obj, xMiss)
		return nil
	}
	obj.body = newStream()
	e.sim.goFunc(func() { e.receive(q, fk, obj, resp) })
	settle(obj, xMiss)
	return nil
}

// receive takes in a body, and stores the object when it is complete: also when an invalidation that
// names it was processed since the request was sent.
func (e *edge) receive(q *request, fk flightKey, obj *object, resp *http.Response) {
	defer func() { _ = resp.Body.Close() }()
	_, err := io.Copy(obj.body, resp.Body)
	if err != nil {
		e.abandon(fk)
		obj.body.finish(err)
		return
	}
	end := time.Now()
	done := *obj
	done.keep(e.judge(q, resp.StatusCode, resp.Header, end), end)
	if done.header["Content-Length"] == nil {
		done.header = done.header.Clone()
		done.header.Set("Content-Length", strconv.Itoa(obj.body.len()))
	}
	e.finish(q.key, fk, &done)
	obj.body.finish(nil)
}

// finish ends a flight with an object to hold; nil removes what was held.
func (e *edge) finish(k key, fk flightKey, obj *object) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.flights, fk)
	if obj == nil {
		delete(e.objects, k)
		return
	}
	e.objects[k] = obj
}

// prolong ends a flight with another life for what is held, if it still is.
func (e *edge) prolong(k key, fk flightKey, old, longer *object) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.objects[k] != old {
		return false
	}
	delete(e.flights, fk)
	e.objects[k] = longer
	return true
}

// abandon ends a flight that brought nothing; what was held stays.
func (e *edge) abandon(fk flightKey) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.flights, fk)
}

func (e *edge) judge(q *request, status int, h http.Header, end time.Time) lifetime.Verdict {
	return e.sim.rules.Of(q.path, lifetime.Response{Method: q.method, Status: status, Header: h, End: end})
}

// keyPath is the canonical form of the key.
func (e *edge) keyPath(q *request) string {
	return e.sim.rules.Match(q.path).Query.Apply(q.path)
}

// pass has a request answered by the origin alone.
func (e *edge) pass(q *request, old *object) {
	resp, err := e.roundTrip(q.r.Context(), q, old)
	if err != nil {
		resp = e.unreachable(q, err)
	}
	e.relay(q, resp)
}

// relay sends a response of the origin that is not kept, as it comes in.
func (e *edge) relay(q *request, resp *http.Response) {
	defer func() { _ = resp.Body.Close() }()
	stop := context.AfterFunc(q.r.Context(), func() { _ = resp.Body.Close() })
	defer stop()
	xc := xMiss
	if resp.StatusCode >= 400 {
		xc = xError
	}
	e.head(q, endToEnd(resp.Header), xc)
	q.w.WriteHeader(resp.StatusCode)
	rc := http.NewResponseController(q.w)
	buf := make([]byte, 32<<10)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 {
			if _, werr := q.w.Write(buf[:n]); werr != nil {
				return // the viewer has gone
			}
			_ = rc.Flush() // a writer that cannot flush sends at the end
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler) // so that the viewer sees that it is incomplete
		}
	}
}

// send answers from an object.
func (e *edge) send(q *request, o *object, xc string) {
	if o.status >= 400 {
		xc = xError
	}
	h := e.head(q, o.header, xc)
	if xc != xMiss && !o.stored.IsZero() {
		h.Set("Age", strconv.Itoa(int(time.Since(o.stored)/time.Second)))
	}
	if o.status == http.StatusOK && notModified(q.r.Header, o.header) {
		h.Del("Content-Length")
		q.w.WriteHeader(http.StatusNotModified)
		return
	}
	q.w.WriteHeader(o.status)
	if q.method == http.MethodHead || o.body == nil {
		return
	}
	if err := o.body.copyTo(q.r.Context(), q.w); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// notModified compares a viewer's conditional request with a fresh object.
func notModified(viewer, object http.Header) bool {
	if inm := viewer.Get("If-None-Match"); inm != "" {
		etag := strings.TrimPrefix(object.Get("Etag"), "W/")
		if etag == "" {
			return false
		}
		for t := range strings.SplitSeq(inm, ",") {
			t = strings.TrimSpace(t)
			if t == "*" || strings.TrimPrefix(t, "W/") == etag {
				return true
			}
		}
		return false
	}
	since, err := http.ParseTime(viewer.Get("If-Modified-Since"))
	if err != nil {
		return false
	}
	modified, err := http.ParseTime(object.Get("Last-Modified"))
	return err == nil && !modified.After(since)
}

// head prepares the headers of an answer.
func (e *edge) head(q *request, from http.Header, xc string) http.Header {
	h := q.w.Header()
	for k, v := range from {
		h[k] = v
	}
	via := e.via
	if v := from["Via"]; len(v) > 0 {
		via = strings.Join(v, ", ") + ", " + via
	}
	h["Via"] = []string{via}
	h["X-Cache"] = []string{xc}
	h["X-Amz-Cf-Pop"] = []string{e.pop}
	h["X-Amz-Cf-Id"] = []string{q.id}
	return h
}

// refuse answers a request that never reaches the cache.
func (e *edge) refuse(q *request, status int, why string) {
	e.relay(q, e.errorPage(q, status, why))
}

func (e *edge) errorPage(q *request, status int, why string) *http.Response {
	body := fmt.Sprintf("<html><head><title>ERROR: The request could not be satisfied</title></head><body><h1>%d ERROR</h1><p>%s</p><pre>Generated by cloudfront (simulator)\nRequest ID: %s</pre></body></html>\n",
		status, html.EscapeString(why), q.id)
	h := http.Header{}
	h.Set("Server", "CloudFront")
	h.Set("Content-Type", "text/html")
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if q.method == http.MethodHead {
		body = ""
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}
}

// unreachable is CloudFront's own answer when the origin gave none.
func (e *edge) unreachable(q *request, err error) *http.Response {
	status := http.StatusBadGateway
	if errors.Is(err, errOriginTimeout) {
		status = http.StatusGatewayTimeout
	}
	return e.errorPage(q, status, "CloudFront wasn't able to connect to the origin: "+err.Error())
}

// roundTrip asks the origin for a request's key. With an old object it asks whether that still holds.
func (e *edge) roundTrip(ctx context.Context, q *request, old *object) (*http.Response, error) {
	s := e.sim
	if s.origin == nil {
		return nil, errors.New("there is no origin")
	}
	target := q.key.target
	if root := s.opts.DefaultRootObject; root != "" {
		// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/DefaultRootObject.html
		if target == "/" || strings.HasPrefix(target, "/?") {
			target = "/" + root + target[1:]
		}
	}
	out := &http.Request{
		Method: q.method, URL: originURL(s.opts.OriginPath + target), Host: originHost,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: originHeader(q.r, q.method), ContentLength: q.r.ContentLength, Body: http.NoBody,
	}
	if q.r.ContentLength != 0 && q.r.Body != nil {
		out.Body = q.r.Body
	}
	h := out.Header
	h.Set("User-Agent", "Amazon CloudFront")
	h.Set("X-Amz-Cf-Id", q.id)
	h["Via"] = []string{strings.Join(append(slices.Clone(q.r.Header["Via"]), e.via), ", ")}
	if ip, _, err := net.SplitHostPort(q.r.RemoteAddr); err == nil {
		h["X-Forwarded-For"] = []string{strings.Join(append(slices.Clone(q.r.Header["X-Forwarded-For"]), ip), ", ")}
	}
	if old != nil {
		if t := old.header.Get("Etag"); t != "" {
			h.Set("If-None-Match", t)
		}
		if t := old.header.Get("Last-Modified"); t != "" {
			h.Set("If-Modified-Since", t)
		}
	}

	// The time is that to the first byte of the answer, as far as the edge sees it: the header.
	ctx, cancel := context.WithCancelCause(ctx)
	timeout := time.AfterFunc(s.opts.OriginTimeout, func() { cancel(errOriginTimeout) })
	resp, err := s.origin.RoundTrip(out.WithContext(ctx))
	timeout.Stop()
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(nil)
		return nil, err
	}
	resp.Body = &cancelBody{resp.Body, cancel}
	return resp, nil
}

var errOriginTimeout = errors.New("the origin did not answer in time")

// cancelBody ends the context of its response with the body.
type cancelBody struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (b *cancelBody) Close() error {
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// hopByHop headers concern one connection.
func hopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return strings.HasPrefix(name, "Proxy-")
}

// originHeader is what the origin gets of a viewer's headers when nothing but the defaults is forwarded:
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/RequestAndResponseBehaviorCustomOrigin.html
func originHeader(r *http.Request, method string) http.Header {
	cached := method == http.MethodGet || method == http.MethodHead
	h := make(http.Header, len(r.Header)+4)
	for k, v := range r.Header {
		switch k {
		case "Accept", "Accept-Charset", "Accept-Encoding", "Accept-Language", "Cookie", "Expect", "Referer",
			"X-Forwarded-Proto", "X-Real-Ip":
			continue
		case "Authorization", "Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range":
			if cached {
				continue
			}
		}
		if hopByHop(k) || strings.HasPrefix(k, "X-Edge-") || strings.HasPrefix(k, "X-Amz-Cf-") {
			continue
		}
		h[k] = v
	}
	return h
}

// endToEnd is what a viewer gets of the origin's headers. Cookies are not forwarded, so Set-Cookie goes:
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/Cookies.html
func endToEnd(in http.Header) http.Header {
	h := make(http.Header, len(in)+4)
	for k, v := range in {
		if !hopByHop(k) && k != "Set-Cookie" {
			h[k] = v
		}
	}
	return h
}

// tags reads the tags of a response: the first 50, visible ASCII, at most 256 characters, in lower case
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/invalidation-by-tags.html).
func (e *edge) tags(h http.Header) []string {
	name := e.sim.opts.TagHeader
	if name == "" {
		return nil
	}
	var tags []string
	for _, line := range h.Values(name) {
		for t := range strings.SplitSeq(line, ",") {
			t = strings.ToLower(strings.TrimSpace(t))
			bad := strings.ContainsFunc(t, func(r rune) bool { return r < 33 || r > 126 })
			if t == "" || bad || len(t) > cfpath.MaxTagLength || slices.Contains(tags, t) {
				continue
			}
			if tags = append(tags, t); len(tags) == 50 {
				return tags
			}
		}
	}
	return tags
}

// invalidate removes what an invalidation names, and says how much that was.
func (e *edge) invalidate(m *matcher) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for k, o := range e.objects {
		if m.matches(o.path, o.tags) {
			delete(e.objects, k)
			n++
		}
	}
	return n
}

func (e *edge) peek(target string) (Object, bool) {
	path, err := cfpath.FromTarget(target)
	if err != nil {
		return Object{}, false
	}
	k := key{target: e.sim.rules.Match(path).Query.Apply(originForm(target))}
	e.mu.Lock()
	defer e.mu.Unlock()
	o := e.objects[k]
	if o == nil {
		return Object{}, false
	}
	return o.snapshot(), true
}

func (e *edge) list() []Object {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]Object, 0, len(e.objects))
	for _, o := range e.objects {
		out = append(out, o.snapshot())
	}
	slices.SortFunc(out, func(a, b Object) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Method, b.Method))
	})
	return out
}

func (o *object) snapshot() Object {
	out := Object{
		Path: o.path, Method: o.method, Status: o.status, Header: o.header.Clone(),
		Tags: slices.Clone(o.tags), Stored: o.stored, Expires: o.expires, Stale: o.stale,
	}
	if o.body != nil {
		out.Body = o.body.bytes()
	}
	return out
}

// newID makes the ID of a request. It holds e.mu.
func (e *edge) newID() string {
	var b [41]byte
	for i := 0; i < len(b); i += 8 {
		v := e.rand.Uint64()
		for j := i; j < min(i+8, len(b)); j++ {
			b[j] = byte(v)
			v >>= 8
		}
	}
	return base64.URLEncoding.EncodeToString(b[:])
}

// stream is a body that is read by many while it comes in.
type stream struct {
	mu   sync.Mutex
	data []byte
	done bool
	err  error
	more chan struct{} // closed and replaced when there is more; nil while nobody waits
}

func newStream() *stream { return &stream{} }

func (b *stream) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data = append(b.data, p...)
	b.wake()
	return len(p), nil
}

func (b *stream) finish(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done, b.err = true, err
	b.wake()
}

func (b *stream) wake() {
	if b.more != nil {
		close(b.more)
		b.more = nil
	}
}

func (b *stream) len() int { return len(b.bytes()) }

// bytes returns what has come in so far. Nobody changes it: more is only appended.
func (b *stream) bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data[:len(b.data):len(b.data)]
}

// copyTo writes the body until it is complete; it is at the latest when the simulator ends, since that
// ends what brings it. An error of the writer is the viewer's, and not returned.
func (b *stream) copyTo(viewer context.Context, w http.ResponseWriter) error {
	for off := 0; ; {
		b.mu.Lock()
		data, done, err := b.data[off:], b.done, b.err
		if len(data) == 0 && !done && b.more == nil {
			b.more = make(chan struct{})
		}
		more := b.more
		b.mu.Unlock()
		if len(data) > 0 {
			if _, err := w.Write(data); err != nil {
				return nil
			}
			off += len(data)
			if done {
				continue
			}
			_ = http.NewResponseController(w).Flush() // a writer that cannot flush sends at the end
			continue
		}
		if done {
			return err
		}
		select {
		case <-more:
		case <-viewer.Done():
			return nil
		}
	}
}
