// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package ancestor_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/redisstore"
)

// A redis is a real redis-server.
type redis struct {
	*testing.T
	port     int
	password string
}

// startRedis starts a server on a free port, with a password unless that is "".
func startRedis(t *testing.T, password string) *redis {
	t.Helper()
	alone(t)
	for _, program := range []string{"redis-server", "redis-cli"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(program + " is not installed")
		}
	}
	for range 5 { // somebody else may get the port first
		r := &redis{T: t, port: freePort(t), password: password}
		cmd := exec.Command("redis-server", "--port", strconv.Itoa(r.port), "--bind", "127.0.0.1",
			"--save", "", "--dir", t.TempDir(), "--requirepass", password)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if strings.Contains(lines.Text(), "Ready to accept connections") {
				t.Cleanup(func() {
					_ = cmd.Process.Kill()
					for lines.Scan() { // until the pipe ends, as Wait closes it
					}
					_ = cmd.Wait() // killed, it says
				})
				return r
			}
		}
		_ = cmd.Wait() // it could not listen
	}
	t.Fatal("redis-server does not start")
	return nil
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // it was only to learn the port
	return l.Addr().(*net.TCPAddr).Port
}

func (r *redis) host() string { return "127.0.0.1:" + strconv.Itoa(r.port) }

// do runs redis-cli with a command.
func (r *redis) do(args ...string) string {
	r.Helper()
	cmd := exec.Command("redis-cli", append([]string{"-p", strconv.Itoa(r.port)}, args...)...)
	if r.password != "" {
		cmd.Env = append(os.Environ(), "REDISCLI_AUTH="+r.password)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.Fatalf("redis-cli %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// open makes a site on a Redis, in real time.
func (r *redis) open(address string, o *redisstore.Options) *site {
	r.Helper()
	st, err := redisstore.Open(address, o)
	if err != nil {
		r.Fatal(err)
	}
	s := open(r.T, st, simulator.Limits{})
	s.real = true
	return s
}

func TestRedisByURL(t *testing.T) {
	r := startRedis(t, "se:cr@et")
	r.open(fmt.Sprintf("redis://default:se%%3Acr%%40et@%s/3?prefix=purge", r.host()), nil).works()
	for db, want := range map[string]bool{"0": false, "3": true} {
		keys := r.do("-n", db, "--scan", "--pattern", "purge*")
		if all := r.do("-n", db, "dbsize"); (keys != "") != want || (all != "0") != want {
			t.Errorf("database %s holds %q, %s keys in all", db, keys, all)
		}
	}
}

func TestRedisByHostPortPassword(t *testing.T) {
	r := startRedis(t, "secret")
	r.open("redis://"+r.host(), &redisstore.Options{Password: "secret"}).works()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.open("redis://"+r.host()+"?prefix=other&password_file="+file, nil).works()

	wrong, err := redisstore.Open("redis://"+r.host(), &redisstore.Options{Password: "guessed"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := wrong.Close(); err != nil {
			t.Error(err)
		}
	}()
	_, err = wrong.Now(t.Context())
	if !errors.Is(err, store.ErrUnavailable) || strings.Contains(err.Error(), "guessed") || !strings.Contains(err.Error(), r.host()) {
		t.Errorf("with a wrong password: %v", err)
	}
}

// The old kind of URL carries a user name that the server does not know: then
// the password alone is tried.
func TestRedisOldUserName(t *testing.T) {
	r := startRedis(t, "secret")
	r.open("redis://anything:secret@"+r.host(), nil).works()
	if acl := r.do("acl", "users"); acl != "default" {
		t.Errorf("the server knows %q", acl)
	}
}

// The fault: KEYS * to list and FLUSHDB to clear, so that what others had in the
// database was sent to CloudFront and then gone.
func TestFaultKeysAndFlushOnASharedRedis(t *testing.T) {
	r := startRedis(t, "")
	foreign := map[string]string{"/p/0001": "an old tracker's", "session:7": "somebody's", "cftrackers": "a neighbour's", "{E1}": "a fourth's"}
	for k, v := range foreign {
		r.do("set", k, v)
	}
	other := r.open("redis://"+r.host()+"?prefix=other", nil)
	other.storeURL("/other", 0)
	other.stored()
	s := r.open("redis://"+r.host(), nil)
	for i := range 2500 {
		s.storeURL(fmt.Sprintf("/p/%04d", i), 0)
	}
	stored := s.tracked()
	rep := s.sent()
	if _, items := s.batches(); len(stored) != 2500 || strings.Join(items, " ") != strings.Join(stored, " ") || rep.State != journal.Completed {
		t.Errorf("%s: stored %d, sent %d", rep.State, len(stored), len(items))
	}
	s.want("tracked", s.tracked())
	if _, err := s.st.Sweep(context.Background(), dist, rep.Cut); err != nil {
		t.Error(err)
	}

	// Before anything is asked that counts as a command of the store's.
	stats := r.do("info", "commandstats")
	if !strings.Contains(stats, "cmdstat_eval") && !strings.Contains(stats, "cmdstat_hset") {
		t.Errorf("the commands were not counted:\n%s", stats)
	}
	for _, never := range []string{"keys", "flushdb", "flushall", "scan", "swapdb", "debug", "sort", "monitor"} {
		if strings.Contains(stats, "cmdstat_"+never+":") {
			t.Errorf("the store used %s", never)
		}
	}
	for k, v := range foreign {
		if got := r.do("get", k); got != v {
			t.Errorf("%s is %q, was %q", k, got, v)
		}
	}
	other.want("tracked under another prefix", other.tracked(), "/other")
}
