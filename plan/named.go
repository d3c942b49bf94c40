// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

// named follows the named items through the ordered inventory.
type named struct {
	all   []namedItem // as given, without those that others cover
	exact []int       // into all, in byte order
	wild  []int       // likewise; no stem begins with another
	tags  []int

	nextExact, nextWild int
	extra               bool // a tag that the plan chose reaches the last entry, which is not selected
}

type namedItem struct {
	Item
	seen     bool
	lookedUp bool // a tag that the plan chose
}

// A hit is what named items do for an entry.
type hit uint8

const (
	missed  hit = iota
	spared      // only by a "/dir/*" that may leave this "/dir/" alone
	reached     // as far as named items are wanted to
)

// newNamed takes what the user named, and the tags that the plan adds.
func newNamed(given, chosen []cfpath.Item) *named {
	n := &named{}
	// Wildcards in byte order: what begins with another comes after it.
	var stems []string
	everything := false
	for _, it := range given {
		if it.Kind == cfpath.Wildcard {
			stems = append(stems, it.Text)
			everything = everything || it.Text == "/"
		}
	}
	slices.Sort(stems)
	kept := stems[:0]
	for _, s := range stems {
		if len(kept) == 0 || !strings.HasPrefix(s, kept[len(kept)-1]) {
			kept = append(kept, s)
		}
	}
	seen := make(map[cfpath.Item]bool, len(given))
	for _, it := range given {
		key := it
		drop := false
		switch it.Kind {
		case cfpath.Wildcard:
			_, found := slices.BinarySearch(kept, it.Text)
			drop = !found
		case cfpath.Path:
			i, found := slices.BinarySearch(kept, it.Text)
			if found {
				i++
			}
			drop = i > 0 && cfpath.Item{Kind: cfpath.Wildcard, Text: kept[i-1]}.MatchesSurely(it.Text)
		case cfpath.Tag:
			key.Text = strings.ToLower(it.Text)
			drop = everything
		}
		if drop || seen[key] {
			continue
		}
		seen[key] = true
		k := len(n.all)
		n.all = append(n.all, namedItem{Item: Item{Item: it, Reason: Reason{ReasonNamed, "named, and sent as it was named"}}})
		switch it.Kind {
		case cfpath.Wildcard:
			n.wild = append(n.wild, k)
		case cfpath.Path:
			n.exact = append(n.exact, k)
		case cfpath.Tag:
			n.tags = append(n.tags, k)
		}
	}
	for _, it := range chosen {
		n.tags = append(n.tags, len(n.all))
		n.all = append(n.all, namedItem{Item: Item{Item: it}, lookedUp: true})
	}
	for _, list := range [...][]int{n.exact, n.wild} {
		slices.SortFunc(list, func(a, b int) int { return strings.Compare(n.all[a].Item.Item.Text, n.all[b].Item.Item.Text) })
	}
	return n
}

// visit counts the entry with the items that reach it. Entries come in byte order.
func (n *named) visit(in *Input, doubtful func(string) bool) hit {
	e, selected := in.Entry, in.Selected
	if len(n.all) == 0 {
		return missed
	}
	got := missed
	n.extra = false
	text := func(k int) string { return n.all[k].Item.Item.Text }
	if e.Folded {
		// What is named inside it may well have been sighted.
		for _, list := range [...][]int{n.exact, n.wild} {
			i, _ := slices.BinarySearchFunc(list, e.Path, func(k int, p string) int { return strings.Compare(text(k), p) })
			for ; i < len(list) && strings.HasPrefix(text(list[i]), e.Path); i++ {
				it := &n.all[list[i]]
				it.seen = true
				inside := text(list[i])
				if it.Item.Item.Kind == cfpath.Wildcard {
					inside += "x" // it is not said how what it reaches goes on
				}
				it.Unsure = it.Unsure || selected && (!it.Item.Item.MatchesSurely(inside) || doubtful != nil && doubtful(inside))
			}
		}
	}
	for n.nextExact < len(n.exact) && text(n.exact[n.nextExact]) < e.Path {
		n.nextExact++
	}
	if n.nextExact < len(n.exact) && text(n.exact[n.nextExact]) == e.Path && !e.Folded {
		n.count(n.exact[n.nextExact], selected, cfpath.InDoubt(e.Path) || doubtful != nil && doubtful(e.Path))
		got = reached
	}
	// No stem begins with another, so once one is passed it matches no more.
	for n.nextWild < len(n.wild) && text(n.wild[n.nextWild]) < e.Path && !strings.HasPrefix(e.Path, text(n.wild[n.nextWild])) {
		n.nextWild++
	}
	if n.nextWild < len(n.wild) && strings.HasPrefix(e.Path, text(n.wild[n.nextWild])) {
		k := n.wild[n.nextWild]
		if len(e.Path) > 1 && len(text(k)) == len(e.Path) && strings.HasSuffix(e.Path, "/") {
			n.count(k, selected, false)
			got = max(got, spared)
		} else {
			unsure := !n.all[k].Item.Item.MatchesSurely(e.Path) ||
				doubtful != nil && len(text(k)) > pathLength(e.Path) && doubtful(e.Path)
			n.count(k, selected, unsure)
			got = reached
		}
	}
	for _, k := range n.tags {
		if slices.ContainsFunc(e.Tags, func(t string) bool { return strings.EqualFold(t, text(k)) }) {
			n.count(k, selected, false)
			perhaps := n.all[k].lookedUp && (!selected || in.partly())
			n.extra = n.extra || perhaps && got != reached
			if perhaps && !selected || !e.Mixed && !e.Folded {
				got = reached
			}
		}
	}
	return got
}

// directoriesIn are the stems in a folded entry that may leave their directories alone.
func (n *named) directoriesIn(folded string) (out []string) {
	for _, k := range n.wild {
		if stem := n.all[k].Item.Item.Text; strings.HasSuffix(stem, "/") && strings.HasPrefix(stem, folded) {
			out = append(out, stem)
		}
	}
	return out
}

func (n *named) count(k int, selected, unsure bool) {
	it := &n.all[k]
	it.seen = true
	if selected {
		it.Covers++
		it.Unsure = it.Unsure || unsure
	} else {
		it.Collateral++
	}
}

// items are the named items as they go out.
func (n *named) items(onlySeen bool) []Item {
	out := []Item{}
	for i := range n.all {
		if !n.all[i].lookedUp && (n.all[i].seen || !onlySeen) {
			out = append(out, n.all[i].Item)
		}
	}
	return out
}

// chosen are the tags that the plan added.
func (n *named) chosen() (out []Item) {
	for i := range n.all {
		if it := n.all[i].Item; n.all[i].lookedUp {
			it.Reason = Reason{ReasonTag, fmt.Sprintf("all %d entries that carry it are selected", it.Covers)}
			if it.Collateral > 0 {
				it.Reason.Text = fmt.Sprintf("%d of %d entries that carry it are selected, and the budgets allow the rest", it.Covers, it.Covers+it.Collateral)
			}
			out = append(out, it)
		}
	}
	return out
}

// pathLength is the length of a path without its query.
func pathLength(path string) int {
	stem, _, _ := cfpath.Split(path)
	return len(stem)
}
