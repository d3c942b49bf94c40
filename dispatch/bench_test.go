// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch_test

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/plan"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/memstore"
)

// weighing is a store that looks at the heap whenever a batch is saved.
type weighing struct {
	store.Store
	most uint64
}

func (s *weighing) Commit(ctx context.Context, d string, t store.Transaction) (uint64, error) {
	if len(t.Put) == 2 && strings.HasPrefix(t.Put[0].Key, "bat/") {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		s.most = max(s.most, m.HeapAlloc)
	}
	return s.Store.Commit(ctx, d, t)
}

// TestFigures measures how close a large invalidation comes to the least time that
// the limits allow, in virtual time. CFTRACK_FIGURES sets the number of paths; then it
// prints them as a benchmark does.
func TestFigures(t *testing.T) {
	n := 8000
	if v, err := strconv.Atoi(os.Getenv("CFTRACK_FIGURES")); err == nil {
		n = v
	}
	for _, tc := range []struct {
		name   string
		limits plan.Limits
		sim    simulator.Limits
		within float64
	}{
		{"rate", plan.Limits{ItemsInProgress: -1, WildcardsInProgress: -1}, simulator.Limits{PathRate: 150, WildcardRate: 1}, 1.05},
		{"in progress", plan.Limits{}, simulator.Limits{PathRate: 150, WildcardRate: 1, Paths: 3000, Wildcards: 15}, 1.15},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, simulator.Options{Propagation: -1, Completion: 25 * time.Second, Limits: tc.sim}, func(t *testing.T, w *world) {
				w.record(paths("/some/directory/of/a/site/page", n)...)
				runtime.GC()
				var before runtime.MemStats
				runtime.ReadMemStats(&before)
				st := &weighing{Store: w.st}
				d := dispatch.New(st, dist, w.cdn, &dispatch.Options{Limits: tc.limits})
				start := time.Now()
				inv, err := d.Open(t.Context(), dispatch.Request{Selector: selector.Selector{All: true}, Exact: true, Now: true})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := d.Drive(t.Context(), inv.ID, dispatch.UntilAccepted, nil); err != nil {
					t.Fatal(err)
				}
				invs := w.sim.Invalidations()
				took := invs[len(invs)-1].Created.Sub(start).Seconds()
				l := tc.limits.WithDefaults()
				least := l.Seconds(n, 0) - l.CompletionSeconds
				refused := w.sim.Calls()[simulator.CreateInvalidation] - len(invs)
				if took/least > tc.within || refused > 0 {
					t.Errorf("%d paths in %v s, where %v s are the least; %d calls refused", n, took, least, refused)
				}
				// What the store and the simulator came to hold meanwhile is in it.
				mb := float64(st.most-min(st.most, before.HeapAlloc)) / (1 << 20)
				if os.Getenv("CFTRACK_FIGURES") != "" {
					fmt.Printf("BenchmarkDispatch/%s 1 %.0f least-s %.0f s %.4f ratio %d refused %.1f MB\n",
						strings.ReplaceAll(tc.name, " ", "_"), least, took, took/least, refused, mb)
				}
			})
		})
	}
}

// A wire notes when the first call arrives.
type wire struct{ called chan time.Time }

func (w *wire) CreateInvalidation(context.Context, string, string, []string) (dispatch.Receipt, error) {
	select {
	case w.called <- time.Now():
	default:
	}
	return dispatch.Receipt{ID: "I1", Completed: true}, nil
}

func (w *wire) GetInvalidation(context.Context, string, string) (dispatch.Receipt, error) {
	return dispatch.Receipt{ID: "I1", Completed: true}, nil
}

func (w *wire) FindInvalidation(context.Context, string, string, time.Time) (dispatch.Receipt, bool, error) {
	return dispatch.Receipt{}, false, nil
}

func (w *wire) SentSince(context.Context, string, time.Time, func(string) bool) iter.Seq2[dispatch.Sent, error] {
	return func(func(dispatch.Sent, error) bool) {}
}

// BenchmarkFirstCall is how long it takes from making a dispatcher until the call
// of one path is on the wire, in real time, with an inventory of 10,000 entries.
func BenchmarkFirstCall(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		st := memstore.New()
		w := &world{st: st}
		if err := w.merge(b.Context(), time.Now().Add(-time.Hour), paths("/p", 10_000)...); err != nil {
			b.Fatal(err)
		}
		cdn := &wire{called: make(chan time.Time, 1)}
		b.StartTimer()
		start := time.Now()
		d := dispatch.New(st, dist, cdn, nil)
		r := pattern("/one")
		r.Now = true
		inv, err := d.Open(b.Context(), r)
		if err != nil {
			b.Fatal(err)
		}
		rep, err := d.Drive(b.Context(), inv.ID, dispatch.UntilAccepted, nil)
		if err != nil || rep.State == journal.Failed {
			b.Fatal(rep, err)
		}
		b.ReportMetric(float64((<-cdn.called).Sub(start).Microseconds())/1000, "ms-to-wire")
		b.StopTimer()
		if err := st.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// BenchmarkUnsendable plans paths with '~', half of them tracked, beside as many that can be
// sent. The time for each stays the same, however many there are.
func BenchmarkUnsendable(b *testing.B) {
	for _, n := range []int{2_000, 8_000, 32_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			st := memstore.New()
			defer st.Close()
			w := &world{st: st}
			r := dispatch.Request{}
			for i := range n {
				r.Selector.Patterns = append(r.Selector.Patterns, fmt.Sprintf("/~%06d", i), fmt.Sprintf("/p%06d", i))
			}
			if err := w.merge(b.Context(), time.Now().Add(-time.Hour), r.Selector.Patterns[:n]...); err != nil {
				b.Fatal(err)
			}
			d := dispatch.New(st, dist, &wire{}, nil)
			for b.Loop() {
				p, err := d.Plan(b.Context(), r)
				if err != nil || p.Totals.Uncovered != n || len(p.Items) != n {
					b.Fatal(p.Totals, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/path")
		})
	}
}

// Entries are millions: reading one allocates nothing, in a plan or for a plan file.
func TestReadingEntriesAllocatesNothing(t *testing.T) {
	const n = 10_000
	st := memstore.New()
	defer st.Close()
	w := &world{st: st}
	if err := w.merge(t.Context(), time.Now().Add(-time.Hour), paths("/p", n)...); err != nil {
		t.Fatal(err)
	}
	d := dispatch.New(st, dist, &wire{}, nil)
	r := dispatch.Request{Selector: selector.Selector{Patterns: []string{"/p/00001", "/p/*0002"}}}
	p, err := d.Plan(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	file, err := d.PlanFile(t.Context(), r, p)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	file = readBack(t, data)
	for name, r := range map[string]dispatch.Request{"plan": r, "plan file": {Plan: file}} {
		got := testing.AllocsPerRun(3, func() {
			if p, err := d.Plan(t.Context(), r); err != nil || p.Totals.Entries != n {
				t.Fatal(p, err)
			}
		})
		if got > n/5 {
			t.Errorf("%s: %v allocations for %d entries", name, got, n)
		}
	}
}

// BenchmarkPlan plans over an inventory in memory, of which one entry in a hundred is
// selected: mostly it is read.
func BenchmarkPlan(b *testing.B) {
	const n = 100_000
	st := memstore.New()
	defer st.Close()
	w := &world{st: st}
	if err := w.merge(b.Context(), time.Now().Add(-time.Hour), paths("/p", n)...); err != nil {
		b.Fatal(err)
	}
	d := dispatch.New(st, dist, &wire{}, nil)
	b.ReportAllocs()
	for b.Loop() {
		p, err := d.Plan(b.Context(), dispatch.Request{Selector: selector.Selector{Patterns: []string{"*00"}}})
		if err != nil || p.Totals.Entries != n || p.Totals.Selected != n/100 {
			b.Fatal(p, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/entry")
}
