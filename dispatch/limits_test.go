// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
)

// A quota is what a CloudFront accepts, in every reading of what AWS leaves open.
// Zero means no limit.
type quota struct {
	rate, burst         float64 // items a second, and at once
	wildRate, wildBurst float64
	debt                bool // a request of any size is taken while nothing is owed
	wildcardsApart      bool // they do not count among the items
	throttles           bool // over a rate the answer is Throttling
	paths, wildcards    int  // in progress
	inRequest           int  // wildcards in a request
	callRate, callBurst float64
	allCalls            bool // not only those that create
	completion          time.Duration
	foreign             time.Duration // somebody else sends every so often
	foreignItems        int
	batch, items, wilds int // of the invalidation
}

func drawQuota(r *rand.Rand) quota {
	pick := func(vs ...float64) float64 { return vs[r.IntN(len(vs))] }
	flip := func() bool { return r.IntN(2) == 0 }
	return quota{
		rate: pick(0, 3, 20, 50, 149, 150, 400), burst: pick(1, 10, 50, 150, 500),
		wildRate: pick(0, 0.2, 0.5, 1, 5), wildBurst: pick(1, 1, 3, 15),
		debt: flip(), wildcardsApart: flip(), throttles: flip(),
		paths: int(pick(0, 0, 40, 200, 3000)), wildcards: int(pick(0, 2, 6, 15)), inRequest: int(pick(0, 1, 6)),
		callRate: pick(0, 0.3, 0.5, 2), callBurst: pick(1, 5, 10), allCalls: flip(),
		completion: time.Duration(pick(0.5, 5, 25, 60) * float64(time.Second)),
		foreign:    time.Duration(pick(0, 0, 7, 30) * float64(time.Second)), foreignItems: int(pick(1, 5, 30)),
		batch: int(pick(1000, 100, 7)), items: int(pick(1, 40, 400, 1500)), wilds: int(pick(0, 1, 9, 25)),
	}
}

// A gate refuses what is over a quota. It is the other end's view, and knows
// nothing of how the dispatcher counts.
type gate struct {
	quota
	w  *world
	mu sync.Mutex

	at                      time.Time
	tokens, wildTokens, lot float64
	calls                   []gateCall // ours, that create
}

type gateCall struct {
	at      time.Time
	refused bool
}

func newGate(w *world, q quota) *gate {
	return &gate{quota: q, w: w, at: time.Now(), tokens: q.burst, wildTokens: q.wildBurst, lot: q.callBurst}
}

func (g *gate) decide(op string, items []string) *simulator.Fault {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := time.Since(g.at).Seconds()
	g.at = time.Now()
	g.tokens = min(g.burst, g.tokens+s*g.rate)
	g.wildTokens = min(g.wildBurst, g.wildTokens+s*g.wildRate)
	g.lot = min(g.callBurst, g.lot+s*g.callRate)
	creates := op == simulator.CreateInvalidation
	ours := creates && !strings.HasPrefix(items[0], "/foreign")
	f := g.answer(creates, items)
	if ours {
		g.calls = append(g.calls, gateCall{g.at, f != nil})
	}
	return f
}

func (g *gate) answer(creates bool, items []string) *simulator.Fault {
	if g.callRate > 0 && (creates || g.allCalls) {
		if g.lot < 1-1e-9 {
			return simulator.Throttling()
		}
		g.lot--
	}
	if !creates {
		return nil
	}
	over := simulator.TooManyInvalidationsInProgress
	if g.throttles {
		over = simulator.Throttling
	}
	count := func(items []string) (others, wild int) {
		for _, it := range items {
			if strings.HasSuffix(it, "*") {
				wild++
			} else {
				others++
			}
		}
		return others, wild
	}
	others, wild := count(items)
	o, n := others, wild
	for _, inv := range g.w.sim.Invalidations() {
		if inv.Status == simulator.InProgress {
			a, b := count(inv.Items)
			o, n = o+a, n+b
		}
	}
	switch {
	case g.paths > 0 && others > 0 && o > g.paths, g.wildcards > 0 && wild > 0 && n > g.wildcards,
		g.inRequest > 0 && wild > g.inRequest:
		return simulator.TooManyInvalidationsInProgress()
	}
	all := float64(others + wild)
	if g.wildcardsApart {
		all = float64(others)
	}
	fits := func(rate, tokens, burst, n float64) bool {
		return rate == 0 || n == 0 || (g.debt && tokens >= burst-1e-9) || (!g.debt && tokens >= n-1e-9)
	}
	if !fits(g.rate, g.tokens, g.burst, all) || !fits(g.wildRate, g.wildTokens, g.wildBurst, float64(wild)) {
		return over()
	}
	g.tokens -= all
	g.wildTokens -= float64(wild)
	return nil
}

// Whatever CloudFront's limits are, and whatever of them somebody else uses up, all
// is sent in the end, once, and after a while refusals are rare.
func TestProgressAgainstAnyLimits(t *testing.T) {
	histories := 3 // CFTRACK_HISTORIES asks for more
	if n, err := strconv.Atoi(os.Getenv("CFTRACK_HISTORIES")); err == nil {
		histories = n
	}
	var late []float64 // shares refused of the second half of many calls
	for seed := range histories {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(seed), 1))
			q := drawQuota(r)
			inWorld(t, simulator.Options{Seed: uint64(seed), Propagation: q.completion / 2, Completion: q.completion / 2}, func(t *testing.T, w *world) {
				if g := againstLimits(t, w, q); len(g.calls) >= 40 {
					half := g.calls[len(g.calls)/2:]
					late = append(late, float64(refusals(half))/float64(len(half)))
				}
			})
		})
	}
	slices.Sort(late)
	if n := len(late); n > 0 {
		t.Logf("refused of the second half of %d long histories: median %.2f, most %.2f", n, late[n/2], late[n-1])
		if late[n/2] > 0.2 || late[n-1] > 0.6 {
			t.Error("refusals do not become rare")
		}
	}
}

func refusals(calls []gateCall) (n int) {
	for _, c := range calls {
		if c.refused {
			n++
		}
	}
	return n
}

func againstLimits(t *testing.T, w *world, q quota) *gate {
	g := newGate(w, q)
	w.goWrong(g.decide)
	var named []string
	for i := range q.items {
		named = append(named, fmt.Sprintf("/p/%04d", i))
	}
	for i := range q.wilds {
		named = append(named, fmt.Sprintf("/w/%02d/*", i))
	}
	ctx, stop := context.WithCancel(t.Context())
	var others sync.WaitGroup
	defer others.Wait()
	defer stop()
	if q.foreign > 0 {
		others.Go(func() {
			tick := time.NewTicker(q.foreign)
			defer tick.Stop()
			for n := 0; ; n++ {
				items := []string{fmt.Sprintf("/foreign/%d/*", n)}
				for i := 1; i < q.foreignItems; i++ {
					items = append(items, fmt.Sprintf("/foreign/%d/%d", n, i))
				}
				w.cdn.CreateInvalidation(ctx, dist, fmt.Sprint("foreign", n), items)
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
			}
		})
	}
	d := w.dispatcher()
	req := pattern(named...)
	req.Batch = q.batch
	inv, err := d.Open(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	var rep *dispatch.Report
	for range 30 { // resumed as often as it gives up
		if rep, err = d.Drive(t.Context(), inv.ID, dispatch.UntilDone, nil); !errors.Is(err, dispatch.ErrUndone) {
			break
		}
	}
	if err != nil || rep.State != journal.Completed {
		t.Fatalf("%+v after %v: %v, %s", q, time.Since(start), err, rep.State)
	}
	var sent []string
	for _, b := range w.sent() {
		for _, it := range b {
			if !strings.HasPrefix(it, "/foreign") {
				sent = append(sent, it)
			}
		}
	}
	slices.Sort(sent)
	slices.Sort(named)
	if !slices.Equal(sent, named) {
		t.Errorf("%+v: %d items were accepted of %d", q, len(sent), len(named))
	}
	t.Logf("%v, %d calls, %d refused: %+v", time.Since(start).Round(time.Second), len(g.calls), refusals(g.calls), q)
	return g
}

// In the reading that allows the least, nothing of ours is refused for our own
// doing but calls, whose rate nobody states; and these only until it is learned.
func TestTheStrictestQuotasAreKept(t *testing.T) {
	for _, calls := range []bool{false, true} {
		limits := simulator.StrictQuotas()
		if !calls {
			limits.CallRate, limits.CallBurst = 0, 0
		}
		inWorld(t, simulator.Options{Limits: limits, Propagation: 5 * time.Second, Completion: 20 * time.Second}, func(t *testing.T, w *world) {
			named := paths("/p", 4000)
			for i := range 20 {
				named = append(named, fmt.Sprintf("/w%02d/*", i))
			}
			rep := w.drive(w.dispatcher(), pattern(named...))
			if rep.State != journal.Completed || w.sim.Billed() != len(named) {
				t.Errorf("%s, %d billed", rep.State, w.sim.Billed())
			}
			refused := w.sim.Refusals()
			for _, c := range refused {
				if !calls || c.Code != "Throttling" {
					t.Errorf("refused: %+v", c)
				}
			}
			if len(refused) > 8 {
				t.Errorf("%d refusals of %d calls", len(refused), len(w.sim.Log()))
			}
		})
	}
}

// What others have in progress counts.
func TestOthersInProgressCount(t *testing.T) {
	limits := simulator.ProgressQuotas()
	inWorld(t, simulator.Options{Limits: limits, Propagation: -1, Completion: time.Minute}, func(t *testing.T, w *world) {
		theirs := make([]string, 14)
		for i := range theirs {
			theirs[i] = fmt.Sprintf("/their/%d/*", i)
		}
		if _, err := w.cdn.CreateInvalidation(t.Context(), dist, "somebody", theirs); err != nil {
			t.Fatal(err)
		}
		var named []string
		for i := range 10 {
			named = append(named, fmt.Sprintf("/our/%d/*", i))
		}
		if rep := w.drive(w.dispatcher(), pattern(named...)); rep.State != journal.Completed {
			t.Errorf("%+v", rep)
		}
		if refused := w.sim.Refusals(); len(refused) > 0 {
			t.Errorf("%d calls were refused: %+v", len(refused), refused[0])
		}
	})
}

// A batch of which a call may be under way is never split, however often it is
// refused: the call may be accepted yet.
func TestWhatMayBeOnItsWayIsNotSplit(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		start, calls := time.Now(), 0
		w.goWrong(func(op string, _ []string) *simulator.Fault {
			if op != simulator.CreateInvalidation {
				return nil
			}
			if calls++; calls == 1 {
				return simulator.LostRequest()
			}
			if time.Since(start) < 2*time.Minute {
				return simulator.TooManyInvalidationsInProgress()
			}
			return nil
		})
		rep := w.drive(w.dispatcher(), pattern("/a", "/b", "/c"))
		if rep.State != journal.Completed || len(rep.Batches) != 1 || w.sim.Billed() != 3 {
			t.Errorf("%+v", rep)
		}
	})
}
