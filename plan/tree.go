// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

// A leaf is a selected entry that needs an item.
type leaf struct {
	path    string
	folded  bool
	spared  bool // a named wildcard may leave it alone
	doubt   bool // its exact item may not reach it
	sure    int  // length of the longest stem that surely covers it
	trouble *trouble
}

// A trouble is that an entry cannot be named.
type trouble struct {
	path       string
	reason     string
	entries    int // a folded one may stand for several
	stem       int // length of the stem that would cover it; 0: none
	collateral int // of that
}

// judge finds out how the entry can be named. A stem as long as the path is sure
// for "/dir/" too: that it is spared is looked at where a stem is chosen.
func (l *leaf) judge(doubtful func(string) bool) {
	l.sure = len(l.path)
	if !plain(l.path) {
		l.doubt = cfpath.InDoubt(l.path)
		_, err := cfpath.Name(l.path)
		if l.folded {
			if stemmable(l.path) {
				err = nil
			} else if err == nil {
				err = &cfpath.Unnameable{Path: l.path, Trouble: cfpath.Trouble{Reason: cfpath.ReasonRefused}}
			}
		}
		if err != nil {
			l.trouble = newTrouble(l.path, err)
		}
		known := l.path
		if l.folded {
			known += "x" // as what it stands for goes on: "/s?" is no empty query
		}
		if stem, ok := cfpath.SureStem(known); !ok {
			l.sure = 0
		} else if l.folded {
			l.sure = min(l.sure, len(stem))
		} else if l.doubt || len(stem) < len(l.path)-1 || !strings.HasSuffix(l.path, "/") {
			l.sure = len(stem)
		}
	}
	if doubtful != nil && doubtful(l.path) {
		l.doubt = true
		n := pathLength(l.path)
		if n == len(l.path) {
			n = 1 // nobody says where the doubt begins
		}
		l.sure = min(l.sure, n)
	}
}

func newTrouble(path string, err error) *trouble {
	t := &trouble{path: path, entries: 1, reason: cfpath.ReasonRefused}
	if cause, ok := errors.AsType[*cfpath.Unnameable](err); ok {
		t.reason = cause.Reason
	}
	if stem, ok := cfpath.TightestStem(path); ok {
		t.stem = len(stem)
	}
	return t
}

// plain tells quickly that a path can be named without doubt.
func plain(path string) bool {
	if len(path) == 0 || path[0] != '/' || len(path) >= cfpath.MaxItemLength {
		return false
	}
	last := byte(0)
	for i := range len(path) {
		c := path[i]
		if odd(c) || last == '/' && (c == '/' || c == '.') {
			return false
		}
		last = c
	}
	return last != '?' && last != '*'
}

func odd(c byte) bool {
	const (
		low  uint64 = 1<<(' '+1) - 1 | 1<<'"' | 1<<'#' | 1<<'%' | 1<<'\'' | 1<<'<' | 1<<'>'
		high uint64 = 1<<('@'-64) | 1<<('['-64) | 1<<('\\'-64) | 1<<(']'-64) | 1<<('^'-64) | 1<<('`'-64) |
			1<<('{'-64) | 1<<('|'-64) | 1<<('}'-64) | 1<<('~'-64) | 1<<(0x7F-64)
	)
	switch {
	case c < 64:
		return low>>c&1 != 0
	case c < 128:
		return high>>(c-64)&1 != 0
	}
	return true
}

// nameable tells whether an exact item surely covers it.
func (l *leaf) nameable() bool { return !l.folded && l.trouble == nil && !l.doubt }

// directory tells whether the wildcard with its path as stem may leave it alone:
// https://github.com/pulumi/docs/pull/21786. "/*" is the whole distribution.
func (l *leaf) directory() bool { return len(l.path) > 1 && l.path[len(l.path)-1] == '/' }

func (l *leaf) reason() string {
	if l.spared {
		return ReasonDirectory
	}
	return ReasonExact
}

func exactItem(l *leaf, code string) Item {
	text := "selected"
	switch {
	case code == ReasonDirectory:
		text = "CloudFront was seen to leave it alone when " + l.path + "* was invalidated"
	case l.doubt:
		text = "selected, but AWS does not confirm that this spelling reaches it"
	}
	return Item{Item: cfpath.Item{Kind: cfpath.Path, Text: l.path}, Covers: 1, Reason: Reason{code, text}, Unsure: l.doubt}
}

func foldedReason(path string) Reason {
	return Reason{ReasonFolded, "too many paths begin with " + path + " to know each: it is known as one"}
}

// A group is a subtree of selected entries only.
type group struct {
	path   string // of any entry in it
	lo, hi int    // path[:n] names the same subtree for all n from lo to hi
	noWild bool   // what lies around it is folded and not selected

	covers, collateral int
	need               int  // how many leaves need an item
	one, two           leaf // the first two of them
	sure               int  // the smallest of theirs
	directory          bool // path[:hi] is one of them, and ends in '/'

	children []group // if no stem of its own can be used
}

// absorb adds what is in o.
func (g *group) absorb(o *group) {
	g.covers += o.covers
	g.collateral += o.collateral
	if o.need == 0 {
		return
	}
	switch g.need {
	case 0:
		g.one, g.two, g.sure = o.one, o.two, o.sure
	case 1:
		g.two = o.one
	}
	g.need += o.need
	g.sure = min(g.sure, o.sure)
}

// A node is an open node of the trie: on the way to the last entry.
type node struct {
	depth      int  // length of what all below it have in common
	leaf       bool // nothing below it yet
	mixed      bool // not everything below it is selected
	noWild     bool
	unselected int // entries below it, itself included
	sum        group
	pending    []group    // closed children while it is not mixed, itself first
	troubles   []*trouble // whose stem ends above it
}

// tree turns ordered entries into items. All nodes on the stack lead to the
// last entry; one is closed when the next entry is not below it.
type tree struct {
	scope scope
	stack []node
	free  [][]group // for pending
	last  string

	items     []Item
	uncovered []*trouble
}

func (t *tree) init(s scope) {
	t.scope = s
	t.stack = append(t.stack, node{depth: -1, mixed: true}) // groups never reach beyond it
}

func (t *tree) top() *node { return &t.stack[len(t.stack)-1] }

// add takes the next entry; l is nil if it is not selected. barrier forbids
// wildcards below it.
func (t *tree) add(path string, l *leaf, barrier bool) {
	t.close(common(t.last, path))
	t.last = path
	if l == nil {
		t.mixAll()
		n := t.push(path, true)
		n.mixed, n.unselected = true, 1
		n.noWild = n.noWild || barrier
		return
	}
	n := t.push(path, true)
	n.sum.covers, n.sum.need, n.sum.one, n.sum.sure = 1, 1, *l, l.sure
	n.sum.directory = l.directory()
	if l.trouble != nil {
		n.troubles = append(n.troubles, l.trouble)
	}
}

// addCovered takes an entry that is selected and needs nothing.
func (t *tree) addCovered(path string) {
	t.close(common(t.last, path))
	t.last = path
	t.push(path, true).sum.covers = 1
}

// push opens a node for what path has below the top.
func (t *tree) push(path string, isLeaf bool) *node {
	parent := t.top()
	if parent.leaf {
		// It was an entry, and is a directory too. Any stem of it now reaches
		// what is below, so by itself it can only be an exact path.
		parent.leaf = false
		if own := &parent.sum; own.need > 0 {
			g := *own
			g.path, g.lo, g.hi, g.noWild = own.one.path, 1, 0, true
			t.attach(parent, g)
		}
	}
	noWild := parent.noWild
	t.stack = append(t.stack, node{depth: len(path), leaf: isLeaf, noWild: noWild})
	return t.top()
}

// close closes all nodes deeper than depth, and sees that there is one at depth
// if anything was closed.
func (t *tree) close(depth int) {
	for t.top().depth > depth {
		c := *t.top()
		t.stack = t.stack[:len(t.stack)-1]
		if t.top().depth < depth {
			mid := node{depth: depth, mixed: c.mixed, noWild: t.top().noWild}
			t.stack = append(t.stack, mid)
		}
		t.settle(&c, t.top())
	}
}

// settle adds a closed node to its parent.
func (t *tree) settle(c, parent *node) {
	parent.unselected += c.unselected
	for _, tr := range c.troubles {
		if tr.stem > parent.depth {
			tr.collateral = c.unselected
		} else {
			parent.troubles = append(parent.troubles, tr)
		}
	}
	if !c.mixed {
		g := c.sum
		g.path, g.lo, g.hi, g.noWild = t.last, max(1, parent.depth+1), c.depth, c.noWild
		if c.leaf || t.usable(&g) {
			t.recycle(c.pending)
		} else {
			g.children = c.pending
		}
		if !parent.mixed {
			parent.sum.absorb(&g)
		}
		t.attach(parent, g)
	}
}

// attach keeps a group until it is known whether its parent is one too.
func (t *tree) attach(parent *node, g group) {
	switch {
	case g.need == 0:
	case parent.mixed:
		t.emit(&g)
	default:
		if parent.pending == nil && len(t.free) > 0 {
			parent.pending = t.free[len(t.free)-1]
			t.free = t.free[:len(t.free)-1]
		}
		parent.pending = append(parent.pending, g)
	}
}

// mixAll says that below all open nodes there is something that is not selected.
// Above a node of which that is known it is known already.
func (t *tree) mixAll() {
	for i := len(t.stack) - 1; !t.stack[i].mixed; i-- {
		t.mix(&t.stack[i])
	}
}

func (t *tree) mix(n *node) {
	n.mixed = true
	for i := range n.pending {
		t.emit(&n.pending[i])
	}
	if n.leaf && n.sum.need > 0 {
		g := n.sum
		g.path, g.lo, g.hi, g.noWild = g.one.path, 1, 0, true
		t.emit(&g)
		n.leaf = false
	}
	t.recycle(n.pending)
	n.pending = nil
}

func (t *tree) recycle(groups []group) {
	if cap(groups) > 0 && len(t.free) < 64 {
		clear(groups)
		t.free = append(t.free, groups[:0])
	}
}

func (t *tree) finish() { t.close(-1) }

// emit makes items of a group that needs any.
func (t *tree) emit(g *group) {
	if g.need == 1 && g.one.nameable() {
		t.items = append(t.items, exactItem(&g.one, g.one.reason()))
		return
	}
	n := t.pick(g)
	if n == 0 && len(g.children) > 0 {
		for i := range g.children {
			t.emit(&g.children[i])
		}
		return
	}
	if g.need == 1 && g.one.trouble == nil && !g.one.folded && (n == 0 || n > g.sure) {
		t.items = append(t.items, exactItem(&g.one, g.one.reason()))
		return
	}
	if n == 0 { // only an entry in trouble is left without
		t.uncovered = append(t.uncovered, g.one.trouble)
		return
	}
	directory := g.directory && n == g.hi && n > 1
	if directory && g.need == 2 && g.one.nameable() && g.two.nameable() {
		// Two items either way, and exact ones go out faster.
		t.items = append(t.items, exactItem(&g.one, g.one.reason()), exactItem(&g.two, g.two.reason()))
		return
	}
	t.items = append(t.items, wildcardItem(g, n))
	if directory {
		t.items = append(t.items, exactItem(&g.one, ReasonDirectory))
	}
}

func wildcardItem(g *group, n int) Item {
	stem := g.path[:n]
	it := Item{Item: cfpath.Item{Kind: cfpath.Wildcard, Text: stem}, Covers: g.covers, Collateral: g.collateral, Unsure: n > g.sure}
	entries, are := "all "+strconv.Itoa(g.covers)+" entries", " are selected"
	if g.covers == 1 {
		entries, are = "the only entry", " is selected"
	}
	switch {
	case g.need == 1 && g.one.trouble != nil:
		it.Reason = Reason{ReasonTrouble, fmt.Sprintf("no item can name just what is selected (%s), and nothing else cached begins with %s", g.one.trouble.reason, stem)}
	case g.need == 1 && g.one.folded:
		it.Reason = foldedReason(g.one.path)
	case g.need == 1:
		it.Reason = Reason{ReasonDoubt, "ends before a spelling that AWS does not confirm, and nothing else cached begins with " + stem}
	case n == 1:
		it.Reason = Reason{ReasonEverything, entries + " of the inventory" + are}
	default:
		it.Reason = Reason{ReasonBelow, entries + " under " + stem + are}
	}
	return it
}

// usable tells whether there is a stem.
func (t *tree) usable(g *group) bool {
	if g.need == 0 {
		return true // and no use for one
	}
	if !g.noWild && t.scope.all && g.lo <= g.hi && g.sure >= g.hi && !strings.ContainsAny(g.path[:g.hi], "%*~") {
		return true // nothing in it that could be cut in the wrong place
	}
	for n := g.longest(); n >= g.lo; n-- {
		if t.sendable(g, n) {
			return true
		}
	}
	return false
}

// longest is the length beyond which no stem can be sent.
func (g *group) longest() int {
	stem, _ := cfpath.TightestStem(g.path[:g.hi])
	return len(stem)
}

// sendable tells whether path[:n] can be the stem of the group's wildcard.
func (t *tree) sendable(g *group, n int) bool {
	stem := g.path[:n]
	if !stemmable(stem) {
		return false
	}
	if g.need == 1 && g.one.folded && stem == g.one.path {
		return true // the entry itself says that all of this was seen
	}
	return !g.noWild && t.scope.holds(stem)
}

// stemmable tells whether stem + "*" can be sent and says what it means: not after
// another '*', nor between the escapes of one character.
func stemmable(stem string) bool {
	return cfpath.ValidStem(stem) && !strings.HasSuffix(stem, "*") && !splitsCharacter(stem)
}

// splitsCharacter tells whether a stem ends between the escapes of one character:
// it is then no text in any charset.
func splitsCharacter(stem string) bool {
	for have := 1; have <= 3; have++ {
		i := len(stem) - 3*have
		if i < 0 || stem[i] != '%' {
			return false
		}
		b, err := strconv.ParseUint(stem[i+1:i+3], 16, 8)
		switch {
		case err != nil || b < 0x80:
			return false
		case b >= 0xF0:
			return have < 4
		case b >= 0xE0:
			return have < 3
		case b >= 0xC0:
			return have < 2
		}
	}
	return false
}

// pick chooses the group's stem, in the order the package comment gives; 0 if
// there is none.
func (t *tree) pick(g *group) int {
	best, bestRank := 0, -1
	for n := g.longest(); n >= g.lo; n-- {
		if r := g.rank(n); r > bestRank && t.sendable(g, n) {
			best, bestRank = n, r
		}
	}
	return best
}

func (g *group) rank(n int) int {
	r := 0
	if n <= g.sure {
		r += 16
	}
	if !g.directory || n < g.hi || n == 1 {
		r += 8
	}
	if n > 1 { // "/*" is nobody's boundary
		switch g.path[n-1] {
		case '/', '?':
			r += 2
		case '.', '-', '_', '=', '&':
			r++
		}
	}
	if g.need == 1 && g.one.folded && n == g.hi {
		r += 4
	}
	return r
}

// common is the length of the longest common prefix.
func common(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// A scope is where recorders see what is requested.
type scope struct {
	all      bool
	patterns []cfpath.Pattern
}

func newScope(patterns []string) (scope, error) {
	s := scope{all: len(patterns) == 0}
	for i, given := range patterns {
		p, err := cfpath.ParsePattern(given)
		if err != nil {
			return scope{}, fmt.Errorf("plan: scope %d: %w", i+1, err)
		}
		s.all = s.all || given == "*" || given == "/*"
		s.patterns = append(s.patterns, p)
	}
	return s, nil
}

// holds tells whether all that begins with stem is in the scope. One pattern must
// match up to a '*' at its end; what is below a query is where its path is.
func (s *scope) holds(stem string) bool {
	if s.all {
		return true
	}
	query := strings.Contains(stem, "?")
	for _, p := range s.patterns {
		if (query || strings.HasSuffix(p.String(), "*")) && p.Matches(stem) {
			return true
		}
	}
	return false
}
