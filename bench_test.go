// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cftrack_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

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
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				r := httptest.NewRequest(http.MethodGet, "/blog/2026/a-page?lang=en", nil)
				w := &light{header: http.Header{"Cache-Control": {"public, max-age=600"}}}
				for pb.Next() {
					h.ServeHTTP(w, r)
				}
			})
		})
	}
}

// BenchmarkServer shows the same around a real server and connection.
func BenchmarkServer(b *testing.B) {
	all := middlewares(b)
	for _, name := range []string{"bare", "cftrack", "promhttp"} {
		b.Run(name, func(b *testing.B) {
			srv := httptest.NewServer(all[name](http.HandlerFunc(servePage)))
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
