// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package ancestor_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/cf-invalidation-tracker/cftrack"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/memstore"
)

// A middleware that takes out of the inventory what answers 404, for every
// handler behind it. It belongs inside the tracker's own, so that it speaks of
// the running request: then the 404 is not recorded either.
//
// The tracker does not do so by itself. That the origin has a page no more does
// not mean that CloudFront has: the edge that asked holds the error now, but
// others still hold the page, until its lifetime is over. With the path gone
// from the inventory no purge by what was seen reaches them, and no promise
// covers them. Who lets such copies run out, or purges a path when it is deleted,
// saves the price of sending paths that are no more.
func Example_removeOnNotFound() {
	st := memstore.New()
	tracker, err := cftrack.Open(st, "E1EXAMPLE", nil)
	if err != nil {
		log.Fatal(err)
	}
	removeOnNotFound := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := &statusWriter{ResponseWriter: w}
			next.ServeHTTP(s, r)
			if s.status == http.StatusNotFound {
				if err := tracker.Remove(r.Context(), r.RequestURI); err != nil {
					log.Print(err) // the path stays, which costs an item and misses nothing
				}
			}
		})
	}
	posts := http.NewServeMux()
	posts.HandleFunc("/new", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "here to stay") })
	posts.HandleFunc("/old", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Deleted") != "" {
			http.NotFound(w, r)
		}
	})
	h := tracker.Middleware(removeOnNotFound(posts))

	for _, header := range []string{"", "since then"} {
		for _, path := range []string{"/new", "/old", "/never"} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.Header.Set("Deleted", header)
			h.ServeHTTP(httptest.NewRecorder(), r)
		}
	}
	if err := tracker.Close(context.Background()); err != nil {
		log.Fatal(err)
	}
	for e, err := range st.Scan(context.Background(), "E1EXAMPLE", store.Range{Now: time.Now()}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.Path)
	}
	// Output:
	// /new
}

// A statusWriter remembers the status that a handler answered with.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status // the last, since those below 200 come before the one that counts
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
