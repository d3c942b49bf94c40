// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A result is one benchmark and what it measured, by unit; of several runs the
// medians.
type result struct {
	name    string
	metrics map[string]float64
}

var processors = regexp.MustCompile(`-\d+$`)

// parse reads what `go test -bench` prints.
func parse(text string) []result {
	var order []string
	values := map[string]map[string][]float64{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name := processors.ReplaceAllString(f[0], "")
		if values[name] == nil {
			order = append(order, name)
			values[name] = map[string][]float64{}
		}
		for i := 2; i+1 < len(f); i += 2 {
			if v, err := strconv.ParseFloat(f[i], 64); err == nil {
				values[name][f[i+1]] = append(values[name][f[i+1]], v)
			}
		}
	}
	var out []result
	for _, name := range order {
		r := result{name, map[string]float64{}}
		for unit, vs := range values[name] {
			slices.Sort(vs)
			r.metrics[unit] = vs[len(vs)/2]
		}
		out = append(out, r)
	}
	return out
}

// A table has a row for each thing measured. The last column relates a row to its
// peer, by the first metric that both have.
type table struct {
	columns []column
	rows    []row
}

type column struct{ unit, title string }

type row struct {
	label   string
	metrics map[string]float64
	peer    string // the label of another row; "" where there is nothing to compare
}

func (t *table) write(w io.Writer) {
	head, line := "| |", "|---|"
	for _, c := range t.columns {
		head += " " + c.title + " |"
		line += "---:|"
	}
	fmt.Fprintf(w, "%s compared |\n%s---|\n", head, line)
	for _, r := range t.rows {
		fmt.Fprintf(w, "| %s |", r.label)
		for _, c := range t.columns {
			if v, ok := r.metrics[c.unit]; ok {
				fmt.Fprintf(w, " %s |", figure(v))
			} else {
				fmt.Fprint(w, " |")
			}
		}
		fmt.Fprintf(w, " %s |\n", t.ratio(r))
	}
}

func (t *table) ratio(r row) string {
	for _, p := range t.rows {
		if p.label != r.peer {
			continue
		}
		for _, c := range t.columns {
			if v, ok := r.metrics[c.unit]; ok && p.metrics[c.unit] != 0 {
				return fmt.Sprintf("%.2f of %s", v/p.metrics[c.unit], p.label)
			}
		}
	}
	return ""
}

// figure writes a number with three digits that count.
func figure(v float64) string {
	switch a := math.Abs(v); {
	case v == math.Trunc(v) && a < 1000:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a < 1:
		return strconv.FormatFloat(v, 'f', 3, 64)
	case a < 10:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case a < 100:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	s := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
