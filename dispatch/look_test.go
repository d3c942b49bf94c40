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
