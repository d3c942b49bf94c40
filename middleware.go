// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cftrack

import (
	"context"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
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
// An error is recorded for as long as errors are cached. It does not remove the
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
		next.ServeHTTP(res.writer(), &res.scope.request)
		returned = true
	})
}

// A response is a running request: a node in its shard's list, and the writer
// behind what the handler gets. It is pooled: net/http reuses what lies behind
// its own writers likewise, once a handler has returned.
type response struct {
	tracker *Tracker
	http.ResponseWriter
	shard *shard
	scope *scope
	path  string
	// Of the list, guarded by the shard's lock.
	prev, next *response

	// out: the response itself will not be recorded, and holds up nobody.
	out      atomic.Bool
	wrote    bool // the header is gone, and what follows is known
	hijacked bool
	kept     bool
	sighting
}

// begin registers a request; nil if CloudFront cannot have asked for it.
func (t *Tracker) begin(w http.ResponseWriter, r *http.Request) *response {
	target := r.RequestURI
	if target == "" { // not from a server
		target = r.URL.RequestURI()
	}
	path, err := cfpath.FromTarget(target)
	if err == nil && t.opts.OriginPath != "" {
		var ok bool
		if path, ok = cfpath.StripOrigin(t.opts.OriginPath, path); !ok {
			return nil
		}
	}
	if err != nil {
		t.invalid.Add(1)
		return nil
	}
	path = t.opts.Rules.Match(path).Query.Apply(path)
	sh := t.shard(path)
	start := t.now()
	if t.closed.Load() {
		sh.mu.Lock()
		sh.lose(start, start)
		sh.mu.Unlock()
		return nil
	}
	res := t.pool.Get().(*response)
	res.ResponseWriter, res.shard, res.path = w, sh, path
	res.sighting = sighting{start: start}
	res.scope = newScope(t, r, path)

	sh.mu.Lock()
	if res.next = sh.running; res.next != nil {
		res.next.prev = res
	}
	sh.running = res
	sh.mu.Unlock()
	return res
}

// judge decides, as the header goes out, whether CloudFront may keep what follows.
func (r *response) judge(status int) {
	if r.wrote {
		return
	}
	r.wrote = true
	t, header := r.tracker, r.Header()
	now := t.storeTime(t.now())
	v := t.opts.Rules.Of(r.path, lifetime.Response{Method: r.scope.request.Method, Status: status, Header: header, End: now})
	r.decide(v)
	if !v.Keep {
		return
	}
	for _, name := range t.opts.TagHeaders {
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

func (r *response) decide(v lifetime.Verdict) {
	r.kept, r.life = v.Keep, v.Lifetime
	if r.tracker.opts.TTL != 0 {
		r.life = r.tracker.opts.TTL
	}
	if !v.Keep {
		r.out.Store(true)
	}
}

// end records the response and whatever its handler recorded beside it.
func (r *response) end(outer *http.Request, panicked bool) {
	t, sh := r.tracker, r.shard
	switch {
	case r.wrote || r.hijacked:
	case panicked:
		r.decide(t.failure(r.path, r.scope.request.Method))
	default:
		r.judge(http.StatusOK)
	}
	r.sighting.end = t.now()
	r.scope.end(&r.sighting, &r.kept)

	sh.mu.Lock()
	if r.kept {
		t.sight(sh, r.path, &r.sighting)
	} else {
		sh.notKept++
	}
	if r.next != nil {
		r.next.prev = r.prev
	}
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		sh.running = r.next
	}
	sh.mu.Unlock()

	// What the server and outer handlers look for in their own copy.
	if in := &r.scope.request; in != outer {
		if outer.Pattern == "" {
			outer.Pattern = in.Pattern
		}
		if outer.MultipartForm == nil {
			outer.MultipartForm = in.MultipartForm // the server removes its files
		}
	}
	r.reset()
	t.pool.Put(r)
}

func (r *response) reset() {
	r.ResponseWriter, r.shard, r.scope, r.path = nil, nil, nil, ""
	r.prev, r.next = nil, nil
	r.out.Store(false)
	r.wrote, r.hijacked, r.kept = false, false, false
	r.sighting = sighting{}
}

// failure is the verdict on what takes the place of a response that never
// began: the error page of an outer handler, or CloudFront's own 502.
func (t *Tracker) failure(path, method string) lifetime.Verdict {
	now := t.storeTime(t.now())
	v := t.opts.Rules.Of(path, lifetime.Response{Method: method, Status: http.StatusInternalServerError, End: now})
	w := t.opts.Rules.Of(path, lifetime.Response{Method: method, Status: http.StatusBadGateway, End: now})
	if w.Lifetime > v.Lifetime {
		return w
	}
	return v
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

// A scope is the part of a running request that its context leads to. Handlers
// may keep contexts and requests for as long as they like: it is not pooled.
type scope struct {
	context.Context // the request's own
	tracker         *Tracker
	path            string
	start           instant
	request         http.Request // with this context

	mu      sync.Mutex
	ended   bool
	beside  []recorded // by Record
	limited bool
	limit   time.Duration // by SetTTL
	removed bool
}

type recorded struct {
	path string
	sighting
}

type scopeKey struct{ *Tracker }

func newScope(t *Tracker, r *http.Request, path string) *scope {
	s := &scope{Context: r.Context(), tracker: t, path: path}
	s.request = *r.WithContext(s)
	return s
}

// Value finds the scope itself; trackers may be nested.
func (s *scope) Value(key any) any {
	if k, ok := key.(scopeKey); ok && k.Tracker == s.tracker {
		return s
	}
	return s.Context.Value(key)
}

func (t *Tracker) scope(ctx context.Context) *scope {
	s, _ := ctx.Value(scopeKey{t}).(*scope)
	return s
}

// record notes a sighting until the request ends; false if it has.
func (s *scope) record(path string, sg sighting) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.beside = append(s.beside, recorded{path, sg})
	return true
}

// claim applies a claim to what the request will record of the path.
func (s *scope) claim(path string, ttl time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	if path == s.path {
		s.removed = s.removed || ttl == 0
		s.limited, s.limit = true, ttl
	}
	kept := s.beside[:0]
	for _, b := range s.beside {
		if b.path != path {
			kept = append(kept, b)
		} else if ttl > 0 {
			b.life = min(b.life, ttl)
			kept = append(kept, b)
		}
	}
	s.beside = kept
}

// each yields the paths that the handler recorded so far.
func (s *scope) each(f func(path string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.beside {
		f(b.path)
	}
}

// end applies the claims to the request's own sighting, and records the others
// with its times.
func (s *scope) end(own *sighting, kept *bool) {
	s.mu.Lock()
	s.ended = true
	beside := s.beside
	if s.limited {
		own.life = min(own.life, s.limit)
	}
	if s.removed {
		*kept = false
	}
	s.mu.Unlock()
	// They stay in the scope until the request leaves its list, so that they are
	// always in one place at least.
	for _, b := range beside {
		b.start, b.end = own.start, own.end
		sh := s.tracker.shard(b.path)
		sh.mu.Lock()
		s.tracker.sight(sh, b.path, &b.sighting)
		sh.mu.Unlock()
	}
}
