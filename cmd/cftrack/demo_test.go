// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The rest of the demo is tested in its package.
func TestDemo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"index.html", "a/index.html", "a/1.html", "b/index.html", "b/1.html", "b/site.css"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"demo", "--site", dir, "--output", "json"}, nil, &stdout, &stderr, nil); code != exitDone {
		t.Fatalf("exit code %d\n%s", code, stderr.String())
	}
	var got struct {
		Pages, Fetched, Selected, Items, Stale int
		Hits                                   *int `json:"unselected_hits"`
		Change                                 string
	}
	d := json.NewDecoder(&stdout)
	if err := d.Decode(&got); err != nil || d.More() {
		t.Fatalf("%v, more: %v", err, d.More())
	}
	if got.Pages != 9 || got.Fetched != 26 || got.Selected != 5 || got.Stale != 0 || got.Hits == nil || *got.Hits != 12 || got.Change != "*.html" {
		t.Errorf("%+v", got)
	}
	if stderr.Len() > 0 {
		t.Errorf("beside the object: %s", stderr.String())
	}

	for _, tc := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"demo", "--site", filepath.Join(dir, "none")}, exitUsage, "no such file"},
		{[]string{"demo", "--site", dir, "--change", "/none/*/x"}, exitFailed, "--change"},
		{[]string{"demo", "more"}, exitUsage, "no arguments"},
	} {
		stderr.Reset()
		if code := run(t.Context(), tc.args, nil, io.Discard, &stderr, nil); code != tc.code || !strings.Contains(stderr.String(), tc.says) {
			t.Errorf("%q: exit code %d, want %d: %s", tc.args, code, tc.code, stderr.String())
		}
	}
}

// With --keep everything goes on until the context is done.
func TestDemoKeep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"a.html", "b.css"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	story, w := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"demo", "--keep", "--site", dir}, nil, w, w, nil)
		_ = w.Close()
	}()
	var env []string
	var told bool
	for lines := bufio.NewScanner(story); lines.Scan(); {
		told = told || strings.Contains(lines.Text(), "Proof")
		if kv, ok := strings.CutPrefix(lines.Text(), "export "); ok {
			env = append(env, kv)
		}
		if strings.HasPrefix(lines.Text(), "Ctrl-C") {
			break
		}
	}
	if !told {
		t.Error("no word of the proof")
	}
	if out := asProcess(t, env, "list"); !strings.Contains(out, "/a.html") || !strings.Contains(out, "/b.css") {
		t.Errorf("list: %s", out)
	}
	asProcess(t, env, "invalidate", "/a.html", "--now")
	stop()
	if rest, err := io.ReadAll(story); err != nil || len(rest) > 0 {
		t.Errorf("afterwards: %q, %v", rest, err)
	}
	if got := <-code; got != exitDone {
		t.Errorf("exit code %d", got)
	}
}

func TestSimulate(t *testing.T) {
	t.Parallel()
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = io.WriteString(w, r.RequestURI)
	}))
	defer origin.Close()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	stdout, w := io.Pipe()
	var stderr bytes.Buffer
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{
			"simulate", "--origin", origin.URL, "--listen", ":0", "--edges", "2", "--propagation", "0", "--completion", "0",
			"--distribution", "E2EXAMPLE", "--output", "json",
		}, nil, w, &stderr, nil)
		_ = w.Close()
	}()
	var ready struct {
		API, Distribution string
		Edges             []string
	}
	if err := json.NewDecoder(stdout).Decode(&ready); err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	if len(ready.Edges) != 2 || ready.Distribution != "E2EXAMPLE" || !strings.HasPrefix(ready.API, "http://127.0.0.1:") {
		t.Fatalf("%+v", ready)
	}
	ask := func(edge int, want string) {
		t.Helper()
		resp, err := http.Get(ready.Edges[edge] + "/page")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if got := resp.Header.Get("X-Cache"); got != want {
			t.Errorf("X-Cache %q, want %q", got, want)
		}
	}
	ask(0, "Miss from cloudfront")
	ask(0, "Hit from cloudfront")
	ask(1, "Miss from cloudfront")
	asProcess(t, []string{
		"AWS_ENDPOINT_URL_CLOUDFRONT=" + ready.API, "AWS_ACCESS_KEY_ID=any", "AWS_SECRET_ACCESS_KEY=any",
		"CFTRACK_STORE=memory:", "CFTRACK_DISTRIBUTION=E2EXAMPLE",
	}, "invalidate", "/page")
	ask(0, "Miss from cloudfront")
	ask(1, "Miss from cloudfront")
	ask(1, "Hit from cloudfront")
	stop()
	if got := <-code; got != exitDone {
		t.Errorf("exit code %d: %s", got, stderr.String())
	}
	http.DefaultClient.CloseIdleConnections()
}

// asProcess runs the command as a process, since the SDK reads its process's
// environment, which is this and nothing else.
func asProcess(t *testing.T, env []string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "cftrack", args...) // testscript.Main has put it on PATH
	cmd.Env = append(env, "HOME="+t.TempDir(), "AWS_EC2_METADATA_DISABLED=true")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v: %s", args, err, stderr.String())
	}
	return string(out)
}

func TestSimulateRefused(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"simulate"}, exitUsage, "--origin"},
		{[]string{"simulate", "--origin", "ftp://host"}, exitUsage, "http://"},
		{[]string{"simulate", "--origin", "http://127.0.0.1:9", "--listen", "4580"}, exitUsage, "HOST:PORT"},
		{[]string{"simulate", "--origin", "http://127.0.0.1:9", "--edges", "-1"}, exitUsage, "edges"},
		{[]string{"simulate", "--origin", "http://127.0.0.1:9", "--listen", "127.0.0.1:65535"}, exitFailed, "--listen"},
	} {
		var stderr bytes.Buffer
		if code := run(t.Context(), tc.args, nil, io.Discard, &stderr, nil); code != tc.code || !strings.Contains(stderr.String(), tc.says) {
			t.Errorf("%q: exit code %d, want %d: %s", tc.args, code, tc.code, stderr.String())
		}
	}
}
