// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"context"
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
}

// A BatchReport is one CreateInvalidation call.
type BatchReport struct {
	CallerReference string             `json:"caller_reference"`
	InvalidationID  string             `json:"invalidation_id"`
	Items           int                `json:"items"`
	State           journal.BatchState `json:"state"`
	Error           string             `json:"error"`
	FollowUp        bool               `json:"follow_up"`
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
		Distribution: inv.Distribution, By: inv.By, Opened: inv.Opened, Selector: inv.Selector.String(),
		NotFollowed: inv.NotFollowed, Error: inv.Error, Code: inv.ErrorCode,
		Batches: []BatchReport{}, Uncovered: []journal.Refusal{}, Holding: []string{},
	}
	if !inv.Ended.IsZero() {
		r.Ended = &inv.Ended
	}
	if p := inv.Planned; p != nil {
		r.Selected, r.Price = p.Selected, plan.PriceModel{FreePaths: p.FreePaths}.Of(p.Items+inv.FollowUps)
		r.Uncovered = append(r.Uncovered, p.Uncovered...)
	}
	r.Uncovered = append(r.Uncovered, inv.Refused...)
	if c := inv.Compacted; c != nil {
		r.Items, r.Compacted = c.Items, &c.At
	}
	for _, b := range batches {
		if inv.Compacted != nil && b.Number < inv.Compacted.Batches {
			continue // about to go
		}
		if b.State != journal.BatchRefused {
			r.Items += len(b.Items)
		}
		r.Batches = append(r.Batches, BatchReport{
			CallerReference: b.Reference, InvalidationID: b.InvalidationID, Items: len(b.Items),
			State: b.State, Error: b.Error, FollowUp: b.FollowUp, Sent: b.Sent,
		})
	}
	return r
}
