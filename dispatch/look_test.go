// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/plan"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
)

// Batches that are so old that the list of invalidations does not reach back to them are
// asked for by themselves, however few calls there are.
func TestBatchesOlderThanTheList(t *testing.T) {
	for name, rate := range map[string]float64{"usual rate": 0, "few calls": 0.2} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, simulator.Options{Completion: 30 * time.Second}, func(t *testing.T, w *world) {
				d := dispatch.New(w.st, dist, w.cdn, &dispatch.Options{Limits: plan.Limits{CallsPerSecond: rate}})
				r := pattern("/a", "/b", "/c", "/d")
				r.Batch = 1
				inv, err := d.Open(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := d.Drive(t.Context(), inv.ID, dispatch.UntilAccepted, nil); err != nil {
					t.Fatal(err)
				}
				for i := range 400 {
					if _, err := w.cdn.CreateInvalidation(t.Context(), dist, fmt.Sprint("somebody else's ", i), []string{"/x"}); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(2 * time.Hour)
				ctx, stop := context.WithTimeout(t.Context(), 5*time.Minute)
				defer stop()
				rep, err := d.Drive(ctx, inv.ID, dispatch.UntilDone, nil)
				if err != nil || rep.State != journal.Completed {
					t.Errorf("%+v, %v", rep, err)
				}
			})
		})
	}
}

// Whoever goes on with what another began reads what was sent since, and that may be a
// great deal of somebody else's: as long as it gets on, it does not give up.
func TestManyInvalidationsToLookThrough(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		inv, err := w.dispatcher().Open(t.Context(), pattern("/a"))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 400 {
			if _, err := w.cdn.CreateInvalidation(t.Context(), dist, fmt.Sprint("somebody else's ", i), []string{"/x"}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Hour)
		start, last := time.Now(), time.Time{}
		w.goWrong(func(op string, _ []string) *simulator.Fault {
			// An answer every second, and from time to time none is given.
			if now := time.Now(); op == simulator.GetInvalidation && now.Sub(last) > 5*time.Second {
				last = now
				return simulator.Throttling()
			}
			return &simulator.Fault{Delay: time.Second}
		})
		rep, err := w.dispatcher().Drive(t.Context(), inv.ID, dispatch.UntilDone, nil)
		if err != nil || rep.State != journal.Completed {
			t.Errorf("after %v: %+v, %v", time.Since(start), rep, err)
		}
		if took := time.Since(start); took > 20*time.Minute {
			t.Errorf("400 answers of a second each took %v", took)
		}
	})
}
