// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner reads JSON from left to right. It is more lenient than encoding/json
// where servers are: bytes that are not UTF-8 stay what they are (nginx writes
// them raw), and \xHH and \v are escapes (Apache writes those). Once something
// is wrong, every call says so.
type scanner struct {
	b    []byte
	i    int
	bad  bool
	lost bool // a string had the escape \ufffd: what was logged is not known
	out  []byte
}

func (s *scanner) reset(line []byte) {
	s.b, s.i, s.bad, s.lost, s.out = line, 0, false, false, s.out[:0]
}

func (s *scanner) space() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\t') {
		s.i++
	}
}

// peek returns the next byte that is not blank, 0 at the end.
func (s *scanner) peek() byte {
	s.space()
	if s.bad || s.i >= len(s.b) {
		return 0
	}
	return s.b[s.i]
}

// take takes the next byte if it is c.
func (s *scanner) take(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.i++
	return true
}

func (s *scanner) fail() { s.bad = true }

// each calls f for every member of the object that comes next; f must take the
// value. What is not an object is wrong.
func (s *scanner) each(f func(key []byte)) {
	if !s.take('{') {
		s.fail()
		return
	}
	if s.take('}') {
		return
	}
	for !s.bad {
		key := s.str()
		if !s.take(':') {
			s.fail()
			return
		}
		if f(key); s.take('}') {
			return
		}
		if !s.take(',') {
			s.fail()
		}
	}
}

// items calls f for every string in the array that comes next, or for the one
// string that comes instead. A null is an empty array.
func (s *scanner) items(f func(value []byte)) {
	switch s.peek() {
	case '"':
		f(s.str())
	case '[':
		if s.i++; s.take(']') {
			return
		}
		for !s.bad {
			value := s.str()
			if s.bad {
				return
			}
			if f(value); s.take(']') {
				return
			}
			if !s.take(',') {
				s.fail()
			}
		}
	case 'n':
		s.word()
	default:
		s.fail()
	}
}

// str returns the string that comes next. It is valid until reset.
func (s *scanner) str() []byte {
	if !s.take('"') {
		s.fail()
		return nil
	}
	b := s.b[s.i:]
	end := bytes.IndexByte(b, '"')
	if end < 0 {
		s.fail()
		return nil
	}
	if bytes.IndexByte(b[:end], '\\') < 0 {
		s.i += end + 1
		return b[:end]
	}
	from := len(s.out)
	for i := 0; i < len(b); {
		switch c := b[i]; c {
		case '"':
			s.i += i + 1
			return s.out[from:len(s.out):len(s.out)]
		case '\\':
			n := s.escape(b[i:])
			if n == 0 {
				s.fail()
				return nil
			}
			i += n
		default:
			s.out = append(s.out, c)
			i++
		}
	}
	s.fail()
	return nil
}

// escape appends what the escape at the beginning of b stands for, and returns
// its length, 0 if it is none.
func (s *scanner) escape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/':
		s.out = append(s.out, b[1])
		return 2
	case 'x':
		v, ok := hex(b[2:], 2)
		if !ok {
			return 0
		}
		s.out = append(s.out, byte(v))
		return 4
	case 'u':
		v, ok := hex(b[2:], 4)
		if !ok {
			return 0
		}
		n := 6
		if utf16.IsSurrogate(v) {
			low := rune(0)
			if len(b) > 8 && b[6] == '\\' && b[7] == 'u' {
				low, _ = hex(b[8:], 4)
			}
			if v, n = utf16.DecodeRune(v, low), 12; v == utf8.RuneError {
				return 0
			}
		}
		s.lost = s.lost || v == utf8.RuneError
		s.out = utf8.AppendRune(s.out, v)
		return n
	}
	c := control(b[1])
	if c == 0 {
		return 0
	}
	s.out = append(s.out, c)
	return 2
}

// word returns the number, true, false or null that comes next.
func (s *scanner) word() []byte {
	s.space()
	from := s.i
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '.', c == '-', c == '+':
			s.i++
			continue
		}
		break
	}
	if s.i == from {
		s.fail()
	}
	return s.b[from:s.i]
}

// text returns the string or the word that comes next; a null is nil.
func (s *scanner) text() []byte {
	if s.peek() == '"' {
		return s.str()
	}
	if w := s.word(); string(w) != "null" {
		return w
	}
	return nil
}

// skip takes the value that comes next, whatever it is.
func (s *scanner) skip() {
	for depth := 0; !s.bad; {
		switch s.peek() {
		case '"':
			s.skipString()
		case '{', '[':
			s.i++
			depth++
			continue
		case '}', ']', ',', ':':
			if depth == 0 {
				s.fail()
				return
			}
			if c := s.b[s.i]; c == '}' || c == ']' {
				depth--
			}
			s.i++
		default:
			s.word()
		}
		if depth == 0 {
			return
		}
	}
}

func (s *scanner) skipString() {
	s.i++
	if n := quoted(s.b[s.i:]); n >= 0 {
		s.i += n + 1
	} else {
		s.fail()
	}
}

// done tells whether all of the line has been read without anything wrong.
func (s *scanner) done() bool { return s.peek() == 0 && !s.bad && s.i == len(s.b) }
