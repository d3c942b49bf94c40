// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

// FuzzReader: no input makes the reader panic, lose a line, or record what
// cannot be.
func FuzzReader(f *testing.F) {
	for _, text := range []string{
		combinedLine, cftrackLine, caddyLine, listLine, cloudFrontLine("/a", "x=1", "200", "Hit"),
		allFields + "\n" + cloudFrontLine("/a", "-", "404", "Error") + "\r\n\r\n#Fields: date\n",
		"\xef\xbb\xbf" + combinedLine, string(gzipped(f, combinedLine, "\n"+listLine)),
	} {
		f.Add([]byte(text), uint8(0))
		f.Add([]byte(text+"\n"+text[:len(text)/2]), uint8(0))
	}
	files, err := filepath.Glob("testdata/*.log")
	if err != nil || len(files) == 0 {
		f.Fatalf("no captured lines: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for line := range bytes.Lines(data) {
			if len(line) < 1000 {
				f.Add(line, uint8(0))
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, format uint8) {
		formats := append([]Format{""}, Formats()...)
		now := at("2026-12-01T00:00:00Z")
		opts := &Options{Format: formats[int(format)%len(formats)], Now: now}
		r := NewReader(bytes.NewReader(data), "fuzz", opts)
		counts := map[Outcome]int{}
		var paths []string
		var err error
		for {
			var l Line
			var o Outcome
			if o, err = r.Next(&l); err != nil {
				break
			}
			counts[o]++
			if o != Recorded {
				if r.Why() == "" {
					t.Fatalf("%v without a reason", o)
				}
				continue
			}
			s := l.Sighting
			paths = append(paths, s.Path)
			if back, err := cfpath.Canonical(s.Path); err != nil || back != s.Path {
				t.Fatalf("path %q is not canonical: %q, %v", s.Path, back, err)
			}
			if s.End.Before(s.Start) || !s.Expires.After(now) || s.Start.Year() < 1800 || s.End.Year() > 9999 {
				t.Fatalf("sighting %+v", s)
			}
		}
		s := r.Summary()
		sum := s.Recorded + s.Malformed
		for _, n := range s.Skipped {
			sum += n
		}
		if sum != s.Lines || counts[Recorded] != s.Recorded || counts[Malformed] != s.Malformed || s.Lines+s.Comments != r.src.line {
			t.Fatalf("outcomes %v of %d lines: %+v", counts, r.src.line, s)
		}
		if !bytes.HasPrefix(data, []byte("\x1f\x8b")) && err == io.EOF {
			lines := bytes.Count(data, []byte("\n"))
			if body := bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")); len(body) > 0 && body[len(body)-1] != '\n' {
				lines++
			}
			if lines != s.Lines+s.Comments {
				t.Fatalf("%d lines are accounted for of %d", s.Lines+s.Comments, lines)
			}
		}
		// How the bytes arrive makes no difference.
		again := NewReader(iotest.OneByteReader(bytes.NewReader(data)), "fuzz", opts)
		for _, want := range paths {
			var l Line
			o := Skipped
			for o != Recorded {
				if o, err = again.Next(&l); err != nil {
					t.Fatalf("%q is lost when the bytes come one at a time: %v", want, err)
				}
			}
			if l.Sighting.Path != want {
				t.Fatalf("path %q when the bytes come one at a time, else %q", l.Sighting.Path, want)
			}
		}
	})
}

// FuzzScanner: what is JSON is read, and strings are what encoding/json says,
// apart from bytes that are not UTF-8.
func FuzzScanner(f *testing.F) {
	for _, s := range []string{cftrackLine, caddyLine, listLine, `{"a":{"b":[1,-2e3,null,true,"\u00e9\\\""]},"c":""}`, `{}`, `{"a":"\ud83d\ude00"}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ContainsAny(text, "\n\r") {
			return // lines have none
		}
		var s scanner
		s.reset([]byte(text))
		got := map[string]string{}
		s.each(func(key []byte) {
			k := string(key)
			if s.peek() == '"' {
				got[k] = string(s.str())
			} else {
				delete(got, k)
				s.skip()
			}
		})
		var want map[string]json.RawMessage
		if json.Unmarshal([]byte(text), &want) != nil || want == nil {
			return // the scanner is more lenient
		}
		if !s.done() {
			t.Fatalf("%q is JSON, but was not read beyond byte %d", text, s.i)
		}
		for k, raw := range want {
			var v string
			if len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &v) == nil && !strings.Contains(v+k, "\ufffd") && got[k] != v {
				t.Fatalf("%q is %q, want %q", k, got[k], v)
			}
		}
	})
}

// FuzzTimes: the readers of times agree with package time.
func FuzzTimes(f *testing.F) {
	f.Add("22/Nov/2026:18:13:06 +0530")
	f.Add("29/Feb/2024:23:59:59 -0000")
	f.Add("2026-11-22 18:13:06")
	f.Add("1795371186.187")
	f.Add("9.4e-05")
	f.Fuzz(func(t *testing.T, text string) {
		var d dates
		for range 2 { // the second time from memory
			got, ok := d.common([]byte(text))
			want, err := time.Parse("02/Jan/2006:15:04:05 -0700", text)
			if !ok && err == nil && want.Format("02/Jan/2006:15:04:05 -0700") == text && want.Year() > 1970 && want.Year() < 2261 {
				t.Fatalf("common %q is no time, want %v", text, want)
			}
			if ok && err == nil && got != want.UnixNano() {
				t.Fatalf("common %q is %d, want %v", text, got, want)
			}
			if date, clock, cut := strings.Cut(text, " "); cut {
				got, ok := d.iso([]byte(date), []byte(clock))
				want, err := time.Parse("2006-01-02 15:04:05", text)
				if ok && err == nil && got != want.UnixNano() {
					t.Fatalf("iso %q is %d, want %v", text, got, want)
				}
			}
		}
		for _, unit := range []time.Duration{time.Second, time.Millisecond, time.Nanosecond} {
			if ns, ok := decimal([]byte(text), unit); ok && (ns < 0 || ns > maxNano) {
				t.Fatalf("decimal %q is %d", text, ns)
			}
		}
	})
}
