// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// A faultyDisk fails the operations that fault picks.
type faultyDisk struct {
	vfs.FS
	fault atomic.Pointer[func(op, name string) error]
	hits  atomic.Int64
}

func (d *faultyDisk) check(op, name string) error {
	if f := d.fault.Load(); f != nil {
		if err := (*f)(op, name); err != nil {
			d.hits.Add(1)
			return &os.PathError{Op: op, Path: name, Err: err}
		}
	}
	return nil
}

func (d *faultyDisk) wrap(op, name string, open func() (vfs.File, error)) (vfs.File, error) {
	if err := d.check(op, name); err != nil {
		return nil, err
	}
	f, err := open()
	if err != nil {
		return nil, err
	}
	return &faultyFile{File: f, disk: d, name: name}, nil
}

func (d *faultyDisk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return d.wrap("create", name, func() (vfs.File, error) { return d.FS.Create(name, c) })
}

func (d *faultyDisk) ReuseForWrite(oldname, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return d.wrap("create", name, func() (vfs.File, error) { return d.FS.ReuseForWrite(oldname, name, c) })
}

func (d *faultyDisk) OpenDir(name string) (vfs.File, error) {
	return d.wrap("opendir", name, func() (vfs.File, error) { return d.FS.OpenDir(name) })
}

func (d *faultyDisk) Rename(oldname, newname string) error {
	if err := d.check("rename", newname); err != nil {
		return err
	}
	return d.FS.Rename(oldname, newname)
}

func (d *faultyDisk) Remove(name string) error {
	if err := d.check("remove", name); err != nil {
		return err
	}
	return d.FS.Remove(name)
}

type faultyFile struct {
	vfs.File
	disk *faultyDisk
	name string
}

// Write writes half of what it has no room for, as a disk does.
func (f *faultyFile) Write(p []byte) (int, error) {
	if err := f.disk.check("write", f.name); err != nil {
		n, second := f.File.Write(p[:len(p)/2])
		return n, errors.Join(err, second)
	}
	return f.File.Write(p)
}

func (f *faultyFile) Sync() error { return errors.Join(f.disk.check("sync", f.name), f.File.Sync()) }
func (f *faultyFile) SyncData() error {
	return errors.Join(f.disk.check("sync", f.name), f.File.SyncData())
}
func (f *faultyFile) SyncTo(n int64) (bool, error) {
	full, err := f.File.SyncTo(n)
	return full, errors.Join(f.disk.check("sync", f.name), err)
}

// TestDiskFails lets operations of each kind fail under writers. The process
// lives, what was acknowledged stays and can be read, and writing goes on once
// the disk takes it.
func TestDiskFails(t *testing.T) {
	suffix := func(op, end string, err error) func(string, string) error {
		return func(o, name string) error {
			if o == op && strings.HasSuffix(name, end) {
				return err
			}
			return nil
		}
	}
	manifest := func(op string, err error) func(string, string) error {
		return func(o, name string) error {
			if o == op && strings.HasPrefix(filepath.Base(name), "MANIFEST") {
				return err
			}
			return nil
		}
	}
	for _, tc := range []struct {
		name  string
		fault func(op, name string) error
		want  error // once it is certain that nothing is written
	}{
		{"no room for the log", suffix("write", ".log", syscall.ENOSPC), nil},
		{"no room for a new log", suffix("create", ".log", syscall.ENOSPC), nil},
		{"the log cannot be synced", suffix("sync", ".log", syscall.EIO), nil},
		{"no room for a table", suffix("write", ".sst", syscall.ENOSPC), nil},
		{"no room for a new table", suffix("create", ".sst", syscall.ENOSPC), nil},
		{"a table cannot be synced", suffix("sync", ".sst", syscall.EIO), nil},
		{"no room for the manifest", manifest("write", syscall.ENOSPC), nil},
		{"the manifest cannot be synced", manifest("sync", syscall.EIO), nil},
		{"no room for anything", func(op, _ string) error {
			if op == "write" || op == "create" {
				return syscall.ENOSPC
			}
			return nil
		}, store.ErrFull},
		{"over the quota", func(op, _ string) error {
			if op == "write" {
				return syscall.EDQUOT
			}
			return nil
		}, store.ErrFull},
		{"read-only", func(op, _ string) error {
			if op != "opendir" {
				return syscall.EROFS
			}
			return nil
		}, store.ErrUnavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			disk := &faultyDisk{FS: vfs.Default}
			s := open(t, dir, &Options{disk: disk, memTable: 256 << 10, probeWait: 10 * time.Millisecond})
			const writers = 3
			var (
				wg    sync.WaitGroup
				stop  = make(chan struct{})
				acked [writers]atomic.Int64
				saw   [3]atomic.Int64 // full, unavailable, anything else
			)
			for w := range writers {
				wg.Go(func() {
					for n := 0; ; {
						select {
						case <-stop:
							return
						default:
						}
						var updates []inventory.Update
						for i := range 50 {
							updates = append(updates, sight(fmt.Sprintf("/%d/%08d/%s", w, n+i, strings.Repeat("x", 200))))
						}
						switch err := s.Merge(context.Background(), "d", updates); {
						case err == nil:
							n += len(updates)
							acked[w].Store(int64(n))
						case errors.Is(err, store.ErrFull):
							saw[0].Add(1)
						case errors.Is(err, store.ErrUnavailable):
							saw[1].Add(1)
						default:
							saw[2].Add(1)
							t.Errorf("Merge: %v", err)
							return
						}
					}
				})
			}
			await := func(what string, ok func() bool) {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				for !ok() {
					if _, err := s.List(ctx, "d", "", "", 1); ctx.Err() != nil {
						t.Fatalf("%s: never: %v", what, err)
					}
				}
			}
			more := func(n int64) func() bool {
				was := acked[0].Load()
				return func() bool { return acked[0].Load() >= was+n }
			}
			check := func(when string) {
				t.Helper()
				var n [writers]int64
				for w := range n {
					n[w] = acked[w].Load()
				}
				var got [writers]int64
				for e, err := range s.Scan(t.Context(), "d", store.Range{Now: sighted}) {
					if err != nil {
						t.Fatalf("Scan %s: %v", when, err)
					}
					if w := e.Path[1] - '0'; e.Path == fmt.Sprintf("/%d/%08d/%s", w, got[w], strings.Repeat("x", 200)) {
						got[w]++
					}
				}
				for w := range n {
					if got[w] < n[w] {
						t.Fatalf("%s: writer %d has %d paths, %d were acknowledged", when, w, got[w], n[w])
					}
				}
			}
			for round := range 2 {
				await("merging", more(500))
				hits := disk.hits.Load()
				seen := saw[0].Load() + saw[1].Load()
				disk.fault.Store(&tc.fault)
				await("the fault", func() bool { return disk.hits.Load() > hits && saw[0].Load()+saw[1].Load() > seen })
				check(fmt.Sprintf("while the disk fails for the %d. time", round+1))
				if tc.want != nil {
					await("certainty", func() bool {
						err := s.Merge(t.Context(), "d", []inventory.Update{sight("/0/")})
						if err == nil {
							t.Fatal("merged on a disk that takes nothing")
						}
						return errors.Is(err, tc.want)
					})
					_, err := s.Commit(t.Context(), "d", store.Transaction{Put: []store.Put{{Key: "k"}}})
					if !errors.Is(err, tc.want) {
						t.Errorf("Commit: %v, want %v", err, tc.want)
					}
				}
				disk.fault.Store(nil)
				await("writing again", more(500))
				check("afterwards")
			}
			close(stop)
			wg.Wait()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir, nil)
			check("after opening again")
			if docs, err := s.List(t.Context(), "d", "", "", 0); err != nil || len(docs) != 0 {
				t.Errorf("documents that were refused: %v, %v", docs, err)
			}
		})
	}
}

func TestFreezerKeepsWhatWasThere(t *testing.T) {
	disk := vfs.NewMem()
	f := newFreezer(disk)
	write := func(name, text string) {
		t.Helper()
		file, err := f.Create(name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(file.Sync(), file.Close()); err != nil {
			t.Fatal(err)
		}
	}
	read := func(fs vfs.FS, name string) string {
		t.Helper()
		file, err := fs.Open(name)
		if errors.Is(err, os.ErrNotExist) {
			return "missing"
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(file)
		if err := errors.Join(err, file.Close()); err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	write("a", "1")
	write("b", "1")
	f.freeze(syscall.ENOSPC)
	f.freeze(syscall.EIO)
	if !errors.Is(f.cause(), syscall.ENOSPC) {
		t.Errorf("the cause is %v, want the first", f.cause())
	}
	write("a", "2")
	write("c", "2")
	if err := errors.Join(f.Remove("b"), f.Rename("c", "d"), f.Link("a", "e"), f.MkdirAll("dir", 0o700), f.RemoveAll("b")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][2]string{
		"a": {"1", "2"}, "b": {"1", "1"}, "c": {"missing", "missing"}, "d": {"missing", "2"}, "e": {"missing", "2"},
	} {
		if got := [2]string{read(disk, name), read(f, name)}; got != want {
			t.Errorf("%s is %q on disk and for Pebble, want %q", name, got, want)
		}
	}
}

// deafConn loses the next answer once it is told to.
type deafConn struct {
	net.Conn
	deaf *atomic.Bool
}

func (c deafConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil && c.deaf.CompareAndSwap(true, false) {
		return 0, errors.Join(io.ErrUnexpectedEOF, c.Close())
	}
	return n, err
}

// TestLostAnswer: a transaction whose answer was lost is neither applied twice
// nor in conflict with itself, with the same owner and with its successor.
func TestLostAnswer(t *testing.T) {
	dir := t.TempDir()
	owner := open(t, dir, nil)
	s := open(t, dir, nil)
	var deaf atomic.Bool
	dial := s.client.http.Transport.(*http.Transport).DialContext
	s.client.http.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		return deafConn{conn, &deaf}, err
	}
	version := uint64(0)
	for i := range 20 {
		deaf.Store(true)
		next, err := s.Commit(t.Context(), "d", store.Transaction{
			Require: []store.Requirement{{Key: "k", Version: version}},
			Put:     []store.Put{{Key: "k", Value: []byte{byte(i)}}},
		})
		if err != nil || next != version+1 {
			t.Fatalf("commit %d: version %d, %v", i, next, err)
		}
		if deaf.Load() {
			t.Fatal("no answer was lost: nothing is proven")
		}
		version = next
	}
	// The same across the owner's death: its successor reads what it remembered.
	id := transactionID{1}
	tr := store.Transaction{Require: []store.Requirement{{Key: "k", Version: version}}, Delete: []string{"k"}}
	first, err := owner.owner.engine.commit(t.Context(), "d", tr, id)
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.List(t.Context(), "d", "", "", 0); err != nil || s.owner == nil {
		t.Fatalf("did not take over: %v", err)
	}
	if again, err := s.owner.engine.commit(t.Context(), "d", tr, id); err != nil || again != first {
		t.Errorf("the repetition made version %d, %v, want %d", again, err, first)
	}
	if _, err := s.Commit(t.Context(), "d", tr); !errors.Is(err, store.ErrConflict) {
		t.Errorf("another like it: %v, want ErrConflict", err)
	}
}

// TestRecentIsBounded: as many transactions are remembered as promised, in memory
// and on disk.
func TestRecentIsBounded(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	id := func(i int) transactionID { return transactionID{1, byte(i >> 16), byte(i >> 8), byte(i)} }
	const extra = 10
	for i := range recentKept + extra {
		if _, err := s.owner.engine.commit(t.Context(), "d", store.Transaction{}, id(i)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		r := &s.owner.engine.recent
		if len(r.versions) != recentKept || r.versions[id(extra)] != extra+1 || r.versions[id(extra-1)] != 0 || r.next != recentKept+extra {
			t.Errorf("%d remembered, the next is %d", len(r.versions), r.next)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir, nil)
	}
}
