// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
)

// A response is one answer of an origin server. Its content was read from the
// site when it began, which is the worst there is.
type response struct {
	id         int
	path       string
	tags       []string
	maxAge     time.Duration
	by         *process // the recorder; nil: a server that logs
	read, end  time.Time
	over       bool // it has left its server
	given      bool // its own handler gave it up
	imported   time.Time
	assumption bool
}

// get asks an edge for a page, as a viewer.
func (w *world) get(st *Step) {
	if st.Page >= len(w.script.Pages) {
		return
	}
	r := httptest.NewRequest("GET", "http://edge.simulator/", nil)
	r.RequestURI = w.script.Pages[st.Page].Path
	r.Header.Set("X-Step", strconv.Itoa(slices.IndexFunc(w.script.Steps, func(x Step) bool { return x.At == st.At && x.Do == Get && x.Page == st.Page })))
	defer func() { _ = recover() }() // a connection that breaks
	w.sim.Edge(st.Edge%w.sim.Edges()).ServeHTTP(httptest.NewRecorder(), r)
}

// origin is where the edges' requests arrive: it hands them to a server, and what
// that answers to the network.
func (w *world) origin(rw http.ResponseWriter, r *http.Request) {
	i, err := strconv.Atoi(r.Header.Get("X-Step"))
	if err != nil {
		w.t.Error(err)
	}
	st := w.script.Steps[i]
	p := w.server(st.Who)
	if p == nil || p.isDead() || p.closing.Load() {
		http.Error(rw, "no such server", http.StatusBadGateway)
		return
	}
	path, err := cfpath.FromTarget(r.RequestURI)
	if err != nil {
		w.t.Error(err)
	}
	page := slices.IndexFunc(w.script.Pages, func(x Page) bool { return x.Path == r.RequestURI })
	res := &response{path: path, read: time.Now(), maxAge: time.Duration(w.script.Pages[page].MaxAge) * time.Second}
	if p.tracker != nil {
		res.by = p
	}
	if res.maxAge == 0 {
		res.maxAge = 24 * time.Hour
	}
	w.mu.Lock()
	res.id = len(w.responses)
	w.responses = append(w.responses, res)
	w.running++
	line := w.tags[page]
	w.mu.Unlock()
	for tag := range strings.SplitSeq(line, ",") {
		if tag = strings.TrimSpace(tag); tag != "" {
			res.tags = append(res.tags, tag)
		}
	}
	defer func() {
		w.mu.Lock()
		res.over = true
		w.running--
		w.mu.Unlock()
	}()
	call := &call{step: &st, res: res, p: p, w: w, tags: line}
	r = r.WithContext(context.WithValue(r.Context(), callKey{}, call))
	w.say("response %d of %s begins: edge %d, %s, %v + %v", res.id, path, st.Edge, p.name, st.For, st.Drain)
	if st.Stream {
		p.handler.ServeHTTP(rw, r)
		call.finish()
		return
	}
	held := &bag{header: http.Header{}}
	p.handler.ServeHTTP(held, r)
	call.finish()
	time.Sleep(st.Drain)
	for k, v := range held.header {
		rw.Header()[k] = v
	}
	rw.WriteHeader(held.status)
	_, _ = rw.Write(held.body.Bytes())
}

// A call is what the site needs to know of a request.
type call struct {
	step *Step
	res  *response
	p    *process
	w    *world
	tags string
}

type callKey struct{}

func (c *call) finish() {
	c.w.mu.Lock()
	c.res.end = time.Now()
	c.w.mu.Unlock()
	c.w.say("response %d of %s ends at its server", c.res.id, c.res.path)
}

// bag is what the network has taken from a server and not delivered yet.
type bag struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (b *bag) Header() http.Header { return b.header }
func (b *bag) WriteHeader(status int) {
	if b.status == 0 {
		b.status = status
	}
}
func (b *bag) Write(p []byte) (int, error) { b.WriteHeader(200); return b.body.Write(p) }

// site answers with the number of the response, after the time that it takes.
func (w *world) site(rw http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(callKey{}).(*call)
	page := slices.IndexFunc(w.script.Pages, func(x Page) bool { return x.Path == r.RequestURI })
	if age := w.script.Pages[page].MaxAge; age > 0 {
		rw.Header().Set("Cache-Control", fmt.Sprintf("max-age=%d", age))
	}
	if c.tags != "" {
		rw.Header().Set("Cache-Tag", c.tags)
	}
	body := fmt.Sprintf("response %d.", c.res.id)
	if c.step.Stream {
		rw.WriteHeader(200)
		_, _ = rw.Write([]byte(body[:4]))
		body = body[4:]
	}
	timer := time.NewTimer(c.step.For)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.p.died:
		panic(http.ErrAbortHandler) // with its process
	}
	if c.p.isDead() {
		panic(http.ErrAbortHandler)
	}
	if t := c.p.tracker; t != nil && c.step.Text != "" {
		w.mu.Lock()
		w.claims[c.res.path] = time.Now()
		c.res.given = true
		w.mu.Unlock()
		ttl := time.Duration(0)
		if c.step.Text == "ttl" {
			ttl = time.Second
		}
		if err := t.SetTTL(r.Context(), c.res.path, ttl); err != nil {
			w.fault("SetTTL in a handler: %v", err)
		}
	}
	_, _ = rw.Write([]byte(body))
}

// foreign is what somebody else sends: of pages that are not ours, so that what is gone
// is our doing, but within the same limits.
func (w *world) foreign() simulator.Foreign {
	if w.script.Foreign == 0 {
		return simulator.Foreign{}
	}
	return simulator.Foreign{Rate: w.script.Foreign, Paths: 5, Wildcards: 1}
}

// intercept is CloudFront's weather.
func (w *world) intercept(op string, _ *http.Request) *simulator.Fault {
	if op == simulator.ListInvalidations && w.script.Blind {
		return &simulator.Fault{Status: http.StatusForbidden, Code: "AccessDenied", Message: "not authorized to perform: cloudfront:ListInvalidations"}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !time.Now().Before(w.fair) {
		return nil
	}
	r := w.skyRand
	if r.IntN(100) < 40 {
		return nil
	}
	sky := w.sky
	if sky == "mixed" {
		sky = []string{"unavailable", "throttling", "lost answers", "lost requests", "slow", "lag"}[r.IntN(6)]
	}
	switch sky {
	case "unavailable":
		return simulator.ServiceUnavailable()
	case "throttling":
		return simulator.Throttling()
	case "lost answers":
		return simulator.LostAnswer()
	case "lost requests":
		return simulator.LostRequest()
	case "slow":
		return &simulator.Fault{Delay: time.Duration(r.Int64N(int64(10 * time.Second)))}
	case "lag":
		if op == simulator.GetInvalidation {
			return &simulator.Fault{Status: 404, Code: "NoSuchInvalidation", Message: "The specified invalidation does not exist."}
		}
	}
	return nil
}
