// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cftrack_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/cf-invalidation-tracker/cftrack"
	"github.com/cf-invalidation-tracker/cftrack/store/memstore"
)

// light is a ResponseWriter that costs next to nothing.
type light struct{ header http.Header }

func (w *light) Header() http.Header         { return w.header }
func (w *light) Write(b []byte) (int, error) { return len(b), nil }
func (w *light) WriteHeader(int)             {}
func (w *light) Flush()                      {}

// middlewares are what is compared: nothing, this, and the usual measurement of
// durations by method and status.
func middlewares(b *testing.B) map[string]func(http.Handler) http.Handler {
	tr, err := cftrack.Open(memstore.New(), "E1", nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = tr.Close(b.Context()) })
	durations := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "d"}, []string{"code", "method"})
	return map[string]func(http.Handler) http.Handler{
		"bare":     func(h http.Handler) http.Handler { return h },
		"cftrack":  tr.Middleware,
		"promhttp": func(h http.Handler) http.Handler { return promhttp.InstrumentHandlerDuration(durations, h) },
	}
}

var page = []byte("<!doctype html><title>page</title>")

func servePage(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(page) }

func BenchmarkMiddleware(b *testing.B) {
	all := middlewares(b)
	for _, name := range []string{"bare", "cftrack", "promhttp"} {
		h := all[name](http.HandlerFunc(servePage))
		run := func(header http.Header) func(*testing.B) {
			return func(b *testing.B) {
				r := httptest.NewRequest(http.MethodGet, "/blog/2026/a-page?lang=en", nil)
				w := &light{header: header}
				b.ReportAllocs()
				for b.Loop() {
					h.ServeHTTP(w, r)
				}
			}
		}
		b.Run(name, run(http.Header{"Cache-Control": {"public, max-age=600"}}))
		b.Run(name+"/tags", run(http.Header{"Cache-Control": {"max-age=600"}, "Cache-Tag": {"page, blog, author-7"}}))
	}
}

func BenchmarkMiddlewareParallel(b *testing.B) {
	all := middlewares(b)
	for _, name := range []string{"bare", "cftrack", "promhttp"} {
		h := all[name](http.HandlerFunc(servePage))
		for paths, label := range map[int]string{1: "/one-path", 128: "/many-paths"} {
			b.Run(name+label, func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					rs := make([]*http.Request, paths)
					for i := range rs {
						rs[i] = httptest.NewRequest(http.MethodGet, fmt.Sprintf("/blog/2026/page-%d?lang=en", i), nil)
					}
					w := &light{header: http.Header{"Cache-Control": {"public, max-age=600"}}}
					for i := 0; pb.Next(); i++ {
						h.ServeHTTP(w, rs[i%paths])
					}
				})
			})
		}
	}
}

// BenchmarkMiddlewareScoped is the cost once handlers call the tracker.
func BenchmarkMiddlewareScoped(b *testing.B) {
	tr, err := cftrack.Open(memstore.New(), "E1", nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = tr.Close(b.Context()) })
	if err := tr.SetTTL(b.Context(), "/", time.Hour); err != nil {
		b.Fatal(err)
	}
	h := tr.Middleware(http.HandlerFunc(servePage))
	r := httptest.NewRequest(http.MethodGet, "/blog/2026/a-page?lang=en", nil)
	w := &light{header: http.Header{"Cache-Control": {"public, max-age=600"}}}
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}

// BenchmarkRecord is the cost of a path that is known, and of one that is new
// (with what the loop does for it beside).
func BenchmarkRecord(b *testing.B) {
	paths := make([]string, 200_000)
	for i := range paths {
		paths[i] = fmt.Sprintf("/catalogue/section-%d/product-%d.html?lang=en", i%100, i)
	}
	for name, most := range map[string]int{"known": 1000, "new": len(paths)} {
		b.Run(name, func(b *testing.B) {
			tr, err := cftrack.Open(memstore.New(), "E1", &cftrack.Options{Buffer: len(paths), Margin: -1})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = tr.Close(b.Context()) }()
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if err := tr.Record(b.Context(), paths[i%most], time.Hour); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}

// BenchmarkServer shows the same around a real server and connection.
func BenchmarkServer(b *testing.B) {
	all := middlewares(b)
	for _, name := range []string{"bare", "cftrack", "promhttp"} {
		b.Run(name, func(b *testing.B) {
			srv := httptest.NewServer(all[name](http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "max-age=600")
				servePage(w, r)
			})))
			defer srv.Close()
			b.ReportAllocs()
			for b.Loop() {
				resp, err := srv.Client().Get(srv.URL + "/blog/2026/a-page?lang=en")
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		})
	}
}
