// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package storetime follows the clock of a store. All instants that processes
// compare with each other (starts, ends, cuts, claims, leases) are store time:
// each process measures how far its own clock is off, and says how sure it is.
package storetime

import (
	"context"
	"sync/atomic"
	"time"
)

// Unknown is the skew of a [Clock] that was never synced.
const Unknown = time.Hour

// drift bounds how fast two clocks part: the rate at which Linux slews a clock
// at most, which is more than quartz does.
// https://man7.org/linux/man-pages/man2/adjtimex.2.html
const drift = 500e-6

// A Source tells the time that everybody shares; every store.Store is one.
type Source interface {
	Now(ctx context.Context) (time.Time, error)
}

// A Clock estimates the time of a store between calls to it. It counts on from
// the last good measurement by the process's monotonic clock, so that setting
// the local wall clock does not move it. The zero Clock is ready for use and
// tells local time until it is synced. It is safe for concurrent use; measuring
// from several goroutines at once is pointless but harmless.
type Clock struct {
	sample atomic.Pointer[sample]
}

type sample struct {
	local time.Time // with a monotonic reading
	store time.Time // without
	skew  time.Duration
}

func (s *sample) at(local time.Time) time.Time { return s.store.Add(local.Sub(s.local)) }

func (s *sample) skewAt(local time.Time) time.Duration {
	age := local.Sub(s.local)
	return s.skew + time.Duration(drift*float64(max(age, -age)))
}

// slow is the uncertainty from which a measurement is made again: the process may have
// been stopped in it. A process that slept for hours while it asked would otherwise
// date what it does next by half of them ahead, and leases with it.
const (
	slow  = 3 * time.Second
	tries = 3
)

func measure(ctx context.Context, src Source) (*sample, error) {
	before := time.Now()
	now, err := src.Now(ctx)
	if err != nil {
		return nil, err
	}
	half := time.Since(before) / 2
	return &sample{local: before.Add(half), store: now.Round(0).UTC(), skew: half}, nil
}

// Sync measures the offset by a call to the source, and by at most two more while that
// takes longer than six seconds; the quickest counts. Half of the time that the
// call takes is the uncertainty. A measurement that says less than what is known
// already is ignored; one that contradicts it wins, since one of the clocks was
// set. After an error the clock runs on as it was.
func (c *Clock) Sync(ctx context.Context, src Source) error {
	next, err := measure(ctx, src)
	for n := 1; n < tries && err == nil && next.skew > slow; n++ {
		var again *sample
		if again, err = measure(ctx, src); err == nil && again.skew < next.skew {
			next = again
		}
	}
	if err != nil {
		return err
	}
	if cur := c.sample.Load(); cur != nil {
		known := cur.skewAt(next.local)
		if off := next.store.Sub(cur.at(next.local)); next.skew > known && max(off, -off) <= next.skew+known {
			return nil
		}
	}
	c.sample.Store(next)
	return nil
}

// Synced reports whether the clock was ever synced.
func (c *Clock) Synced() bool { return c.sample.Load() != nil }

// Now returns the store's time, in UTC.
func (c *Clock) Now() time.Time { return c.FromLocal(time.Now()) }

// FromLocal converts an instant that time.Now returned in this process.
func (c *Clock) FromLocal(t time.Time) time.Time {
	if s := c.sample.Load(); s != nil {
		return s.at(t)
	}
	return t.Round(0).UTC()
}

// Skew returns by how much Now may be off: half the round trip of the
// measurement it rests on and the drift since then; [Unknown] before the first.
func (c *Clock) Skew() time.Duration {
	if s := c.sample.Load(); s != nil {
		return s.skewAt(time.Now())
	}
	return Unknown
}
