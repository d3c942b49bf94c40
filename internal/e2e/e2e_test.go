// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package e2e holds all parts together: a site behind simulated edges, recorded
// by a tracker and purged by a dispatcher through AWS's own client, in virtual
// time. What the edges serve afterwards is the judge.
package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cf-invalidation-tracker/cftrack"
	"github.com/cf-invalidation-tracker/cftrack/awscloudfront"
	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/memstore"
)

const dist = simulator.DefaultDistribution

// A site answers every path with its version; a path can be made slow.
type site struct {
	mu      sync.Mutex
	version int
	delay   map[string]time.Duration
	fetched map[string]int
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	version, delay := s.version, s.delay[r.RequestURI]
	s.fetched[r.RequestURI]++
	s.mu.Unlock()
	time.Sleep(delay) // the content was read before the delay: the purge race
	w.Header().Set("Cache-Control", "max-age=86400")
	w.Header().Set("Cache-Tag", "all, "+strings.Split(r.RequestURI, "/")[1])
	fmt.Fprintf(w, "%s v%d", r.RequestURI, version)
}

func (s *site) publish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
}

func (s *site) slow(path string, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay[path] = d
}

type world struct {
	t       *testing.T
	site    *site
	st      *memstore.Store
	sim     *simulator.Simulator
	tracker *cftrack.Tracker
	purger  *dispatch.Dispatcher
	client  *http.Client
}

func inWorld(t *testing.T, opts simulator.Options, f func(*testing.T, *world)) {
	t.Helper()
	for _, name := range []string{"AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_CLOUDFRONT", "AWS_CA_BUNDLE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, st: memstore.New(), site: &site{version: 1, delay: map[string]time.Duration{}, fetched: map[string]int{}}}
		var err error
		if w.tracker, err = cftrack.Open(w.st, dist, nil); err != nil {
			t.Fatal(err)
		}
		if w.sim, err = simulator.New(w.tracker.Middleware(w.site), &opts); err != nil {
			t.Fatal(err)
		}
		w.client = &http.Client{Transport: w.sim.Transport()}
		cdn, err := awscloudfront.New(t.Context(), awscloudfront.Options{AccessKey: "AKID", SecretKey: "secret",
			Endpoint: "http://api.simulator", HTTPClient: w.client})
		if err != nil {
			t.Fatal(err)
		}
		w.purger = dispatch.New(w.st, dist, cdn, nil)
		t.Cleanup(func() {
			if err := w.tracker.Close(context.Background()); err != nil {
				t.Error(err)
			}
			w.sim.Close()
			w.st.Close()
		})
		f(t, w)
	})
}

// get asks an edge and returns the version that it serves, and whether from its cache.
func (w *world) get(edge int, path string) (version int, hit bool) {
	w.t.Helper()
	resp, err := w.client.Get(fmt.Sprintf("http://edge%d.simulator%s", edge, path))
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	page, text, _ := strings.Cut(string(body), " v")
	if version, err = strconv.Atoi(text); page != path && path != "/" || err != nil { // "/" may be a root object
		w.t.Errorf("%s: %q: %v", path, body, err)
	}
	return version, strings.HasPrefix(resp.Header.Get("X-Cache"), "Hit")
}

func (w *world) everywhere(f func(edge int)) {
	for i := range w.sim.Edges() {
		f(i)
	}
}

func (w *world) invalidate(s selector.Selector) *dispatch.Report {
	w.t.Helper()
	r, err := w.purger.Invalidate(w.t.Context(), dispatch.Request{Selector: s})
	if err != nil {
		w.t.Fatal(err)
	}
	if r.State != journal.Completed {
		w.t.Fatalf("%+v", r)
	}
	return r
}

func TestExactlyTheSelectionIsPurged(t *testing.T) {
	paths := []string{"/", "/blog/2024/a", "/blog/2024/a/comments?page=2", "/blog/2023/b/comments", "/blog/2023/b",
		"/blog/", "/about", "/img/a%20b.png", "/img/a+b.png", "/caf%C3%A9/comments"}
	for _, tc := range []struct {
		name     string
		sel      selector.Selector
		selected []string
	}{
		{"pattern in the middle", selector.Selector{Patterns: []string{"/blog/*/comments*"}},
			[]string{"/blog/2024/a/comments?page=2", "/blog/2023/b/comments"}},
		{"suffix", selector.Selector{Patterns: []string{"*.png"}}, []string{"/img/a%20b.png", "/img/a+b.png"}},
		{"tag", selector.Selector{Tags: []string{"BLOG"}}, []string{"/blog/2024/a", "/blog/2024/a/comments?page=2",
			"/blog/2023/b/comments", "/blog/2023/b", "/blog/"}},
		{"directory and what it may spare", selector.Selector{Patterns: []string{"/blog/*"}}, []string{"/blog/2024/a",
			"/blog/2024/a/comments?page=2", "/blog/2023/b/comments", "/blog/2023/b", "/blog/"}},
		{"the rest", selector.Selector{Prefixes: []string{"/"}, Exclude: []string{"/blog/*"}},
			[]string{"/", "/about", "/img/a%20b.png", "/img/a+b.png", "/caf%C3%A9/comments"}},
		{"everything tracked", selector.Selector{All: true}, paths},
		{"one page with any query", selector.Selector{Patterns: []string{"/blog/2024/a/comments"}},
			[]string{"/blog/2024/a/comments?page=2"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, simulator.Options{SpareDoubtful: true}, func(t *testing.T, w *world) {
				for _, p := range paths {
					w.everywhere(func(e int) { w.get(e, p) })
				}
				time.Sleep(time.Minute)
				w.site.publish()
				w.invalidate(tc.sel)
				selected := make(map[string]bool)
				for _, p := range tc.selected {
					selected[p] = true
				}
				for _, p := range paths {
					w.everywhere(func(e int) {
						version, hit := w.get(e, p)
						if selected[p] && version != 2 {
							t.Errorf("edge %d serves %s from before the cut", e, p)
						}
						if !selected[p] && !hit {
							t.Errorf("edge %d lost %s, which nobody selected", e, p)
						}
					})
				}
			})
		})
	}
}

// A response that began before the cut and ended after the purge was sent puts
// old content back; without the follow-up it would stay for a day.
func TestThePurgeRaceIsClosed(t *testing.T) {
	for _, delay := range []time.Duration{1500 * time.Millisecond, 5 * time.Second, 12 * time.Second, 28 * time.Second} {
		t.Run(delay.String(), func(t *testing.T) {
			inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
				w.get(0, "/news/today")
				w.get(1, "/other")
				time.Sleep(time.Minute)
				w.site.slow("/news/today", delay)
				done := make(chan struct{})
				go func() {
					defer close(done)
					w.get(2, "/news/today") // reads version 1
				}()
				time.Sleep(time.Second)
				w.site.publish()
				w.site.slow("/news/today", 0)
				r := w.invalidate(selector.Selector{Patterns: []string{"/news/*"}})
				<-done
				w.everywhere(func(e int) {
					if version, _ := w.get(e, "/news/today"); version != 2 {
						t.Errorf("edge %d serves what the race put back", e)
					}
				})
				if _, hit := w.get(1, "/other"); !hit {
					t.Error("what nobody selected was purged")
				}
				if late := delay > 2*time.Second; (r.FollowUps > 0) != late {
					t.Errorf("%d follow-ups for a response of %v", r.FollowUps, delay)
				}
			})
		})
	}
}

// The default root object is one page with "/", whichever is named, and wherever
// CloudFront keeps it.
func TestTheRootObjectIsPurgedUnderBothPaths(t *testing.T) {
	for _, byIndex := range []bool{false, true} {
		for _, named := range []string{"/", "/index.html", "*.html"} {
			t.Run(fmt.Sprintf("%s, kept as index %t", named, byIndex), func(t *testing.T) {
				inWorld(t, simulator.Options{DefaultRootObject: "index.html", RootKeyIsIndex: byIndex}, func(t *testing.T, w *world) {
					w.get(0, "/")
					w.get(1, "/index.html")
					w.get(1, "/other")
					time.Sleep(time.Minute)
					w.site.slow("/index.html", 12*time.Second)
					done := make(chan struct{})
					go func() {
						defer close(done)
						w.get(2, "/") // reads version 1
					}()
					time.Sleep(time.Second)
					w.site.publish()
					w.site.slow("/index.html", 0)
					r := w.invalidate(selector.Selector{Patterns: []string{named}, RootObject: "index.html"})
					<-done
					w.everywhere(func(e int) {
						for _, p := range []string{"/", "/index.html"} {
							if version, _ := w.get(e, p); version != 2 {
								t.Errorf("edge %d serves the old %s", e, p)
							}
						}
					})
					if _, hit := w.get(1, "/other"); !hit {
						t.Error("what nobody selected was purged")
					}
					if r.FollowUps != 2 {
						t.Errorf("%d follow-ups", r.FollowUps)
					}
				})
			})
		}
	}
}

// An entry that is purged is forgotten, unless it was served again meanwhile.
func TestASecondPurgeFindsWhatCameBack(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.get(0, "/a")
		w.get(0, "/b")
		time.Sleep(time.Minute)
		w.invalidate(selector.Selector{All: true})
		time.Sleep(time.Minute)
		w.get(1, "/b")
		time.Sleep(time.Minute)
		p, err := w.purger.Plan(t.Context(), dispatch.Request{Selector: selector.Selector{All: true}})
		if err != nil {
			t.Fatal(err)
		}
		if p.Totals.Selected != 1 || len(p.Items) != 1 || p.Items[0].Item.String() != "/b" {
			t.Fatalf("%+v", p.Items)
		}
	})
}

// slow is a store whose documents take their time.
type slow struct{ store.Store }

func (s slow) Commit(ctx context.Context, d string, t store.Transaction) (uint64, error) {
	time.Sleep(100 * time.Millisecond)
	return s.Store.Commit(ctx, d, t)
}

// Whoever opens a tracker, flushes it and purges everything at once has a
// complete inventory: after the flush the tracking has begun.
func TestTrackingHasBegunAfterAFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := slow{memstore.New()}
		defer st.Close()
		tracker, err := cftrack.Open(st, dist, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := tracker.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		sessions, err := journal.Open(st, dist).Sessions(t.Context())
		if err != nil || len(sessions) != 1 {
			t.Errorf("%d sessions after a flush, %v", len(sessions), err)
		}
		if err := tracker.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestPurgingEverythingMakesANewInventoryComplete(t *testing.T) {
	inWorld(t, simulator.Options{}, func(t *testing.T, w *world) {
		w.get(0, "/a/1")
		w.get(0, "/a/2")
		w.get(0, "/b")
		time.Sleep(time.Minute)
		plan := func() *dispatch.Preview {
			p, err := w.purger.Plan(t.Context(), dispatch.Request{Selector: selector.Selector{Prefixes: []string{"/a/"}}})
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		if p := plan(); p.Coverage.Complete || p.Totals.Wildcards != 0 || p.Totals.Items != 2 {
			t.Fatalf("a new inventory is not complete: %+v", p.Totals)
		}
		w.invalidate(selector.Selector{Patterns: []string{"/*"}})
		w.get(0, "/a/1")
		w.get(0, "/a/2")
		w.get(0, "/b")
		time.Sleep(2 * time.Second)
		if p := plan(); !p.Coverage.Complete || p.Totals.Wildcards != 1 || p.Totals.Items != 1 {
			t.Fatalf("%+v, complete %v", p.Totals, p.Coverage.Complete)
		}
	})
}
