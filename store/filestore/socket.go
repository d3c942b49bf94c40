// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// maxSocketName is the longest name that fits into a socket's address on every
// system, with the byte that ends it: sun_path has 104 bytes on BSDs, 108 on
// Linux.
const maxSocketName = 103

// A socket is the place where the owner of a directory serves. On Linux its name
// may be longer than a socket's address: then it goes by way of a descriptor of
// the directory.
type socket struct {
	path string   // as people know it
	name string   // as it is bound and dialled
	dir  *os.File // kept open for name, or nil
}

func newSocket(dir string) (*socket, error) {
	s := &socket{path: filepath.Join(dir, "socket")}
	if s.name = s.path; len(s.name) <= maxSocketName {
		return s, nil
	}
	var err error
	if s.dir, err = os.Open(dir); err != nil {
		return nil, err
	}
	descriptor := fmt.Sprintf("/proc/self/fd/%d", s.dir.Fd())
	s.name = descriptor + "/socket"
	if _, err := os.Stat(descriptor); err != nil {
		return nil, errors.Join(fmt.Errorf("the name is too long for a socket in it: %d bytes, at most %d", len(s.path), maxSocketName), s.dir.Close())
	}
	return s, nil
}

// listen takes the place of whoever served here before; the caller holds the
// lock.
func (s *socket) listen() (net.Listener, error) {
	if err := ignoreMissing(os.Remove(s.path)); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", s.name)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(s.path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (s *socket) close() error {
	if s.dir == nil {
		return nil
	}
	if err := s.dir.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
