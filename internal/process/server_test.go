// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack"
	"github.com/cf-invalidation-tracker/cftrack/internal/stores"
	"github.com/cf-invalidation-tracker/cftrack/store/redisstore"
)

// A server is this test binary as somebody's Go server with the tracker in it: it
// passes requests on to the site and lets the tracker see them. Its store's
// address comes from where cftrack takes it. It ends, cleanly, with its standard
// input.
const (
	roleServer = "server"
	envSite    = "PROCESS_TEST_SITE" // where the pages are
	envBuffer  = "PROCESS_TEST_BUFFER"
)

// lease is short, so that a server that died is soon known to be lost.
const lease = 3 * time.Second

// A health is what a server says of its tracker.
type health struct {
	NotReady string // the error of Ready
	Err      string // what went wrong in the last round
	Recorded uint64
	Lost     uint64
}

func serve() int {
	if err := serveUntilEOF(); err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		return 1
	}
	return 0
}

func serveUntilEOF() (err error) {
	redisstore.DiscardClientLog()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	site, err := url.Parse(os.Getenv(envSite))
	if err != nil {
		return err
	}
	opts := &cftrack.Options{Lease: lease, Margin: 200 * time.Millisecond, Logger: log}
	if s := os.Getenv(envBuffer); s != "" {
		if _, err := fmt.Sscan(s, &opts.Buffer); err != nil {
			return err
		}
	}
	st, err := stores.Open(os.Getenv("CFTRACK_STORE"), log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	tracker, err := cftrack.Open(st, os.Getenv("CFTRACK_DISTRIBUTION"), opts)
	if err != nil {
		return err
	}
	var (
		mu    sync.Mutex
		ended []string // requests that the tracker has seen the end of
	)
	recorded := tracker.Middleware(httputil.NewSingleHostReverseProxy(site))
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		target := r.RequestURI
		recorded.ServeHTTP(w, r)
		mu.Lock()
		defer mu.Unlock()
		ended = append(ended, target)
	})
	// Flush answers with the requests that are in the store now for certain.
	mux.HandleFunc("/-/flush", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		done := slices.Clone(ended)
		mu.Unlock()
		if err := tracker.Flush(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_ = json.NewEncoder(w).Encode(done) // whoever asked is gone
	})
	mux.HandleFunc("/-/health", func(w http.ResponseWriter, _ *http.Request) {
		s := tracker.Stats()
		h := health{Recorded: s.Recorded, Lost: s.Lost}
		if err := tracker.Ready(); err != nil {
			h.NotReady = err.Error()
		}
		if s.Err != nil {
			h.Err = s.Err.Error()
		}
		_ = json.NewEncoder(w).Encode(h)
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = server.Shutdown(context.Background())
	}()
	fmt.Println("http://" + l.Addr().String())
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return tracker.Close(context.Background())
}

// A server is one that runs.
type server struct {
	*process
	url string
}

// serve starts a server and sends the edges' requests to it.
func (w *world) serve(env ...string) *server {
	w.Helper()
	s := &server{process: w.startCommand(os.Args[0], append(env, envRole+"="+roleServer, envSite+"="+w.site.url), nil)}
	w.until("the server listens", func() bool {
		s.url = firstLine(s.stdout.String())
		return s.url != ""
	}, s.process)
	origin, err := url.Parse(s.url)
	if err != nil {
		w.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(origin)
	proxy.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	w.askOf(proxy)
	return s
}

// flush returns what is in the store, as the server was told; ok is false if it
// was told nothing.
func (s *server) flush(tb testing.TB) (paths []string, ok bool) {
	tb.Helper()
	return paths, s.ask(tb, "/-/flush", &paths)
}

func (s *server) health(tb testing.TB) (h health, ok bool) {
	tb.Helper()
	return h, s.ask(tb, "/-/health", &h)
}

func (s *server) ask(tb testing.TB, path string, v any) bool {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		tb.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK && json.NewDecoder(resp.Body).Decode(v) == nil
}
