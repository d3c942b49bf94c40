// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Command testsummary reads what `go test -json` writes, prints one line a
// package, the output of what failed and the reasons of what was skipped, and as
// its last line
//
//	N passed, N failed, N skipped
//
// What counts is the innermost test: one that has subtests stands for them and is
// counted only if it failed or was skipped without any of them. A package that
// fails without a test of its own failing (it does not build, it panics, it runs
// out of time) counts as one failed test, and so does a test that never ended.
//
// It exits with 1 if something failed, and with -skips-fail if something was
// skipped.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() {
	skipsFail := flag.Bool("skips-fail", false, "exit with 1 if anything was skipped")
	failed := flag.String("failed", "", "`name` of a check that failed before, counted as one failed test")
	flag.Parse()
	s, err := summarize(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsummary:", err)
		s.Failed++
	}
	if *failed != "" {
		s.Failed++
		fmt.Printf("FAIL  %s\n", *failed)
	}
	if *skipsFail && s.Skipped > 0 {
		fmt.Println("Nothing may be skipped here: provide what is named above.")
	}
	fmt.Println(s)
	if s.Failed > 0 || *skipsFail && s.Skipped > 0 {
		os.Exit(1)
	}
}

// A summary counts outcomes.
type summary struct{ Passed, Failed, Skipped int }

func (s summary) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", s.Passed, s.Failed, s.Skipped)
}

// An event is a line of `go test -json`: see `go doc test2json` and, for the
// lines about builds, `go help buildjson`.
type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

// A test is what is known of one test of a package.
type test struct {
	name     string
	outcome  string // "", "pass", "fail", "skip"
	output   []string
	children bool
	// ran is false for what is only a part of names: a subtest may be called
	// "net/http" without there being one called "net".
	ran bool
}

// A suite is the tests of one package, in the order in which they began.
type suite struct {
	tests  map[string]*test
	order  []*test
	output []string
}

func (p *suite) test(name string) *test {
	t := p.tests[name]
	if t == nil {
		t = &test{name: name}
		p.tests[name] = t
		p.order = append(p.order, t)
		if i := strings.LastIndexByte(name, '/'); i > 0 {
			p.test(name[:i]).children = true
		}
	}
	return t
}

// summarize reads events from r and writes what people want to see of them to w.
func summarize(r io.Reader, w io.Writer) (summary, error) {
	var sum summary
	suites := map[string]*suite{}
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				// The go command's own words, such as those about a missing module.
				fmt.Fprintf(w, "%s\n", strings.TrimRight(string(line), "\n"))
			} else {
				sum.add(w, suites, e)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return sum, err
		}
	}
	for name := range suites {
		// Whoever ran the tests was interrupted.
		sum.end(w, name, suites[name], event{Action: "fail", Package: name})
	}
	if sum == (summary{}) {
		return sum, errors.New("no test was run")
	}
	return sum, nil
}

func (s *summary) add(w io.Writer, suites map[string]*suite, e event) {
	if e.Package == "" {
		fmt.Fprint(w, e.Output) // of a build
		return
	}
	p := suites[e.Package]
	if p == nil {
		p = &suite{tests: map[string]*test{}}
		suites[e.Package] = p
	}
	switch {
	case e.Test == "" && e.Action == "output":
		p.output = append(p.output, e.Output)
	case e.Test == "" && (e.Action == "pass" || e.Action == "fail" || e.Action == "skip"):
		s.end(w, e.Package, p, e)
		delete(suites, e.Package)
	case e.Test == "":
	case e.Action == "output":
		t := p.test(e.Test)
		t.output = append(t.output, e.Output)
	case e.Action == "run":
		p.test(e.Test).ran = true
	case e.Action == "pass" || e.Action == "fail" || e.Action == "skip":
		p.test(e.Test).outcome = e.Action
	}
}

// end counts the tests of a package that is over.
func (s *summary) end(w io.Writer, name string, p *suite, e event) {
	var mine summary
	var lines []string
	// Innermost first, so that a parent knows what its subtests did.
	byDepth := slices.Clone(p.order)
	slices.SortStableFunc(byDepth, func(a, b *test) int {
		return strings.Count(b.name, "/") - strings.Count(a.name, "/")
	})
	below := map[string]string{} // test to "fail" or "skip" of a subtest
	for _, t := range byDepth {
		outcome := t.outcome
		switch {
		case !t.ran:
			outcome = cmp.Or(below[t.name], "pass")
		case outcome == "":
			outcome = "fail" // it never ended
		}
		explained := t.children && (outcome == "pass" || below[t.name] == outcome)
		if i := strings.LastIndexByte(t.name, '/'); i > 0 && outcome != "pass" {
			if up := t.name[:i]; below[up] != "fail" {
				below[up] = outcome
			}
		}
		if !t.ran {
			continue
		}
		if outcome == "fail" {
			l := fmt.Sprintf("--- %s %s\n%s", name, t.name, strings.Join(t.output, ""))
			if t.outcome == "" {
				l += "it did not end\n"
			}
			lines = append(lines, l)
		}
		if explained {
			continue
		}
		switch outcome {
		case "pass":
			mine.Passed++
		case "fail":
			mine.Failed++
		case "skip":
			mine.Skipped++
			lines = append(lines, fmt.Sprintf("SKIP  %s %s: %s\n", name, t.name, reason(t.output)))
		}
	}
	if e.Action == "fail" && mine.Failed == 0 {
		mine.Failed++
	}
	if e.Action == "fail" {
		lines = append(lines, p.output...)
	}
	for _, l := range lines {
		fmt.Fprint(w, l)
	}
	switch {
	case e.Action == "fail":
		fmt.Fprintf(w, "FAIL  %s  %.1fs  %s\n", name, e.Elapsed, mine)
	case len(p.order) > 0:
		fmt.Fprintf(w, "ok    %s  %.1fs  %s\n", name, e.Elapsed, mine)
	}
	s.Passed += mine.Passed
	s.Failed += mine.Failed
	s.Skipped += mine.Skipped
}

// reason is what a test said when it was skipped.
func reason(output []string) string {
	for _, line := range slices.Backward(output) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "---") || strings.HasPrefix(line, "===") {
			continue
		}
		if _, said, ok := strings.Cut(line, ".go:"); ok {
			_, said, _ = strings.Cut(said, ": ")
			return said
		}
		return line
	}
	return "no reason given"
}
