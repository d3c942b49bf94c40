// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

// sets are sets of wildcards that share what they have in common. A set is 0 if
// it is empty, -k if it is the k-th wildcard alone, else the index of a join.
type sets struct {
	joins []join // the first is not used
	limit int    // beyond which it is worth looking for what nobody holds
}

type join struct{ a, b int32 }

func (s *sets) join(a, b int32) int32 {
	switch {
	case a == 0:
		return b
	case b == 0:
		return a
	}
	if len(s.joins) == 0 {
		s.joins = append(s.joins, join{})
	}
	s.joins = append(s.joins, join{a, b})
	return int32(len(s.joins) - 1)
}

// each calls f with the index of each wildcard, in the order of their joining.
func (s *sets) each(set int32, f func(i int32)) {
	var stack []int32
	for {
		switch {
		case set > 0:
			stack = append(stack, s.joins[set].b)
			set = s.joins[set].a
			continue
		case set < 0:
			f(-set - 1)
		}
		if len(stack) == 0 {
			return
		}
		set = stack[len(stack)-1]
		stack = stack[:len(stack)-1]
	}
}

// collect forgets the joins and wildcards that no open node holds.
func (t *tree) collect() {
	d := t.dp
	s := &d.sets
	if d.hulls || len(s.joins)+len(d.wilds) <= s.limit {
		return
	}
	var roots []*int32
	for i := range t.stack {
		if n := &t.stack[i]; n.chosen != nil && n.front != nil {
			f := n.front
			roots = append(roots, &f.base.set)
			for k := range f.points {
				roots = append(roots, &f.points[k].set)
			}
		}
	}
	// A join comes after what it joins.
	joins, wilds := make([]int32, len(s.joins)), make([]int32, len(d.wilds))
	mark := func(set int32) {
		if set > 0 {
			joins[set] = 1
		} else if set < 0 {
			wilds[-set-1] = 1
		}
	}
	for _, r := range roots {
		mark(*r)
	}
	for i := len(s.joins) - 1; i > 0; i-- {
		if joins[i] != 0 {
			mark(s.joins[i].a)
			mark(s.joins[i].b)
		}
	}
	n := int32(0)
	for i := range d.wilds {
		if wilds[i] != 0 {
			d.wilds[n] = d.wilds[i]
			n++
			wilds[i] = n
		}
	}
	clear(d.wilds[n:])
	d.wilds = d.wilds[:n]
	moved := func(set int32) int32 {
		if set > 0 {
			return joins[set]
		} else if set < 0 {
			return -wilds[-set-1]
		}
		return 0
	}
	n = min(1, int32(len(s.joins)))
	for i := 1; i < len(s.joins); i++ {
		if joins[i] != 0 {
			s.joins[n] = join{moved(s.joins[i].a), moved(s.joins[i].b)}
			joins[i] = n
			n++
		}
	}
	s.joins = s.joins[:n]
	for _, r := range roots {
		*r = moved(*r)
	}
	s.limit = max(s.limit, 2*(len(s.joins)+len(d.wilds)))
}
