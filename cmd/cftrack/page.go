// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A page writes text for people within the width of a style.
type page struct {
	w     io.Writer
	style style
}

// line writes a line as it is; whoever calls sees to its width.
func (p *page) line(format string, args ...any) {
	fmt.Fprintf(p.w, format+"\n", args...)
}

// fact writes a sentence, indented, over as many lines as it needs.
func (p *page) fact(format string, args ...any) {
	p.block(2, "  ", visible(fmt.Sprintf(format, args...)), nil)
}

// faint is fact for what is less important.
func (p *page) faint(format string, args ...any) {
	p.block(2, "  ", visible(fmt.Sprintf(format, args...)), p.style.faint)
}

// block writes a text after a lead, and what does not fit on the first line below
// it, indented by so many columns. paint may be nil.
func (p *page) block(indent int, lead, text string, paint func(string) string) {
	if paint == nil {
		paint = func(s string) string { return s }
	}
	for i, l := range wrap(text, p.style.width-indent) {
		if i > 0 {
			lead = strings.Repeat(" ", indent)
		}
		p.line("%s%s", lead, paint(l))
	}
}

// visible is a text from outside with what would move a terminal's cursor, or turn
// what it shows around, written as an escape.
func visible(s string) string {
	if strings.IndexFunc(s, hidden) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case !hidden(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		s = s[n:]
	}
	return b.String()
}

// hidden tells of the characters that are not seen where they stand: controls,
// and those that steer how others are written.
func hidden(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029'
}

// columns is how many columns of a terminal a visible text fills.
func columns(s string) int {
	n := 0
	for _, r := range s {
		n += wide(r)
	}
	return n
}

// wide is how many columns a character fills: none if it is put upon another, two
// in the scripts that have square ones
// (https://www.unicode.org/reports/tr11/).
func wide(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case r >= 0x1100 && (r <= 0x115f || r >= 0x2e80 && r <= 0xa4cf && r != 0x303f || r >= 0xac00 && r <= 0xd7a3 ||
		r >= 0xf900 && r <= 0xfaff || r >= 0xfe30 && r <= 0xfe6f || r >= 0xff00 && r <= 0xff60 || r >= 0xffe0 && r <= 0xffe6 ||
		r >= 0x1f300 && r <= 0x1faff || r >= 0x20000 && r <= 0x3fffd):
		return 2
	}
	return 1
}

// take cuts off the longest beginning of s that fills no more than so many columns,
// but at least a character.
func take(s string, most int) (head, rest string) {
	n := 0
	for i, r := range s {
		if n += wide(r); n > most && i > 0 {
			return s[:i], s[i:]
		}
	}
	return s, ""
}

// pieces breaks a path over lines, behind a '/' or where a query goes on, else
// behind a hyphen or the like, if that leaves no line too short. What needs more lines than that is cut in its middle.
func pieces(s string, width, most int) []string {
	var out []string
	for {
		head, rest := take(s, width)
		if rest == "" {
			return append(out, head)
		}
		if len(out) == most-1 {
			tail := rest
			for columns(tail) > width/2 {
				_, tail = take(tail, 1)
			}
			head, _ = take(head, width-3-columns(tail))
			return append(out, head+"..."+tail)
		}
		for _, behind := range []string{"/?&", "-_.=,;"} {
			if i := strings.LastIndexAny(head, behind); i >= width/2 {
				rest, head = head[i+1:]+rest, head[:i+1]
				break
			}
		}
		out = append(out, head)
		s = rest
	}
}

// wrap breaks a text into lines of at most width columns: where it has spaces, and
// where a word alone is wider, inside it.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && columns(line)+1+columns(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
		for columns(line) > width {
			parts := pieces(line, width, 1<<30)
			lines = append(lines, parts[:len(parts)-1]...)
			line = parts[len(parts)-1]
		}
	}
	return append(lines, line)
}
