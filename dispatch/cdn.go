// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"context"
	"fmt"
	"iter"
	"time"
)

// A CDN takes invalidations. Package awscloudfront has the one that talks to
// Amazon CloudFront; tests use it against package simulator.
//
// Errors are [*Error]; any other error counts as [NoAnswer]. A CDN does not
// retry: the dispatcher does, knowing what was saved.
type CDN interface {
	// CreateInvalidation sends one batch. The same reference with the same
	// items again MUST return the first invalidation and create nothing.
	CreateInvalidation(ctx context.Context, distribution, reference string, items []string) (Receipt, error)
	// GetInvalidation says whether every edge has processed an invalidation.
	GetInvalidation(ctx context.Context, distribution, id string) (Receipt, error)
	// FindInvalidation looks for the invalidation of a reference among those
	// created since then; ok is false if there is none.
	FindInvalidation(ctx context.Context, distribution, reference string, since time.Time) (r Receipt, ok bool, err error)
	// SentSince yields the invalidations created since then, by whomever, the
	// newest first, without those whose IDs known knows. An error is yielded in
	// place of an invalidation; what follows it may still come.
	SentSince(ctx context.Context, distribution string, since time.Time, known func(id string) bool) iter.Seq2[Sent, error]
}

// Sent is an invalidation that the CDN has.
type Sent struct {
	Receipt
	Reference string
	Items     []string
	Created   time.Time // by the CDN's clock
}

// A Receipt is what the CDN says of an invalidation.
type Receipt struct {
	ID        string
	Completed bool
	// Others and Wildcards count its items; zero where the CDN does not say.
	Others, Wildcards int
}

// A Kind says what an error of a CDN means for the sender.
type Kind uint8

// The kinds of errors. After the first four the same call may succeed later;
// the others are answers that the CDN must repeat.
const (
	// NoAnswer: whether the call took effect is not known.
	NoAnswer Kind = iota
	// Unavailable: the CDN has trouble of its own (5xx).
	Unavailable
	// Throttled: too many calls.
	Throttled
	// Busy: too many invalidations in progress.
	Busy

	// BadItem: at least one item of the batch is refused, and so is the batch.
	BadItem
	// TooLarge: the batch has too many items.
	TooLarge
	// Denied: the caller lacks a permission.
	Denied
	// BadCredentials: there are none, or they are wrong or expired.
	BadCredentials
	// NoDistribution: the CDN does not know the distribution.
	NoDistribution
	// NoInvalidation: the CDN does not know the invalidation (yet).
	NoInvalidation
	// ReferenceUsed: the reference was used before with other items.
	ReferenceUsed
	// Refused: anything else that the CDN says no to.
	Refused
)

// Passing reports whether the same call may succeed later.
func (k Kind) Passing() bool { return k <= Busy }

// An Error is a CDN's answer, in its own words, and what to do about it.
type Error struct {
	Kind    Kind
	Code    string // the CDN's own, such as "TooManyInvalidationsInProgress"
	Message string // the CDN's own
	Hint    string
	Err     error
}

func (e *Error) Error() string {
	switch {
	case e.Code == "" && e.Err != nil:
		return e.Err.Error()
	case e.Message == "":
		return e.Code
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Message)
}

func (e *Error) Unwrap() error { return e.Err }
