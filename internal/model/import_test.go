// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/accesslog"
	"github.com/cf-invalidation-tracker/cftrack/internal/importer"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// doImport brings what was logged so far into the inventory: what servers without a
// recorder served and nobody has imported yet, every second line of that ("half"), what recorders
// served too ("all"), or everything once more ("again"). Of a step with a time the
// lines do not tell when responses began.
func (w *world) doImport(st *Step) {
	w.mu.Lock()
	var logged []*response
	for _, r := range w.responses {
		whose := r.by == nil || st.Text == "all" || st.Text == "again"
		if whose && r.over && !r.end.IsZero() && (st.Text == "again" || r.imported.IsZero()) && (st.Text != "half" || r.id%2 == 0) {
			logged = append(logged, r)
		}
	}
	w.mu.Unlock()
	if len(logged) == 0 {
		return
	}
	// Files of logs are read in any order.
	rand.New(rand.NewPCG(w.script.Seed, uint64(st.At))).Shuffle(len(logged), func(i, j int) {
		logged[i], logged[j] = logged[j], logged[i]
	})
	l := w.newLink("importer")
	defer l.kill()
	im, err := w.importLines(shop{l}, logged, st.For > 0)
	w.say("imported %d lines (%s), starts known: %v: %v", len(logged), st.Text, st.For == 0, err)
	if err != nil {
		if !errors.Is(err, store.ErrUnavailable) {
			w.fault("import: %v", err)
		}
		return // somebody imports them again
	}
	now := time.Now()
	if w.script.Quiet.Until > 0 && now.Sub(w.base) > w.script.Quiet.Until {
		w.count("imported hours later")
		w.mu.Lock()
		w.counts["imported, purged"] += im.Purged
		w.counts["imported, reported"] += im.Reports
		w.mu.Unlock()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range logged {
		switch {
		case r.imported.IsZero():
			r.imported, r.assumption = now, st.For > 0
		case r.assumption && st.For == 0:
			r.imported, r.assumption = now, false // now it is known
		}
	}
}

func (w *world) importLines(st store.Store, logged []*response, assumed bool) (*importer.Importer, error) {
	ctx := context.Background()
	im, err := importer.New(ctx, st, dist, &w.rules, 0)
	if err != nil {
		return nil, err
	}
	for _, r := range logged {
		// To the millisecond, outward, as logs have it.
		line := accesslog.Line{StartAssumed: assumed, Sighting: inventory.Sighting{Path: r.path, Tags: r.tags,
			Start: r.read.Add(w.g.offset - 2*time.Millisecond), End: r.end.Add(w.g.offset + time.Millisecond)}}
		s := &line.Sighting
		if assumed {
			s.Start = s.End.Add(-accesslog.Widen)
		}
		s.Expires = s.End.Add(im.Margin() + r.maxAge*time.Duration(w.rules.Tiers)) // as the command does
		if _, err := im.Add(ctx, line); err != nil {
			return nil, err
		}
	}
	return im, im.Flush(ctx)
}
