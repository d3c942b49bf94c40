// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
)

// How much a pass remembers of native tags. What is beyond is not looked up as a tag.
const (
	maxTags       = 1 << 16 // distinct ones
	maxSignatures = 1 << 16 // distinct combinations
	maxSigs       = 256     // distinct combinations below one item
)

// tags are what a pass learns of native tags. An entry's signature is the
// combination of tags of which each would cover it; it is 0 if there is none.
//
// Nothing is known of a tag before the last entry, so every tag of what is selected
// is a candidate until then.
type tags struct {
	ids    map[string]int32 // by the tag in lower case, one more than the index in known
	known  []tag
	sigIDs map[string]int32
	sigs   [][]int32 // tags, as indexes in known; a signature is one more than the index here
	alone  []*sigset // for each signature, the set of just it
	key    []byte
	others int // entries looked at for collateral

	needs []*sigset // for each of tree.items, what all must be covered so that it is not needed
	full  bool      // something was left out
}

// A sigset is a set of signatures in ascending order. Sets are shared, and do not change.
type sigset []int32

type tag struct {
	text       string // as it was sighted first
	covers     int    // selected entries that need an item
	last       int    // of tags.others
	collateral int    // entries carrying it that nobody selected and nothing named reaches
}

func newTags() *tags {
	return &tags{ids: map[string]int32{}, sigIDs: map[string]int32{}}
}

func (g *tags) id(text string) (int32, bool) {
	lower := strings.ToLower(text)
	id, ok := g.ids[lower]
	if !ok {
		if len(g.known) == maxTags {
			g.full = true
			return 0, false
		}
		g.known = append(g.known, tag{text: strings.Clone(text)})
		id = int32(len(g.known))
		g.ids[strings.Clone(lower)] = id
	}
	return id - 1, true
}

// other notes an entry that is collateral of each of its tags.
func (g *tags) other(e *inventory.Entry) {
	g.others++
	for _, t := range e.Tags {
		if id, ok := g.id(t); ok && g.known[id].last < g.others { // not in two spellings
			g.known[id].collateral++
			g.known[id].last = g.others
		}
	}
}

// signature is that of an entry that needs an item.
func (g *tags) signature(e *inventory.Entry) int32 {
	if e.Mixed || e.Folded || len(e.Tags) == 0 {
		return 0
	}
	var list [inventory.NativeTags]int32
	ids := list[:0]
	for _, t := range e.Tags {
		if id, ok := g.id(t); ok && !slices.Contains(ids, id) {
			g.known[id].covers++
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return 0
	}
	slices.Sort(ids)
	g.key = g.key[:0]
	for _, id := range ids {
		g.key = binary.AppendUvarint(g.key, uint64(id))
	}
	sig, ok := g.sigIDs[string(g.key)]
	if !ok {
		if len(g.sigs) == maxSignatures {
			g.full = true
			return 0
		}
		g.sigs = append(g.sigs, slices.Clone(ids))
		sig = int32(len(g.sigs))
		g.alone = append(g.alone, &sigset{sig})
		g.sigIDs[string(g.key)] = sig
	}
	return sig
}

// single is the set of one signature, nil if it is 0.
func (g *tags) single(sig int32) *sigset {
	if sig == 0 {
		return nil
	}
	return g.alone[sig-1]
}

// union is the union of two sets of signatures; nil is what no tags can cover.
func union(a, b *sigset) *sigset {
	switch {
	case a == nil || b == nil:
		return nil
	case a == b || len(*a) > maxSigs || contains(*a, *b): // more is not looked at
		return a
	case contains(*b, *a):
		return b
	}
	both := slices.Concat(*a, *b)
	slices.Sort(both)
	both = slices.Compact(both)
	return &both
}

// contains tells whether all of b, in order, is in a, in order.
func contains(a, b sigset) bool {
	for _, x := range b {
		if _, ok := slices.BinarySearch(a, x); !ok {
			return false
		}
	}
	return true
}

// cover states the choice of tags as a problem of covering: which tags make
// which items needless. Only tags that usable allows are looked at.
func (g *tags) cover(t *tree, usable func(*tag) bool) *cover {
	c := &cover{tags: len(g.known)}
	good := make([]bool, len(g.known))
	for i := range g.known {
		_, err := cfpath.ParseItem("#" + g.known[i].text)
		good[i] = err == nil && g.known[i].covers > 0 && usable(&g.known[i])
	}
	sigs := make([][]int32, len(g.sigs))
	for i, ids := range g.sigs {
		for _, id := range ids {
			if good[id] {
				sigs[i] = append(sigs[i], id)
			}
		}
	}
	same := map[string]int{}
	add := func(needs *sigset, weight int) {
		n := need{weight: weight}
		g.key = g.key[:0]
		if needs == nil {
			needs = &sigset{}
		}
		for _, s := range *needs {
			if sigs[s-1] == nil {
				n.sigs = nil
				break
			}
			n.sigs = append(n.sigs, sigs[s-1])
			g.key = binary.AppendUvarint(g.key, uint64(s))
		}
		if n.sigs == nil {
			if weight == 1 {
				c.must++
			}
			return
		}
		if weight > 1 {
			g.key = append(g.key, 0xFF)
		}
		if i, ok := same[string(g.key)]; ok {
			c.needs[i].weight += weight
			return
		}
		same[string(g.key)] = len(c.needs)
		c.needs = append(c.needs, n)
	}
	for _, needs := range g.needs {
		if needs != nil && len(*needs) > maxSigs { // too many combinations to be worth it
			g.full, needs = true, nil
		}
		add(needs, 1)
	}
	for _, tr := range t.uncovered {
		add(g.single(tr.sig), heavy)
	}
	return c
}

// items are the tags as items, in order.
func (g *tags) items(ids []int32) (out []cfpath.Item) {
	for _, id := range ids {
		out = append(out, cfpath.Item{Kind: cfpath.Tag, Text: g.known[id].text})
	}
	slices.SortFunc(out, func(a, b cfpath.Item) int { return strings.Compare(a.Text, b.Text) })
	return out
}
