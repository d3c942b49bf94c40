// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"bufio"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
)

// closeTimeout is how long an owner that closes lets others finish their calls.
const closeTimeout = 2 * time.Second

// An owner holds the lock, has the database, and serves it.
type owner struct {
	engine *engine
	lock   *os.File
	server *http.Server
	leave  chan struct{} // closed to send scans elsewhere, as they take long
	served chan error
}

// newOwner returns nil if somebody else is the owner.
func newOwner(s *Store) (_ *owner, err error) {
	lock, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
	// The lock belongs to this opening of the file: it ends with the process,
	// and keeps out another Store in the same process too.
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, lock.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", lock.Name(), err)
	}
	// For people who wonder; on a full disk they have to find out otherwise.
	if err := lock.Truncate(0); err == nil {
		_, _ = fmt.Fprintln(lock, os.Getpid())
	}
	engine, err := openEngine(filepath.Join(s.dir, "db"), &s.options)
	if err != nil {
		return nil, err
	}
	listener, err := s.client.sock.listen()
	if err != nil {
		engine.close()
		return nil, err
	}
	o := &owner{engine: engine, lock: lock, leave: make(chan struct{}), served: make(chan error, 1)}
	o.server = &http.Server{
		Handler:           &service{engine: engine, leaving: o.leave},
		ReadHeaderTimeout: answerTimeout,
		ErrorLog:          slog.NewLogLogger(s.options.Logger.Handler(), slog.LevelDebug),
	}
	go func() { o.served <- o.server.Serve(listener) }()
	return o, nil
}

// close lets calls finish that can, and gives up the database.
func (o *owner) close() error {
	close(o.leave)
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := o.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = o.server.Close()
	}
	if served := <-o.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	o.engine.close()
	return errors.Join(err, o.lock.Close())
}

// A service is the owner's side of the socket.
type service struct {
	engine  *engine
	leaving <-chan struct{}
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(protocolHeader, protocol)
	serve := map[string]func(http.ResponseWriter, *http.Request) error{
		"/" + protocol + "/merge": s.merge,
		"/" + protocol + "/scan":  s.scan,
		"/" + protocol + "/info":  s.info,
		"/" + protocol + "/clear": gobs(func(ctx context.Context, c *clearCall) (countAnswer, error) {
			n, err := s.engine.clear(ctx, c.Distribution, c.Conditions)
			return countAnswer{n}, err
		}),
		"/" + protocol + "/sweep": gobs(func(ctx context.Context, c *sweepCall) (countAnswer, error) {
			n, err := s.engine.sweep(ctx, c.Distribution, c.Now)
			return countAnswer{n}, err
		}),
		"/" + protocol + "/list": gobs(func(ctx context.Context, c *listCall) (listAnswer, error) {
			docs, err := s.engine.list(ctx, c.Distribution, c.Prefix, c.After, c.Limit)
			return listAnswer{docs}, err
		}),
		"/" + protocol + "/commit": gobs(func(ctx context.Context, c *commitCall) (uint64, error) {
			return s.engine.commit(ctx, c.Distribution, c.Transaction, c.ID)
		}),
	}[r.URL.Path]
	if serve == nil {
		http.NotFound(w, r)
		return
	}
	if err := serve(w, r); err != nil {
		http.Error(w, err.Error(), statusOf(err))
	}
}

// gobs serves calls that are small.
func gobs[C, A any](do func(context.Context, *C) (A, error)) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		call := new(C)
		if err := gob.NewDecoder(r.Body).Decode(call); err != nil {
			return err
		}
		answer, err := do(r.Context(), call)
		if err != nil {
			return err
		}
		return gob.NewEncoder(w).Encode(answer)
	}
}

func (s *service) merge(_ http.ResponseWriter, r *http.Request) error {
	distribution, updates, err := parseUpdates(bufio.NewReaderSize(r.Body, 64<<10))
	if err != nil {
		return err
	}
	return s.engine.merge(r.Context(), distribution, updates)
}

func (s *service) info(w http.ResponseWriter, r *http.Request) error {
	epoch, readOnly, err := s.engine.info(r.Context())
	if err != nil {
		return err
	}
	answer := infoAnswer{Epoch: epoch}
	if readOnly != nil {
		answer.ReadOnly = readOnly.Error()
	}
	return gob.NewEncoder(w).Encode(answer)
}

// scan streams entries. Once it has begun it reports an error by ending the
// stream early, upon which the client asks again from where it was.
func (s *service) scan(w http.ResponseWriter, r *http.Request) error {
	call := new(scanCall)
	if err := gob.NewDecoder(r.Body).Decode(call); err != nil {
		return err
	}
	var (
		buf, record []byte
		failed      error
		sent        bool
	)
	flush := func() bool {
		_, failed = w.Write(buf)
		buf, sent = buf[:0], true
		return failed == nil
	}
	_, err := s.engine.scan(r.Context(), call.Distribution, call.Range, func(e inventory.Entry) bool {
		select {
		case <-s.leaving:
			failed = errMoved
			return false
		default:
		}
		buf = appendEntry(buf, &e, &record)
		return len(buf) < 32<<10 || flush()
	})
	if err = errors.Join(err, failed); err == nil {
		buf = appendEnd(buf)
		if flush() {
			return nil
		}
		err = failed
	}
	if sent {
		panic(http.ErrAbortHandler) // cuts the stream off
	}
	return err
}
