// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
)

const (
	// maxLine is the longest line that is read: a megabyte is far beyond the head
	// of any request that CloudFront passes on.
	maxLine = 1 << 20
	// firstBuffer keeps the working set inside a processor's cache.
	firstBuffer = 128 << 10
)

// source splits a reader into lines, decompressing it if it is gzip.
type source struct {
	r          io.Reader
	read       atomic.Int64
	buf        []byte
	start, end int   // what is buffered and not yet handed out
	line       int   // lines handed out
	err        error // of the reader, once it has come
	opened     bool
}

// counter counts what is read from the source itself.
type counter struct {
	r io.Reader
	n *atomic.Int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// open looks at the first bytes: gzip or not, with a byte order mark or not.
func (s *source) open() {
	s.opened = true
	s.buf = make([]byte, firstBuffer)
	s.r = &counter{s.r, &s.read}
	s.fill(2)
	if head := s.buf[:s.end]; bytes.HasPrefix(head, []byte("\x1f\x8b")) {
		rest := s.r
		if s.err != nil {
			rest = &failed{s.err}
		}
		zr, err := gzip.NewReader(io.MultiReader(bytes.NewReader(bytes.Clone(head)), rest))
		s.end, s.err = 0, err
		if err != nil {
			if errors.Is(err, io.EOF) {
				s.err = io.ErrUnexpectedEOF
			}
			return
		}
		s.r = zr
	}
	s.fill(3)
	if bytes.HasPrefix(s.buf[:s.end], []byte("\xef\xbb\xbf")) {
		s.start = 3
	}
}

// failed is a reader that has already ended.
type failed struct{ err error }

func (f *failed) Read([]byte) (int, error) { return 0, f.err }

// fill reads until at least n bytes are buffered or the reader ends.
func (s *source) fill(n int) {
	for idle := 0; s.err == nil && s.end-s.start < n; {
		var m int
		m, s.err = s.r.Read(s.buf[s.end:])
		s.end += m
		if idle++; m > 0 {
			idle = 0
		} else if idle == 100 && s.err == nil {
			s.err = io.ErrNoProgress
		}
	}
}

// next returns the next line without its newline, valid until the next call. If
// it is too long, the line is skipped to its newline instead. With an error, the
// line is what came after the last newline, if anything.
func (s *source) next() (line []byte, tooLong bool, err error) {
	if !s.opened {
		s.open()
	}
	for searched := s.start; ; {
		if i := bytes.IndexByte(s.buf[searched:s.end], '\n'); i >= 0 {
			line = s.buf[s.start : searched+i]
			s.start = searched + i + 1
			s.line++
			if tooLong = tooLong || len(line) > maxLine; tooLong {
				line = nil
			}
			return line, tooLong, nil
		}
		if s.err != nil {
			line = s.buf[s.start:s.end]
			s.start = s.end
			if tooLong = tooLong || len(line) > maxLine; tooLong {
				line = []byte{0} // something was there
			}
			if len(line) > 0 {
				s.line++
			}
			return line, tooLong, s.err
		}
		if s.end-s.start > maxLine {
			tooLong = true
			s.start = s.end
		}
		if s.start > 0 {
			copy(s.buf, s.buf[s.start:s.end])
			s.start, s.end = 0, s.end-s.start
		}
		if s.end == len(s.buf) {
			s.buf = append(s.buf, make([]byte, len(s.buf))...)
		}
		searched = s.end
		s.fill(s.end - s.start + 1)
	}
}

// trim takes off what surrounds a line: the carriage return of CRLF, and blanks.
func trim(line []byte) []byte {
	for len(line) > 0 && (line[len(line)-1] == '\r' || line[len(line)-1] == ' ') {
		line = line[:len(line)-1]
	}
	for len(line) > 0 && line[0] == ' ' {
		line = line[1:]
	}
	return line
}
