// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package redisstore_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A server is a real redis-server of the test's own.
type server struct {
	tb   testing.TB
	dir  string
	args []string
	port int // 0: on a socket
	cmd  *exec.Cmd
	out  bytes.Buffer
}

// start starts a server on a socket, or on a free port if tcp is true, with
// arguments of redis-server behind its defaults: nothing is persisted.
func start(tb testing.TB, tcp bool, args ...string) *server {
	tb.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		tb.Skip("redis-server is not installed")
	}
	dir, err := os.MkdirTemp("", "rs") // t.TempDir may be too long for a socket
	if err != nil {
		tb.Fatal(err)
	}
	s := &server{tb: tb, dir: dir, args: args}
	if tcp {
		s.port = freePort(tb)
	}
	tb.Cleanup(func() {
		s.kill()
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	s.up()
	return s
}

func freePort(tb testing.TB) int {
	tb.Helper()
	// A Cluster's nodes also use the port 10,000 above.
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		if err := l.Close(); err != nil {
			tb.Fatal(err)
		}
		if port < 55_000 {
			return port
		}
	}
}

// up starts the process and waits until it accepts connections.
func (s *server) up() {
	s.tb.Helper()
	args := []string{"--dir", s.dir, "--save", "", "--appendonly", "no", "--daemonize", "no", "--bind", "127.0.0.1",
		"--port", strconv.Itoa(s.port), "--slowlog-log-slower-than", "3000"}
	if s.port == 0 {
		args = append(args, "--unixsocket", s.socket())
	}
	s.cmd = exec.Command("redis-server", append(args, s.args...)...)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		s.tb.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		if reply, err := s.ping(); err == nil && !strings.HasPrefix(reply, "-LOADING") {
			return
		}
		if time.Now().After(deadline) {
			s.kill()
			s.tb.Fatalf("redis-server does not answer: %s", s.out.String())
		}
		time.Sleep(5 * time.Millisecond) // another process starts: there is nothing to wait on
	}
}

func (s *server) socket() string { return filepath.Join(s.dir, "s") }

func (s *server) dial() (net.Conn, error) {
	if s.port == 0 {
		return net.Dial("unix", s.socket())
	}
	return net.Dial("tcp", s.host())
}

func (s *server) host() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

func (s *server) ping() (string, error) {
	c, err := s.dial()
	if err != nil {
		return "", err
	}
	defer c.Close() //nolint:errcheck // it was only to see whether one is there
	if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, "PING\r\n"); err != nil {
		return "", err
	}
	return bufio.NewReader(c).ReadString('\n')
}

// kill ends the process as kill -9 does.
func (s *server) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}

// cli runs redis-cli and returns what it prints.
func (s *server) cli(args ...string) string {
	s.tb.Helper()
	to := []string{"-s", s.socket()}
	if s.port != 0 {
		to = []string{"-p", strconv.Itoa(s.port)}
	}
	out, err := exec.Command("redis-cli", append(to, args...)...).CombinedOutput()
	if err != nil {
		s.tb.Fatalf("redis-cli %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// address returns the store's address on the server.
func (s *server) address(query string) string {
	if s.port == 0 {
		return "redis+unix://" + s.socket() + "?" + query
	}
	return "redis://" + s.host() + "/?" + query
}
