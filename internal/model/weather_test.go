// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/selector"
)

// The weathers in which simpler protocols fail, each as histories of its own.

const (
	ms = time.Millisecond
	s1 = time.Second
)

// site returns a history without trouble: two recorders, two purgers, two edges.
func site(steps ...Step) *Script {
	return &Script{
		Seed: 1, Edges: 2, Effect: 50 * ms, Status: 200 * ms, Tiers: 2, Purgers: 2,
		Pages:   []Page{{Path: "/a"}, {Path: "/a/b"}, {Path: "/c"}},
		Servers: []Server{{Lease: 10 * s1, Margin: 2 * s1}, {Lease: 10 * s1, Margin: 2 * s1}},
		Steps:   steps,
	}
}

func get(at time.Duration, page int, lasts time.Duration) Step {
	return Step{Do: Get, At: at, Page: page, For: lasts}
}

func purge(at time.Duration, pattern string) Step {
	return Step{Do: Purge, At: at, Selector: selector.Selector{Patterns: []string{pattern}}, Now: true}
}

func then(base []Step, more ...Step) []Step { return append(base[:len(base):len(base)], more...) }

// race is content that was read before the cut and comes to an edge after the
// purge was sent, in some length of time.
func race(lasts time.Duration) []Step {
	elsewhere := get(20*s1, 0, lasts)
	elsewhere.Edge = 1
	return []Step{get(5*s1, 0, 20*ms), get(5*s1+ms, 2, 20*ms), elsewhere, purge(20*s1+500*ms, "/a")}
}

// hold plays a history and fails if a promise was broken.
func hold(t *testing.T, s *Script) *world {
	t.Helper()
	s.sort()
	w := run(t, s)
	if len(w.faults) > 0 {
		t.Fatalf("%s\n\n%v\n%s", strings.Join(w.faults, "\n"), s, strings.Join(w.events, "\n"))
	}
	return w
}

func (w *world) wantFollowUp(t *testing.T) {
	t.Helper()
	for _, inv := range w.final.Invalidations {
		if inv.FollowUps > 0 {
			return
		}
	}
	t.Fatalf("nothing was followed up:\n%s", strings.Join(w.events, "\n"))
}

// ended is how long after it was opened an invalidation ended.
func (w *world) ended(t *testing.T, number int) time.Duration {
	t.Helper()
	inv := w.final.Invalidations[number-1]
	if inv.State != journal.Completed {
		t.Fatalf("%s is %s", inv.ID, inv.State)
	}
	return inv.Ended.Sub(inv.Opened)
}

func TestTheRaceInGoodWeather(t *testing.T) {
	for _, lasts := range []time.Duration{1500 * ms, 2600 * ms, 5 * s1, 25 * s1} {
		for _, drain := range []time.Duration{0, 1900 * ms} {
			s := site(race(lasts)...)
			s.Steps[2].Drain = drain
			hold(t, s).wantFollowUp(t)
		}
	}
}

// The recorder lives and renews nothing meanwhile: nobody may take its silence for
// an acknowledgement.
func TestAFlushThatStallsOverACut(t *testing.T) {
	for calls := range 8 {
		s := site(then(race(1500*ms), Step{Do: Stall, At: 20*s1 + 100*ms, Ops: calls + 1, For: 1200 * ms})...)
		hold(t, s).wantFollowUp(t)
	}
	for _, d := range []time.Duration{3 * s1, 6 * s1, 9 * s1} {
		hold(t, site(then(race(1500*ms), Step{Do: Stall, At: 20*s1 + 100*ms, Ops: 1, For: d})...)).wantFollowUp(t)
	}
}

// What it flushed is in the inventory, and nobody reports it but the dispatcher.
func TestARecorderKilledBetweenFlushAndReport(t *testing.T) {
	killed := 0
	for k := 1; k <= 24; k++ {
		s := site(then(race(1500*ms), Step{Do: Kill, At: 21*s1 + 600*ms, Ops: k}, get(40*s1, 2, ms))...)
		s.Seed = uint64(k)
		w := hold(t, s)
		if strings.Contains(strings.Join(w.events, "\n"), "dies ") {
			killed++
		}
		gaps := journal.ComputeCoverage(w.final, w.final.Sessions[0].Renewed.Add(time.Hour), time.Hour*48).Gaps
		if len(gaps) == 0 {
			t.Errorf("killed at its call %d, and there is no gap", k)
		}
	}
	if killed < 20 {
		t.Errorf("%d of 24 were killed", killed)
	}
}

// The batch is sent under its reference until CloudFront answers, and counts as sent
// when it was saved: the first call may have done it.
func TestAnswersThatAreLost(t *testing.T) {
	for seed := range uint64(12) {
		for _, lasts := range []time.Duration{1500 * ms, 3 * s1, 4500 * ms, 6 * s1} {
			s := site(then(race(lasts), Step{Do: Weather, At: 20 * s1, For: 7 * s1, Text: "lost answers"})...)
			s.Seed = seed + 1
			hold(t, s).wantFollowUp(t)
		}
	}
}

// It wakes up with a batch in its hands that another has sent meanwhile.
func TestALeaderThatSleepsOverATakeover(t *testing.T) {
	slept := 0
	for k := 1; k <= 40; k++ {
		s := site(then(race(4*s1),
			Step{Do: Purger, At: 21 * s1, Who: 1},
			Step{Do: StopPurger, At: 20 * s1, Ops: k, For: 45 * s1},
			get(40*s1, 0, 20*ms), get(48*s1, 1, 26*s1), purge(50*s1, "/a*"))...)
		s.Seed = uint64(k)
		w := hold(t, s)
		if strings.Contains(strings.Join(w.events, "\n"), "sleeps for") {
			slept++
		}
	}
	if slept < 30 {
		t.Errorf("%d of 40 slept", slept)
	}
}

// The saved batch is gone, and what CloudFront did with it is not.
func TestAStoreThatLosesASavedBatch(t *testing.T) {
	for lost := 1; lost <= 12; lost++ {
		for _, after := range []time.Duration{20 * ms, 60 * ms, 400 * ms, 2 * s1} {
			s := site(then(race(3*s1), Step{Do: Back, At: 20*s1 + 500*ms + after, Ops: lost}, Step{Do: Purger, At: 0, Who: 1})...)
			s.Seed = uint64(lost)
			w := hold(t, s)
			gaps := 0
			for _, g := range w.final.Gaps {
				if g.Cause == journal.CauseStoreBack {
					gaps++
				}
			}
			if lost == 12 && gaps == 0 {
				t.Errorf("the store lost %d writes, and nobody says so", lost)
			}
		}
	}
}

// What a dispatcher remembers is newer than what it reads: it planned, and waits for
// its turn to send.
func TestAStoreThatForgetsAPlan(t *testing.T) {
	for after := 60 * ms; after < 900*ms; after += 60 * ms {
		for lost := 1; lost <= 5; lost++ {
			s := site(get(5*s1, 0, 20*ms), get(6*s1, 3, 20*ms), get(6*s1, 2, 20*ms), purge(19900*ms, "/c*"),
				Step{Do: Purge, At: 20 * s1, Who: 0, Now: true, Assume: true, Selector: selector.Selector{Regexps: []string{"~u", "^/a$"}}},
				get(20050*ms, 4, 20*ms), // so that a wildcard will not do when the time has come
				Step{Do: Back, At: 20*s1 + after, Ops: lost}, Step{Do: Purger, At: 22 * s1})
			s.Seed, s.Pages = uint64(after), append(s.Pages, Page{Path: "/x/~u"}, Page{Path: "/x"})
			w := hold(t, s)
			for _, inv := range w.final.Invalidations {
				if inv.State != journal.Completed && inv.State != journal.Partial || inv.Planned == nil {
					t.Errorf("%d writes lost %v after the cut: %s is %s, planned %v", lost, after, inv.ID, inv.State, inv.Planned)
				}
			}
		}
	}
}

// Every instant that is compared is store time.
func TestACallersClockThatIsOff(t *testing.T) {
	for _, offset := range []time.Duration{-5 * s1, -2 * s1, 2 * s1, 5 * s1} {
		for _, lag := range []bool{false, true} {
			s := site(race(2600 * ms)...)
			s.Offset, s.Lag = offset, lag
			hold(t, s)
		}
	}
}

// It comes back with content from before the cut of what is long over.
func TestASessionThatExpiresAndReturnsAfterCompletion(t *testing.T) {
	for _, cut := range []time.Duration{15 * s1, 25 * s1, 40 * s1} {
		s := site(then(race(4*s1), Step{Do: Cut, At: 20*s1 + 700*ms, For: cut}, get(90*s1, 1, 20*ms), Step{Do: Purger, At: 0, Who: 1})...)
		w := hold(t, s)
		w.wantFollowUp(t)
		if took := w.ended(t, 1); took < cut-s1 {
			t.Errorf("over after %v, before the recorder was back after %v", took, cut)
		}
	}
}

func TestPurgesFasterThanTheirCompletion(t *testing.T) {
	for seed := range uint64(4) {
		s := site()
		s.Seed, s.Effect, s.Status = seed+1, 5*s1, 20*s1
		for i := range 8 {
			at := time.Duration(i+1) * 10 * s1
			p := purge(at, "/a*")
			p.Now, p.Who = i%2 == 0, i%2
			p.Selector.Patterns = append(p.Selector.Patterns, "*/b")
			lasts := time.Duration(seed+1) * time.Duration(i) * s1
			s.Steps = append(s.Steps, p, get(at-300*ms, 0, lasts), get(at-200*ms, 1, 400*ms), get(at+300*ms, 0, 100*ms))
		}
		w := hold(t, s)
		for i := range w.final.Invalidations {
			if took := w.ended(t, i+1); took > 2*time.Minute {
				t.Errorf("purge %d took %v", i+1, took)
			}
		}
	}
}

// An idle recorder acknowledges within its second.
func TestNowBesideAnIdleRecorder(t *testing.T) {
	w := hold(t, site(get(5*s1, 0, 20*ms), purge(60*s1, "/a")))
	if took := w.ended(t, 1); took > 6*s1 {
		t.Errorf("took %v", took)
	}
	if inv := w.final.Invalidations[0]; inv.FollowUps != 0 || inv.Batches != 1 {
		t.Errorf("%+v", inv)
	}
}

func TestCloseInTheMiddle(t *testing.T) {
	for _, at := range []time.Duration{19900, 20200, 20600, 21400, 21600, 23000} {
		for _, lasts := range []time.Duration{1500 * ms, 4 * s1} {
			s := site(then(race(lasts), Step{Do: Close, At: at * ms}, Step{Do: Open, At: 40 * s1})...)
			w := hold(t, s)
			for _, g := range w.final.Gaps {
				t.Errorf("closed cleanly at %v, and there is a gap: %+v", at*ms, *g)
			}
			if at > 20000 {
				w.wantFollowUp(t)
			}
		}
	}
}

// The flush is over, and the journal is read after it: what was opened in between
// is seen.
func TestAnInvalidationOpenedAtAnyMomentOfARound(t *testing.T) {
	for i := range 60 {
		at := 20*s1 + time.Duration(i)*17*ms
		s := site(get(5*s1, 0, 20*ms), get(at-100*ms, 0, 150*ms), purge(at, "/a"))
		s.Seed = uint64(i + 1)
		hold(t, s)
	}
}

// Two purges of the same page: the second finds nothing to send, since the first
// has cleared it, and is over only when the first is.
func TestWhatAnotherPurgeCoversIsWaitedFor(t *testing.T) {
	s := site(get(5*s1, 1, 20*ms), purge(20*s1, "*/b"), purge(21*s1, "*/b"), Step{Do: Purger, At: 0, Who: 1})
	s.Effect, s.Status = 9*s1, 9*s1
	w := hold(t, s)
	if a, b := w.final.Invalidations[0], w.final.Invalidations[1]; b.Ended.Before(a.Ended.Add(-s1)) {
		t.Errorf("%s ended %v before %s", b.ID, a.Ended.Sub(b.Ended), a.ID)
	}
	if b := w.final.Invalidations[1]; b.Batches != 0 {
		t.Errorf("the second sent %d batches", b.Batches)
	}
}

// drained is a page that has left its server before the cut, and comes to its edge
// after the purge was sent.
func drained(cut time.Duration, more ...Step) *Script {
	late := get(20*s1, 0, 20*ms)
	late.Drain, late.Edge = 1900*ms, 1
	return site(then([]Step{get(5*s1, 0, 20*ms), late, purge(cut, "/a")}, more...)...)
}

// A recorder keeps what it has flushed and reported nowhere until it cannot be on
// its way any more.
func TestContentThatIsStillOnItsWay(t *testing.T) {
	for at := 20100 * ms; at < 21800*ms; at += 97 * ms {
		hold(t, drained(at)).wantFollowUp(t)
	}
}

// Its sightings were flushed, and its session says so: no gap hides them.
func TestARecorderThatDiedIsSpokenFor(t *testing.T) {
	for at := 21050 * ms; at < 21800*ms; at += 53 * ms {
		s := drained(at, Step{Do: Kill, At: at + 20*ms}, get(40*s1, 2, ms))
		hold(t, s).wantFollowUp(t)
	}
}

// What is sighted while a batch is sent and cleared stays in the inventory.
func TestSightingsWhileABatchIsCleared(t *testing.T) {
	for seed := range uint64(40) {
		s := site(get(5*s1, 0, 20*ms), get(5*s1, 1, 20*ms), purge(20*s1, "/a*"), purge(29*s1, "/a/b"), purge(35*s1, "/a"))
		s.Seed, s.Lag = seed+1, seed%2 == 0
		for i := range 30 {
			for page := range 2 {
				g := get(19*s1+time.Duration(i)*700*ms+time.Duration(seed)*13*ms, page, 20*ms)
				g.Edge, g.Who = i%2, i%2
				s.Steps = append(s.Steps, g)
			}
		}
		hold(t, s)
	}
}

// tagged has four directories of two pages with a tag and, from 20.4 s, one without in
// the last of them.
func tagged(steps ...Step) *Script {
	s := site(steps...)
	s.Pages = nil
	for i := range 4 {
		for j := range 3 {
			p := Page{Path: fmt.Sprintf("/p%d/%d", i, j), Tags: "x"}
			if j == 2 {
				p.Tags = ""
			} else {
				s.Steps = append(s.Steps, get(5*s1+time.Duration(3*i+j)*ms, 3*i+j, ms))
			}
			s.Pages = append(s.Pages, p)
		}
	}
	s.Pages = append(s.Pages, Page{Path: "/p"}) // else one wildcard would do
	s.Steps = append(s.Steps, get(5*s1, 12, ms), get(20400*ms, 11, ms))
	return s
}

// A wildcard that was looked up does not go out over what came meanwhile.
func TestWhatComesUnderAWildcardBeforeItIsSent(t *testing.T) {
	s := tagged(Step{Do: Purge, At: 20 * s1, Now: true, Assume: true, Batch: 1, Selector: selector.Selector{Tags: []string{"x"}}})
	w := hold(t, s)
	wild, exact := 0, 0
	for _, b := range w.final.Batches {
		for _, it := range b.Items {
			if strings.HasSuffix(it, "*") {
				wild++
			} else {
				exact++
			}
		}
	}
	if wild != 3 || exact != 2 {
		t.Errorf("%d wildcards and %d paths were sent", wild, exact)
	}
}

// A log that is read after the purge is over opens it again, if it tells when
// responses began, and is skipped where a purge has settled it.
func TestLogsAreReadLate(t *testing.T) {
	for _, assumed := range []time.Duration{0, s1} {
		late, early := get(19*s1, 0, 5*s1), get(5*s1, 1, 20*ms)
		late.Who, late.Edge, early.Who = 1, 1, 1
		s := site(early, get(5*s1, 0, 20*ms), late, purge(20*s1, "/a*"), Step{Do: Import, At: 3 * time.Minute, For: assumed})
		s.Servers[1] = Server{Logs: true}
		w := hold(t, s)
		if inv := w.final.Invalidations[0]; (inv.FollowUps == 1) != (assumed == 0) {
			t.Errorf("starts assumed: %v, %d follow-ups", assumed > 0, inv.FollowUps)
		}
		if _, ok := w.listed["/a/b"]; ok {
			t.Error("what was purged before its log was read is listed")
		}
		if _, ok := w.listed["/a"]; ok != (assumed > 0) {
			t.Errorf("starts assumed: %v, the straggler is listed: %v", assumed > 0, ok)
		}
	}
}

// What a batch that is under way removes need not be listed, and whoever is over
// without it is not over before that batch.
func TestALogIsReadWhileItsPurgeIsUnderWay(t *testing.T) {
	logged := get(5*s1, 0, 20*ms)
	logged.Who = 1
	early := Step{Do: Purge, At: 10 * s1, Now: true, Selector: selector.Selector{Regexps: []string{"^/a$"}}}
	s := site(logged, early, purge(20*s1, "/a*"), Step{Do: Import, At: 20*s1 + 500*ms})
	s.Servers[1] = Server{Logs: true}
	s.Effect, s.Status = 9*s1, 9*s1
	w := hold(t, s)
	first, second := w.final.Invalidations[0], w.final.Invalidations[1]
	if first.Ended.Before(second.Ended.Add(-s1)) || first.FollowUps != 0 || second.FollowUps != 0 {
		t.Errorf("%d and %d follow-ups, and the first was over %v before the second", first.FollowUps, second.FollowUps, second.Ended.Sub(first.Ended))
	}
	if _, ok := w.listed["/a"]; ok {
		t.Error("what was purged is listed")
	}
}

func TestScriptsSayWhatTheyAre(t *testing.T) {
	for seed := range uint64(50) {
		if a, b := fmt.Sprint(Draw(seed)), fmt.Sprint(Draw(seed)); a != b {
			t.Fatalf("seed %d is not always the same history:\n%s\n%s", seed, a, b)
		}
	}
}
