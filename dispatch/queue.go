// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/plan"
)

// A queued item was planned and stands in no batch yet.
type queued struct {
	item cfpath.Item
	// entries is how many entries it invalidates, at least 1.
	entries int32
	// lookedUp: nobody typed it, so that it is sent for the sake of entries alone.
	lookedUp bool
}

// A queue is what is left to send, in the order of the plan.
type queue struct {
	items     []queued
	wildcards int
}

func (q *queue) add(it cfpath.Item, entries int, lookedUp bool) {
	q.items = append(q.items, queued{it, int32(min(max(1, entries), 1<<31-1)), lookedUp})
	if it.Kind == cfpath.Wildcard {
		q.wildcards++
	}
}

// addPlan queues a plan's items, less those that are sent already.
func (q *queue) addPlan(p *plan.Plan, sent map[string]bool) {
	for i := range p.Items {
		it := &p.Items[i]
		if !sent[it.Item.String()] {
			// A directory of which no entry is known goes with what was named.
			named := it.Reason.Code == plan.ReasonNamed || it.Reason.Code == plan.ReasonRoot || it.Reason.Code == plan.ReasonDirectory && it.Covers == 0
			q.add(it.Item, it.Covers+it.Collateral, !named)
		}
	}
}

func (q *queue) load() load { return load{len(q.items) - q.wildcards, q.wildcards} }

// loadAt is the load of the items at some places.
func (q *queue) loadAt(places []int) load {
	l := load{others: len(places)}
	for _, i := range places {
		if q.items[i].item.Kind == cfpath.Wildcard {
			l.others--
			l.wildcards++
		}
	}
	return l
}

// next returns the places of the items that fit room, at most size of them, and
// whose entries the throttle lets pass beside what is owed. Wildcards come with the first
// that have room for them, wherever they stand: they are what there are few of. Nothing
// leaves the queue.
func (q *queue) next(room load, size int, t throttle, owed float64) []int {
	var next []int
	room.wildcards = min(room.wildcards, q.wildcards, size)
	room.others = min(room.others, size-room.wildcards)
	for i := range q.items {
		if room.items() == 0 {
			break
		}
		it := &q.items[i]
		left := &room.others
		if it.item.Kind == cfpath.Wildcard {
			left = &room.wildcards
		}
		if *left == 0 {
			continue
		}
		if !t.fits(owed, float64(it.entries)) {
			break
		}
		owed += float64(it.entries)
		*left--
		next = append(next, i)
	}
	return next
}

// entries counts what the items at some places reach.
func (q *queue) entries(places []int) int {
	n := 0
	for _, i := range places {
		n += int(q.items[i].entries)
	}
	return n
}

// remove takes items out, given by their places in ascending order. What is before
// the last of them moves; what comes after it, most of the queue, stays.
func (q *queue) remove(places []int) {
	if len(places) == 0 {
		return
	}
	to := places[len(places)-1]
	for i, p := to, len(places)-1; i >= 0; i-- {
		if p >= 0 && places[p] == i {
			p--
			if q.items[i].item.Kind == cfpath.Wildcard {
				q.wildcards--
			}
			continue
		}
		q.items[to] = q.items[i]
		to--
	}
	q.items = q.items[to+1:]
}
