// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/accesslog"
)

// The log that is made up is one that cftrack reads to the last line.
func TestLogIsRead(t *testing.T) {
	var b bytes.Buffer
	lines, err := writeLog(&b, 300_000, time.Now(), 1)
	if err != nil || b.Len() < 300_000 || b.Len() > 302_000 {
		t.Fatalf("%d bytes, %v", b.Len(), err)
	}
	if got := bytes.Count(b.Bytes(), []byte("\n")); got != lines+2 {
		t.Errorf("%d lines, said %d and two of the header", got, lines)
	}
	again := bytes.Buffer{}
	if _, err := writeLog(&again, 1000, time.Now(), 2); err != nil || bytes.Contains(b.Bytes(), again.Bytes()) {
		t.Errorf("another seed writes the same: %v", err)
	}
	r := accesslog.NewReader(&b, "made-up", nil)
	var l accesslog.Line
	recorded := 0
	for {
		outcome, err := r.Next(&l)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if outcome == accesslog.Recorded {
			recorded++
		}
	}
	if s := r.Summary(); s.Format != accesslog.CloudFront || s.Malformed != 0 || recorded < lines*9/10 {
		t.Errorf("of %d lines %d were recorded: %+v", lines, recorded, s)
	}
}

func TestParse(t *testing.T) {
	got := parse(`goos: linux
BenchmarkMiddleware/bare-2         	12345	        30.0 ns/op	       0 B/op
BenchmarkMiddleware/bare-2         	12345	        10.0 ns/op	       0 B/op
BenchmarkMiddleware/bare-2         	12345	        20.0 ns/op	       8 B/op
BenchmarkFill/60_bytes_by_1000     	1	  5.0 ns/op	 478000 merges/s	 120.5 B/entry
PASS
`)
	want := []result{
		{"BenchmarkMiddleware/bare", map[string]float64{"ns/op": 20, "B/op": 0}},
		{"BenchmarkFill/60_bytes_by_1000", map[string]float64{"ns/op": 5, "merges/s": 478000, "B/entry": 120.5}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestTable(t *testing.T) {
	table := table{columns: []column{{"extra", "extra"}, {"s", "s"}, {"n", "things"}}, rows: []row{
		{"peer", map[string]float64{"s": 2}, ""},
		{"ours", map[string]float64{"s": 3, "n": 1234567.4}, "peer"},
	}}
	var b strings.Builder
	table.write(&b)
	if want := "| | extra | s | things | compared |\n|---|---:|---:|---:|---|\n| peer | | 2 | |  |\n| ours | | 3 | 1,234,567 | 1.50 of peer |\n"; b.String() != want {
		t.Errorf("%s, want\n%s", b.String(), want)
	}
	for v, want := range map[float64]string{0: "0", 7: "7", 0.1234: "0.123", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 1234.5: "1,234", -1234567: "-1,234,567"} {
		if got := figure(v); got != want {
			t.Errorf("%v is %s, want %s", v, got, want)
		}
	}
}

func TestUnknownSection(t *testing.T) {
	if err := run(t.Context(), "", "nothing", 1); err == nil || !strings.Contains(err.Error(), "plan") {
		t.Error(err)
	}
}
