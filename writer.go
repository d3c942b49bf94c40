// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cftrack

import (
	"bufio"
	"errors"
	"net"
	"net/http"
)

// Code asks by type assertion what a writer can do, and acts on the answer: a
// handler of server-sent events refuses one that cannot flush. So a handler gets
// exactly the abilities of the writer underneath. Each type here is one pointer
// wide, so that none needs an allocation.

func (r *response) flush() { _ = r.flushError() }

func (r *response) flushError() error {
	r.judge(http.StatusOK)
	switch f := r.ResponseWriter.(type) {
	case interface{ FlushError() error }:
		return f.FlushError()
	case http.Flusher:
		f.Flush()
	}
	return nil
}

func (r *response) hijack() (net.Conn, *bufio.ReadWriter, error) {
	h, ok := r.ResponseWriter.(http.Hijacker)
	if !ok {
		return nil, nil, errGone
	}
	conn, rw, err := h.Hijack()
	if err == nil && !r.wrote {
		r.hijacked = true
		r.leave()
	}
	return conn, rw, err
}

func (r *response) push(target string, opts *http.PushOptions) error {
	if p, ok := r.ResponseWriter.(http.Pusher); ok {
		return p.Push(target, opts)
	}
	return http.ErrNotSupported
}

func (r *response) closeNotify() <-chan bool {
	if n, ok := r.ResponseWriter.(http.CloseNotifier); ok { //nolint:staticcheck // handlers still ask for it, and some panic without
		return n.CloseNotify()
	}
	return nil
}

// F flushes, H hijacks, P pushes, C notifies of closing.
type (
	writer     struct{ *response }
	writerF    struct{ *response }
	writerH    struct{ *response }
	writerP    struct{ *response }
	writerC    struct{ *response }
	writerFH   struct{ writerF }
	writerFP   struct{ writerF }
	writerFC   struct{ writerF }
	writerHP   struct{ writerH }
	writerHC   struct{ writerH }
	writerPC   struct{ writerP }
	writerFHP  struct{ writerFH }
	writerFHC  struct{ writerFH }
	writerFPC  struct{ writerFP }
	writerHPC  struct{ writerHP }
	writerFHPC struct{ writerFHP }
)

func (w writerF) Flush()            { w.flush() }
func (w writerF) FlushError() error { return w.flushError() }

func (w writerH) Hijack() (net.Conn, *bufio.ReadWriter, error)  { return w.hijack() }
func (w writerFH) Hijack() (net.Conn, *bufio.ReadWriter, error) { return w.hijack() }

func (w writerP) Push(target string, opts *http.PushOptions) error   { return w.push(target, opts) }
func (w writerFP) Push(target string, opts *http.PushOptions) error  { return w.push(target, opts) }
func (w writerHP) Push(target string, opts *http.PushOptions) error  { return w.push(target, opts) }
func (w writerFHP) Push(target string, opts *http.PushOptions) error { return w.push(target, opts) }

func (w writerC) CloseNotify() <-chan bool    { return w.closeNotify() }
func (w writerFC) CloseNotify() <-chan bool   { return w.closeNotify() }
func (w writerHC) CloseNotify() <-chan bool   { return w.closeNotify() }
func (w writerPC) CloseNotify() <-chan bool   { return w.closeNotify() }
func (w writerFHC) CloseNotify() <-chan bool  { return w.closeNotify() }
func (w writerFPC) CloseNotify() <-chan bool  { return w.closeNotify() }
func (w writerHPC) CloseNotify() <-chan bool  { return w.closeNotify() }
func (w writerFHPC) CloseNotify() <-chan bool { return w.closeNotify() }

// writer returns r with the abilities of the writer underneath.
func (r *response) writer() http.ResponseWriter {
	const f, h, p, c = 1, 2, 4, 8
	can := 0
	if _, ok := r.ResponseWriter.(http.Flusher); ok {
		can |= f
	}
	if _, ok := r.ResponseWriter.(http.Hijacker); ok {
		can |= h
	}
	if _, ok := r.ResponseWriter.(http.Pusher); ok {
		can |= p
	}
	if _, ok := r.ResponseWriter.(http.CloseNotifier); ok { //nolint:staticcheck // as above
		can |= c
	}
	switch can {
	case f:
		return writerF{r}
	case h:
		return writerH{r}
	case p:
		return writerP{r}
	case c:
		return writerC{r}
	case f | h:
		return writerFH{writerF{r}}
	case f | p:
		return writerFP{writerF{r}}
	case f | c:
		return writerFC{writerF{r}}
	case h | p:
		return writerHP{writerH{r}}
	case h | c:
		return writerHC{writerH{r}}
	case p | c:
		return writerPC{writerP{r}}
	case f | h | p:
		return writerFHP{writerFH{writerF{r}}}
	case f | h | c:
		return writerFHC{writerFH{writerF{r}}}
	case f | p | c:
		return writerFPC{writerFP{writerF{r}}}
	case h | p | c:
		return writerHPC{writerHP{writerH{r}}}
	case f | h | p | c:
		return writerFHPC{writerFHP{writerFH{writerF{r}}}}
	}
	return writer{r}
}

// gone is what is left of a writer whose handler has returned. A goroutine that
// the handler left behind must not bring the server down.
type gone struct{}

var errGone = errors.New("cftrack: the handler has returned; its writer is of no use any more")

func (gone) Header() http.Header       { return make(http.Header) }
func (gone) Write([]byte) (int, error) { return 0, errGone }
func (gone) WriteHeader(int)           {}
