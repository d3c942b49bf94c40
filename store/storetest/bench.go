// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// Batch is how many updates the benchmarks merge at once.
const Batch = 1000

// Path returns the path of the i-th sighting of a stream of which 30 % repeat an
// earlier path. It is 66 bytes long, below one of 997 directories, and otherwise
// without order, as an origin with many readers sees it.
func Path(i int) string {
	id := uint64(i/10*7 + max(i%10-3, 0))
	if i%10 < 3 {
		id = mix(uint64(i)) % max(id, 1)
	}
	path := append(make([]byte, 0, 66), "/shop/"...)
	path = append(path, digits(id%997, 3)...)
	path = append(path, '/')
	path = hex.AppendEncode(path, binary.BigEndian.AppendUint64(nil, mix(id)))
	path = append(path, "/a-page-with-quite-a-long-name.html?v="...)
	return string(append(path, digits(id%89, 2)...))
}

// digits returns the last width decimal digits of n, at most 3.
func digits(n uint64, width int) []byte {
	return []byte{'0' + byte(n/100%10), '0' + byte(n/10%10), '0' + byte(n%10)}[3-width:]
}

// mix scatters x (the finaliser of SplitMix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Updates returns n sightings of the stream, from the i-th on, a millisecond
// apart from start on and alive for a day.
func Updates(start time.Time, i, n int) []inventory.Update {
	updates := make([]inventory.Update, n)
	for j := range updates {
		end := start.Add(time.Duration(i+j) * time.Millisecond)
		updates[j] = inventory.Update{Path: Path(i + j), Record: inventory.Sighting{End: end, Expires: end.Add(24 * time.Hour)}.Record()}
	}
	return updates
}

// Bench measures the store: sightings merged, entries scanned and cleared, and
// documents committed, a second.
func Bench(b *testing.B, h Harness) {
	const size = 200_000
	open := func(b *testing.B, n int) (store.Store, time.Time) {
		st := h.Open(b)
		b.Cleanup(func() {
			if err := st.Close(); err != nil {
				b.Error(err)
			}
		})
		now, err := st.Now(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		for i := 0; i < n; i += Batch {
			if err := st.Merge(b.Context(), "d", Updates(now, i, Batch)); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportAllocs()
		return st, now
	}
	rate := func(b *testing.B, n int, unit string) { b.ReportMetric(float64(n)/b.Elapsed().Seconds(), unit) }

	b.Run("merge", func(b *testing.B) {
		st, now := open(b, 0)
		n := 0
		for b.Loop() {
			b.StopTimer()
			updates := Updates(now, n, Batch)
			b.StartTimer()
			if err := st.Merge(b.Context(), "d", updates); err != nil {
				b.Fatal(err)
			}
			n += Batch
		}
		rate(b, n, "sightings/s")
	})
	for name, prefix := range map[string]string{"scan": "", "prefix": "/shop/12"} {
		b.Run(name, func(b *testing.B) {
			st, now := open(b, size)
			n := 0
			for b.Loop() {
				for _, err := range st.Scan(b.Context(), "d", store.Range{Prefix: prefix, Now: now}) {
					if err != nil {
						b.Fatal(err)
					}
					n++
				}
			}
			if n == 0 {
				b.Fatal("nothing was scanned")
			}
			rate(b, n, "entries/s")
		})
	}
	b.Run("clear", func(b *testing.B) {
		st, now := open(b, 0)
		n := 0
		for i := 0; b.Loop(); i += Batch {
			b.StopTimer()
			updates := Updates(now, i, Batch)
			if err := st.Merge(b.Context(), "d", updates); err != nil {
				b.Fatal(err)
			}
			conditions := make([]store.Condition, len(updates))
			for j, u := range updates {
				conditions[j] = store.Condition{Path: u.Path, Before: now.Add(1000 * time.Hour)}
			}
			b.StartTimer()
			cleared, err := st.Clear(b.Context(), "d", conditions)
			if err != nil {
				b.Fatal(err)
			}
			n += cleared
		}
		rate(b, n, "entries/s")
	})
	b.Run("commit", func(b *testing.B) {
		st, _ := open(b, 0)
		version, n := uint64(0), 0
		for b.Loop() {
			var err error
			version, err = st.Commit(b.Context(), "d", store.Transaction{
				Require: []store.Requirement{{Key: "k", Version: version}},
				Put:     []store.Put{{Key: "k", Value: strconv.AppendInt(nil, int64(n), 10)}},
			})
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		rate(b, n, "commits/s")
	})
}
