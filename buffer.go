// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cftrack

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
)

// shardCount is how many locks the requests of a server share.
const shardCount = 64

// never is the end of what is kept until purged, in stored milliseconds; a
// lifetime that reaches farFuture is as good.
var never = inventory.Never.UnixMilli()

const farFuture = 200 * 365 * 24 * time.Hour

// An instant is a time of this process: nanoseconds of the monotonic clock since
// the tracker was opened. Store time may be unknown when a response begins.
type instant int64

func (t *Tracker) now() instant { return instant(time.Since(t.base)) }

// storeTime converts an instant; before the first contact it is local time.
func (t *Tracker) storeTime(i instant) time.Time {
	return t.clock.FromLocal(t.base.Add(time.Duration(i)))
}

// A sighting is what a response comes to, on its way into the buffer.
type sighting struct {
	start, end instant
	life       time.Duration
	// The tags: a header line as it is, or a set made from several.
	line   string
	spaces bool
	tags   *tagSet
}

// An entry is what the tracker remembers of a path.
type entry struct {
	path string

	// Guarded by the shard's lock.

	pending inventory.Record // not yet handed to the store
	dirty   bool             // pending is not empty: the entry is in changed
	sighted bool             // there were sightings since the last drain
	span    span             // of these
	queued  bool             // in idle
	running int              // requests that hold on to it
	verdict verdict          // the last one, as the next is likely the same
	// The last end and claim, in stored milliseconds. What came later in this
	// process stays later, even within one millisecond and if the clock is set.
	last, claim int64
	// The tags of the last header line seen, so that the next is not parsed.
	line   string
	spaces bool
	tags   tagSet

	// Written by the loop under the shard's lock, so that it may read freely.
	kept []span
}

// A span stands for the sightings of a path between two drains. One of them
// began at start and one ended at end: taking them for one is a superset.
type span struct {
	start, end instant
	tags       []string
	flushed    bool   // in the store
	judged     uint64 // against all invalidations up to this number
}

func (s *span) join(o span) {
	s.start, s.end = min(s.start, o.start), max(s.end, o.end)
	s.flushed = s.flushed && o.flushed
	s.judged = min(s.judged, o.judged)
	if !slices.Equal(s.tags, o.tags) {
		s.tags = slices.Concat(s.tags, o.tags)
		slices.Sort(s.tags)
		s.tags = slices.Compact(s.tags)
	}
}

// A shard holds the entries and the running requests of some of the paths.
type shard struct {
	mu      sync.Mutex
	entries map[string]*entry
	changed []*entry  // those that are dirty
	idle    []*entry  // those that may be dropped, if they still are idle
	running *response // a list
	free    *response // a list, by next
	drained instant   // the last drain: what is recorded now ended after it
	// The store's clock as of the last round: what it said at instant 0, and how
	// far it may be off, in nanoseconds. Local time before the first contact.
	clock  int64
	skew   int64
	synced bool

	recorded, notKept, lost uint64
	// The sightings lost since the loop last looked: none if lostUntil is 0.
	lostFrom, lostUntil instant

	_ [64]byte // apart from the next one's lock
}

func (t *Tracker) shard(path string) *shard {
	return &t.shards[maphash.String(t.seed, path)%shardCount]
}

// milli returns i in stored milliseconds, rounded up; the lock is held.
func (sh *shard) milli(i instant, lean int64) int64 {
	const ms = int64(time.Millisecond)
	return (sh.clock + int64(i) + lean + ms - 1) / ms
}

// sight puts a sighting into the buffer; the shard's lock is held, and e is the
// path's entry if that is known. It returns the entry, or counts and returns nil
// if there is no room.
func (t *Tracker) sight(sh *shard, e *entry, path string, s *sighting) *entry {
	// The end was taken before the lock. What a drain did not find must not seem
	// to have ended before it.
	end := max(s.end, sh.drained)
	if e == nil {
		e = t.entry(sh, path)
	}
	if e == nil {
		sh.lose(s.start, end)
		return nil
	}
	rec := inventory.Record{Last: max(sh.milli(end, sh.skew), e.claim), Expires: never, Hits: 1}
	if s.life < farFuture { // it begins when CloudFront has the last byte
		rec.Expires = rec.Last + (s.life + t.opts.Margin + time.Millisecond - 1).Milliseconds()
	}
	switch {
	case s.tags != nil:
		rec.Tags, rec.Mixed = s.tags.sorted, s.tags.mixed
	case s.line != "":
		if s.line != e.line || s.spaces != e.spaces {
			e.line, e.spaces = strings.Clone(s.line), s.spaces // not the whole header
			e.tags = *newTagSet([]string{e.line}, s.spaces)
		}
		rec.Tags, rec.Mixed = e.tags.sorted, e.tags.mixed
	}
	e.pending = e.pending.Merge(rec)
	e.last = max(e.last, rec.Last)
	if e.sighted {
		e.span.start, e.span.end = min(e.span.start, s.start), max(e.span.end, end)
	} else {
		e.sighted, e.span = true, span{start: s.start, end: end}
	}
	sh.touch(e)
	sh.recorded++
	return e
}

// restrict puts a claim into the buffer: removed if ttl is 0.
func (t *Tracker) restrict(sh *shard, path string, ttl time.Duration) bool {
	e := t.entry(sh, path)
	if e == nil {
		sh.lost++ // the path stays listed: a superset, and no gap
		return false
	}
	e.claim = max(sh.milli(t.now(), -sh.skew), e.last+1, e.claim+1)
	at := time.UnixMilli(e.claim)
	if ttl == 0 {
		e.pending = e.pending.Merge(inventory.RemovedClaim(at))
	} else {
		e.pending = e.pending.Merge(inventory.TTLClaim(at, ttl))
	}
	sh.touch(e)
	return true
}

func (sh *shard) touch(e *entry) {
	if !e.dirty {
		e.dirty = true
		sh.changed = append(sh.changed, e)
	}
}

func (sh *shard) lose(start, end instant) {
	sh.lost++
	if sh.lostUntil == 0 {
		sh.lostFrom = start
	}
	sh.lostFrom = min(sh.lostFrom, start)
	sh.lostUntil = max(sh.lostUntil, end, 1)
}

// entry finds or makes the entry of a path; nil if there is no room.
func (t *Tracker) entry(sh *shard, path string) *entry {
	if e := sh.entries[path]; e != nil {
		return e
	}
	if t.paths.Add(1) > int64(t.opts.Buffer) && !t.evict(sh) {
		t.paths.Add(-1)
		return nil
	}
	e := &entry{path: strings.Clone(path)}
	sh.entries[e.path] = e
	return e
}

// evict drops an idle entry of this shard, else of another one that nobody is
// using right now: waiting for a second lock could be for ever.
func (t *Tracker) evict(sh *shard) bool {
	if sh.dropIdle() {
		t.paths.Add(-1)
		return true
	}
	for i := range t.shards {
		o := &t.shards[i]
		if o == sh || !o.mu.TryLock() {
			continue
		}
		dropped := o.dropIdle()
		o.mu.Unlock()
		if dropped {
			t.paths.Add(-1)
			return true
		}
	}
	return false
}

func (e *entry) isIdle() bool { return !e.dirty && len(e.kept) == 0 && e.running == 0 }

func (sh *shard) dropIdle() bool {
	for n := len(sh.idle); n > 0; n-- {
		e := sh.idle[n-1]
		sh.idle[n-1] = nil
		sh.idle = sh.idle[:n-1]
		e.queued = false
		if e.isIdle() {
			delete(sh.entries, e.path)
			return true
		}
	}
	return false
}

// settle queues an entry for eviction if nothing holds it.
func (sh *shard) settle(e *entry) {
	if e.isIdle() && !e.queued {
		e.queued = true
		sh.idle = append(sh.idle, e)
	}
}

// sync gives the shard the store's clock, of which at instant 0 it was clock.
// The first time it also turns what was stamped in local time into store time.
func (sh *shard) sync(clock, skew int64) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	was := sh.clock
	sh.clock, sh.skew = clock, skew
	if sh.synced {
		return
	}
	sh.synced = true
	// By one number of whole milliseconds, so that the order of ends and claims
	// stays; up, so that nothing is kept too short.
	d := clock + skew - was
	if d > 0 {
		d += int64(time.Millisecond) - 1
	}
	d /= int64(time.Millisecond)
	for _, e := range sh.entries {
		p := &e.pending
		for _, ms := range []*int64{&p.Last, &p.Expires, &p.Removed, &p.TTLAt, &e.last, &e.claim} {
			if *ms != 0 && *ms != never {
				*ms += d
			}
		}
	}
}

// A tagSet is the tags of a response, as a record has them.
type tagSet struct {
	sorted []string
	mixed  bool // no native tag can be trusted
}

func newTagSet(lines []string, spaces bool) *tagSet {
	var tags []string
	for _, line := range lines {
		for part := range strings.SplitSeq(line, ",") {
			if spaces {
				tags = append(tags, strings.Fields(part)...)
			} else if part = strings.TrimSpace(part); part != "" {
				tags = append(tags, part)
			}
		}
	}
	r := inventory.Sighting{Tags: tags}.Record()
	return &tagSet{sorted: r.Tags, mixed: r.Mixed}
}
