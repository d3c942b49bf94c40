// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import "slices"

// A cover is the problem of which tags to send. Each tag costs one, and so
// does each need that they do not satisfy: an item that then has to be sent too.
type cover struct {
	tags  int // how many there are
	needs []need
	must  int // items that no tags replace
}

// A need is satisfied if of each of its signatures a tag is chosen.
type need struct {
	weight int // the number of such items, or of uncovered entries times heavy
	sigs   [][]int32
}

const (
	heavy      = 1 << 28   // what an uncovered entry costs
	searchWork = 5_000_000 // needs looked at, in all, before the best so far is taken
)

// solve finds the tags to send, and how many items, tags and others, there are at least.
func (c *cover) solve() (chosen []int32, lower int) {
	lower = c.must
	s := c.search()
	for _, part := range c.parts() {
		s.needs, s.gone = part, make([]bool, len(part))
		least := s.bound(true)
		s.best = s.greedy(func(int32) int { return 0 }, none, none)
		s.cost = len(s.best) + s.unsatisfied()
		for _, t := range s.best {
			s.state[t] = 0
		}
		if s.descend(0); s.work > 0 {
			least = s.cost % heavy
		}
		lower += least
		chosen = append(chosen, s.best...)
	}
	slices.Sort(chosen)
	return chosen, lower
}

// search looks at all needs, unless it is told to look at some.
func (c *cover) search() *search {
	return &search{needs: c.needs, state: make([]uint8, c.tags), used: make([]int, c.tags), work: searchWork}
}

// parts are the needs apart that have no tags in common.
func (c *cover) parts() (out [][]need) {
	group := make([]int32, c.tags)
	for i := range group {
		group[i] = int32(i)
	}
	find := func(i int32) int32 {
		for group[i] != i {
			group[i] = group[group[i]]
			i = group[i]
		}
		return i
	}
	for _, n := range c.needs {
		for _, sig := range n.sigs {
			for _, t := range sig {
				group[find(t)] = find(n.sigs[0][0])
			}
		}
	}
	at := map[int32]int{}
	for _, n := range c.needs {
		root := find(n.sigs[0][0])
		i, ok := at[root]
		if !ok {
			i = len(out)
			at[root] = i
			out = append(out, nil)
		}
		out[i] = append(out[i], n)
	}
	return out
}

// A search is branch and bound over needs that hang together.
type search struct {
	needs []need
	state []uint8 // of tags: 0, picked or forbidden
	gone  []bool  // needs that are given up
	taken []int32
	best  []int32
	cost  int // of best
	work  int // left

	used  []int // of tags, when a bound last counted one
	round int
}

const (
	picked    = 1
	forbidden = 2
)

// open finds a signature of a need that no chosen tag is of, the one with the fewest
// tags left; dead tells that one has none left.
func (s *search) open(n *need) (sig []int32, dead bool) {
	least := none
	for _, tags := range n.sigs {
		left := 0
		for _, t := range tags {
			switch s.state[t] {
			case picked:
				left = none
			case 0:
				left++
			}
			if left == none {
				break
			}
		}
		if left == 0 {
			return nil, true
		}
		if left < least {
			sig, least = tags, left
		}
	}
	return sig, false
}

// unsatisfied is what the needs weigh that the chosen tags do not satisfy.
func (s *search) unsatisfied() (weight int) {
	for i := range s.needs {
		if sig, dead := s.open(&s.needs[i]); dead || sig != nil {
			weight += s.needs[i].weight
		}
	}
	return weight
}

// bound is what the open needs cost at least: those that have no tag in common
// cost one each. For items alone, uncovered entries cost nothing.
func (s *search) bound(items bool) (n int) {
	s.round++
	for i := range s.needs {
		if s.gone[i] || items && s.needs[i].weight >= heavy {
			continue
		}
		sig, dead := s.open(&s.needs[i])
		if dead {
			n += s.needs[i].weight
			continue
		}
		if sig == nil {
			continue
		}
		free := true
		for _, sig := range s.needs[i].sigs {
			for _, t := range sig {
				free = free && s.used[t] != s.round
			}
		}
		if free {
			n++
			for _, sig := range s.needs[i].sigs {
				for _, t := range sig {
					s.used[t] = s.round
				}
			}
		}
	}
	s.work -= len(s.needs)
	return n
}

// descend tries all that may be better than the best, at what it costs so far.
func (s *search) descend(cost int) {
	if s.work <= 0 || cost+s.bound(false) >= s.cost {
		return
	}
	var sig []int32
	at, rank := -1, 0
	total := cost
	for i := range s.needs {
		if s.gone[i] {
			continue
		}
		open, dead := s.open(&s.needs[i])
		switch {
		case dead:
			total += s.needs[i].weight
		case open != nil && s.needs[i].weight > rank:
			at, sig, rank = i, open, s.needs[i].weight
		}
	}
	if at < 0 {
		s.best, s.cost = slices.Clone(s.taken), total
		return
	}
	var tried []int32
	for _, t := range sig {
		if s.state[t] != 0 {
			continue
		}
		s.state[t] = picked
		s.taken = append(s.taken, t)
		s.descend(cost + 1)
		s.taken = s.taken[:len(s.taken)-1]
		s.state[t] = forbidden
		tried = append(tried, t)
	}
	for _, t := range tried {
		s.state[t] = 0
	}
	s.gone[at] = true
	s.descend(cost + s.needs[at].weight)
	s.gone[at] = false
}

// greedy chooses tag after tag, each time the one that saves most, of at most so many and
// with at most so much collateral together.
func (s *search) greedy(collateral func(int32) int, most, items int) (out []int32) {
	for len(out) < items && s.work > 0 {
		s.work -= len(s.needs)
		gain := map[int32]int{}
		for i := range s.needs {
			var common []int32 // that would satisfy what is open
			first, open := true, false
			for _, sig := range s.needs[i].sigs {
				if slices.ContainsFunc(sig, func(t int32) bool { return s.state[t] == picked }) {
					continue
				}
				open = true
				if first {
					common, first = sig, false
				} else {
					common = slices.DeleteFunc(slices.Clone(common), func(t int32) bool { return !slices.Contains(sig, t) })
				}
			}
			if open {
				for _, t := range common {
					gain[t] += s.needs[i].weight
				}
			}
		}
		best, found := int32(0), false
		for t, n := range gain {
			if n > 1 && collateral(t) <= most {
				switch {
				case !found, n > gain[best], n == gain[best] && (collateral(t) < collateral(best) || collateral(t) == collateral(best) && t < best):
					best, found = t, true
				}
			}
		}
		if !found {
			break
		}
		s.state[best] = picked
		most -= collateral(best)
		out = append(out, best)
	}
	return out
}
