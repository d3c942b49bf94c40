// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/cf-invalidation-tracker/cftrack"
	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

// startServer begins another life of a server.
func (w *world) startServer(i int) {
	x := w.script.Servers[i]
	w.mu.Lock()
	old := w.servers[i]
	n := w.lives
	w.mu.Unlock()
	if old != nil && !old.isDead() && !old.closing.Load() {
		return // it is still there
	}
	p := &process{name: fmt.Sprintf("server%d.%d", i, n)}
	p.link = w.newLink(p.name)
	if x.Logs {
		p.handler = http.HandlerFunc(w.site)
	} else {
		var err error
		rules := w.rules
		p.tracker, err = cftrack.Open(shop{p.link}, dist, &cftrack.Options{
			Name: p.name, Lease: x.Lease, Margin: x.Margin, Rules: &rules,
		})
		if err != nil {
			w.t.Fatal(err)
		}
		p.handler = p.tracker.Middleware(http.HandlerFunc(w.site))
	}
	w.say("%s serves", p.name)
	w.mu.Lock()
	w.servers[i] = p
	w.all = append(w.all, p)
	w.mu.Unlock()
}

func (w *world) server(i int) *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i >= len(w.servers) {
		return nil
	}
	return w.servers[i]
}

func (w *world) lose(st *Step) {
	w.mu.Lock()
	live := slices.ContainsFunc(w.servers, func(p *process) bool {
		return p != nil && p.tracker != nil && !p.isDead() && !p.closing.Load() && p.tracker.Ready() == nil
	})
	w.mu.Unlock()
	if !live {
		return // nobody is there to notice
	}
	w.say("%s", st)
	w.mu.Lock()
	w.losses = true
	w.mu.Unlock()
	if st.Do == Empty {
		w.g.back(-1)
	} else {
		w.g.back(st.Ops)
	}
}

func (w *world) doServer(st *Step) {
	if st.Do == Open {
		if st.Who < len(w.script.Servers) {
			w.startServer(st.Who)
		}
		return
	}
	p := w.server(st.Who)
	if p == nil || p.isDead() || p.closing.Load() || p.tracker == nil {
		return
	}
	w.say("%s", st)
	switch st.Do {
	case Kill:
		p.mu.Lock()
		p.killAt = st.Ops
		p.mu.Unlock()
		if st.Ops == 0 {
			p.kill()
		}
	case Cut:
		p.cut(st.For)
	case Stall:
		p.mu.Lock()
		p.slow, p.slowFor = st.Ops, st.For
		p.mu.Unlock()
	case Close:
		w.closeServer(p)
	case Claim:
		page := w.script.Pages[st.Page]
		path, err := cfpath.Canonical(page.Path)
		if err != nil {
			w.t.Fatal(err)
		}
		w.mu.Lock()
		w.claims[path] = time.Now()
		w.mu.Unlock()
		if err := p.tracker.SetTTL(context.Background(), page.Path, st.For); err != nil {
			w.fault("SetTTL: %v", err)
		}
	default:
		w.t.Fatalf("no such step: %v", st)
	}
}

// closeServer ends a recorder in order: first its HTTP server, then itself.
func (w *world) closeServer(p *process) {
	p.closing.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	for w.runningAt(p) > 0 && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	err := p.tracker.Close(ctx)
	w.say("%s closed: %v", p.name, err)
	p.ended.Store(err == nil && !p.isDead())
	p.kill()
}

func (w *world) runningAt(p *process) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, r := range w.responses {
		if r.by == p && !r.over && r.end.IsZero() {
			n++
		}
	}
	return n
}
