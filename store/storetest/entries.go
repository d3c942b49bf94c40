// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// mergeAgainstClear: what was acknowledged is there for as long as no clear with
// a later bound has begun.
func (s *suite) mergeAgainstClear() {
	const writers, rounds, paths = 6, 150, 5
	handles := s.handles(3)
	var (
		tick    atomic.Int64 // the millisecond of the next sighting
		bound   atomic.Int64 // all clears that have begun had this bound, or a lower one
		cleared atomic.Int64
		wg      sync.WaitGroup
		mu      sync.Mutex
		acked   [paths]int64
	)
	at := func(ms int64) time.Time { return s.base.Add(time.Duration(ms) * time.Millisecond) }
	path := func(i int) string { return fmt.Sprintf("/%d", i) }
	now := s.at(10)
	for w := range writers {
		st := handles[w%len(handles)]
		wg.Go(func() {
			// Fast writers go on until the clearer has had its turn.
			for i := 0; i < rounds || cleared.Load() == 0 && i < 1000*rounds; i++ {
				n := (w + i) % paths
				last := tick.Add(1)
				if err := st.Merge(s.Context(), "d", []inventory.Update{{Path: path(n), Record: inventory.Sighting{
					End: at(last), Expires: s.at(10_000),
				}.Record()}}); err != nil {
					s.Errorf("Merge: %v", err)
					return
				}
				mu.Lock()
				acked[n] = max(acked[n], last)
				mu.Unlock()
				entries, err := collect(st.Scan(s.Context(), "d", store.Range{Prefix: path(n), Now: now}))
				if err != nil {
					s.Errorf("Scan: %v", err)
					return
				}
				if last >= bound.Load() && (len(entries) != 1 || entries[0].Last.Before(at(last))) {
					s.Errorf("merged %s at %d ms, acknowledged, not cleared, and found %+v", path(n), last, entries)
					return
				}
			}
		})
	}
	stop := make(chan struct{})
	var clearer sync.WaitGroup
	clearer.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			b := max(bound.Load(), tick.Load()-2)
			bound.Store(b)
			var conditions []store.Condition
			for i := range paths {
				conditions = append(conditions, store.Condition{Path: path(i), Before: at(b)})
				for j := range 40 { // more to look at before anything is removed
					conditions = append(conditions, store.Condition{Path: fmt.Sprintf("%s/%d", path(i), j), Before: at(b)})
				}
			}
			n, err := handles[len(handles)-1].Clear(s.Context(), "d", conditions)
			if cleared.Add(int64(n)); err != nil {
				s.Errorf("Clear: %v", err)
				return
			}
		}
	})
	wg.Wait()
	close(stop)
	clearer.Wait()
	if s.Failed() {
		return
	}
	if cleared.Load() == 0 {
		s.Error("nothing was ever cleared: nothing is proven")
	}
	var got [paths]int64
	for _, e := range s.scan("d", store.Range{Now: now}) {
		var n int
		if _, err := fmt.Sscanf(e.Path, "/%d", &n); err != nil {
			s.Fatalf("unknown path %q", e.Path)
		}
		got[n] = e.Last.Sub(s.base).Milliseconds()
	}
	for n, last := range acked {
		if last >= bound.Load() && got[n] != last {
			s.Errorf("in the end %s is of %d ms, want %d", path(n), got[n], last)
		}
	}
}

// mergeAgainstSweep: a path that is dead one moment and sighted the next stays.
func (s *suite) mergeAgainstSweep() {
	const writers, rounds = 4, 150
	handles := s.handles(2)
	now := s.at(10)
	stop := make(chan struct{})
	var writing, sweeping sync.WaitGroup
	sweeping.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := handles[1].Sweep(s.Context(), "d", now); err != nil {
				s.Errorf("Sweep: %v", err)
				return
			}
		}
	})
	for w := range writers {
		st := handles[w%2]
		writing.Go(func() {
			for i := range rounds {
				path := fmt.Sprintf("/%d/%d", w, i)
				if err := errors.Join(
					st.Merge(s.Context(), "d", []inventory.Update{s.sight(path, 1, 5)}),
					st.Merge(s.Context(), "d", []inventory.Update{s.sight(path, 2, 100)}),
				); err != nil {
					s.Errorf("Merge: %v", err)
					return
				}
			}
		})
	}
	writing.Wait()
	close(stop)
	sweeping.Wait()
	if got := len(s.paths("d", 10)); got != writers*rounds {
		s.Errorf("%d live entries, want %d", got, writers*rounds)
	}
}

func (s *suite) claims() {
	sight := func(last, expires int) inventory.Record { return s.sight("", last, expires).Record }
	removed := func(at int) inventory.Record { return inventory.RemovedClaim(s.at(at)) }
	ttl := func(at, seconds int) inventory.Record {
		return inventory.TTLClaim(s.at(at), time.Duration(seconds)*time.Second)
	}
	for i, tc := range []struct {
		name    string
		records []inventory.Record
		expires int // 0: not live at 50
	}{
		{"sighted", []inventory.Record{sight(10, 100)}, 100},
		{"claims alone", []inventory.Record{removed(5), ttl(5, 100)}, 0},
		{"removed later", []inventory.Record{sight(10, 100), removed(11)}, 0},
		{"removed earlier", []inventory.Record{sight(10, 100), removed(9)}, 100},
		{"an older removed changes nothing", []inventory.Record{sight(10, 100), removed(11), removed(9)}, 0},
		{"sighted again", []inventory.Record{sight(10, 100), removed(11), sight(12, 90)}, 100},
		{"ttl shortens", []inventory.Record{sight(10, 100), ttl(20, 60)}, 80},
		{"ttl never lengthens", []inventory.Record{sight(10, 100), ttl(20, 6000)}, 100},
		{"ttl 0", []inventory.Record{sight(10, 100), ttl(20, 0)}, 0},
		{"the newest ttl", []inventory.Record{sight(10, 100), ttl(20, 60), ttl(19, 1)}, 80},
		{"sighted after the ttl", []inventory.Record{sight(10, 100), ttl(20, 0), sight(21, 90)}, 100},
	} {
		orders := permutations(len(tc.records))
		for j, order := range orders {
			path := fmt.Sprintf("/%d/%d", i, j)
			for _, k := range order {
				s.merge("d", inventory.Update{Path: path, Record: tc.records[k]})
			}
			got := s.scan("d", store.Range{Prefix: path, Now: s.at(50)})
			if tc.expires == 0 && len(got) != 0 || tc.expires != 0 && (len(got) != 1 || !got[0].Expires.Equal(s.at(tc.expires))) {
				s.Errorf("%s, in order %v: %+v, want the end at %v", tc.name, order, got, s.at(tc.expires))
			}
		}
	}
}

func permutations(n int) [][]int {
	if n == 0 {
		return [][]int{nil}
	}
	var all [][]int
	for _, p := range permutations(n - 1) {
		for i := range n {
			all = append(all, slices.Insert(slices.Clone(p), i, n-1))
		}
	}
	return all
}

// sweepAll sweeps until nothing is left to sweep, as a sweep may stop early.
func (s *suite) sweepAll(distribution string, now time.Time) int {
	s.Helper()
	for all := 0; ; {
		n, err := s.store.Sweep(s.Context(), distribution, now)
		s.must(err)
		if all += n; n == 0 {
			return all
		}
	}
}

func (s *suite) claimsOutliveSweeps() {
	keep := int(inventory.ClaimKeep / time.Second)
	s.merge("d", s.sight("/removed", 1, 10*keep), s.sight("/short", 1, 10*keep), s.sight("/over", 1, 2), s.sight("/live", 1, 10*keep),
		inventory.Update{Path: "/removed", Record: inventory.RemovedClaim(s.at(5))},
		inventory.Update{Path: "/short", Record: inventory.TTLClaim(s.at(5), time.Second)})
	if n := s.sweepAll("d", s.at(keep)); n != 1 {
		s.Errorf("swept %d, want /over alone", n)
	}
	s.merge("d", s.sight("/removed", 1, 10*keep), s.sight("/short", 1, 10*keep))
	s.wantPaths(s.paths("d", keep), []string{"/live"})
	if n := s.sweepAll("d", s.at(5+keep)); n != 2 {
		s.Errorf("swept %d a ClaimKeep after the claims, want 2", n)
	}
	s.merge("d", s.sight("/removed", 1, 10*keep))
	s.wantPaths(s.paths("d", keep), []string{"/live", "/removed"})
}

func (s *suite) expiry() {
	s.merge("d", s.sight("/a", 1, 10))
	for _, tc := range []struct {
		now  time.Time
		live int
	}{
		{s.at(10).Add(-time.Millisecond), 1}, {s.at(10), 0}, {s.at(11), 0}, {time.Time{}, 0},
		{time.Unix(0, 0), 1}, {time.Unix(-1, 0), 1},
	} {
		if got := s.scan("d", store.Range{Now: tc.now}); len(got) != tc.live {
			s.Errorf("at %v: %d entries, want %d", tc.now, len(got), tc.live)
		}
	}
	s.merge("d", inventory.Update{Path: "/never", Record: inventory.Sighting{End: s.at(1), Expires: inventory.Never}.Record()})
	got := s.scan("d", store.Range{Now: inventory.Never.Add(-time.Second)})
	if len(got) != 1 || !got[0].Expires.Equal(inventory.Never) {
		s.Errorf("kept until purged: %+v", got)
	}
	if n := s.sweepAll("d", s.at(10).Add(-time.Millisecond)); n != 0 {
		s.Errorf("swept %d before its end", n)
	}
	if n := s.sweepAll("d", s.at(10)); n != 1 {
		s.Errorf("swept %d at its end, want 1", n)
	}
}

func (s *suite) hostileKeys() {
	paths := append(hostile(), longPaths()...)
	want := slices.Sorted(slices.Values(paths))
	dists := neighbours()
	last := func(d, p int) int { return 1 + d*len(paths) + p }
	for d, dist := range dists {
		var updates []inventory.Update
		for p, path := range want {
			if len(path) < 1000 || d < 2 {
				updates = append(updates, s.sight(path, last(d, p), 100_000))
			}
		}
		s.merge(dist, updates...)
		s.commit(dist, store.Transaction{Put: puts(hostile(), fmt.Sprint(d))})
	}
	for d, dist := range dists {
		expect := want
		if d >= 2 {
			expect = slices.DeleteFunc(slices.Clone(want), func(p string) bool { return len(p) >= 1000 })
		}
		entries := s.scan(dist, store.Range{Now: s.at(2)})
		s.wantPaths(pathsOf(entries), expect)
		for _, e := range entries {
			p, _ := slices.BinarySearch(want, e.Path)
			if !e.Last.Equal(s.at(last(d, p))) || e.Hits != 1 {
				s.Fatalf("%q of %q holds %+v", short(e.Path), short(dist), e)
			}
		}
		docs := s.list(dist, "", "", 0)
		keys := slices.Sorted(slices.Values(hostile()))
		for i := range max(len(docs), len(keys)) {
			if i >= len(docs) || i >= len(keys) || docs[i].Key != keys[i] || string(docs[i].Value) != fmt.Sprint(d) {
				s.Fatalf("document %d of %q is wrong", i, short(dist))
			}
		}
	}
	for _, r := range append(slices.Clone(paths), "/a\x00\x00\x00", "/no") {
		s.wantPaths(pathsOf(s.scan("E", store.Range{Prefix: r, Now: s.at(2)})), filter(want, func(p string) bool { return strings.HasPrefix(p, r) }))
		s.wantPaths(pathsOf(s.scan("E", store.Range{From: r, Now: s.at(2)})), filter(want, func(p string) bool { return p >= r }))
		s.wantPaths(pathsOf(s.scan("E", store.Range{Prefix: "/a", From: r, Now: s.at(2)})),
			filter(want, func(p string) bool { return strings.HasPrefix(p, "/a") && p >= r }))
		if len(r) > 512 {
			continue
		}
		var keys []string
		for _, d := range s.list("E", r, "", 0) {
			keys = append(keys, d.Key)
		}
		s.wantPaths(keys, filter(slices.Sorted(slices.Values(hostile())), func(k string) bool { return strings.HasPrefix(k, r) }))
	}
	var conditions []store.Condition
	for i := 0; i < len(want); i += 2 {
		conditions = append(conditions, store.Condition{Path: want[i], Before: s.at(100_000)})
	}
	n, err := s.store.Clear(s.Context(), "", conditions)
	s.must(err)
	if n != len(conditions) {
		s.Errorf("cleared %d, want %d", n, len(conditions))
	}
	var rest []string
	for i := 1; i < len(want); i += 2 {
		rest = append(rest, want[i])
	}
	s.wantPaths(s.paths("", 2), rest)
	s.wantPaths(s.paths("E", 2), want)
}

func filter(list []string, keep func(string) bool) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return !keep(s) })
}

func puts(keys []string, value string) []store.Put {
	var all []store.Put
	for _, k := range keys {
		all = append(all, store.Put{Key: k, Value: []byte(value)})
	}
	return all
}

func (s *suite) tags() {
	var many []string
	for i := range 300 {
		many = append(many, fmt.Sprintf("tag-%03d-%s", i, strings.Repeat("x", 200)))
	}
	tags := []string{"b", "", "ä", "\x00", "a"}
	s.merge("d", s.sight("/few", 1, 100, tags...), s.sight("/many", 1, 100, many...), s.sight("/mixed", 1, 100, "a", "b"))
	tags[0] = "changed by the caller"
	s.merge("d", s.sight("/few", 2, 100, "a", "b", "", "\x00", "ä"), s.sight("/mixed", 2, 100, "c"))
	got := s.scan("d", store.Range{Now: s.at(3)})
	if len(got) != 3 || !slices.Equal(got[0].Tags, []string{"", "\x00", "a", "b", "ä"}) || got[0].Mixed || got[0].Hits != 2 {
		s.Fatalf("entries %+v", got)
	}
	if !slices.Equal(got[1].Tags, many) || !got[1].Mixed {
		s.Errorf("%d tags, mixed %v, want %d", len(got[1].Tags), got[1].Mixed, len(many))
	}
	if !slices.Equal(got[2].Tags, []string{"a", "b", "c"}) || !got[2].Mixed {
		s.Errorf("mixed entry %+v", got[2])
	}
	n, err := s.store.Clear(s.Context(), "d", []store.Condition{
		{Path: "/few", Before: s.at(3), Uniform: true}, {Path: "/mixed", Before: s.at(3), Uniform: true}, {Path: "/many", Before: s.at(1)},
	})
	s.must(err)
	if left := s.paths("d", 3); n != 1 || !slices.Equal(left, []string{"/many", "/mixed"}) {
		s.Errorf("cleared %d, left %q", n, left)
	}
	folded := s.sight("/dir/", 1, 100)
	folded.Record.Folded = true
	s.merge("d", folded)
	if n, err := s.store.Clear(s.Context(), "d", []store.Condition{{Path: "/dir/", Before: s.at(50)}}); n != 0 || err != nil {
		s.Errorf("cleared %d folded entries, %v", n, err)
	}
}

// bigBatch: one call may hold any number of updates and conditions, and one path
// many times.
func (s *suite) bigBatch() {
	const n = 20_000
	var updates []inventory.Update
	var conditions []store.Condition
	for i := range n {
		updates = append(updates, s.sight(fmt.Sprintf("/%05d", i/2), i%2, 100), s.sight("/often", i%7, 100))
		conditions = append(conditions, store.Condition{Path: fmt.Sprintf("/%05d", i), Before: s.at(2)})
	}
	s.merge("d", updates...)
	s.merge("d", inventory.Update{Path: "/often"}) // says nothing, and does no harm
	entries := s.scan("d", store.Range{Now: s.at(2)})
	if len(entries) != n/2+1 {
		s.Fatalf("%d entries, want %d", len(entries), n/2+1)
	}
	if e := entries[n/2]; e.Path != "/often" || e.Hits != n || !e.Last.Equal(s.at(6)) {
		s.Errorf("what was sighted often: %+v", e)
	}
	cleared, err := s.store.Clear(s.Context(), "d", conditions)
	s.must(err)
	if cleared != n/2 {
		s.Errorf("cleared %d, want %d", cleared, n/2)
	}
	s.wantPaths(s.paths("d", 2), []string{"/often"})
	s.must(s.store.Merge(s.Context(), "d", nil))
}

// many merges n paths, sorted and of the same length.
func (s *suite) many(distribution string, n int) {
	s.Helper()
	for chunk := range slices.Chunk(make([]struct{}, n), 2000) {
		updates := make([]inventory.Update, len(chunk))
		for i := range updates {
			n--
			updates[i] = s.sight(fmt.Sprintf("/%07d", n), 1, 100_000)
		}
		s.merge(distribution, updates...)
	}
}

func (s *suite) scanWhileWriting() {
	const n = 12_000
	handles := s.handles(2)
	s.many("d", n)
	ctx, stop := context.WithCancel(s.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for w := range 2 {
		wg.Go(func() {
			for i := w; ; i = (i + 7919) % n {
				path := fmt.Sprintf("/%07d", i)
				err := handles[w].Merge(ctx, "d", []inventory.Update{
					s.sight(path, 1, 100_000), s.sight(path+"/between", 2, 100_000), s.sight(fmt.Sprintf("/%07d/gone", i), 1, 100_000),
				})
				if err == nil {
					_, err = handles[w].Clear(ctx, "d", []store.Condition{{Path: path + "/gone", Before: s.at(50)}})
				}
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					s.Errorf("while scanning: %v", err)
					return
				}
			}
		})
	}
	for _, tc := range []struct {
		r      store.Range
		stable int
	}{
		{store.Range{}, n}, {store.Range{Prefix: "/0003"}, 1000}, {store.Range{From: "/0010000"}, n - 10_000},
		{store.Range{Prefix: "/000", From: "/0004000"}, 6000},
	} {
		tc.r.Now = s.at(2)
		previous, stable := "", 0
		for e, err := range handles[1].Scan(s.Context(), "d", tc.r) {
			s.must(err)
			if e.Path <= previous {
				s.Fatalf("%q came after %q", e.Path, previous)
			}
			if previous = e.Path; len(e.Path) == len("/0000000") {
				stable++
			}
		}
		if stable != tc.stable {
			s.Errorf("%+v: %d entries that were there throughout, want %d", tc.r, stable, tc.stable)
		}
	}
}

func (s *suite) scanBreak() {
	s.many("d", 5000)
	for range 20 {
		n := 0
		for _, err := range s.store.Scan(s.Context(), "d", store.Range{Now: s.at(2)}) {
			s.must(err)
			if n++; n == 10 {
				break
			}
		}
	}
	// A scan may call the store, and be run twice.
	scan := s.store.Scan(s.Context(), "d", store.Range{Now: s.at(2), Prefix: "/00000"})
	for range 2 {
		n := 0
		for e, err := range scan {
			s.must(err)
			if n++; n%10 == 1 {
				s.merge("e", s.sight(e.Path, 1, 100))
			}
		}
		if n != 100 {
			s.Errorf("%d entries, want 100", n)
		}
	}
}

func (s *suite) contextDoneDuringScan() {
	const n = 20_000
	s.many("d", n)
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	seen := 0
	var failed error
	for _, err := range s.store.Scan(ctx, "d", store.Range{Now: s.at(2)}) {
		if cancel(); err != nil {
			failed = err
			continue
		}
		seen++
	}
	if !errors.Is(failed, context.Canceled) || seen == 0 || seen == n {
		s.Errorf("%d entries, then %v", seen, failed)
	}
}
