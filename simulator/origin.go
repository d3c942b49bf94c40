// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
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
	r.URL.Scheme, r.URL.Host = t.scheme, t.host
	if r.Host == originHost {
		r.Host = t.host
	}
	return t.Transport.RoundTrip(r)
}

// hop is one request of an edge to its regional cache. What the cache sets is set before it answers.
type hop struct {
	q   *request
	age time.Duration // since the answer left the origin
	xc  string
}

// ask has the regional cache answer, or the origin if there is none or it is not for this method
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/HowCloudFrontWorks.html).
// With an old object it asks whether that still holds, with part for the range that the viewer wants.
func (e *edge) ask(ctx context.Context, q *request, old *object, part bool) (*http.Response, *hop, error) {
	if e.up == nil || q.method == http.MethodOptions {
		resp, err := e.askOrigin(ctx, q, old, part, old == nil && q.down == nil)
		return resp, &hop{}, err
	}
	own := *q
	own.page, own.served = false, nil
	own.r = q.r.Clone(ctx)
	own.r.Body, own.r.ContentLength = http.NoBody, 0
	h := &hop{q: &own}
	own.down = h
	for name := range q.r.Header {
		if conditional(name) && !(part && (name == "Range" || name == "If-Range")) {
			delete(own.r.Header, name)
		}
	}
	condition(own.r.Header, old)
	in := &http.Request{Method: q.method, URL: originURL(q.key.target), Host: q.r.Host, Header: own.r.Header}
	regional := &handlerTransport{sim: e.sim, handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		own.w, own.r = w, own.r.WithContext(r.Context())
		e.up.serve(&own)
	})}
	resp, err := regional.RoundTrip(in.WithContext(ctx))
	return resp, h, err
}

// condition asks whether an object is unchanged, unless it has to come anew each time.
func condition(h http.Header, old *object) {
	if old == nil || varies(old.header) {
		return
	}
	if t := old.header.Get("Etag"); t != "" {
		h.Set("If-None-Match", t)
	}
	if t := old.header.Get("Last-Modified"); t != "" {
		h.Set("If-Modified-Since", t)
	}
}

// askOrigin asks the origin; part and conditions say which of the viewer's own conditions go along.
// A GET or HEAD that gets no answer is sent again as often as the origin's ConnectionAttempts say.
func (e *edge) askOrigin(ctx context.Context, q *request, old *object, part, conditions bool) (resp *http.Response, err error) {
	s := e.sim
	if s.origin == nil {
		return nil, errors.New("there is no origin")
	}
	target := q.b.originTarget(s.rooted(q.target))
	h := q.b.originHeader(q.r)
	for name, v := range q.r.Header {
		if conditional(name) && (part && (name == "Range" || name == "If-Range") || conditions && name != "Range" && name != "If-Range") {
			h[name] = v
		}
	}
	if !q.b.forwardsCookies {
		condition(h, old)
	}
	h.Set("X-Amz-Cf-Id", q.id)
	h["Via"] = []string{strings.Join(append(slices.Clone(q.r.Header["Via"]), e.via), ", ")}
	attempts := 1
	if q.method == http.MethodGet || q.method == http.MethodHead {
		attempts = q.b.origin.attempts
	}
	for range attempts {
		out := &http.Request{
			Method: q.method, URL: originURL(s.originPrefix + q.b.origin.path + target), Host: cmp.Or(q.b.originHost(q.r), originHost),
			Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: h.Clone(), ContentLength: q.r.ContentLength, Body: http.NoBody, // the last attempt may still read its own
		}
		if q.r.ContentLength != 0 && q.r.Body != nil {
			out.Body = q.r.Body
		}
		if resp, err = s.askOnce(ctx, out, q.b.origin.timeout); err == nil || ctx.Err() != nil {
			return resp, err
		}
	}
	return nil, err
}

// askOnce sends one request. The time is that to the first byte of the answer, as far as the edge sees
// it: the header.
func (s *Simulator) askOnce(ctx context.Context, out *http.Request, within time.Duration) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timeout := time.AfterFunc(within, func() { cancel(errOriginTimeout) })
	resp, err := s.origin.RoundTrip(out.WithContext(ctx))
	timeout.Stop()
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(nil)
		return nil, err
	}
	resp.Body = &cancelBody{resp.Body, cancel}
	return resp, nil
}

var errOriginTimeout = errors.New("the origin did not answer in time")

// cancelBody ends the context of its response with the body.
type cancelBody struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (b *cancelBody) Close() error {
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
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
	if r.URL.Scheme == "https" {
		secure := h
		h = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.TLS = &tls.ConnectionState{HandshakeComplete: true}
			secure.ServeHTTP(w, r)
		})
	}
	return (&handlerTransport{handler: h, sim: t.sim}).RoundTrip(r)
}
