// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"
	"strconv"

	"golang.org/x/term"
)

// A style is how wide and in what colours a stream is written.
type style struct {
	width  int
	colour bool
}

// style finds out what a stream can show. Where there is no terminal the width is
// that of COLUMNS, or 80.
func (a *app) style(w io.Writer) style {
	s := style{width: 80}
	if n, err := strconv.Atoi(a.getenv("COLUMNS")); err == nil && n > 0 {
		s.width = n
	}
	if f, ok := w.(*os.File); ok && terminal(f) {
		if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 0 {
			s.width = n
		}
		s.colour = a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"
	}
	s.width = max(s.width, narrowest)
	return s
}

// narrowest is the width below which nothing is laid out; a terminal that is
// narrower breaks lines by itself.
const narrowest = 48

func (s style) wide() bool   { return s.width >= 110 }
func (s style) narrow() bool { return s.width < 70 }

func (s style) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s style) bold(text string) string  { return s.paint("1", text) }
func (s style) faint(text string) string { return s.paint("2", text) }
func (s style) warn(text string) string  { return s.paint("33", text) }

// cut shortens a visible text to so many columns.
func (s style) cut(text string, most int) string {
	most = max(most, 4)
	if columns(text) <= most {
		return text
	}
	head, _ := take(text, most-3)
	return head + "..."
}
