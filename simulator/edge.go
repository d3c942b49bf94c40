// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"html"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

// Values of X-Cache.
const (
	xHit        = "Hit from cloudfront"
	xMiss       = "Miss from cloudfront"
	xRefreshHit = "RefreshHit from cloudfront"
	xError      = "Error from cloudfront"
	xRedirect   = "Redirect from cloudfront"
)

// edge is one cache with its clock of invalidations: an edge, which viewers ask, or a regional cache, which
// edges ask.
type edge struct {
	sim *Simulator
	pop string
	via string
	up  *edge // the regional cache that it asks; nil: it asks the origin

	mu      sync.Mutex
	rand    *rand.Rand
	objects map[key]*object
	parts   map[key][]*object // byte ranges of what is not held whole
	flights map[flightKey]*flight
}

func newEdge(s *Simulator, i int, up *edge) *edge {
	e := &edge{
		sim: s, pop: fmt.Sprintf("SIM%d-C1", i+1), up: up,
		rand:    rand.New(rand.NewPCG(s.opts.Seed, uint64(i)+2)),
		objects: map[key]*object{},
		parts:   map[key][]*object{},
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
	target string // as asked, without scheme and host
	path   string // canonical, whole: decides the behaviour
	method string
	b      *behavior
	down   *hop        // of the edge that asks, in a regional cache
	page   bool        // the edge asks itself, for a custom error page
	whole  bool        // it gets all although it asked for a part
	served *servedLine // for the access log; nil in a regional cache
}

func (e *edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !e.sim.enter() {
		http.Error(w, "the simulator is closed", http.StatusServiceUnavailable)
		return
	}
	defer e.sim.active.Done()

	q := &request{r: r, method: r.Method, served: &servedLine{began: time.Now()}}
	e.mu.Lock()
	q.id = e.newID()
	e.mu.Unlock()
	v := &viewer{ResponseWriter: w, left: r.Context()}
	q.w = v
	if e.sim.log != nil {
		defer e.sim.log.write(e, q, v)
	}

	target := r.RequestURI
	if target == "" {
		target = r.URL.RequestURI() // a request made in process
	}
	q.target = originForm(target)
	var err error
	if q.path, err = cfpath.FromTarget(target); err != nil {
		status := http.StatusBadRequest
		if len(target) > cfpath.MaxLength {
			status = http.StatusRequestURITooLong
		}
		e.refuse(q, status, "InvalidRequest", err.Error())
		return
	}
	q.b = e.sim.behavior(q.path)
	q.key = e.sim.keyOf(q.b, q.target, r)

	switch {
	case e.sim.opts.EnforceHTTPS && scheme(r) == "http" && q.b.protocol == "https-only":
		e.refuse(q, http.StatusForbidden, "InvalidRequest", "this distribution only takes HTTPS")
	case e.sim.opts.EnforceHTTPS && scheme(r) == "http" && q.b.protocol == "redirect-to-https":
		e.redirect(q)
	case r.Method == http.MethodGet && r.ContentLength != 0:
		// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/RequestAndResponseBehaviorCustomOrigin.html
		e.refuse(q, http.StatusForbidden, "InvalidRequest", "a GET request has no body")
	case q.b.allowed != nil && !slices.Contains(q.b.allowed, r.Method):
		// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/http-403-permission-denied.html
		e.refuse(q, http.StatusForbidden, "InvalidRequestMethod", "this distribution is not configured to allow the method "+r.Method)
	case q.b.cacheable && (r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions && q.b.cachesOPT):
		e.serve(q)
	default:
		e.pass(q)
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

// pass has a request answered by the origin alone; it skips the regional caches, as dynamic requests do:
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/HowCloudFrontWorks.html
func (e *edge) pass(q *request) {
	resp, err := e.askOrigin(q.r.Context(), q, nil, true, true)
	if err != nil {
		resp = e.unreachable(q, err)
	}
	a := answer{resp: resp, xc: xMiss}
	if q.method == http.MethodGet || q.method == http.MethodHead {
		e.errorPage(q, &a)
	}
	e.relay(q, &a)
}

// relay sends a response of the origin that is not kept, as it comes in.
func (e *edge) relay(q *request, a *answer) {
	resp := a.resp
	defer func() { _ = resp.Body.Close() }()
	stop := context.AfterFunc(q.r.Context(), func() { _ = resp.Body.Close() })
	defer stop()
	e.head(q, q.headers(resp.Header, false), a.result(resp.StatusCode))
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

// headers of a response that are kept, or passed on.
func (q *request) headers(in http.Header, kept bool) http.Header {
	if q.b == nil {
		return in // the edge's own page, before anything is known of the request
	}
	return q.b.endToEnd(in, kept)
}

// send answers from an object.
func (e *edge) send(q *request, o *object, xc string) {
	if o.failed || o.status >= 400 {
		xc = xError
	}
	h := e.head(q, o.header, xc)
	if now := time.Now(); q.down != nil && !o.born.IsZero() {
		q.down.age = now.Sub(o.born)
	} else if q.down == nil && xc != xMiss && !o.born.IsZero() {
		before, _ := strconv.ParseUint(o.header.Get("Age"), 10, 31) // what is no number is no age
		h.Set("Age", strconv.FormatUint(before+uint64(now.Sub(o.born)/time.Second), 10))
	}
	if (o.status == http.StatusOK || o.part != nil) && q.conditionsCount() && notModified(q.r.Header, o.header) {
		h.Del("Content-Length")
		h.Del("Content-Range")
		q.w.WriteHeader(http.StatusNotModified)
		return
	}
	if e.sendPart(q, o) {
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

// conditionsCount says whether the edge answers conditional requests: not where cookies are forwarded
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/Cookies.html). Edges may ask regional
// caches always.
func (q *request) conditionsCount() bool { return q.down != nil || !q.b.forwardsCookies }

// conditional says whether the viewer's request is.
func (q *request) conditional() bool {
	for name := range q.r.Header {
		if name != "Range" && conditional(name) {
			return true
		}
	}
	return false
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
	if q.down != nil {
		q.down.xc = xc
		for k, v := range from {
			h[k] = v
		}
		return h
	}
	if q.b != nil {
		from = q.b.viewerResponseHeader(from)
	}
	for k, v := range from {
		h[k] = v
	}
	if q.served != nil {
		q.served.result = strings.TrimSuffix(xc, " from cloudfront")
	}
	h["Via"] = []string{e.via}
	h["X-Cache"] = []string{xc}
	h["X-Amz-Cf-Pop"] = []string{e.pop}
	h["X-Amz-Cf-Id"] = []string{q.id}
	return h
}

// refuse answers a request that never reaches the cache.
func (e *edge) refuse(q *request, status int, detail, why string) {
	q.detail(detail)
	e.relay(q, &answer{resp: e.ownPage(q, status, why), xc: xError})
}

// detail notes x-edge-detailed-result-type.
func (q *request) detail(d string) {
	if q.served != nil {
		q.served.detail = d
	}
}

// redirect sends a viewer to HTTPS:
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/using-https-viewers-to-cloudfront.html
func (e *edge) redirect(q *request) {
	status := http.StatusMovedPermanently
	if q.method != http.MethodGet && q.method != http.MethodHead {
		status = http.StatusTemporaryRedirect
	}
	resp := e.ownPage(q, status, "HTTPS is used here")
	resp.Header.Set("Location", "https://"+q.r.Host+q.target)
	e.relay(q, &answer{resp: resp, xc: xRedirect})
}

func (e *edge) ownPage(q *request, status int, why string) *http.Response {
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
	status, detail := http.StatusBadGateway, "OriginConnectError"
	if errors.Is(err, errOriginTimeout) {
		status, detail = http.StatusGatewayTimeout, "OriginCommError"
	}
	q.detail(detail)
	return e.ownPage(q, status, "CloudFront wasn't able to connect to the origin: "+err.Error())
}

// tags reads the tags of a response: the first 50, visible ASCII, at most 256 characters, in lower case
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/invalidation-by-tags.html).
func (e *edge) tags(h http.Header) []string {
	if e.sim.tagHeader == "" {
		return nil
	}
	var tags []string
	for _, line := range h.Values(e.sim.tagHeader) {
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
