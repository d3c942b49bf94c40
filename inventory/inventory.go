// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package inventory holds the vocabulary of what CloudFront may have cached:
// sightings, the claims beside them, and the records and entries they merge
// into. It is pure: times are arguments, and nothing here does I/O.
//
// A [Record] is what a store keeps for a path. Merging records commutes, is
// associative and, hits apart, can be repeated: any number of writers may send
// the same sighting any number of times in any order.
package inventory

import (
	"cmp"
	"slices"
	"time"
)

// Never is the end of life of a sighting that is kept until it is purged.
var Never = time.UnixMilli(never).UTC()

const (
	never = 253402300799000 // 9999-12-31T23:59:59Z, the last second RFC 3339 can say

	// maxMilli is the largest instant the encoding can hold (48 bits).
	maxMilli = 1<<48 - 1
)

// ClaimKeep is how long a claim outlives its instant where no live entry needs
// it any more. A sighting that is resent later than this may bring back a path
// that was removed: a superset, which is safe.
const ClaimKeep = 24 * time.Hour

// NativeTags is how many tags of an object CloudFront stores.
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/invalidation-by-tags.html
const NativeTags = 50

// A Sighting is one response that CloudFront may keep.
type Sighting struct {
	// Path is canonical, as package cfpath makes it.
	Path string
	// Start and End are store time: when the origin began and finished the
	// response. End is when CloudFront can have it at the earliest.
	Start, End time.Time
	// Expires is when its life in CloudFront is over at the latest.
	Expires time.Time
	// Tags as the origin sent them, in its order.
	Tags []string
	// Hits is how many origin responses this stands for; 0 means 1.
	Hits uint64
}

// Record returns the record of this sighting alone.
func (s Sighting) Record() Record {
	r := Record{
		Last:    ceilMilli(s.End),
		Expires: min(ceilMilli(s.Expires), never),
		Hits:    max(s.Hits, 1),
	}
	if len(s.Tags) > 0 {
		r.Tags = slices.Clone(s.Tags)
		slices.Sort(r.Tags)
		r.Tags = slices.Compact(r.Tags)
		// Which of them CloudFront stored depends on their order, which a union
		// cannot keep: no native tag is trusted for such an object.
		r.Mixed = len(s.Tags) > NativeTags
	}
	return r
}

// An Entry is all live sightings of a path, merged, with the claims applied.
type Entry struct {
	Path    string
	Last    time.Time // latest end among its sightings
	Expires time.Time // latest end of life; Never if kept until purged
	Hits    uint64    // about how many origin responses; enters no promise
	Tags    []string  // union over the sightings, sorted; not to be changed
	// Mixed says that the sightings did not all carry the same tags, so that no
	// native tag is known to cover what CloudFront holds.
	Mixed bool
	// Folded says that the entry stands for every path that begins with Path.
	Folded bool
}

// A Record is what a store keeps for one path: its merged sightings and the
// newest claim of each kind. Instants are milliseconds of store time since
// 1970; zero means none. The zero Record is the neutral element of Merge.
type Record struct {
	Last    int64 // latest end of a sighting
	Expires int64 // latest end of life
	Hits    uint64
	Tags    []string // sorted, without repeats
	Mixed   bool
	Folded  bool

	Removed int64 // the newest removed claim
	TTLAt   int64 // the newest ttl claim, and
	TTL     int64 // its time to live in milliseconds
}

// RemovedClaim returns the record of the claim that CloudFront no longer holds
// anything of a path that was sighted before at.
func RemovedClaim(at time.Time) Record { return Record{Removed: floorMilli(at)} }

// TTLClaim returns the record of the claim that what was sighted before at is
// over at at+ttl at the latest.
func TTLClaim(at time.Time, ttl time.Duration) Record {
	return Record{TTLAt: floorMilli(at), TTL: max(0, (ttl + time.Millisecond - 1).Milliseconds())}
}

// Merge returns what r and o say together.
func (r Record) Merge(o Record) Record {
	r.Removed = max(r.Removed, o.Removed)
	if o.TTLAt > r.TTLAt || o.TTLAt == r.TTLAt && o.TTL > r.TTL {
		r.TTLAt, r.TTL = o.TTLAt, o.TTL
	}
	r.Folded = r.Folded || o.Folded
	switch {
	case o.Last == 0:
	case r.Last == 0:
		r.Last, r.Expires, r.Hits, r.Tags, r.Mixed = o.Last, o.Expires, o.Hits, o.Tags, o.Mixed
	default:
		r.Last = max(r.Last, o.Last)
		r.Expires = max(r.Expires, o.Expires)
		if r.Hits += o.Hits; r.Hits < o.Hits {
			r.Hits = ^uint64(0)
		}
		if !slices.Equal(r.Tags, o.Tags) {
			r.Tags, r.Mixed = union(r.Tags, o.Tags), true
		}
		r.Mixed = r.Mixed || o.Mixed
	}
	return r
}

// union merges two sorted lists without touching either.
func union(a, b []string) []string {
	out := make([]string, 0, len(a)+len(b))
	out = append(append(out, a...), b...)
	slices.SortFunc(out, cmp.Compare[string])
	return slices.Compact(out)
}

// end is when the record's life is over, claims applied; 0 if it does not count.
func (r *Record) end() int64 {
	if r.Last == 0 || r.Last < r.Removed {
		return 0
	}
	if r.Last < r.TTLAt {
		return min(r.Expires, r.TTLAt+r.TTL)
	}
	return r.Expires
}

// Live reports whether the record stands for something CloudFront may hold at
// now. At the very instant its life ends it does not.
func (r *Record) Live(now time.Time) bool { return r.end() > now.UnixMilli() }

// Dead reports whether a store may drop the record at now: it is not live, and
// its claims are too old for a late sighting to need them.
func (r *Record) Dead(now time.Time) bool {
	return !r.Live(now) && max(r.Removed, r.TTLAt) <= now.Add(-ClaimKeep).UnixMilli()
}

// Before reports whether every sighting in the record ended before t.
func (r *Record) Before(t time.Time) bool { return r.Last < floorMilli(t) }

// Entry returns the record as an entry, claims applied. It is meaningful only
// for a record that is Live.
func (r *Record) Entry(path string) Entry {
	return Entry{
		Path: path, Last: time.UnixMilli(r.Last).UTC(), Expires: time.UnixMilli(r.end()).UTC(),
		Hits: r.Hits, Tags: r.Tags, Mixed: r.Mixed, Folded: r.Folded,
	}
}

// An Update is a record to be merged into what a store keeps for a path.
type Update struct {
	Path   string
	Record Record
}

// Ends are widened to the next millisecond and claims to the one before:
// every rounding keeps more.
func ceilMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return min(max(floorMilli(t.Add(time.Millisecond-1)), 1), maxMilli)
}

func floorMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return min(max(t.UnixMilli(), 1), maxMilli)
}
