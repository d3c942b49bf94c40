// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The real go command, over packages that do all that packages can do.
func TestGoTest(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module example.com/m\n\ngo 1.26\n",
		"good/good_test.go": `package good
import "testing"
func TestAlone(t *testing.T) {}
func TestParent(t *testing.T) {
	t.Run("a", func(t *testing.T) {})
	t.Run("b", func(t *testing.T) { t.Run("deep", func(t *testing.T) {}) })
	t.Run("c", func(t *testing.T) { t.Skip("the program frobnicate is missing") })
	t.Run("net/http", func(t *testing.T) {})
}
func TestSkipped(t *testing.T) { t.Skipf("%s is missing: %d", "redis-server", 7) }
`,
		"bad/bad_test.go": `package bad
import "testing"
func TestChild(t *testing.T) {
	t.Run("a", func(t *testing.T) { t.Error("a is wrong") })
	t.Run("b", func(t *testing.T) {})
}
func TestItself(t *testing.T) {
	t.Run("a", func(t *testing.T) {})
	t.Error("only the parent is wrong")
}
`,
		"exits/exits_test.go": `package exits
import ("os"; "testing")
func TestFine(t *testing.T) {}
func TestNeverEnds(t *testing.T) { os.Exit(3) }
`,
		"panics/panics_test.go": `package panics
import "testing"
func TestFine(t *testing.T) {}
func TestPanics(t *testing.T) { panic("no tests left behind") }
`,
		"leaks/leaks_test.go": `package leaks
import ("fmt"; "os"; "testing")
func TestMain(m *testing.M) { m.Run(); fmt.Println("a goroutine was left"); os.Exit(1) }
func TestFine(t *testing.T) {}
`,
		"broken/broken_test.go": "package broken\nfunc init() { undefined() }\n",
		"empty/empty.go":        "package empty\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		pkg   string
		want  summary
		says  []string
		never string
	}{
		{"./good", summary{4, 0, 2}, []string{
			"SKIP  example.com/m/good TestParent/c: the program frobnicate is missing\n",
			"SKIP  example.com/m/good TestSkipped: redis-server is missing: 7\n",
		}, "FAIL"},
		{"./bad", summary{2, 2, 0}, []string{"a is wrong", "only the parent is wrong"}, "SKIP"},
		{"./exits", summary{1, 1, 0}, []string{"TestNeverEnds", "it did not end\n"}, "SKIP"},
		{"./panics", summary{1, 1, 0}, []string{"no tests left behind"}, "SKIP"},
		{"./leaks", summary{1, 1, 0}, []string{"a goroutine was left"}, "SKIP"},
		{"./broken", summary{0, 1, 0}, []string{"undefined: undefined"}, "SKIP"},
		{"./...", summary{9, 6, 2}, nil, "empty"},
	} {
		cmd := exec.Command("go", "test", "-json", tc.pkg)
		cmd.Dir = dir
		out, _ := cmd.Output() // that it exits with 1 is not the question
		var said strings.Builder
		got, err := summarize(strings.NewReader(string(out)), &said)
		if err != nil || got != tc.want {
			t.Errorf("%s: %v, error %v, want %v\n%s", tc.pkg, got, err, tc.want, said.String())
		}
		for _, s := range tc.says {
			if !strings.Contains(said.String(), s) {
				t.Errorf("%s: %q is missing in\n%s", tc.pkg, s, said.String())
			}
		}
		if strings.Contains(said.String(), tc.never) {
			t.Errorf("%s: %q is in\n%s", tc.pkg, tc.never, said.String())
		}
	}
}

func TestBrokenInput(t *testing.T) {
	for _, tc := range []struct {
		name, in, says string
		want           summary
		fails          bool
	}{
		{"nothing", "", "", summary{}, true},
		{"no JSON", "go: cannot find main module\n", "go: cannot find main module\n", summary{}, true},
		{"interrupted", `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Test":"TestB","Output":"working"}`, "working", summary{1, 1, 0}, false},
	} {
		var said strings.Builder
		got, err := summarize(strings.NewReader(tc.in), &said)
		if got != tc.want || (err != nil) != tc.fails || !strings.Contains(said.String(), tc.says) {
			t.Errorf("%s: %v, error %v, %q", tc.name, got, err, said.String())
		}
	}
}

func TestString(t *testing.T) {
	if got := (summary{12, 3, 4}).String(); got != "12 passed, 3 failed, 4 skipped" {
		t.Error(got)
	}
}
