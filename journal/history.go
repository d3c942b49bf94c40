// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
)

// A History answers what accepted batches have settled. It is built once from
// batches and then read; reading is safe for concurrent use.
type History struct {
	paths map[string]time.Time // newest send of an exact item
	stems []stem               // wildcards in byte order of their stems
	doubt func(path string) bool
}

type stem struct {
	item   cfpath.Item
	sent   time.Time
	parent int // index of the longest other stem that this one begins with, or -1
}

// NewHistory returns the history of those batches that CloudFront accepted. An
// exact item counts for a path only where its spelling is not in doubt, by
// cfpath.InDoubt or by doubt, which may be nil.
func NewHistory(batches []*Batch, doubt func(path string) bool) *History {
	if doubt == nil {
		doubt = func(string) bool { return false }
	}
	h := &History{paths: make(map[string]time.Time), doubt: doubt}
	wild := make(map[string]stem)
	for _, b := range batches {
		if !b.Purged() {
			continue
		}
		for _, text := range b.Items {
			it, err := cfpath.ParseItem(text)
			if err != nil {
				continue // CloudFront took it; we cannot say what it covers
			}
			switch it.Kind {
			case cfpath.Wildcard:
				if w := wild[it.Text]; b.Sent.After(w.sent) {
					wild[it.Text] = stem{item: it, sent: b.Sent}
				}
			case cfpath.Path:
				if b.Sent.After(h.paths[text]) {
					h.paths[text] = b.Sent
				}
			}
		}
	}
	keys := make([]string, 0, len(wild))
	for s := range wild {
		keys = append(keys, s)
	}
	sort.Strings(keys)
	var open []int // stems that the current one begins with, shortest first
	for i, s := range keys {
		w := wild[s]
		for len(open) > 0 && !strings.HasPrefix(s, keys[open[len(open)-1]]) {
			open = open[:len(open)-1]
		}
		w.parent = -1
		if len(open) > 0 {
			w.parent = open[len(open)-1]
		}
		h.stems = append(h.stems, w)
		open = append(open, i)
	}
	return h
}

// WithoutRepeats returns the batches that did not go out once more. Where items go out
// twice, it is because one removal may not be enough: what only the second one settles is
// not settled.
func WithoutRepeats(batches []*Batch) []*Batch {
	return slices.DeleteFunc(slices.Clone(batches), func(b *Batch) bool { return b.Repeat })
}

// Purged returns when the last batch was sent with an item that surely covers
// the path, and whether there is one.
func (h *History) Purged(path string) (time.Time, bool) {
	var at time.Time
	if name, err := cfpath.Name(path); err == nil {
		if t, ok := h.paths[name]; ok && !cfpath.InDoubt(path) && !h.doubt(path) {
			at = t
		}
	}
	// The last stem not after path is path's closest candidate; all others that
	// path begins with are among its parents.
	i := sort.Search(len(h.stems), func(i int) bool { return h.stems[i].item.Text > path }) - 1
	for ; i >= 0; i = h.stems[i].parent {
		if s := &h.stems[i]; s.sent.After(at) && s.item.MatchesSurely(path) {
			at = s.sent
		}
	}
	return at, !at.IsZero()
}

// PurgedAll is Purged for everything that an entry stands for: of a folded one,
// all that begins with its path.
func (h *History) PurgedAll(e *inventory.Entry) (time.Time, bool) {
	if !e.Folded {
		return h.Purged(e.Path)
	}
	var at time.Time
	for i := range h.stems {
		if s := &h.stems[i]; strings.HasPrefix(e.Path, s.item.Text) && s.sent.After(at) && s.item.MatchesSurely(e.Path+"x") {
			at = s.sent
		}
	}
	return at, !at.IsZero()
}

// Settles reports whether content of path that was on its way until end, give
// or take margin, has surely been purged since.
func (h *History) Settles(path string, end time.Time, margin time.Duration) bool {
	at, ok := h.Purged(path)
	return ok && at.After(end.Add(margin))
}

// Named returns when an item with just this text was last sent, sure or not.
func (h *History) Named(item string) time.Time { return h.paths[item] }
