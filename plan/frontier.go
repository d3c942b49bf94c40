// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// A point is a way to cover what is selected below a node: what lies on the
// base (tree.items and tree.uncovered), except where a wildcard of the set reaches it.
type point struct {
	i   int32 // the index of a frontier: items or collateral
	w   int32 // wildcards, where they are capped
	set int32 // of wildcards, see sets
	m   int64 // what the frontier has the least of: uncovered entries << uncoveredShift, plus items or collateral
	tie int64 // doubts, wildcards, stems that end nowhere in particular
}

const (
	uncoveredShift = 40
	// The tie is, from its lowest bits: 16 of boundaries, 24 of wildcards, 24 of doubts.
	tieWildcards  = 16
	tieDoubts     = 40
	tieCollateral = 40 // with leastOfAll, instead of doubts
)

func (p *point) add(o *point) {
	p.i += o.i
	p.w += o.w
	p.m += o.m
	p.tie += o.tie
}

// A measure says what the points of a frontier are indexed by, and what they
// have the least of.
type measure uint8

const (
	leastItems      measure = iota // indexed by collateral
	leastCollateral                // indexed by items
	leastOfAll                     // one point: the fewest items, whatever their collateral
)

// A frontier is what is known below an open node which is not all selected.
// Its points are in order of i, then w, and none is as good as one before it.
type frontier struct {
	base        point   // common to all points, which come on top of it
	points      []point // nil: only the base
	dead        bool    // nothing below is within the caps
	start, lost int     // of what is below, the first in tree.items and in tree.uncovered

	hull hull // instead of points
}

// frontiers compute the frontiers of all open nodes.
type frontiers struct {
	measure measure
	index   int32 // no point has a greater index
	other   int64 // nor more than this of what it has the least of
	keep    int   // so many items of the base may be of no use any more
	capped  bool  // wildcards count:
	most    int32 // no point has more of them

	hulls      bool // see hull.go: then index is a cap on items, and
	collateral int  // one on collateral

	sets  sets
	wilds []wild
	free  []*frontier
	spare [][]point
	cells []cell
	ranks []int64
}

// A wild is a wildcard that reaches more than what is selected.
type wild struct {
	path       string // of any entry it reaches; the stem is path[:n]
	n          int
	lone       *leaf // if it is all that needs it
	covers     int
	collateral int
	fresh      int // of these, what nothing else reaches anyhow
	unsure     bool
	directory  bool // "/dir/" goes out beside it
	opened     bool // see hull.go
	inner      int32
	parent     int32
	follow     []int32
}

func (w *wild) stem() string { return w.path[:w.n] }

func (w *wild) items() int {
	if w.directory {
		return 2
	}
	return 1
}

// point makes one of a number of items, of wildcards among them, of collateral
// and of uncovered entries.
func (d *frontiers) point(items, wildcards, collateral, uncovered int, tie int64) point {
	p := point{tie: tie + int64(wildcards)<<tieWildcards, m: int64(uncovered) << uncoveredShift}
	switch d.measure {
	case leastItems:
		p.i = clamp(collateral)
		p.m += int64(items)
	case leastCollateral:
		p.i = clamp(items)
		p.m += int64(collateral)
	case leastOfAll:
		p.m += int64(items)
		p.tie = int64(collateral)<<tieCollateral + int64(wildcards)<<tieWildcards
	}
	if d.capped {
		p.w = clamp(wildcards)
	}
	return p
}

func clamp(n int) int32 { return int32(min(n, math.MaxInt32/4)) }

// A cost is what a point says.
type cost struct{ items, wildcards, collateral, uncovered int }

func (d *frontiers) cost(p *point) cost {
	c := cost{uncovered: int(p.m >> uncoveredShift), wildcards: int(p.tie >> tieWildcards & (1<<24 - 1))}
	least := int(p.m & (1<<uncoveredShift - 1))
	switch d.measure {
	case leastItems:
		c.items, c.collateral = least, int(p.i)
	case leastCollateral:
		c.items, c.collateral = int(p.i), least
	case leastOfAll:
		c.items, c.collateral = least, int(p.tie>>tieCollateral)
	}
	return c
}

func (d *frontiers) fits(p *point) bool {
	return p.i <= d.index && (!d.capped || p.w <= d.most) && p.m&(1<<uncoveredShift-1) <= d.other
}

// front is the frontier of an open node.
func (t *tree) front(n *node) *frontier {
	if n.front == nil {
		if k := len(t.dp.free); k > 0 {
			n.front, t.dp.free = t.dp.free[k-1], t.dp.free[:k-1]
		} else {
			n.front = &frontier{}
		}
		*n.front = frontier{start: len(t.items), lost: len(t.uncovered)}
	}
	return n.front
}

// emitBelow makes items of a group below a node that is not all selected.
func (t *tree) emitBelow(n *node, g *group) {
	if t.dp == nil {
		t.emit(g)
		return
	}
	f := t.front(n)
	if f.dead {
		return
	}
	items, lost := len(t.items), len(t.uncovered)
	t.emit(g)
	t.onBase(f, items, lost)
}

// onBase adds what was emitted since to the base of a frontier.
func (t *tree) onBase(f *frontier, items, lost int) {
	wildcards, uncovered := 0, len(t.uncovered)-lost
	tie := int64(0)
	for i := items; i < len(t.items); i++ {
		if t.items[i].wildcard {
			wildcards++
		}
		if t.items[i].unsure {
			tie += 1 << tieDoubts
		}
	}
	p := t.dp.point(len(t.items)-items, wildcards, 0, uncovered, tie)
	f.base.add(&p)
	t.fit(f)
}

// fit drops what the base leaves no room for.
func (t *tree) fit(f *frontier) {
	if f.dead || !t.dp.fits(&f.base) {
		t.kill(f)
		return
	}
	if len(f.points) > 0 {
		kept := f.points[:0]
		for _, p := range f.points {
			q := p
			q.add(&f.base)
			if t.dp.fits(&q) {
				kept = append(kept, p)
			}
		}
		if f.points = kept; len(kept) == 0 {
			t.kill(f)
		}
	}
}

// kill says that only a wildcard at the node or above is within the caps, so that
// nothing below matters any more.
func (t *tree) kill(f *frontier) {
	f.dead = true
	t.drop(f)
}

// drop forgets what lies on the base below a node.
func (t *tree) drop(f *frontier) {
	t.items = t.items[:f.start]
	t.uncovered = t.uncovered[:f.lost]
	t.dp.give(f.points)
	f.points, f.hull = nil, nil
}

// settleFront brings what is known of a closed node to its parent.
func (t *tree) settleFront(c, parent *node) {
	if c.front == nil {
		return // nothing to cover
	}
	d := t.dp
	f := c.front
	if d.hulls {
		t.settleHull(c, parent)
		return
	}
	switch {
	case f.dead:
	case f.points == nil:
		f.points = append(d.take(), f.base)
	default:
		for i := range f.points {
			p := &f.points[i]
			p.add(&f.base)
			p.set = d.sets.join(f.base.set, p.set)
		}
	}
	f.base = point{}
	if p, ok := t.wildcardAt(c, parent); ok {
		f.points = d.insert(f.points, p)
		if len(f.points) == 1 && f.points[0].set == p.set { // nothing else is left
			points := f.points
			f.points = nil
			t.drop(f)
			f.points = points
		}
		f.dead = false
	}
	t.sweep(f)
	t.merge(f, parent)
}

// merge adds a closed node's points to its parent's.
func (t *tree) merge(f *frontier, parent *node) {
	d := t.dp
	pf := parent.front
	switch {
	case f.dead || len(f.points) == 0:
		f.dead = true
		if pf == nil {
			parent.front = f
			return
		}
		t.kill(pf)
	case pf == nil:
		parent.front = f
		if len(f.points) == 1 {
			f.base = f.points[0]
			d.give(f.points)
			f.points = nil
		}
		return
	case pf.dead:
		t.drop(pf)
	case len(f.points) == 1:
		set := d.sets.join(pf.base.set, f.points[0].set)
		pf.base.add(&f.points[0])
		pf.base.set = set
		t.fit(pf)
	case pf.points == nil:
		pf.points, f.points = f.points, nil
		t.fit(pf)
	default:
		sum := d.sum(pf.points, f.points, &pf.base)
		d.give(pf.points)
		if pf.points = sum; len(sum) == 0 {
			t.kill(pf)
		}
	}
	d.give(f.points)
	f.points = nil
	d.free = append(d.free, f)
}

// wildcardAt is the point of one wildcard over everything below a closed node,
// if there can be one and it is of use.
func (t *tree) wildcardAt(c, parent *node) (point, bool) {
	d := t.dp
	w, ok := wild{covers: c.sum.covers, collateral: c.unselected, fresh: c.fresh}, true
	p := d.point(1, 1, w.fresh, 0, 0)
	if !d.fits(&p) || c.sum.need == 0 || d.useless(c.front, &p) {
		return p, false
	}
	g := c.sum
	g.path, g.lo, g.hi, g.noWild = t.last, max(1, parent.depth+1), c.depth, parent.noWild
	if w.n = t.pick(&g); w.n == 0 {
		return p, false
	}
	w.path, w.unsure = g.path, w.n > g.sure
	if one := c.sum.one; one.path != "" && (c.sum.need == 1 || one.folded && w.n >= len(one.path)) {
		w.lone = &one
	}
	w.directory = g.directory && w.n == g.hi && w.n > 1
	tie := boundary(g.path[:w.n])
	if w.unsure {
		tie += 1 << tieDoubts
	}
	if p = d.point(w.items(), 1, w.fresh, 0, tie); w.directory {
		ok = d.fits(&p) && !d.useless(c.front, &p)
	}
	if ok {
		d.wilds = append(d.wilds, w)
		p.set = -int32(len(d.wilds))
	}
	return p, ok
}

// boundary says how little a stem ends where people see an end.
func boundary(stem string) int64 {
	if len(stem) > 1 {
		switch stem[len(stem)-1] {
		case '/', '?':
			return 0
		case '.', '-', '_', '=', '&':
			return 1
		}
	}
	return 2
}

// useless tells whether a wildcard's point is no better than what there is, or beyond the caps.
func (d *frontiers) useless(f *frontier, p *point) bool {
	if d.hulls {
		return p.m > int64(d.collateral) || !f.dead && f.base.i <= p.i
	}
	for j := range f.points {
		if f.points[j].beats(p) {
			return true
		}
		if f.points[j].i > p.i {
			break
		}
	}
	return false
}

// beats tells whether o need not be looked at beside p.
func (p *point) beats(o *point) bool {
	if p.i > o.i || p.w > o.w || p.m > o.m {
		return false
	}
	return p.i < o.i || p.m < o.m || p.tie <= o.tie
}

// insert adds a point that no other beats.
func (d *frontiers) insert(points []point, p point) []point {
	if points == nil {
		points = d.take()
	}
	kept := points[:0]
	for _, q := range points {
		if !p.beats(&q) {
			kept = append(kept, q)
		}
	}
	at, _ := slices.BinarySearchFunc(kept, p, inOrder)
	return slices.Insert(kept, at, p)
}

func inOrder(a, b point) int {
	return cmp.Or(cmp.Compare(a.i, b.i), cmp.Compare(a.w, b.w), cmp.Compare(a.m, b.m), cmp.Compare(a.tie, b.tie))
}

type cell struct {
	m, tie int64
	a, b   int32 // a is one more than an index; 0: empty
}

// sum is the min-plus convolution: the best of all pairs, for each index.
func (d *frontiers) sum(a, b []point, base *point) []point {
	room, other := d.index-base.i, d.other-base.m&(1<<uncoveredShift-1)
	wide := int32(1)
	if d.capped {
		wide = min(d.most-base.w, widest(a)+widest(b)) + 1
	}
	lo, hi := a[0].i+b[0].i, min(room, a[len(a)-1].i+b[len(b)-1].i)
	if hi < lo || wide < 1 {
		return nil
	}
	n := int(hi-lo+1) * int(wide)
	if cap(d.cells) < n {
		d.cells = make([]cell, n)
	}
	cells := d.cells[:n]
	clear(cells)
	for ai := range a {
		pa := &a[ai]
		for bi := range b {
			pb := &b[bi]
			i, w := pa.i+pb.i, pa.w+pb.w
			if i > hi {
				break
			}
			if w >= wide {
				continue
			}
			c := &cells[int(i-lo)*int(wide)+int(w)]
			m, tie := pa.m+pb.m, pa.tie+pb.tie
			if c.a == 0 || m < c.m || m == c.m && tie < c.tie {
				*c = cell{m, tie, int32(ai) + 1, int32(bi)}
			}
		}
	}
	out := d.take()
	// least[w] is the least m of all before this i with at most w wildcards.
	if cap(d.ranks) < int(wide) {
		d.ranks = make([]int64, wide)
	}
	least := d.ranks[:wide]
	for w := range least {
		least[w] = math.MaxInt64
	}
	for i := lo; i <= hi; i++ {
		row := cells[int(i-lo)*int(wide):][:wide]
		m, tie := int64(math.MaxInt64), int64(math.MaxInt64)
		for w := range row {
			c := &row[w]
			if c.a > 0 && c.m < least[w] && (c.m < m || c.m == m && c.tie < tie) && c.m&(1<<uncoveredShift-1) <= other {
				m, tie = c.m, c.tie
				out = append(out, point{i: i, w: int32(w), m: m, tie: tie, set: d.sets.join(a[c.a-1].set, b[c.b].set)})
			}
			least[w] = min(least[w], m)
		}
	}
	return out
}

func widest(points []point) (w int32) {
	for i := range points {
		w = max(w, points[i].w)
	}
	return w
}

// take and give recycle lists of points.
func (d *frontiers) take() []point {
	if k := len(d.spare); k > 0 {
		s := d.spare[k-1]
		d.spare = d.spare[:k-1]
		return s
	}
	return make([]point, 0, 8)
}

func (d *frontiers) give(points []point) {
	if cap(points) > 0 && len(d.spare) < 256 {
		d.spare = append(d.spare, points[:0])
	}
}

// sweep forgets what lies on the base below a closed node and no point needs: a
// point of at most so many items needs no more of it.
func (t *tree) sweep(f *frontier) {
	d := t.dp
	if d.measure != leastCollateral || len(t.items)-f.start <= d.keep {
		return
	}
	needed := make([]bool, len(t.items)-f.start)
	for i := range f.points {
		d.under(f.points[i].set, t.items[f.start:], func(k int, w *wild) {
			needed[k] = needed[k] || w == nil
		})
	}
	kept := t.items[:f.start]
	for k, yes := range needed {
		if yes {
			kept = append(kept, t.items[f.start+k])
		}
	}
	t.items = kept
}

// under says of each item, in order of path, which wildcard of the set reaches it.
func (d *frontiers) under(set int32, items []draft, say func(k int, w *wild)) {
	k := 0
	for _, w := range d.members(set) {
		stem := w.stem()
		for ; k < len(items) && items[k].text < stem; k++ {
			say(k, nil)
		}
		for ; k < len(items) && strings.HasPrefix(items[k].text, stem); k++ {
			say(k, w)
		}
	}
	for ; k < len(items); k++ {
		say(k, nil)
	}
}

// members are the wildcards of a set in byte order.
func (d *frontiers) members(set int32) []*wild {
	var list []*wild
	d.sets.each(set, func(i int32) { list = append(list, &d.wilds[i]) })
	slices.SortFunc(list, func(a, b *wild) int { return strings.Compare(a.stem(), b.stem()) })
	return list
}
