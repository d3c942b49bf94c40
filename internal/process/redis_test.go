// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A redisServer is a real redis-server of a test's own, which asks for a password.
type redisServer struct {
	tb       testing.TB
	dir      string
	password string
	sentinel bool
	cmd      *exec.Cmd
	out      output
}

// startRedis starts a server with lines of its configuration.
func startRedis(tb testing.TB, config ...string) *redisServer {
	tb.Helper()
	s := newRedis(tb, config...)
	s.up()
	return s
}

func newRedis(tb testing.TB, config ...string) *redisServer {
	tb.Helper()
	for _, name := range []string{"redis-server", "redis-cli"} {
		if _, err := exec.LookPath(name); err != nil {
			tb.Skipf("%s is not installed", name)
		}
	}
	dir, err := os.MkdirTemp("", "rp")
	if err != nil {
		tb.Fatal(err)
	}
	s := &redisServer{tb: tb, dir: dir, password: "pw-" + rand.Text()}
	tb.Cleanup(func() {
		s.kill()
		if tb.Failed() {
			tb.Logf("redis-server said:\n%s", s.out.tail())
		}
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	s.configure(config...)
	return s
}

// configure writes the configuration: what it says stands in no command line.
func (s *redisServer) configure(config ...string) {
	s.tb.Helper()
	text := fmt.Sprintf("bind 127.0.0.1\nport 0\nunixsocket %s\ndir %s\nsave \"\"\nrequirepass %s\n%s\n",
		s.socket(), s.dir, s.password, strings.Join(config, "\n"))
	if err := os.WriteFile(filepath.Join(s.dir, "redis.conf"), []byte(text), 0o600); err != nil {
		s.tb.Fatal(err)
	}
}

func (s *redisServer) socket() string { return filepath.Join(s.dir, "s") }

// address is the store's, with the password in it.
func (s *redisServer) address() string {
	return "redis+unix://:" + s.password + "@" + s.socket()
}

// up starts the process and waits until it has loaded its data.
func (s *redisServer) up() {
	s.tb.Helper()
	s.cmd = exec.Command("redis-server", filepath.Join(s.dir, "redis.conf"))
	if s.sentinel {
		s.cmd.Args = append(s.cmd.Args, "--sentinel")
	}
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		s.tb.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if reply, err := s.try("PING"); err == nil && reply == "PONG" {
			return
		}
		if time.Now().After(deadline) {
			s.tb.Fatalf("redis-server does not answer: %s", s.out.tail())
		}
	}
}

// kill ends it as kill -9 does.
func (s *redisServer) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}

// try runs redis-cli.
func (s *redisServer) try(args ...string) (string, error) {
	cmd := exec.Command("redis-cli", append([]string{"-s", s.socket()}, args...)...)
	cmd.Env = append(os.Environ(), "REDISCLI_AUTH="+s.password)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// do runs a command that has to work.
func (s *redisServer) do(args ...string) string {
	s.tb.Helper()
	out, err := s.try(args...)
	if err != nil || strings.HasPrefix(out, "ERR") {
		s.tb.Fatalf("redis-cli %v: %v: %s", args, err, out)
	}
	return out
}

// freePort finds a port to listen on later. It is none of those that the system gives
// to connections, which could take it in between.
func freePort(tb testing.TB) int {
	tb.Helper()
	for range 1000 {
		port := 10000 + mathrand.IntN(20000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = l.Close() // it was only to see
			return port
		}
	}
	tb.Fatal("no port is free")
	return 0
}
