// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// oracle is one distribution as plain maps.
type oracle struct {
	records   map[string]inventory.Record
	documents map[string]store.Document
	version   uint64
}

func newOracle() *oracle {
	return &oracle{records: map[string]inventory.Record{}, documents: map[string]store.Document{}}
}

func (o *oracle) merge(updates []inventory.Update) {
	for _, u := range updates {
		o.records[u.Path] = o.records[u.Path].Merge(u.Record)
	}
}

func (o *oracle) scan(r store.Range) []inventory.Entry {
	var entries []inventory.Entry
	for _, path := range slices.Sorted(maps.Keys(o.records)) {
		record := o.records[path]
		if strings.HasPrefix(path, r.Prefix) && path >= r.From && record.Live(r.Now) {
			entries = append(entries, record.Entry(path))
		}
	}
	return entries
}

func (o *oracle) clear(conditions []store.Condition) int {
	n := 0
	for _, c := range conditions {
		if r, there := o.records[c.Path]; there && c.Holds(&r) {
			delete(o.records, c.Path)
			n++
		}
	}
	return n
}

func (o *oracle) sweep(now time.Time) int {
	before := len(o.records)
	maps.DeleteFunc(o.records, func(_ string, r inventory.Record) bool { return r.Dead(now) })
	return before - len(o.records)
}

func (o *oracle) list(prefix, after string, limit int) []store.Document {
	var docs []store.Document
	for _, key := range slices.Sorted(maps.Keys(o.documents)) {
		if strings.HasPrefix(key, prefix) && key > after && (limit == 0 || len(docs) < limit) {
			docs = append(docs, o.documents[key])
		}
	}
	return docs
}

func (o *oracle) holds(require []store.Requirement) bool {
	for _, r := range require {
		if o.documents[r.Key].Version != r.Version {
			return false
		}
	}
	return true
}

func (o *oracle) commit(t store.Transaction, version uint64) {
	for _, p := range t.Put {
		o.documents[p.Key] = store.Document{Key: p.Key, Value: p.Value, Version: version}
	}
	for _, key := range t.Delete {
		delete(o.documents, key)
	}
	o.version = version
}

// model holds the store against the oracle, operation by operation, in several
// distributions and through several handles.
func (s *suite) model() {
	handles := s.handles(2)
	run := 0
	instant := rapid.Custom(func(t *rapid.T) time.Time {
		return s.at(rapid.IntRange(1, 12).Draw(t, "seconds") + rapid.SampledFrom([]int{0, 0, 0, -86_400}).Draw(t, "day"))
	})
	path := rapid.SampledFrom([]string{"/", "/a", "/a/", "/a/b", "/a\x00", "/a\xff", "/b", "\xff\xff"})
	key := rapid.SampledFrom([]string{"a", "a/1", "a/2", "b", "\x00", "\xff"})
	record := rapid.Custom(func(t *rapid.T) inventory.Record {
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0:
			return inventory.RemovedClaim(instant.Draw(t, "removed"))
		case 1:
			return inventory.TTLClaim(instant.Draw(t, "ttl"), time.Duration(rapid.IntRange(0, 5).Draw(t, "for"))*time.Second)
		}
		r := inventory.Sighting{
			End: instant.Draw(t, "end"), Expires: instant.Draw(t, "expires"), Hits: rapid.Uint64Range(0, 3).Draw(t, "hits"),
			Tags: rapid.SliceOfN(rapid.SampledFrom([]string{"x", "y", "z"}), 0, 2).Draw(t, "tags"),
		}.Record()
		r.Folded = rapid.IntRange(0, 9).Draw(t, "folded") == 0
		return r
	})
	rapid.Check(s.T, func(t *rapid.T) {
		run++
		names := []string{"", "/a", "\x00", "d"}
		oracles := map[string]*oracle{}
		for i, name := range names {
			names[i] = fmt.Sprintf("model%d.%s", run, name)
			oracles[names[i]] = newOracle()
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			st := rapid.SampledFrom(handles).Draw(t, "handle")
			dist := rapid.SampledFrom(names).Draw(t, "distribution")
			o := oracles[dist]
			switch rapid.IntRange(0, 9).Draw(t, "op") {
			case 0, 1, 2:
				updates := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) inventory.Update {
					return inventory.Update{Path: path.Draw(t, "path"), Record: record.Draw(t, "record")}
				}), 0, 5).Draw(t, "updates")
				must(st.Merge(s.Context(), dist, updates))
				o.merge(updates)
			case 3, 4:
				r := store.Range{Now: instant.Draw(t, "now")}
				if rapid.Bool().Draw(t, "bounded") {
					r.Prefix = rapid.SampledFrom([]string{"", "/", "/a", "/a/", "\xff", "/a\x00"}).Draw(t, "prefix")
					r.From = rapid.SampledFrom([]string{"", "/", "/a/", "/a0", "\xff\xff\xff"}).Draw(t, "from")
				}
				got, err := collect(st.Scan(s.Context(), dist, r))
				must(err)
				if want := o.scan(r); !slices.EqualFunc(got, want, sameEntry) {
					t.Fatalf("scan of %q %+v:\n got %+v\nwant %+v", dist, r, got, want)
				}
			case 5:
				conditions := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) store.Condition {
					return store.Condition{Path: path.Draw(t, "path"), Before: instant.Draw(t, "before"), Uniform: rapid.Bool().Draw(t, "uniform")}
				}), 0, 4).Draw(t, "conditions")
				got, err := st.Clear(s.Context(), dist, conditions)
				must(err)
				if want := o.clear(conditions); got != want {
					t.Fatalf("cleared %d, want %d", got, want)
				}
			case 6:
				now := instant.Draw(t, "now").Add(rapid.SampledFrom([]time.Duration{0, inventory.ClaimKeep}).Draw(t, "later"))
				got := 0
				for {
					n, err := st.Sweep(s.Context(), dist, now)
					must(err)
					if got += n; n == 0 {
						break
					}
				}
				if want := o.sweep(now); got != want {
					t.Fatalf("swept %d, want %d", got, want)
				}
			case 7:
				prefix, after := rapid.SampledFrom([]string{"", "a", "a/", "c"}).Draw(t, "prefix"), rapid.SampledFrom([]string{"", "a", "a/1", "b"}).Draw(t, "after")
				limit := rapid.IntRange(0, 3).Draw(t, "limit")
				got, err := st.List(s.Context(), dist, prefix, after, limit)
				must(err)
				if want := o.list(prefix, after, limit); !slices.EqualFunc(got, want, func(a, b store.Document) bool {
					return a.Key == b.Key && string(a.Value) == string(b.Value) && a.Version == b.Version
				}) {
					t.Fatalf("list of %q, %q, %d:\n got %+v\nwant %+v", prefix, after, limit, got, want)
				}
			default:
				var tr store.Transaction
				for _, k := range rapid.SliceOfNDistinct(key, 0, 3, rapid.ID[string]).Draw(t, "keys") {
					switch rapid.IntRange(0, 3).Draw(t, "does") {
					case 0:
						tr.Delete = append(tr.Delete, k)
					case 1:
						tr.Require = append(tr.Require, store.Requirement{Key: k, Version: rapid.SampledFrom([]uint64{0, 1, o.version}).Draw(t, "version")})
					default:
						tr.Require = append(tr.Require, store.Requirement{Key: k, Version: o.documents[k].Version})
						tr.Put = append(tr.Put, store.Put{Key: k, Value: rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "value")})
					}
				}
				version, err := st.Commit(s.Context(), dist, tr)
				if !o.holds(tr.Require) {
					if !errors.Is(err, store.ErrConflict) {
						t.Fatalf("commit %+v: %v, want ErrConflict", tr, err)
					}
					continue
				}
				must(err)
				if version <= o.version {
					t.Fatalf("version %d after %d", version, o.version)
				}
				o.commit(tr, version)
			}
		}
	})
}
