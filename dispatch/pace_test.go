// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/plan"
	"github.com/cf-invalidation-tracker/cftrack/store/memstore"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// However the account is asked, by clocks that are apart, no interval ever has
// more than its rate and one burst; whoever waits as long as it is told gets through;
// and nothing larger than the account holds goes out.
func TestTokensAgainstBruteForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := pacer{plan.Limits{
			ItemsPerSecond:     rapid.Float64Range(0.3, 400).Draw(t, "items a second"),
			WildcardsPerSecond: rapid.Float64Range(0.1, 20).Draw(t, "wildcards a second"),
			CallsPerSecond:     rapid.Float64Range(0.1, 10).Draw(t, "calls a second"),
			Burst:              rapid.SampledFrom([]float64{1, 1, 2.5, 10}).Draw(t, "burst"),
		}.WithDefaults()}
		type taken struct {
			at   time.Time
			what [3]float64
		}
		var log []taken
		a := &journal.Account{}
		now := t0
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Float64Range(0, 3).Draw(t, "pause") * float64(time.Second)))
			seen := now.Add(-time.Duration(rapid.IntRange(0, 500).Draw(t, "clock behind, ms")) * time.Millisecond)
			p.fill(a, seen)
			room := p.atHand(a)
			l := load{rapid.IntRange(0, room.others).Draw(t, "others"), rapid.IntRange(0, room.wildcards).Draw(t, "wildcards")}
			l.others = min(l.others, room.others-l.wildcards) // as choose has it
			if l.items() == 0 {
				continue
			}
			if wait := p.wait(a, l, 1); wait > 0 {
				now = now.Add(wait + 500*time.Millisecond)
				p.fill(a, now.Add(-500*time.Millisecond))
				if again := p.wait(a, l, 1); again > 0 {
					t.Fatalf("told to wait %v for %+v, and then %v", wait, l, again)
				}
			}
			p.take(a, l, 1)
			log = append(log, taken{now, [3]float64{float64(l.items()), float64(l.wildcards), 1}})
		}
		rates := [3]float64{p.limits.ItemsPerSecond, p.limits.WildcardsPerSecond, p.limits.CallsPerSecond}
		holds := [3]float64{max(1, rates[0]*p.limits.Burst), max(1, rates[1]*p.limits.Burst), callBurst}
		for i := range log {
			var sum [3]float64
			for j := i; j < len(log); j++ {
				s := log[j].at.Sub(log[i].at).Seconds() + 0.5 // clocks
				for k := range sum {
					sum[k] += log[j].what[k]
					if sum[k] > holds[k]+rates[k]*s+1e-6 {
						t.Fatalf("%v of kind %d within %v s, at %v a second and %v at once", sum[k], k, s, rates[k], holds[k])
					}
				}
			}
		}
	})
}

// No minute has more entries than were asked for, but for what a second's worth
// and the largest item add.
func TestTheThrottleAgainstBruteForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		th := throttle{float64(rapid.IntRange(1, 5000).Draw(t, "entries a minute"))}
		var q queue
		largest := 1.0
		for _, n := range rapid.SliceOfN(rapid.IntRange(1, 3000), 1, 40).Draw(t, "entries") {
			q.add(cfpath.Item{Kind: cfpath.Path, Text: "/x"}, n, true)
			largest = max(largest, float64(n))
		}
		w := &journal.Windows{}
		now := t0
		type sent struct {
			at time.Time
			n  float64
		}
		var log []sent
		for len(q.items) > 0 {
			th.settle(w, now)
			places := q.next(load{10, 10}, 10, th, w.Entries)
			if len(places) == 0 {
				wait := th.wait(w.Entries, float64(q.items[0].entries))
				if wait <= 0 {
					t.Fatal("nothing fits, and there is nothing to wait for")
				}
				now = now.Add(wait)
				continue
			}
			for _, i := range places {
				w.Entries += float64(q.items[i].entries)
				log = append(log, sent{now, float64(q.items[i].entries)})
			}
			q.remove(places)
		}
		for i := range log {
			sum := 0.0
			for j := i; j < len(log) && log[j].at.Sub(log[i].at) <= time.Minute; j++ {
				sum += log[j].n
			}
			if sum > th.perMinute+th.perMinute/60+largest+1e-6 {
				t.Fatalf("%v entries within a minute, at %v and items of up to %v", sum, th.perMinute, largest)
			}
		}
		total := 0.0
		for _, s := range log {
			total += s.n
		}
		if took, least := now.Sub(t0).Minutes(), (total-largest)/th.perMinute; took > total/th.perMinute+0.1 || took < least-th.perMinute/60-1 {
			t.Fatalf("%v entries took %v minutes, at %v a minute", total, took, th.perMinute)
		}
	})
}

// Taking items out of the queue loses and repeats none, and keeps their order.
func TestTheQueueAgainstASlice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q queue
		var model []cfpath.Item
		for i := range rapid.IntRange(0, 40).Draw(t, "items") {
			it := cfpath.Item{Kind: cfpath.Path, Text: string(rune('0' + i))}
			if rapid.Bool().Draw(t, "wildcard") {
				it.Kind = cfpath.Wildcard
			}
			q.add(it, 1, false)
			model = append(model, it)
		}
		for len(model) > 0 {
			room := load{rapid.IntRange(0, 5).Draw(t, "room"), rapid.IntRange(0, 3).Draw(t, "wild room")}
			size := rapid.IntRange(1, 6).Draw(t, "size")
			places := q.next(room, size, throttle{}, 0)
			var got load
			for _, i := range places {
				if model[i].Kind == cfpath.Wildcard {
					got.wildcards++
				} else {
					got.others++
				}
			}
			have := q.load()
			most := load{min(room.others, have.others), min(room.wildcards, have.wildcards)}
			if got.others > most.others || got.wildcards > most.wildcards || len(places) > size ||
				len(places) < min(size, most.items()) {
				t.Fatalf("%d of %+v taken into room for %+v, at most %d", len(places), have, room, size)
			}
			q.remove(places)
			for _, i := range slices.Backward(places) {
				model = slices.Delete(model, i, i+1)
			}
			if len(places) == 0 {
				q.remove([]int{0})
				model = model[1:]
			}
			left := []cfpath.Item{}
			wild := 0
			for _, x := range q.items {
				left = append(left, x.item)
				if x.item.Kind == cfpath.Wildcard {
					wild++
				}
			}
			if !slices.Equal(left, model) || wild != q.wildcards {
				t.Fatalf("left %v, want %v", left, model)
			}
		}
	})
}

// What a refusal lowers comes back, a step that fails is taken back, and steps
// that fail become rarer.
func TestWhatIsLearned(t *testing.T) {
	l := &journal.Learned{}
	now := t0
	refused(l, 0.5, 0.01, now)
	if share(l) != 0.5 {
		t.Fatalf("%+v", l)
	}
	accepted(l, now.Add(growAfter-1))
	if share(l) != 0.5 {
		t.Error("more was tried at once")
	}
	tries := 0
	for range 24 * 3600 { // CloudFront takes 0.55
		now = now.Add(time.Second)
		before := share(l)
		accepted(l, now)
		if share(l) > before && share(l) > 0.55 {
			tries++
			refused(l, share(l)/2, 0.01, now)
			if share(l) != before {
				t.Fatalf("a step from %v that was refused led to %v", before, share(l))
			}
		}
	}
	if tries < 10 || tries > 120 {
		t.Errorf("%d steps in vain in a day", tries)
	}
	if l.Hold != growAtMost {
		t.Errorf("the next step comes after %v", l.Hold)
	}
	for i := 0; share(l) < 1; i++ { // now it takes all
		now = now.Add(time.Minute)
		if accepted(l, now); i > 24*60 {
			t.Fatalf("still at %v after a day", share(l))
		}
	}
	refused(l, 0, 0.3, now)
	if share(l) < 0.3 {
		t.Errorf("below the least: %v", share(l))
	}
}

func TestWindows(t *testing.T) {
	p := pacer{plan.Limits{}.WithDefaults()}
	w := &journal.Windows{}
	if got := p.windows(w); got != (load{3000, 13}) {
		t.Errorf("%+v", got)
	}
	p.narrow(&w.Items, 3000, 700, t0)
	if got := p.windows(w).others; got != 700 {
		t.Errorf("after a refusal beside 700: %d", got)
	}
	p.narrow(&w.Items, 700, 60, t0)
	if got := p.windows(w).others; got != 60 {
		t.Errorf("after a refusal beside 60: %d", got)
	}
	p.narrow(&w.Items, 60, 80, t0)
	if got := p.windows(w).others; got != 60 {
		t.Errorf("what is in progress says nothing of a window that is smaller: %d", got)
	}
	free := pacer{plan.Limits{ItemsInProgress: -1, WildcardsInProgress: -1}.WithDefaults()}
	if got := free.windows(&journal.Windows{}); got.others != math.MaxInt || got.wildcards != math.MaxInt {
		t.Errorf("without limits: %+v", got)
	}
	w = &journal.Windows{}
	free.narrow(&w.Items, math.MaxInt, 500, t0)
	if got := free.windows(w).others; got != 500 {
		t.Errorf("CloudFront has a limit after all: %d", got)
	}
}

// One dispatcher may drive in several goroutines, and one that lost its lease may
// still be at its last call: they share the account's tokens. The race detector is
// the judge of how.
func TestThePurseIsForOneAtATime(t *testing.T) {
	st := memstore.New()
	defer st.Close()
	d := New(st, "E1", nil, &Options{Limits: plan.Limits{CallsPerSecond: 1e9}})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			now := t0
			for taken := 0; taken < 50; {
				wait, err := d.take(t.Context(), now, load{}, 1, func(a *journal.Account) { a.Sent++ })
				if err != nil {
					t.Error(err)
					return
				}
				if now = now.Add(wait); wait == 0 {
					taken++
				}
			}
		})
	}
	all.Wait()
	if a, err := d.journal.ReadAccount(t.Context(), d.opts.Account); err != nil || a.Sent != 400 {
		t.Errorf("%+v, %v", a, err)
	}
}

// Where others alone hold all room for long, one item is tried all the same: of what
// was wanted, and only until ours is in progress.
func TestDespiteOthers(t *testing.T) {
	l, r := &leader{runs: make(map[uint64]*run)}, &run{inv: &journal.Invalidation{Number: 1}}
	l.runs[1] = r
	at := func(after time.Duration, full, wildcard bool) load {
		return r.despite(l, load{}, full, wildcard, t0.Add(after))
	}
	for _, tc := range []struct {
		after          time.Duration
		full, wildcard bool
		want           load
	}{
		{0, true, true, load{}},
		{impatience - time.Second, true, true, load{}},
		{impatience, true, true, load{wildcards: 1}},
		{impatience, true, false, load{others: 1}},
		{impatience + time.Second, false, true, load{}}, // there was room: it begins anew
		{impatience + 2*time.Second, true, true, load{}},
		{2*impatience + 2*time.Second, true, true, load{wildcards: 1}},
	} {
		if got := at(tc.after, tc.full, tc.wildcard); got != tc.want {
			t.Errorf("after %v: %+v, want %+v", tc.after, got, tc.want)
		}
	}
	r.batches = []*journal.Batch{{Items: []string{"/a"}, State: journal.Accepted}}
	if got := at(time.Hour, true, true); got != (load{}) {
		t.Errorf("ours is in progress: %+v", got)
	}
	if r.batches[0].State = journal.BatchDone; at(time.Hour+time.Second, true, true) != (load{}) {
		t.Error("the wait did not begin anew")
	}
}
