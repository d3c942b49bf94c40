// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/store"
)

// PresumedDead is how long a lost recorder has to be silent, at least, before its
// gap closes by waiting: this, or the longest lifetime if that is more. Until then
// it may be cut off and still serve what nobody else can know of, so that nothing
// but its return or [Journal.Accept] closes its gap.
const PresumedDead = 24 * time.Hour

// A Gap is a stretch of time in which sightings may be missing.
type Gap struct {
	ID       string    `json:"id"`
	From     time.Time `json:"from"`
	Until    time.Time `json:"until,omitzero"` // zero: still open
	Cause    string    `json:"cause"`
	Recorder string    `json:"recorder"`
	// Accepted says why a person declared that it does not matter, AcceptedBy
	// who that was.
	Accepted   string    `json:"accepted,omitempty"`
	AcceptedBy string    `json:"accepted_by,omitempty"`
	AcceptedAt time.Time `json:"accepted_at,omitzero"`
	// Left is set where the gap takes the place of a session.
	Left *Left `json:"left,omitempty"`
	// Silent is since when the lost recorder of a gap that is not written down
	// has not been heard of.
	Silent time.Time `json:"-"`

	version uint64
}

// A Left is what a session left unsaid: it acknowledged the invalidations up to
// Acked and those in AckedAlso. Through is the last one that had been opened by
// the time that the gap took its place.
type Left struct {
	Acked     uint64   `json:"acked"`
	AckedAlso []uint64 `json:"acked_also,omitempty"`
	Through   uint64   `json:"through"`
}

// Causes of gaps.
const (
	CauseLost       = "recorder-lost"   // a session ended without closing
	CauseBehind     = "recorder-behind" // a session that was lost is back and has not caught up
	CauseFull       = "buffer-full"     // a recorder could not hold what it sighted
	CauseStoreLost  = "store-lost-data" // the store came back empty
	CauseStoreBack  = "store-went-back" // the store came back with older data
	CauseStoreEvict = "store-may-evict" // the store drops data when memory is short
)

// Owes reports whether the gap took the place of a session before that one
// acknowledged invalidation n: what its recorder had flushed by then has to be
// looked for, as for any lost session.
func (g *Gap) Owes(n uint64) bool {
	return g.Left != nil && n <= g.Left.Through && n > g.Left.Acked && !slices.Contains(g.Left.AckedAlso, n)
}

// gap is what a lost session leaves, as far as one can know at now. It is what was not
// flushed; of one that came back after an invalidation had ended without it, and was
// lost again before it had caught up, also what was flushed and not reported.
func (s *Session) gap(now time.Time, longest time.Duration, invs []*Invalidation) Gap {
	g := Gap{ID: s.ID, From: s.Flushed, Cause: CauseLost, Recorder: s.Recorder, Silent: s.Renewed.Add(s.Lease)}
	if s.Oldest.Before(g.From) && s.behind(invs, s.Renewed) {
		g.From = s.Oldest
	}
	if now.Sub(g.Silent) >= max(PresumedDead, longest) {
		g.Until = g.Silent
	}
	return g
}

// Gaps returns the gaps that were written down. Lost sessions are gaps too;
// [Journal.Coverage] shows both.
func (j *Journal) Gaps(ctx context.Context) ([]*Gap, error) {
	var out []*Gap
	err := each(ctx, j, dirGaps, "", func(g *Gap, v uint64, _ string) {
		g.version = v
		out = append(out, g)
	})
	return out, err
}

// PutGaps writes gaps down.
func (j *Journal) PutGaps(ctx context.Context, gaps ...Gap) error {
	var puts []store.Put
	for _, g := range gaps {
		puts = append(puts, put(dirGaps+g.ID, g))
	}
	_, err := j.commit(ctx, nil, puts...)
	return err
}

// Supersede puts a gap in the place of a session that a store which went back in
// time has brought back, in one write: its recorder has another session by now, and
// does not know any more what it had acknowledged and reported since. old is the
// session as it was read. If it is gone, or not as it was, nothing happens.
func (j *Journal) Supersede(ctx context.Context, old *Session, g Gap) error {
	for {
		var h head
		hv, err := j.get(ctx, keyHead, &h)
		if err != nil {
			return err
		}
		g.ID = old.ID
		g.Left = &Left{Acked: old.Acked, AckedAlso: old.AckedAlso, Through: h.Number}
		t := j.replace(old.ID, old.version, hv)
		t.Put = []store.Put{put(dirGaps+g.ID, g)}
		_, err = j.store.Commit(ctx, j.dist, t)
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
		if v, err := j.get(ctx, dirSessions+old.ID, new(Session)); err != nil || v != old.version {
			return err
		}
	}
}

// replace deletes a session whose gap counts the invalidations up to the head: none
// may be opened meanwhile.
func (j *Journal) replace(id string, session, head uint64) store.Transaction {
	return store.Transaction{
		Require: []store.Requirement{{Key: keyHead, Version: head}, {Key: dirSessions + id, Version: session}},
		Delete:  []string{dirSessions + id},
	}
}

// Why [Journal.Accept] declines.
var (
	// ErrNoGap: there is neither a gap nor a session of that ID.
	ErrNoGap = errors.New("journal: no such gap")
	// ErrLive: the session of that ID is in touch with the store; it has no gap.
	ErrLive = errors.New("journal: the recorder is running")
	// ErrAccepted: somebody accepted the gap before; the reason given then stays.
	ErrAccepted = errors.New("journal: the gap was accepted before")
	// ErrStanding: the cause of the gap goes on, and so would the gap.
	ErrStanding = errors.New("journal: the gap lasts as long as its cause")
)

// Accept records that a person, by, takes the gap of that ID not to matter, and
// why, at now in store time. The ID of a lost session declares its recorder dead:
// a gap takes the session's place, in one write. If the recorder returns all the
// same it opens another session, catches up, and knows by the gap that nothing
// was lost.
//
// With [ErrAccepted] it returns the gap as it was accepted. A gap that its
// recorder lengthens afterwards is open again.
func (j *Journal) Accept(ctx context.Context, id, reason, by string, now time.Time) (*Gap, error) {
	for {
		g, err := j.accept(ctx, id, reason, by, now)
		if !errors.Is(err, store.ErrConflict) {
			return g, err
		}
	}
}

func (j *Journal) accept(ctx context.Context, id, reason, by string, now time.Time) (*Gap, error) {
	if id == CauseStoreEvict {
		return nil, fmt.Errorf("%w: %s", ErrStanding, id)
	}
	g := new(Gap)
	var t store.Transaction
	gv, err := j.get(ctx, dirGaps+id, g)
	switch {
	case err != nil:
		return nil, err
	case gv != 0 && g.Accepted != "":
		return g, ErrAccepted
	case gv == 0:
		var s Session
		sv, err := j.get(ctx, dirSessions+id, &s)
		switch {
		case err != nil:
			return nil, err
		case sv == 0 || id == "":
			return nil, fmt.Errorf("%w: %q in distribution %s", ErrNoGap, id, j.dist)
		case !s.Lost(now):
			return nil, fmt.Errorf("%w: %s, session %s", ErrLive, s.Recorder, id)
		}
		var h head
		hv, err := j.get(ctx, keyHead, &h)
		if err != nil {
			return nil, err
		}
		invs, err := j.Invalidations(ctx, 0)
		if err != nil {
			return nil, err
		}
		*g = s.gap(now, 0, invs)
		g.Until = now
		g.Left = &Left{Acked: s.Acked, AckedAlso: s.AckedAlso, Through: h.Number}
		t = j.replace(id, sv, hv)
	}
	g.Accepted, g.AcceptedBy, g.AcceptedAt = reason, by, now
	t.Require = append(t.Require, store.Requirement{Key: dirGaps + id, Version: gv})
	t.Put = []store.Put{put(dirGaps+id, g)}
	_, err = j.store.Commit(ctx, j.dist, t)
	return g, err
}
