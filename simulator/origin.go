// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// originHost is the origin's name when it is called in process.
const originHost = "origin.simulator"

// urlTransport sends requests to one origin over HTTP.
type urlTransport struct {
	*http.Transport
	scheme, host string
}

func newURLTransport(origin string) (t *urlTransport, path string, err error) {
	u, err := url.Parse(origin)
	if err != nil {
		return nil, "", fmt.Errorf("simulator: origin: %w", err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, "", fmt.Errorf("simulator: origin %q: give http://HOST[:PORT][/PATH] or https://", u.Redacted())
	}
	return &urlTransport{
		Transport: &http.Transport{
			MaxIdleConns:        1024,
			MaxIdleConnsPerHost: 1024,
			IdleConnTimeout:     time.Minute,
			// Otherwise the transport asks for gzip by itself and hides it.
			DisableCompression: true,
		},
		scheme: u.Scheme, host: u.Host,
	}, strings.TrimSuffix(u.EscapedPath(), "/"), nil
}

func (t *urlTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r.URL.Scheme, r.URL.Host, r.Host = t.scheme, t.host, t.host
	return t.Transport.RoundTrip(r)
}

// originURL makes the client side of net/http send target as it is.
func originURL(target string) *url.URL {
	u := &url.URL{Scheme: "http", Host: originHost}
	path, query, hasQuery := strings.Cut(target, "?")
	u.RawQuery, u.ForceQuery = query, hasQuery && query == ""
	if !strings.HasPrefix(path, "//") {
		u.Opaque = path
		return u
	}
	// An opaque part that begins with // would be taken for a host.
	u.RawPath = path
	if p, err := url.PathUnescape(path); err == nil {
		u.Path = p
	} else {
		u.Path = path
	}
	return u
}

// handlerTransport calls a handler as a server would, in a goroutine that ends when the handler does.
type handlerTransport struct {
	handler http.Handler
	sim     *Simulator
}

func (t *handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if !t.sim.enter() {
		return nil, errors.New("simulator: closed")
	}
	target := r.URL.RequestURI()
	u, err := url.ParseRequestURI(target)
	if err != nil {
		t.sim.active.Done()
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	stop := context.AfterFunc(t.sim.ctx, func() { cancel(errors.New("simulator: closed")) })
	in := r.Clone(ctx)
	in.URL, in.RequestURI = u, target
	in.Proto, in.ProtoMajor, in.ProtoMinor = "HTTP/1.1", 1, 1
	in.RemoteAddr = "192.0.2.1:1234"
	if in.Host == "" {
		in.Host = r.URL.Host
	}
	if in.Body == nil {
		in.Body = http.NoBody
	}
	pr, pw := io.Pipe()
	w := &pipeWriter{request: r, header: http.Header{}, pipe: pw, head: make(chan *http.Response, 1)}
	context.AfterFunc(ctx, func() { pr.CloseWithError(context.Cause(ctx)) })
	go func() {
		defer t.sim.active.Done()
		defer stop()
		defer func() { _ = in.Body.Close() }()
		defer func() {
			// A panic breaks the connection, as it would in a server.
			if p := recover(); p != nil {
				w.fail(fmt.Errorf("simulator: the handler panicked: %v", p))
			}
		}()
		t.handler.ServeHTTP(w, in)
		w.finish()
	}()
	select {
	case resp := <-w.head:
		if resp == nil {
			cancel(nil)
			return nil, w.err
		}
		resp.Body = &pipeBody{Reader: pr, close: func() { cancel(io.ErrClosedPipe) }}
		return resp, nil
	case <-ctx.Done():
		err := context.Cause(ctx)
		cancel(nil)
		return nil, err
	}
}

type pipeBody struct {
	io.Reader
	close func()
}

func (b *pipeBody) Close() error { b.close(); return nil }

// pipeWriter is the ResponseWriter of handlerTransport.
type pipeWriter struct {
	request *http.Request
	header  http.Header
	pipe    *io.PipeWriter
	head    chan *http.Response // gets one response, or nil once err is set

	mu      sync.Mutex
	started bool
	bodily  bool  // the response may have a body
	left    int64 // of the declared length; -1 if none was declared
	err     error
}

func (w *pipeWriter) Header() http.Header { return w.header }

func (w *pipeWriter) WriteHeader(status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.start(status, nil)
}

func (w *pipeWriter) start(status int, first []byte) {
	if w.started || status < 200 {
		return
	}
	w.started = true
	h := w.header.Clone()
	w.bodily = w.request.Method != http.MethodHead && status != http.StatusNoContent && status != http.StatusNotModified
	w.left = -1
	if v := h.Get("Content-Length"); v != "" {
		if _, err := fmt.Sscan(v, &w.left); err != nil || w.left < 0 {
			h.Del("Content-Length")
			w.left = -1
		}
	}
	if first != nil && h.Get("Content-Type") == "" && w.bodily {
		h.Set("Content-Type", http.DetectContentType(first))
	}
	if h.Get("Date") == "" {
		h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	}
	w.head <- &http.Response{
		Status: fmt.Sprintf("%d %s", status, http.StatusText(status)), StatusCode: status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, ContentLength: w.left, Request: w.request,
	}
}

func (w *pipeWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	w.start(http.StatusOK, p)
	if !w.bodily {
		w.mu.Unlock()
		if w.request.Method == http.MethodHead {
			return len(p), nil
		}
		return 0, http.ErrBodyNotAllowed
	}
	if w.left >= 0 {
		if int64(len(p)) > w.left {
			w.mu.Unlock()
			return 0, http.ErrContentLength
		}
		w.left -= int64(len(p))
	}
	w.mu.Unlock()
	return w.pipe.Write(p)
}

// Flush starts the response; nothing is ever held back.
func (w *pipeWriter) Flush() { w.WriteHeader(http.StatusOK) }

func (w *pipeWriter) finish() {
	w.mu.Lock()
	if !w.started {
		if w.header.Get("Content-Length") == "" && w.request.Method != http.MethodHead {
			w.header.Set("Content-Length", "0")
		}
		w.start(http.StatusOK, nil)
	}
	short := w.bodily && w.left > 0
	w.mu.Unlock()
	if short {
		w.pipe.CloseWithError(io.ErrUnexpectedEOF)
		return
	}
	w.pipe.CloseWithError(io.EOF)
}

func (w *pipeWriter) fail(err error) {
	w.mu.Lock()
	if !w.started {
		w.started, w.err = true, err
		w.head <- nil
	}
	w.mu.Unlock()
	w.pipe.CloseWithError(err)
}

// hostTransport is Simulator.Transport.
type hostTransport struct{ sim *Simulator }

func (t hostTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	name, _ := strings.CutSuffix(r.URL.Hostname(), ".simulator")
	h := t.sim.API()
	if name != "api" {
		i := -1
		if n, ok := strings.CutPrefix(name, "edge"); ok {
			if _, err := fmt.Sscan(n, &i); err != nil {
				i = -1
			}
		}
		if i < 0 || i >= len(t.sim.edges) {
			return nil, fmt.Errorf("simulator: no host %q: give api.simulator, or edge0.simulator to edge%d.simulator", r.URL.Host, len(t.sim.edges)-1)
		}
		h = t.sim.edges[i]
	}
	return (&handlerTransport{handler: h, sim: t.sim}).RoundTrip(r)
}
