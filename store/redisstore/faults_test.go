// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/redisstore"
)

var base = time.Unix(1_800_000_000, 0).UTC()

func sight(path string) inventory.Update {
	return inventory.Update{Path: path, Record: inventory.Sighting{End: base, Expires: base.Add(time.Hour)}.Record()}
}

func many(n int) []inventory.Update {
	var updates []inventory.Update
	for i := range n {
		updates = append(updates, sight(fmt.Sprintf("/%06d", i)))
	}
	return updates
}

func merge(t *testing.T, st store.Store, updates ...inventory.Update) {
	t.Helper()
	if err := st.Merge(t.Context(), "d", updates); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, st store.Store, keys ...string) uint64 {
	t.Helper()
	var tr store.Transaction
	for _, k := range keys {
		tr.Put = append(tr.Put, store.Put{Key: k, Value: []byte(k)})
	}
	v, err := st.Commit(t.Context(), "d", tr)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func paths(t *testing.T, st store.Store) []string {
	t.Helper()
	var all []string
	for e, err := range st.Scan(t.Context(), "d", store.Range{Now: base}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e.Path)
	}
	return all
}

func keys(t *testing.T, st store.Store) []string {
	t.Helper()
	docs, err := st.List(t.Context(), "d", "", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, d := range docs {
		all = append(all, d.Key)
	}
	return all
}

func status(t *testing.T, st store.Store) store.Status {
	t.Helper()
	s, err := st.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Whatever vanishes, the epoch says so once, the store goes on, and what it
// holds is what was not lost.
func TestLosses(t *testing.T) {
	const n = 1000
	s := start(t, false)
	page := func(prefix string) string {
		return s.cli("eval", "return redis.call('KEYS', ARGV[1])[1]", "0", prefix+":{d.d}:p:*")
	}
	for i, tc := range []struct {
		name   string
		vanish func(prefix string)
		docs   bool // all documents are left
		paths  bool // all paths are left
	}{
		{"everything", func(string) { s.cli("flushall") }, false, false},
		{"a page", func(p string) { s.cli("del", page(p)) }, true, false},
		{"the index", func(p string) { s.cli("del", p+":{d.d}:index") }, true, false},
		{"the documents", func(p string) { s.cli("del", p+":{d.d}:documents") }, false, true},
		{"the documents' order", func(p string) { s.cli("del", p+":{d.d}:keys") }, true, true},
		{"all documents", func(p string) { s.cli("del", p+":{d.d}:documents", p+":{d.d}:keys") }, false, true},
		{"the counts", func(p string) { s.cli("del", p+":{d.d}:meta") }, true, true},
		{"the root", func(p string) { s.cli("del", p+":root") }, true, true},
		{"a count", func(p string) { s.cli("hset", p+":{d.d}:meta", "writes", "1") }, true, true},
	} {
		for _, who := range []string{"scanner", "merger", "lister", "committer", "newcomer"} {
			t.Run(tc.name+"/"+who, func(t *testing.T) {
				prefix := fmt.Sprintf("l%d%s", i, who)
				st, other := open(t, s.address("prefix="+prefix)), open(t, s.address("prefix="+prefix))
				merge(t, st, many(n)...)
				version := put(t, st, "a", "b")
				merge(t, other, sight("/000000"))
				epoch := status(t, st).Epoch
				if status(t, other).Epoch != epoch {
					t.Fatal("two epochs from the beginning")
				}
				tc.vanish(prefix)
				seer := st
				switch who {
				case "scanner":
					paths(t, st)
				case "merger":
					merge(t, st, many(n)...)
				case "lister":
					keys(t, st)
				case "committer":
					put(t, st, "c")
				case "newcomer":
					seer = open(t, s.address("prefix="+prefix))
				}
				// By now, or when all has been read, it is known.
				got, docs := paths(t, seer), keys(t, seer)
				merge(t, st, sight("/000000"))
				after := status(t, seer).Epoch
				if after == epoch {
					t.Error("the epoch is the same")
				}
				if who == "merger" || tc.paths {
					if len(got) != n {
						t.Errorf("%d paths are left, want %d", len(got), n)
					}
				} else if len(got) >= n {
					t.Errorf("%d paths are left", len(got))
				}
				if tc.docs && (!slices.Contains(docs, "a") || !slices.Contains(docs, "b")) {
					t.Errorf("documents %q are left", docs)
				}
				for range 2 {
					merge(t, st, many(n)...)
					merge(t, other, many(n)...)
					if len(paths(t, st)) != n || len(paths(t, other)) != n {
						t.Errorf("%d and %d paths after merging again", len(paths(t, st)), len(paths(t, other)))
					}
				}
				settled := status(t, st).Epoch
				if v := put(t, other, "a"); v <= version {
					t.Errorf("version %d after %d", v, version)
				}
				merge(t, other, sight("/000000"))
				paths(t, st)
				if keys(t, st); status(t, other).Epoch != settled {
					t.Error("the epoch changes for ever")
				}
			})
		}
	}
}

func TestRestarts(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		want int // paths, of 500 before a snapshot and 500 after it
		same bool
	}{
		{"nothing is kept", nil, 0, false},
		{"an old snapshot", []string{"--dbfilename", "d.rdb"}, 500, false},
		{"a log", []string{"--appendonly", "yes", "--appendfsync", "always"}, 1000, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := start(t, false, tc.args...)
			st := open(t, s.address(""))
			all := many(1000)
			merge(t, st, all[:500]...)
			put(t, st, "a")
			if slices.Contains(tc.args, "d.rdb") {
				s.cli("save")
			}
			merge(t, st, all[500:]...)
			before := status(t, st)
			s.kill()
			s.up()
			if got := len(paths(t, st)); got != tc.want {
				t.Errorf("%d paths, want %d", got, tc.want)
			}
			after := status(t, st)
			if same := after.Epoch == before.Epoch; same != tc.same {
				t.Errorf("epoch %q, was %q", after.Epoch, before.Epoch)
			}
			merge(t, st, all...)
			if got := len(paths(t, st)); got != len(all) {
				t.Errorf("%d paths after merging again", got)
			}
			if log := strings.Contains(before.Durable, "appendfsync"); log != tc.same {
				t.Errorf("durable: %s", before.Durable)
			}
		})
	}
}

func TestEvicts(t *testing.T) {
	s := start(t, false)
	st := open(t, s.address(""))
	for _, tc := range []struct{ memory, policy, want string }{
		{"0", "allkeys-lru", ""},
		{"100mb", "noeviction", ""},
		{"100mb", "volatile-lru", ""}, // drops only what expires, which nothing here does
		{"100mb", "allkeys-lru", "allkeys-lru"},
		{"100mb", "allkeys-random", "allkeys-random"},
	} {
		s.cli("config", "set", "maxmemory", tc.memory, "maxmemory-policy", tc.policy)
		if got := status(t, st).Evicts; got != tc.want {
			t.Errorf("maxmemory %s, %s: evicts %q, want %q", tc.memory, tc.policy, got, tc.want)
		}
	}
	s.cli("acl", "setuser", "limited", "on", ">pw", "~*", "+@all", "-info")
	limited := open(t, strings.Replace(s.address(""), "://", "://limited:pw@", 1))
	if got := status(t, limited); !strings.Contains(got.Evicts, "unknown") || !strings.Contains(got.Durable, "unknown") {
		t.Errorf("without INFO: evicts %q, durable %q", got.Evicts, got.Durable)
	}
}

// A server that evicts for real is survived, and shows.
func TestEviction(t *testing.T) {
	s := start(t, false)
	st := open(t, s.address(""))
	merge(t, st, sight("/"))
	epoch := status(t, st).Epoch
	used := int(s.info("used_memory"))
	s.cli("config", "set", "maxmemory-policy", "allkeys-random", "maxmemory", fmt.Sprint(used+1<<20))
	n := 150_000
	for chunk := range slices.Chunk(many(n), 5000) {
		merge(t, st, chunk...)
	}
	if got := len(paths(t, st)); got >= n {
		t.Fatalf("%d paths: nothing was evicted", got)
	}
	if status(t, st).Epoch == epoch {
		t.Error("the epoch is the same")
	}
}

func TestFull(t *testing.T) {
	s := start(t, false)
	st := open(t, s.address(""))
	merge(t, st, many(1000)...)
	version := put(t, st, "a")
	s.cli("config", "set", "maxmemory-policy", "noeviction", "maxmemory", "1")
	if err := st.Merge(t.Context(), "d", many(2000)); !errors.Is(err, store.ErrFull) {
		t.Errorf("Merge: %v, want ErrFull", err)
	}
	_, err := st.Commit(t.Context(), "d", store.Transaction{Put: []store.Put{{Key: "b"}}})
	if !errors.Is(err, store.ErrFull) {
		t.Errorf("Commit: %v, want ErrFull", err)
	}
	if got := paths(t, st); len(got) != 1000 {
		t.Errorf("%d paths", len(got))
	}
	if got := keys(t, st); len(got) != 1 {
		t.Errorf("documents %q", got)
	}
	n, err := st.Clear(t.Context(), "d", []store.Condition{{Path: "/000000", Before: base.Add(time.Second)}})
	if n != 1 || err != nil {
		t.Errorf("cleared %d, %v: making room has to work", n, err)
	}
	if n, err := st.Sweep(t.Context(), "d", base.Add(100*time.Hour)); n != 999 || err != nil {
		t.Errorf("swept %d, %v: making room has to work", n, err)
	}
	s.cli("config", "set", "maxmemory", "0")
	merge(t, st, many(2000)...)
	if v := put(t, st, "b"); v <= version {
		t.Errorf("version %d after %d", v, version)
	}
}

func TestUnreachableThenBack(t *testing.T) {
	s := start(t, true)
	s.kill()
	st := open(t, fmt.Sprintf("redis://nobody:hush@%s/?timeout=2s", s.host())) // it does not dial
	for _, err := range []error{
		st.Merge(t.Context(), "d", many(1)),
		func() error { _, err := st.Status(t.Context()); return err }(),
	} {
		if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), s.host()) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%v, want ErrUnavailable with the address and no secret", err)
		}
		var e *store.Error
		if !errors.As(err, &e) || e.Hint == "" {
			t.Errorf("no hint in %v", err)
		}
	}
	s.args = []string{"--requirepass", "hush"}
	s.up()
	merge(t, st, many(10)...)
	if got := paths(t, st); len(got) != 10 {
		t.Errorf("%d paths", len(got))
	}
}

// A server that accepts and does not answer holds nobody up for longer than the
// timeout, or than the caller's context.
func TestHanging(t *testing.T) {
	s := start(t, false)
	st := open(t, s.address("timeout=300ms"))
	merge(t, st, many(10)...)
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if err := st.Merge(t.Context(), "d", many(1)); !errors.Is(err, store.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
	patient := open(t, s.address("timeout=1h"))
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := patient.List(ctx, "d", "", "", 0); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want Canceled", err)
	}
	closing := make(chan error, 1)
	go func() { _, err := patient.Now(context.Background()); closing <- err }()
	time.AfterFunc(50*time.Millisecond, func() {
		if err := patient.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := <-closing; !errors.Is(err, store.ErrClosed) {
		t.Errorf("%v, want ErrClosed", err)
	}
	if d := time.Since(begun); d > 20*time.Second {
		t.Errorf("it took %v", d)
	}
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	merge(t, st, many(10)...)
}

func TestLogins(t *testing.T) {
	s := start(t, true, "--requirepass", "secret")
	file := filepath.Join(s.dir, "password")
	write := func(password string) {
		if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("secret")
	s.cli("-a", "secret", "acl", "setuser", "app", "on", ">pw", "~mine:*", "+@hash", "+@sortedset", "+@scripting", "+@keyspace", "+info")
	for _, tc := range []struct {
		login, query string
		hint         string // "": it works
	}{
		{":secret@", "", ""},
		{"default:secret@", "", ""},
		{"x:secret@", "", ""}, // a name from before servers had users
		{"app:pw@", "prefix=mine", ""},
		{":pw@", "username=app&prefix=mine", ""},
		{"", "password_file=" + file, ""},
		{"x@", "password_file=" + file, ""},
		{"app:pw@", "prefix=theirs", "begin with theirs:"},
		{"", "", "password"},
		{":wrong@", "", "password"},
		{"x:wrong@", "", "password"},
		{"", "password_file=" + file + "x", ""},
	} {
		t.Run(tc.login+tc.query[:min(len(tc.query), 10)], func(t *testing.T) {
			st := open(t, "redis://"+tc.login+s.host()+"/?"+tc.query)
			err := st.Merge(t.Context(), "d", many(10))
			if strings.HasSuffix(tc.query, file+"x") {
				if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), file+"x") {
					t.Errorf("%v, want ErrUnavailable and the file's name", err)
				}
				return
			}
			if tc.hint == "" {
				if err != nil {
					t.Fatal(err)
				}
				if a := status(t, st).Address; strings.ContainsAny(a, "@") || strings.Contains(a, "secret") || !strings.Contains(a, s.host()) {
					t.Errorf("address %q", a)
				}
				return
			}
			var e *store.Error
			if !errors.Is(err, store.ErrUnavailable) || !errors.As(err, &e) || !strings.Contains(e.Hint, tc.hint) {
				t.Errorf("%v, want ErrUnavailable with a hint about %s", err, tc.hint)
			}
			if strings.Contains(err.Error(), "wrong@") || strings.Contains(err.Error(), ":wrong") || strings.Contains(err.Error(), "pw") {
				t.Errorf("a secret shows in %v", err)
			}
		})
	}
	st := open(t, "redis://"+s.host()+"/?password_file="+file)
	merge(t, st, many(1)...)
	s.cli("-a", "secret", "config", "set", "requirepass", "changed")
	write("changed")
	s.cli("-a", "changed", "client", "kill", "type", "normal", "skipme", "yes")
	merge(t, st, many(1)...)
}

// A cutter passes on what a client says and, when told to, cuts the connection
// instead of passing on the answer to a command that mentions word.
type cutter struct {
	listener net.Listener
	server   *server
	word     string
	cut      atomic.Bool
	cuts     atomic.Int64
	wg       sync.WaitGroup
}

func (c *cutter) serve() {
	for {
		client, err := c.listener.Accept()
		if err != nil {
			return
		}
		c.wg.Go(func() { c.pass(client) })
	}
}

func (c *cutter) pass(client net.Conn) {
	defer client.Close() //nolint:errcheck // it is cut
	up, err := c.server.dial()
	if err != nil {
		return
	}
	defer up.Close() //nolint:errcheck // likewise
	var mine atomic.Bool
	c.wg.Go(func() {
		defer up.Close() //nolint:errcheck // likewise
		buf := make([]byte, 1<<20)
		for {
			n, err := client.Read(buf)
			if err != nil {
				return
			}
			if strings.Contains(string(buf[:n]), c.word) && c.cut.CompareAndSwap(true, false) {
				mine.Store(true)
			}
			if _, err := up.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	buf := make([]byte, 1<<20)
	for {
		n, err := up.Read(buf)
		if err != nil {
			return
		}
		if mine.Load() {
			c.cuts.Add(1)
			return
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}

func TestLostAnswers(t *testing.T) {
	s := start(t, false)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{listener: l, server: s, word: "the-key"}
	c.wg.Go(c.serve)
	t.Cleanup(c.wg.Wait)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	st, err := redisstore.Open("redis://"+l.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close() //nolint:errcheck // once more in open's way is not needed
	version := uint64(0)
	for i := range 5 {
		c.cut.Store(true)
		v, err := st.Commit(t.Context(), "d", store.Transaction{
			Require: []store.Requirement{{Key: "the-key", Version: version}},
			Put:     []store.Put{{Key: "the-key", Value: []byte{byte(i)}}},
		})
		if err != nil {
			t.Fatalf("the commit conflicts with itself: %v", err)
		}
		docs, err := st.List(t.Context(), "d", "", "", 0)
		if err != nil || len(docs) != 1 || docs[0].Version != v || docs[0].Value[0] != byte(i) {
			t.Fatalf("documents %+v, %v, version %d", docs, err, v)
		}
		version = v
	}
	c.word = "/the-path"
	c.cut.Store(true)
	merge(t, st, sight("/the-path"))
	if got := paths(t, st); len(got) != 1 {
		t.Errorf("paths %q", got)
	}
	if c.cuts.Load() != 6 {
		t.Errorf("%d answers were cut, want 6", c.cuts.Load())
	}
}
