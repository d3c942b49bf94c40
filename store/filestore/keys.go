// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
)

// A key in Pebble is a kind, for entries, documents and versions followed by the
// distribution's name with its length before it, and the path or key as it is. So
// no name can reach into another, and the bytes' order is that of the paths.
const (
	kindDocument = 'd' // version, 8 bytes big-endian, then the value
	kindEntry    = 'e' // an encoded inventory.Record, the only kind that is merged
	kindMeta     = 'm' // "epoch"
	kindRecent   = 't' // a number, 8 bytes big-endian, to a finished transaction
	kindVersion  = 'v' // the distribution's latest version, 8 bytes big-endian
)

// prefix returns what the keys of a kind begin with in a distribution. It is
// clipped, so that appending to it copies.
func prefix(kind byte, distribution string) []byte {
	b := append(make([]byte, 0, 8+len(distribution)), kind)
	b = binary.AppendUvarint(b, uint64(len(distribution)))
	b = append(b, distribution...)
	return b[:len(b):len(b)]
}

// after returns the first key beyond all that begin with b, which begins with a
// kind.
func after(b []byte) []byte {
	for n := len(b); ; n-- {
		if b[n-1] != 0xff {
			end := append([]byte(nil), b[:n]...)
			end[n-1]++
			return end
		}
	}
}

// merger merges records. Its name is kept in the database: other rules of
// merging need another name.
var merger = &pebble.Merger{
	Name: "cftrack.inventory.1",
	Merge: func(_, value []byte) (pebble.ValueMerger, error) {
		m := merges.Get().(*merge)
		m.record = append(m.record[:0], value...)
		return m, nil
	},
}

var merges = sync.Pool{New: func() any { return &merge{record: make([]byte, 0, 64)} }}

// A merge collects operands; their order does not matter.
type merge struct{ record []byte }

var _ interface {
	pebble.ValueMerger
	io.Closer
} = (*merge)(nil)

func (m *merge) MergeNewer(value []byte) (err error) {
	m.record, err = inventory.MergeEncoded(m.record, value)
	return err
}

func (m *merge) MergeOlder(value []byte) error { return m.MergeNewer(value) }

func (m *merge) Finish(bool) ([]byte, io.Closer, error) { return m.record, m, nil }

// Close takes the merge back, once Pebble needs its result no more.
func (m *merge) Close() error {
	merges.Put(m)
	return nil
}

// stored splits the value of a document.
func stored(key string, b []byte) (version uint64, value []byte, err error) {
	if len(b) < 8 {
		return 0, nil, fmt.Errorf("document %q is corrupt: %d bytes", key, len(b))
	}
	return binary.BigEndian.Uint64(b), b[8:], nil
}
