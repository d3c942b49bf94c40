// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// The public test suite for HTTP caches (https://github.com/http-tests/cache-tests), run against an edge:
// what differs from what it expects is what docs/http-cache-tests.md lists, with the reason.
func TestHTTPCacheSuite(t *testing.T) {
	suite := os.Getenv("CFTRACK_CACHE_TESTS")
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is missing")
	}
	if suite == "" {
		t.Skip("CFTRACK_CACHE_TESTS does not say where the suite is: testdata/cachetests/install.sh gets it")
	}
	doc, err := os.ReadFile("../docs/http-cache-tests.md")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^- `([^`]+)`").FindAllStringSubmatch(string(doc), -1) {
		if want[m[1]] {
			t.Errorf("%s is listed twice", m[1])
		}
		want[m[1]] = true
	}

	config, err := os.ReadFile("testdata/cachetests/cloudfront.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewForURL(suiteOrigin(t, suite), &Options{Edges: 1, Config: load(t, string(config))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	_, edges := s.URLs()
	results := map[string]json.RawMessage{}
	if err := json.Unmarshal(runSuite(t, suite, edges[0], ""), &results); err != nil {
		t.Fatal(err)
	}
	if len(results) < 300 {
		t.Fatalf("only %d tests ran", len(results))
	}
	differs := 0
	for _, id := range slices.Sorted(maps.Keys(results)) {
		passed := string(results[id]) == "true"
		if !passed {
			differs++
		}
		if passed != want[id] {
			continue
		}
		// They measure seconds; a machine that is busy gets a second try.
		passed = regexp.MustCompile(`(?m)^.*(✅|Y) - *$`).Match(runSuite(t, suite, edges[0], id))
		switch {
		case !passed && !want[id]:
			t.Errorf("%s: %s, and docs/http-cache-tests.md does not list it", id, results[id])
		case passed && want[id]:
			t.Errorf("%s passes, but docs/http-cache-tests.md lists it", id)
		}
	}
	for id := range want {
		if results[id] == nil {
			t.Errorf("docs/http-cache-tests.md lists %s, which the suite does not have", id)
		}
	}
	t.Logf("%d tests, %d as the suite expects, %d not", len(results), len(results)-differs, differs)
}

// suiteOrigin runs the server of the suite, and returns its address.
func suiteOrigin(t *testing.T, suite string) string {
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "node", "--no-warnings", "server/server.mjs")
	cmd.Dir = suite
	cmd.Env = append(os.Environ(), "npm_config_protocol=http", "npm_config_port=0", "npm_config_pidfile="+filepath.Join(t.TempDir(), "pid"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if _, port, ok := strings.Cut(strings.TrimSuffix(lines.Text(), "/"), "]:"); ok {
			return "http://127.0.0.1:" + port
		}
	}
	t.Fatal("the origin of the suite did not say where it listens")
	return ""
}

// runSuite runs all tests, or the one of an ID.
func runSuite(t *testing.T, suite, base, id string) []byte {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "--no-warnings", "cli.mjs")
	cmd.Dir = suite
	cmd.Env = append(os.Environ(), "npm_config_base="+base, "npm_package_config_id=")
	if id != "" {
		cmd.Env = append(cmd.Env, "npm_config_id="+id)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	return out
}
