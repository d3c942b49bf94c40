// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cftrack

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/journal"
)

const (
	chunk     = 2000 // updates in one call of the store, and reports in one renewal
	maxSpans  = 8    // kept for one path
	closePoll = 50 * time.Millisecond
)

// A loop is what the tracker's goroutine knows between its rounds.
type loop struct {
	held    []*entry // those with spans kept
	jobs    []job
	updates []inventory.Update

	session *journal.Session // nil if there is none at present
	opening *journal.Session // one that may have been opened, or not
	lost    *journal.Session // the one before, if it was lost
	revived *journal.Session // that one, as a store that went back has it
	back    journal.Gap      // what takes its place
	epoch   string
	flushed time.Time // everything that ended before is in the store
	read    uint64    // the last invalidation read, and
	readID  string    // its ID
	known   []*known  // invalidations that something held may concern
	reports []journal.Report
	gaps    []journal.Gap
	said    []journal.Gap // those that are written, lest the store loses them too
	unsure  *renewal      // a renewal that may have been written, or not
	full    *journal.Gap  // the present run of losses
	fails   int           // rounds, in a row
}

// A job is a record on its way to the store.
type job struct {
	entry  *entry
	record inventory.Record
}

// A known invalidation is one to judge by.
type known struct {
	number uint64
	cut    time.Time
	until  instant           // a response that began by then may hold older content
	may    func(string) bool // may it select the path?
	acked  bool
}

type renewal struct {
	session journal.Session
	now     time.Time
	reports []journal.Report
	gaps    []journal.Gap
}

// A hold is something that keeps invalidations from being acknowledged.
type hold struct {
	start instant
	path  string
}

// run is the tracker's goroutine.
func (t *Tracker) run(ctx context.Context) {
	defer close(t.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-t.kick:
		case end := <-t.closing:
			t.err = t.finish(end)
			return
		}
		if t.round(ctx) == nil {
			timer.Reset(t.opts.FlushEvery)
		} else {
			timer.Reset(min(t.opts.FlushEvery<<min(t.loop.fails, 10), t.opts.Lease/2))
		}
	}
}

// round does what is due every second, in this order, which everything rests
// on: flush, then read the journal, then report, then renew the session.
func (t *Tracker) round(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.opts.Lease)
	defer cancel()
	t.mu.Lock()
	waiters := t.waiters
	t.waiters = nil
	t.mu.Unlock()

	err := t.clock.Sync(ctx, t.store)
	if err == nil {
		t.skew.Store(int64(t.clock.Skew()))
		for i := range t.shards {
			t.shards[i].sync(t.storeTime(0).UnixNano(), t.skew.Load())
		}
		flushErr := t.flush(ctx)
		// A store that takes no more updates may still take documents.
		err = t.catchUp(ctx)
		if errors.Is(err, journal.ErrSessionLost) {
			t.loseSession()
			err = t.catchUp(ctx)
		}
		if flushErr == nil {
			// Not before the session is known: who flushes and then purges
			// everything expects the purge to be later than the tracking.
			for _, w := range waiters {
				close(w)
			}
			waiters = nil
		}
		if flushErr != nil {
			err = flushErr
		}
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiters = append(waiters, t.waiters...)
	switch {
	case err != nil && t.lastErr == nil:
		t.log.Warn("the store fails; what is recorded is kept in memory", "error", err)
	case err == nil && t.lastErr != nil:
		t.log.Info("the store works again")
	}
	if t.lastErr = err; err != nil {
		t.loop.fails++
		return err
	}
	t.loop.fails, t.ready = 0, true
	return nil
}

// flush hands over to the store whatever is buffered. What it does not take goes
// back, merged with what came meanwhile.
func (t *Tracker) flush(ctx context.Context) error {
	l := &t.loop
	began := t.drain()
	for jobs := l.jobs; len(jobs) > 0; {
		n := min(len(jobs), chunk)
		l.updates = l.updates[:0]
		for _, j := range jobs[:n] {
			l.updates = append(l.updates, inventory.Update{Path: j.entry.path, Record: j.record})
		}
		if err := t.store.Merge(ctx, t.journal.Distribution(), l.updates); err != nil {
			t.retried.Add(uint64(len(jobs)))
			t.putBack(jobs)
			return err
		}
		t.flushed.Add(uint64(n))
		for _, j := range jobs[:n] {
			for i := range j.entry.kept {
				j.entry.kept[i].flushed = true
			}
			if len(j.entry.kept) == 0 { // a claim alone
				sh := t.shard(j.entry.path)
				sh.mu.Lock()
				sh.settle(j.entry)
				sh.mu.Unlock()
			}
		}
		jobs = jobs[n:]
	}
	l.flushed = t.storeTime(began).Add(-time.Duration(t.skew.Load()))
	return nil
}

// drain takes all pending records out of the shards, and makes their sightings
// into spans. It returns an instant before which nothing is left in them.
func (t *Tracker) drain() instant {
	l := &t.loop
	clear(l.jobs)
	l.jobs = l.jobs[:0]
	began := t.now()
	var lostFrom, lostUntil instant
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		sh.drained = t.now()
		for _, e := range sh.changed {
			l.jobs = append(l.jobs, job{e, e.pending})
			if e.sighted {
				e.span.tags = e.pending.Tags
				t.keep(e)
			}
			e.pending, e.dirty, e.sighted = inventory.Record{}, false, false
		}
		clear(sh.changed)
		sh.changed = sh.changed[:0]
		if sh.lostUntil != 0 {
			if lostUntil == 0 || sh.lostFrom < lostFrom {
				lostFrom = sh.lostFrom
			}
			lostUntil = max(lostUntil, sh.lostUntil)
			sh.lostFrom, sh.lostUntil = 0, 0
		}
		sh.mu.Unlock()
	}
	t.noteLosses(lostFrom, lostUntil)
	return began
}

// keep adds the entry's span to those kept. If there are too many the newest are
// joined, so that the oldest can go one after the other.
func (t *Tracker) keep(e *entry) {
	switch n := len(e.kept); {
	case n == 0:
		t.loop.held = append(t.loop.held, e)
		fallthrough
	case n < maxSpans:
		e.kept = append(e.kept, e.span)
	default:
		e.kept[n-1].join(e.span)
	}
}

func (t *Tracker) putBack(jobs []job) {
	for _, j := range jobs {
		sh := t.shard(j.entry.path)
		sh.mu.Lock()
		j.entry.pending = j.entry.pending.Merge(j.record)
		sh.touch(j.entry)
		sh.mu.Unlock()
	}
}

// noteLosses makes a gap of what did not fit since the last drain, or lengthens
// the one before if losses go on.
func (t *Tracker) noteLosses(from, until instant) {
	l := &t.loop
	if until == 0 {
		l.full = nil
		return
	}
	if l.full == nil {
		l.full = &journal.Gap{
			ID: "full-" + random(), Cause: journal.CauseFull, Recorder: t.opts.Name,
			From: t.storeTime(from).Add(-time.Duration(t.skew.Load())),
		}
		t.log.Error("more paths than the buffer holds; the coverage has a gap", "buffer", t.opts.Buffer)
	}
	l.full.Until = t.storeTime(until).Add(time.Duration(t.skew.Load()) + time.Millisecond)
	if i := slices.IndexFunc(l.gaps, func(g journal.Gap) bool { return g.ID == l.full.ID }); i >= 0 {
		l.gaps[i] = *l.full
	} else {
		l.gaps = append(l.gaps, *l.full)
	}
}

// catchUp reads the journal, judges what is held, reports, and renews the
// session, which it opens if there is none.
func (t *Tracker) catchUp(ctx context.Context) error {
	l := &t.loop
	if l.session == nil {
		if err := t.openSession(ctx); err != nil {
			return err
		}
	}
	if l.revived != nil {
		if err := t.journal.Supersede(ctx, l.revived, l.back); err != nil {
			return err
		}
		l.saidSo(l.back)
		l.revived = nil
	}
	if u := l.unsure; u != nil { // it must be settled before anything new
		if err := t.write(ctx, u); err != nil {
			return err
		}
	}

	began := t.now()
	if err := t.read(ctx); err != nil {
		return err
	}
	oldest := t.judge()

	for {
		u := &renewal{
			session: *l.session, now: t.clock.Now(),
			reports: l.reports[:min(len(l.reports), chunk)], gaps: slices.Clone(l.gaps),
		}
		u.session.Flushed = l.flushedSince(&u.session)
		if len(u.reports) == len(l.reports) { // not before all is reported
			u.session.Acked, u.session.AckedAlso = l.acked()
		}
		if err := t.write(ctx, u); err != nil {
			return err
		}
		if len(l.reports) == 0 {
			break
		}
	}
	t.release(began, oldest)
	return nil
}

// write renews the session. What an error leaves unsure is written again as it
// was, since the journal can tell by that whether it had been written.
func (t *Tracker) write(ctx context.Context, u *renewal) error {
	l := &t.loop
	s := u.session
	if err := t.journal.Renew(ctx, &s, u.now, u.reports, u.gaps); err != nil {
		l.unsure = u
		return err
	}
	l.session, l.unsure = &s, nil
	t.reports.Add(uint64(len(u.reports)))
	l.reports = slices.Delete(l.reports, 0, len(u.reports))
	l.gaps = slices.DeleteFunc(l.gaps, func(g journal.Gap) bool { return slices.Contains(u.gaps, g) })
	l.saidSo(u.gaps...)
	return nil
}

// saidSo remembers gaps that were written, in their last form.
func (l *loop) saidSo(gaps ...journal.Gap) {
	for _, g := range gaps {
		l.said = append(slices.DeleteFunc(l.said, func(s journal.Gap) bool { return s.ID == g.ID }), g)
	}
}

// read learns of the invalidations since the last read. The last of those is read
// again: where it is gone, or another one has its number, the store went back, and
// what is remembered, acknowledgements too, is of what is no more.
func (t *Tracker) read(ctx context.Context) error {
	l := &t.loop
	invs, err := t.journal.Invalidations(ctx, max(l.read, 1)-1)
	if err != nil {
		return err
	}
	if l.read > 0 {
		if len(invs) == 0 || invs[0].Number != l.read || invs[0].ID != l.readID {
			return journal.ErrSessionLost
		}
		invs = invs[1:]
	}
	for _, inv := range invs {
		if err := t.journal.Load(ctx, inv); err != nil {
			return err
		}
		k := &known{number: inv.Number, cut: inv.Cut, may: lazily(func() func(string) bool {
			c, err := inv.Compile()
			if err != nil {
				t.log.Warn("cannot read the selector of an invalidation; it counts as selecting everything",
					"invalidation", inv.ID, "error", err)
				return func(string) bool { return true }
			}
			return c.MaySelect
		})}
		l.known = append(l.known, k)
		l.read, l.readID = inv.Number, inv.ID
	}
	return nil
}

// lazily makes a predicate when it is first asked: of the history that a new
// session reads, hardly any invalidation concerns what is held.
func lazily(compile func() func(string) bool) func(string) bool {
	var may func(string) bool
	return func(path string) bool {
		if may == nil {
			may = compile()
		}
		return may(path)
	}
}

// judge decides which of the sightings held to report, and which invalidations
// to acknowledge. It returns the oldest start that is held.
func (t *Tracker) judge() (oldest instant) {
	l := &t.loop
	skew := time.Duration(t.skew.Load())
	latest := instant(math.MinInt64) // of the cuts that are not acknowledged
	for _, k := range l.known {
		k.until = instant(k.cut.Sub(t.storeTime(0)) + skew)
		if !k.acked {
			latest = max(latest, k.until)
		}
	}
	holds, oldest := t.unsettled(latest)
	for _, e := range l.held {
		for i := range e.kept {
			sp := &e.kept[i]
			oldest = min(oldest, sp.start)
			if !sp.flushed {
				if sp.start <= latest {
					holds = append(holds, hold{sp.start, e.path})
				}
				continue
			}
			if sp.judged == l.read {
				continue
			}
			for _, k := range l.known {
				if k.number > sp.judged && sp.start <= k.until && k.may(e.path) {
					l.reports = append(l.reports, journal.Report{
						Invalidation: k.number, Path: e.path, Tags: sp.tags,
						Start: t.storeTime(sp.start).Add(-skew), End: t.storeTime(sp.end).Add(skew),
					})
				}
			}
			sp.judged = l.read
		}
	}
	for _, k := range l.known {
		k.acked = k.acked || !slices.ContainsFunc(holds, func(h hold) bool {
			return h.start <= k.until && k.may(h.path)
		})
	}
	return oldest
}

// unsettled lists what began by latest and is running or buffered, and returns
// the oldest start of all that is.
func (t *Tracker) unsettled(latest instant) (holds []hold, oldest instant) {
	oldest = math.MaxInt64
	add := func(start instant, path string) {
		oldest = min(oldest, start)
		if start <= latest {
			holds = append(holds, hold{start, path})
		}
	}
	// All that runs before all that is buffered: a request moves that way, and
	// must not slip through between.
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		for r := sh.running; r != nil; r = r.next {
			if r.out {
				oldest = min(oldest, r.start) // its handler may still record others
			} else {
				add(r.start, r.path)
			}
			for _, path := range r.aside.paths() {
				add(r.start, path)
			}
		}
		sh.mu.Unlock()
	}
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		for _, e := range sh.changed {
			if e.sighted {
				add(e.span.start, e.path)
			}
		}
		sh.mu.Unlock()
	}
	return holds, oldest
}

// acked says which invalidations are acknowledged, in a session's terms. Those
// that the journal no longer has are over.
func (l *loop) acked() (all uint64, also []uint64) {
	all = l.read
	first := slices.IndexFunc(l.known, func(k *known) bool { return !k.acked })
	if first < 0 {
		return all, nil
	}
	for _, k := range l.known[first+1:] {
		if k.acked {
			also = append(also, k.number)
		}
	}
	return l.known[first].number - 1, also
}

// release lets go of spans after a read of the journal that began at read, and
// of invalidations that nothing held can concern any more.
func (t *Tracker) release(read, oldest instant) {
	l := &t.loop
	drain := instant(t.opts.Margin) + instant(t.skew.Load())
	l.held = slices.DeleteFunc(l.held, func(e *entry) bool {
		over := func(sp span) bool { return sp.flushed && sp.end+drain <= read }
		if !slices.ContainsFunc(e.kept, over) {
			return false
		}
		sh := t.shard(e.path)
		sh.mu.Lock()
		defer sh.mu.Unlock()
		e.kept = slices.DeleteFunc(e.kept, over)
		sh.settle(e)
		return len(e.kept) == 0
	})
	over := 0
	for over < len(l.known) && l.known[over].acked && l.known[over].until < oldest {
		over++
	}
	l.known = slices.Delete(l.known, 0, over)
	// Room for new paths, before a request needs it.
	if spare := int64(t.opts.Buffer) / 4; t.paths.Load() > int64(t.opts.Buffer)-spare {
		t.trim(int64(t.opts.Buffer) - spare)
	}
}

func (t *Tracker) trim(most int64) {
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		for t.paths.Load() > most && sh.dropIdle() {
			t.paths.Add(-1)
		}
		sh.mu.Unlock()
	}
}

// openSession makes the tracker known to dispatchers, with the oldest start
// that it holds. It says what a session before it may have lost.
func (t *Tracker) openSession(ctx context.Context) error {
	l := &t.loop
	status, err := t.store.Status(ctx)
	if err != nil {
		return err
	}
	if l.lost != nil {
		if err := t.explainLoss(ctx, status.Epoch); err != nil {
			return err
		}
	}
	if l.opening == nil {
		l.opening = &journal.Session{
			ID: random(), Recorder: t.opts.Name,
			Lease: t.opts.Lease, Scope: t.opts.Scope, Longest: t.longest,
		}
	}
	s := l.opening
	_, oldest := t.unsettled(math.MinInt64)
	for _, e := range l.held {
		for _, sp := range e.kept {
			oldest = min(oldest, sp.start)
		}
	}
	now := t.clock.Now()
	if s.Oldest = now; oldest != math.MaxInt64 {
		s.Oldest = t.storeTime(oldest).Add(-time.Duration(t.skew.Load()))
	}
	s.Flushed = l.flushedSince(s)
	if err := t.journal.OpenSession(ctx, s, now, l.gaps...); err != nil {
		return err // and if an answer was lost, what is in l.gaps is written again
	}
	l.session, l.opening, l.epoch = s, nil, status.Epoch
	t.log.Info("session opened", "session", s.ID, "recorder", s.Recorder)
	return nil
}

// flushedSince is the instant before which everything is in the store.
func (l *loop) flushedSince(s *journal.Session) time.Time {
	if l.flushed.IsZero() {
		return s.Oldest
	}
	return l.flushed
}

// loseSession forgets a session that is not in the store as it was left, and
// what was known through it: the numbers of invalidations may begin anew.
func (t *Tracker) loseSession() {
	l := &t.loop
	t.log.Warn("the session is no longer in the store; opening another", "session", l.session.ID)
	l.lost, l.session, l.unsure = l.session, nil, nil
	l.known, l.reports = nil, nil
	for _, e := range l.held {
		for i := range e.kept {
			e.kept[i].judged = 0
		}
	}
}

// explainLoss finds out what became of the last session, and adds the gap that
// it leaves, if any.
func (t *Tracker) explainLoss(ctx context.Context, epoch string) error {
	l := &t.loop
	sessions, err := t.journal.Sessions(ctx)
	if err != nil {
		return err
	}
	g := journal.Gap{
		ID: "back-" + l.lost.ID, From: l.lost.Oldest, Until: t.clock.Now(),
		Cause: journal.CauseStoreBack, Recorder: t.opts.Name,
	}
	gaps, err := t.journal.Gaps(ctx)
	if err != nil {
		return err
	}
	listed := func(id string) bool {
		return slices.ContainsFunc(gaps, func(g *journal.Gap) bool { return g.ID == id })
	}
	for _, g := range l.said { // a store that goes back twice loses what was said of the first time
		if !listed(g.ID) {
			l.gaps = append(l.gaps, g)
		}
	}
	found := slices.IndexFunc(sessions, func(s *journal.Session) bool { return s.ID == l.lost.ID })
	switch {
	case found >= 0: // as far as the data goes back
		l.revived = sessions[found]
		g.From = l.revived.Flushed
	case epoch != l.epoch:
		g.Cause = journal.CauseStoreLost
	default:
		last, err := t.journal.Last(ctx)
		if err != nil {
			return err
		}
		dead := slices.ContainsFunc(gaps, func(g *journal.Gap) bool { return g.ID == l.lost.ID && g.Accepted != "" })
		if dead && last >= l.read {
			g.ID = "" // declared dead by a person: what was flushed is there
		}
	}
	if g.ID != "" {
		t.log.Error("the store lost data; the coverage has a gap", "cause", g.Cause, "from", g.From, "until", g.Until)
		if l.revived != nil {
			l.back = g // written once there is another session, or a death in between would go unseen
		} else {
			l.gaps = append(l.gaps, g)
		}
	}
	l.lost, l.read, l.readID = nil, 0, ""
	return nil
}

// finish ends the tracker cleanly, if it can before ctx is done.
func (t *Tracker) finish(ctx context.Context) error {
	l := &t.loop
	for told := false; ; {
		var err error
		wait := time.Duration(0)
		if !told {
			err, wait = t.round(ctx), t.rest()
			if wait == 0 && l.session == nil && l.opening == nil && l.lost == nil {
				return nil // never in touch with the store, and nothing to tell it
			}
			told = err == nil && wait == 0
		}
		if told {
			if err = t.journal.CloseSession(ctx, l.session); err == nil {
				t.log.Info("session closed", "session", l.session.ID)
				return nil
			}
			// Not another round after an unsure answer: it would miss the session.
			told = !errors.Is(err, journal.ErrSessionLost)
		}
		select {
		case <-time.After(max(wait, closePoll)):
			continue
		case <-ctx.Done():
		}
		s, session := t.Stats(), "none was opened"
		if l.session != nil {
			session = l.session.ID + " stays behind as a gap in the coverage"
		}
		return fmt.Errorf("cftrack: closed with %d paths not stored and %d requests running (session: %s): %w",
			s.Buffered, s.Running, session, errors.Join(context.Cause(ctx), err))
	}
}

// rest says in how long it is worth looking again whether all is told; 0 if it is.
func (t *Tracker) rest() time.Duration {
	l := &t.loop
	s := t.Stats()
	if s.Running > 0 || s.Buffered > 0 || len(l.reports) > 0 || len(l.gaps) > 0 || l.unsure != nil || l.revived != nil ||
		slices.ContainsFunc(l.known, func(k *known) bool { return !k.acked }) {
		return closePoll
	}
	wait := time.Duration(0)
	for _, e := range l.held {
		for _, sp := range e.kept {
			wait = max(wait, time.Duration(sp.end-t.now()+instant(t.opts.Margin)+instant(t.skew.Load())), closePoll)
		}
	}
	return wait
}

func random() string { return strings.ToLower(rand.Text()) }
