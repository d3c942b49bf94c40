// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"slices"
)

// Where budgets are too great for exact frontiers, each open node has the lower
// convex hull of its points instead. The hull of a sum is the sum of the hulls, so that
// adding is collecting edges, and a wildcard at the node cuts off what lies above the
// tangent from it. The hull at a budget is below every plan, and each of its corners is one.
//
// A hull begins at frontier.base, the point of the fewest items. Each edge opens one of
// the wildcards: what it reaches is covered by what is in it instead.
type hull []edge

type edge struct {
	wild  int32 // index in frontiers.wilds
	items int32 // more
	saves int32 // collateral less
}

// steeper orders edges by what they save for an item.
func steeper(a, b edge) int {
	return cmp.Compare(int64(b.saves)*int64(a.items), int64(a.saves)*int64(b.items))
}

// settleHull brings the hull of a closed node to its parent.
func (t *tree) settleHull(c, parent *node) {
	d, f := t.dp, c.front
	if !f.dead {
		t.trim(f)
	}
	if p, ok := t.wildcardAt(c, parent); ok {
		d.cut(f, &p)
		if f.dead || len(f.hull) == 0 { // nothing but the wildcard is left
			t.drop(f)
		}
		f.base, f.dead = p, false
	}
	pf := parent.front
	switch {
	case pf == nil:
		parent.front = f
		return
	case f.dead:
		t.kill(pf)
	case pf.dead:
		t.drop(pf)
	default:
		set := d.sets.join(pf.base.set, f.base.set)
		pf.base.add(&f.base)
		pf.base.set = set
		pf.hull = append(pf.hull, f.hull...)
		t.fit(pf)
	}
	f.hull = nil
	d.free = append(d.free, f)
}

// trim sorts the edges, and drops those beyond the caps.
func (t *tree) trim(f *frontier) {
	d := t.dp
	slices.SortStableFunc(f.hull, steeper)
	for most := int64(d.collateral); len(f.hull) > 0 && f.base.m > most && f.base.m-int64(f.hull[0].saves) >= most; {
		e := f.hull[0]
		d.open(e.wild)
		f.base.i += e.items
		f.base.m -= int64(e.saves)
		f.hull = f.hull[1:]
	}
	t.fit(f)
	items := int64(f.base.i)
	for k, e := range f.hull {
		if items >= 2*int64(d.index) { // what lies a little beyond may fill what a great edge leaves
			f.hull = f.hull[:k]
			break
		}
		items += int64(e.items)
	}
}

// cut puts a wildcard at the beginning of a hull.
func (d *frontiers) cut(f *frontier, p *point) {
	id := -p.set - 1
	w := &d.wilds[id]
	w.inner = f.base.set
	if f.dead {
		f.hull = nil
		return
	}
	// The tangent from the wildcard's point.
	best, at := edge{wild: id}, 0
	items, saves := f.base.i-p.i, p.m-f.base.m
	for k := 0; ; k++ {
		if e := (edge{id, items, clamp(int(saves))}); saves > 0 && (best.items == 0 || steeper(e, best) < 0) {
			best, at = e, k
		}
		if k == len(f.hull) {
			break
		}
		items += f.hull[k].items
		saves += int64(f.hull[k].saves)
	}
	if best.items == 0 {
		f.hull = nil
		return
	}
	for _, e := range f.hull[:at] {
		w.follow = append(w.follow, e.wild)
	}
	rest := f.hull[at:]
	for _, e := range rest {
		if inner := &d.wilds[e.wild]; inner.parent == 0 {
			inner.parent = id + 1
		}
	}
	f.hull = append(hull{best}, rest...)
}

// open says that what is in a wildcard goes out instead of it.
func (d *frontiers) open(id int32) {
	w := &d.wilds[id]
	w.opened = true
	for _, k := range w.follow {
		d.open(k)
	}
}

// resolve is a set with what is in its opened wildcards in their places.
func (d *frontiers) resolve(set int32) (out int32) {
	d.sets.each(set, func(i int32) {
		if d.wilds[i].opened {
			out = d.sets.join(out, d.resolve(d.wilds[i].inner))
		} else {
			out = d.sets.join(out, -i-1)
		}
	})
	return out
}

// chooseHull finds a good plan from the hull of everything, and a bound below all:
// of items within the collateral, or of collateral within the items.
func (d *frontiers) chooseHull(f *frontier, b budgets, objective string) (p point, lower int, ok bool) {
	if f.dead {
		return p, 0, false
	}
	slices.SortStableFunc(f.hull, steeper)
	items, collateral := int64(f.base.i), f.base.m
	if objective == ObjectiveCollateral {
		lower = int(collateral)
		room := int64(b.items) - items
		for _, e := range f.hull {
			if room <= 0 {
				break
			}
			take := min(room, int64(e.items))
			lower -= int(take * int64(e.saves) / int64(e.items))
			if take < int64(e.items) {
				break
			}
			room -= take
		}
		for _, e := range f.hull {
			if w := &d.wilds[e.wild]; d.isOpen(w.parent) && items+int64(e.items) <= int64(b.items) {
				d.open(e.wild)
				items += int64(e.items)
				collateral -= int64(e.saves)
			}
		}
	} else {
		most := int64(b.collateral)
		over := collateral - most
		lower = int(items)
		for _, e := range f.hull {
			if over <= 0 {
				break
			}
			take := min(over, int64(e.saves))
			lower += int((take*int64(e.items) + int64(e.saves) - 1) / int64(e.saves))
			over -= take
		}
		items, collateral = d.fewest(f.hull, items, collateral, most)
	}
	p = d.point(int(items), 0, int(collateral), 0, 0)
	p.set = d.resolve(f.base.set)
	wildcards := 0
	d.sets.each(p.set, func(int32) { wildcards++ })
	p.tie = int64(wildcards) << tieWildcards
	return p, lower, items <= int64(b.items) && collateral <= int64(b.collateral)
}

func (d *frontiers) isOpen(parent int32) bool { return parent == 0 || d.wilds[parent-1].opened }

// fewest opens what it takes to get below a collateral.
func (d *frontiers) fewest(h hull, items, collateral, most int64) (int64, int64) {
	for k, e := range h {
		if collateral <= most {
			break
		}
		if collateral-int64(e.saves) <= most { // the last: a smaller one may do
			for _, o := range h[k+1:] {
				if o.items < e.items && collateral-int64(o.saves) <= most && d.isOpen(d.wilds[o.wild].parent) {
					e = o
				}
			}
		}
		d.open(e.wild)
		items += int64(e.items)
		collateral -= int64(e.saves)
	}
	return items, collateral
}
