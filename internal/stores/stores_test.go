// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package stores

import (
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cf-invalidation-tracker/cftrack/store"
)

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	for address, kind := range map[string]string{
		"memory:": "memory", "file:" + filepath.Join(dir, "a"): "file", "file://" + filepath.Join(dir, "b"): "file",
	} {
		st, err := Open(address, nil)
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		if s, err := st.Status(t.Context()); err != nil || s.Kind != kind {
			t.Errorf("%s: %+v, %v", address, s, err)
		}
		if err := st.Close(); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, address := range []string{"", "memory", "memory:x", "file:", "file:~/x", "file://host/x", "/var/lib/cftrack", "dynamodb://t", "mysql://u:hunter2@h/x",
		"redis://u:hunter2@h:port/x", "redis://h?password=hunter2&x=%zz"} {
		_, err := Open(address, nil)
		var e *Error
		if !errors.As(err, &e) || e.Hint == "" {
			t.Errorf("%q: %v", address, err)
		} else if strings.Contains(e.Error()+e.Hint, "hunter2") {
			t.Errorf("%q: %v shows the password", address, err)
		}
	}
}

func TestDefault(t *testing.T) {
	env := map[string]string{"HOME": "/home/ada"}
	get := func(k string) string { return env[k] }
	if a, err := Default(get); err != nil || a != "file:/home/ada/.local/share/cftrack" {
		t.Errorf("%q, %v", a, err)
	}
	env["XDG_DATA_HOME"] = "/data"
	if a, err := Default(get); err != nil || a != "file:/data/cftrack" {
		t.Errorf("%q, %v", a, err)
	}
	clear(env)
	if a, err := Default(get); err == nil {
		t.Errorf("%q without a home", a)
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"memory:":                                     "memory:",
		"file:/a/b:c@d":                               "file:/a/b:c@d",
		"redis://h:6379/0?prefix=x":                   "redis://h:6379/0?prefix=x",
		"redis://user@h":                              "redis://user@h",
		"redis://user:pw@h:1/0":                       "redis://user:xxxxx@h:1/0",
		"redis://:pw@h":                               "redis://:xxxxx@h",
		"rediss://u:p@w@h":                            "rediss://u:xxxxx@h",
		"redis://u:p/w@h":                             "redis://u:xxxxx@h",
		"redis://u:p%zz@h":                            "redis://u:xxxxx@h",
		"redis://u:pw@a:1,b:2/0":                      "redis://u:xxxxx@a:1,b:2/0",
		"redis://a:1,b:2?cluster=true":                "redis://a:1,b:2?cluster=true",
		"redis://h?password=pw&db=1":                  "redis://h?password=xxxxx&db=1",
		"redis://h?password_file=/run/secrets/redis":  "redis://h?password_file=/run/secrets/redis",
		"redis://u:pw@h?password_file=/run/se@crets/": "redis://u:xxxxx@crets/", // hides too much
		"redis://u:12/w@h":                            "redis://u:xxxxx@h",
		"redis://us@er:pw@h":                          "redis://us@er:xxxxx@h",
		"redis://h:1?password_file=/run/se@crets":     "redis://h:1?password_file=/run/se@crets",
	} {
		if got := Redact(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
		if HasSecret(in) != (in != want) {
			t.Errorf("%s: HasSecret %v", in, HasSecret(in))
		}
	}
}

// TestRedactHides: no password survives, whatever is in it, encoded or not.
func TestRedactHides(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		password := "S3CRET" + rapid.StringMatching(`[a-z:/?#@%&=+,;!\[\]~*']{0,12}`).Draw(t, "password") + "S3CRET"
		spelled := password
		if rapid.Bool().Draw(t, "encoded") {
			spelled = url.QueryEscape(password)
		}
		address := rapid.SampledFrom([]string{"redis", "rediss", "redis+unix", "mysql"}).Draw(t, "scheme") + "://" +
			rapid.SampledFrom([]string{"", "user", "us%40er"}).Draw(t, "user") + ":" + spelled + "@" +
			rapid.SampledFrom([]string{"host", "host:6379/0", "a:1,b:2", "[::1]:1"}).Draw(t, "host") +
			rapid.SampledFrom([]string{"", "?prefix=x", "?username=a@b"}).Draw(t, "query")
		if got := Redact(address); strings.Contains(got, "S3CRET") {
			t.Fatalf("%s becomes %s", address, got)
		}
		if !HasSecret(address) {
			t.Fatalf("%s has no secret", address)
		}
	})
}

// A '?' that should have been encoded ends the address early.
func TestRedactHidesBehindAQuestionMark(t *testing.T) {
	for _, address := range []string{"redis://:S3CRET:?S3CRET@host", "redis://u:S3CRET?x@host/0", "rediss://:S3?CRET@h"} {
		if got := Redact(address); strings.Contains(got, "S3") || strings.Contains(got, "CRET") {
			t.Errorf("%s becomes %s", address, got)
		}
	}
	for _, address := range []string{"redis://host:6379/0?username=a@b", "redis://[::1]:1?username=a@b", "redis://a:1,b:2", "memory:"} {
		if got := Redact(address); got != address {
			t.Errorf("%s becomes %s", address, got)
		}
	}
}

// TestRedis opens a real server by its socket.
func TestRedis(t *testing.T) {
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("redis-server is not installed")
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	server := exec.Command(binary, "--port", "0", "--unixsocket", socket, "--dir", dir, "--save", "", "--requirepass", "hunter2")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	file := filepath.Join(dir, "password")
	if err := os.WriteFile(file, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	st, err := Open("redis+unix://"+socket+"?password_file="+file, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s, err := st.Status(t.Context())
		if err == nil {
			if s.Kind != "redis" || strings.Contains(s.Address, "hunter2") {
				t.Errorf("%+v", s)
			}
			return
		}
		if !errors.Is(err, store.ErrUnavailable) || time.Now().After(deadline) {
			t.Fatal(err) // anything but a server that is not up yet
		}
	}
}
