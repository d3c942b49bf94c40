// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/plan"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// A purse is this process's hold on the account, which the dispatchers of all its
// distributions share by compare-and-write. What it remembers may be old: then the
// write is refused, and it reads again.
type purse struct {
	turn chan struct{} // holds one while somebody uses it
	last *journal.Account
}

// change has decide look at the account as it is now and change it, until the
// change is written. decide says whether there is anything to write; it is called
// again for each attempt, and what it says without writing may rest on what was
// true a while ago: that others have taken less than they have by now.
func (d *Dispatcher) change(ctx context.Context, now time.Time, decide func(*journal.Account) (write bool)) error {
	select {
	case d.purse.turn <- struct{}{}:
		defer func() { <-d.purse.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		a := d.purse.last
		if a == nil {
			var err error
			if a, err = d.journal.ReadAccount(ctx, d.opts.Account); err != nil {
				return err
			}
			d.purse.last = a
		}
		next := *a
		if next.Promised = maps.Clone(a.Promised); next.Promised == nil {
			next.Promised = make(map[string]int)
		}
		d.pacer().fill(&next, now)
		if !decide(&next) {
			return nil
		}
		err := d.journal.WriteAccount(ctx, d.opts.Account, &next)
		if err == nil {
			d.purse.last = &next
			return nil
		}
		d.purse.last = nil // somebody else wrote, or this write did and its answer was lost
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

func (d *Dispatcher) pacer() pacer { return pacer{d.opts.Limits} }

// take takes tokens for a load and calls, or says how long there will not be any.
// Where a budget counts the load, count does it.
func (d *Dispatcher) take(ctx context.Context, now time.Time, l load, calls int, count func(*journal.Account)) (time.Duration, error) {
	p := d.pacer()
	var wait time.Duration
	err := d.change(ctx, now, func(a *journal.Account) bool {
		if wait = p.wait(a, l, calls); wait > 0 {
			return false
		}
		p.take(a, l, calls)
		if count != nil {
			count(a)
		}
		return true
	})
	return wait, err
}

// wait is how long there will not be tokens for a load and calls, as far as this
// process knows. It takes none.
func (d *Dispatcher) wait(ctx context.Context, now time.Time, l load, calls int) (wait time.Duration, err error) {
	err = d.change(ctx, now, func(a *journal.Account) bool {
		wait = d.pacer().wait(a, l, calls)
		return false
	})
	return wait, err
}

// room is what may go out together, as far as this process knows.
func (d *Dispatcher) room(ctx context.Context, now time.Time) (room load, err error) {
	err = d.change(ctx, now, func(a *journal.Account) bool {
		room = d.pacer().atHand(a)
		return false
	})
	return room, err
}

// promise is under what name an invalidation's items are kept free.
func (d *Dispatcher) promise(inv *journal.Invalidation) string {
	return d.journal.Distribution() + "/" + inv.ID
}

// countSent counts items of an invalidation as sent this month.
func (d *Dispatcher) countSent(inv *journal.Invalidation, n int) func(*journal.Account) {
	key := d.promise(inv)
	return func(a *journal.Account) {
		a.Sent += n
		if left, ok := a.Promised[key]; ok {
			if a.Promised[key] = left - n; left <= n {
				delete(a.Promised, key)
			}
		}
	}
}

// giveBack counts items of a batch that CloudFront never took, and never will.
func (d *Dispatcher) giveBack(ctx context.Context, now time.Time, n int) error {
	return d.change(ctx, now, func(a *journal.Account) bool {
		a.Sent = max(0, a.Sent-n)
		return true
	})
}

// settle ends what an invalidation was promised.
func (d *Dispatcher) settle(ctx context.Context, now time.Time, inv *journal.Invalidation) error {
	if d.opts.Budget == nil {
		return nil
	}
	key := d.promise(inv)
	return d.change(ctx, now, func(a *journal.Account) bool {
		_, promised := a.Promised[key]
		delete(a.Promised, key)
		return promised
	})
}

// admit promises an invalidation room for n items in the month's budget, or says
// why there is none. atLeast is how many items are known to have been sent this
// month from elsewhere.
func (d *Dispatcher) admit(ctx context.Context, now time.Time, inv *journal.Invalidation, n, atLeast int) (why string, err error) {
	if d.opts.Budget == nil {
		return "", nil
	}
	key := d.promise(inv)
	err = d.change(ctx, now, func(a *journal.Account) bool {
		a.Sent = max(a.Sent, atLeast)
		if why = overBudget(*d.opts.Budget, a.Sent+promisedBut(a, key), n); why != "" {
			return false
		}
		if n > 0 {
			a.Promised[key] = n
		}
		return true
	})
	return why, err
}

// promisedBut counts the items that are promised, but those under one name.
func promisedBut(a *journal.Account, key string) int {
	n := 0
	for k, promised := range a.Promised {
		if k != key {
			n += promised
		}
	}
	return n
}

// overBudget says why n items more than those sent this month cost more than is
// left of a budget in dollars; empty if they do not.
func overBudget(budget float64, sent, n int) string {
	month := plan.PriceModel{FreePaths: MonthlyFreePaths}
	spent := month.Of(sent)
	price := month.Of(sent+n) - spent
	left := max(0, budget-spent)
	if price <= left+1e-9 {
		return ""
	}
	return fmt.Sprintf("it costs $%.2f, and $%.2f is left of this month's budget of $%.2f", price, left, budget)
}
