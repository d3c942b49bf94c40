// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package setstore_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/setstore"
	"github.com/cf-invalidation-tracker/cftrack/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const dist = "E1"

// A set is the least that a store can be built on. It survives the stores over
// it, notices calls that overlap, and fails when told to.
type set struct {
	members map[string]time.Time // and when they go by themselves; zero: never
	calls   []string
	fail    func(call string) error
	busy    atomic.Bool
}

func newSet(members ...string) *set {
	s := &set{members: make(map[string]time.Time)}
	for _, m := range members {
		s.members[m] = time.Time{}
	}
	return s
}

func (s *set) call(ctx context.Context, call string) error {
	if !s.busy.CompareAndSwap(false, true) {
		panic("two calls at a time")
	}
	defer s.busy.Store(false)
	s.calls = append(s.calls, call)
	if s.fail != nil {
		if err := s.fail(call); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (s *set) Set(ctx context.Context, path string) error {
	if err := s.call(ctx, "set "+path); err != nil {
		return err
	}
	s.members[path] = time.Time{}
	return nil
}

func (s *set) List(ctx context.Context) ([]string, error) {
	return s.live(), s.call(ctx, "list")
}

func (s *set) live() []string {
	var all []string
	for m, until := range s.members {
		if until.IsZero() || time.Now().Before(until) {
			all = append(all, m)
		}
	}
	slices.Sort(all)
	return all
}

func (s *set) Clear(ctx context.Context) error {
	if err := s.call(ctx, "clear"); err != nil {
		return err
	}
	clear(s.members)
	return nil
}

// A deleting set has what is needed to be told of what is gone.
type deleting struct{ *set }

func (s deleting) Delete(ctx context.Context, path string) error {
	if err := s.call(ctx, "delete "+path); err != nil {
		return err
	}
	delete(s.members, path)
	return nil
}

// A complete set has all optional parts.
type complete struct{ deleting }

func (s complete) Connect(ctx context.Context) error    { return s.call(ctx, "connect") }
func (s complete) Disconnect(ctx context.Context) error { return s.call(ctx, "disconnect") }

func (s complete) SetTTL(ctx context.Context, path string, ttl time.Duration) error {
	if err := s.call(ctx, fmt.Sprint("ttl ", path, " ", ttl)); err != nil {
		return err
	}
	if _, ok := s.members[path]; !ok || ttl <= 0 {
		panic("a time to live for what is not there, or of nothing")
	}
	s.members[path] = time.Now().Add(ttl)
	return nil
}

// An expiring set drops paths by itself, and not otherwise.
type expiring struct{ *set }

func (s expiring) SetTTL(ctx context.Context, path string, ttl time.Duration) error {
	return complete{deleting(s)}.SetTTL(ctx, path, ttl)
}

var kinds = map[string]func(*set) setstore.Store{
	"plain":    func(s *set) setstore.Store { return s },
	"deleting": func(s *set) setstore.Store { return deleting{s} },
	"expiring": func(s *set) setstore.Store { return expiring{s} },
	"complete": func(s *set) setstore.Store { return complete{deleting{s}} },
}

// The whole suite, except for what needs the data to outlive the store (its
// parts Reopen and Crash), which package setstore says it does not do.
func TestStore(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, storetest.Harness{Open: func(testing.TB) store.Store {
				return &shelf{kind: kind, stores: make(map[string]store.Store)}
			}})
		})
	}
}

// A shelf is a store for each distribution, as a set is for one.
type shelf struct {
	kind   func(*set) setstore.Store
	mu     sync.Mutex
	stores map[string]store.Store
	closed bool
}

func (s *shelf) of(distribution string) store.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stores[distribution]
	if st == nil {
		st = setstore.New(s.kind(newSet()), nil)
		if s.closed {
			_ = st.Close() // nothing was opened
		}
		s.stores[distribution] = st
	}
	return st
}

func (s *shelf) Now(ctx context.Context) (time.Time, error) { return s.of("").Now(ctx) }
func (s *shelf) Merge(ctx context.Context, d string, us []inventory.Update) error {
	return s.of(d).Merge(ctx, d, us)
}
func (s *shelf) Scan(ctx context.Context, d string, r store.Range) iter.Seq2[inventory.Entry, error] {
	return s.of(d).Scan(ctx, d, r)
}
func (s *shelf) Clear(ctx context.Context, d string, cs []store.Condition) (int, error) {
	return s.of(d).Clear(ctx, d, cs)
}
func (s *shelf) Sweep(ctx context.Context, d string, now time.Time) (int, error) {
	return s.of(d).Sweep(ctx, d, now)
}
func (s *shelf) List(ctx context.Context, d, prefix, after string, limit int) ([]store.Document, error) {
	return s.of(d).List(ctx, d, prefix, after, limit)
}
func (s *shelf) Commit(ctx context.Context, d string, t store.Transaction) (uint64, error) {
	return s.of(d).Commit(ctx, d, t)
}
func (s *shelf) Status(ctx context.Context) (store.Status, error) { return s.of("").Status(ctx) }
func (s *shelf) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var errs []error
	for _, st := range s.stores {
		errs = append(errs, st.Close())
	}
	return errors.Join(errs...)
}

func sighted(path string, life time.Duration) inventory.Update {
	r := inventory.Sighting{End: time.Now(), Expires: inventory.Never}
	if life > 0 {
		r.Expires = r.End.Add(life)
	}
	return inventory.Update{Path: path, Record: r.Record()}
}

func folded(path string) inventory.Update {
	u := sighted(path, 0)
	u.Record.Folded = true
	return u
}

func open(t *testing.T, s setstore.Store) store.Store {
	t.Helper()
	st := setstore.New(s, nil)
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

func must(t interface {
	Helper()
	Fatal(...any)
}, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func entries(t *testing.T, st store.Store) []inventory.Entry {
	t.Helper()
	var all []inventory.Entry
	for e, err := range st.Scan(t.Context(), dist, store.Range{Now: time.Now()}) {
		must(t, err)
		all = append(all, e)
	}
	return all
}

func equal(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestFirstUseConnectsAndLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSet("/b", "http://example.com/a?x=1", "/a?x=1", "/dir/*", "no path", "")
		var log strings.Builder
		st := setstore.New(complete{deleting{s}}, &setstore.Options{
			Name: "here", Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		if len(s.calls) != 0 {
			t.Errorf("New called %q", s.calls)
		}
		status, err := st.Status(t.Context())
		must(t, err)
		if status.Kind != "set" || status.Address != "set:here" || status.Evicts == "" || status.Epoch == "" {
			t.Errorf("%+v", status)
		}
		time.Sleep(time.Hour)
		var got []string
		for _, e := range entries(t, st) {
			got = append(got, fmt.Sprint(e.Path, " ", e.Folded))
			if !e.Expires.Equal(inventory.Never) || !e.Last.Equal(time.Now()) {
				t.Errorf("%+v", e)
			}
		}
		equal(t, "entries", got, []string{"/a?x=1 false", "/b false", "/dir/ true"})
		equal(t, "calls", s.calls, []string{"connect", "list"})
		if n := strings.Count(log.String(), "left out"); n != 2 {
			t.Errorf("%d paths left out, said:\n%s", n, log.String())
		}
		// Both spellings stand for one path.
		n, err := st.Clear(t.Context(), dist, []store.Condition{{Path: "/a?x=1", Before: time.Now().Add(time.Second)}})
		must(t, err)
		if n != 1 {
			t.Errorf("cleared %d", n)
		}
		equal(t, "left", s.live(), []string{"", "/b", "/dir/*", "no path"})
		must(t, st.Close())
		must(t, st.Close())
		if s.calls[len(s.calls)-1] != "disconnect" || slices.Index(s.calls, "disconnect") != len(s.calls)-1 {
			t.Errorf("calls %q", s.calls)
		}
	})
}

// A set that is away when it is first needed is tried again with each call.
func TestASetThatIsAway(t *testing.T) {
	s := newSet("/old")
	st := open(t, complete{deleting{s}})
	for _, away := range []string{"connect", "list", "set /new"} {
		s.fail = func(call string) error {
			if call == away {
				return errors.New("no route to host")
			}
			return nil
		}
		err := st.Merge(t.Context(), dist, []inventory.Update{sighted("/new", 0)})
		var e *store.Error
		if !errors.Is(err, store.ErrUnavailable) || !errors.As(err, &e) || e.Op != "merge" ||
			e.Store != "set:setstore_test.complete" || !strings.Contains(err.Error(), "no route to host") {
			t.Errorf("%s: %v", away, err)
		}
	}
	s.fail = nil
	must(t, st.Merge(t.Context(), dist, []inventory.Update{sighted("/new", 0)}))
	equal(t, "the set", s.live(), []string{"/new", "/old"})
	equal(t, "calls", s.calls, []string{"connect", "connect", "list", "list", "set /new", "set /new"})
}

func TestASetThatIsFull(t *testing.T) {
	s := newSet()
	st := open(t, s)
	s.fail = func(call string) error {
		if strings.HasPrefix(call, "set") {
			return fmt.Errorf("no space: %w", store.ErrFull)
		}
		return nil
	}
	err := st.Merge(t.Context(), dist, []inventory.Update{sighted("/new", 0)})
	if !errors.Is(err, store.ErrFull) || errors.Is(err, store.ErrUnavailable) {
		t.Error(err)
	}
}

func TestASetThatIsNeverUsed(t *testing.T) {
	s := newSet()
	must(t, setstore.New(complete{deleting{s}}, nil).Close())
	equal(t, "calls", s.calls, nil)
}

func TestOneDistribution(t *testing.T) {
	for _, opts := range []*setstore.Options{nil, {Distribution: dist}} {
		st := setstore.New(newSet(), opts)
		must(t, st.Merge(t.Context(), dist, nil))
		err := st.Merge(t.Context(), "E2", []inventory.Update{sighted("/a", 0)})
		if err == nil || !strings.Contains(err.Error(), `not of "E2"`) || errors.Is(err, store.ErrUnavailable) {
			t.Error(err)
		}
		must(t, st.Close())
	}
}

func TestNoSet(t *testing.T) {
	st := setstore.New(nil, nil)
	if err := st.Merge(t.Context(), dist, nil); err == nil || !strings.Contains(err.Error(), "no set") {
		t.Error(err)
	}
	must(t, st.Close())
}

// A set that cannot delete keeps what is gone until nothing is live.
func TestWithoutDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSet("/a")
		st := open(t, s)
		must(t, st.Merge(t.Context(), dist, []inventory.Update{sighted("/b", 0), sighted("/b", 0)}))
		must(t, st.Merge(t.Context(), dist, []inventory.Update{sighted("/b", 0)}))
		time.Sleep(time.Second)
		n, err := st.Clear(t.Context(), dist, []store.Condition{{Path: "/a", Before: time.Now()}})
		must(t, err)
		if got := entries(t, st); n != 1 || len(got) != 1 || got[0].Path != "/b" {
			t.Errorf("cleared %d, left %+v", n, got)
		}
		equal(t, "the set", s.live(), []string{"/a", "/b"})
		must(t, st.Merge(t.Context(), dist, []inventory.Update{{Path: "/b", Record: inventory.RemovedClaim(time.Now())}}))
		equal(t, "the set with nothing live", s.live(), nil)
		equal(t, "calls", s.calls, []string{"list", "set /b", "clear"})
	})
}

// A life that becomes longer is told to a set that drops paths by itself.
func TestTimesToLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSet("/listed")
		st := open(t, complete{deleting{s}})
		merge := func(us ...inventory.Update) {
			t.Helper()
			must(t, st.Merge(t.Context(), dist, us))
		}
		merge(sighted("/a", time.Minute), sighted("/listed", time.Minute))
		time.Sleep(time.Second)
		merge(sighted("/a", time.Hour))
		merge(inventory.Update{Path: "/a", Record: inventory.TTLClaim(time.Now().Add(time.Second), time.Second)})
		merge(inventory.Update{Path: "/none", Record: inventory.TTLClaim(time.Now(), time.Second)})
		merge(inventory.Update{Path: "/listed", Record: inventory.TTLClaim(time.Now().Add(time.Second), 0)})
		time.Sleep(3 * time.Second)
		merge(sighted("/a", 0))
		equal(t, "calls", s.calls, []string{
			"connect", "list",
			"set /a", "ttl /a 1m0s", "set /listed", // which is kept until it is purged
			"set /a", "ttl /a 1h0m0s",
			"set /a", "ttl /a 2s",
			"set /listed", "ttl /listed 1s",
			"set /a",
		})
		equal(t, "the set", s.live(), []string{"/a"})
	})
}

func TestFoldedPathsComeBackFolded(t *testing.T) {
	s := newSet()
	st := open(t, deleting{s})
	must(t, st.Merge(t.Context(), dist, []inventory.Update{sighted("/d/", 0), sighted("/d/x*", 0)}))
	must(t, st.Merge(t.Context(), dist, []inventory.Update{folded("/d/")}))
	must(t, st.Merge(t.Context(), dist, []inventory.Update{sighted("/d/", 0)}))
	equal(t, "the set", s.live(), []string{"/d/*", "/d/x**"})
	got := entries(t, open(t, deleting{s}))
	if len(got) != 2 || got[0].Path != "/d/" || !got[0].Folded || got[1].Path != "/d/x*" || !got[1].Folded {
		t.Errorf("%+v", got)
	}
}

func TestCloseInterrupts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := slow{newSet()}
		st := setstore.New(s, nil)
		failed := make(chan error)
		for range 2 {
			go func() { failed <- st.Merge(t.Context(), dist, []inventory.Update{sighted("/a", 0)}) }()
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := st.Merge(ctx, dist, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting for a turn: %v", err)
		}
		must(t, st.Close())
		for range 2 {
			if err := <-failed; !errors.Is(err, store.ErrClosed) {
				t.Errorf("interrupted: %v", err)
			}
		}
	})
}

// A slow set takes until it is told to stop.
type slow struct{ *set }

func (slow) Set(ctx context.Context, _ string) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestDisconnectFails(t *testing.T) {
	s := newSet()
	st := setstore.New(complete{deleting{s}}, nil)
	_, err := st.Status(t.Context())
	must(t, err)
	s.fail = func(string) error { return errors.New("broken pipe") }
	for range 2 {
		if err := st.Close(); err == nil || !strings.Contains(err.Error(), "broken pipe") {
			t.Error(err)
		}
	}
	if n := len(s.calls); n != 3 {
		t.Errorf("calls %q", s.calls)
	}
}

// Whatever fails and whenever the process restarts, a path that was acknowledged
// and is live is in the set; and after a sweep a set that can delete holds no more.
func TestTheSetIsNeverBehind(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// Not as a *testing.T, whose deadline is of the time outside.
				rapid.Check(struct{ testing.TB }{t}, func(rt *rapid.T) { neverBehind(rt, kind) })
			})
		})
	}
}

// heldUntil is when the set drops the last spelling of a path; zero if there is none.
func (s *set) heldUntil(path string) (until time.Time) {
	for _, name := range []string{path, path + "*"} {
		switch at, ok := s.members[name]; {
		case !ok, name == path && strings.HasSuffix(path, "*"): // that is of another path, folded
		case at.IsZero():
			return inventory.Never
		case at.After(until):
			until = at
		}
	}
	return until
}

func neverBehind(t *rapid.T, kind func(*set) setstore.Store) {
	ctx := context.Background()
	s := newSet()
	broken := false
	s.fail = func(call string) error {
		if broken && rapid.Bool().Draw(t, "fails") {
			return errors.New("down")
		}
		return nil
	}
	st := setstore.New(kind(s), nil)
	defer func() { broken = false; must(t, st.Close()) }()
	path := rapid.SampledFrom([]string{"/", "/a", "/a/", "/a/b", "/a*", "/b?x=*"})
	life := rapid.SampledFrom([]time.Duration{0, time.Second, 5 * time.Second, time.Hour})
	acked := make(map[string]time.Time) // the ends of lives that were acknowledged
	check := func() {
		t.Helper()
		live := make(map[string]bool)
		for e, err := range st.Scan(ctx, dist, store.Range{Now: time.Now()}) {
			if err != nil {
				return // it could not even be read
			}
			live[e.Path] = true
			if e.Expires.Before(acked[e.Path]) {
				acked[e.Path] = e.Expires // by a claim
			}
			if now := time.Now(); now.Before(acked[e.Path]) && !now.Before(s.heldUntil(e.Path)) {
				t.Fatalf("%s is live and not in the set %q", e.Path, s.live())
			}
		}
		for p := range acked {
			if !live[p] {
				delete(acked, p)
			}
		}
	}
	t.Repeat(map[string]func(*rapid.T){
		"": func(*rapid.T) { check() },
		"sight": func(t *rapid.T) {
			var us []inventory.Update
			for range rapid.IntRange(1, 3).Draw(t, "n") {
				u := sighted(path.Draw(t, "path"), life.Draw(t, "life"))
				u.Record.Folded = rapid.IntRange(0, 9).Draw(t, "folded") == 0
				us = append(us, u)
			}
			if st.Merge(ctx, dist, us) == nil {
				for _, u := range us {
					if end := time.UnixMilli(u.Record.Expires); end.After(acked[u.Path]) {
						acked[u.Path] = end
					}
				}
			}
		},
		"claim": func(t *rapid.T) {
			u := inventory.Update{Path: path.Draw(t, "path"), Record: inventory.RemovedClaim(time.Now().Add(time.Millisecond))}
			if rapid.Bool().Draw(t, "ttl") {
				u.Record = inventory.TTLClaim(time.Now().Add(time.Millisecond), life.Draw(t, "life"))
			}
			_ = st.Merge(ctx, dist, []inventory.Update{u}) // whether it took effect is checked
		},
		"clear": func(t *rapid.T) {
			_, _ = st.Clear(ctx, dist, []store.Condition{{Path: path.Draw(t, "path"), Before: time.Now()}})
		},
		"sweep": func(t *rapid.T) {
			if _, err := st.Sweep(ctx, dist, time.Now()); err != nil {
				return
			}
			if _, ok := kind(s).(setstore.Deleter); !ok {
				return
			}
			live := 0
			for _, err := range st.Scan(ctx, dist, store.Range{Now: time.Now()}) {
				if err != nil {
					return
				}
				live++
			}
			held := make(map[string]bool) // a folded path may be there in both ways
			for _, m := range s.live() {
				held[strings.TrimSuffix(m, "*")] = true
			}
			if len(held) > live {
				t.Fatalf("%d live, in the set are %q", live, s.live())
			}
		},
		"wait": func(t *rapid.T) {
			time.Sleep(rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, 6 * time.Second}).Draw(t, "wait"))
		},
		"break": func(*rapid.T) { broken = !broken },
		"restart": func(t *rapid.T) {
			was := make(map[string]bool)
			for e, err := range st.Scan(ctx, dist, store.Range{Now: time.Now()}) {
				if err == nil && time.Now().Before(acked[e.Path]) {
					was[e.Path] = true
				}
			}
			broken = false
			must(t, st.Close())
			st = setstore.New(kind(s), nil)
			for e, err := range st.Scan(ctx, dist, store.Range{Now: time.Now()}) {
				must(t, err)
				delete(was, e.Path)
				// It is kept until it is purged, but the set may know better.
				acked[e.Path] = s.heldUntil(e.Path)
			}
			if len(was) > 0 {
				t.Fatalf("forgotten by a restart: %v", was)
			}
		},
	})
}
