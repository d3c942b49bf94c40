// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"errors"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/accesslog"
	"github.com/cf-invalidation-tracker/cftrack/internal/importer"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// doImport brings what servers without a recorder have logged so far into the
// inventory. Of a step with a time the lines do not tell when responses began.
func (w *world) doImport(st *Step) {
	w.mu.Lock()
	var logged []*response
	for _, r := range w.responses {
		if r.by == nil && r.over && !r.end.IsZero() && r.imported.IsZero() {
			logged = append(logged, r)
		}
	}
	w.mu.Unlock()
	if len(logged) == 0 {
		return
	}
	l := w.newLink("importer")
	defer l.kill()
	err := w.importLines(shop{l}, logged, st.For > 0)
	w.say("imported %d lines, starts known: %v: %v", len(logged), st.For == 0, err)
	if err != nil {
		if !errors.Is(err, store.ErrUnavailable) {
			w.fault("import: %v", err)
		}
		return // somebody imports them again
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range logged {
		r.imported, r.assumption = time.Now(), st.For > 0
	}
}

func (w *world) importLines(st store.Store, logged []*response, assumed bool) error {
	ctx := context.Background()
	im, err := importer.New(ctx, st, dist, &w.rules, 0)
	if err != nil {
		return err
	}
	for _, r := range logged {
		// To the millisecond, outward, as logs have it.
		line := accesslog.Line{StartAssumed: assumed, Sighting: inventory.Sighting{Path: r.path, Tags: r.tags,
			Start: r.read.Add(w.g.offset - 2*time.Millisecond), End: r.end.Add(w.g.offset + time.Millisecond)}}
		s := &line.Sighting
		if assumed {
			s.Start = s.End.Add(-accesslog.Widen)
		}
		s.Expires = s.End.Add(r.maxAge * time.Duration(w.rules.Tiers))
		if _, err := im.Add(ctx, line); err != nil {
			return err
		}
	}
	return im.Flush(ctx)
}
