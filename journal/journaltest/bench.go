// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package journaltest

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/storetest"
)

// Bench measures what reading a journal of 10,000 invalidations costs, of ten items
// each: before and after it was compacted.
func Bench(b *testing.B, h storetest.Harness) {
	const n = 10_000
	for _, compacted := range []bool{false, true} {
		j := journal.Open(h.Open(b), "E1")
		fill(b, j, n, compacted)
		name := func(op string) string { return fmt.Sprintf("%s/compacted=%v", op, compacted) }
		ctx := b.Context()
		// What a recorder and a leader do each second.
		b.Run(name("Poll"), func(b *testing.B) {
			for b.Loop() {
				if invs, err := j.Invalidations(ctx, n); err != nil || len(invs) != 0 {
					b.Fatal(len(invs), err)
				}
			}
		})
		// What a recorder does once, when it opens its session, and a new leader.
		b.Run(name("All"), func(b *testing.B) {
			for b.Loop() {
				if invs, err := j.Invalidations(ctx, 0); err != nil || len(invs) != n {
					b.Fatal(len(invs), err)
				}
			}
		})
		// What a plan and 'cftrack coverage' read.
		b.Run(name("Know"), func(b *testing.B) {
			for b.Loop() {
				if _, err := j.Coverage(ctx, T0, time.Hour); err != nil {
					b.Fatal(err)
				}
			}
		})
		// What an importer judges by.
		b.Run(name("History"), func(b *testing.B) {
			for b.Loop() {
				batches, err := j.Batches(ctx, 0)
				if err != nil {
					b.Fatal(err)
				}
				journal.NewHistory(batches, nil)
			}
		})
	}
}

// fill writes invalidations as they are when they are over.
func fill(b *testing.B, j *journal.Journal, n int, compacted bool) {
	b.Helper()
	doc := func(key string, v any) store.Put {
		value, err := json.Marshal(v)
		if err != nil {
			b.Fatal(err)
		}
		return store.Put{Key: key, Value: value}
	}
	puts := []store.Put{doc("head", map[string]int{"number": n}), doc("track", journal.Tracking{Since: T0})}
	for i := 1; i <= n; i++ {
		inv := &journal.Invalidation{
			ID: fmt.Sprintf("inv-%d-k3f9c2m1x0", i), Number: uint64(i), Distribution: "E1ABCDEFGHIJKL",
			Selector: selector.Selector{Patterns: []string{fmt.Sprintf("/blog/*/comments-%d*", i)}},
			Cut:      T0, Opened: T0, Ended: T0, By: "ada@build-7", Reason: "deploy 2026-03-01", State: journal.Completed, Sent: true, Batches: 1,
			Options: journal.Options{Settle: 3 * time.Second, Margin: 2 * time.Second, SweepTimeout: 10 * time.Minute, MaxPrice: 20, FreePaths: -1},
			Planned: &journal.Planned{At: T0, Items: 10, Selected: 10, Entries: 10_000},
		}
		if compacted {
			inv.Compacted = &journal.Summary{At: T0, Batches: 1, Items: 10, Done: true}
		} else {
			batch := &journal.Batch{Reference: "cftrack/" + inv.ID + "/0/k3f9c2m1x0", Sent: T0, State: journal.BatchDone,
				InvalidationID: "I2J0I21PCUYOIK", Accepted: T0, Completed: T0, Forgotten: true}
			for k := range 10 {
				batch.Items = append(batch.Items, fmt.Sprintf("/blog/2026/03/an-article-of-the-day-%d/comments-%d", k, i))
			}
			puts = append(puts, doc(fmt.Sprintf("bat/%016x/000000", i), batch))
		}
		puts = append(puts, doc(fmt.Sprintf("inv/%016x", i), inv))
	}
	for len(puts) > 0 {
		k := min(len(puts), 200)
		if _, err := j.Store().Commit(b.Context(), j.Distribution(), store.Transaction{Put: puts[:k]}); err != nil {
			b.Fatal(err)
		}
		puts = puts[k:]
	}
}
