// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cftrack_test

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

// list prints what CloudFront may hold, as cftrack list does.
func list(st store.Store, distribution string) {
	for e, err := range st.Scan(context.Background(), distribution, store.Range{Now: time.Now()}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(e.Path, e.Tags)
	}
}

// A server records what it serves by putting the middleware around its handlers.
func Example() {
	st := memstore.New() // any store: a server that restarts wants a durable one
	tracker, err := cftrack.Open(st, "E2EXAMPLE", nil)
	if err != nil {
		log.Fatal(err)
	}

	mux := http.NewServeMux()
	mux.HandleFunc("GET /blog/{post}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=3600")
		w.Header().Set("Cache-Tag", "blog, post-"+r.PathValue("post"))
		fmt.Fprintln(w, "a post")
	})
	mux.HandleFunc("GET /cart", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store") // so CloudFront does not keep it
		fmt.Fprintln(w, "a cart")
	})
	server := httptest.NewServer(tracker.Middleware(mux))

	for _, path := range []string{"/blog/7?page=2", "/blog/7", "/cart"} {
		resp, err := http.Get(server.URL + path)
		if err != nil {
			log.Fatal(err)
		}
		_ = resp.Body.Close()
	}

	server.Close() // first, so that the tracker sees the end of every response
	if err := tracker.Close(context.Background()); err != nil {
		log.Fatal(err)
	}
	list(st, "E2EXAMPLE")
	// Output:
	// /blog/7 [blog post-7]
	// /blog/7?page=2 [blog post-7]
}

// A program without HTTP handlers, such as one that fills a bucket, says itself
// what CloudFront may come to hold.
func ExampleTracker_Record() {
	st := memstore.New()
	tracker, err := cftrack.Open(st, "E2EXAMPLE", nil)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	for path, ttl := range map[string]time.Duration{
		"/img/a b.png": 24 * time.Hour,
		"/feed.xml":    0, // not known: the longest that the rules allow
		"/logo.svg":    cftrack.UntilPurged,
	} {
		if err := tracker.Record(ctx, path, ttl, "assets"); err != nil {
			log.Fatal(err)
		}
	}
	if err := tracker.Flush(ctx); err != nil { // now it is stored
		log.Fatal(err)
	}
	list(st, "E2EXAMPLE")
	if err := tracker.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// /feed.xml [assets]
	// /img/a%20b.png [assets]
	// /logo.svg [assets]
}

// By itself a 404 does not remove a path: the edge that asked has the error now,
// but others may still hold the page that was there before. A site that lets
// those copies run out, and does not want to pay for paths that are no more, says
// so in its handler. The 404 itself is then not recorded either.
func ExampleTracker_Remove() {
	st := memstore.New()
	tracker, err := cftrack.Open(st, "E2EXAMPLE", nil)
	if err != nil {
		log.Fatal(err)
	}
	posts := map[string]string{"/old": "here today", "/new": "here to stay"}
	h := tracker.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		post, ok := posts[r.URL.Path]
		if !ok {
			if err := tracker.Remove(r.Context(), r.RequestURI); err != nil {
				log.Print(err)
			}
			http.NotFound(w, r)
			return
		}
		fmt.Fprintln(w, post)
	}))
	get := func(path string) { h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil)) }

	get("/old")
	get("/new")
	delete(posts, "/old")
	get("/old")

	if err := tracker.Close(context.Background()); err != nil {
		log.Fatal(err)
	}
	list(st, "E2EXAMPLE")
	// Output:
	// /new []
}

// A page that is announced to change soon need not be thought cached for longer.
func ExampleTracker_SetTTL() {
	st := memstore.New()
	tracker, err := cftrack.Open(st, "E2EXAMPLE", nil)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	if err := tracker.Record(ctx, "/prices", 24*time.Hour); err != nil {
		log.Fatal(err)
	}
	if err := tracker.SetTTL(ctx, "/prices", time.Hour); err != nil {
		log.Fatal(err)
	}
	if err := tracker.Close(ctx); err != nil {
		log.Fatal(err)
	}
	for e := range st.Scan(ctx, "E2EXAMPLE", store.Range{Now: time.Now()}) {
		fmt.Println(e.Path, time.Until(e.Expires).Round(time.Minute))
	}
	// Output:
	// /prices 1h0m0s
}
