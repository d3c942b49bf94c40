// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"strings"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/selector"
)

// refills is a site whose edges are asked all the time while they purge, so that some are
// filled again by a regional cache that has yet to purge.
func refills(seed uint64, repeat time.Duration) *Script {
	s := site(get(5*s1, 0, 20*ms), get(5*s1+ms, 1, 20*ms))
	s.Seed, s.Edges, s.Upper, s.Harsh, s.Effect = seed, 3, 1, true, 4*s1
	p := purge(20*s1, "/a*")
	p.Repeat = repeat
	s.Steps = append(s.Steps, p)
	for at := 20 * s1; at < 45*s1; at += 97 * ms {
		g := get(at, int(at/(97*ms))%2, 20*ms)
		g.Edge = int(at/(194*ms)) % 3
		s.Steps = append(s.Steps, g)
	}
	return s
}

// stale plays histories of some seeds and returns the first fault of each that has one:
// what an edge served and must not, once all was over.
func stale(t *testing.T, draw func(seed uint64) *Script) (faults []string, last *world) {
	t.Helper()
	for seed := range uint64(20) {
		s := draw(seed + 1)
		s.sort()
		if last = run(t, s); len(last.faults) > 0 {
			faults = append(faults, last.faults[0])
		}
	}
	return faults, last
}

// An edge takes from its regional cache what it has purged, and keeps it: only the
// repetition removes that.
func TestTheHarshMode(t *testing.T) {
	once, _ := stale(t, func(seed uint64) *Script { return refills(seed, 0) })
	twice, w := stale(t, func(seed uint64) *Script { return refills(seed, s1) })
	t.Logf("stale in the end: %d of 20 where it is sent once, %d where it is sent twice", len(once), len(twice))
	if len(once) < 5 || len(twice) > 0 {
		t.Errorf("sent once: %q, sent twice: %q", once, twice)
	}
	for _, f := range once {
		if !strings.Contains(f, "serves") {
			t.Errorf("sent once: %s", f)
		}
	}
	if inv := w.final.Invalidations[0]; inv.Batches != 2 {
		t.Errorf("%d batches", inv.Batches)
	}
}

// What is followed up is filled again like anything else.
func TestFollowUpsInTheHarshMode(t *testing.T) {
	bad, w := stale(t, func(seed uint64) *Script {
		s := refills(seed, s1)
		s.Pages = append(s.Pages, Page{Path: "/x/new"})
		for i := range s.Steps { // no item of the plan reaches that
			if s.Steps[i].Do == Purge {
				s.Steps[i].Selector = selector.Selector{Regexps: []string{"^/[ax]"}}
				s.Steps[i].Exact = true
			}
		}
		s.Steps = append(s.Steps, get(19*s1, 3, 5*s1)) // from before the cut, and first heard of after it
		for at := 24 * s1; at < 50*s1; at += 53 * ms {
			g := get(at, 3, 20*ms)
			g.Edge = int(at/(53*ms)) % 3
			s.Steps = append(s.Steps, g)
		}
		return s
	})
	if len(bad) > 0 {
		t.Errorf("stale in the end: %q", bad)
	}
	w.wantFollowUp(t)
}
