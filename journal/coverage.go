// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

// A Coverage says since when, and with which gaps, the inventory is known to be
// complete within its scope.
type Coverage struct {
	// Since is when the tracking began; zero if no recorder ever had a session.
	Since time.Time
	// Complete: whatever CloudFront may hold is in the inventory.
	Complete bool
	// Gaps are those that can still matter.
	Gaps []Gap
	// Accepted are the gaps that would be among them, had nobody accepted them.
	Accepted []Gap
	// From is the instant at which it becomes complete by waiting alone; zero if
	// waiting does not help.
	From time.Time
	// Remedy is the single item that would make it complete; empty if complete.
	Remedy string
	// Scope is what the recorders see.
	Scope []string
	// Sessions counts the recorders that are live.
	Sessions int
	// Longest is the longest lifetime that it was computed with.
	Longest time.Duration
}

// A Knowledge is all that the coverage is computed from.
type Knowledge struct {
	Tracking      Tracking
	Sessions      []*Session
	Gaps          []*Gap
	Invalidations []*Invalidation
	Batches       []*Batch
	// Evicts is the store's policy by which it may drop data; empty is good.
	Evicts string
}

// ComputeCoverage decides it at now. longest is the longest lifetime that a
// response may have; sessions that state a longer one lengthen it.
func ComputeCoverage(k Knowledge, now time.Time, longest time.Duration) Coverage {
	var c Coverage
	for _, s := range k.Sessions {
		longest = max(longest, s.Longest)
		if !s.Lost(now) {
			c.Sessions++
		}
		for _, p := range s.Scope {
			if !slices.Contains(c.Scope, p) {
				c.Scope = append(c.Scope, p)
			}
		}
	}
	slices.Sort(c.Scope)
	c.Since = k.Tracking.Since
	whole := wholePurge(k, c.Scope)

	c.Longest = longest
	for _, g := range k.Gaps {
		switch {
		case !g.matters(now, longest, whole):
		case g.Accepted == "":
			c.Gaps = append(c.Gaps, *g)
		default:
			c.Accepted = append(c.Accepted, *g)
		}
	}
	for _, s := range k.Sessions {
		if s.Lost(now) {
			if g := s.gap(now, longest, k.Invalidations); g.matters(now, longest, whole) {
				c.Gaps = append(c.Gaps, g)
			}
		} else if s.behind(k.Invalidations, now) {
			c.Gaps = append(c.Gaps, Gap{ID: s.ID, From: s.Oldest, Cause: CauseBehind, Recorder: s.Recorder})
		}
	}
	if k.Evicts != "" {
		c.Gaps = append(c.Gaps, Gap{ID: CauseStoreEvict, From: c.Since, Cause: CauseStoreEvict, Recorder: k.Evicts})
	}
	for _, gaps := range [][]Gap{c.Gaps, c.Accepted} {
		slices.SortFunc(gaps, func(a, b Gap) int {
			return cmp.Or(a.From.Compare(b.From), strings.Compare(a.ID, b.ID))
		})
	}

	old := c.Since.IsZero() || now.Sub(c.Since) < longest && !whole.After(c.Since)
	c.Complete = !old && len(c.Gaps) == 0
	if !c.Complete {
		c.Remedy = "/*"
		c.From = completeFrom(&c, now, old)
	}
	return c
}

// behind reports whether an invalidation had ended at a time without the session, which
// was lost or not there yet, and which may hold something from before its cut.
func (s *Session) behind(invs []*Invalidation, at time.Time) bool {
	return slices.ContainsFunc(invs, func(inv *Invalidation) bool {
		return (inv.State == Completed || inv.State == Partial) && !inv.Ended.After(at) &&
			!s.HasAcked(inv.Number) && !s.Oldest.After(inv.Cut)
	})
}

// completeFrom is when every reason for doubt is older than anything cached.
func completeFrom(c *Coverage, now time.Time, old bool) time.Time {
	if c.Since.IsZero() {
		return time.Time{}
	}
	at := now
	if old {
		at = c.Since.Add(c.Longest)
	}
	for _, g := range c.Gaps {
		t := c.Closes(g)
		if t.IsZero() {
			return t
		}
		if t.After(at) {
			at = t
		}
	}
	return at
}

// Closes is when a gap will have closed by waiting alone: when nothing that passed
// in it can be cached any more. It is zero for one that waiting does not close.
func (c *Coverage) Closes(g Gap) time.Time {
	switch {
	case !g.Until.IsZero():
		return g.Until.Add(c.Longest)
	case !g.Silent.IsZero():
		return g.Silent.Add(max(PresumedDead, c.Longest))
	}
	return time.Time{}
}

// matters reports whether something that passed in the gap may still be cached.
func (g *Gap) matters(now time.Time, longest time.Duration, whole time.Time) bool {
	return g.Until.IsZero() || now.Sub(g.Until) < longest && !whole.After(g.Until)
}

// wholePurge is when the last completed wildcard over the whole scope was sent,
// less the margin; the zero time if there is none.
func wholePurge(k Knowledge, scope []string) time.Time {
	margin := make(map[uint64]time.Duration)
	for _, inv := range k.Invalidations {
		if inv.State == Completed {
			margin[inv.Number] = inv.Options.Margin
		}
	}
	var at time.Time
	for _, b := range k.Batches {
		m, done := margin[b.inv]
		if !done || b.State != BatchDone {
			continue
		}
		if t := b.Sent.Add(-m); t.After(at) && coversScope(b.Items, scope) {
			at = t
		}
	}
	return at
}

func coversScope(items, scope []string) bool {
	if len(scope) == 0 {
		scope = []string{"/*"}
	}
	for _, s := range scope {
		want, err := cfpath.ParseItem(s)
		if err != nil || want.Kind != cfpath.Wildcard {
			want, _ = cfpath.ParseItem("/*") // a scope that only everything surely covers
		}
		if !slices.ContainsFunc(items, func(text string) bool {
			it, err := cfpath.ParseItem(text)
			return err == nil && it.Kind == cfpath.Wildcard && it.Covers(want)
		}) {
			return false
		}
	}
	return true
}

// Know reads what the coverage and the history are computed from.
func (j *Journal) Know(ctx context.Context) (Knowledge, error) {
	var k Knowledge
	st, err := j.store.Status(ctx)
	if err != nil {
		return k, err
	}
	k.Evicts = st.Evicts
	if _, err = j.get(ctx, keyTrack, &k.Tracking); err != nil {
		return k, err
	}
	if k.Sessions, err = j.Sessions(ctx); err != nil {
		return k, err
	}
	if k.Gaps, err = j.Gaps(ctx); err != nil {
		return k, err
	}
	if k.Invalidations, err = j.Invalidations(ctx, 0); err != nil {
		return k, err
	}
	k.Batches, err = j.Batches(ctx, 0)
	return k, err
}

// Coverage reads what is needed and computes the coverage at now.
func (j *Journal) Coverage(ctx context.Context, now time.Time, longest time.Duration) (Coverage, error) {
	k, err := j.Know(ctx)
	if err != nil {
		return Coverage{}, err
	}
	return ComputeCoverage(k, now, longest), nil
}
