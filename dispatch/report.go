// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/plan"
)

// A Report says how far an invalidation is. Its JSON form is fixed.
type Report struct {
	ID      string        `json:"id"`
	State   journal.State `json:"state"`
	Cut     time.Time     `json:"cut"`
	Items   int           `json:"items"` // in all batches, follow-ups included
	Price   float64       `json:"price"`
	Reason  string        `json:"reason"`
	Batches []BatchReport `json:"batches"`
	// Compacted is when the journal forgot the batches up to then, which nothing
	// depends on any more; nil if it did not. They still count in Items.
	Compacted    *time.Time `json:"compacted,omitempty"`
	FollowUps    int        `json:"follow_ups"`
	Distribution string     `json:"distribution"`
	By           string     `json:"by"`
	Opened       time.Time  `json:"opened"`
	Ended        *time.Time `json:"ended"`
	Selector     string     `json:"selector"`
	// Selected is how many entries were selected when it was planned.
	Selected int `json:"selected"`
	// Uncovered is what was selected and could not be named, or was refused.
	Uncovered []journal.Refusal `json:"uncovered"`
	// NotFollowed says why completion cannot be watched; empty if it can.
	NotFollowed string `json:"not_followed"`
	// Holding names what the sweep waits for.
	Holding []string `json:"holding"`
	// Trouble is CloudFront's last answer where calls are being put off.
	Trouble string `json:"trouble,omitempty"`
	Error   string `json:"error"`
	Code    string `json:"code"`
	// Saved is what batches of other invalidations made unnecessary to send.
	Saved journal.Saving `json:"saved"`
	// RepeatAt is when everything goes out once more, where that was asked for and
	// it is known.
	RepeatAt *time.Time `json:"repeat_at,omitempty"`

	of      *run // what it reports on, if it is led here, and at which change
	changes int
}

// digest is the same for reports that look the same.
func (r *Report) digest() string {
	var states [4]int
	for _, b := range r.Batches {
		switch b.State {
		case journal.Saved:
			states[0]++
		case journal.Accepted:
			states[1]++
		case journal.BatchDone:
			states[2]++
		default:
			states[3]++
		}
	}
	return fmt.Sprint(r.State, r.Items, r.FollowUps, states, r.Holding, r.Trouble)
}

// A BatchReport is one CreateInvalidation call.
type BatchReport struct {
	CallerReference string             `json:"caller_reference"`
	InvalidationID  string             `json:"invalidation_id"`
	Items           int                `json:"items"`
	State           journal.BatchState `json:"state"`
	Error           string             `json:"error"`
	FollowUp        bool               `json:"follow_up"`
	Repeat          bool               `json:"repeat,omitempty"`
	Sent            time.Time          `json:"sent"`
}

// Status reads how far an invalidation is.
func (d *Dispatcher) Status(ctx context.Context, id string) (*Report, error) {
	inv, err := d.journal.Invalidation(ctx, id)
	if err != nil {
		return nil, err
	}
	batches, err := d.journal.Batches(ctx, inv.Number)
	if err != nil {
		return nil, err
	}
	return NewReport(inv, batches), nil
}

// NewReport returns the report of an invalidation and its batches.
func NewReport(inv *journal.Invalidation, batches []*journal.Batch) *Report {
	r := &Report{
		ID: inv.ID, State: inv.State, Cut: inv.Cut, Reason: inv.Reason, FollowUps: inv.FollowUps,
		Distribution: inv.Distribution, By: inv.By, Opened: inv.Opened, Selector: inv.SelectorText(),
		NotFollowed: inv.NotFollowed, Error: inv.Error, Code: inv.ErrorCode, Saved: inv.Saved,
		Batches: []BatchReport{}, Uncovered: []journal.Refusal{}, Holding: []string{},
	}
	if !inv.Ended.IsZero() {
		r.Ended = &inv.Ended
	}
	if !inv.Repeat.IsZero() {
		r.RepeatAt = &inv.Repeat
	}
	r.Uncovered = append(r.Uncovered, inv.Refused...)
	r.Items = sentOf(inv, batches)
	if c := inv.Compacted; c != nil {
		r.Compacted = &c.At
	}
	for _, b := range batches {
		if inv.Compacted != nil && b.Number < inv.Compacted.Batches {
			continue // about to go
		}
		r.Batches = append(r.Batches, BatchReport{
			CallerReference: b.Reference, InvalidationID: b.InvalidationID, Items: len(b.Items),
			State: b.State, Error: b.Error, FollowUp: b.FollowUp, Repeat: b.Repeat, Sent: b.Sent,
		})
	}
	if p := inv.Planned; p != nil {
		r.Selected, r.Price = p.Selected, plan.PriceModel{FreePaths: p.FreePaths}.Of(max(r.Items, expected(inv, batches)))
		r.Uncovered = append(slices.Clone(p.Uncovered), r.Uncovered...)
	}
	return r
}

// sentOf is how many items of an invalidation have gone out, or are about to.
func sentOf(inv *journal.Invalidation, batches []*journal.Batch) int {
	n := 0
	if inv.Compacted != nil {
		n = inv.Compacted.Items
	}
	for _, b := range batches {
		if b.State != journal.BatchRefused && (inv.Compacted == nil || b.Number >= inv.Compacted.Batches) {
			n += len(b.Items)
		}
	}
	return n
}

// expected is how many items an invalidation that is not over may come to.
func expected(inv *journal.Invalidation, batches []*journal.Batch) int {
	if inv.Planned == nil || inv.State.Ended() {
		return 0
	}
	n := inv.Planned.Items - inv.Planned.Dropped
	if inv.Options.RepeatAfter > 0 {
		if inv.Sent {
			return sentOf(inv, batches) + len(repetition(batches).items)
		}
		n *= 2
	}
	return n + inv.FollowUps
}
