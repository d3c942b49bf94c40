// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cftrack_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/cf-invalidation-tracker/cftrack"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/memstore"
)

const dist = "E1ABC"

func live(t *testing.T, st store.Store) map[string]inventory.Entry {
	t.Helper()
	m := make(map[string]inventory.Entry)
	for e, err := range st.Scan(t.Context(), dist, store.Range{Now: time.Now()}) {
		if err != nil {
			t.Fatal(err)
		}
		m[e.Path] = e
	}
	return m
}

func TestFlushesEverySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memstore.New()
		tr, err := cftrack.Open(st, dist, nil)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := tr.Ready(); err != nil {
			t.Fatal(err)
		}
		if err := tr.Record(t.Context(), "/a", time.Hour); err != nil {
			t.Fatal(err)
		}
		time.Sleep(999 * time.Millisecond)
		if n := len(live(t, st)); n != 0 {
			t.Fatalf("%d entries before the flush", n)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if n := len(live(t, st)); n != 1 {
			t.Fatalf("%d entries after a second", n)
		}
		if err := tr.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}
