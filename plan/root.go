// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

// A root is the default root object under its two paths, "/" and its own, each with any
// query. AWS does not say under which of them CloudFront holds what was asked for as
// "/", so what is sent for one is sent for the other too:
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/DefaultRootObject.html.
type root struct {
	page     cfpath.RootObject
	seen     []rootEntry // the entries under either path, in byte order
	folded   []rootEntry // those of them that are folded and not selected
	doubtful func(path string) bool

	items      []Item // that have to go out beside others
	collateral int    // entries that nobody selected and only these reach
}

type rootEntry struct {
	path     string
	selected bool
	wanted   bool // it needs an item
	reached  bool // by what is named, or along with a folded entry: counted already
	folded   bool
}

// newRoot is nil if there is no root object.
func newRoot(page cfpath.RootObject, doubtful func(path string) bool) *root {
	if page == "" {
		return nil
	}
	return &root{page: page, doubtful: doubtful}
}

// note keeps an entry that is the root object's.
func (r *root) note(in *Input, reached bool) {
	e := in.Entry
	if _, ok := r.page.Other(e.Path); ok || e.Folded && strings.HasPrefix(string(r.page), e.Path) {
		selected := in.Selected && !in.partly()
		r.seen = append(r.seen, rootEntry{e.Path, selected, selected && !in.InFlight, reached, e.Folded})
		if e.Folded && !selected {
			r.folded = append(r.folded, r.seen[len(r.seen)-1])
		}
	}
}

// sighted reports whether an item names the page, and its other path is an entry.
func (r *root) sighted(it cfpath.Item) bool {
	if r == nil || it.Kind != cfpath.Path {
		return false
	}
	other, ok := r.page.Other(it.Text)
	if !ok {
		return false
	}
	_, found := slices.BinarySearchFunc(r.seen, other, func(e rootEntry, p string) int { return strings.Compare(e.path, p) })
	return found
}

// below are the entries whose paths begin with a prefix.
func (r *root) below(prefix string) []rootEntry {
	from, _ := slices.BinarySearchFunc(r.seen, prefix, func(e rootEntry, p string) int { return strings.Compare(e.path, p) })
	to := from
	for to < len(r.seen) && strings.HasPrefix(r.seen[to].path, prefix) {
		to++
	}
	return r.seen[from:to]
}

// beside finds what has to go out beside these items.
func (r *root) beside(given []Item) {
	have, object := ReachOf(given), string(r.page)
	for i := range given {
		it, named := given[i].Item, given[i].Reason.Code == ReasonNamed
		switch {
		case it.Kind == cfpath.Tag || it.Kind == cfpath.Wildcard && it.Text == "/":
		case it.Kind == cfpath.Path:
			r.path(&have, it.Text)
		case !strings.HasPrefix(object, it.Text):
			r.wildcard(&have, it.Text, named)
		default: // It reaches the object, with every query.
			self, queries := named, named && it.Text == object
			for _, e := range r.below(it.Text) {
				self = self || e.wanted && (e.folded || e.path == object)
				queries = queries || e.wanted && (e.folded || e.path != object)
			}
			if self {
				r.path(&have, object)
			}
			if queries {
				r.wildcard(&have, object+"?", named)
			}
		}
	}
}

// path adds the other path of one that goes out.
func (r *root) path(have *Reach, path string) {
	other, ok := r.page.Other(path)
	if !ok {
		return
	}
	if _, err := cfpath.Name(other); err == nil {
		r.add(have, cfpath.Item{Kind: cfpath.Path, Text: other}, path)
	} else if stem, ok := r.stem(other, false); ok {
		r.add(have, cfpath.Item{Kind: cfpath.Wildcard, Text: stem}, path)
	}
}

// stem is the longest that can be sent for a path, if it reaches nothing but the root object and,
// unless it is named, nothing that nobody selected.
func (r *root) stem(path string, named bool) (string, bool) {
	stem := path
	if !stemmable(path) {
		stem, _ = cfpath.TightestStem(path)
	}
	_, ok := r.page.Other(stem)
	pure := named || !slices.ContainsFunc(r.below(stem), func(e rootEntry) bool { return !e.selected })
	return stem, ok && stem != "/" && pure && stemmable(stem)
}

// wildcard adds the other stem of one that goes out. Unless that is named, it must not reach
// what nobody selected: then the paths that need it are added one by one.
func (r *root) wildcard(have *Reach, stem string, named bool) {
	other, ok := r.page.Other(stem)
	if !ok {
		return
	}
	if other, ok := r.stem(other, named); ok {
		r.add(have, cfpath.Item{Kind: cfpath.Wildcard, Text: other}, stem+"*")
		return
	}
	for _, e := range r.below(stem) {
		if e.wanted {
			r.path(have, e.path)
		}
	}
}

func (r *root) add(have *Reach, it cfpath.Item, of string) {
	if have.holds(it.Text, it.Kind == cfpath.Path) {
		return
	}
	out := Item{Item: it, Reason: Reason{ReasonRoot, fmt.Sprintf("CloudFront may hold %s under this path: it is the default root object", of)}}
	out.Unsure = it.Kind == cfpath.Path && (cfpath.InDoubt(it.Text) || r.doubtful != nil && r.doubtful(it.Text))
	own := false
	for _, e := range r.below(it.Text) {
		own = own || it.Kind == cfpath.Path && !e.folded && e.path == it.Text
		switch {
		case it.Kind == cfpath.Path && (e.folded || e.path != it.Text):
		case e.selected:
			out.Covers++
			out.Unsure = out.Unsure || !it.MatchesSurely(e.path)
		default:
			out.Collateral++
			if !e.reached && !have.holds(e.path, !e.folded) {
				r.collateral++
			}
		}
	}
	for i := range r.folded { // of which it may reach a part
		e := &r.folded[i]
		if own || !strings.HasPrefix(it.Text, e.path) || it.Matches(e.path) && it.Kind == cfpath.Wildcard {
			continue
		}
		out.Collateral++
		if !e.reached && !have.holds(e.path, false) {
			r.collateral++
			e.reached = true
		}
	}
	have.add(it)
	r.items = append(r.items, out)
}
