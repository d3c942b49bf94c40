// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/plan"
)

// sentThisMonth is how many items are known to have been sent in now's calendar
// month: what the account counted, or the batches of the distribution where these are more,
// since accounts were not always counted.
func (d *Dispatcher) sentThisMonth(ctx context.Context, batches []*journal.Batch, now time.Time) (int, error) {
	n := 0
	y, m, _ := now.UTC().Date()
	for _, b := range batches {
		if by, bm, _ := b.Accepted.UTC().Date(); b.Purged() && by == y && bm == m {
			n += len(b.Items)
		}
	}
	a, err := d.journal.ReadAccount(ctx, d.opts.Account)
	if err != nil {
		return 0, err
	}
	if a.Month == now.UTC().Format("2006-01") {
		n = max(n, a.Sent)
	}
	return n, nil
}

// skipUnderWay adds to skip the entries that a batch under way surely removes and
// that were not sighted since, and counts them.
func (d *Dispatcher) skipUnderWay(batches []*journal.Batch, margin time.Duration, skip func(*inventory.Entry) bool,
	n *int) func(*inventory.Entry) bool {
	var open []*journal.Batch
	for _, b := range batches {
		if b.State == journal.Accepted {
			open = append(open, b)
		}
	}
	if len(open) == 0 {
		return skip
	}
	h := journal.NewHistory(open, d.opts.Rules.QueryInDoubt)
	return func(e *inventory.Entry) bool {
		if skip != nil && skip(e) {
			return true
		}
		if covered(h, e, margin) {
			*n++
			return true
		}
		return false
	}
}

// WarnBudget is the code of the warning that a plan costs more than is left of the
// month's budget: it will not be sent.
const WarnBudget = journal.CodeBudget

func (d *Dispatcher) warnOfBudget(p *Preview) {
	if d.opts.Budget == nil {
		return
	}
	if why := overBudget(*d.opts.Budget, p.sentThisMonth, p.Sends()); why != "" {
		p.Warnings = append(p.Warnings, plan.Warning{Code: WarnBudget, Message: why + "; it will not be sent"})
	}
}

// Follow-ups are guessed from the journal once that many items were sent; before
// that, one item in fifty is assumed to be sent again.
const (
	enoughItems   = 100
	assumedShare  = 0.02
	guessFromLast = 50
)

// likely guesses the follow-ups of a plan of n items from those of the last
// invalidations that ended.
func likely(invs []*journal.Invalidation, n int, price plan.PriceModel) Likely {
	planned, followed, count := 0, 0, 0
	for i := len(invs) - 1; i >= 0 && count < guessFromLast; i-- {
		if v := invs[i]; v.Planned != nil && (v.State == journal.Completed || v.State == journal.Partial) {
			planned += v.Planned.Items - v.Planned.Dropped
			followed += v.FollowUps
			count++
		}
	}
	l := Likely{Share: assumedShare}
	if planned >= enoughItems {
		l.Share, l.Known = float64(followed)/float64(planned), true
	}
	l.Items = int(math.Ceil(l.Share*float64(n) - 1e-9))
	price.FreePaths = max(0, price.FreePaths)
	l.Price = price.Of(l.Items)
	return l
}

// overGuard says why n items more may not be sent for an invalidation whose plan
// was; empty if they may, and then that many are promised to it. They are all that is
// yet to come.
func (d *Dispatcher) overGuard(ctx context.Context, r *run, n int, now time.Time) (string, error) {
	inv := r.inv
	if limit := inv.Options.MaxPrice; limit >= 0 && inv.Planned != nil {
		if price := (plan.PriceModel{FreePaths: inv.Planned.FreePaths}).Of(sentOf(inv, r.batches) + n); price > limit {
			return fmt.Sprintf("it would cost $%.2f in all, over the limit of $%.2f", price, limit), nil
		}
	}
	if d.opts.Budget == nil {
		return "", nil
	}
	var why string
	err := d.change(ctx, now, func(a *journal.Account) bool {
		key := d.promise(inv)
		if why = overBudget(*d.opts.Budget, a.Sent+promisedBut(a, key), n); why != "" {
			return false
		}
		changed := a.Promised[key] != n
		a.Promised[key] = n
		return changed
	})
	return why, err
}

// saved is what the items that were not sent would have cost.
func (d *Dispatcher) saved(inv *journal.Invalidation) float64 {
	p := plan.PriceModel{FreePaths: inv.Planned.FreePaths}
	n := inv.Planned.Items - inv.Planned.Dropped
	return p.Of(n+inv.Saved.Items) - p.Of(n)
}
