// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/store"
)

// A FixedPlan names the plan file whose items an invalidation sends, no more and
// no fewer. What the file says stands in documents of its own: see [Fixed].
type FixedPlan struct {
	// Hash is that of the file, "sha256:" and 64 digits. Equal plans share documents.
	Hash string `json:"hash"`
	// Cut is when the plan was made, not the cut of the invalidation.
	Cut   time.Time `json:"cut"`
	Items int       `json:"items"`
	Parts int       `json:"parts"`
}

// Fixed is what a plan file says that an invalidation is bound to.
type Fixed struct {
	Items []string `json:"items,omitempty"` // in the order in which they go out
	// Collateral are the paths that the items reach and nobody selected.
	Collateral []string  `json:"collateral,omitempty"`
	Uncovered  []Refusal `json:"uncovered,omitempty"`
}

// partSize bounds a document, in bytes of its texts: a store may limit values
// to some hundred kilobytes.
const partSize = 128 << 10

// parts cuts f into documents.
func (f *Fixed) parts() []*Fixed {
	var out []*Fixed
	var cur *Fixed
	size := 0
	add := func(n int) *Fixed {
		if cur == nil || size+n > partSize {
			cur, size = &Fixed{}, 0
			out = append(out, cur)
		}
		size += n
		return cur
	}
	for _, it := range f.Items {
		p := add(len(it))
		p.Items = append(p.Items, it)
	}
	for _, c := range f.Collateral {
		p := add(len(c))
		p.Collateral = append(p.Collateral, c)
	}
	for _, u := range f.Uncovered {
		p := add(len(u.Item) + len(u.Reason) + len(u.Remedy))
		p.Uncovered = append(p.Uncovered, u)
	}
	return out
}

func (p *FixedPlan) key(part int) string { return fmt.Sprintf("%s%s/%06d", dirFixed, p.Hash, part) }

// CreateFixed is [Journal.Create] for an invalidation that is bound to f; it
// fills inv.Fixed.Items and Parts. The documents are written first: a crash in
// between leaves documents that nothing refers to.
func (j *Journal) CreateFixed(ctx context.Context, inv *Invalidation, f *Fixed, now time.Time, random string) error {
	parts := f.parts()
	inv.Fixed.Items, inv.Fixed.Parts = len(f.Items), len(parts)
	for {
		require, err := writeParts(ctx, j, parts, inv.Fixed.key)
		if err != nil {
			return err
		}
		if err := j.create(ctx, inv, now, random, require); !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

// Fixed reads what a fixed plan says.
func (j *Journal) Fixed(ctx context.Context, p *FixedPlan) (*Fixed, error) {
	f, parts := &Fixed{}, 0
	err := each(ctx, j, dirFixed+p.Hash+"/", "", func(part *Fixed, _ uint64, _ string) {
		if parts++; parts > p.Parts {
			return
		}
		f.Items = append(f.Items, part.Items...)
		f.Collateral = append(f.Collateral, part.Collateral...)
		f.Uncovered = append(f.Uncovered, part.Uncovered...)
	})
	if err == nil && (parts < p.Parts || len(f.Items) != p.Items) {
		err = fmt.Errorf("journal: the plan %s has %d items here, not %d: the store has lost documents; send the plan file again",
			p.Hash, len(f.Items), p.Items)
	}
	return f, err
}
