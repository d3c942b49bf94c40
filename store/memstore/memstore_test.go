// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package memstore_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/memstore"
	"github.com/cf-invalidation-tracker/cftrack/store/storetest"
)

var harness = storetest.Harness{Open: func(testing.TB) store.Store { return memstore.New() }}

func TestStore(t *testing.T) { storetest.Run(t, harness) }

func BenchmarkStore(b *testing.B) { storetest.Bench(b, harness) }

func TestNowFollowsTheClockOfABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memstore.New()
		before, err := st.Now(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		after, err := st.Now(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if d := after.Sub(before); d != time.Hour {
			t.Errorf("%v passed, want an hour", d)
		}
	})
}
