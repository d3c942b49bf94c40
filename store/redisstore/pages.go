// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
)

const (
	// pageAim is how many paths a page has when it is new, pageSplit how many
	// make it split, and pageFull more than it can ever take. Small pages keep
	// hashes in their compact encoding (128 fields, where paths have at most 64
	// bytes) and every script short.
	pageAim   = 60
	pageSplit = 120
	pageFull  = 256
	// pageSmall is when a page looks for a neighbour to join.
	pageSmall = 10

	// pagesKept bounds what a client remembers of a distribution.
	pagesKept = 100_000
)

// A page is a fact: for as long as the page with this id exists, it holds all
// fields from start on and before end.
type page struct {
	id         string
	start, end string // fields
	last       bool   // there is no end
}

func (p *page) covers(field string) bool {
	return p.start <= field && (p.last || field < p.end)
}

// common is how many bytes all fields of the page's range begin with.
func (p *page) common() int {
	n := 0
	for !p.last && n < min(len(p.start), len(p.end)) && p.start[n] == p.end[n] {
		n++
	}
	return n
}

// member is the page's member of the index.
func (p *page) member() string { return indexKey(p.start) + "\x00\x00" + p.id }

// indexKey writes a field so that nothing in it looks like the end of one, and
// in the same order.
func indexKey(field string) string { return strings.ReplaceAll(field, "\x00", "\x00\x01") }

// parseMember takes a member of the index apart; ok is false if it is none.
func parseMember(member string) (start, id string, ok bool) {
	for i := 0; i+1 < len(member); i++ {
		if member[i] != 0 {
			continue
		}
		if member[i+1] == 0 {
			return strings.ReplaceAll(member[:i], "\x00\x01", "\x00"), member[i+2:], true
		}
		i++
	}
	return "", "", false
}

// newID names a page as no page was ever named.
func newID() string {
	var b [9]byte
	_, _ = rand.Read(b[:]) // it never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// A field is a path within its page. The field "" is the page's own, there from
// its beginning to its end; paths move out of its way, and stay in order.
func toField(path string) string {
	if path == "" || path[0] == 0 {
		return "\x00" + path
	}
	return path
}

func toPath(field string) string {
	if field != "" && field[0] == 0 {
		return field[1:]
	}
	return field
}

// pages are the facts a client has learnt of an inventory, in order, none
// overlapping.
type pages struct {
	mu        sync.Mutex
	inventory string // the name of the inventory; "": not known
	list      []*page
}

// named returns the name of the inventory that the facts are of.
func (ps *pages) named() string {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.inventory
}

// name sets it, and forgets what was known of another inventory.
func (ps *pages) name(inventory string) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.inventory != inventory {
		ps.inventory, ps.list = inventory, nil
	}
}

// find returns the page of the inventory that covers field, or nil if that is
// not known.
func (ps *pages) find(inventory, field string) *page {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.inventory != inventory {
		return nil
	}
	i := sort.Search(len(ps.list), func(i int) bool { return ps.list[i].start > field }) - 1
	if i >= 0 && ps.list[i].covers(field) {
		return ps.list[i]
	}
	return nil
}

// learn replaces whatever was known of the range of the new facts, which were
// asked for when the inventory had this name.
func (ps *pages) learn(inventory string, facts ...*page) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.inventory != inventory {
		return
	}
	for _, p := range facts {
		lo := sort.Search(len(ps.list), func(i int) bool { return ps.list[i].last || ps.list[i].end > p.start })
		hi := len(ps.list)
		if !p.last {
			hi = sort.Search(len(ps.list), func(i int) bool { return ps.list[i].start >= p.end })
		}
		if hi-lo == 1 && *ps.list[lo] == *p {
			continue
		}
		if len(ps.list) >= pagesKept {
			ps.list, lo, hi = nil, 0, 0
		}
		ps.list = slices.Replace(ps.list, lo, max(lo, hi), p)
	}
}

func (ps *pages) forget(p *page) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	i := sort.Search(len(ps.list), func(i int) bool { return ps.list[i].start >= p.start })
	if i < len(ps.list) && ps.list[i].id == p.id {
		ps.list = slices.Delete(ps.list, i, i+1)
	}
}

// lookup returns the two calls that ask the index for the page of field and for
// the n pages after it.
func (d *distribution) lookup(field string, n int) []call {
	after := indexKey(field) + "\x00\x01" // beyond all members that start at field or before
	return []call{
		{name: "ZREVRANGEBYLEX", keys: []string{d.index()}, args: []any{"(" + after, "-", "LIMIT", "0", "1"}},
		{name: "ZRANGEBYLEX", keys: []string{d.index()}, args: []any{"[" + after, "+", "LIMIT", "0", strconv.Itoa(n)}},
	}
}

// looked turns the answers to lookup into at most n facts; none if there is no
// index. The two answers are of different moments: that does not matter, since
// a page that was replaced between them no longer exists.
func looked(floor, following reply, n int) []*page {
	var facts []*page
	for _, m := range append(slices.Clone(floor.list()), following.list()...) {
		start, id, ok := parseMember(reply{m}.string())
		if !ok {
			continue
		}
		if len(facts) > 0 {
			facts[len(facts)-1].end = start
		}
		facts = append(facts, &page{id: id, start: start})
	}
	if len(floor.list()) == 0 || len(facts) == 0 {
		return nil
	}
	if len(facts) > n {
		return facts[:n]
	}
	facts[len(facts)-1].last = true
	return facts
}

// locate learns which pages cover the fields, which are in order, and creates
// the first page where there is none. It returns the name of the inventory.
func (s *Store) locate(ctx context.Context, op string, d *distribution, fields []string) (string, error) {
	const atOnce = 64
	missing := fields
	for {
		inventory := d.pages.named()
		if inventory == "" {
			if err := s.create(ctx, op, d); err != nil {
				return "", err
			}
			continue
		}
		missing = slices.DeleteFunc(slices.Clone(missing), func(f string) bool { return d.pages.find(inventory, f) != nil })
		if len(missing) == 0 {
			return inventory, nil
		}
		var calls []call
		for i := range min(len(missing), atOnce) {
			calls = append(calls, d.lookup(missing[i*len(missing)/min(len(missing), atOnce)], 1)...)
		}
		replies, err := s.run(ctx, op, calls)
		if err != nil {
			return "", err
		}
		for i := 0; i < len(replies); i += 2 {
			facts := looked(replies[i], replies[i+1], 1)
			if facts == nil {
				d.pages.name("") // the index was lost
				break
			}
			d.pages.learn(inventory, facts...)
		}
	}
}

// create asks for the inventory's name, and makes the first page where there is none.
func (s *Store) create(ctx context.Context, op string, d *distribution) error {
	p := page{id: newID(), last: true}
	life := d.lives()
	r, err := s.one(ctx, op, call{
		script: scripts.create, keys: []string{d.meta(), d.index(), d.page(p.id)}, args: []any{p.member(), newID()},
	})
	if err != nil {
		return err
	}
	name := r.at(0).string()
	if name == "" {
		return s.fault(op, errReply)
	}
	if r.at(1).int() == 1 {
		if err := s.lost(ctx, op, d, life); err != nil {
			return err
		}
	}
	d.pages.name(name)
	return nil
}

// missed is called when the index names a page that is not there. It mends the
// index, and starts a new epoch if the page was lost.
func (s *Store) missed(ctx context.Context, op string, d *distribution, p *page) error {
	life := d.lives()
	r, err := s.one(ctx, op, call{script: scripts.repair, keys: []string{d.index(), d.page(p.id)}, args: []any{p.member()}})
	if err != nil || r.int() == 0 {
		return err
	}
	return s.lost(ctx, op, d, life)
}

// split replaces pages that have grown by pages of about pageAim paths.
func (s *Store) split(ctx context.Context, op string, d *distribution, grown []*page) error {
	inventory := d.pages.named()
	for chunk := range slices.Chunk(grown, 16) {
		var asks []call
		for _, p := range chunk {
			asks = append(asks, call{name: "HKEYS", keys: []string{d.page(p.id)}})
		}
		replies, err := s.run(ctx, op, asks)
		if err != nil {
			return err
		}
		var (
			calls []call
			olds  []*page
			news  [][]*page
		)
		for i, p := range chunk {
			var fields []string
			for _, f := range replies[i].list() {
				if f := (reply{f}).string(); f != "" {
					fields = append(fields, f)
				}
			}
			if len(fields) == 0 {
				d.pages.forget(p)
				continue
			}
			slices.Sort(fields)
			parts := divide(p, fields)
			if len(parts) < 2 {
				continue
			}
			c := call{script: scripts.split, keys: []string{d.index(), d.page(p.id)}, args: []any{p.member(), p.common()}}
			for _, n := range parts {
				c.keys = append(c.keys, d.page(n.id))
				c.args = append(c.args, n.start, n.member())
			}
			calls, olds, news = append(calls, c), append(olds, p), append(news, parts)
		}
		if len(calls) == 0 {
			continue
		}
		life := d.lives()
		if replies, err = s.run(ctx, op, calls); err != nil {
			return err
		}
		for i, r := range replies {
			switch r.int() {
			case 1:
				d.pages.learn(inventory, news[i]...)
			case 0:
				d.pages.forget(olds[i])
			default:
				// The page is there and the index does not know it: nobody can
				// find it any more.
				d.pages.name("")
				if err := s.lost(ctx, op, d, life); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// divide cuts the range of p so that each part has about pageAim of the sorted
// fields. Parts start as early, and so as briefly, as the field before allows.
func divide(p *page, fields []string) []*page {
	n := (len(fields) + pageAim/2) / pageAim
	var parts []*page
	for i := range n {
		part := &page{id: newID(), start: p.start, end: p.end, last: p.last}
		if i > 0 {
			at := i * len(fields) / n
			part.start = separator(fields[at-1], fields[at])
			parts[i-1].end, parts[i-1].last = part.start, false
		}
		parts = append(parts, part)
	}
	return parts
}

// separator returns the shortest beginning of b that is greater than a, given a < b.
func separator(a, b string) string {
	i := 0
	for i < len(a) && a[i] == b[i] {
		i++
	}
	return b[:i+1]
}

// join lets pages that have become small be one with the page before them.
func (s *Store) join(ctx context.Context, op string, d *distribution, small []*page) error {
	inventory := d.pages.named()
	for _, right := range small {
		if right.start == "" {
			continue
		}
		// The page before covers what comes right before the start; members
		// below this one end there.
		r, err := s.one(ctx, op, call{name: "ZREVRANGEBYLEX", keys: []string{d.index()},
			args: []any{"(" + indexKey(right.start) + "\x00\x00", "-", "LIMIT", "0", "1"}})
		if err != nil {
			return err
		}
		start, id, ok := parseMember(r.at(0).string())
		if !ok {
			continue
		}
		left := page{id: id, start: start, end: right.start}
		both := &page{id: newID(), start: start, end: right.end, last: right.last}
		r, err = s.one(ctx, op, call{
			script: scripts.join,
			keys:   []string{d.index(), d.page(left.id), d.page(right.id), d.page(both.id)},
			args:   []any{left.member(), right.member(), both.member(), pageSplit},
		})
		if err != nil {
			return err
		}
		if r.int() == 1 {
			d.pages.learn(inventory, both)
		}
	}
	return nil
}
