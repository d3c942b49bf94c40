// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cftrack

import (
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
)

// Middleware returns a handler that serves as next does and records what
// CloudFront may keep of it, by method, status and header. It takes the path
// from the request as it was received, so that routers and http.StripPrefix may
// change the URL; put it where it sees final statuses, outside of compression
// and error pages.
//
// The response is not changed, and the writer that next gets can do what the one
// underneath can: flush, hijack, push, and all of http.ResponseController. As
// with net/http's own, it must not be used after next has returned. Panics pass
// through. A response that was begun counts even if it was cut short; in place
// of one that was not, CloudFront gets an error and may cache that.
//
// A life counts from the end of the response and Options.Margin, by when
// CloudFront has it. An error is recorded for as long as errors are cached. It does not remove the
// path: other edges may still hold an earlier success. See [Tracker.Remove] for
// servers that know better.
func (t *Tracker) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		res := t.begin(w, r)
		if res == nil {
			next.ServeHTTP(w, r)
			return
		}
		returned := false
		defer func() { res.end(r, !returned) }()
		next.ServeHTTP(res.writer(), res.request)
		returned = true
	})
}

// A response is a running request: a node in its shard's list, and the writer
// behind what the handler gets. It is used again, as net/http uses again what
// lies behind its own writers once a handler has returned.
type response struct {
	http.ResponseWriter
	tracker *Tracker
	request *http.Request
	shard   *shard
	path    string
	sighting

	wrote    bool // the header is gone, and what follows is known
	hijacked bool
	kept     bool
	learned  bool    // cached is new
	cached   verdict // of the path's last response, then of this

	// Guarded by the shard's lock.

	prev, next *response
	entry      *entry // if there was one when the request began
	out        bool   // it will not be recorded, and holds up nobody
	aside      *aside // what the handler says; nil if nothing
}

// A verdict is what lifetime.Rules.Of said last of a path, and on what ground.
type verdict struct {
	status  int
	control string // Cache-Control; there was no Expires
	kept    bool
	life    time.Duration
}

// begin registers a request; nil if CloudFront cannot have asked for it.
func (t *Tracker) begin(w http.ResponseWriter, r *http.Request) *response {
	start := t.now()
	target := r.RequestURI
	if target == "" { // not from a server
		target = r.URL.RequestURI()
	}
	path, ok := strings.CutPrefix(target, t.origin)
	if t.closed.Load() {
		ok = false
	}
	sh := t.shard(path)
	sh.mu.Lock()
	e := sh.entries[path]
	if !ok || e == nil { // else it is canonical, and reduced to the cache key
		sh.mu.Unlock()
		if path, ok = t.viewed(target); !ok {
			return nil
		}
		sh = t.shard(path)
		sh.mu.Lock()
		if t.closed.Load() {
			sh.lose(start, start)
			sh.mu.Unlock()
			return nil
		}
		e = sh.entries[path]
	}
	res := sh.free
	if res == nil {
		res = &response{tracker: t}
	} else {
		sh.free = res.next
	}
	res.ResponseWriter, res.request, res.shard, res.path = w, r, sh, path
	res.start, res.wrote = start, false
	if res.entry = e; e != nil {
		e.running++
		res.cached = e.verdict
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
	default:
		res.out = true
	}
	if t.scoped.Load() { // under the lock: see during
		sc := newScope(t, r, path)
		res.request, res.aside = &sc.request, &sc.aside
	}
	if res.next = sh.running; res.next != nil {
		res.next.prev = res
	}
	sh.running = res
	sh.mu.Unlock()
	return res
}

// viewed is the path that the viewer asked for, as CloudFront keys it.
func (t *Tracker) viewed(target string) (string, bool) {
	path, err := cfpath.FromTarget(target)
	if err != nil {
		t.invalid.Add(1)
		return "", false
	}
	if path, ok := cfpath.StripOrigin(t.opts.OriginPath, path); ok {
		return t.opts.Rules.Match(path).Query.Apply(path), true
	}
	return "", false // not asked for by this distribution
}

// judge decides, as the header goes out, whether CloudFront may keep what follows.
func (r *response) judge(status int) {
	if r.wrote {
		return
	}
	r.wrote = true
	header := r.Header()
	control, simple := "", len(header["Expires"]) == 0
	switch lines := header["Cache-Control"]; len(lines) {
	case 0:
	case 1:
		control = lines[0]
	default:
		simple = false
	}
	if method := r.request.Method; method != http.MethodGet && method != http.MethodHead {
		simple = false
	}
	if !simple || r.cached.status != status || r.cached.control != control {
		t := r.tracker
		v := t.opts.Rules.Of(r.path, lifetime.Response{
			Method: r.request.Method, Status: status, Header: header, End: t.storeTime(t.now()),
		})
		r.cached = verdict{status, control, v.Keep, v.Lifetime}
		r.learned = simple
	}
	r.decide(r.cached.kept, r.cached.life)
	if r.kept {
		r.readTags(header)
	}
}

func (r *response) decide(kept bool, life time.Duration) {
	if r.kept, r.life = kept, life; !kept {
		r.leave()
	} else if ttl := r.tracker.opts.TTL; ttl != 0 {
		r.life = ttl
	}
}

// leave makes that the response holds up nobody.
func (r *response) leave() {
	r.shard.mu.Lock()
	r.out = true
	r.shard.mu.Unlock()
}

func (r *response) readTags(header http.Header) {
	for _, name := range r.tracker.opts.TagHeaders {
		spaces := name == "Surrogate-Key" || name == "Xkey"
		switch lines := header[name]; {
		case len(lines) == 0:
		case len(lines) == 1 && r.line == "" && r.tags == nil:
			r.line, r.spaces = lines[0], spaces
		default:
			// CloudFront reads one of the headers, and may read one of its lines.
			set := newTagSet(lines, spaces)
			if r.line != "" {
				set = newTagSet(append(set.sorted, newTagSet([]string{r.line}, r.spaces).sorted...), false)
			} else if r.tags != nil {
				set = newTagSet(append(set.sorted, r.tags.sorted...), false)
			}
			set.mixed = true
			r.tags, r.line = set, ""
		}
	}
}

// end records the response and whatever its handler recorded beside it.
func (r *response) end(outer *http.Request, panicked bool) {
	t, sh := r.tracker, r.shard
	switch {
	case r.wrote || r.hijacked:
	case panicked:
		r.decide(t.failure(r.path, r.request.Method))
	default:
		r.judge(http.StatusOK)
	}
	r.sighting.end = t.now()

	var said limit
	sh.mu.Lock()
	if a := r.aside; a != nil {
		sh.mu.Unlock()
		if said = a.end(t, &r.sighting); said.set && said.ttl == 0 {
			r.kept = false
		}
		sh.mu.Lock()
	}
	e := r.entry
	if e != nil {
		e.running--
	}
	if r.kept {
		e = t.sight(sh, e, r.path, &r.sighting)
		if e != nil && r.learned {
			e.verdict = r.cached
			e.verdict.control = strings.Clone(r.cached.control)
		}
		if e != nil && said.set {
			t.restrict(sh, r.path, said.ttl)
		}
	} else {
		sh.notKept++
	}
	if e != nil {
		sh.settle(e)
	}
	if r.next != nil {
		r.next.prev = r.prev
	}
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		sh.running = r.next
	}
	in := r.request
	*r = response{ResponseWriter: gone{}, wrote: true, tracker: t, shard: sh, next: sh.free}
	sh.free = r
	sh.mu.Unlock()

	if in != outer { // what the server and outer handlers look for in theirs
		if outer.Pattern == "" {
			outer.Pattern = in.Pattern
		}
		if outer.MultipartForm == nil {
			outer.MultipartForm = in.MultipartForm // whose files the server removes
		}
	}
}

// failure is the verdict on what takes the place of a response that never
// began: the error page of an outer handler, or CloudFront's own 502.
func (t *Tracker) failure(path, method string) (kept bool, life time.Duration) {
	for _, status := range []int{http.StatusInternalServerError, http.StatusBadGateway} {
		v := t.opts.Rules.Of(path, lifetime.Response{Method: method, Status: status, End: t.storeTime(t.now())})
		kept, life = kept || v.Keep, max(life, v.Lifetime)
	}
	return kept, life
}

func (r *response) WriteHeader(status int) {
	r.ResponseWriter.WriteHeader(status)
	if status >= 200 || status == http.StatusSwitchingProtocols { // else there is more to come
		r.judge(status)
	}
}

func (r *response) Write(b []byte) (int, error) {
	r.judge(http.StatusOK)
	return r.ResponseWriter.Write(b)
}

// WriteString does for writers that cannot what io.WriteString would have done.
func (r *response) WriteString(s string) (int, error) {
	r.judge(http.StatusOK)
	return io.WriteString(r.ResponseWriter, s)
}

// ReadFrom lets the writer underneath use sendfile where it can.
func (r *response) ReadFrom(src io.Reader) (int64, error) {
	r.judge(http.StatusOK)
	return io.Copy(r.ResponseWriter, src)
}

// Unwrap is for http.ResponseController.
func (r *response) Unwrap() http.ResponseWriter { return r.ResponseWriter }
