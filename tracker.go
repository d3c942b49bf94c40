// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cftrack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/storetime"
)

// UntilPurged is the time to live of what is kept until it is invalidated.
const UntilPurged = time.Duration(math.MaxInt64)

var (
	// ErrClosed: the tracker was closed; nothing was recorded.
	ErrClosed = errors.New("cftrack: the tracker is closed")
	// ErrFull: the tracker holds as many paths as Options.Buffer allows, and
	// cannot rid itself of them since the store does not take them. Nothing was
	// recorded; for a sighting that is a gap in the coverage.
	ErrFull = errors.New("cftrack: the buffer is full")
	// ErrNotReady: the store was not reached yet.
	ErrNotReady = errors.New("cftrack: the store was not reached yet")
)

// Options are the settings of a [Tracker]. The zero value of each is its default.
type Options struct {
	// Rules say how long CloudFront keeps which response. Default:
	// lifetime.DefaultRules. They must not be changed afterwards.
	Rules *lifetime.Rules
	// OriginPath is the distribution's origin path, which CloudFront puts before
	// the path that the viewer asked for; what does not begin with it was not
	// asked for by this distribution and is not recorded. Default: none.
	OriginPath string
	// TagHeaders name the response headers that carry tags: separated by commas,
	// in Surrogate-Key and Xkey also by spaces. Where a response has several of
	// them the union counts, and none as a native tag, since CloudFront reads but
	// one. Default: Cache-Tag, Surrogate-Key. An empty, non-nil slice: none.
	TagHeaders []string
	// TTL is the lifetime of what the rules say is kept, in place of the one that
	// they give; UntilPurged is allowed. Default 0: as the rules say.
	TTL time.Duration
	// Scope lists the patterns of the paths that pass this tracker at all, as
	// CloudFront's behaviors have them. Default: all.
	Scope []string
	// Name says which recorder this is, for people. Default: program@host:process.
	Name string
	// FlushEvery is the time between two flushes, at most a second, which is also
	// the default.
	FlushEvery time.Duration
	// Lease is how long the tracker may be out of touch with the store before
	// others take it for lost. Default 10 s; at least 2 s.
	Lease time.Duration
	// Buffer is the number of distinct paths held at most; each takes about 400
	// bytes and its own length. Default 100,000.
	Buffer int
	// Margin is the longest time that bytes need from this process to CloudFront.
	// Default 2 s; negative: none.
	Margin time.Duration
	// Logger is told when the store is lost and found, and about gaps. Default:
	// nobody is.
	Logger *slog.Logger
}

// fill returns the options with their defaults, or says which field is wrong.
func (o *Options) fill() (Options, error) {
	var f Options
	if o != nil {
		f = *o
	}
	if f.Rules == nil {
		rules := lifetime.DefaultRules()
		f.Rules = &rules
	}
	if err := f.Rules.Validate(); err != nil {
		return f, fmt.Errorf("cftrack: Options.Rules: %w", err)
	}
	if f.TagHeaders == nil {
		f.TagHeaders = []string{"Cache-Tag", "Surrogate-Key"}
	}
	headers := make([]string, len(f.TagHeaders))
	for i, h := range f.TagHeaders {
		headers[i] = http.CanonicalHeaderKey(h)
	}
	f.TagHeaders = headers
	for _, p := range f.Scope {
		if _, err := cfpath.ParsePattern(p); err != nil {
			return f, fmt.Errorf("cftrack: Options.Scope: %w", err)
		}
	}
	if f.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "unknown"
		}
		f.Name = fmt.Sprintf("%s@%s:%d", filepath.Base(os.Args[0]), host, os.Getpid())
	}
	f.FlushEvery = cmp.Or(f.FlushEvery, time.Second)
	f.Lease = cmp.Or(f.Lease, 10*time.Second)
	f.Buffer = cmp.Or(f.Buffer, 100_000)
	f.Margin = max(0, cmp.Or(f.Margin, lifetime.DefaultMargin))
	if f.Logger == nil {
		f.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case f.TTL < 0:
		return f, fmt.Errorf("cftrack: Options.TTL is %v; it cannot be negative", f.TTL)
	case f.FlushEvery < 0 || f.FlushEvery > time.Second:
		return f, fmt.Errorf("cftrack: Options.FlushEvery is %v; it must be over 0 and at most 1s", f.FlushEvery)
	case f.Lease < 2*time.Second:
		return f, fmt.Errorf("cftrack: Options.Lease is %v; it must be at least 2s, as it is renewed each second", f.Lease)
	case f.Buffer < 1:
		return f, fmt.Errorf("cftrack: Options.Buffer is %d; it must be at least 1", f.Buffer)
	}
	return f, nil
}

// A Tracker records what an origin served into a store. It is safe for
// concurrent use.
type Tracker struct {
	store   store.Store
	journal *journal.Journal
	opts    Options
	log     *slog.Logger
	clock   storetime.Clock
	base    time.Time // instants count from here
	seed    maphash.Seed
	longest time.Duration

	shards  [shardCount]shard
	paths   atomic.Int64 // entries in all shards
	skew    atomic.Int64 // the clock's, as of the last round
	invalid atomic.Uint64
	flushed atomic.Uint64
	retried atomic.Uint64
	reports atomic.Uint64
	closed  atomic.Bool
	origin  string      // the origin path, canonical; "" for none
	scoped  atomic.Bool // requests carry a scope; see during
	adopted atomic.Bool // all that run do

	mu      sync.Mutex
	waiters []chan struct{} // of Flush
	lastErr error           // of the last round, nil if it went well
	ready   bool

	kick    chan struct{} // asks for a round now
	closing chan context.Context
	cancel  context.CancelFunc // ends whatever the loop is waiting for
	done    chan struct{}
	err     error // of Close; valid once done is closed

	loop loop // of the loop's goroutine alone
}

// Open returns a tracker for a distribution (its ID, or that of a tenant) over
// st, which stays the caller's and must be closed after the tracker.
//
// Open does not wait for the store: a server starts while its store is down, and
// [Tracker.Ready] says whether it was reached. Unlike most constructors here it
// starts a goroutine, which flushes and keeps the session alive until
// [Tracker.Close]; a recorder that somebody forgot to start would lose truth in
// silence, which is worse.
func Open(st store.Store, distribution string, opts *Options) (*Tracker, error) {
	if st == nil || distribution == "" {
		return nil, errors.New("cftrack: Open needs a store and the ID of a distribution")
	}
	o, err := opts.fill()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	t := &Tracker{
		store: st, journal: journal.Open(st, distribution), opts: o,
		log:  o.Logger.With("distribution", distribution),
		base: time.Now(), seed: maphash.MakeSeed(),
		longest: cmp.Or(o.TTL, o.Rules.Longest()),
		kick:    make(chan struct{}, 1), closing: make(chan context.Context, 1),
		cancel: cancel, done: make(chan struct{}),
	}
	if o.OriginPath != "" {
		t.origin = "/" + strings.Trim(o.OriginPath, "/")
		if t.origin, err = cfpath.Canonical(t.origin); err != nil {
			return nil, fmt.Errorf("cftrack: Options.OriginPath: %w", err)
		}
		t.origin = strings.TrimSuffix(t.origin, "/")
	}
	for i := range t.shards {
		t.shards[i].entries = make(map[string]*entry)
		t.shards[i].clock = t.base.UnixNano()
	}
	go t.run(ctx)
	return t, nil
}

// Record notes that CloudFront may hold the path, which is spelled as the viewer
// asked for it ("/a%20b?x=1", or a whole URL), for ttl. A ttl of 0 means that the
// lifetime is not known, which is the longest that the rules allow. [UntilPurged]
// is allowed. Tags are those that the response carried, in their order.
//
// With the context of a request that passes [Tracker.Middleware], the sighting
// takes that request's times and is recorded when the request ends. Otherwise
// the response is taken to have begun and ended now. Its life counts from its end
// and Options.Margin, as in [Tracker.Middleware].
//
// Record does not wait for the store. Its error is about the path (then an
// *cfpath.Error), or is ErrFull or ErrClosed.
func (t *Tracker) Record(ctx context.Context, path string, ttl time.Duration, tags ...string) error {
	if ttl < 0 {
		return fmt.Errorf("cftrack: Record %q: the TTL is %v; it cannot be negative", path, ttl)
	}
	path, err := t.canonical(path)
	if err != nil {
		return err
	}
	if ttl == 0 {
		if ttl = t.opts.TTL; ttl == 0 {
			v := t.opts.Rules.Unknown(path)
			if !v.Keep {
				return nil // CloudFront keeps nothing there
			}
			ttl = v.Lifetime
		}
	}
	s := sighting{life: ttl}
	if len(tags) > 0 {
		s.tags = newTagSet(tags, false)
	}
	if t.during(ctx, true, func(a *aside) bool { return a.record(path, s) }) {
		return nil
	}
	if t.closed.Load() {
		return ErrClosed
	}
	sh := t.shard(path)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s.start = t.now()
	s.end = s.start
	if t.sight(sh, nil, path, &s) == nil {
		return ErrFull
	}
	return nil
}

// SetTTL states that whatever CloudFront holds of the path now is over ttl from
// now at the latest; it never lengthens a life. A ttl of 0 or less is
// [Tracker.Remove]. For a path that is not in the inventory it does nothing.
//
// With the context of a request that passes [Tracker.Middleware] and is for that
// path, it applies to the response to that request too.
//
// It is the caller's word about CloudFront: what it gives up too early is
// covered by no promise. It does not wait for the store; errors are as Record's.
func (t *Tracker) SetTTL(ctx context.Context, path string, ttl time.Duration) error {
	return t.claim(ctx, path, max(ttl, 0))
}

// Remove states that CloudFront holds nothing of the path any more. With the
// context of a request that passes [Tracker.Middleware] and is for that path, the
// response to that request is not recorded either. All else is as with
// [Tracker.SetTTL].
func (t *Tracker) Remove(ctx context.Context, path string) error { return t.claim(ctx, path, 0) }

func (t *Tracker) claim(ctx context.Context, path string, ttl time.Duration) error {
	path, err := t.canonical(path)
	if err != nil {
		return err
	}
	t.during(ctx, false, func(a *aside) bool { return a.claim(path, ttl) })
	if t.closed.Load() {
		return ErrClosed
	}
	sh := t.shard(path)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if !t.restrict(sh, path, ttl) {
		return ErrFull
	}
	return nil
}

// canonical is the path under which CloudFront holds what was asked for as target.
func (t *Tracker) canonical(target string) (string, error) {
	path, err := cfpath.FromTarget(target)
	if err != nil {
		t.invalid.Add(1)
		return "", err
	}
	return t.opts.Rules.Match(path).Query.Apply(path), nil
}

// Flush waits until everything that was recorded before the call is in the
// store. While the store fails it goes on trying; when ctx is done it returns an
// error that wraps the context's and the store's.
func (t *Tracker) Flush(ctx context.Context) error {
	w := make(chan struct{})
	t.mu.Lock()
	t.waiters = append(t.waiters, w)
	t.mu.Unlock()
	select {
	case t.kick <- struct{}{}:
	default: // a round is about to begin anyway
	}
	select {
	case <-w:
		return nil
	case <-ctx.Done():
		return t.unflushed(ctx)
	case <-t.done:
	}
	select {
	case <-w:
		return nil
	default:
		return cmp.Or(t.err, ErrClosed)
	}
}

func (t *Tracker) unflushed(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return fmt.Errorf("cftrack: not everything is stored yet: %w", errors.Join(context.Cause(ctx), t.lastErr))
}

// Close flushes, reads the journal a last time, reports, and ends the session;
// shut the HTTP server down before. If responses ended within the last
// Options.Margin it waits until they have reached CloudFront, and it waits for
// requests that still run, in all until ctx is done or for the length of
// Options.Lease and Options.Margin. If something could not be stored by then it
// says so, and the session stays behind as a gap in the coverage.
//
// Closing again waits for the first call and returns the same.
func (t *Tracker) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.opts.Lease+t.opts.Margin)
	defer cancel()
	if t.closed.CompareAndSwap(false, true) {
		t.closing <- ctx
		// The loop may be waiting for a store that does not answer.
		defer context.AfterFunc(ctx, t.cancel)()
		<-t.done
		t.cancel()
		return t.err
	}
	select {
	case <-t.done:
		return t.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Ready returns nil once the store was reached and knows of this tracker, else
// an error that wraps [ErrNotReady] and says why.
func (t *Tracker) Ready() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.ready:
		return nil
	case t.lastErr != nil:
		return fmt.Errorf("%w: %w", ErrNotReady, t.lastErr)
	}
	return ErrNotReady
}

// Stats counts what a tracker has done since it was opened.
type Stats struct {
	Running  int    // requests in the middleware
	Paths    int    // distinct paths in memory
	Buffered int    // of these, not stored yet
	Recorded uint64 // sightings
	NotKept  uint64 // responses that CloudFront does not keep
	Invalid  uint64 // paths that CloudFront cannot have asked for
	Lost     uint64 // sightings and claims for which there was no room
	Flushed  uint64 // updates that the store acknowledged
	Retried  uint64 // updates that it did not, and that were kept
	Reported uint64 // sightings reported to invalidations
	Err      error  // what went wrong in the last round, if anything
}

// Stats returns the counters as they are now.
func (t *Tracker) Stats() Stats {
	s := Stats{
		Paths: int(t.paths.Load()), Invalid: t.invalid.Load(),
		Flushed: t.flushed.Load(), Retried: t.retried.Load(), Reported: t.reports.Load(),
	}
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		s.Buffered += len(sh.changed)
		s.Recorded += sh.recorded
		s.NotKept += sh.notKept
		s.Lost += sh.lost
		for r := sh.running; r != nil; r = r.next {
			s.Running++
		}
		sh.mu.Unlock()
	}
	t.mu.Lock()
	s.Err = t.lastErr
	t.mu.Unlock()
	return s
}
