// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cf-invalidation-tracker/cftrack/simulator"
)

// A screen is what somebody sees who sits at the other end of a terminal.
type screen struct {
	keyboard, tty *os.File
	mu            sync.Mutex
	seen          bytes.Buffer
}

func newScreen(t *testing.T, columns uint16) *screen {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: columns}); err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{keyboard: master, tty: tty}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(s, master) // ends when the last of the terminal is closed
	}()
	t.Cleanup(func() {
		_ = tty.Close()
		<-done
		_ = master.Close()
	})
	return s
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.Write(p)
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.String()
}

// shows waits until a text is on the screen.
func (s *screen) shows(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(s.text(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %q on the screen:\n%s", text, s.text())
		}
	}
}

// A plan reads the same on a terminal as elsewhere, but for its colours, which NO_COLOR
// and dumb terminals do without.
func TestPlanOnATerminal(t *testing.T) {
	env := testEnv(t)
	if code, _, stderr := invoke(t, env, "", "record", "/a", "/it's", "/~b", "/blog/"+strings.Repeat("long-", 50)); code != 0 {
		t.Fatal(stderr)
	}
	for _, columns := range []uint16{80, 160} {
		_, plain, _ := invoke(t, append(env, fmt.Sprintf("COLUMNS=%d", columns)), "", "plan", "*", "/x*y", "--compare", "--explain", "/a")
		for _, c := range []struct {
			env      string
			coloured bool
		}{{"TERM=xterm", true}, {"TERM=dumb", false}, {"NO_COLOR=1", false}} {
			s := newScreen(t, columns)
			if code := run(t.Context(), []string{"plan", "*", "/x*y", "--compare", "--explain", "/a"}, s.tty, s.tty, s.tty, append(env, c.env)); code != 0 {
				t.Fatalf("exit %d: %s", code, s.text())
			}
			fmt.Fprintln(s.tty, "the end")
			s.shows(t, "the end")
			got := strings.ReplaceAll(strings.TrimSuffix(s.text(), "the end\r\n"), "\r\n", "\n")
			if bare := painted.ReplaceAllString(got, ""); bare != plain {
				t.Errorf("%d columns, %s:\n%s\nnot\n%s", columns, c.env, bare, plain)
			}
			if coloured := strings.Contains(got, "\x1b[1mPlan for"); coloured != c.coloured || coloured != strings.Contains(got, "\x1b[") {
				t.Errorf("%d columns, %s: coloured: %v", columns, c.env, coloured)
			}
		}
	}
}

func TestTerminal(t *testing.T) {
	sim, err := simulator.New(nil, &simulator.Options{Distribution: "E1", Propagation: -1, Completion: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer sim.Close()
	if err := sim.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	api, _ := sim.URLs()
	for k, v := range map[string]string{"AWS_ENDPOINT_URL_CLOUDFRONT": api, "AWS_ACCESS_KEY_ID": "example", "AWS_SECRET_ACCESS_KEY": "example",
		"AWS_EC2_METADATA_DISABLED": "true"} {
		t.Setenv(k, v)
	}
	env := append(testEnv(t), "TERM=xterm")
	if code, _, stderr := invoke(t, env, "", "record", "/a", "/b"); code != 0 {
		t.Fatal(stderr)
	}

	type result struct {
		code   int
		stdout string
	}
	start := func(ctx context.Context, s *screen, args ...string) <-chan result {
		done := make(chan result, 1)
		go func() {
			var out bytes.Buffer
			code := run(ctx, args, s.tty, &out, s.tty, env)
			done <- result{code, out.String()}
		}()
		return done
	}

	bounded, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	s := newScreen(t, 80)
	done := start(bounded, s, "invalidate", "/a", "--now")
	s.shows(t, "Send 1 item to E1, for at most $0.00? [y/N] ")
	fmt.Fprintln(s.keyboard, "n")
	if r := <-done; r.code != exitUndone || sim.Billed() != 0 {
		t.Errorf("declined: exit %d, billed %d", r.code, sim.Billed())
	}
	s.shows(t, "nothing was sent")
	s.shows(t, "\x1b[1mPlan for E1: /a\x1b[0m")

	s = newScreen(t, 80)
	done = start(bounded, s, "invalidate", "/a", "--now", "--output", "json")
	s.shows(t, "[y/N] ")
	fmt.Fprintln(s.keyboard, "y")
	if r := <-done; r.code != exitDone || sim.Billed() != 1 || !strings.Contains(r.stdout, `"state":"completed"`) {
		t.Errorf("confirmed: exit %d, billed %d\n%s", r.code, sim.Billed(), r.stdout)
	}
	s.shows(t, "\r\x1b[K")

	// --yes does not ask.
	s = newScreen(t, 80)
	if r := <-start(bounded, s, "invalidate", "/b", "--now", "--yes"); r.code != exitDone || sim.Billed() != 2 || strings.Contains(s.text(), "[y/N]") {
		t.Errorf("--yes: exit %d, billed %d\n%s", r.code, sim.Billed(), s.text())
	}

	// A signal instead of an answer sends nothing.
	ctx, cancel := context.WithCancel(bounded)
	s = newScreen(t, 80)
	done = start(ctx, s, "invalidate", "/c")
	s.shows(t, "[y/N] ")
	cancel()
	if r := <-done; r.code != exitUndone || sim.Billed() != 2 {
		t.Errorf("interrupted: exit %d, billed %d", r.code, sim.Billed())
	}
	s.shows(t, "interrupted; nothing was sent")
	fmt.Fprintln(s.keyboard) // frees the reader of the answer
}
