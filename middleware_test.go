// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cftrack_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	chimiddleware "github.com/go-chi/chi/v5/middleware"
	"github.com/gorilla/mux"
	"github.com/labstack/echo/v4"

	"github.com/cf-invalidation-tracker/cftrack"
	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/store/memstore"
)

// serve sends one request through the site's middleware.
func (s *site) serve(method, target string, h http.HandlerFunc) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.tr.Middleware(h).ServeHTTP(w, httptest.NewRequestWithContext(s.Context(), method, target, nil))
	return w
}

func status(code int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Add(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

func TestMiddlewareRecordsWhatCloudFrontKeeps(t *testing.T) {
	rules := lifetime.DefaultRules()
	day := 2 * 24 * time.Hour // in two tiers
	for _, tc := range []struct {
		name   string
		method string
		h      http.HandlerFunc
		life   time.Duration // 0: not recorded
	}{
		{"nothing written", "GET", func(http.ResponseWriter, *http.Request) {}, day},
		{"written without a status", "GET", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(nil) }, day},
		{"a string", "GET", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "x") }, day},
		{"a copy", "GET", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, strings.NewReader("x")) }, day},
		{"flushed", "GET", func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() }, day},
		{"HEAD", "HEAD", status(200, "Cache-Control", "max-age=60"), 2 * time.Minute},
		{"max-age", "GET", status(200, "Cache-Control", "max-age=60"), 2 * time.Minute},
		{"two lines", "GET", status(200, "Cache-Control", "public", "Cache-Control", "max-age=60"), 2 * time.Minute},
		{"Expires", "GET", status(200, "Expires", "Sat, 01 Jan 2000 00:01:00 GMT"), 2 * time.Minute},
		{"no-store", "GET", status(200, "Cache-Control", "no-store"), 0},
		{"POST", "POST", status(200, "Cache-Control", "max-age=60"), 0},
		{"404", "GET", status(404), 20 * time.Second},
		{"201", "GET", status(201), rules.Of("/a", lifetime.Response{Method: "GET", Status: 201}).Lifetime},
		{"early hints first", "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(103)
			w.Header().Set("Cache-Control", "max-age=60")
			w.WriteHeader(404)
		}, 2 * time.Minute},
		{"the first status counts", "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(404)
			w.WriteHeader(200)
		}, 20 * time.Second},
		{"a header set too late", "GET", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("x"))
			w.Header().Set("Cache-Control", "no-store")
		}, day},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, nil)
				for range 2 { // the second finds the verdict of the first
					now := time.Now()
					s.serve(tc.method, "/a", tc.h)
					pass(time.Second)
					e, ok := s.live()["/a"]
					want := now.Add(tc.life + drain)
					if tc.name == "Expires" && ok {
						want = e.Expires // an instant, counted from the end in each tier
					}
					if ok != (tc.life > 0) || ok && !e.Expires.Equal(want) {
						t.Fatalf("%v %+v, want an end in %v", ok, e, tc.life)
					}
				}
				if st := s.tr.Stats(); st.Running != 0 || st.Recorded+st.NotKept != 2 {
					t.Fatalf("%+v", st)
				}
			})
		})
	}
}

// drain is the default of Options.Margin: CloudFront may have a response so much
// later than it ended here, and its life begins there.
const drain = 2 * time.Second

func TestAChangedHeaderIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil)
		for _, tc := range []struct {
			header []string
			life   time.Duration
		}{
			{nil, 48 * time.Hour},
			{[]string{"Expires", "Wed, 05 Jan 2000 00:00:00 GMT"}, 192 * time.Hour},
			{[]string{"Cache-Control", "max-age=388800"}, 216 * time.Hour},
			{[]string{"Cache-Control", "public", "Cache-Control", "max-age=432000"}, 240 * time.Hour},
		} {
			now := time.Now()
			s.serve("GET", "/a", status(200, tc.header...))
			if err := s.tr.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			if e := s.live()["/a"]; !e.Expires.Equal(now.Add(tc.life + drain)) {
				t.Errorf("%q: ends in %v, want %v", tc.header, e.Expires.Sub(now), tc.life)
			}
		}
	})
}

func TestAnEntryInUseIsNotDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, &cftrack.Options{Buffer: 1})
		s.record("/a", time.Hour)
		pass(10 * time.Second)
		s.serve("GET", "/a", func(http.ResponseWriter, *http.Request) {
			if err := s.tr.Record(context.Background(), "/b", time.Hour); !errors.Is(err, cftrack.ErrFull) {
				t.Errorf("Record = %v, with room for one path only", err)
			}
			pass(10 * time.Second)
		})
		pass(time.Second)
		if e := s.live()["/a"]; e.Hits != 2 {
			t.Fatalf("%+v", e)
		}
		pass(10 * time.Second)
		s.record("/b", time.Hour) // now there is room
	})
}

func TestAnErrorDoesNotRemoveAnEarlierSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil)
		now := time.Now()
		s.serve("GET", "/a", status(200, "Cache-Control", "max-age=600"))
		s.serve("GET", "/a", status(404))
		pass(time.Second)
		if e := s.live()["/a"]; !e.Expires.Equal(now.Add(20*time.Minute+drain)) || e.Hits != 2 {
			t.Fatalf("%+v", e)
		}
	})
}

func TestMiddlewareTakesThePathAsReceived(t *testing.T) {
	rules := lifetime.DefaultRules()
	rules.Default.Query, _ = cfpath.ParseQueryRule("include:page")
	for _, tc := range []struct {
		target, origin string
		rules          *lifetime.Rules
		want           string // "" if not recorded
	}{
		{target: "/a", want: "/a"},
		{target: "/a%2Fb/%7euser;v=1?x=1&y", want: "/a%2Fb/%7euser;v=1?x=1&y"},
		{target: "/a?utm=1&page=2", rules: &rules, want: "/a?page=2"},
		{target: "/prod/a", origin: "/prod", want: "/a"},
		{target: "/prod/a", origin: "prod/", want: "/a"},
		{target: "/prod", origin: "/prod"},
		{target: "/products/a", origin: "/prod"},
		{target: "/a", origin: "/prod"},
		{target: "/" + strings.Repeat("a", cfpath.MaxLength)},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := open(t, &cftrack.Options{OriginPath: tc.origin, Rules: tc.rules})
			hits := uint64(0)
			for range 3 { // also once it is known
				s.serve("GET", tc.target, func(w http.ResponseWriter, r *http.Request) {
					r.URL.Path = "/rewritten"
					w.WriteHeader(200)
				})
				pass(time.Second)
				hits++
			}
			got := s.live()
			if tc.want == "" {
				if len(got) != 0 {
					t.Errorf("%s: recorded %v", tc.target, got)
				}
			} else if len(got) != 1 || got[tc.want].Hits != hits {
				t.Errorf("%s: recorded %v, want %s", tc.target, got, tc.want)
			}
		})
	}
}

func TestTags(t *testing.T) {
	for _, tc := range []struct {
		header []string
		tags   []string
		mixed  bool
	}{
		{[]string{"Cache-Tag", "b, a ,,a"}, []string{"a", "b"}, false},
		{[]string{"Surrogate-Key", "b a"}, []string{"a", "b"}, false},
		{[]string{"Cache-Tag", "a b"}, []string{"a b"}, false},
		{[]string{"Cache-Tag", "a", "Surrogate-Key", "b c"}, []string{"a", "b", "c"}, true},
		{[]string{"Cache-Tag", "a", "Cache-Tag", "b"}, []string{"a", "b"}, true},
		{[]string{"Cache-Tag", "a", "Cache-Tag", "b", "Surrogate-Key", "c"}, []string{"a", "b", "c"}, true},
		{nil, nil, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := open(t, nil)
			for range 2 {
				s.serve("GET", "/a", status(200, tc.header...))
				pass(time.Second)
				if e := s.live()["/a"]; !slices.Equal(e.Tags, tc.tags) || e.Mixed != tc.mixed {
					t.Errorf("%q: tags %q, mixed %v", tc.header, e.Tags, e.Mixed)
				}
			}
		})
	}
}

func TestChangedTagsAreNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil)
		s.serve("GET", "/a", status(200, "Cache-Tag", "a b"))
		s.serve("GET", "/a", status(200, "Surrogate-Key", "a b"))
		pass(time.Second)
		if e := s.live()["/a"]; !slices.Equal(e.Tags, []string{"a", "a b", "b"}) || !e.Mixed {
			t.Fatalf("%+v", e)
		}
	})
}

// A response that began before a cut holds the acknowledgement up while it runs,
// and is reported when it ends.
func TestARunningResponse(t *testing.T) {
	for _, tc := range []struct {
		name     string
		method   string
		begin    http.HandlerFunc // before the cut
		end      http.HandlerFunc // after it
		holds    bool
		reported bool
	}{
		{name: "silent", method: "GET", holds: true, reported: true},
		{name: "streaming", method: "GET", begin: func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() },
			holds: true, reported: true},
		{name: "events", method: "GET", begin: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "no-cache")
			w.(http.Flusher).Flush()
		}},
		{name: "POST", method: "POST"},
		{name: "not kept in the end", method: "GET", end: status(200, "Cache-Control", "no-store"), holds: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, nil)
				start, end := time.Now(), make(chan struct{})
				done := make(chan struct{})
				go func() {
					defer close(done)
					s.serve(tc.method, "/slow/page", func(w http.ResponseWriter, r *http.Request) {
						if tc.begin != nil {
							tc.begin(w, r)
						}
						<-end
						if tc.end != nil {
							tc.end(w, r)
						}
					})
				}()
				pass(500 * time.Millisecond)
				inv, other := s.invalidate("/slow/*"), s.invalidate("/fast/*")
				pass(time.Minute)
				if got := s.session().HasAcked(inv.Number); got == tc.holds {
					t.Errorf("acknowledged while it ran: %v", got)
				}
				if !s.session().HasAcked(other.Number) {
					t.Error("it holds up an invalidation that does not concern it")
				}
				close(end)
				<-done
				ended := time.Now()
				pass(time.Second)
				if !s.session().HasAcked(inv.Number) {
					t.Error("not acknowledged after it ended")
				}
				r := s.reports(inv)
				if (len(r) > 0) != tc.reported || len(r) > 0 && (r[0].Start.After(start) || r[0].End.Before(ended)) {
					t.Errorf("reports %+v; it ran from %v to %v", r, start, ended)
				}
			})
		})
	}
}

func TestCloseWaitsForRunningRequests(t *testing.T) {
	for _, takes := range []time.Duration{5 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			s := open(t, nil)
			done := make(chan struct{})
			go func() {
				defer close(done)
				s.serve("GET", "/a", func(http.ResponseWriter, *http.Request) { time.Sleep(takes) })
			}()
			pass(time.Second)
			err := s.tr.Close(t.Context())
			if takes < time.Minute {
				if err != nil || len(s.live()) != 1 {
					t.Errorf("Close = %v, %d entries", err, len(s.live()))
				}
			} else if !errors.Is(err, context.DeadlineExceeded) || !s.session().Lost(time.Now().Add(time.Minute)) {
				t.Errorf("Close = %v: the gap must show", err)
			}
			<-done
		})
	}
}

func TestPanicsPassThrough(t *testing.T) {
	for _, tc := range []struct {
		name string
		h    http.HandlerFunc
		life time.Duration
	}{
		// CloudFront sees a 502, or the 500 of an outer handler, and caches that.
		{"before the response", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 20 * time.Second},
		{"in the response", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "max-age=60")
			_, _ = w.Write([]byte("half"))
			panic(http.ErrAbortHandler)
		}, 2 * time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, nil)
				now := time.Now()
				func() {
					defer func() {
						if v := recover(); v != http.ErrAbortHandler {
							t.Errorf("recovered %v", v)
						}
					}()
					s.serve("GET", "/a", tc.h)
				}()
				pass(time.Second)
				if e := s.live()["/a"]; !e.Expires.Equal(now.Add(tc.life + drain)) {
					t.Errorf("%+v, want it to live for %v", e, tc.life)
				}
			})
		})
	}
}

// During a request, calls take its times; the first calls of a tracker, which
// are made before requests carry a scope, and all later ones.
func TestCallsDuringARequest(t *testing.T) {
	for _, tc := range []struct {
		name string
		h    func(tr *cftrack.Tracker) http.HandlerFunc
		want map[string]time.Duration // to the end of life, from the end of the request
	}{
		{"Record", func(tr *cftrack.Tracker) http.HandlerFunc {
			return func(_ http.ResponseWriter, r *http.Request) { _ = tr.Record(r.Context(), "/beside", time.Hour) }
		}, map[string]time.Duration{"/own": 48*time.Hour + drain, "/beside": time.Hour + drain}},
		{"Record in a derived context", func(tr *cftrack.Tracker) http.HandlerFunc {
			return func(_ http.ResponseWriter, r *http.Request) {
				ctx, cancel := context.WithTimeout(r.Context(), time.Hour)
				defer cancel()
				_ = tr.Record(ctx, "/beside", time.Hour)
			}
		}, map[string]time.Duration{"/own": 48*time.Hour + drain, "/beside": time.Hour + drain}},
		{"Remove of its own path", func(tr *cftrack.Tracker) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				_ = tr.Remove(r.Context(), r.URL.Path)
				w.WriteHeader(404)
			}
		}, map[string]time.Duration{}},
		{"Remove of what was recorded before", func(tr *cftrack.Tracker) http.HandlerFunc {
			_ = tr.Record(context.Background(), "/own", 100*time.Hour)
			return func(w http.ResponseWriter, r *http.Request) {
				_ = tr.Remove(r.Context(), r.URL.Path)
				w.WriteHeader(404)
			}
		}, map[string]time.Duration{}},
		{"SetTTL of what was recorded before", func(tr *cftrack.Tracker) http.HandlerFunc {
			_ = tr.Record(context.Background(), "/own", 100*time.Hour)
			return func(_ http.ResponseWriter, r *http.Request) {
				_ = tr.Record(r.Context(), "/beside", time.Hour)
				_ = tr.SetTTL(r.Context(), "/own", time.Minute)
				_ = tr.SetTTL(r.Context(), "/beside", 2*time.Minute)
			}
		}, map[string]time.Duration{"/own": time.Minute, "/beside": 2 * time.Minute}},
		{"Remove of another", func(tr *cftrack.Tracker) http.HandlerFunc {
			return func(_ http.ResponseWriter, r *http.Request) {
				_ = tr.Record(r.Context(), "/beside", time.Hour)
				_ = tr.Remove(r.Context(), "/beside")
			}
		}, map[string]time.Duration{"/own": 48*time.Hour + drain}},
		{"SetTTL of its own path", func(tr *cftrack.Tracker) http.HandlerFunc {
			return func(_ http.ResponseWriter, r *http.Request) { _ = tr.SetTTL(r.Context(), "/own", time.Minute) }
		}, map[string]time.Duration{"/own": time.Minute}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, scoped := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					s := open(t, nil)
					if scoped {
						s.record("/before", time.Millisecond)
						pass(time.Second)
					}
					start := time.Now()
					begun, done := make(chan struct{}), make(chan struct{})
					h := tc.h(s.tr)
					go func() {
						defer close(done)
						s.serve("GET", "/own", func(w http.ResponseWriter, r *http.Request) {
							h(w, r)
							close(begun)
							time.Sleep(10 * time.Second)
						})
					}()
					<-begun
					pass(500 * time.Millisecond)
					inv := s.invalidate("/beside")
					pass(5 * time.Second)
					_, beside := tc.want["/beside"]
					if s.session().HasAcked(inv.Number) == beside {
						t.Errorf("acknowledged while %v is to be recorded: %v", beside, !beside)
					}
					<-done
					end := time.Now()
					pass(time.Second)
					got := s.live()
					for path, life := range tc.want {
						// A claim is made a moment after what it is about.
						if d := got[path].Expires.Sub(end.Add(life)); d < 0 || d > 5*time.Millisecond {
							t.Errorf("scoped %v: %s ends at %v, want %v", scoped, path, got[path].Expires, end.Add(life))
						}
					}
					if len(got) != len(tc.want) {
						t.Errorf("scoped %v: entries %v", scoped, slices.Collect(maps.Keys(got)))
					}
					covered := slices.ContainsFunc(s.reports(inv), func(r journal.Report) bool {
						return !r.Start.After(start) && !r.End.Before(end)
					})
					if covered != beside {
						t.Errorf("scoped %v: reports %+v", scoped, s.reports(inv))
					}
				})
			}
		})
	}
}

func TestARemovedResponseIsNotReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil)
		s.serve("GET", "/own", func(_ http.ResponseWriter, r *http.Request) { _ = s.tr.Remove(r.Context(), "/own") })
		inv := s.invalidate("/own")
		pass(2 * time.Second)
		if st := s.tr.Stats(); st.Recorded != 0 || st.NotKept != 1 || len(s.reports(inv)) != 0 {
			t.Fatalf("%+v, %d reports", st, len(s.reports(inv)))
		}
	})
}

// A handler may record something that an invalidation selects after the
// invalidation was acknowledged, with the request's start from before the cut.
func TestALateRecordIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil)
		record := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.serve("GET", "/own", func(_ http.ResponseWriter, r *http.Request) {
				<-record
				_ = s.tr.Record(r.Context(), "/late", time.Hour)
			})
		}()
		pass(500 * time.Millisecond)
		inv := s.invalidate("/late")
		pass(time.Minute)
		if !s.session().HasAcked(inv.Number) {
			t.Fatal("nothing was known to hold it up")
		}
		close(record)
		<-done
		pass(2 * time.Second)
		if r := s.reports(inv); len(r) != 1 || r[0].Start.After(inv.Cut) {
			t.Fatalf("reports %+v", r)
		}
	})
}

func TestAContextThatOutlivesItsRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil)
		s.record("/before", time.Millisecond)
		var kept context.Context
		s.serve("GET", "/own", func(_ http.ResponseWriter, r *http.Request) { kept = r.Context() })
		pass(time.Minute)
		now := time.Now()
		if err := s.tr.Record(kept, "/later", time.Hour); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if e := s.live()["/later"]; !e.Expires.Equal(now.Add(time.Hour + drain)) {
			t.Fatalf("%+v", e)
		}
	})
}

func TestTwoTrackersDoNotMixUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := open(t, nil), open(t, nil)
		h := a.tr.Middleware(b.tr.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_ = a.tr.Record(r.Context(), "/a", time.Hour)
			_ = b.tr.Record(r.Context(), "/b", time.Hour)
			time.Sleep(10 * time.Second)
		})))
		for range 2 {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/own", nil))
			now := time.Now()
			pass(time.Second)
			for path, s := range map[string]*site{"/a": a, "/b": b} {
				if e := s.live()[path]; !e.Last.Equal(now) || len(s.live()) != 2 {
					t.Errorf("%s: %+v of %d, want last %v", path, e, len(s.live()), now)
				}
			}
		}
	})
}

// abilities lists what code asks of a writer by type assertion.
func abilities(w http.ResponseWriter) (is []string) {
	if _, ok := w.(http.Flusher); ok {
		is = append(is, "Flusher")
	}
	if _, ok := w.(http.Hijacker); ok {
		is = append(is, "Hijacker")
	}
	if _, ok := w.(http.Pusher); ok {
		is = append(is, "Pusher")
	}
	if _, ok := w.(http.CloseNotifier); ok { //nolint:staticcheck // code still asks for it
		is = append(is, "CloseNotifier")
	}
	return is
}

type able struct{}

func (able) Flush()                                       {}
func (able) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, nil }
func (able) Push(string, *http.PushOptions) error         { return nil }
func (able) CloseNotify() <-chan bool                     { return nil }

func TestTheWriterIsAsAbleAsTheOneUnderneath(t *testing.T) {
	type (
		rw = http.ResponseWriter
		f  = http.Flusher
		h  = http.Hijacker
		p  = http.Pusher
		c  = http.CloseNotifier //nolint:staticcheck // code still asks for it
	)
	w, a := httptest.NewRecorder(), able{}
	var bare rw = struct{ rw }{w}
	for _, under := range []rw{
		bare, struct {
			rw
			f
		}{bare, a}, struct {
			rw
			h
		}{bare, a}, struct {
			rw
			p
		}{bare, a}, struct {
			rw
			c
		}{bare, a}, struct {
			rw
			f
			h
		}{bare, a, a}, struct {
			rw
			f
			p
		}{bare, a, a}, struct {
			rw
			f
			c
		}{bare, a, a}, struct {
			rw
			h
			p
		}{bare, a, a}, struct {
			rw
			h
			c
		}{bare, a, a}, struct {
			rw
			p
			c
		}{bare, a, a}, struct {
			rw
			f
			h
			p
		}{bare, a, a, a}, struct {
			rw
			f
			h
			c
		}{bare, a, a, a}, struct {
			rw
			f
			p
			c
		}{bare, a, a, a}, struct {
			rw
			h
			p
			c
		}{bare, a, a, a}, struct {
			rw
			f
			h
			p
			c
		}{bare, a, a, a, a},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := open(t, nil)
			var got []string
			s.tr.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				got = abilities(w)
				for _, is := range got {
					switch is {
					case "Flusher":
						w.(http.Flusher).Flush()
					case "Hijacker":
						_, _, _ = w.(http.Hijacker).Hijack()
					case "Pusher":
						if err := w.(http.Pusher).Push("/", nil); err != nil {
							t.Error(err)
						}
					case "CloseNotifier":
						w.(c).CloseNotify()
					}
				}
			})).ServeHTTP(under, httptest.NewRequest("GET", "/", nil))
			if want := abilities(under); !slices.Equal(got, want) {
				t.Errorf("a writer of %q became one of %q", want, got)
			}
		})
	}
}

// A server outside of a bubble, with a tracker around its handler.
func server(t *testing.T, h func(*cftrack.Tracker) http.Handler) (url string, entries func() map[string]inventory.Entry) {
	t.Helper()
	st := memstore.New()
	tr, err := cftrack.Open(st, dist, &cftrack.Options{Margin: -1})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h(tr))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.Start()
	t.Cleanup(func() {
		srv.Close()
		if err := tr.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return srv.URL, func() map[string]inventory.Entry {
		srv.Close() // waits for the handlers
		if err := tr.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		return live(t, st)
	}
}

func get(t *testing.T, url string) *http.Response {
	t.Helper()
	resp, err := http.Get(url) //nolint:gosec // a test server
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body = io.NopCloser(strings.NewReader(string(body)))
	return resp
}

func TestUnderRealRouters(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	ok := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }
	for name, h := range map[string]func(*cftrack.Tracker) http.Handler{
		"net/http": func(tr *cftrack.Tracker) http.Handler {
			m := http.NewServeMux()
			m.Handle("GET /files/{name}", tr.Middleware(http.StripPrefix("/files", http.HandlerFunc(ok))))
			return m
		},
		"chi": func(tr *cftrack.Tracker) http.Handler {
			r := chi.NewRouter()
			r.Use(chimiddleware.Logger, tr.Middleware, chimiddleware.Compress(5))
			r.Route("/files", func(r chi.Router) { r.Get("/{name}", ok) })
			return r
		},
		"gorilla/mux": func(tr *cftrack.Tracker) http.Handler {
			r := mux.NewRouter()
			r.Use(tr.Middleware)
			r.HandleFunc("/files/{name}", ok)
			return r
		},
		"gin": func(tr *cftrack.Tracker) http.Handler {
			e := gin.New()
			e.GET("/files/:name", func(c *gin.Context) { c.String(http.StatusOK, "ok") })
			return tr.Middleware(e)
		},
		"echo": func(tr *cftrack.Tracker) http.Handler {
			e := echo.New()
			e.Use(echo.WrapMiddleware(tr.Middleware))
			e.GET("/files/:name", func(c echo.Context) error { return c.String(http.StatusOK, "ok") })
			return e
		},
	} {
		t.Run(name, func(t *testing.T) {
			chimiddleware.DefaultLogger = func(next http.Handler) http.Handler { return next }
			url, entries := server(t, h)
			for range 3 {
				if resp := get(t, url+"/files/a%20b?x=1"); resp.StatusCode != 200 {
					t.Fatal(resp.Status)
				}
			}
			m := entries()
			if e := m["/files/a%20b?x=1"]; len(m) != 1 || e.Hits != 3 {
				t.Fatalf("recorded %v", m)
			}
		})
	}
}

func TestAroundARealServer(t *testing.T) {
	url, entries := server(t, func(tr *cftrack.Tracker) http.Handler {
		m := http.NewServeMux()
		m.HandleFunc("/control", func(w http.ResponseWriter, _ *http.Request) {
			rc := http.NewResponseController(w)
			if err := errors.Join(rc.SetReadDeadline(time.Time{}), rc.SetWriteDeadline(time.Time{}),
				rc.EnableFullDuplex(), rc.Flush()); err != nil {
				t.Error(err)
			}
		})
		m.HandleFunc("/hijacked", func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			_ = conn.Close()
		})
		m.HandleFunc("/first", func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), time.Hour)
			defer cancel()
			if err := tr.Remove(ctx, "/first"); err != nil {
				t.Error(err)
			}
			w.WriteHeader(404)
		})
		m.HandleFunc("/upload", func(_ http.ResponseWriter, r *http.Request) {
			if err := r.ParseMultipartForm(1); err != nil {
				t.Error(err)
			}
		})
		return tr.Middleware(m)
	})
	for _, path := range []string{"/first", "/control", "/hijacked"} {
		get(t, url+path)
	}
	// What a form leaves in files is removed although the handler, now that
	// requests carry a scope, gets a copy of the request.
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	body := "--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\n" + strings.Repeat("a", 11<<20) + "\r\n--x--\r\n"
	resp, err := http.Post(url+"/upload", "multipart/form-data; boundary=x", strings.NewReader(body)) //nolint:gosec // a test server
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()

	m := entries()
	if _, ok := m["/control"]; !ok || len(m) != 1 {
		t.Errorf("recorded %v, want /control alone", m)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) > 0 {
		t.Errorf("files left: %v, %v", left, err)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Fatal(err)
	}
}

func TestTheResponseIsNotChanged(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Trailer", "X-Sum")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.Copy(w, strings.NewReader(strings.Repeat(r.URL.Path, 5000)))
		w.Header().Set("X-Sum", "1")
	})
	bare := httptest.NewServer(h)
	defer bare.Close()
	url, entries := server(t, func(tr *cftrack.Tracker) http.Handler { return tr.Middleware(h) })
	want, got := get(t, bare.URL+"/a"), get(t, url+"/a")
	want.Header.Del("Date")
	got.Header.Del("Date")
	wantBody, _ := io.ReadAll(want.Body)
	gotBody, _ := io.ReadAll(got.Body)
	if got.StatusCode != want.StatusCode || !maps.EqualFunc(got.Header, want.Header, slices.Equal[[]string]) ||
		string(gotBody) != string(wantBody) || !maps.EqualFunc(got.Trailer, want.Trailer, slices.Equal[[]string]) {
		t.Errorf("%d %v %v, want %d %v %v", got.StatusCode, got.Header, got.Trailer, want.StatusCode, want.Header, want.Trailer)
	}
	entries()
}

// Nothing is lost, counted twice or acknowledged too early under load.
func TestUnderLoad(t *testing.T) {
	const workers, each = 8, 3000
	mem := memstore.New()
	st := &breakable{Store: mem}
	tr, err := cftrack.Open(st, dist, &cftrack.Options{Margin: -1, FlushEvery: 5 * time.Millisecond, Lease: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	j := journal.Open(mem, dist)
	h := tr.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Tag", r.URL.RawQuery)
		_, _ = w.Write(page)
		if r.URL.RawQuery == "beside" {
			_ = tr.Record(r.Context(), "/beside", time.Hour)
		}
	}))
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				target := fmt.Sprintf("/p/%d", i%97)
				if i%10 == 0 {
					target += "?beside"
				}
				h.ServeHTTP(&light{header: make(http.Header)}, httptest.NewRequest("GET", target, nil))
				if w == 0 && i%500 == 0 {
					inv := &journal.Invalidation{Selector: selector.Selector{Patterns: []string{"/p/*"}}, Cut: time.Now()}
					if err := j.Create(t.Context(), inv, time.Now(), "test"); err != nil {
						t.Error(err)
					}
					st.set(func() { st.after = i % 3 })
				}
			}
		})
	}
	wg.Wait()
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	hits, beside := uint64(0), uint64(0)
	for path, e := range live(t, st) {
		if path == "/beside" {
			beside += e.Hits
		} else {
			hits += e.Hits
		}
	}
	// The first calls may count for several running requests.
	if hits != workers*each || beside < workers*each/10 || tr.Stats().Lost != 0 {
		t.Fatalf("%d hits of %d, %d beside of %d", hits, workers*each, beside, workers*each/10)
	}
	if gaps, err := j.Gaps(t.Context()); err != nil || len(gaps) > 0 {
		t.Fatalf("gaps %v, %v", gaps, err)
	}
}

func TestOptionTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, &cftrack.Options{TTL: time.Hour, Scope: []string{"/blog/*"}, Name: "web-1"})
		now := time.Now()
		s.serve("GET", "/kept", status(200, "Cache-Control", "max-age=60"))
		s.serve("GET", "/not-kept", status(200, "Cache-Control", "no-store"))
		s.record("/unknown", 0)
		s.record("/explicit", time.Minute)
		pass(time.Second)
		got := s.live()
		for path, life := range map[string]time.Duration{"/kept": time.Hour, "/unknown": time.Hour, "/explicit": time.Minute} {
			if !got[path].Expires.Equal(now.Add(life + drain)) {
				t.Errorf("%s: %+v, want a life of %v", path, got[path], life)
			}
		}
		if len(got) != 3 {
			t.Errorf("%d entries", len(got))
		}
		if x := s.session(); x.Longest != time.Hour || !slices.Equal(x.Scope, []string{"/blog/*"}) || x.Recorder != "web-1" {
			t.Errorf("session %+v", x)
		}
	})
}

// Whatever a request and a response look like, the request is served, and it is
// counted as one of recorded, not kept and invalid.
func FuzzMiddleware(f *testing.F) {
	f.Add("/a?x=1", "max-age=60", "a, b", 200)
	f.Add("http://h/%zz", "no-store", ",", 404)
	f.Add("*", "s-maxage=\"1", "", 304)
	tr, err := cftrack.Open(memstore.New(), dist, &cftrack.Options{Margin: -1})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = tr.Close(context.Background()) })
	f.Fuzz(func(t *testing.T, target, control, tags string, code int) {
		code = 200 + (code%400+400)%400
		before := tr.Stats()
		r := httptest.NewRequest("GET", "/", nil)
		r.RequestURI = target
		if target == "" {
			r.RequestURI = "/"
		}
		served := false
		tr.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			served = true
			w.Header().Set("Cache-Control", control)
			w.Header()["Cache-Tag"] = strings.SplitN(tags, "|", 3)
			w.WriteHeader(code)
		})).ServeHTTP(httptest.NewRecorder(), r)
		after := tr.Stats()
		n := after.Recorded - before.Recorded + after.NotKept - before.NotKept + after.Invalid - before.Invalid
		if !served || n != 1 || after.Running != 0 {
			t.Fatalf("served %v, counted %d times, %d running", served, n, after.Running)
		}
	})
}
