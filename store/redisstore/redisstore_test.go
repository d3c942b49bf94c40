// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package redisstore_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/redisstore"
	"github.com/cf-invalidation-tracker/cftrack/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(tb testing.TB, address string) *redisstore.Store {
	tb.Helper()
	st, err := redisstore.Open(address, nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := st.Close(); err != nil {
			tb.Error(err)
		}
	})
	return st
}

// harness opens stores on one server, each under a prefix of its own.
func harness(address func(query string) string, crash func()) storetest.Harness {
	var n atomic.Int64
	addresses := make(map[store.Store]string)
	h := storetest.Harness{
		Open: func(tb testing.TB) store.Store {
			a := address(fmt.Sprintf("prefix=t%d", n.Add(1)))
			st := open(tb, a)
			addresses[st] = a
			return st
		},
	}
	h.Reopen = func(tb testing.TB, st store.Store) store.Store { return open(tb, addresses[st]) }
	if crash != nil {
		h.Crash = func(testing.TB, store.Store) { crash() }
	}
	return h
}

func TestStore(t *testing.T) {
	s := start(t, false, "--appendonly", "yes", "--appendfsync", "always")
	storetest.Run(t, harness(s.address, func() { s.kill(); s.up() }))
}

func BenchmarkStore(b *testing.B) { storetest.Bench(b, harness(start(b, false).address, nil)) }
