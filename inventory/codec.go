// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

// The encoding of a record, big-endian, so that a script inside a store can
// merge two of them with byte arithmetic alone:
//
//	offset  bytes
//	0       1      flags
//	1       6      Last
//	7       6      Expires
//	13      4      Hits, saturating
//	17      18     only with flagClaims: Removed, TTLAt, TTL, 6 each
//	        2      only with flagTags: number of tags, then for each
//	        2+n    its length and bytes
const (
	flagTags   = 1 << 0
	flagMixed  = 1 << 1
	flagFolded = 1 << 2
	flagClaims = 1 << 3

	headSize  = 17
	claimSize = 18
)

// MaxTag is the longest tag the encoding holds, in bytes.
const MaxTag = math.MaxUint16

var errCorrupt = errors.New("inventory: record is corrupt")

// Append appends the encoding of r to dst. Tags beyond MaxTag bytes or 65,535
// in number are left out and the record is marked Mixed: less is known of it,
// nothing false is said.
func (r *Record) Append(dst []byte) []byte {
	var flags byte
	tags, mixed := r.Tags, r.Mixed
	if len(tags) > math.MaxUint16 || slices.ContainsFunc(tags, tooLong) {
		tags = slices.DeleteFunc(slices.Clone(tags), tooLong)
		tags, mixed = tags[:min(len(tags), math.MaxUint16)], true
	}
	if len(tags) > 0 {
		flags |= flagTags
	}
	if mixed {
		flags |= flagMixed
	}
	if r.Folded {
		flags |= flagFolded
	}
	if r.Removed != 0 || r.TTLAt != 0 {
		flags |= flagClaims
	}
	dst = append(dst, flags)
	dst = append48(dst, r.Last)
	dst = append48(dst, r.Expires)
	dst = binary.BigEndian.AppendUint32(dst, uint32(min(r.Hits, math.MaxUint32)))
	if flags&flagClaims != 0 {
		dst = append48(dst, r.Removed)
		dst = append48(dst, r.TTLAt)
		dst = append48(dst, r.TTL)
	}
	if flags&flagTags != 0 {
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(tags)))
		for _, t := range tags {
			dst = binary.BigEndian.AppendUint16(dst, uint16(len(t)))
			dst = append(dst, t...)
		}
	}
	return dst
}

func tooLong(t string) bool { return len(t) > MaxTag }

// Decode reads what Append wrote. It keeps no reference to b.
func (r *Record) Decode(b []byte) error {
	if len(b) < headSize {
		return fmt.Errorf("%w: %d bytes, need %d", errCorrupt, len(b), headSize)
	}
	flags := b[0]
	*r = Record{
		Last: get48(b[1:]), Expires: get48(b[7:]), Hits: uint64(binary.BigEndian.Uint32(b[13:])),
		Mixed: flags&flagMixed != 0, Folded: flags&flagFolded != 0,
	}
	b = b[headSize:]
	if flags&flagClaims != 0 {
		if len(b) < claimSize {
			return fmt.Errorf("%w: claims cut short", errCorrupt)
		}
		r.Removed, r.TTLAt, r.TTL = get48(b), get48(b[6:]), get48(b[12:])
		b = b[claimSize:]
	}
	if flags&flagTags != 0 {
		if len(b) < 2 {
			return fmt.Errorf("%w: tags cut short", errCorrupt)
		}
		n := int(binary.BigEndian.Uint16(b))
		b = b[2:]
		if n*2 > len(b) {
			return fmt.Errorf("%w: %d tags in %d bytes", errCorrupt, n, len(b))
		}
		r.Tags = make([]string, n)
		for i := range r.Tags {
			if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
				return fmt.Errorf("%w: tag %d cut short", errCorrupt, i)
			}
			l := int(binary.BigEndian.Uint16(b))
			r.Tags[i] = string(b[2 : 2+l])
			b = b[2+l:]
		}
	}
	if len(b) != 0 {
		return fmt.Errorf("%w: %d bytes too many", errCorrupt, len(b))
	}
	return nil
}

// MergeEncoded merges the encoded record b into the encoded record a, in place
// where it can, and returns the result. It is Merge for stores that keep
// encodings: the common case, neither tags nor claims, allocates nothing.
func MergeEncoded(a, b []byte) ([]byte, error) {
	const plain = flagMixed | flagFolded
	if len(a) == headSize && len(b) == headSize && (a[0]|b[0])&^plain == 0 &&
		get48(a[1:]) != 0 && get48(b[1:]) != 0 {
		a[0] |= b[0]
		put48(a[1:], max(get48(a[1:]), get48(b[1:])))
		put48(a[7:], max(get48(a[7:]), get48(b[7:])))
		hits := uint64(binary.BigEndian.Uint32(a[13:])) + uint64(binary.BigEndian.Uint32(b[13:]))
		binary.BigEndian.PutUint32(a[13:], uint32(min(hits, math.MaxUint32)))
		return a, nil
	}
	var x, y Record
	if err := x.Decode(a); err != nil {
		return nil, err
	}
	if err := y.Decode(b); err != nil {
		return nil, err
	}
	x = x.Merge(y)
	return x.Append(a[:0]), nil
}

func append48(dst []byte, v int64) []byte {
	v = min(max(v, 0), maxMilli)
	return append(dst, byte(v>>40), byte(v>>32), byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

func put48(b []byte, v int64) { append48(b[:0], v) }

func get48(b []byte) int64 {
	_ = b[5]
	return int64(b[0])<<40 | int64(b[1])<<32 | int64(b[2])<<24 | int64(b[3])<<16 | int64(b[4])<<8 | int64(b[5])
}
