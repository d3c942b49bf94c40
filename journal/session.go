// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/store"
)

// A Session is one running instance of a recorder. It is renewed every second;
// one that is not renewed within its lease is lost, not ended: what it had not
// flushed is a gap in the coverage.
type Session struct {
	ID       string `json:"id"`
	Recorder string `json:"recorder"` // for people: program, host, process
	// Opened is when it began; Oldest the oldest start of a response it holds.
	Opened time.Time `json:"opened"`
	Oldest time.Time `json:"oldest"`
	// Flushed is the instant before which everything it sighted is acknowledged.
	Flushed time.Time     `json:"flushed"`
	Renewed time.Time     `json:"renewed"`
	Lease   time.Duration `json:"lease"`
	// Renewals counts: a store that went back in time shows by it.
	Renewals uint64 `json:"renewals"`
	// Acked: all invalidations up to this number are acknowledged, and those in
	// AckedAlso.
	Acked     uint64   `json:"acked"`
	AckedAlso []uint64 `json:"acked_also,omitempty"`
	// Scope and Longest are what the recorder sees, and the longest lifetime
	// that its rules give.
	Scope   []string      `json:"scope,omitempty"`
	Longest time.Duration `json:"longest"`

	version uint64
}

// Lost reports whether at now the session was not renewed in time.
func (s *Session) Lost(now time.Time) bool { return now.After(s.Renewed.Add(s.Lease)) }

// HasAcked reports whether the session acknowledged invalidation n.
func (s *Session) HasAcked(n uint64) bool { return n <= s.Acked || slices.Contains(s.AckedAlso, n) }

// Ack adds invalidation n to those acknowledged; first is the number of the
// first invalidation that may be missing from them.
func (s *Session) Ack(n uint64) {
	if s.HasAcked(n) {
		return
	}
	s.AckedAlso = append(s.AckedAlso, n)
	slices.Sort(s.AckedAlso)
	for len(s.AckedAlso) > 0 && s.AckedAlso[0] == s.Acked+1 {
		s.Acked++
		s.AckedAlso = s.AckedAlso[1:]
	}
}

// A Tracking is since when there have been recorders.
type Tracking struct {
	Since time.Time `json:"since"`
	// Longest is the longest lifetime that any session ever stated.
	Longest time.Duration `json:"longest,omitempty"`
}

// OpenSession makes a session known. It fills Opened and Renewed with now, and
// Flushed unless that is set and earlier: what was sighted since then dies with the
// recorder. It acknowledges nothing: the recorder judges every invalidation that may
// concern what it holds. A first session also begins the tracking. What the recorder
// knows of gaps is written with it, so that no session is without them.
func (j *Journal) OpenSession(ctx context.Context, s *Session, now time.Time, gaps ...Gap) error {
	s.Opened, s.Renewed, s.Renewals = now, now, 1
	if s.Flushed.IsZero() || s.Flushed.After(now) {
		s.Flushed = now
	}
	if s.Oldest.IsZero() || s.Oldest.After(now) {
		s.Oldest = now
	}
	for {
		var tr Tracking
		tv, err := j.get(ctx, keyTrack, &tr)
		if err != nil {
			return err
		}
		puts := []store.Put{put(dirSessions+s.ID, s)}
		for _, g := range gaps {
			puts = append(puts, put(dirGaps+g.ID, g))
		}
		if tv == 0 {
			tr.Since = now
		}
		if tv == 0 || s.Longest > tr.Longest {
			tr.Longest = max(tr.Longest, s.Longest)
			puts = append(puts, put(keyTrack, tr))
		}
		v, err := j.commit(ctx, []store.Requirement{
			{Key: keyTrack, Version: tv}, {Key: dirSessions + s.ID}}, puts...)
		if errors.Is(err, store.ErrConflict) {
			// The tracking began, or this very session was opened by an attempt
			// whose answer was lost.
			var old Session
			if ov, err := j.get(ctx, dirSessions+s.ID, &old); err != nil {
				return err
			} else if ov != 0 {
				s.version = ov
				return nil
			}
			continue
		}
		if err != nil {
			return err
		}
		s.version = v
		return nil
	}
}

// ErrSessionLost: the session is not in the store as this recorder left it: the
// store lost data, or somebody declared the recorder dead.
var ErrSessionLost = errors.New("journal: the session is not as it was left")

// Renew writes the session as it is, together with reports and gaps. If the
// session in the store is not the one last written it returns [ErrSessionLost].
func (j *Journal) Renew(ctx context.Context, s *Session, now time.Time, reports []Report, gaps []Gap) error {
	next := *s
	next.Renewed = now
	next.Renewals++
	key := dirSessions + s.ID
	puts := []store.Put{put(key, &next)}
	puts = append(puts, reportPuts(reports, fmt.Sprintf("%s/%d", s.ID, next.Renewals))...)
	for _, g := range gaps {
		puts = append(puts, put(dirGaps+g.ID, g))
	}
	v, err := j.commit(ctx, []store.Requirement{{Key: key, Version: s.version}}, puts...)
	if errors.Is(err, store.ErrConflict) {
		var cur Session
		switch cv, e := j.get(ctx, key, &cur); {
		case e != nil:
			return e
		case cv != 0 && cur.Renewals == next.Renewals && cur.Renewed.Equal(next.Renewed):
			v = cv // the answer to an earlier attempt was lost
		default:
			return ErrSessionLost
		}
	} else if err != nil {
		return err
	}
	next.version = v
	*s = next
	return nil
}

// CloseSession ends a session cleanly: it leaves no gap.
func (j *Journal) CloseSession(ctx context.Context, s *Session) error {
	_, err := j.store.Commit(ctx, j.dist, store.Transaction{
		Require: []store.Requirement{{Key: dirSessions + s.ID, Version: s.version}},
		Delete:  []string{dirSessions + s.ID},
	})
	if errors.Is(err, store.ErrConflict) {
		if v, e := j.get(ctx, dirSessions+s.ID, new(Session)); e != nil || v == 0 {
			return e // already gone
		}
		return ErrSessionLost
	}
	return err
}

// Sessions returns all sessions that were opened and not closed, lost ones too.
func (j *Journal) Sessions(ctx context.Context) ([]*Session, error) {
	var out []*Session
	err := each(ctx, j, dirSessions, "", func(s *Session, v uint64, _ string) {
		s.version = v
		out = append(out, s)
	})
	return out, err
}

// A Report is a sighting that may hold content from before the cut of an
// invalidation, as its recorder judges it by path alone.
type Report struct {
	Invalidation uint64    `json:"-"`
	Path         string    `json:"path"`
	Start        time.Time `json:"start"`
	End          time.Time `json:"end"`
	Tags         []string  `json:"tags,omitempty"`
}

// PutReports writes the reports of a source that has no session (an importer),
// under a name that makes repeating them harmless.
func (j *Journal) PutReports(ctx context.Context, name string, reports []Report) error {
	puts := reportPuts(reports, name)
	if len(puts) == 0 {
		return nil
	}
	_, err := j.commit(ctx, nil, puts...)
	return err
}

// PutReports writes the reports that a dispatcher makes in place of recorders that
// died. It knows of them, so they are not marked as unread.
func (l *Lease) PutReports(ctx context.Context, name string, reports []Report) error {
	puts := slices.DeleteFunc(reportPuts(reports, name), func(p store.Put) bool {
		return strings.HasPrefix(p.Key, dirUnread)
	})
	return l.commit(ctx, store.Transaction{Put: puts}, nil)
}

// reportPuts writes reports, and beside them a mark for each invalidation that
// they concern, so that a dispatcher sees them without reading all.
func reportPuts(reports []Report, name string) []store.Put {
	m := make(map[uint64][]Report)
	for _, r := range reports {
		m[r.Invalidation] = append(m[r.Invalidation], r)
	}
	var puts []store.Put
	for n, rs := range m {
		puts = append(puts, put(dirReports+number(n)+"/"+name, rs), put(dirUnread+number(n), name))
	}
	return puts
}

// Unread returns the numbers of the invalidations that reports came in for since
// they were last marked as read, with the version of the mark.
func (j *Journal) Unread(ctx context.Context) (map[uint64]uint64, error) {
	m := make(map[uint64]uint64)
	err := each(ctx, j, dirUnread, "", func(_ *string, v uint64, key string) {
		n, _ := strconv.ParseUint(key[len(dirUnread):], 16, 64) // a key we wrote
		m[n] = v
	})
	return m, err
}

// MarkRead takes the mark of that version away; a newer one stays.
func (l *Lease) MarkRead(ctx context.Context, n, version uint64) error {
	key := dirUnread + number(n)
	err := l.commit(ctx, store.Transaction{
		Require: []store.Requirement{{Key: key, Version: version}}, Delete: []string{key}}, nil)
	if errors.Is(err, store.ErrConflict) {
		return nil
	}
	return err
}

// Reports returns what was reported to invalidation n.
func (j *Journal) Reports(ctx context.Context, n uint64) ([]Report, error) {
	var out []Report
	err := each(ctx, j, dirReports+number(n)+"/", "", func(rs *[]Report, _ uint64, _ string) {
		for _, r := range *rs {
			r.Invalidation = n
			out = append(out, r)
		}
	})
	return out, err
}
