// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

const (
	// callItems and callBytes bound what one script is given to do, pipeCalls
	// how many scripts are sent before their answers are read.
	callItems = 100
	callBytes = 128 << 10
	pipeCalls = 16
)

// An item is what is to be done to one path: a field, and the arguments that
// follow it in a script's ARGV.
type item struct {
	field string
	args  []any
}

func size(it item) int {
	n := len(it.field)
	for _, a := range it.args {
		if s, ok := a.(string); ok {
			n += len(s)
		}
	}
	return n
}

// A group is some items of one page within a call. Its items begin after
// position at of ARGV, counted from 1.
type group struct {
	page  *page
	items []item
	at    int
}

// sortItems orders items for grouped; those of one path keep their order.
func sortItems(items []item) {
	slices.SortStableFunc(items, func(a, b item) int { return cmp.Compare(a.field, b.field) })
}

// grouped packs sorted items into calls of the script, page by page, with the
// name of the inventory and first at the head of each ARGV. Items whose page is
// not known any more are returned.
func (d *distribution) grouped(sc *script, inventory string, items []item, first []any) (calls []call, groups [][]group, unknown []item) {
	n, bytes := 0, 0
	for i := 0; i < len(items); {
		p := d.pages.find(inventory, items[i].field)
		if p == nil {
			unknown = append(unknown, items[i])
			i++
			continue
		}
		j, b := i, 0
		for j < len(items) && j-i < callItems && (b < callBytes || j == i) && p.covers(items[j].field) {
			b += size(items[j])
			j++
		}
		if len(calls) == 0 || n+j-i > callItems || bytes+b > callBytes {
			calls = append(calls, call{script: sc, keys: []string{d.meta(), d.index()}, args: append([]any{inventory}, first...)})
			groups = append(groups, nil)
			n, bytes = 0, 0
		}
		c := &calls[len(calls)-1]
		c.keys = append(c.keys, d.page(p.id))
		c.args = append(c.args, strconv.Itoa(j-i))
		groups[len(groups)-1] = append(groups[len(groups)-1], group{p, items[i:j], len(c.args)})
		for _, it := range items[i:j] {
			c.args = append(append(c.args, it.field), it.args...)
		}
		n, bytes, i = n+j-i, bytes+b, j
	}
	return calls, groups, unknown
}

func fieldsOf(items []item) []string {
	fields := make([]string, len(items))
	for i, it := range items {
		fields[i] = it.field
	}
	return fields
}

// each runs the script on the items, which are sorted, page by page, until none
// is left. take is given the name of the inventory, what was known before, and
// the answers with their groups; it returns the groups whose pages were gone,
// and other items that have to be done again.
func (s *Store) each(ctx context.Context, op string, d *distribution, sc *script, items []item, first []any,
	take func(name string, before int64, life int, groups [][]group, replies []reply) (gone []group, again []item, err error),
) error {
	suspects := make(map[string]bool)
	for len(items) > 0 {
		inventory, err := s.locate(ctx, op, d, fieldsOf(items))
		if err != nil {
			return err
		}
		calls, groups, again := d.grouped(sc, inventory, items, first)
		for lo := 0; lo < len(calls); lo += pipeCalls {
			hi := min(lo+pipeCalls, len(calls))
			before, life := d.state()
			replies, err := s.run(ctx, op, calls[lo:hi])
			if err != nil {
				return err
			}
			// Where it is another inventory by now, all is to be done again.
			valid, kept := make([][]group, 0, len(replies)), replies[:0]
			for i, r := range replies {
				if r.v != nil {
					valid, kept = append(valid, groups[lo+i]), append(kept, r)
					continue
				}
				if d.pages.named() == inventory {
					d.pages.name("")
				}
				for _, g := range groups[lo+i] {
					again = append(again, g.items...)
				}
			}
			gone, more, err := take(inventory, before, life, valid, kept)
			if err != nil {
				return err
			}
			again = append(again, more...)
			for _, g := range gone {
				again = append(again, g.items...)
				if !suspects[g.page.id] {
					suspects[g.page.id] = true
					d.pages.forget(g.page)
				} else if err := s.missed(ctx, op, d, g.page); err != nil {
					return err
				}
			}
		}
		items = again
		sortItems(items)
	}
	return nil
}

// Merge implements [store.Store].
func (s *Store) Merge(ctx context.Context, distribution string, updates []inventory.Update) error {
	const op = "merge"
	if err := s.begin(ctx, op); err != nil {
		return err
	}
	items := merged(updates)
	if len(items) == 0 {
		return nil
	}
	d := s.distribution(distribution)
	if err := s.contact(ctx, op, d); err != nil {
		return err
	}
	for chunk := range slices.Chunk(items, 50_000) {
		if err := s.merge(ctx, d, chunk); err != nil {
			return err
		}
	}
	return s.register(ctx, op, d)
}

// merged encodes updates in order of path, each path once. Records that say
// nothing are left out.
func merged(updates []inventory.Update) []item {
	order := make([]int, len(updates))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(updates[a].Path, updates[b].Path) })
	items := make([]item, 0, len(updates))
	for i := 0; i < len(order); {
		u := updates[order[i]]
		r := u.Record
		for i++; i < len(order) && updates[order[i]].Path == u.Path; i++ {
			r = r.Merge(updates[order[i]].Record)
		}
		if r.Last != 0 || r.Removed != 0 || r.TTLAt != 0 || r.Folded {
			items = append(items, item{toField(u.Path), []any{string(r.Append(nil))}})
		}
	}
	return items
}

func (s *Store) merge(ctx context.Context, d *distribution, items []item) error {
	const op = "merge"
	return s.each(ctx, op, d, scripts.merge, items, []any{pageFull}, func(name string, before int64, life int, groups [][]group, replies []reply) (gone []group, again []item, err error) {
		var (
			grown    = make(map[string]*page)
			replaces []call
			replaced []item
		)
		for i, r := range replies {
			if len(r.list()) != 5 {
				return nil, nil, s.fault(op, errReply)
			}
			for _, k := range r.at(1).list() {
				gone = append(gone, groups[i][reply{k}.int()-1])
			}
			for _, k := range r.at(2).list() {
				g := groups[i][reply{k}.int()-1]
				again = append(again, g.items...)
				grown[g.page.id] = g.page
			}
			for k, n := range r.at(3).list() {
				if (reply{n}).int() > pageSplit {
					p := groups[i][k].page
					grown[p.id] = p
				}
			}
			clashes := r.at(4).list()
			for k := 0; k+1 < len(clashes); k += 2 {
				g, it := itemAt(groups[i], int(reply{clashes[k]}.int()))
				old := reply{clashes[k+1]}.string()
				// Copies: MergeEncoded works in place.
				record, err := inventory.MergeEncoded([]byte(old), []byte(it.args[0].(string)))
				if err != nil {
					return nil, nil, s.hinted(op, err, fmt.Sprintf("what the store keeps for %.200q was not written by cftrack", toPath(it.field)))
				}
				replaces = append(replaces, call{
					script: scripts.replace, keys: []string{d.meta(), d.index(), d.page(g.page.id)},
					args: []any{name, it.field, old, string(record)},
				})
				replaced = append(replaced, it)
			}
		}
		if err := s.observe(ctx, op, d, before, life, replies); err != nil {
			return nil, nil, err
		}
		if len(replaces) > 0 {
			results, err := s.run(ctx, op, replaces)
			if err != nil {
				return nil, nil, err
			}
			for i, r := range results {
				if r.at(2).int() == 0 {
					again = append(again, replaced[i])
				}
			}
		}
		if len(grown) > 0 {
			all := make([]*page, 0, len(grown))
			for _, p := range grown {
				all = append(all, p)
			}
			err = s.split(ctx, op, d, all)
		}
		return gone, again, err
	})
}

// itemAt returns what stands at position n of ARGV, counted from 1.
func itemAt(groups []group, n int) (group, item) {
	for i := len(groups) - 1; ; i-- {
		if g := groups[i]; n > g.at {
			return g, g.items[(n-g.at-1)/(1+len(g.items[0].args))]
		}
	}
}

// Clear implements [store.Store].
func (s *Store) Clear(ctx context.Context, distribution string, conditions []store.Condition) (int, error) {
	const op = "clear"
	if err := s.begin(ctx, op); err != nil {
		return 0, err
	}
	var items []item
	for _, c := range conditions {
		// A record cannot have ended before no instant at all.
		if before := claimInstant(c.Before); before != 0 {
			uniform := "0"
			if c.Uniform {
				uniform = "1"
			}
			items = append(items, item{toField(c.Path), []any{encode48(before), uniform}})
		}
	}
	if len(items) == 0 {
		return 0, nil
	}
	sortItems(items)
	d := s.distribution(distribution)
	if err := s.contact(ctx, op, d); err != nil {
		return 0, err
	}
	cleared := 0
	err := s.each(ctx, op, d, scripts.clear, items, nil, func(_ string, _ int64, _ int, groups [][]group, replies []reply) (gone []group, again []item, err error) {
		var small []*page
		for i, r := range replies {
			if len(r.list()) != 3 {
				return nil, nil, s.fault(op, errReply)
			}
			cleared += int(r.at(1).int())
			for k, n := range r.at(2).list() {
				g := groups[i][k]
				switch n := (reply{n}).int(); {
				case n == 0:
					gone = append(gone, g)
				case n <= pageSmall:
					small = append(small, g.page)
				}
			}
		}
		return gone, nil, s.join(ctx, op, d, small)
	})
	return cleared, err
}

func encode48(v int64) string {
	return string([]byte{byte(v >> 40), byte(v >> 32), byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// A pair is a field and its record, encoded.
type pair struct{ field, record string }

// walk visits the pages from the one that covers from on, with their pairs in
// order, until visit wants no more.
func (s *Store) walk(ctx context.Context, op string, d *distribution, from string, visit func(*page, []pair) (bool, error)) error {
	if err := s.contact(ctx, op, d); err != nil {
		return err
	}
	before, life := d.state()
	calls := append(d.lookup(from, 1), call{name: "HMGET", keys: []string{d.meta()}, args: []any{"writes", "inventory"}})
	replies, err := s.run(ctx, op, calls)
	if err != nil {
		return err
	}
	if replies[2].at(0).int() < before {
		if err := s.lost(ctx, op, d, life); err != nil {
			return err
		}
	} else if looked(replies[0], replies[1], 1) == nil {
		if replies[2].at(1).v == nil {
			return nil // nothing was ever merged
		}
		if err := s.create(ctx, op, d); err != nil { // the index was lost
			return err
		}
	}
	suspects := make(map[string]bool)
	for n := 2; ; {
		replies, err := s.run(ctx, op, d.lookup(from, n))
		if err != nil {
			return err
		}
		facts := looked(replies[0], replies[1], n)
		if facts == nil {
			return nil
		}
		reads := make([]call, len(facts))
		for i, p := range facts {
			reads[i] = call{name: "HGETALL", keys: []string{d.page(p.id)}}
		}
		if replies, err = s.run(ctx, op, reads); err != nil {
			return err
		}
		bytes := 0
		for i, p := range facts {
			if len(replies[i].list()) == 0 {
				// It was replaced meanwhile, or lost: the index knows.
				if suspects[p.id] {
					if err := s.missed(ctx, op, d, p); err != nil {
						return err
					}
				}
				suspects[p.id] = true
				break
			}
			pairs, b := pairsOf(replies[i])
			bytes += b
			more, err := visit(p, pairs)
			if err != nil || !more || p.last {
				return err
			}
			from = p.end
		}
		// As many pages at once as makes a megabyte.
		switch {
		case bytes < 500<<10:
			n = min(2*n, 64)
		case bytes > 1<<20:
			n = max(n/2, 1)
		}
	}
}

func pairsOf(r reply) (pairs []pair, bytes int) {
	l := r.list()
	pairs = make([]pair, 0, len(l)/2)
	for i := 0; i+1 < len(l); i += 2 {
		p := pair{reply{l[i]}.string(), reply{l[i+1]}.string()}
		bytes += len(p.field) + len(p.record)
		if p.field != "" {
			pairs = append(pairs, p)
		}
	}
	slices.SortFunc(pairs, func(a, b pair) int { return cmp.Compare(a.field, b.field) })
	return pairs, bytes
}

// Scan implements [store.Store].
func (s *Store) Scan(ctx context.Context, distribution string, r store.Range) iter.Seq2[inventory.Entry, error] {
	const op = "scan"
	return func(yield func(inventory.Entry, error) bool) {
		if err := s.begin(ctx, op); err != nil {
			yield(inventory.Entry{}, err)
			return
		}
		if r.Now.IsZero() {
			return
		}
		from := max(r.Prefix, r.From)
		first := ""
		if from != "" {
			first = toField(from)
		}
		stopped := false
		err := s.walk(ctx, op, s.distribution(distribution), first, func(_ *page, pairs []pair) (bool, error) {
			for _, p := range pairs {
				path := toPath(p.field)
				if path < from {
					continue
				}
				if !strings.HasPrefix(path, r.Prefix) {
					return false, nil
				}
				var record inventory.Record
				if err := record.Decode([]byte(p.record)); err != nil {
					return false, s.hinted(op, err, fmt.Sprintf("what the store keeps for %.200q was not written by cftrack", path))
				}
				if !record.Live(r.Now) {
					continue
				}
				if err := ctx.Err(); err != nil {
					return false, err
				}
				if !yield(record.Entry(path), nil) {
					stopped = true
					return false, nil
				}
			}
			return true, nil
		})
		if err != nil && !stopped {
			yield(inventory.Entry{}, err)
		}
	}
}

// Sweep implements [store.Store].
func (s *Store) Sweep(ctx context.Context, distribution string, now time.Time) (int, error) {
	const op = "sweep"
	if err := s.begin(ctx, op); err != nil {
		return 0, err
	}
	d := s.distribution(distribution)
	swept := 0
	err := s.walk(ctx, op, d, "", func(p *page, pairs []pair) (bool, error) {
		var calls []call
		dead := 0
		for _, pr := range pairs {
			var record inventory.Record
			if err := record.Decode([]byte(pr.record)); err != nil {
				return false, s.hinted(op, err, fmt.Sprintf("what the store keeps for %.200q was not written by cftrack", toPath(pr.field)))
			}
			if !record.Dead(now) {
				continue
			}
			if dead%callItems == 0 {
				calls = append(calls, call{
					script: scripts.replace, keys: []string{d.meta(), d.index(), d.page(p.id)}, args: []any{""},
				})
			}
			c := &calls[len(calls)-1]
			c.args = append(c.args, pr.field, pr.record, "")
			dead++
		}
		if dead > 0 {
			replies, err := s.run(ctx, op, calls)
			if err != nil {
				return false, err
			}
			for _, r := range replies {
				swept += int(r.at(2).int())
			}
		}
		if dead > 0 && len(pairs)-dead < pageSmall {
			return true, s.join(ctx, op, d, []*page{p})
		}
		return true, nil
	})
	return swept, err
}
