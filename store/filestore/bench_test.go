// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/storetest"
)

// BenchmarkFiveMillion merges 5,000,000 sightings, 30 % of them repeats, in
// batches of 1,000, each on disk before the next; scans what became of them
// before and after compaction; and weighs it. Beside the store runs its peer,
// Pebble with the same settings and nothing around it. Run it with
// -benchtime=1x; -short makes it a tenth.
func BenchmarkFiveMillion(b *testing.B) {
	total := 5_000_000
	if testing.Short() {
		total /= 10
	}
	now := time.Now()
	for _, writers := range []int{1, 2} {
		for _, name := range []string{"pebble", "store"} {
			b.Run(fmt.Sprintf("%s/writers=%d", name, writers), func(b *testing.B) {
				for b.Loop() {
					s := open(b, b.TempDir(), nil)
					db := s.owner.engine.db
					merge := func(updates []inventory.Update) error { return s.Merge(b.Context(), "E2EXAMPLE", updates) }
					scan := func() (n int) {
						for _, err := range s.Scan(b.Context(), "E2EXAMPLE", store.Range{Now: now}) {
							if err != nil {
								b.Fatal(err)
							}
							n++
						}
						return n
					}
					if name == "pebble" {
						merge = func(updates []inventory.Update) error { return bareMerge(db, updates) }
						scan = func() int { return bareScan(b, db) }
					}
					measure(b, db, writers, total, now, merge, scan)
					size := diskUsage(b, s.dir)
					b.ReportMetric(float64(size)/float64(scan()), "B/entry")
					if err := s.Close(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func measure(b *testing.B, db *pebble.DB, writers, total int, now time.Time, merge func([]inventory.Update) error, scan func() int) {
	b.Helper()
	debug.FreeOSMemory()
	// Start the peak anew; where that is not allowed, it is that of all so far.
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
	var next, busy, worst atomic.Int64
	used := processorTime(b)
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for {
				i := int(next.Add(storetest.Batch)) - storetest.Batch
				if i >= total {
					return
				}
				updates := storetest.Updates(now, i, storetest.Batch)
				begun := time.Now()
				if err := merge(updates); err != nil {
					b.Error(err)
					return
				}
				took := int64(time.Since(begun))
				busy.Add(took)
				for w := worst.Load(); took > w && !worst.CompareAndSwap(w, took); w = worst.Load() {
				}
			}
		})
	}
	wg.Wait()
	// What a merge costs however busy the machine is, with what Pebble does in
	// the background and the little it takes to make up a sighting.
	b.ReportMetric(float64(processorTime(b)-used)/float64(total), "cpu-ns/merge")
	b.ReportMetric(float64(total)/(time.Duration(busy.Load()).Seconds()/float64(writers)), "merges/s")
	b.ReportMetric(float64(worst.Load())/1e6, "worst-ms")
	b.ReportMetric(float64(peak())/(1<<20), "peak-MB")
	rate := func(unit string) {
		begun, used := time.Now(), processorTime(b)
		n := scan()
		b.ReportMetric(float64(n)/time.Since(begun).Seconds(), unit)
		b.ReportMetric(float64(processorTime(b)-used)/float64(n), "cpu-ns/"+strings.Replace(unit, "/s", "", 1))
	}
	rate("scanned/s-before")
	if err := db.Compact(b.Context(), []byte{0}, []byte{0xff}, true); err != nil {
		b.Fatal(err)
	}
	rate("scanned/s")
}

func bareMerge(db *pebble.DB, updates []inventory.Update) error {
	b := db.NewBatchWithSize(len(updates) * 128)
	head := prefix(kindEntry, "E2EXAMPLE")
	var value []byte
	for i := range updates {
		value = updates[i].Record.Append(value[:0])
		if err := b.Merge(append(head, updates[i].Path...), value, nil); err != nil {
			return err
		}
	}
	if err := db.Apply(b, pebble.Sync); err != nil {
		return err
	}
	return b.Close()
}

func bareScan(b *testing.B, db *pebble.DB) (n int) {
	b.Helper()
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{kindEntry}, UpperBound: []byte{kindEntry + 1}})
	if err != nil {
		b.Fatal(err)
	}
	size := 0
	for valid := it.First(); valid; valid = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			b.Fatal(err)
		}
		size += len(it.Key()) + len(v)
		n++
	}
	if err := it.Close(); err != nil || size == 0 {
		b.Fatal(size, err)
	}
	return n
}

// peak returns the process's peak resident memory in bytes, or 0 where the
// system does not tell.
func peak() int64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	line, _, _ := strings.Cut(rest, "kB")
	n, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	if err != nil {
		return 0
	}
	return n << 10
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func diskUsage(b *testing.B, dir string) (size int64) {
	b.Helper()
	if err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			info, err := d.Info()
			if err != nil {
				return err
			}
			size += info.Size()
		}
		return err
	}); err != nil {
		b.Fatal(err)
	}
	return size
}
