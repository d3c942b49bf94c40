// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rivo/uniseg"
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
func visible(s string) string { return escaped(s, hidden) }

// printable is visible for text that has lines and tabs of its own.
func printable(s string) string {
	return escaped(s, func(r rune) bool { return r != '\n' && r != '\t' && hidden(r) })
}

func escaped(s string, hide func(rune) bool) string {
	if strings.IndexFunc(s, hide) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case !hide(r):
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
func columns(s string) int { return uniseg.StringWidth(s) }

// take cuts off the longest beginning of s that fills no more than so many columns,
// but at least a character as people count them.
func take(s string, most int) (head, rest string) {
	n, state := 0, -1
	for rest = s; rest != ""; {
		_, after, width, next := uniseg.FirstGraphemeClusterInString(rest, state)
		if n += width; n > most && len(rest) < len(s) {
			return s[:len(s)-len(rest)], rest
		}
		rest, state = after, next
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
