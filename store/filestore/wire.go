// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// The owner serves HTTP/1.1. A call is a POST to /N/NAME, where N is protocol.
// Bodies are gob, except for sightings and entries, which come in great numbers:
// those are strings with their length before them, a path and an encoded record
// in turn. A stream of entries ends in an empty record at an empty path, so that
// one that was cut off is known.
const (
	protocol       = "1"
	protocolHeader = "Cftrack-Protocol"
)

const (
	maxString = 1 << 28 // what a length before a string may claim
	maxPiece  = 1 << 17 // what is read of it at a time
)

type (
	clearCall struct {
		Distribution string
		Conditions   []store.Condition
	}
	sweepCall struct {
		Distribution string
		Now          time.Time
	}
	listCall struct {
		Distribution, Prefix, After string
		Limit                       int
	}
	commitCall struct {
		Distribution string
		Transaction  store.Transaction
		ID           transactionID
	}
	scanCall struct {
		Distribution string
		Range        store.Range
	}
	infoAnswer  struct{ Epoch, ReadOnly string }
	countAnswer struct{ N int }
	listAnswer  struct{ Documents []store.Document }
)

// statuses are the errors that a client must tell apart.
var statuses = []struct {
	code int
	err  error
}{
	{http.StatusConflict, store.ErrConflict},
	{http.StatusInsufficientStorage, store.ErrFull},
	{http.StatusMisdirectedRequest, errMoved},
	{http.StatusServiceUnavailable, store.ErrUnavailable},
}

func statusOf(err error) int {
	for _, s := range statuses {
		if errors.Is(err, s.err) {
			return s.code
		}
	}
	return http.StatusServiceUnavailable
}

// A remoteError is an error with the owner's words for it.
type remoteError struct {
	err  error
	text string
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.err }

func errorOf(code int, text string) error {
	for _, s := range statuses {
		if s.code == code {
			return &remoteError{s.err, text}
		}
	}
	return &remoteError{store.ErrUnavailable, fmt.Sprintf("%v: %d %s", store.ErrUnavailable, code, text)}
}

func appendString[S string | []byte](dst []byte, s S) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// readString reads a string into buf, which grows as need be.
func readString(r *bufio.Reader, buf []byte) ([]byte, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	if n > maxString {
		return nil, fmt.Errorf("a string of %d bytes", n)
	}
	// What is claimed is not believed until it has arrived.
	buf = buf[:0]
	for more := int(n); more > 0; {
		piece := min(more, maxPiece)
		buf = slices.Grow(buf, piece)[:len(buf)+piece]
		if _, err := io.ReadFull(r, buf[len(buf)-piece:]); err != nil {
			return nil, cutOff(err)
		}
		more -= piece
	}
	return buf, nil
}

func appendUpdates(dst []byte, distribution string, updates []inventory.Update) []byte {
	dst = appendString(dst, distribution)
	var record []byte
	for i := range updates {
		record = updates[i].Record.Append(record[:0])
		dst = appendString(appendString(dst, updates[i].Path), record)
	}
	return dst
}

// parseUpdates reads what appendUpdates wrote, which ends with r.
func parseUpdates(r *bufio.Reader) (distribution string, updates []inventory.Update, _ error) {
	buf, err := readString(r, nil)
	if err != nil {
		return "", nil, err
	}
	distribution = string(buf)
	var paths arena
	for {
		if _, err := r.Peek(1); errors.Is(err, io.EOF) {
			return distribution, updates, nil
		}
		if buf, err = readString(r, buf); err != nil {
			return "", nil, err
		}
		u := inventory.Update{Path: paths.add(buf)}
		if buf, err = readString(r, buf); err != nil {
			return "", nil, err
		}
		if err := u.Record.Decode(buf); err != nil {
			return "", nil, err
		}
		updates = append(updates, u)
	}
}

// appendEntry writes an entry as a record without claims.
func appendEntry(dst []byte, e *inventory.Entry, record *[]byte) []byte {
	r := inventory.Record{
		Last: e.Last.UnixMilli(), Expires: e.Expires.UnixMilli(), Hits: e.Hits,
		Tags: e.Tags, Mixed: e.Mixed, Folded: e.Folded,
	}
	*record = r.Append((*record)[:0])
	return appendString(appendString(dst, e.Path), *record)
}

// appendEnd ends a stream of entries.
func appendEnd(dst []byte) []byte { return append(dst, 0, 0) }

// An entryReader reads a stream of entries.
type entryReader struct {
	r     *bufio.Reader
	buf   []byte
	paths arena
}

// next returns io.EOF after the last entry, and io.ErrUnexpectedEOF if the stream
// was cut off.
func (er *entryReader) next() (inventory.Entry, error) {
	buf, err := readString(er.r, er.buf)
	if err != nil {
		return inventory.Entry{}, cutOff(err)
	}
	path := er.paths.add(buf)
	if er.buf, err = readString(er.r, buf); err != nil {
		return inventory.Entry{}, cutOff(err)
	}
	if len(er.buf) == 0 {
		return inventory.Entry{}, io.EOF
	}
	var record inventory.Record
	if err := record.Decode(er.buf); err != nil {
		return inventory.Entry{}, err
	}
	return record.Entry(path), nil
}

func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
