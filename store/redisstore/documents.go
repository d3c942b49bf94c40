// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"context"
	"crypto/rand"
	"strconv"
	"strings"

	"github.com/cf-invalidation-tracker/cftrack/store"
)

const (
	// A list is read in parts of so many documents or bytes.
	listDocuments = 256
	listBytes     = 1 << 20
	// listAttempts is how often the parts may turn out to be of different
	// moments before all is read at once.
	listAttempts = 4
)

func (d *distribution) documents() []string {
	return []string{d.meta(), d.tag + "documents", d.tag + "keys"}
}

// List implements [store.Store].
func (s *Store) List(ctx context.Context, distribution, prefix, after string, limit int) ([]store.Document, error) {
	const op = "list"
	if err := s.begin(ctx, op); err != nil {
		return nil, err
	}
	d := s.distribution(distribution)
	if err := s.contact(ctx, op, d); err != nil {
		return nil, err
	}
	lowest := "[" + prefix
	if after >= prefix {
		lowest = "(" + after
	}
	highest := "+"
	if end, ok := prefixEnd(prefix); ok {
		highest = "(" + end
	}
	for attempt := 1; ; attempt++ {
		docs, consistent, err := s.list(ctx, d, lowest, highest, limit, attempt == listAttempts)
		if err != nil || consistent {
			return docs, err
		}
	}
}

// prefixEnd returns the first string after all that begin with prefix; there is
// none after those that begin with 0xff alone.
func prefixEnd(prefix string) (string, bool) {
	for n := len(prefix); n > 0; n-- {
		if c := prefix[n-1]; c < 0xff {
			return prefix[:n-1] + string([]byte{c + 1}), true
		}
	}
	return "", false
}

// list reads part after part, or all at once; consistent is false if something
// was committed between the parts.
func (s *Store) list(ctx context.Context, d *distribution, lowest, highest string, limit int, whole bool) (docs []store.Document, consistent bool, err error) {
	const op = "list"
	const unlimited = 1 << 40
	version := ""
	for part := 0; ; part++ {
		before, life := d.state()
		n, bytes := listDocuments, listBytes
		if whole {
			n, bytes = unlimited, unlimited
		}
		if limit > 0 {
			n = min(n, limit-len(docs))
		}
		r, err := s.one(ctx, op, call{script: scripts.list, keys: d.documents(), args: []any{lowest, highest, n, bytes}})
		if err != nil {
			return nil, false, err
		}
		l := r.list()
		if len(l) < 4 {
			return nil, false, s.fault(op, errReply)
		}
		if r.at(0).int() < before {
			if err := s.lost(ctx, op, d, life); err != nil {
				return nil, false, err
			}
		}
		if r.at(2).int() == 1 {
			// A commit that changes nothing mends what can be, and says whether
			// it was the first to see it.
			if _, err := s.commit(ctx, op, d, store.Transaction{}); err != nil {
				return nil, false, err
			}
			return nil, false, nil
		}
		if v := r.at(1).string(); part == 0 {
			version = v
		} else if v != version {
			return nil, false, nil
		}
		for i := 4; i+1 < len(l); i += 2 {
			key := reply{l[i]}.string()
			v, value, ok := strings.Cut(reply{l[i+1]}.string(), ":")
			number, err := strconv.ParseUint(v, 10, 64)
			if !ok || err != nil {
				return nil, false, s.hinted(op, errReply, "the document "+strconv.Quote(key)+" was not written by cftrack")
			}
			docs = append(docs, store.Document{Key: key, Value: []byte(value), Version: number})
		}
		if r.at(3).int() == 0 || limit > 0 && len(docs) >= limit || len(docs) == 0 {
			return docs, true, nil
		}
		lowest = "(" + docs[len(docs)-1].Key
	}
}

// Commit implements [store.Store].
func (s *Store) Commit(ctx context.Context, distribution string, t store.Transaction) (uint64, error) {
	const op = "commit"
	if err := s.begin(ctx, op); err != nil {
		return 0, err
	}
	d := s.distribution(distribution)
	if err := s.contact(ctx, op, d); err != nil {
		return 0, err
	}
	version, err := s.commit(ctx, op, d, t)
	if err != nil {
		return 0, err
	}
	return version, s.register(ctx, op, d)
}

func (s *Store) commit(ctx context.Context, op string, d *distribution, t store.Transaction) (uint64, error) {
	// The name lets the script see that it has done this already, when the
	// answer is lost and run asks again.
	args := []any{rand.Text(), len(t.Require)}
	for _, r := range t.Require {
		args = append(args, r.Key, strconv.FormatUint(r.Version, 10))
	}
	args = append(args, len(t.Put))
	for _, p := range t.Put {
		args = append(args, p.Key, p.Value)
	}
	args = append(args, len(t.Delete))
	for _, k := range t.Delete {
		args = append(args, k)
	}
	calls := []call{{script: scripts.commit, keys: append(d.documents(), d.tag+"transactions"), args: args}}
	before, life := d.state()
	replies, err := s.run(ctx, op, calls)
	if err != nil {
		return 0, err
	}
	r := replies[0]
	if len(r.list()) != 3 {
		return 0, s.fault(op, errReply)
	}
	if r.at(1).string() == "" {
		if r.at(0).int() < before {
			if err := s.lost(ctx, op, d, life); err != nil {
				return 0, err
			}
		}
		return 0, s.fault(op, store.ErrConflict)
	}
	version, err := strconv.ParseUint(r.at(1).string(), 10, 64)
	if err != nil {
		return 0, s.fault(op, errReply)
	}
	if r.at(2).int() == 1 || r.at(0).int() < before {
		return version, s.lost(ctx, op, d, life)
	}
	d.saw(r.at(0).int(), life)
	return version, nil
}
