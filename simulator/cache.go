// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"cmp"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
)

// object never changes once a cache holds it, but for the body that still comes in.
type object struct {
	path    string // canonical, reduced: what invalidations match
	method  string
	status  int
	header  http.Header
	body    *stream // nil: only the headers are known
	part    *span   // of the whole, in a 206
	tags    []string
	failed  bool      // it is a custom error page
	born    time.Time // when it left the origin, or the origin said that it still holds
	stored  time.Time // zero until the body is complete
	expires time.Time
	stale   time.Time // until then it may be served while it is being renewed
	onError time.Time // until then it may be served when the origin fails
	judged  judged
}

// judged is the response whose headers decide how long an object is kept.
type judged struct {
	status int
	header http.Header
}

// keep begins a life of the object, which left the origin some time ago.
func (e *edge) keep(q *request, o *object, now time.Time, age time.Duration) lifetime.Verdict {
	v := e.judge(q, o.judged.status, o.judged.header, now)
	o.born, o.stored = now.Add(-age), now
	from := o.born
	if e.sim.opts.TiersIgnoreAge {
		from = now
	}
	o.expires = from.Add(v.TTL)
	if q.b.rule.MinTTL == 0 && varies(o.header) {
		// It is kept, and asked for each time:
		// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/RequestAndResponseBehaviorCustomOrigin.html
		o.expires = now
	}
	o.stale = o.expires
	if n, ok := directive(o.header, "stale-while-revalidate"); ok {
		o.stale = o.expires.Add(min(n, v.Stale))
	}
	// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/Expiration.html
	o.onError = o.expires.Add(max(q.b.rule.MaxTTL, v.TTL))
	if n, ok := directive(o.header, "stale-if-error"); ok {
		o.onError = o.expires.Add(min(n, q.b.rule.MaxTTL))
	}
	return v
}

func varies(h http.Header) bool {
	return slices.ContainsFunc(h["Vary"], func(v string) bool { return strings.Contains(v, "*") })
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

func (o *object) serves(method string) bool { return o.body != nil || method == http.MethodHead }

// flight is a fetch that requests for the same key wait for.
type flight struct {
	ready chan struct{} // closed when the next two are set
	obj   *object       // nil: each request fetches by itself
}

// flightKey keeps a HEAD from being waited for by a GET, and a part by who wants another.
type flightKey struct {
	key
	head bool
	part string
}

// answer is what came of a fetch: an object, or a response that only this request may have.
type answer struct {
	obj    *object
	resp   *http.Response
	xc     string
	failed bool // resp is a custom error page
}

func (a *answer) result(status int) string {
	if a.failed || status >= 400 {
		return xError
	}
	return a.xc
}

// find looks for what can answer a request. It holds e.mu.
func (e *edge) find(q *request) *object {
	if o := e.objects[q.key]; o != nil && o.serves(q.method) {
		return o
	}
	if want, ok := q.onePart(); ok {
		for _, p := range e.parts[q.key] {
			if _, _, inside := want.within(p.part); inside {
				return p
			}
		}
	}
	return nil
}

// serve answers a request that the cache may answer.
func (e *edge) serve(q *request) {
	fk := flightKey{q.key, q.method == http.MethodHead, ""}
	e.mu.Lock()
	old := e.find(q)
	if old == nil || old.part != nil {
		fk.part = q.wantsPart()
	}
	now := time.Now()
	if old != nil && now.Before(old.expires) {
		e.mu.Unlock()
		e.send(q, old, xHit)
		return
	}
	fl := e.flights[flightKey{q.key, false, ""}]
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
		a := e.fetch(q, fk, fl, old)
		if a.resp != nil {
			e.relay(q, &a)
			return
		}
		q.whole = fk.part != "" && a.obj.part == nil
		e.send(q, a.obj, a.xc)
		return
	}
	e.mu.Unlock()
	if q.page {
		e.pass(q) // what it would wait for may be waiting for it
		return
	}

	select {
	case <-fl.ready:
	case <-q.r.Context().Done():
		panic(http.ErrAbortHandler) // when the simulator closes, the fetch ends too
	}
	if fl.obj == nil {
		e.pass(q)
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
	own.w, own.r, own.served = nil, q.r.Clone(e.sim.ctx), nil
	e.sim.goFunc(func() {
		if a := e.fetch(&own, fk, fl, old); a.resp != nil {
			_ = a.resp.Body.Close()
		}
	})
}

// fetch asks the origin, or the regional cache, on behalf of a flight. The body of an object that it
// returns may still be coming in. The flight goes on when the viewer leaves.
func (e *edge) fetch(q *request, fk flightKey, fl *flight, old *object) answer {
	settle := func(obj *object) {
		fl.obj = obj
		close(fl.ready)
	}
	resp, up, err := e.ask(e.sim.ctx, q, old, fk.part != "")
	if err != nil {
		resp = e.unreachable(q, err)
	}
	end := time.Now()

	if resp.StatusCode >= 500 && old != nil && old.status < 400 && !old.failed && end.Before(old.onError) {
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
			settle(&stale)
			return answer{obj: &stale, xc: xHit}
		}
	}
	if resp.StatusCode == http.StatusNotModified && old != nil {
		_ = resp.Body.Close()
		renewed := e.renewed(q, old, resp, end, up.age)
		if renewed.stored.IsZero() {
			e.finish(q.key, fk, nil)
		} else {
			e.finish(q.key, fk, renewed)
		}
		settle(renewed)
		return answer{obj: renewed, xc: xRefreshHit}
	}

	a := answer{resp: resp, xc: xMiss}
	if up.xc == xHit || up.xc == xRefreshHit {
		a.xc = up.xc
	}
	part, whole := contentRange(resp)
	if part != nil && resp.ContentLength >= 0 && resp.ContentLength != part.to-part.from+1 {
		_ = resp.Body.Close()
		q.detail("OriginContentRangeLengthError")
		a.resp, part, whole = e.ownPage(q, http.StatusBadGateway, "the origin's Content-Range and Content-Length differ"), nil, true
		resp = a.resp
	}
	basis := judged{resp.StatusCode, resp.Header}
	if q.down == nil {
		e.errorPage(q, &a)
		resp = a.resp
	}
	v := e.judge(q, basis.status, basis.header, end)
	// What answers the viewer's own condition, or is a part that cannot be named, is nobody else's.
	if !v.Keep || !whole && (part == nil || fk.part == "") || basis.status == http.StatusNotModified ||
		basis.status == http.StatusPreconditionFailed && q.conditional() {
		if e.keepsForErrors(&v, basis.status) && whole {
			return e.keepForErrors(q, fk, settle, a, basis, up.age)
		}
		e.finish(q.key, fk, nil)
		settle(nil)
		return a
	}
	obj := &object{
		path: keyPath(q), method: q.method, status: resp.StatusCode, header: q.b.endToEnd(resp.Header, true),
		part: part, tags: e.tags(basis.header), failed: a.failed, judged: basis, born: end.Add(-up.age),
	}
	if q.method == http.MethodHead {
		_ = resp.Body.Close()
		e.keep(q, obj, end, up.age)
		e.finish(q.key, fk, obj)
		settle(obj)
		return answer{obj: obj, xc: a.xc}
	}
	obj.body = newStream()
	e.sim.goFunc(func() { e.receive(q, fk, obj, resp, up.age) })
	settle(obj)
	return answer{obj: obj, xc: a.xc}
}

// renewed is an object that the origin says is unchanged; what says so may change its headers. It is
// not stored if it must not be kept any longer.
func (e *edge) renewed(q *request, old *object, resp *http.Response, end time.Time, age time.Duration) *object {
	o := *old
	o.header = old.header.Clone()
	for k, v := range q.b.endToEnd(resp.Header, true) {
		switch k {
		case "Content-Length", "Content-Encoding", "Content-Range", "Content-Md5", "Etag":
			// They are about the body, which is the old one: https://www.rfc-editor.org/rfc/rfc9111.html#section-3.2
		default:
			o.header[k] = v
		}
	}
	o.tags = e.tags(o.header)
	o.judged.header = o.header
	if v := e.keep(q, &o, end, age); !v.Keep && !e.keepsForErrors(&v, o.status) {
		o.stored = time.Time{}
	}
	return &o
}

// keepsForErrors says whether Options.KeepForErrors has something kept that must not be used again.
func (e *edge) keepsForErrors(v *lifetime.Verdict, status int) bool {
	if !e.sim.opts.KeepForErrors || v.Keep || status >= 400 || status == http.StatusNotModified {
		return false
	}
	switch v.Reason {
	case lifetime.ReasonNoStore, lifetime.ReasonPrivate, lifetime.ReasonNoCache, lifetime.ReasonZero:
		return true
	}
	return false
}

// keepForErrors keeps a response that only this request may have, for when the origin fails.
func (e *edge) keepForErrors(q *request, fk flightKey, settle func(*object), a answer, basis judged, age time.Duration) answer {
	obj := &object{
		path: keyPath(q), method: q.method, status: a.resp.StatusCode, header: q.b.endToEnd(a.resp.Header, true),
		tags: e.tags(basis.header), judged: basis,
	}
	settle(nil)
	if q.method == http.MethodHead {
		e.finish(q.key, fk, nil)
		return a
	}
	obj.body = newStream()
	resp := a.resp
	e.sim.goFunc(func() { e.receive(q, fk, obj, resp, age) })
	return answer{obj: obj, xc: a.xc}
}

// receive takes in a body, and stores the object when it is complete: also when an invalidation that
// names it was processed since the request was sent.
func (e *edge) receive(q *request, fk flightKey, obj *object, resp *http.Response, age time.Duration) {
	defer func() { _ = resp.Body.Close() }()
	_, err := io.Copy(obj.body, resp.Body)
	if wrong := obj.part != nil && int64(obj.body.len()) != obj.part.to-obj.part.from+1; err != nil || wrong {
		e.abandon(fk)
		obj.body.finish(err)
		return
	}
	done := *obj
	e.keep(q, &done, time.Now(), age)
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
	switch {
	case obj != nil && obj.part != nil:
		// Parts of another version are of no use any more.
		e.parts[k] = append(slices.DeleteFunc(slices.Clone(e.parts[k]), func(p *object) bool {
			return *p.part == *obj.part || p.part.total != obj.part.total || p.header.Get("Etag") != obj.header.Get("Etag")
		}), obj)
	case obj != nil:
		e.objects[k] = obj
		delete(e.parts, k)
	case fk.part == "":
		delete(e.objects, k)
	}
}

// prolong ends a flight with another life for what is held, if it still is.
func (e *edge) prolong(k key, fk flightKey, old, longer *object) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if old.part != nil {
		i := slices.Index(e.parts[k], old)
		if i < 0 {
			return false
		}
		delete(e.flights, fk)
		e.parts[k] = slices.Clone(e.parts[k])
		e.parts[k][i] = longer
		return true
	}
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

// keyPath is the canonical form of the key's target.
func keyPath(q *request) string {
	p, err := cfpath.FromTarget(q.key.target)
	if err != nil {
		return q.path // not met: the target was read before, and a reduced one is as good
	}
	return p
}

// invalidate removes what an invalidation names, in all its variants and parts, and says how much that was.
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
	for k, parts := range e.parts {
		left := slices.DeleteFunc(slices.Clone(parts), func(o *object) bool { return m.matches(o.path, o.tags) })
		n += len(parts) - len(left)
		if e.parts[k] = left; len(left) == 0 {
			delete(e.parts, k)
		}
	}
	return n
}

func (e *edge) peek(target string) (Object, bool) {
	path, err := cfpath.FromTarget(target)
	if err != nil {
		return Object{}, false
	}
	r := &http.Request{Method: http.MethodGet}
	want := e.sim.keyOf(e.sim.behavior(path), originForm(target), r).target
	e.mu.Lock()
	defer e.mu.Unlock()
	found, variant := e.objects[key{target: want}], ""
	if found != nil {
		return found.snapshot(""), true
	}
	for k, o := range e.objects {
		if k.target == want && !k.options && (found == nil || k.variant < variant) {
			found, variant = o, k.variant
		}
	}
	if found == nil {
		return Object{}, false
	}
	return found.snapshot(variant), true
}

func (e *edge) list() []Object {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]Object, 0, len(e.objects))
	for k, o := range e.objects {
		out = append(out, o.snapshot(k.variant))
	}
	for k, parts := range e.parts {
		for _, o := range parts {
			out = append(out, o.snapshot(k.variant))
		}
	}
	slices.SortFunc(out, func(a, b Object) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Method, b.Method), strings.Compare(a.Variant, b.Variant),
			strings.Compare(a.Header.Get("Content-Range"), b.Header.Get("Content-Range")))
	})
	return out
}

func (o *object) snapshot(variant string) Object {
	out := Object{
		Path: o.path, Method: o.method, Status: o.status, Header: o.header.Clone(), Variant: variant,
		Tags: slices.Clone(o.tags), Stored: o.stored, Expires: o.expires, Stale: o.stale,
	}
	if o.body != nil {
		out.Body = o.body.bytes()
	}
	return out
}
