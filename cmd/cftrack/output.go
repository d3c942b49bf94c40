// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strings"
	"sync"
	"time"
)

// A printer writes data to standard output, buffered.
type printer struct {
	*bufio.Writer
	enc *json.Encoder
}

func (a *app) printer() *printer {
	w := bufio.NewWriterSize(a.stdout, 64<<10)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return &printer{w, enc}
}

// object prints one JSON object on a line.
func (p *printer) object(v any) error { return p.enc.Encode(v) }

// printObject prints the only object of a command.
func (a *app) printObject(v any) error {
	p := a.printer()
	if err := p.object(v); err != nil {
		return err
	}
	return p.Flush()
}

// say writes a line for people, and nothing where JSON is wanted.
func (a *app) say(format string, args ...any) {
	if !a.json() {
		fmt.Fprintf(a.stderr, format+"\n", args...)
	}
}

// instant writes a time as people read it, to the second.
func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// count writes a number with the word it counts.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return thousands(n) + " " + many
}

// thousands writes a number with commas.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// dollars writes an amount, to the cent or, where an item alone decides, to half
// a cent.
func dollars(v float64) string {
	if tenths := int64(math.Round(v * 1000)); tenths%10 != 0 && v < 10 {
		return fmt.Sprintf("$%.3f", v)
	}
	return fmt.Sprintf("$%.2f", v)
}

// lasting writes seconds as people say them.
func lasting(seconds float64) string {
	switch d := time.Duration(seconds * float64(time.Second)); {
	case d == 0:
		return "no time"
	case d < 90*time.Second:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 90*time.Minute:
		return fmt.Sprintf("%.0f min", d.Minutes())
	default:
		return fmt.Sprintf("%.1f h", d.Hours())
	}
}

// A lineHandler is a slog.Handler that writes warnings and errors as lines, each
// once as long as nothing else happens.
type lineHandler struct {
	mu   sync.Mutex
	w    io.Writer
	last string
}

// Enabled implements slog.Handler.
func (*lineHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

// Handle implements slog.Handler.
func (h *lineHandler) Handle(_ context.Context, r slog.Record) error {
	line := "cftrack: " + r.Message
	r.Attrs(func(at slog.Attr) bool {
		// References and numbers are for those who keep logs; a person asks why.
		if at.Key == "err" {
			line += ": " + printable(strings.ReplaceAll(at.Value.String(), "\n", " "))
		}
		return true
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	if line == h.last {
		return nil
	}
	h.last = line
	_, err := fmt.Fprintln(h.w, line)
	return err
}

// WithAttrs implements slog.Handler; nothing here is logged with attributes of
// the logger.
func (h *lineHandler) WithAttrs([]slog.Attr) slog.Handler { return h }

// WithGroup implements slog.Handler.
func (h *lineHandler) WithGroup(string) slog.Handler { return h }
