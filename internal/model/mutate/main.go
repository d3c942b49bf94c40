// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Mutate checks the check: it takes the parts of the protocol away, one at a time,
// in a copy of the repository, and says which test of internal/model notices.
//
//	go run ./internal/model/mutate [-histories N] [-seed N] [NAME...]
//
// It is run from the repository's root and exits with 1 if a mutant survives.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A mutation breaks one thing.
type mutation struct {
	name  string
	what  string
	edits []edit
}

// An edit replaces text that must occur exactly once.
type edit struct{ file, from, to string }

func main() {
	histories := flag.Int("histories", 2000, "how many random histories to try at most")
	seed := flag.Int("seed", 1, "the first history")
	keep := flag.Bool("v", false, "print what the tests print")
	flag.Parse()
	if err := run(*histories, *seed, *keep, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

var errSurvived = errors.New("a mutant survives")

func run(histories, seed int, verbose bool, names []string) error {
	dir, err := os.MkdirTemp("", "cftrack-mutate-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // a copy in the temporary directory
	if err := clone(dir); err != nil {
		return err
	}
	fmt.Println("| taken away | noticed by | histories needed |")
	fmt.Println("|---|---|---|")
	var survived error
	for _, m := range mutations {
		if len(names) > 0 && !slices.Contains(names, m.name) {
			continue
		}
		undo, err := m.apply(dir)
		if err != nil {
			return err
		}
		directed, after, err := try(dir, histories, seed, verbose)
		undo()
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		if len(directed) == 0 && after == "" {
			survived = errSurvived
		}
		by := strings.Join(directed, ", ")
		if by == "" {
			by = "random histories alone"
		}
		if after == "" {
			after = fmt.Sprintf("not within %d", histories)
		}
		fmt.Printf("| %s: %s | %s | %s |\n", m.name, m.what, by, after)
	}
	return survived
}

// clone copies what git knows of, and what it does not ignore.
func clone(dir string) error {
	out, err := exec.CommandContext(context.Background(), "git", "ls-files", "-co", "--exclude-standard").Output()
	if err != nil {
		return fmt.Errorf("git ls-files: %w", err)
	}
	for name := range strings.FieldsFuncSeq(string(out), func(r rune) bool { return r == '\n' }) {
		data, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted and not committed yet
		}
		if err != nil {
			return err
		}
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (m *mutation) apply(dir string) (undo func(), err error) {
	was := make(map[string][]byte)
	undo = func() {
		for name, data := range was {
			if err := os.WriteFile(name, data, 0o644); err != nil {
				panic(err) // the copy is of no use any more
			}
		}
	}
	for _, e := range m.edits {
		name := filepath.Join(dir, e.file)
		data, err := os.ReadFile(name)
		if err != nil {
			return undo, err
		}
		if was[name] == nil {
			was[name] = data
		}
		if n := bytes.Count(data, []byte(e.from)); n != 1 {
			undo()
			return undo, fmt.Errorf("%s: %s holds %d times, not once:\n%s", m.name, e.file, n, e.from)
		}
		if err := os.WriteFile(name, bytes.Replace(data, []byte(e.from), []byte(e.to), 1), 0o644); err != nil {
			return undo, err
		}
	}
	return undo, nil
}

var (
	failedTest    = regexp.MustCompile(`(?m)^--- FAIL: (Test\w+)`)
	failedHistory = regexp.MustCompile(`history (\d+) \(the (\d+)\.\)`)
)

// try runs the tests and says which directed ones failed, and how many histories
// were needed.
func try(dir string, histories, seed int, verbose bool) (directed []string, after string, err error) {
	out, failed, err := test(dir, verbose, nil, "-skip=^TestHistories(HoldWhatTheySay)?$")
	if err != nil {
		return nil, "", err
	}
	for _, f := range failedTest.FindAllSubmatch(out, -1) {
		directed = append(directed, string(f[1]))
	}
	if failed && len(directed) == 0 {
		directed = append(directed, "a panic or a timeout")
	}
	out, failed, err = test(dir, verbose, []string{fmt.Sprint("CFTRACK_HISTORIES=", histories),
		fmt.Sprint("CFTRACK_SEED=", seed), "CFTRACK_SHRINK=0"}, "-run=^TestHistories$")
	if err != nil {
		return nil, "", err
	}
	if f := failedHistory.FindSubmatch(out); f != nil {
		after = fmt.Sprintf("%s (seed %s)", f[2], f[1])
	} else if failed {
		after = "a panic or a timeout"
	}
	return directed, after, nil
}

// test runs tests of the model in dir.
func test(dir string, verbose bool, env []string, which string) (out []byte, failed bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-timeout=9m", which, "./internal/model")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	out, err = cmd.CombinedOutput()
	if verbose {
		fmt.Fprintf(os.Stderr, "%s\n", out)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return out, false, err
	}
	if bytes.Contains(out, []byte("[build failed]")) || bytes.Contains(out, []byte("[setup failed]")) {
		return out, false, fmt.Errorf("it does not build:\n%s", out)
	}
	return out, err != nil, nil
}
