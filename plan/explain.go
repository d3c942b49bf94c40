// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
)

// A question is a path to explain, and what the inventory knows of it.
type question struct {
	path string
	// The entry with the path or, if there is none, the last folded one it lies in.
	sighted, selected, inFlight bool
	entry                       inventory.Entry
}

// ask prepares the questions: in byte order, each once.
func ask(paths []string) []question {
	var qs []question
	for _, p := range slices.Compact(slices.Sorted(slices.Values(paths))) {
		qs = append(qs, question{path: p})
	}
	return qs
}

// note keeps what an entry says of the questions. Entries come in byte order.
func (c *computation) note(in *Input) {
	for len(c.pending) > 0 && c.pending[0].path < in.Entry.Path {
		c.pending = c.pending[1:]
	}
	for i := range c.pending {
		q := &c.pending[i]
		if q.path != in.Entry.Path && (!in.Entry.Folded || !strings.HasPrefix(q.path, in.Entry.Path)) {
			return
		}
		q.sighted, q.selected, q.inFlight, q.entry = true, in.Selected, in.InFlight, *in.Entry
	}
}

// explain says of each path what the plan does to it.
func (c *computation) explain(p *Plan) {
	for _, path := range c.opts.Explain {
		i, _ := slices.BinarySearchFunc(c.questions, path, func(q question, p string) int { return strings.Compare(q.path, p) })
		p.Explanations = append(p.Explanations, c.questions[i].answer(p))
	}
}

func (q *question) answer(p *Plan) Explanation {
	it := q.reachedBy(p.Items)
	x := Explanation{Path: q.path}
	if it != nil {
		x.Item = it.Item.String()
	}
	known := ""
	if q.sighted && q.entry.Path != q.path {
		known = fmt.Sprintf(", like all that begins with %s, of which only that is known", q.entry.Path)
	}
	switch {
	case !q.sighted && it != nil:
		x.Status = StatusNotSighted
		x.Sentence = fmt.Sprintf("%s is not in the inventory; if CloudFront has it, %s reaches it", q.path, it.Item)
	case !q.sighted:
		x.Status = StatusNotSighted
		x.Sentence = fmt.Sprintf("%s is not in the inventory, and no item reaches it; check its spelling with 'cftrack list', or name it to send it all the same", q.path)
	case q.selected && it != nil:
		x.Status = StatusCovered
		x.Sentence = fmt.Sprintf("%s is selected%s, and %s reaches it: %s", q.path, known, it.Item, it.Reason.Text)
		if it.Unsure && !it.Item.MatchesSurely(q.path) {
			x.Sentence += "; AWS does not confirm that it does, because of the spelling"
		}
	case q.selected && q.inFlight:
		x.Status = StatusInFlight
		x.Sentence = fmt.Sprintf("%s is selected%s, but an item that is on its way reaches it, and it was not sighted since", q.path, known)
	case q.selected:
		x.Status = StatusUncovered
		x.Sentence = fmt.Sprintf("%s is selected%s, but no item of the plan can reach it", q.path, known)
		for _, u := range p.Uncovered {
			if u.Path == q.entry.Path && u.Remedy != "" {
				x.Sentence += fmt.Sprintf("; %s would, with a collateral of %d", u.Remedy, u.RemedyCollateral)
			}
		}
	case it != nil:
		x.Status = StatusCollateral
		x.Sentence = fmt.Sprintf("%s is not selected%s, but %s reaches it: %s", q.path, known, it.Item, it.Reason.Text)
	default:
		x.Status = StatusLeftAlone
		x.Sentence = fmt.Sprintf("%s is not selected%s, and no item reaches it", q.path, known)
	}
	return x
}

// reachedBy finds the item that reaches the path most surely.
func (q *question) reachedBy(items []Item) (best *Item) {
	rank := 0
	for i := range items {
		it := &items[i].Item
		r := 0
		switch {
		case it.Kind == cfpath.Tag:
			if carries(&q.entry, it.Text) && (!q.selected || !q.entry.Mixed && !q.entry.Folded) {
				r = 3
			}
		case it.MatchesSurely(q.path):
			r = 4
		case it.Matches(q.path):
			r = 2
			if it.Kind == cfpath.Wildcard && it.Text == q.path && q.path != "/" && strings.HasSuffix(q.path, "/") {
				r = 1 // the directory itself, which such a wildcard may leave alone
			}
		}
		if r > rank {
			best, rank = &items[i], r
		}
	}
	return best
}

// carries tells whether an entry was sighted with a tag.
func carries(e *inventory.Entry, tag string) bool {
	return slices.ContainsFunc(e.Tags, func(t string) bool { return strings.EqualFold(t, tag) })
}
