// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

// A node is an open node of the trie: on the way to the last entry.
type node struct {
	depth      int  // length of what all below it have in common
	leaf       bool // nothing below it yet
	mixed      bool // not everything below it is selected
	noWild     bool
	unselected int // entries below it, itself included
	fresh      int // of these, what nothing reaches anyhow

	*chosen // nil while nothing below it is selected
}

// chosen is what is selected below an open node.
type chosen struct {
	sum      group
	pending  []part     // closed children while it is not mixed, itself first
	troubles []*trouble // whose stem ends above it
	front    *frontier  // with budgets, if something below it needs items
}

// tree turns ordered entries into items. All nodes on the stack lead to the
// last entry; one is closed when the next entry is not below it.
type tree struct {
	scope scope
	stack []node
	last  string

	// For another time.
	free   [][]part
	groups []*group
	spare  []*chosen

	items     []draft
	uncovered []*trouble

	dp       *frontiers // nil without budgets
	tags     *tags      // with native tags, what each item is needed for
	nameless bool       // something selected has no name
	exact    bool       // wildcards are capped: all of them are the frontiers' business
}

func (t *tree) init(s scope, dp *frontiers) {
	t.scope, t.dp = s, dp
	t.exact = dp != nil && dp.capped
	t.stack = append(t.stack, node{depth: -1, mixed: true, chosen: &chosen{}}) // groups never reach beyond it
}

func (t *tree) top() *node { return &t.stack[len(t.stack)-1] }

// choose says that something below the node is selected.
func (t *tree) choose(n *node) {
	switch k := len(t.spare); {
	case n.chosen != nil:
	case k > 0:
		n.chosen, t.spare = t.spare[k-1], t.spare[:k-1]
		*n.chosen = chosen{}
	default:
		n.chosen = &chosen{}
	}
}

// advance closes what does not lead to path, and tells whether anything below the
// top is of interest: not where only a wildcard at the top or above can be.
func (t *tree) advance(path string) bool {
	t.close(common(t.last, path))
	t.last = path
	if t.dp == nil {
		return true
	}
	t.collect()
	top := t.top()
	return top.chosen == nil || top.front == nil || !top.front.dead
}

// addOther takes the next entry, which is not selected; barrier forbids wildcards
// below it. It counts as unselected and as fresh.
func (t *tree) addOther(path string, barrier bool, unselected, fresh int) {
	if !t.advance(path) {
		t.top().unselected += unselected
		t.top().fresh += fresh
		return
	}
	t.mixAll()
	n := t.push(path, true)
	n.mixed, n.unselected, n.fresh = true, unselected, fresh
	n.noWild = n.noWild || barrier
}

// add takes the next entry, which needs an item.
func (t *tree) add(l *leaf) {
	t.nameless = t.nameless || l.trouble != nil
	if !t.advance(l.path) {
		t.top().sum.count(1, 1, l.sure)
		return
	}
	if t.exact {
		t.mixAll()
	}
	n := t.push(l.path, true)
	t.choose(n)
	n.sum.covers, n.sum.need, n.sum.one, n.sum.sure = 1, 1, *l, l.sure
	n.sum.directory = l.directory()
	n.sum.sigs = t.tags.single(l.sig)
	if l.trouble != nil {
		n.troubles = append(n.troubles, l.trouble)
	}
	if t.exact {
		n.mixed, n.leaf = true, false
		f := t.front(n)
		items, lost := len(t.items), len(t.uncovered)
		if l.trouble != nil {
			t.uncovered = append(t.uncovered, l.trouble)
		} else {
			t.putExact(l, l.reason())
		}
		t.onBase(f, items, lost)
	}
}

// addCovered takes an entry that is selected and needs nothing.
func (t *tree) addCovered(path string) {
	if !t.advance(path) {
		t.top().sum.covers++
		return
	}
	n := t.push(path, true)
	t.choose(n)
	n.sum.covers = 1
}

// push opens a node for what path has below the top.
func (t *tree) push(path string, isLeaf bool) *node {
	parent := t.top()
	if parent.leaf {
		// It was an entry, and is a directory too. Any stem of it now reaches
		// what is below, so by itself it can only be an exact path.
		parent.leaf = false
		if parent.chosen != nil && parent.sum.need > 0 {
			g := parent.sum
			g.path, g.lo, g.hi, g.noWild = g.one.path, 1, 0, true
			t.attach(parent, &g)
		}
	}
	t.stack = append(t.stack, node{depth: len(path), leaf: isLeaf, noWild: parent.noWild})
	return t.top()
}

// close closes all nodes deeper than depth, and sees that there is one at depth
// if anything was closed.
func (t *tree) close(depth int) {
	for n := len(t.stack) - 1; t.stack[n].depth > depth; n-- {
		c, parent := &t.stack[n], &t.stack[n-1]
		if parent.depth < depth {
			if c.chosen == nil { // nothing is known of it that its parent need not know
				c.depth, c.leaf, c.noWild = depth, false, parent.noWild
				return
			}
			closed := *c
			*c = node{depth: depth, mixed: closed.mixed, noWild: parent.noWild}
			t.settle(&closed, c)
			return
		}
		t.stack = t.stack[:n]
		t.settle(c, parent)
	}
}

// settle adds a closed node to its parent.
func (t *tree) settle(c, parent *node) {
	parent.unselected += c.unselected
	parent.fresh += c.fresh
	if c.chosen == nil {
		return
	}
	t.choose(parent)
	for _, tr := range c.troubles {
		if tr.stem > parent.depth {
			tr.collateral = c.unselected
		} else {
			parent.troubles = append(parent.troubles, tr)
		}
	}
	if !c.mixed {
		g := &c.sum
		g.path, g.lo, g.hi, g.noWild = t.last, max(1, parent.depth+1), c.depth, c.noWild
		if c.leaf || t.usable(g) {
			t.recycle(c.pending)
		} else {
			g.children = c.pending
		}
		if !parent.mixed {
			parent.sum.absorb(g)
		} else if t.dp != nil {
			parent.sum.count(g.covers, g.need, g.sure)
		}
		t.attach(parent, g)
	} else if t.dp != nil {
		parent.sum.count(c.sum.covers, c.sum.need, c.sum.sure)
		t.settleFront(c, parent)
	}
	t.spare = append(t.spare, c.chosen)
}

// attach keeps a group until it is known whether its parent is one too.
func (t *tree) attach(parent *node, g *group) {
	switch {
	case g.need == 0:
	case parent.mixed:
		t.emitBelow(parent, g)
	default:
		if parent.pending == nil && len(t.free) > 0 {
			parent.pending = t.free[len(t.free)-1]
			t.free = t.free[:len(t.free)-1]
		}
		if g.need == 1 && g.one.nameable() { // by far the most
			parent.pending = append(parent.pending, part{one: g.one})
			return
		}
		var kept *group
		if k := len(t.groups); k > 0 {
			kept, t.groups = t.groups[k-1], t.groups[:k-1]
		} else {
			kept = &group{}
		}
		*kept = *g
		parent.pending = append(parent.pending, part{group: kept})
	}
}

// mixAll says that below all open nodes there is something that is not selected.
// Above a node of which that is known it is known already.
func (t *tree) mixAll() {
	i := len(t.stack)
	for !t.stack[i-1].mixed {
		i--
	}
	for ; i < len(t.stack); i++ { // items come in order of path
		t.mix(&t.stack[i])
	}
}

func (t *tree) mix(n *node) {
	n.mixed = true
	if n.chosen == nil {
		return
	}
	for i := range n.pending {
		t.emitPart(n, &n.pending[i])
	}
	if n.leaf && n.sum.need > 0 {
		g := n.sum
		g.path, g.lo, g.hi, g.noWild = g.one.path, 1, 0, true
		t.emitBelow(n, &g)
		n.leaf = false
	}
	t.recycle(n.pending)
	n.pending = nil
}

// emitPart is emitBelow for what was kept.
func (t *tree) emitPart(n *node, p *part) {
	if p.group != nil {
		t.emitBelow(n, p.group)
		return
	}
	t.emitBelow(n, &group{need: 1, one: p.one})
}

func (t *tree) recycle(groups []part) {
	for i := range groups {
		if g := groups[i].group; g != nil && len(t.groups) < 4096 {
			t.groups = append(t.groups, g)
		}
	}
	if cap(groups) > 0 && len(t.free) < 64 {
		clear(groups)
		t.free = append(t.free, groups[:0])
	}
}

func (t *tree) finish() { t.close(-1) }

// common is the length of the longest common prefix.
func common(a, b string) int {
	const step = 16
	n, i := min(len(a), len(b)), 0
	for i+step <= n && a[i:i+step] == b[i:i+step] {
		i += step
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}
