// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/storetest"
)

// These tests run this test binary again as other processes: variables in the
// environment tell it what to be.
const (
	envRole = "FILESTORE_TEST_ROLE"
	envDir  = "FILESTORE_TEST_DIR"
	envName = "FILESTORE_TEST_NAME"
)

// runRole is what a process does that is not here to test. It ends with its
// standard input.
func runRole(role string) error {
	s, err := Open(os.Getenv(envDir), nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	switch role {
	case "owner":
		if s.owner == nil {
			err = errors.New("somebody else owns the database")
			break
		}
		fmt.Println("owns")
		<-ctx.Done()
	case "writer":
		err = write(ctx, s, os.Getenv(envName), func(line string) { fmt.Println(line) })
	}
	return errors.Join(err, s.Close())
}

var (
	sighted = time.Unix(1_700_000_000, 0)
	dies    = sighted.Add(time.Hour)
)

func sight(path string) inventory.Update {
	return inventory.Update{Path: path, Record: inventory.Sighting{End: sighted, Expires: dies}.Record()}
}

// write merges paths that begin with name, and counts in a document that all
// writers share, until ctx is done. It tells what was acknowledged.
func write(ctx context.Context, s *Store, name string, tell func(string)) error {
	for n := 0; ctx.Err() == nil; n += 20 {
		var updates []inventory.Update
		for i := range 20 {
			updates = append(updates, sight(fmt.Sprintf("/%s/%08d", name, n+i)), sight(fmt.Sprintf("/all/%d", i)))
		}
		if err := s.Merge(context.Background(), "d", updates); err != nil {
			return err
		}
		tell(fmt.Sprintf("merged %d", n+20))
		for {
			docs, err := s.List(context.Background(), "d", "count", "", 1)
			if err != nil {
				return err
			}
			count, version := 0, uint64(0)
			if len(docs) > 0 {
				version = docs[0].Version
				if count, err = strconv.Atoi(string(docs[0].Value)); err != nil {
					return err
				}
			}
			_, err = s.Commit(context.Background(), "d", store.Transaction{
				Require: []store.Requirement{{Key: "count", Version: version}},
				Put:     []store.Put{{Key: "count", Value: strconv.AppendInt(nil, int64(count+1), 10)}},
			})
			if err == nil {
				break
			}
			if !errors.Is(err, store.ErrConflict) {
				return err
			}
		}
		tell("counted")
	}
	return nil
}

// A process is another one, whose lines of output are told as they come.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	done  chan struct{} // closed when its output ended
}

func start(tb testing.TB, role, dir, name string, tell func(line string)) *process {
	tb.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envRole+"="+role, envDir+"="+dir, envName+"="+name, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	p := &process{cmd: cmd, stdin: stdin, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			tell(lines.Text())
		}
	}()
	return p
}

// kill ends it as kill -9 does.
func (p *process) kill(tb testing.TB) {
	tb.Helper()
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		tb.Error(err)
	}
	<-p.done
	var exit *exec.ExitError
	if err := p.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		tb.Error(err)
	}
}

// stop lets it end by itself.
func (p *process) stop(tb testing.TB) {
	tb.Helper()
	if err := p.stdin.Close(); err != nil {
		tb.Error(err)
	}
	<-p.done
	if err := p.cmd.Wait(); err != nil {
		tb.Errorf("another process: %v", err)
	}
}

// startOwner starts a process and waits until it owns dir.
func startOwner(tb testing.TB, dir string) *process {
	tb.Helper()
	owns := make(chan struct{})
	p := start(tb, "owner", dir, "", func(line string) {
		if line == "owns" {
			close(owns)
		}
	})
	select {
	case <-owns:
	case <-p.done:
		tb.Fatal("the process that was to own the database ended")
	}
	return p
}

// TestStoreOfAnotherProcess runs the suite through the socket, on databases that
// other processes own and lose.
func TestStoreOfAnotherProcess(t *testing.T) {
	storetest.Run(t, otherProcess())
}

// BenchmarkStoreOfAnotherProcess is what a process has that came second.
func BenchmarkStoreOfAnotherProcess(b *testing.B) { storetest.Bench(b, otherProcess()) }

func otherProcess() storetest.Harness {
	var mu sync.Mutex
	owners := map[string]*process{} // by directory
	follow := func(tb testing.TB, dir string) store.Store { return open(tb, dir, &Options{follow: true}) }
	return storetest.Harness{
		Open: func(tb testing.TB) store.Store {
			dir := tb.TempDir()
			p := startOwner(tb, dir)
			mu.Lock()
			defer mu.Unlock()
			owners[dir] = p
			tb.Cleanup(func() {
				mu.Lock()
				defer mu.Unlock()
				owners[dir].stop(tb)
			})
			return follow(tb, dir)
		},
		Reopen: func(tb testing.TB, s store.Store) store.Store { return follow(tb, s.(*Store).dir) },
		Crash: func(tb testing.TB, s store.Store) {
			mu.Lock()
			defer mu.Unlock()
			dir := s.(*Store).dir
			owners[dir].kill(tb)
			owners[dir] = startOwner(tb, dir)
		},
	}
}

// TestOwnerIsKilled kills whoever owns the database, again and again, under
// processes that write; they find a new owner among themselves.
func TestOwnerIsKilled(t *testing.T) {
	const writers, kills = 3, 6
	dir := t.TempDir()
	var (
		mu      sync.Mutex
		merged  = map[string]int{}
		counted int
		lines   = make(chan string, 1000)
	)
	next := 0
	spawn := func() *process {
		name := fmt.Sprintf("w%d", next)
		next++
		return start(t, "writer", dir, name, func(line string) {
			mu.Lock()
			defer mu.Unlock()
			select {
			case lines <- line:
			default: // enough of them wait to be counted
			}
			if n, ok := strings.CutPrefix(line, "merged "); ok {
				var err error
				if merged[name], err = strconv.Atoi(n); err != nil {
					t.Errorf("%s says %q", name, line)
				}
			} else if line == "counted" {
				counted++
			}
		})
	}
	running := map[int]*process{}
	for range writers {
		p := spawn()
		running[p.cmd.Process.Pid] = p
	}
	progress := func() {
		t.Helper()
		for len(lines) > 0 {
			<-lines
		}
		late := time.After(time.Minute)
		for range 100 {
			select {
			case <-lines:
			case <-late:
				t.Fatal("the writers stand still")
			}
		}
		for pid, p := range running {
			select {
			case <-p.done:
				t.Fatalf("writer %d ended by itself: %v", pid, p.cmd.Wait())
			default:
			}
		}
	}
	for range kills {
		progress()
		b, err := os.ReadFile(filepath.Join(dir, "lock"))
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		owner := running[pid]
		if owner == nil {
			t.Fatalf("%d owns the database, and is none of ours", pid)
		}
		owner.kill(t)
		delete(running, pid)
		p := spawn()
		running[p.cmd.Process.Pid] = p
	}
	progress()
	left := kills
	for _, p := range running {
		if left++; left%2 == 0 {
			p.stop(t)
		} else {
			p.kill(t)
		}
	}

	s := open(t, dir, nil)
	there := map[string]bool{}
	for e, err := range s.Scan(t.Context(), "d", store.Range{Now: sighted}) {
		if err != nil {
			t.Fatal(err)
		}
		there[e.Path] = true
	}
	all := 0
	for name, n := range merged {
		all += n
		for i := range n {
			if path := fmt.Sprintf("/%s/%08d", name, i); !there[path] {
				t.Fatalf("%s was acknowledged and is gone", path)
			}
		}
	}
	docs, err := s.List(t.Context(), "d", "count", "", 0)
	if err != nil || len(docs) != 1 {
		t.Fatalf("documents %v, %v", docs, err)
	}
	// Of each that was killed, one count may have happened and not been told.
	if n, err := strconv.Atoi(string(docs[0].Value)); err != nil || n < counted || n > counted+left {
		t.Errorf("counted %s, want %d to %d", docs[0].Value, counted, counted+left)
	}
	t.Logf("%d merges and %d commits acknowledged", all, counted)
}
