// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package memstore

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestSortedIsAnOrderedMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s sorted
		model := map[string]int64{}
		paths := rapid.StringOfN(rapid.RuneFrom([]rune("ab/")), 0, 10, -1)
		for n := range int64(rapid.IntRange(0, 3*maxBlock).Draw(t, "steps")) {
			path := paths.Draw(t, "path")
			if rapid.IntRange(0, 3).Draw(t, "op") > 0 {
				s.at(path).Last = n
				model[path] = n
			} else if b, i, found := s.find(path); found {
				s.remove(b, i)
				delete(model, path)
			}
		}
		from := paths.Draw(t, "from")
		var got, want []string
		s.from(from, func(it *item) bool {
			if it.record.Last != model[it.path] {
				t.Fatalf("%q holds %d, want %d", it.path, it.record.Last, model[it.path])
			}
			got = append(got, it.path)
			return true
		})
		for _, path := range slices.Sorted(maps.Keys(model)) {
			if path >= from {
				want = append(want, path)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("from %q: %q, want %q", from, got, want)
		}
	})
}

func TestSortedSplits(t *testing.T) {
	const n = 10 * maxBlock
	for name, order := range map[string]func(i int) int{
		"up":       func(i int) int { return i },
		"down":     func(i int) int { return n - 1 - i },
		"all over": func(i int) int { return i * 1031 % n },
	} {
		t.Run(name, func(t *testing.T) {
			var s sorted
			for i := range n {
				k := order(i)
				s.at(string([]byte{byte(k >> 8), byte(k)})).Last = int64(k)
			}
			next := int64(0)
			s.from("", func(it *item) bool {
				if it.record.Last != next {
					t.Fatalf("got %d, want %d", it.record.Last, next)
				}
				next++
				return true
			})
			if next != n {
				t.Fatalf("%d items of %d", next, n)
			}
		})
	}
}
