// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"context"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/store"
)

// An Account is what the distributions of one AWS account share: how much may be
// sent, and what was spent. It is data; package dispatch decides over it.
type Account struct {
	// At is the instant that the tokens were counted at.
	At time.Time `json:"at"`
	// Items are tokens for items of any kind, Wildcards for wildcards besides,
	// Calls for calls of the API.
	Items     Allowance `json:"items"`
	Wildcards Allowance `json:"wildcards"`
	Calls     Allowance `json:"calls"`

	// Month is the calendar month, in UTC, that Sent counts the items of.
	Month string `json:"month,omitempty"`
	Sent  int    `json:"sent,omitempty"`
	// Promised are items that plans have been admitted with and that are not in
	// Sent yet, by distribution and invalidation.
	Promised map[string]int `json:"promised,omitempty"`

	version uint64
}

// Known reports whether the account was ever written.
func (a *Account) Known() bool { return a.version != 0 }

// An Allowance is a number of tokens, and what refusals have taught of the rate
// that they come at.
type Allowance struct {
	Tokens float64 `json:"tokens"`
	Learned
}

// Learned is how much of a configured limit CloudFront was last seen to accept.
type Learned struct {
	// Share of the limit, over 0 to 1; 0 is the same as 1.
	Share float64 `json:"share,omitempty"`
	// Since is when Share changed last, and Hold how long it stays before more is
	// tried.
	Since time.Time     `json:"since,omitzero"`
	Hold  time.Duration `json:"hold,omitempty"`
	// Trying: the last change was up.
	Trying bool `json:"trying,omitempty"`
}

// Windows are what may be in progress for a distribution, as far as refusals
// have taught.
type Windows struct {
	Items     Learned `json:"items"`
	Wildcards Learned `json:"wildcards"`
	// Entries is what has yet to be paid off of the entries that were invalidated,
	// at EntriesAt.
	Entries   float64   `json:"entries,omitempty"`
	EntriesAt time.Time `json:"entries_at,omitzero"`
}

// The key space of what concerns an account is that of no distribution.
const (
	accountSpace = ""
	dirAccounts  = "account/"
)

// ReadAccount returns what is known of an account; one that was never written is
// zero and not [Account.Known].
func (j *Journal) ReadAccount(ctx context.Context, name string) (*Account, error) {
	key := dirAccounts + name
	a := new(Account)
	docs, err := j.store.List(ctx, accountSpace, key, "", 1)
	if err != nil || len(docs) == 0 || docs[0].Key != key {
		return a, err
	}
	a.version = docs[0].Version
	return a, decode(docs[0], a)
}

// WriteAccount writes an account that was read, unless somebody else has since:
// then it returns [store.ErrConflict]. It is not under a lease, which belongs to a
// distribution.
func (j *Journal) WriteAccount(ctx context.Context, name string, a *Account) error {
	key := dirAccounts + name
	v, err := j.store.Commit(ctx, accountSpace, store.Transaction{
		Require: []store.Requirement{{Key: key, Version: a.version}}, Put: []store.Put{put(key, a)}})
	if err == nil {
		a.version = v
	}
	return err
}

// Windows returns what has been learned of what may be in progress.
func (j *Journal) Windows(ctx context.Context) (*Windows, error) {
	w := new(Windows)
	_, err := j.get(ctx, keyWindows, w)
	return w, err
}

// PutWindows writes what has been learned.
func (l *Lease) PutWindows(ctx context.Context, w *Windows) error {
	return l.commit(ctx, store.Transaction{Put: []store.Put{put(keyWindows, w)}}, nil)
}
