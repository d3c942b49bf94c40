// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package journaltest

import (
	"errors"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/journal"
)

func aGapIsAccepted(t *testing.T, j *journal.Journal) {
	full := journal.Gap{ID: "full-1", From: T0, Until: T0.Add(time.Minute), Cause: journal.CauseFull, Recorder: "web"}
	if err := j.PutGaps(t.Context(), full); err != nil {
		t.Fatal(err)
	}
	at := T0.Add(time.Hour)
	g, err := j.Accept(t.Context(), "full-1", "imported the logs", "ada", at)
	if err != nil || g.Accepted != "imported the logs" || g.AcceptedBy != "ada" || !g.AcceptedAt.Equal(at) ||
		!g.From.Equal(full.From) || !g.Until.Equal(full.Until) || g.Cause != full.Cause {
		t.Fatalf("%+v, %v", g, err)
	}
	g, err = j.Accept(t.Context(), "full-1", "another reason", "bob", at.Add(time.Hour))
	if !errors.Is(err, journal.ErrAccepted) || g.Accepted != "imported the logs" || g.AcceptedBy != "ada" {
		t.Fatalf("accepted twice: %+v, %v", g, err)
	}
	gaps, err := j.Gaps(t.Context())
	if err != nil || len(gaps) != 1 || gaps[0].Accepted != "imported the logs" {
		t.Fatalf("%+v, %v", gaps, err)
	}
	for id, want := range map[string]error{
		"full-2": journal.ErrNoGap, "": journal.ErrNoGap, "full": journal.ErrNoGap, journal.CauseStoreEvict: journal.ErrStanding,
	} {
		if _, err := j.Accept(t.Context(), id, "why", "ada", at); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", id, err, want)
		}
	}

	// The recorder goes on losing: what was accepted was less.
	full.Until = T0.Add(2 * time.Hour)
	if err := j.PutGaps(t.Context(), full); err != nil {
		t.Fatal(err)
	}
	if g, err := j.Accept(t.Context(), "full-1", "more logs", "bob", at); err != nil || g.AcceptedBy != "bob" {
		t.Errorf("a gap that grew: %+v, %v", g, err)
	}
}

func aDeadRecorderLeavesAGap(t *testing.T, j *journal.Journal) {
	first, second := Create(t, j, "/a"), Create(t, j, "/b")
	s := Session(t, j, "s1", T0)
	s.Ack(second.Number)
	if err := j.Renew(t.Context(), s, T0.Add(time.Second), nil, nil); err != nil {
		t.Fatal(err)
	}
	lostAt := T0.Add(11 * time.Second)
	if _, err := j.Accept(t.Context(), "s1", "why", "ada", lostAt); !errors.Is(err, journal.ErrLive) {
		t.Fatalf("a live recorder was declared dead: %v", err)
	}
	now := lostAt.Add(time.Second)
	g, err := j.Accept(t.Context(), "s1", "killed", "ada", now)
	if err != nil || g.ID != "s1" || g.Cause != journal.CauseLost || !g.From.Equal(s.Flushed) || !g.Until.Equal(now) || g.Accepted != "killed" {
		t.Fatalf("%+v, %v", g, err)
	}
	if all, err := j.Sessions(t.Context()); err != nil || len(all) != 0 {
		t.Fatalf("the session is still there: %+v, %v", all, err)
	}
	third := Create(t, j, "/c")
	gaps, err := j.Gaps(t.Context())
	if err != nil || len(gaps) != 1 {
		t.Fatalf("%+v, %v", gaps, err)
	}
	for inv, owes := range map[*journal.Invalidation]bool{first: true, second: false, third: false} {
		if gaps[0].Owes(inv.Number) != owes {
			t.Errorf("it owes %s: %v", inv.ID, !owes)
		}
	}
	if err := j.Renew(t.Context(), s, now, nil, nil); !errors.Is(err, journal.ErrSessionLost) {
		t.Errorf("a recorder that was declared dead went on: %v", err)
	}
	if _, err := j.Accept(t.Context(), "s1", "again", "bob", now); !errors.Is(err, journal.ErrAccepted) {
		t.Errorf("declared dead twice: %v", err)
	}
}
