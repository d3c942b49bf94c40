// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A freezer stands between Pebble and the file system because Pebble does not
// survive a write that fails: it exits, panics with its locks held, or unlocks a
// mutex twice. The first failure freezes the files on disk as they are, as if the
// machine had stopped at this instant; what Pebble writes from then on goes to
// memory and succeeds. Whoever wrote something looks at cause afterwards, before
// acknowledging it, and the database is then closed and opened again from disk.
//
// The state on disk is one that a crash could have left: each operation that
// began after the failure was seen is dropped, so nothing is there that depends
// on something dropped.
type freezer struct {
	vfs.FS            // the disk
	mem    *vfs.MemFS // what is written once frozen
	reason atomic.Pointer[error]
}

func newFreezer(disk vfs.FS) *freezer { return &freezer{FS: disk, mem: vfs.NewMem()} }

// cause says why the files are frozen, or nil.
func (f *freezer) cause() error {
	if p := f.reason.Load(); p != nil {
		return *p
	}
	return nil
}

func (f *freezer) freeze(cause error) {
	if cause != nil {
		f.reason.CompareAndSwap(nil, &cause)
	}
}

// change carries out a change on disk and reports whether it is done; if not,
// the files are frozen and the caller changes memory instead.
func (f *freezer) change(do func() error) bool {
	if f.cause() == nil {
		f.freeze(do())
	}
	return f.cause() == nil
}

// full reports whether err says that there is no room.
func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

func (f *freezer) memCreate(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.mem.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, err
	}
	return f.mem.Create(name, category)
}

func (f *freezer) create(name string, category vfs.DiskWriteCategory, do func() (vfs.File, error)) (vfs.File, error) {
	var file vfs.File
	if f.change(func() (err error) { file, err = do(); return err }) {
		return &frozenFile{File: file, f: f}, nil
	}
	if file != nil {
		// Made just before another operation failed: nothing will be written to it.
		if err := file.Close(); err != nil {
			return nil, err
		}
	}
	return f.memCreate(name, category)
}

func (f *freezer) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return f.create(name, category, func() (vfs.File, error) { return f.FS.Create(name, category) })
}

func (f *freezer) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return f.create(name, category, func() (vfs.File, error) { return f.FS.OpenReadWrite(name, category, opts...) })
}

func (f *freezer) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return f.create(newname, category, func() (vfs.File, error) { return f.FS.ReuseForWrite(oldname, newname, category) })
}

// inMem reports whether name was made after the files froze.
func (f *freezer) inMem(name string) bool {
	if f.cause() == nil {
		return false
	}
	_, err := f.mem.Stat(name)
	return err == nil
}

func (f *freezer) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if f.inMem(name) {
		return f.mem.Open(name, opts...)
	}
	return f.FS.Open(name, opts...)
}

func (f *freezer) Stat(name string) (vfs.FileInfo, error) {
	if f.inMem(name) {
		return f.mem.Stat(name)
	}
	return f.FS.Stat(name)
}

func (f *freezer) OpenDir(name string) (vfs.File, error) {
	dir, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &frozenFile{File: dir, f: f}, nil
}

func (f *freezer) Remove(name string) error {
	var missing error
	if !f.change(func() error {
		err := f.FS.Remove(name)
		if errors.Is(err, os.ErrNotExist) {
			missing, err = err, nil
		}
		return err
	}) && f.inMem(name) {
		return f.mem.Remove(name)
	}
	return missing
}

func (f *freezer) RemoveAll(name string) error {
	f.change(func() error { return f.FS.RemoveAll(name) })
	return nil
}

func (f *freezer) Rename(oldname, newname string) error {
	if !f.change(func() error { return f.FS.Rename(oldname, newname) }) && f.inMem(oldname) {
		return f.mem.Rename(oldname, newname)
	}
	return nil
}

func (f *freezer) Link(oldname, newname string) error {
	if !f.change(func() error { return f.FS.Link(oldname, newname) }) && f.inMem(oldname) {
		return f.mem.Link(oldname, newname)
	}
	return nil
}

func (f *freezer) MkdirAll(dir string, perm os.FileMode) error {
	if !f.change(func() error { return f.FS.MkdirAll(dir, perm) }) {
		return f.mem.MkdirAll(dir, perm)
	}
	return nil
}

func (f *freezer) Lock(name string) (io.Closer, error) { return f.FS.Lock(name) }

func (f *freezer) Unwrap() vfs.FS { return f.FS }

// A frozenFile is a file on disk that takes no more writes once frozen.
type frozenFile struct {
	vfs.File
	f *freezer
}

func (ff *frozenFile) Write(p []byte) (int, error) {
	ff.f.change(func() error { _, err := ff.File.Write(p); return err })
	return len(p), nil
}

func (ff *frozenFile) WriteAt(p []byte, off int64) (int, error) {
	ff.f.change(func() error { _, err := ff.File.WriteAt(p, off); return err })
	return len(p), nil
}

func (ff *frozenFile) Sync() error {
	ff.f.change(ff.File.Sync)
	return nil
}

func (ff *frozenFile) SyncData() error {
	ff.f.change(ff.File.SyncData)
	return nil
}

func (ff *frozenFile) SyncTo(length int64) (fullSync bool, _ error) {
	ff.f.change(func() (err error) { fullSync, err = ff.File.SyncTo(length); return err })
	return fullSync, nil
}

// Preallocate may fail without harm.
func (ff *frozenFile) Preallocate(offset, length int64) error {
	if ff.f.cause() != nil {
		return nil
	}
	return ff.File.Preallocate(offset, length)
}

// Close reports what a file system finds out late, such as a quota on NFS.
func (ff *frozenFile) Close() error {
	ff.f.freeze(ff.File.Close())
	return nil
}
