// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cftrack

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"
)

// An aside is what a handler says with Record, SetTTL and Remove while its
// request runs. Records take effect when the request ends, with its times.
type aside struct {
	path   string // the request's own
	scoped bool   // the request's context leads here

	mu     sync.Mutex
	ended  bool
	beside []recorded
	own    limit
}

type recorded struct {
	path string
	sighting
	limit
}

// A limit is a claim that was made during a request. It was made before the
// request's sightings end, and is made again after them: it is about them too.
type limit struct {
	set bool
	ttl time.Duration // 0: removed
}

// A scope is the context of a running request. Handlers may keep contexts and
// requests for as long as they like, so it is not used again.
type scope struct {
	context.Context // the request's own
	tracker         *Tracker
	aside           aside
	request         http.Request // with this context
}

type scopeKey struct{ *Tracker }

func newScope(t *Tracker, r *http.Request, path string) *scope {
	s := &scope{Context: r.Context(), tracker: t, aside: aside{path: path, scoped: true}}
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

// during calls f with the aside of the request that ctx belongs to and returns
// what f does; false if there is none.
//
// A context that leads to its request costs a copy of the request, which most
// servers would pay in vain. So requests get one only once a handler has called
// for it. The very first calls look for the requests on ctx's connection: one,
// unless it is HTTP/2. If ctx belongs to none of them and orAll is set, f is
// called for all that run and have no scope, since it may be any.
func (t *Tracker) during(ctx context.Context, orAll bool, f func(*aside) bool) bool {
	if s, ok := ctx.Value(scopeKey{t}).(*scope); ok {
		return f(&s.aside)
	}
	if t.adopted.Load() {
		return false
	}
	t.scoped.Store(true)
	left, found := t.adopt(f, func(r *response) bool { return sameConnection(ctx, r.request.Context()) })
	if !left {
		// Whatever begins from now on sees scoped, which it reads under the lock.
		t.adopted.Store(true)
	} else if !found && orAll {
		t.adopt(f, func(*response) bool { return true })
	}
	return found
}

// adopt calls f for those running requests without a scope that are wanted. It
// returns whether there are any without, and whether f was true for one.
func (t *Tracker) adopt(f func(*aside) bool, wanted func(*response) bool) (left, found bool) {
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		for r := sh.running; r != nil; r = r.next {
			if r.aside != nil && r.aside.scoped {
				continue
			}
			left = true
			if wanted(r) {
				if r.aside == nil {
					r.aside = &aside{path: r.path}
				}
				found = f(r.aside) || found
			}
		}
		sh.mu.Unlock()
	}
	return left, found
}

func sameConnection(a, b context.Context) bool {
	if a.Done() == b.Done() {
		return true
	}
	addr := a.Value(http.LocalAddrContextKey) // a pointer: one for each connection
	return addr != nil && addr == b.Value(http.LocalAddrContextKey)
}

// record notes a sighting until the request ends; false if it has.
func (a *aside) record(path string, s sighting) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return false
	}
	a.beside = append(a.beside, recorded{path: path, sighting: s})
	return true
}

// claim applies a claim to what the request will record of the path.
func (a *aside) claim(path string, ttl time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return false
	}
	if path == a.path {
		a.own = limit{true, ttl}
	}
	a.beside = slices.DeleteFunc(a.beside, func(b recorded) bool { return b.path == path && ttl == 0 })
	for i := range a.beside {
		if b := &a.beside[i]; b.path == path {
			b.limit = limit{true, ttl}
		}
	}
	return true
}

// paths lists what was recorded beside the request; a may be nil.
func (a *aside) paths() (paths []string) {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, b := range a.beside {
		paths = append(paths, b.path)
	}
	return paths
}

// end records what the handler recorded, with the times of own, and returns what
// it said of own itself. The records stay listed until the request leaves its
// shard, so that they are always in one place at least.
func (a *aside) end(t *Tracker, own *sighting) limit {
	a.mu.Lock()
	a.ended = true
	beside, said := a.beside, a.own
	a.mu.Unlock()
	for _, b := range beside {
		b.start, b.end = own.start, own.end
		sh := t.shard(b.path)
		sh.mu.Lock()
		if t.sight(sh, nil, b.path, &b.sighting) != nil && b.limit.set {
			t.restrict(sh, b.path, b.ttl)
		}
		sh.mu.Unlock()
	}
	return said
}
