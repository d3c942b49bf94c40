// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package redisstore_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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

// The suite, on a server that is shared: nothing else there is looked at or
// removed.
func TestStore(t *testing.T) {
	s := start(t, false, "--appendonly", "yes", "--appendfsync", "always")
	s.cli("set", "cftrack", "somebody else's")
	s.cli("set", "t1:x", "likewise")
	called := "" // a server counts from its start
	address := func(query string) string { return s.address(query + "-mine") }
	storetest.Run(t, harness(address, func() {
		called += s.cli("info", "commandstats")
		s.kill()
		s.up()
	}))
	called += s.cli("info", "commandstats")
	for _, command := range []string{"keys", "scan", "flushdb", "flushall", "sort", "monitor", "config", "randomkey"} {
		if strings.Contains(called, "cmdstat_"+command+":") || strings.Contains(called, "cmdstat_"+command+"|") {
			t.Errorf("%s was called", command)
		}
	}
	if s.cli("get", "cftrack") != "somebody else's" || s.cli("get", "t1:x") != "likewise" {
		t.Error("somebody else's keys changed")
	}
	for _, key := range strings.Fields(s.cli("--scan")) {
		if !strings.Contains(key, "-mine:") && key != "cftrack" && key != "t1:x" {
			t.Errorf("key %q lies outside the prefix", key)
		}
	}
}

// Pages divide as they grow, join as they empty, and leave nothing behind.
func TestPages(t *testing.T) {
	const n = 5000
	s := start(t, false)
	st := open(t, s.address("prefix=p"))
	pages := func() (indexed, kept int) {
		indexed, err := strconv.Atoi(s.cli("zcard", "p:{d.d}:index"))
		if err != nil {
			t.Fatal(err)
		}
		return indexed, len(strings.Fields(s.cli("--scan", "--pattern", "p:{d.d}:p:*")))
	}
	check := func(lowest, highest int) {
		t.Helper()
		if indexed, kept := pages(); indexed != kept || indexed < lowest || indexed > highest {
			t.Errorf("the index has %d pages, %d are kept, want %d to %d", indexed, kept, lowest, highest)
		}
	}
	updates := many(n)
	for chunk := range slices.Chunk(updates, 700) {
		merge(t, st, chunk...)
	}
	check(n/120, n/50)
	for _, id := range strings.Fields(s.cli("--scan", "--pattern", "p:{d.d}:p:*")) {
		if encoding := s.cli("object", "encoding", id); encoding != "listpack" && encoding != "ziplist" {
			t.Errorf("a page is kept as %s", encoding)
			break
		}
	}
	var all []store.Condition
	for _, u := range updates {
		all = append(all, store.Condition{Path: u.Path, Before: base.Add(time.Minute)})
	}
	if cleared, err := st.Clear(t.Context(), "d", all[n/2:]); err != nil || cleared != n/2 {
		t.Fatalf("cleared %d, %v", cleared, err)
	}
	check(n/2/120, n/2/50+2)
	if swept, err := st.Sweep(t.Context(), "d", base.Add(100*time.Hour)); err != nil || swept != n/2 {
		t.Fatalf("swept %d, %v", swept, err)
	}
	check(1, 2)
}

func BenchmarkStore(b *testing.B) { storetest.Bench(b, harness(start(b, false).address, nil)) }
