// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"slices"
	"strings"
	"sync/atomic"
)

// An ordered is a sorted list of strings. Entries are mostly asked for in byte
// order, so it looks first where it found the one before: with any number of
// strings that is two comparisons. Where many ask at once in different places,
// each search is a binary one.
type ordered struct {
	list []string
	hint atomic.Int32
}

// finish must follow the last change of list.
func (o *ordered) finish() {
	slices.Sort(o.list)
	o.list = slices.Compact(o.list)
}

// find returns the place of the first string that is not before s, and whether
// it is s.
func (o *ordered) find(s string) (int, bool) {
	n := len(o.list)
	if n == 0 {
		return 0, false
	}
	was := int(o.hint.Load())
	i := was
	if i > 0 && o.list[i-1] >= s {
		i, _ = slices.BinarySearch(o.list[:i], s)
	} else {
		// In strides that grow, for those that are not much further on.
		step := 1
		for i < n && o.list[i] < s {
			i += step
			step *= 2
		}
		if step > 2 {
			from := i - step/2 + 1
			i, _ = slices.BinarySearch(o.list[from:min(i, n)], s)
			i += from
		}
	}
	if i != was {
		o.hint.Store(int32(i))
	}
	return i, i < n && o.list[i] == s
}

// has tells whether s is in the list.
func (o *ordered) has(s string) bool {
	_, found := o.find(s)
	return found
}

// begun tells whether one of the list begins s, where none begins another. All
// from a prefix of s up to s begin with that prefix; so only the last one
// before s can be it.
func (o *ordered) begun(s string) bool {
	i, found := o.find(s)
	return found || i > 0 && strings.HasPrefix(s, o.list[i-1])
}

// begins tells whether one of the list begins with prefix.
func (o *ordered) begins(prefix string) bool {
	i, _ := o.find(prefix)
	return i < len(o.list) && strings.HasPrefix(o.list[i], prefix)
}

// shortest keeps of a sorted list what nothing else in it begins.
func shortest(sorted []string) []string {
	kept := sorted[:0]
	for _, p := range sorted {
		if len(kept) == 0 || !strings.HasPrefix(p, kept[len(kept)-1]) {
			kept = append(kept, p)
		}
	}
	return kept
}
