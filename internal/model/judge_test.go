// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// A seen object is what an edge held at a look.
type seen struct {
	res     *response
	expires time.Time
}

// An observation is all that a look rests on, read at one instant.
type observation struct {
	now      time.Time // bubble time
	journal  journal.Knowledge
	unread   map[uint64]uint64
	entries  map[string]inventory.Entry
	coverage journal.Coverage
}

func (w *world) observe() *observation {
	ctx := context.Background()
	o := &observation{now: time.Now(), entries: make(map[string]inventory.Entry)}
	var err error
	if o.journal, err = w.j.Know(ctx); err != nil {
		w.t.Fatal(err)
	}
	if o.unread, err = w.j.Unread(ctx); err != nil {
		w.t.Fatal(err)
	}
	o.coverage = journal.ComputeCoverage(o.journal, w.g.now(), w.rules.Longest())
	for e := range w.g.Scan(ctx, dist, store.Range{Now: w.g.now()}) {
		o.entries[e.Path] = e
	}
	return o
}

// lookNowAndThen looks at the edges every few seconds.
func (w *world) lookNowAndThen(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(w.lookAgain()):
			w.look("in passing")
		}
	}
}

func (w *world) lookAgain() time.Duration {
	const often, seldom = 5300 * time.Millisecond, 10 * time.Minute
	q, now := w.script.Quiet, time.Since(w.base)
	if now < q.From || now >= q.Until {
		return often
	}
	return min(seldom, q.Until-now+often)
}

// look holds promises 1 and 2 against what the edges would serve now.
func (w *world) look(when string) {
	o := w.observe()
	if w.unnoticed(o) {
		return
	}
	judges := w.judges(o)
	removed := w.removals(o)
	next := make(map[string]seen)
	for edge := range w.sim.Edges() {
		for _, obj := range w.sim.Objects(edge) {
			res := w.served(obj)
			if res == nil || obj.Status != 200 || !obj.Fresh(o.now) || !o.now.Before(obj.Stored.Add(res.maxAge)) {
				continue // a failure, or kept beyond its life since the origin failed
			}
			if w.script.Renew && obj.Stored.After(res.end.Add(2*time.Second+res.maxAge)) {
				continue // so was the regional cache's, which the edge took for new
			}
			key := fmt.Sprint(edge, " ", obj.Path, " ", res.id)
			next[key] = seen{res, obj.Expires}
			for _, v := range removed {
				if v.reaches(res) {
					w.fault("%s: edge %d serves %s (response %d), which %s has removed: it was there %v before it was sent",
						when, edge, res.path, res.id, v.reference, v.created.Sub(res.end))
				}
			}
			w.mu.Lock()
			claimed, given := w.claims[res.path]
			given = given && res.end.Before(claimed.Add(10*time.Second)) || res.given
			w.mu.Unlock()
			if given {
				continue
			}
			for _, j := range judges {
				if why := j.stale(w, o, res); why != "" {
					w.fault("%s: edge %d serves %s from before the cut of %s (%s), which is %s: response %d, %s",
						when, edge, res.path, j.inv.ID, j.inv.Selector, j.inv.State, res.id, why)
				}
			}
			if e, ok := o.entries[obj.Path]; !ok && !o.inFlight(obj.Path) && !w.excused(o, res, nil) && !(w.script.Harsh && o.purged(obj.Path)) {
				w.fault("%s: edge %d holds %s (response %d until %v), which the inventory lacks", when, edge, obj.Path, res.id, obj.Expires.Sub(w.base))
			} else if ok && res.by != nil && e.Expires.Before(obj.Expires.Add(w.g.offset-time.Second)) && !o.inFlight(obj.Path) && !w.unrecorded(o, res, nil) {
				w.fault("%s: edge %d holds %s (response %d) beyond the entry's end", when, edge, obj.Path, res.id)
			}
		}
	}
	w.compare(o, next)
}

// unnoticed reports whether the store lost data and a live recorder has not been
// in touch with it since: then nobody can know yet.
func (w *world) unnoticed(o *observation) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.g.mu.Lock()
	loss := w.g.lossAt
	w.g.mu.Unlock()
	if loss.IsZero() {
		return false
	}
	for _, p := range w.servers {
		if p == nil || p.tracker == nil || p.isDead() {
			continue
		}
		if !slices.ContainsFunc(o.journal.Sessions, func(s *journal.Session) bool {
			return s.Recorder == p.name && s.Renewals > 1 && s.Renewed.After(loss.Add(w.g.offset+3*time.Second))
		}) {
			return true
		}
	}
	return false
}

func (w *world) served(o simulator.Object) *response {
	text, ok := strings.CutPrefix(string(o.Body), "response ")
	n, err := strconv.Atoi(strings.TrimSuffix(text, "."))
	if !ok || err != nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.responses[n]
}

// A judge is a completed invalidation.
type judge struct {
	inv *journal.Invalidation
	cut time.Time // bubble time
	c   *selector.Compiled
}

func (w *world) judges(o *observation) []*judge {
	var out []*judge
	if w.script.Harsh && !o.allRepeated() {
		return nil
	}
	for _, inv := range o.journal.Invalidations {
		if _, reported := o.unread[inv.Number]; reported || inv.State != journal.Completed && inv.State != journal.Partial {
			continue
		}
		c, err := inv.Selector.Compile()
		if err != nil {
			w.t.Fatal(err)
		}
		j := &judge{inv: inv, cut: inv.Cut.Add(-w.g.offset), c: c}
		w.mu.Lock()
		if at, ok := w.opened[inv.ID]; ok {
			j.cut = at
		}
		w.mu.Unlock()
		out = append(out, j)
	}
	return out
}

// allRepeated reports whether nothing that went out is yet to go out once more, or never
// will: where edges can be filled again, an invalidation may rest on another's batches.
func (o *observation) allRepeated() bool {
	for _, inv := range o.journal.Invalidations {
		done := inv.State == journal.Completed || inv.State == journal.Partial || inv.State == journal.Failed && inv.Batches == 0
		if _, reported := o.unread[inv.Number]; !done || reported {
			return false
		}
	}
	return true
}

// stale says in what way a response that an edge serves breaks the promise; ""
// if it does not.
func (j *judge) stale(w *world, o *observation, res *response) string {
	if !res.read.Before(j.cut) {
		return ""
	}
	e := inventory.Entry{Path: res.path, Tags: res.tags, Last: res.end.Add(w.g.offset), Expires: inventory.Never}
	if !j.c.Selects(&e, j.inv.Cut) {
		return ""
	}
	if j.uncovered(res.path) || w.script.Spare && cfpath.InDoubt(res.path) || w.excused(o, res, j.inv) {
		return ""
	}
	return fmt.Sprintf("read %v before, ended %v after it", j.cut.Sub(res.read), res.end.Sub(j.cut))
}

func (j *judge) uncovered(path string) bool {
	named := slices.Clone(j.inv.Refused)
	if j.inv.Planned != nil {
		named = append(named, j.inv.Planned.Uncovered...)
	}
	for _, r := range named {
		if r.Item == path {
			return true
		}
		if it, err := cfpath.ParseItem(r.Item); err == nil && it.Matches(path) {
			return true
		}
	}
	return false
}

// inFlight reports whether an item that was saved and not completed reaches a path.
func (o *observation) inFlight(path string) bool {
	return o.reached(path, journal.Saved, journal.Accepted)
}

// purged reports whether an item that was ever sent reaches a path.
func (o *observation) purged(path string) bool {
	return o.reached(path, journal.Saved, journal.Accepted, journal.BatchDone)
}

// reached reports whether an item of a batch in one of some states reaches a path.
func (o *observation) reached(path string, states ...journal.BatchState) bool {
	for _, b := range o.journal.Batches {
		if !slices.Contains(states, b.State) {
			continue
		}
		for _, text := range b.Items {
			if it, err := cfpath.ParseItem(text); err == nil && it.Matches(path) {
				return true
			}
		}
	}
	return false
}

// excused reports whether a response is hidden by what the coverage says, as far
// as that may hide anything from an invalidation. With none it is about the
// inventory: before its flush a live recorder may hold it too.
func (w *world) excused(o *observation, res *response, inv *journal.Invalidation) bool {
	w.mu.Lock()
	imported, assumed, losses := !res.imported.IsZero() && !res.imported.After(o.now), res.assumption, w.losses
	w.mu.Unlock()
	if res.by != nil && (!imported || assumed || losses) {
		return w.unrecorded(o, res, inv)
	}
	// Logged: before the import nothing is promised, nor if the store lost it; from then
	// on no gap hides it.
	return losses || !imported || assumed && inv != nil
}

// unrecorded is excused as far as the response's recorder is concerned.
func (w *world) unrecorded(o *observation, res *response, inv *journal.Invalidation) bool {
	flush := inv == nil
	w.mu.Lock()
	defer w.mu.Unlock()
	if !res.over {
		return false
	}
	began, end := res.read.Add(w.g.offset), res.end.Add(w.g.offset)
	c := &o.coverage
	if !c.Complete && end.Before(c.Since) || c.Since.IsZero() {
		return true
	}
	for _, g := range c.Gaps {
		// What a store loses is anybody's.
		ours := g.Recorder == res.by.name || w.losses
		if g.Cause == journal.CauseBehind && inv != nil && !w.mayBeBehind(o, g.ID, inv) {
			continue
		}
		if ours && !end.Before(g.From) && (g.Until.IsZero() || !began.After(g.Until)) {
			return true
		}
	}
	session := false
	for _, s := range o.journal.Sessions {
		if s.Recorder == res.by.name {
			session = true
			if flush && !end.Before(s.Flushed) {
				return true
			}
		}
	}
	if !session && w.losses && (res.by.isDead() || res.by.closing.Load()) {
		return !res.by.ended.Load() // the store lost that it ever was, and it died, or is stopped, before it can say so
	}
	// One that never reached its store says that it is not ready.
	return !session && !res.by.ended.Load() && res.by.tracker.Ready() != nil
}

// mayBeBehind reports whether an invalidation was right to end without a session:
// it was lost then, or not there yet.
func (w *world) mayBeBehind(o *observation, id string, inv *journal.Invalidation) bool {
	there := slices.ContainsFunc(o.journal.Sessions, func(s *journal.Session) bool { return s.ID == id })
	return !there || w.g.arrived(id).Add(time.Second).After(inv.Ended) || w.g.lapsed(id, inv.Opened, inv.Ended.Add(5*time.Second))
}

// compare holds what is gone since the last look against what was selected.
func (w *world) compare(o *observation, next map[string]seen) {
	w.mu.Lock()
	last := w.last
	w.last = next
	w.mu.Unlock()
	for key, s := range last {
		if _, still := next[key]; still || !o.now.Before(s.expires) {
			continue
		}
		if w.replaced(key, next) {
			continue
		}
		if !w.selectedByAny(o, s.res) {
			w.fault("edge %s is gone, and nobody selected %s", key, s.res.path)
		}
	}
}

// replaced reports whether the edge holds a newer response on the path.
func (w *world) replaced(key string, next map[string]seen) bool {
	prefix := key[:strings.LastIndexByte(key, ' ')+1]
	for k := range next {
		if strings.HasPrefix(k, prefix) {
			return true
		}
	}
	return false
}

func (w *world) selectedByAny(o *observation, res *response) bool {
	w.mu.Lock()
	_, claimed := w.claims[res.path]
	losses := w.losses || claimed // what is given up is not looked for under a wildcard
	tags := slices.Clone(res.tags)
	for _, r := range w.responses {
		if r.path == res.path {
			tags = append(tags, r.tags...)
		}
	}
	w.mu.Unlock()
	if losses {
		return true // whoever purged it may be forgotten
	}
	e := inventory.Entry{Path: res.path, Tags: tags, Last: res.end.Add(w.g.offset), Expires: inventory.Never}
	for _, inv := range o.journal.Invalidations {
		if inv.Batches == 0 {
			continue // it has removed nothing
		}
		if c, err := inv.Selector.Compile(); err == nil && c.Selects(&e, inv.Cut) || w.collateral(inv)[res.path] {
			return true
		}
	}
	for _, b := range o.journal.Batches {
		w.mu.Lock()
		at, ok := w.present[b.Reference][res.path] // since when it was in the inventory
		listed := ok && at.Before(b.Sent.Add(-time.Second))
		w.mu.Unlock()
		for _, text := range b.Items {
			if it, err := cfpath.ParseItem(text); err == nil && it.Matches(res.path) && (!listed || b.Repeat) {
				return true // nobody could know of it when the batch was saved, or was to look
			}
		}
	}
	return w.excused(o, res, nil)
}

// judgeBatch holds a batch that is being saved against the inventory: it reaches
// nothing that is there and was not selected. What came while the dispatcher made
// up its mind does not count, nor what goes out once more. It is called
// under the ground's lock.
func (w *world) judgeBatch(b *journal.Batch, inv *journal.Invalidation, present []inventory.Entry) {
	c, err := inv.Selector.Compile()
	if err != nil {
		return
	}
	// How long it may take to save what was made up.
	mind := 100 * time.Millisecond
	if w.script.Quota != "strict" || w.script.Lag || w.script.has(StopPurger) {
		mind = time.Minute
	}
	looked := time.Now().Add(-mind)
	listed := make(map[string]time.Time)
	for i := range present {
		listed[present[i].Path] = w.g.since[present[i].Path].Add(w.g.offset)
	}
	if b.FollowUp {
		w.judgeFollowUp(b, inv, c)
	}
	w.mu.Lock()
	w.present[b.Reference] = listed
	w.followUps[b.Reference] = w.followUps[b.Reference] || b.FollowUp
	follows := w.followUps[b.Reference]
	for _, text := range b.Items {
		w.saved[inv.ID+" "+text] = true
	}
	w.mu.Unlock()
	if follows || b.Repeat || b.State != journal.Saved {
		return // one that was found at CloudFront again was judged when it was new
	}
	named := w.collateral(inv)
	for _, text := range b.Items {
		it, err := cfpath.ParseItem(text)
		if err != nil {
			w.fault("%s: item %q: %v", b.Reference, text, err)
			continue
		}
		for i := range present {
			e := &present[i]
			if it.Matches(e.Path) && !c.Selects(e, inv.Cut) && w.g.since[e.Path].Before(looked) && !named[e.Path] {
				w.fault("%s reaches %s, which %s does not select (listed for %v)", text, e.Path, inv.Selector, time.Since(w.g.since[e.Path]))
			}
		}
	}
}

// judgeFollowUp holds a follow-up to what it may be: the exact path of a response that
// the selector selects, by tags that it has had, or that an item of the invalidation reaches.
func (w *world) judgeFollowUp(b *journal.Batch, inv *journal.Invalidation, c *selector.Compiled) {
	w.mu.Lock()
	var sent []cfpath.Item
	for key := range w.saved {
		if text, ok := strings.CutPrefix(key, inv.ID+" "); ok {
			if it, err := cfpath.ParseItem(text); err == nil {
				sent = append(sent, it)
			}
		}
	}
	var responses []inventory.Entry
	for _, r := range w.responses {
		responses = append(responses, inventory.Entry{Path: r.path, Tags: r.tags, Last: r.read.Add(w.g.offset), Expires: inventory.Never})
	}
	w.mu.Unlock()
	for _, text := range b.Items {
		it, err := cfpath.ParseItem(text)
		if err != nil || it.Kind != cfpath.Path {
			w.fault("%s follows up with %q, which is no path", b.Reference, text)
			continue
		}
		ours := slices.ContainsFunc(sent, func(x cfpath.Item) bool { return x.Matches(it.Text) })
		for i := range responses {
			e := &responses[i]
			if name, err := cfpath.Name(e.Path); err == nil && name == text {
				ours = ours || c.Selects(e, inv.Cut)
			}
		}
		if !ours {
			w.fault("%s follows up %s, which %s does not select and nothing was sent for", b.Reference, text, inv.Selector)
		}
	}
}

// judgeQuota holds us to CloudFront's limits, read as buckets of a second's worth.
// Where nothing at all may be owed, two batches of one path each within 7 ms are one
// too many, and the second is refused and waits. A purger that sleeps with a batch in
// its hands sends it at a moment that nobody chose, and so does a slow network.
func (w *world) judgeQuota() {
	if w.script.Quota != "strict" || w.script.Lag || w.script.has(StopPurger, Weather, Back, Empty, Outage) {
		return
	}
	for _, c := range w.sim.Refusals() {
		if c.Own && c.Caller != simulator.SomebodyElse {
			w.fault("CloudFront refuses %s at %v: %s (%d paths, %d wildcards), and that is by what we sent alone",
				c.Reference, c.Time.Sub(w.base), c.Code, c.Paths, c.Wildcards)
		}
	}
}

// countRare counts what is drawn seldom: that there are regional caches, and what
// somebody else's invalidations did to ours. That all of ours
// were sent in the end, conclude has seen; that none was refused by what we used
// ourselves, judgeQuota.
func (w *world) countRare() {
	for upper := range w.script.Upper {
		if len(w.sim.Regional(upper)) > 0 {
			w.count("held by a regional cache")
		}
	}
	if w.script.Renew {
		w.count("kept anew by an edge")
	}
	for _, b := range w.final.Batches {
		if b.Repeat && w.script.Harsh {
			w.count("repeated in the harsh mode")
		} else if b.Repeat {
			w.count("repeated")
		}
	}
	if w.script.Foreign == 0 {
		return
	}
	w.count("beside somebody else")
	for _, c := range w.sim.Refusals() {
		if c.Caller != simulator.SomebodyElse {
			w.count("refused for somebody else")
		}
	}
}

// judgeBills holds what CloudFront bills against the journal.
func (w *world) judgeBills() {
	w.mu.Lock()
	losses := w.losses
	w.mu.Unlock()
	if losses {
		return
	}
	o := w.observe()
	saved := make(map[string]*journal.Batch)
	for _, b := range o.journal.Batches {
		saved[b.Reference] = b
	}
	sent := make(map[string]*journal.Batch) // of an invalidation and item, the last
	for _, v := range w.sim.Invalidations() {
		b := saved[v.CallerReference]
		if v.Caller == simulator.SomebodyElse {
			continue
		}
		if b == nil {
			w.fault("CloudFront bills %q with %q, which the journal does not know", v.CallerReference, v.Items)
			continue
		}
		if !slices.Equal(b.Items, v.Items) {
			w.fault("%s: sent %q, saved %q", b.Reference, v.Items, b.Items)
		}
		if !b.Purged() {
			w.fault("%s was accepted, and the journal calls it %s", b.Reference, b.State)
		}
		for _, it := range b.Items {
			key := fmt.Sprint(b.Invalidation(), " ", it)
			first, before := sent[key]
			switch {
			case b.Repeat && (!before || first.Repeat):
				w.fault("%s goes out once more as %s, and has not since the last time", it, b.Reference)
			case !b.Repeat && !b.FollowUp && before:
				w.fault("%s is billed twice: as %s and as %s", it, first.Reference, b.Reference)
			}
			sent[key] = b
		}
	}
}
