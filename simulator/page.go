// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
)

// errorPage puts a custom error page in place of an error. If it cannot be had, the viewer gets the status
// of asking for it:
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/GeneratingCustomErrorResponses.html
func (e *edge) errorPage(q *request, a *answer) {
	page, ok := e.sim.pages[a.resp.StatusCode]
	if !ok || q.page || q.down != nil {
		return
	}
	path := page.ResponsePagePath
	own := &request{id: q.id, target: path, path: path, method: http.MethodGet, page: true}
	own.b = e.sim.behavior(path)
	own.r = q.r.Clone(e.sim.ctx)
	own.r.Method, own.r.RequestURI, own.r.Body, own.r.ContentLength = http.MethodGet, path, http.NoBody, 0
	for name := range q.r.Header {
		if conditional(name) {
			delete(own.r.Header, name)
		}
	}
	own.key = e.sim.keyOf(own.b, path, own.r)
	if own.key.target == q.key.target {
		return // it would wait for itself
	}
	a.failed = true
	got := &bufferWriter{header: http.Header{}}
	own.w = got
	e.load(own)
	if got.status >= 400 || got.status == 0 {
		if got.status != 0 {
			a.resp.StatusCode = got.status
		}
		return
	}
	_ = a.resp.Body.Close()
	h := got.header
	for name := range h {
		if name == "Age" || name == "Via" || name == "X-Cache" || strings.HasPrefix(name, "X-Amz-Cf-") {
			delete(h, name)
		}
	}
	body := io.NopCloser(io.Reader(&got.body))
	if q.method == http.MethodHead {
		body = http.NoBody
	}
	a.resp = &http.Response{StatusCode: page.ResponseCode, Header: h, Body: body}
}

// load has the edge answer itself. An answer that breaks off leaves the status 0.
func (e *edge) load(q *request) {
	defer func() {
		if p := recover(); p != nil {
			if err, ok := p.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
			q.w.(*bufferWriter).status = 0
		}
	}()
	if q.b.cacheable {
		e.serve(q)
		return
	}
	e.pass(q)
}

// bufferWriter keeps an answer.
type bufferWriter struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *bufferWriter) Header() http.Header { return w.header }

func (w *bufferWriter) WriteHeader(status int) { w.status = status }

func (w *bufferWriter) Write(p []byte) (int, error) { return w.body.Write(p) }
