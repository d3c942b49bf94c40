// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package filestore keeps inventories and documents in a directory of the local
// machine, in a Pebble database. It needs nothing installed and nothing running.
//
// A Pebble database belongs to one process. Whoever opens the directory first
// owns it and serves it to the others on a Unix socket in it; all have the whole
// contract, and nobody needs to know who the owner is. When the owner ends,
// however it ends, the first of the others that needs the database takes over.
// A sighting is merged blindly: it is written without reading what was there.
//
// The directory holds:
//
//	format   which layout this is
//	lock     locked by the owner, for as long as it lives; holds its process ID
//	socket   where the owner serves
//	db/      Pebble's files
//
// It must be on a local file system: locks and sockets do not work across a
// network.
package filestore

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// format is the content of the file "format". The number grows when an older
// cftrack can no longer read the directory.
const format = "cftrack file store 1\n"

const (
	// patience is how long a call looks for the owner, or becomes it, once the
	// one it had went away.
	patience = 10 * time.Second
	// maxWait is the longest pause between two looks.
	maxWait = 50 * time.Millisecond
)

// Options are the settings of a store. The zero value is good.
type Options struct {
	// Logger takes what a person should know about the database's health, and
	// nothing else. Default: nothing is logged.
	Logger *slog.Logger

	// For tests: a disk that fails and is tried again soon, memory that is full
	// early, and a store that leaves owning the database to others.
	disk      vfs.FS
	probeWait time.Duration
	memTable  uint64
	follow    bool
}

// A Store is a [store.Store] in a directory. Open one with [Open].
type Store struct {
	dir     string
	address string
	options Options
	client  *client
	life    context.Context // done once the store is closed
	end     context.CancelFunc

	mu    sync.Mutex
	owner *owner // nil while another process, or another Store, is
}

var _ store.Store = (*Store)(nil)

// A backend does what a store does, in this process or through the socket. It
// returns errMoved if another one has to be found, and then nothing but a commit
// may have happened that is not known by its id.
type backend interface {
	merge(ctx context.Context, distribution string, updates []inventory.Update) error
	scan(ctx context.Context, distribution string, r store.Range, yield func(inventory.Entry) bool) (next string, err error)
	clear(ctx context.Context, distribution string, conditions []store.Condition) (int, error)
	sweep(ctx context.Context, distribution string, now time.Time) (int, error)
	list(ctx context.Context, distribution, prefix, after string, limit int) ([]store.Document, error)
	commit(ctx context.Context, distribution string, t store.Transaction, id transactionID) (uint64, error)
	info(ctx context.Context) (epoch string, readOnly error, _ error)
}

var (
	_ backend = (*engine)(nil)
	_ backend = (*client)(nil)
)

// Open opens the store in dir, which is made if need be. It never waits for
// another process: if one has the database, the first call will talk to it.
func Open(dir string, opts *Options) (*Store, error) {
	if opts == nil {
		opts = new(Options)
	}
	s := &Store{dir: dir, address: "file:" + dir, options: *opts}
	if s.options.disk == nil {
		s.options.disk = vfs.Default
	}
	if s.options.Logger == nil {
		s.options.Logger = slog.New(slog.DiscardHandler)
	}
	s.options.probeWait = cmp.Or(s.options.probeWait, probeWait)
	s.options.memTable = cmp.Or(s.options.memTable, memTable)
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, s.openError(err)
	}
	s.dir = abs
	if err := s.prepare(); err != nil {
		return nil, s.openError(err)
	}
	sock, err := newSocket(abs)
	if err != nil {
		return nil, s.openError(err)
	}
	s.client = newClient(sock)
	s.life, s.end = context.WithCancel(context.Background())
	if err := s.takeOver(); err != nil {
		return nil, s.openError(errors.Join(err, s.Close()))
	}
	return s, nil
}

// prepare makes the directory and checks that it is one of ours.
func (s *Store) prepare() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	name := filepath.Join(s.dir, "format")
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return s.create(name)
	}
	if err == nil && !bytes.Equal(b, []byte(format)) {
		return &formatError{found: strings.TrimSpace(string(b[:min(len(b), 60)]))}
	}
	return err
}

// create writes down the format, and sees to it that the directory outlasts the
// machine's death. Several may do so at once: each puts the whole file in place.
func (s *Store) create(name string) error {
	if err := os.MkdirAll(filepath.Join(s.dir, "db"), 0o700); err != nil {
		return err
	}
	tmp, err := os.OpenFile(name+"."+rand.Text(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = tmp.WriteString(format)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	above := syncDir(filepath.Dir(s.dir))
	if errors.Is(above, fs.ErrPermission) {
		above = nil // then this user did not make the directory either
	}
	return errors.Join(os.Rename(tmp.Name(), name), syncDir(s.dir), above)
}

func syncDir(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

type formatError struct{ found string }

func (e *formatError) Error() string {
	return fmt.Sprintf("its format is %q, this cftrack knows %q", e.found, strings.TrimSpace(format))
}

// openError adds to an error of Open what a person can do about it.
func (s *Store) openError(err error) error {
	var hint string
	var unknown *formatError
	switch {
	case errors.As(err, &unknown):
		hint = "a newer cftrack made this directory: use that one, or name another directory"
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist):
		hint = "there is a file of this name: name a directory"
	case errors.Is(err, fs.ErrPermission):
		hint = "this user must be able to write to the directory and all in it"
	case errors.Is(err, syscall.EROFS):
		hint = "the file system is read-only: name a directory on another one"
	case full(err):
		hint = "make room on this disk, or name a directory on another one"
	}
	if e := refused(err); !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrFull) {
		err = e
	}
	return &store.Error{Op: "open", Store: s.address, Err: err, Hint: hint}
}

// backend returns whoever has the database, as far as is known.
func (s *Store) backend() backend {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owner != nil {
		return s.owner.engine
	}
	return s.client
}

// takeOver makes this store the owner if there is none.
func (s *Store) takeOver() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owner != nil || s.options.follow || s.life.Err() != nil {
		return nil
	}
	o, err := newOwner(s)
	if err != nil {
		return err
	}
	s.owner = o // nil if there is one
	return nil
}

// call runs f with whoever has the database, and again with its successor.
func (s *Store) call(ctx context.Context, op string, f func(context.Context, backend) error) error {
	if s.life.Err() != nil {
		return s.fault(op, store.ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	var since time.Time
	for wait := time.Millisecond; ; wait = min(2*wait, maxWait) {
		err := f(inner, s.backend())
		switch {
		case err == nil:
			return nil
		case s.life.Err() != nil:
			return s.fault(op, store.ErrClosed)
		case ctx.Err() != nil:
			return ctx.Err()
		case !errors.Is(err, errMoved):
			return s.fault(op, err)
		}
		if taken := s.takeOver(); taken != nil {
			err = taken
		}
		if since.IsZero() {
			since = time.Now()
		} else if time.Since(since) > patience {
			return s.fault(op, fmt.Errorf("%w: %w", store.ErrUnavailable, err))
		}
		select {
		case <-inner.Done():
		case <-time.After(wait):
		}
	}
}

// fault makes err one that the contract knows.
func (s *Store) fault(op string, err error) error {
	e := &store.Error{Op: op, Store: s.address, Err: err}
	switch {
	case errors.Is(err, store.ErrFull):
		e.Hint = "nothing is lost: writing goes on once there is room on the disk"
	case full(err):
		e.Hint = "this write may have happened or not; writing goes on once there is room on the disk"
	case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrClosed), errors.Is(err, store.ErrUnavailable):
	default:
		e.Err = fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return e
}

// Now implements [store.Store]. All who share a directory share a machine, and
// its clock.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	if s.life.Err() != nil {
		return time.Time{}, s.fault("now", store.ErrClosed)
	}
	return time.Now().UTC().Round(0), ctx.Err()
}

// Merge implements [store.Store]. It returns once the updates are on disk.
func (s *Store) Merge(ctx context.Context, distribution string, updates []inventory.Update) error {
	return s.call(ctx, "merge", func(ctx context.Context, b backend) error {
		return b.merge(ctx, distribution, updates)
	})
}

// Scan implements [store.Store].
func (s *Store) Scan(ctx context.Context, distribution string, r store.Range) iter.Seq2[inventory.Entry, error] {
	return func(yield func(inventory.Entry, error) bool) {
		r := r
		var err error
		for again := true; again; {
			again = false
			err = s.call(ctx, "scan", func(ctx context.Context, b backend) error {
				next, err := b.scan(ctx, distribution, r, func(e inventory.Entry) bool { return yield(e, nil) })
				if err != nil && next > r.From {
					r.From = next // what was yielded is not asked for again
					again = errors.Is(err, errMoved)
				}
				return err
			})
			again = again && err != nil && s.life.Err() == nil && ctx.Err() == nil
		}
		if err != nil {
			yield(inventory.Entry{}, err)
		}
	}
}

// Clear implements [store.Store]. If the database changes hands meanwhile, the
// number may miss what was removed before.
func (s *Store) Clear(ctx context.Context, distribution string, conditions []store.Condition) (n int, _ error) {
	err := s.call(ctx, "clear", func(ctx context.Context, b backend) error {
		more, err := b.clear(ctx, distribution, conditions)
		n += more
		return err
	})
	return n, err
}

// Sweep implements [store.Store]. Its number is as good as that of Clear.
func (s *Store) Sweep(ctx context.Context, distribution string, now time.Time) (n int, _ error) {
	err := s.call(ctx, "sweep", func(ctx context.Context, b backend) error {
		more, err := b.sweep(ctx, distribution, now)
		n += more
		return err
	})
	return n, err
}

// List implements [store.Store].
func (s *Store) List(ctx context.Context, distribution, prefix, after string, limit int) (docs []store.Document, _ error) {
	err := s.call(ctx, "list", func(ctx context.Context, b backend) (err error) {
		docs, err = b.list(ctx, distribution, prefix, after, limit)
		return err
	})
	return docs, err
}

// Commit implements [store.Store]. A transaction whose answer was lost because
// the owner ended is repeated, and not applied twice.
func (s *Store) Commit(ctx context.Context, distribution string, t store.Transaction) (version uint64, _ error) {
	var id transactionID
	copy(id[:], rand.Text())
	err := s.call(ctx, "commit", func(ctx context.Context, b backend) (err error) {
		version, err = b.commit(ctx, distribution, t, id)
		return err
	})
	return version, err
}

// Status implements [store.Store].
func (s *Store) Status(ctx context.Context) (status store.Status, _ error) {
	err := s.call(ctx, "status", func(ctx context.Context, b backend) error {
		epoch, readOnly, err := b.info(ctx)
		status = store.Status{
			Kind: "file", Address: s.address, Epoch: epoch,
			Durable: "synced to the disk of this machine before it is acknowledged",
		}
		if readOnly != nil {
			status.Durable = fmt.Sprintf("nothing can be written at present: %v", readOnly)
		}
		return err
	})
	if err != nil {
		return store.Status{}, err
	}
	return status, nil
}

// Close implements [store.Store]. If this store owns the database, it ends its
// service to the others, who find another owner among themselves.
func (s *Store) Close() error {
	s.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.owner != nil {
		err = s.owner.close()
		s.owner = nil
	}
	return errors.Join(err, s.client.close())
}
