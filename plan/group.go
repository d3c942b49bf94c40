// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"strconv"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

// A group is a subtree of selected entries only.
type group struct {
	path   string // of any entry in it
	lo, hi int    // path[:n] names the same subtree for all n from lo to hi
	noWild bool   // what lies around it is folded and not selected

	covers, collateral int
	need               int   // how many leaves need an item
	one                leaf  // the first of them
	two                *leaf // with directory: the second
	sure               int   // the smallest of theirs
	directory          bool  // path[:hi] is one of them, and ends in '/'

	children []part // if no stem of its own can be used

	sigs *sigset // of the leaves; nil if there are tags for not all of them
	rest *sigset // with directory: of the leaves but that
}

// A part of a group is a group, or one leaf that an exact item covers.
type part struct {
	group *group
	one   leaf
}

// absorb adds what is in o.
func (g *group) absorb(o *group) {
	g.covers += o.covers
	g.collateral += o.collateral
	if o.need == 0 {
		return
	}
	if g.directory {
		if g.need == 1 {
			second := o.one
			g.rest, g.two = o.sigs, &second
		} else {
			g.rest = union(g.rest, o.sigs)
		}
	}
	if g.need == 0 {
		g.one, g.sure, g.sigs = o.one, o.sure, o.sigs
	} else {
		g.sigs = union(g.sigs, o.sigs)
	}
	g.need += o.need
	g.sure = min(g.sure, o.sure)
}

// count adds entries below a node that is not all selected.
func (g *group) count(covers, need, sure int) {
	g.covers += covers
	if need > 0 {
		if g.need == 0 {
			g.sure = sure
		}
		g.sure = min(g.sure, sure)
		g.need += need
	}
}

// put adds an item, which is not needed if tags cover all leaves with these signatures.
func (t *tree) put(it draft, sigs *sigset) {
	t.items = append(t.items, it)
	if t.tags != nil {
		t.tags.needs = append(t.tags.needs, sigs)
	}
}

// putExact adds the exact item of a leaf.
func (t *tree) putExact(l *leaf, code string) { t.put(exactItem(l, code), t.tags.single(l.sig)) }

// emit makes items of a group that needs any.
func (t *tree) emit(g *group) {
	if g.need == 1 && g.one.nameable() {
		t.putExact(&g.one, g.one.reason())
		return
	}
	n := t.pick(g)
	if n == 0 && len(g.children) > 0 {
		for i := range g.children {
			if p := &g.children[i]; p.group != nil {
				t.emit(p.group)
			} else {
				t.putExact(&p.one, p.one.reason())
			}
		}
		return
	}
	if g.need == 1 && g.one.trouble == nil && !g.one.folded && (n == 0 || n > g.sure) {
		t.putExact(&g.one, g.one.reason())
		return
	}
	if n == 0 { // only an entry in trouble is left without
		t.uncovered = append(t.uncovered, g.one.trouble)
		return
	}
	directory := g.directory && n == g.hi && n > 1
	if directory && g.need == 2 && g.one.nameable() && g.two.nameable() {
		// Two items either way, and exact ones go out faster.
		t.putExact(&g.one, g.one.reason())
		t.putExact(g.two, g.two.reason())
		return
	}
	if !directory {
		t.put(wildcardItem(g, n), g.sigs)
		return
	}
	t.put(wildcardItem(g, n), g.rest)
	t.putExact(&g.one, ReasonDirectory)
}

func wildcardItem(g *group, n int) draft {
	stem := g.path[:n]
	why := &Reason{}
	entries, are := "all "+strconv.Itoa(g.covers)+" entries", " are selected"
	if g.covers == 1 {
		entries, are = "the only entry", " is selected"
	}
	switch {
	case g.need == 1 && g.one.trouble != nil:
		*why = Reason{ReasonTrouble, fmt.Sprintf("no item can name just what is selected (%s), and nothing else cached begins with %s", g.one.trouble.reason, stem)}
	case g.need == 1 && g.one.folded:
		*why = foldedReason(g.one.path)
	case g.need == 1:
		*why = Reason{ReasonDoubt, "ends before a spelling that AWS does not confirm, and nothing else cached begins with " + stem}
	case n == 1:
		*why = Reason{ReasonEverything, entries + " of the inventory" + are}
	default:
		*why = Reason{ReasonBelow, entries + " under " + stem + are}
	}
	return draft{text: stem, why: why, covers: clamp(g.covers), collateral: clamp(g.collateral), wildcard: true, unsure: n > g.sure}
}

// A draft is an item of the answer while it is looked for: small, since there may be many,
// and most of them exact paths.
type draft struct {
	text               string
	why                *Reason // nil: it is the exact path of a selected entry
	covers, collateral int32
	wildcard, unsure   bool
}

func (d *draft) item() Item {
	it := Item{Item: cfpath.Item{Kind: cfpath.Path, Text: d.text}, Covers: int(d.covers), Collateral: int(d.collateral), Unsure: d.unsure}
	if d.wildcard {
		it.Item.Kind = cfpath.Wildcard
	}
	switch {
	case d.why != nil:
		it.Reason = *d.why
	case d.unsure:
		it.Reason = Reason{ReasonExact, "selected, but AWS does not confirm that this spelling reaches it"}
	default:
		it.Reason = Reason{ReasonExact, "selected"}
	}
	return it
}

func (i *Item) wildcard() bool { return i.Item.Kind == cfpath.Wildcard }
