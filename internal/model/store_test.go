// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/memstore"
)

// A ground is the one store that all processes share. It has a clock of its own,
// can go back in time, and says when a batch is saved.
type ground struct {
	offset time.Duration
	keep   bool // remember the writes, so that the last ones can be lost
	saved  func(b *journal.Batch, inv *journal.Invalidation, present []inventory.Entry)

	mu     sync.Mutex
	st     *memstore.Store
	epoch  int
	writes []write
	since  map[string]time.Time // when a path came to be listed
	lossAt time.Time            // the last loss
	last   map[string]*journal.Session
	lapses map[string][]lapse   // of each session
	came   map[string]time.Time // when a session was first seen here
}

// A lapse is a stretch of time in which a session was lost, and came back.
type lapse struct{ from, until time.Time }

func newGround(offset time.Duration) *ground {
	return &ground{offset: offset, st: memstore.New(), since: make(map[string]time.Time),
		last: make(map[string]*journal.Session), lapses: make(map[string][]lapse), came: make(map[string]time.Time)}
}

var _ store.Store = (*ground)(nil)

func (g *ground) now() time.Time { return time.Now().Add(g.offset).Round(0).UTC() }

func (g *ground) Now(context.Context) (time.Time, error) { return g.now(), nil }

// A write can be done again, or forgotten.
type write struct {
	do   func(*memstore.Store)
	link *link
	kind byte // 'm' merges, 's' renews a session
	told bool // that it was done is known to whoever did it
}

type linkKey struct{}

func (g *ground) write(ctx context.Context, kind byte, f func(*memstore.Store)) {
	if g.keep {
		l, _ := ctx.Value(linkKey{}).(*link)
		g.writes = append(g.writes, write{f, l, kind, false})
	}
}

// tell notes that a process has the answers to all that it has written.
func (g *ground) tell(l *link) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.writes {
		if g.writes[i].link == l {
			g.writes[i].told = true
		}
	}
}

func (g *ground) Merge(ctx context.Context, d string, updates []inventory.Update) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	updates = slices.Clone(updates)
	for _, u := range updates {
		if g.since[u.Path].IsZero() || !g.lists(d, u.Path) {
			g.since[u.Path] = time.Now()
		}
	}
	g.write(ctx, 'm', func(st *memstore.Store) { _ = st.Merge(context.Background(), d, updates) })
	return g.st.Merge(context.Background(), d, updates)
}

func (g *ground) Scan(_ context.Context, d string, r store.Range) iter.Seq2[inventory.Entry, error] {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.st.Scan(context.Background(), d, r)
}

// lists reports whether a path is listed, and has not run out.
func (g *ground) lists(d, path string) bool {
	for e := range g.st.Scan(context.Background(), d, store.Range{From: path, Now: g.now()}) {
		return e.Path == path
	}
	return false
}

func (g *ground) list(d string, r store.Range) []inventory.Entry {
	var all []inventory.Entry
	for e := range g.st.Scan(context.Background(), d, r) {
		all = append(all, e)
	}
	return all
}

func (g *ground) Clear(ctx context.Context, d string, cs []store.Condition) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	cs = slices.Clone(cs)
	g.write(ctx, 0, func(st *memstore.Store) { _, _ = st.Clear(context.Background(), d, cs) })
	n, err := g.st.Clear(context.Background(), d, cs)
	for _, c := range cs {
		there := g.list(d, store.Range{Prefix: c.Path, Now: g.now()})
		if len(there) == 0 || there[0].Path != c.Path {
			delete(g.since, c.Path)
		}
	}
	return n, err
}

func (g *ground) Sweep(ctx context.Context, d string, now time.Time) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.write(ctx, 0, func(st *memstore.Store) { _, _ = st.Sweep(context.Background(), d, now) })
	return g.st.Sweep(context.Background(), d, now)
}

func (g *ground) List(_ context.Context, d, prefix, after string, limit int) ([]store.Document, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.st.List(context.Background(), d, prefix, after, limit)
}

func (g *ground) Commit(ctx context.Context, d string, t store.Transaction) (uint64, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	v, err := g.st.Commit(context.Background(), d, t)
	if err != nil {
		return v, err
	}
	kind := byte(0)
	if slices.ContainsFunc(t.Put, func(p store.Put) bool { return strings.HasPrefix(p.Key, "ses/") }) {
		kind = 's'
	}
	g.write(ctx, kind, func(st *memstore.Store) { _, _ = st.Commit(context.Background(), d, t) })
	for _, p := range t.Put {
		if strings.HasPrefix(p.Key, "ses/") {
			g.renewed(p)
		}
		if g.saved != nil && strings.HasPrefix(p.Key, "bat/") && slices.Contains(t.Require, store.Requirement{Key: p.Key}) {
			g.batch(d, p)
		}
	}
	return v, nil
}

func (g *ground) renewed(p store.Put) {
	s := new(journal.Session)
	if json.Unmarshal(p.Value, s) != nil {
		return
	}
	if was := g.last[p.Key]; was != nil && was.Lost(g.now()) {
		g.lapses[s.ID] = append(g.lapses[s.ID], lapse{was.Renewed.Add(was.Lease), g.now()})
	}
	if _, known := g.came[s.ID]; !known {
		g.came[s.ID] = g.now()
	}
	g.last[p.Key] = s
}

// arrived is when a session reached the store, which may be well after its recorder
// began to open it.
func (g *ground) arrived(id string) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.came[id]
}

// lapsed reports whether a session was lost at some time from until.
func (g *ground) lapsed(id string, from, until time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.ContainsFunc(g.lapses[id], func(l lapse) bool { return !l.from.After(until) && !l.until.Before(from) })
}

// batch tells what was in the inventory when a new batch was saved.
func (g *ground) batch(d string, p store.Put) {
	b, inv := new(journal.Batch), new(journal.Invalidation)
	if json.Unmarshal(p.Value, b) != nil {
		return
	}
	number, _, _ := strings.Cut(strings.TrimPrefix(p.Key, "bat/"), "/")
	docs, err := g.st.List(context.Background(), d, "inv/"+number, "", 1)
	if err != nil || len(docs) != 1 || json.Unmarshal(docs[0].Value, inv) != nil {
		return
	}
	g.saved(b, inv, g.list(d, store.Range{Now: g.now()}))
}

func (g *ground) Status(context.Context) (store.Status, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return store.Status{Kind: "memory", Epoch: fmt.Sprint("epoch ", g.epoch)}, nil
}

func (g *ground) Close() error { return nil }

// back loses the last n writes; with a negative n all of them, and the epoch. It
// loses more where a recorder would lose a merge and no renewal that it knows of: that
// can only be told by the epoch, and a store that says so has lost everything.
func (g *ground) back(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if n < 0 {
		n = len(g.writes)
		g.epoch++
	}
	for n = min(n, len(g.writes)); n < len(g.writes) && !noticed(g.writes[len(g.writes)-n:]); {
		n++
	}
	g.writes = g.writes[:len(g.writes)-n]
	g.st = memstore.New()
	for _, w := range g.writes {
		w.do(g.st)
	}
	g.since = make(map[string]time.Time)
	g.lossAt = time.Now()
}

func noticed(lost []write) bool {
	renewed := make(map[*link]bool)
	for _, w := range lost {
		renewed[w.link] = renewed[w.link] || w.kind == 's' && w.told
	}
	return !slices.ContainsFunc(lost, func(w write) bool { return w.kind == 'm' && !renewed[w.link] })
}

// tooMany calls are made by no process that gets anywhere, in a minute.
const tooMany = 20_000

var errGone = errors.New("model: this process is no more")

// A link is how one process reaches the store and CloudFront. Whatever goes wrong
// with the process or its way to the store goes wrong here.
type link struct {
	g    *ground
	lag  bool
	what string // whose
	tell func(format string, args ...any)
	fail func(format string, args ...any)

	mu       sync.Mutex
	calls    int       // since minute
	minute   time.Time // when counting began
	rand     *rand.Rand
	dead     bool
	died     chan struct{}
	killAt   int // calls from now; 0: not
	killed   func()
	stopAt   int
	stopFor  time.Duration
	stopped  time.Time // until then
	down     time.Time // until then the store is out of reach
	slow     int       // calls that take slowFor more
	slowFor  time.Duration
	scanning time.Time // when the last scan began
}

func newLink(g *ground, seed uint64, lag bool, what string) *link {
	return &link{g: g, lag: lag, what: what, rand: rand.New(rand.NewPCG(seed, 7)), died: make(chan struct{})}
}

// kill ends the process: from now on nothing it does has an effect.
func (l *link) kill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end()
}

func (l *link) end() {
	if !l.dead {
		l.dead = true
		close(l.died)
		if l.killed != nil {
			go l.killed()
		}
	}
}

func (l *link) isDead() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dead
}

// call does something outside of the process: f, some time after the call and some
// time before it returns. The store's outages are not CloudFront's.
func (l *link) call(ctx context.Context, op string, toStore bool, f func() error) error {
	l.mu.Lock()
	l.calls++
	if now := time.Now(); now.Sub(l.minute) >= time.Minute {
		l.minute, l.calls = now, 0
	}
	circles := l.calls == tooMany
	before := time.Duration(l.rand.Int64N(int64(3 * time.Millisecond)))
	after := time.Duration(0)
	if l.lag && l.rand.IntN(20) == 0 {
		before = time.Duration(l.rand.Int64N(int64(2 * time.Second)))
		after = time.Duration(l.rand.Int64N(int64(2 * time.Second)))
	}
	lost := l.rand.IntN(2) == 0
	if l.slow > 0 && toStore {
		if l.slow--; lost {
			before += l.slowFor
		} else {
			after += l.slowFor
		}
	}
	killBefore, killAfter := false, false
	if l.killAt > 0 {
		if l.killAt--; l.killAt == 0 {
			killBefore, killAfter = lost, !lost
		}
	}
	stop := false
	if l.stopAt > 0 {
		l.stopAt--
		stop = l.stopAt == 0
	}
	l.mu.Unlock()
	if circles {
		l.fail("%s goes round in circles", l.what)
		l.kill()
	}

	if err := l.wait(ctx, before); err != nil {
		return err
	}
	if stop && lost {
		l.stop()
	}
	if killBefore {
		l.tell("%s dies before its %s", l.what, op)
		l.kill()
	}
	if err := l.ready(toStore, op); err != nil {
		return err
	}
	err := f()
	if killAfter {
		l.tell("%s dies after its %s", l.what, op)
		l.kill()
	}
	if stop && !lost {
		l.stop()
	}
	if e := l.wait(ctx, after); e != nil {
		return e
	}
	if e := l.ready(toStore, op); e != nil {
		return e
	}
	return err
}

// cut keeps the process from the store.
func (l *link) cut(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = time.Now().Add(d)
}

// stop is SIGSTOP: the whole process sleeps.
func (l *link) stop() {
	l.mu.Lock()
	l.stopped = time.Now().Add(l.stopFor)
	l.mu.Unlock()
	l.tell("%s sleeps for %v", l.what, l.stopFor)
}

func (l *link) wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.died:
		return errGone
	}
}

func (l *link) ready(toStore bool, op string) error {
	for {
		l.mu.Lock()
		dead, sleep, down := l.dead, time.Until(l.stopped), time.Now().Before(l.down)
		l.mu.Unlock()
		switch {
		case dead:
			return errGone
		case sleep > 0:
			time.Sleep(sleep) // asleep, it does not even notice that its context ends
		case toStore && down:
			return &store.Error{Op: op, Store: "model", Err: store.ErrUnavailable}
		default:
			return nil
		}
	}
}

// A shop is the store as a process sees it over its link.
type shop struct{ *link }

var _ store.Store = shop{}

func (s shop) signed(ctx context.Context) context.Context {
	return context.WithValue(ctx, linkKey{}, s.link)
}

func (s shop) Now(ctx context.Context) (now time.Time, err error) {
	err = s.call(ctx, "now", true, func() error { now, err = s.g.Now(ctx); return err })
	return now, err
}

func (s shop) Merge(ctx context.Context, d string, updates []inventory.Update) error {
	return s.call(ctx, "merge", true, func() error { return s.g.Merge(s.signed(ctx), d, updates) })
}

func (s shop) Scan(ctx context.Context, d string, r store.Range) iter.Seq2[inventory.Entry, error] {
	return func(yield func(inventory.Entry, error) bool) {
		var all []inventory.Entry
		err := s.call(ctx, "scan", true, func() error {
			s.mu.Lock()
			s.scanning = time.Now()
			s.mu.Unlock()
			s.g.mu.Lock()
			defer s.g.mu.Unlock()
			all = s.g.list(d, r)
			return nil
		})
		if err != nil {
			yield(inventory.Entry{}, err)
			return
		}
		for _, e := range all {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (s shop) Clear(ctx context.Context, d string, cs []store.Condition) (n int, err error) {
	err = s.call(ctx, "clear", true, func() error { n, err = s.g.Clear(ctx, d, cs); return err })
	return n, err
}

func (s shop) Sweep(ctx context.Context, d string, now time.Time) (n int, err error) {
	err = s.call(ctx, "sweep", true, func() error { n, err = s.g.Sweep(ctx, d, now); return err })
	return n, err
}

func (s shop) List(ctx context.Context, d, prefix, after string, limit int) (docs []store.Document, err error) {
	err = s.call(ctx, "list "+prefix, true, func() error { docs, err = s.g.List(ctx, d, prefix, after, limit); return err })
	if err == nil && strings.HasPrefix(prefix, "ses/") {
		s.g.tell(s.link)
	}
	return docs, err
}

func (s shop) Commit(ctx context.Context, d string, t store.Transaction) (v uint64, err error) {
	what := "commit"
	for _, p := range t.Put {
		what += " " + p.Key
	}
	err = s.call(ctx, what, true, func() error { v, err = s.g.Commit(s.signed(ctx), d, t); return err })
	if err == nil {
		s.g.tell(s.link)
	}
	return v, err
}

func (s shop) Status(ctx context.Context) (st store.Status, err error) {
	err = s.call(ctx, "status", true, func() error { st, err = s.g.Status(ctx); return err })
	return st, err
}

func (s shop) Close() error { return nil }

// A phone is CloudFront as a process sees it over its link.
type phone struct {
	dispatch.CDN
	*link
}

func (p phone) CreateInvalidation(ctx context.Context, d, ref string, items []string) (r dispatch.Receipt, err error) {
	err = p.call(ctx, "create "+ref, false, func() error { r, err = p.CDN.CreateInvalidation(ctx, d, ref, items); return err })
	return r, err
}

func (p phone) GetInvalidation(ctx context.Context, d, id string) (r dispatch.Receipt, err error) {
	err = p.call(ctx, "get", false, func() error { r, err = p.CDN.GetInvalidation(ctx, d, id); return err })
	return r, err
}

func (p phone) FindInvalidation(ctx context.Context, d, ref string, since time.Time) (r dispatch.Receipt, ok bool, err error) {
	err = p.call(ctx, "find", false, func() error { r, ok, err = p.CDN.FindInvalidation(ctx, d, ref, since); return err })
	return r, ok, err
}

// ListInvalidations implements dispatch.Lister, as CloudFront's client does.
func (p phone) ListInvalidations(ctx context.Context, d, marker string) (page []dispatch.Receipt, next string, err error) {
	err = p.call(ctx, "list invalidations", false, func() error {
		page, next, err = p.CDN.(dispatch.Lister).ListInvalidations(ctx, d, marker)
		return err
	})
	return page, next, err
}
