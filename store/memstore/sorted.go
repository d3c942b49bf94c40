// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package memstore

import (
	"slices"
	"sort"
	"strings"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
)

// maxBlock keeps what an insertion moves within a few cache lines' reach, and
// the list of blocks short.
const maxBlock = 256

type item struct {
	path   string
	record inventory.Record
}

// sorted is an ordered map from path to record: a list of blocks, none of them
// empty, each sorted and below the next.
type sorted struct {
	blocks [][]item
}

// find returns where path is, or where it would be inserted.
func (s *sorted) find(path string) (block, index int, found bool) {
	block = sort.Search(len(s.blocks), func(i int) bool { return s.blocks[i][0].path > path }) - 1
	if block < 0 {
		return 0, 0, false
	}
	index, found = slices.BinarySearchFunc(s.blocks[block], path,
		func(it item, path string) int { return strings.Compare(it.path, path) })
	return block, index, found
}

// at returns the record of path, made if it is not there. The pointer is good
// until the next at or remove.
func (s *sorted) at(path string) *inventory.Record {
	if len(s.blocks) == 0 {
		s.blocks = [][]item{{{path: strings.Clone(path)}}}
		return &s.blocks[0][0].record
	}
	b, i, found := s.find(path)
	if found {
		return &s.blocks[b][i].record
	}
	if full := s.blocks[b]; len(full) == maxBlock {
		// What arrives in order leaves full blocks behind, not half-empty ones.
		half := maxBlock / 2
		if i == maxBlock {
			half = maxBlock - 1
		}
		s.blocks = slices.Insert(s.blocks, b+1, slices.Clone(full[half:]))
		clear(full[half:])
		s.blocks[b] = full[:half]
		if i >= half {
			b, i = b+1, i-half
		}
	}
	s.blocks[b] = slices.Insert(s.blocks[b], i, item{path: strings.Clone(path)})
	return &s.blocks[b][i].record
}

// remove removes what find found.
func (s *sorted) remove(b, i int) {
	s.blocks[b] = slices.Delete(s.blocks[b], i, i+1)
	if len(s.blocks[b]) == 0 {
		s.blocks = slices.Delete(s.blocks, b, b+1)
	}
}

// from calls f for each item from path on, in order, until f returns false.
func (s *sorted) from(path string, f func(*item) bool) {
	b, i, _ := s.find(path)
	for ; b < len(s.blocks); b, i = b+1, 0 {
		for ; i < len(s.blocks[b]); i++ {
			if !f(&s.blocks[b][i]) {
				return
			}
		}
	}
}
