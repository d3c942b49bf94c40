// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/plan"
	"github.com/cf-invalidation-tracker/cftrack/selector"
)

// makePlan writes a plan file, as "cftrack plan --output json" does.
func (w *world) makePlan(p *process, st *Step) {
	r := request(st)
	if st.Budget != "" {
		b, err := plan.ParseBudget(st.Budget)
		if err != nil {
			w.t.Fatal(err)
		}
		r.MaxCollateral = &b
	}
	preview, err := p.purger.Plan(p.ctx, r)
	if err != nil {
		w.say("%s could not do %s: %v", p.name, st, err)
		return
	}
	f, err := p.purger.PlanFile(p.ctx, r, preview)
	if err != nil {
		w.say("%s could not do %s: %v", p.name, st, err)
		return
	}
	data, err := json.Marshal(f)
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.files[st.Text], w.fixed[f.Hash] = data, f
	w.mu.Unlock()
	w.say("%s made %s: %d items, %d uncovered, collateral %q", p.name, st.Text, len(f.Items), len(f.Uncovered), f.Collateral)
}

// sendPlan is "cftrack invalidate --plan", perhaps on another machine.
func (w *world) sendPlan(p *process, st *Step) {
	w.mu.Lock()
	data := w.files[st.Text]
	w.mu.Unlock()
	if data == nil {
		return // it could not be made
	}
	f, err := dispatch.ReadPlanFile(bytes.NewReader(data))
	if err != nil {
		w.fault("%s: %v", st.Text, err)
		return
	}
	w.purge(p, st, dispatch.Request{Plan: f, Now: st.Now, Settle: st.Settle, RepeatAfter: st.Repeat})
}

// collateral is what the plan file of an invalidation says that it reaches beside.
func (w *world) collateral(inv *journal.Invalidation) map[string]bool {
	out := make(map[string]bool)
	if inv.Fixed == nil {
		return out
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, path := range w.fixed[inv.Fixed.Hash].Collateral {
		out[path] = true
	}
	return out
}

// judgePlanFiles holds what was sent against the plan files: exactly their items, or
// nothing; between two batches an item may have come to reach too far, and is named.
func (w *world) judgePlanFiles() {
	for _, inv := range w.final.Invalidations {
		if inv.Fixed == nil {
			continue
		}
		w.mu.Lock()
		f := w.fixed[inv.Fixed.Hash]
		w.mu.Unlock()
		if inv.Opened.Sub(f.Cut) > 10*time.Second {
			w.count("plan file sent late")
		}
		left := make(map[string]bool)
		for _, it := range f.Items {
			left[it.Item.String()] = true
		}
		sent := 0
		for _, b := range w.final.Batches {
			if b.Invalidation() != inv.Number || w.followUps[b.Reference] || b.Repeat || b.State == journal.BatchRefused {
				continue
			}
			sent += len(b.Items)
			for _, it := range b.Items {
				if !left[it] {
					w.fault("%s sends %s, which is not in its plan file, or was sent before", inv.ID, it)
				}
				delete(left, it)
			}
		}
		switch inv.State {
		case journal.Cancelled:
		case journal.Failed:
			w.count("plan file refused: " + inv.ErrorCode)
			if sent > 0 {
				w.fault("%s failed (%s) after %d items of its plan file were sent", inv.ID, inv.ErrorCode, sent)
			}
		default:
			if sent == 0 && len(left) > 0 {
				w.fault("%s is %s, and nothing of its plan file was sent", inv.ID, inv.State)
			}
			if len(left) == 0 {
				w.count("plan file sent")
			} else {
				w.count("plan file sent in part")
			}
			if len(f.Collateral) > 0 {
				w.count("plan file with collateral sent")
			}
			for it := range left {
				if !slices.ContainsFunc(inv.Refused, func(x journal.Refusal) bool { return x.Item == it }) {
					w.fault("%s is %s without %s of its plan file, and does not say so", inv.ID, inv.State, it)
				}
			}
		}
	}
}

// What has come under a wildcard of a plan file since its first batch is not hit.
func TestWhatComesBetweenTheBatchesOfAPlanFile(t *testing.T) {
	w := hold(t, tagged(
		Step{Do: Plan, At: 10 * s1, Text: "file", Assume: true, Batch: 1, Selector: selector.Selector{Tags: []string{"x"}}},
		Step{Do: Send, At: 20 * s1, Text: "file", Now: true}))
	inv := w.final.Invalidations[0]
	if inv.State != journal.Partial || len(inv.Refused) != 1 || inv.Refused[0].Item != "/p3/*" || w.counts["plan file sent in part"] != 1 {
		t.Errorf("%s, refused: %+v", inv.State, inv.Refused)
	}
}

// A removal is a batch that is said to have removed all that its items reach.
type removal struct {
	reference string
	items     []cfpath.Item
	created   time.Time // bubble time, at CloudFront
}

// removals are the batches that count as completed: by themselves, or since their
// invalidation is over.
func (w *world) removals(o *observation) []removal {
	if w.script.Harsh {
		return nil // an edge may have been filled again, with new content too
	}
	over := make(map[uint64]bool)
	for _, inv := range o.journal.Invalidations {
		over[inv.Number] = inv.State == journal.Completed || inv.State == journal.Partial
	}
	done := make(map[string]bool)
	for _, b := range o.journal.Batches {
		done[b.Reference] = b.State == journal.BatchDone || b.State == journal.Accepted && over[b.Invalidation()]
	}
	var out []removal
	for _, v := range w.sim.Invalidations() {
		if !done[v.CallerReference] {
			continue
		}
		x := removal{reference: v.CallerReference, created: v.Created}
		for _, text := range v.Items {
			if it, err := cfpath.ParseItem(text); err == nil {
				x.items = append(x.items, it)
			}
		}
		out = append(out, x)
	}
	return out
}

// reaches reports whether a removal must have removed a response: no gap, claim or
// loss is an excuse, since this rests on nothing but CloudFront's word.
func (v *removal) reaches(res *response) bool {
	return !res.end.IsZero() && res.end.Add(2*time.Second).Before(v.created) &&
		slices.ContainsFunc(v.items, func(it cfpath.Item) bool { return it.MatchesSurely(res.path) })
}
