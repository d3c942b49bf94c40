// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// A report is what status, invalidate and resume say of an invalidation.
type report struct {
	ID        string
	State     string
	Items     int
	FollowUps int `json:"follow_ups"`
	Batches   []struct {
		Reference    string `json:"caller_reference"`
		Invalidation string `json:"invalidation_id"`
		Items        int
		State        string
		FollowUp     bool `json:"follow_up"`
	}
	Holding []string
}

// reports returns all invalidations, the oldest first.
func (w *world) reports() []report {
	w.Helper()
	code, stdout, stderr := w.run("status", "--output=json")
	if code != 0 {
		w.Fatalf("status: exit %d: %s", code, stderr)
	}
	all := slices.Collect(objects[report](w, stdout))
	slices.Reverse(all)
	return all
}

// A gap is one of the coverage.
type gap struct {
	From            time.Time
	Until           *time.Time
	Cause, Recorder string
}

func (w *world) gaps() []gap {
	w.Helper()
	var c struct{ Gaps []gap }
	w.must(&c, "coverage")
	return c.Gaps
}

// publish makes all that was served so far stale.
func (w *world) publish() { w.site.version.Add(1) }

// notStale checks that no edge holds an older version of any of the paths.
func (w *world) notStale(paths []string) {
	w.Helper()
	want, stale := w.site.version.Load(), 0
	for e := range edges {
		for _, p := range paths {
			if o, ok := w.sim.Peek(e, p); ok && o.Status == http.StatusOK && string(o.Body) != fmt.Sprintf("%s v%d", p, want) {
				if stale++; stale <= 3 {
					w.Errorf("edge %d holds %q of %s", e, o.Body, p)
				}
			}
		}
	}
	if stale > 3 {
		w.Errorf("and %d more", stale-3)
	}
}

// billedOnce compares what CloudFront took from us with the journal: every batch
// is one invalidation there, and no item was billed twice for one of ours, unless
// a follow-up had to repeat it.
func (w *world) billedOnce() {
	w.Helper()
	type batch struct {
		invalidation string
		followUp     bool
	}
	known := map[string]batch{}
	for _, r := range w.reports() {
		for _, b := range r.Batches {
			if b.State == "accepted" || b.State == "completed" {
				known[b.Reference] = batch{r.ID, b.FollowUp}
			}
		}
	}
	billed := 0
	paid := map[string]string{} // by invalidation and item, the reference
	for _, inv := range w.sim.Invalidations() {
		billed += len(inv.Items)
		if !strings.HasPrefix(inv.CallerReference, "cftrack/") {
			continue // somebody else's
		}
		b, ok := known[inv.CallerReference]
		if !ok {
			w.Errorf("CloudFront was sent %d items under %s, of which the journal knows nothing", len(inv.Items), inv.CallerReference)
			b.invalidation = strings.Split(inv.CallerReference, "/")[1]
		}
		delete(known, inv.CallerReference)
		for _, it := range inv.Items {
			key := b.invalidation + " " + it
			if before := paid[key]; before != "" && !b.followUp {
				w.Errorf("%s was billed twice, under %s and %s", it, before, inv.CallerReference)
			}
			paid[key] = inv.CallerReference
		}
	}
	for reference := range known {
		w.Errorf("the journal has %s as accepted, CloudFront has not", reference)
	}
	if got := w.sim.Billed(); got != billed {
		w.Errorf("%d items billed, %d sent", got, billed)
	}
}

// sent returns how often each item was sent under our references.
func (w *world) sent() map[string]int {
	n := map[string]int{}
	for _, inv := range w.sim.Invalidations() {
		if strings.HasPrefix(inv.CallerReference, "cftrack/") {
			for _, it := range inv.Items {
				n[it]++
			}
		}
	}
	return n
}

// missing returns some of the paths that are not there.
func missing(paths []string, there map[string]bool) (gone []string) {
	for _, p := range paths {
		if !there[p] && len(gone) < 5 {
			gone = append(gone, p)
		}
	}
	return gone
}

// explained checks that whatever the edges hold is an entry, came in a gap, or
// before the tracking.
func (w *world) explained(there map[string]bool, cause string) {
	w.Helper()
	var c struct {
		Since time.Time
		Gaps  []gap
	}
	w.until("the coverage has a gap: "+cause, func() bool {
		time.Sleep(200 * time.Millisecond) // each look is a process
		w.must(&c, "coverage")
		return slices.ContainsFunc(c.Gaps, func(g gap) bool { return g.Cause == cause })
	})
	lost := 0
	for e := range edges {
		for _, o := range w.sim.Objects(e) {
			if there[o.Path] || o.Status != http.StatusOK || o.Stored.Before(c.Since) || strings.HasPrefix(o.Path, "/page/") {
				continue
			}
			lost++
			// The response ended between these two.
			w.site.mu.Lock()
			began := w.site.began[o.Path]
			w.site.mu.Unlock()
			if !slices.ContainsFunc(c.Gaps, func(g gap) bool {
				return !g.From.After(o.Stored) && (g.Until == nil || !g.Until.Before(began))
			}) {
				w.Errorf("edge %d holds %s since %v; it is no entry, and in no gap of %+v", e, o.Path, o.Stored, c.Gaps)
				return
			}
		}
	}
	w.Logf("%d entries, %d objects in a gap", len(there), lost)
}
