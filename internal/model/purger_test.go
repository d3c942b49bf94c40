// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
)

func (w *world) startPurger(i int) *process {
	w.mu.Lock()
	i %= len(w.purgers)
	old := w.purgers[i]
	n := w.lives
	w.mu.Unlock()
	if old != nil && !old.isDead() {
		return old
	}
	p := &process{name: fmt.Sprintf("purger%d.%d", i, n)}
	p.link = w.newLink(p.name)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.killed = p.cancel
	rules := w.rules
	p.purger = dispatch.New(shop{p.link}, dist, phone{w.cdn, p.link}, &dispatch.Options{Rules: &rules, Holder: p.name})
	w.mu.Lock()
	w.purgers[i] = p
	w.all = append(w.all, p)
	w.mu.Unlock()
	return p
}

func (w *world) doPurger(st *Step) {
	switch st.Do {
	case Purge, Plan, Send:
		p := w.startPurger(st.Who)
		p.busy.Add(1)
		defer p.busy.Done()
		defer w.recovered(p)
		switch st.Do {
		case Plan:
			w.makePlan(p, st)
		case Send:
			w.sendPlan(p, st)
		default:
			w.purge(p, st, request(st))
		}
		return
	case Cancel:
		p := w.startPurger(0)
		invs, err := w.j.Invalidations(p.ctx, 0)
		if err == nil && len(invs) > 0 {
			_, err = p.purger.Journal().RequestCancel(p.ctx, invs[len(invs)-1].ID)
			w.say("%s asks to cancel %s: %v", p.name, invs[len(invs)-1].ID, err)
		}
		return
	case Purger:
		w.tend(w.startPurger(st.Who))
		return
	}
	w.mu.Lock()
	p := w.purgers[st.Who%len(w.purgers)]
	w.mu.Unlock()
	if p.isDead() {
		return
	}
	w.say("%s", st)
	p.mu.Lock()
	if st.Do == KillPurger {
		p.killAt = st.Ops
	} else {
		p.stopAt, p.stopFor = st.Ops, st.For
	}
	p.mu.Unlock()
	if st.Do == KillPurger && st.Ops == 0 {
		p.kill()
	}
}

func request(st *Step) dispatch.Request {
	return dispatch.Request{Selector: st.Selector, Now: st.Now, Settle: st.Settle, Exact: st.Exact, AssumeComplete: st.Assume, Batch: st.Batch,
		RepeatAfter: st.Repeat}
}

func (w *world) purge(p *process, st *Step, r dispatch.Request) {
	asked := time.Now()
	inv, err := p.purger.Open(p.ctx, r)
	if err != nil {
		w.say("%s could not do %s: %v", p.name, st, err)
		return
	}
	w.mu.Lock()
	w.opened[inv.ID] = asked
	w.mu.Unlock()
	w.say("%s opened %s: %s (asked %v ago)", p.name, inv.ID, st, time.Since(asked))
	report, err := p.purger.Drive(p.ctx, inv.ID, dispatch.UntilDone, nil)
	if report == nil {
		w.say("%s lost %s: %v", p.name, inv.ID, err)
		return
	}
	w.say("%s has driven %s: %s, %d items, %d follow-ups, holding %v, uncovered %v: %v", p.name, inv.ID, report.State,
		report.Items, report.FollowUps, report.Holding, report.Uncovered, err)
	if report.State.Ended() {
		w.look("after " + inv.ID)
	}
}

// recovered makes a process that panics dead, and that a fault.
func (w *world) recovered(p *process) {
	if x := recover(); x != nil {
		w.fault("%s panics: %v\n%s", p.name, x, debug.Stack())
		p.kill()
	}
}

// tend has a purger look after whatever is open, as a daemon does.
func (w *world) tend(p *process) {
	if !p.tends.CompareAndSwap(false, true) {
		return
	}
	p.busy.Add(1)
	go func() {
		defer p.busy.Done()
		defer w.recovered(p)
		for p.ctx.Err() == nil {
			id, _ := open(p.ctx, p.purger.Journal())
			if id != "" {
				r, err := p.purger.Drive(p.ctx, id, dispatch.UntilDone, nil)
				if r != nil {
					w.say("%s tended %s: %s, %d items, %d follow-ups, holding %v: %v", p.name, id, r.State, r.Items, r.FollowUps, r.Holding, err)
				}
			}
			select {
			case <-time.After(2 * time.Second):
			case <-p.ctx.Done():
			}
		}
	}()
}

// open returns an invalidation that has not ended, or was reported to since.
func open(ctx context.Context, j *journal.Journal) (string, error) {
	unread, err := j.Unread(ctx)
	if err != nil {
		return "", err
	}
	invs, err := j.Invalidations(ctx, 0)
	if err != nil {
		return "", err
	}
	for _, inv := range invs {
		_, reported := unread[inv.Number]
		if !inv.State.Ended() || reported {
			return inv.ID, nil
		}
	}
	return "", nil
}
