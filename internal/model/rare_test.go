// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/selector"
)

// busySite has twenty hot pages that are sighted five times a second in all. One
// response in a thousand lasts up to 25 s, the others less than one.
func busySite(purges int, now bool) *Script {
	r := drawer{rand.New(rand.NewPCG(20, 26))}
	s := site()
	s.Edges, s.Pages = 20, nil
	for i := range 20 {
		s.Pages = append(s.Pages, Page{Path: fmt.Sprintf("/hot/%d", i), MaxAge: 20})
	}
	end := time.Duration(purges+1) * 30 * s1
	for at := time.Duration(0); at < end; at += 165 * ms { // some are hits
		g := get(at+r.between(0, 164*ms), r.IntN(20), r.between(ms, s1))
		if r.IntN(1000) == 0 {
			g.For = r.between(s1, 25*s1)
		}
		g.Edge, g.Who = r.IntN(s.Edges), r.IntN(2)
		s.Steps = append(s.Steps, g)
	}
	for i := range purges {
		s.Steps = append(s.Steps, Step{Do: Purge, At: time.Duration(i+1)*30*s1 + r.between(0, 5*s1), Now: now,
			Selector: selector.Selector{Prefixes: []string{"/hot/"}}})
	}
	return s
}

// followed returns which share of what was purged was sent a second time.
func followed(t *testing.T, s *Script) float64 {
	w := hold(t, s)
	sent, again := 0, 0
	for _, b := range w.final.Batches {
		if b.FollowUp {
			again += len(b.Items)
		} else {
			sent += len(b.Items)
		}
	}
	responses := len(w.responses)
	share := float64(again) / float64(sent)
	t.Logf("%d responses, %d paths purged, %d again: %.2f %%", responses, sent, again, 100*share)
	if perSecond := float64(responses) / s.Steps[len(s.Steps)-1].At.Seconds(); perSecond < 4.9 || sent < 700 {
		t.Fatalf("this site is not busy: %.1f responses a second, %d paths purged", perSecond, sent)
	}
	return share
}

func TestFollowUpsAreRare(t *testing.T) {
	if share := followed(t, busySite(40, false)); share >= 0.02 {
		t.Errorf("%.2f %% are sent again", 100*share)
	}
	// What that is owed to.
	if share := followed(t, busySite(40, true)); share < 0.02 {
		t.Errorf("without settling only %.2f %% are sent again", 100*share)
	}
}

// drawn is how many of the first histories are counted.
const drawn = 300

// What is drawn is not there until it has come to pass: how often it did in the first
// histories must not fall to little.
func TestHistoriesHoldWhatTheySay(t *testing.T) {
	counts := make(map[string]int)
	for seed := range uint64(drawn) {
		for what, n := range hold(t, Draw(seed+1)).counts {
			counts[what] += n
		}
	}
	for what, least := range map[string]int{
		"plan file sent": 30, "plan file sent late": 15, "plan file refused: plan-differs": 15,
		"beside somebody else": 20, "refused for somebody else": 5,
		"held by a regional cache": 50, "kept anew by an edge": 15,
		"repeated": 8, "repeated in the harsh mode": 30,
		"imported hours later": 3, "imported, purged": 3, "imported, reported": 1,
	} {
		if counts[what] < least {
			t.Errorf("%s: %d times, of at least %d", what, counts[what], least)
		}
	}
	t.Log(counts)
}
