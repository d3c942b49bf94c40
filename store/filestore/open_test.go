// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

func TestOpenSaysWhatIsWrong(t *testing.T) {
	write := func(name, text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700),
				os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tc := range []struct {
		name    string
		prepare func(t *testing.T, dir string)
		fault   error
		says    []string
	}{
		{"a file", write(".", ""), nil, []string{"not a directory", "name a directory"}},
		{"below a file", func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Dir(dir), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, nil, []string{"not a directory", "name a directory"}},
		{"a newer layout", write("format", "cftrack file store 2\n"), nil, []string{`"cftrack file store 2"`, "newer cftrack"}},
		{"something else", write("format", strings.Repeat("x", 1<<20)), nil, []string{"its format is"}},
		{"not to be written", nil, syscall.EACCES, []string{"permission denied", "must be able to write"}},
		{"read-only", nil, syscall.EROFS, []string{"read-only file system", "on another one"}},
		{"full", nil, syscall.ENOSPC, []string{"no space left", "make room"}},
		{"a newer database", func(t *testing.T, dir string) {
			s, err := Open(dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			markers, err := filepath.Glob(filepath.Join(dir, "db", "marker.format-version.*"))
			if err != nil || len(markers) != 1 {
				t.Fatalf("markers %q, %v", markers, err)
			}
			name := markers[0]
			if err := os.Rename(name, name[:len(name)-3]+"999"); err != nil {
				t.Fatal(err)
			}
		}, nil, []string{"format"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "parent", "dir")
			if tc.name != "a file" && tc.name != "below a file" {
				if err := os.MkdirAll(dir, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if tc.name == "below a file" {
				dir = filepath.Join(filepath.Dir(filepath.Dir(dir)), "file", "dir")
			}
			if tc.prepare != nil {
				tc.prepare(t, dir)
			}
			opts := &Options{}
			if tc.fault != nil {
				disk := &faultyDisk{FS: vfs.Default}
				fault := func(op, _ string) error {
					if op == "opendir" {
						return nil
					}
					return tc.fault
				}
				disk.fault.Store(&fault)
				opts.disk = disk
			}
			s, err := Open(dir, opts)
			if err == nil {
				t.Fatal(errors.Join(errors.New("opened"), s.Close()))
			}
			var detail *store.Error
			if !errors.As(err, &detail) || detail.Store != "file:"+dir || !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrFull) {
				t.Errorf("%#v", err)
			}
			for _, says := range tc.says {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("%v\ndoes not say %q", err, says)
				}
			}
			if len(err.Error()) > 1000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
}

func TestLongNames(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc/self/fd, which only Linux has")
	}
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120), strings.Repeat("e", 120))
	owner, other := open(t, dir, nil), open(t, dir, nil)
	if err := other.Merge(t.Context(), "d", []inventory.Update{sight("/")}); err != nil || other.owner != nil {
		t.Fatalf("through the socket: %v", err)
	}
	if err := owner.Close(); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range other.Scan(t.Context(), "d", store.Range{Now: sighted}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 1 || other.owner == nil {
		t.Errorf("%d entries after taking over", n)
	}
}

func TestNobodyElseMayLookIn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	s := open(t, dir, nil)
	for name, want := range map[string]os.FileMode{"": os.ModeDir | 0o700, "socket": os.ModeSocket | 0o600, "lock": 0o600, "format": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode() & (os.ModeType | os.ModePerm); got != want {
			t.Errorf("%q has mode %v, want %v", name, got, want)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "socket")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// TestStaleSocket: what a killed owner leaves behind is in nobody's way, even
// where it is no socket at all.
func TestStaleSocket(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "socket"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, dir, nil)
	if err := open(t, dir, nil).Merge(t.Context(), "d", nil); err != nil {
		t.Fatal(err)
	}
}

// TestScanMovesHouse: a scan whose owner leaves goes on with the next, and yields
// each entry once.
func TestScanMovesHouse(t *testing.T) {
	const n = 30_000
	dir := t.TempDir()
	owner, s := open(t, dir, nil), open(t, dir, nil)
	var updates []inventory.Update
	for i := range n {
		updates = append(updates, sight(string([]byte{'/', byte(i >> 16), byte(i >> 8), byte(i)})+strings.Repeat("x", 100)))
	}
	if err := owner.Merge(t.Context(), "d", updates); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for e, err := range s.Scan(t.Context(), "d", store.Range{Now: sighted}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Path != updates[seen].Path {
			t.Fatalf("entry %d is %q", seen, e.Path)
		}
		if seen++; seen == n/2 {
			if err := owner.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if seen != n || s.owner == nil {
		t.Errorf("%d entries, want %d", seen, n)
	}
}

// TestOtherProtocol: versions that do not understand each other say so.
func TestOtherProtocol(t *testing.T) {
	dir := t.TempDir()
	owner, s := open(t, dir, nil), open(t, dir, nil)
	if err := owner.Close(); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	listener, err := s.client.sock.listen()
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(protocolHeader, "2")
		http.NotFound(w, r)
	})}
	served := make(chan error)
	go func() { served <- server.Serve(listener) }()
	_, err = s.List(t.Context(), "d", "", "", 0)
	if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), `protocol "2"`) || !strings.Contains(err.Error(), "same version") {
		t.Errorf("%v", err)
	}
	if err := errors.Join(server.Close(), lock.Close()); err != nil {
		t.Error(err)
	}
	<-served
}

// entriesOf reads a stream to its end.
func entriesOf(b []byte) (entries []inventory.Entry, err error) {
	for r := (entryReader{r: bufio.NewReader(bytes.NewReader(b))}); ; {
		e, err := r.next()
		if errors.Is(err, io.EOF) {
			return entries, nil
		}
		if err != nil {
			return entries, err
		}
		entries = append(entries, e)
	}
}

func FuzzEntries(f *testing.F) {
	var record []byte
	u := sight("/a")
	e := u.Record.Entry("/a")
	f.Add(appendEnd(appendEntry(nil, &e, &record)))
	f.Add(appendEnd(nil))
	f.Add(appendEntry(nil, &e, &record))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := entriesOf(b)
		if err != nil {
			return
		}
		var again, record []byte
		for i := range entries {
			again = appendEntry(again, &entries[i], &record)
		}
		if got, err := entriesOf(appendEnd(again)); err != nil || len(got) != len(entries) {
			t.Fatalf("%d entries became %d: %v", len(entries), len(got), err)
		}
	})
}

// TestCutOffStreams: no part of a stream of entries passes for the whole.
func TestCutOffStreams(t *testing.T) {
	var whole, record []byte
	for _, path := range []string{"/a", "/b", ""} {
		u := sight(path)
		e := u.Record.Entry(path)
		whole = appendEntry(whole, &e, &record)
	}
	whole = appendEnd(whole)
	if entries, err := entriesOf(whole); err != nil || len(entries) != 3 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for n := range whole {
		if _, err := entriesOf(whole[:n]); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("after %d of %d bytes: %v", n, len(whole), err)
		}
	}
}

func FuzzUpdates(f *testing.F) {
	f.Add(appendUpdates(nil, "d", []inventory.Update{sight("/a"), sight("")}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		distribution, updates, err := parseUpdates(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		d, again, err := parseUpdates(bufio.NewReader(bytes.NewReader(appendUpdates(nil, distribution, updates))))
		if err != nil || d != distribution || len(again) != len(updates) {
			t.Fatalf("%d updates became %d: %v", len(updates), len(again), err)
		}
	})
}
