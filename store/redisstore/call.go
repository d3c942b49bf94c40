// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"context"
	"crypto/sha1" //nolint:gosec // it names scripts, as the server does
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/cf-invalidation-tracker/cftrack/store"
)

//go:embed scripts/*.lua
var sources embed.FS

// A script runs on the server. Each declares all its keys and does a bounded
// amount of work.
type script struct{ source, sha string }

func load(name string) *script {
	source, err := sources.ReadFile("scripts/" + name + ".lua")
	if err != nil {
		panic(err) // it is embedded
	}
	sum := sha1.Sum(source) //nolint:gosec // see above
	return &script{string(source), hex.EncodeToString(sum[:])}
}

var scripts = struct {
	now, root, create, merge, replace, clear, split, join, repair, list, commit *script
}{
	load("now"), load("root"), load("create"), load("merge"), load("replace"), load("clear"),
	load("split"), load("join"), load("repair"), load("list"), load("commit"),
}

// A call is a script with its keys, or a plain command: then keys and args are
// all of its words.
type call struct {
	script *script
	name   string
	keys   []string
	args   []any
}

func (c *call) words(eval bool) []any {
	var w []any
	switch {
	case c.script == nil:
		w = append(make([]any, 0, 1+len(c.keys)+len(c.args)), c.name)
	case eval:
		w = append(make([]any, 0, 3+len(c.keys)+len(c.args)), "EVAL", c.script.source, len(c.keys))
	default:
		w = append(make([]any, 0, 3+len(c.keys)+len(c.args)), "EVALSHA", c.script.sha, len(c.keys))
	}
	for _, k := range c.keys {
		w = append(w, k)
	}
	return append(w, c.args...)
}

// A reply is what a call returned: nil, int64, string or a list of such.
type reply struct{ v any }

func (r reply) list() []any {
	l, _ := r.v.([]any)
	return l
}

// at returns the i-th of a list, or the reply nil.
func (r reply) at(i int) reply {
	if l := r.list(); i < len(l) {
		return reply{l[i]}
	}
	return reply{}
}

func (r reply) int() int64 {
	switch v := r.v.(type) {
	case int64:
		return v
	case string:
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return 0
		}
		return n
	}
	return 0
}

func (r reply) string() string {
	s, _ := r.v.(string)
	return s
}

var errReply = errors.New("the server's answer is not what the script returns")

func (s *Store) fault(op string, err error) error {
	return s.hinted(op, err, "")
}

func (s *Store) hinted(op string, err error, hint string) error {
	return &store.Error{Op: op, Store: s.config.shown, Err: err, Hint: hint}
}

// one runs a single call.
func (s *Store) one(ctx context.Context, op string, c call) (reply, error) {
	r, err := s.run(ctx, op, []call{c})
	if err != nil {
		return reply{}, err
	}
	return r[0], nil
}

// run sends the calls in one go and returns their replies. What fails in a way
// that may pass is sent again, until the timeout; every call can be repeated.
func (s *Store) run(ctx context.Context, op string, calls []call) ([]reply, error) {
	if err := s.begin(ctx, op); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(s.config.timeout)
	replies := make([]reply, len(calls))
	todo := make([]int, len(calls))
	for i := range todo {
		todo[i] = i
	}
	eval, nameless := false, false
	for attempt := 0; len(todo) > 0; attempt++ {
		cmds, err := s.exchange(ctx, op, deadline, calls, todo, eval)
		if err != nil {
			return nil, err
		}
		var failed error
		rest := todo[:0]
		again := false
		for i, n := range todo {
			v, err := cmds[i].Result()
			switch {
			case err == nil || errors.Is(err, redis.Nil):
				replies[n] = reply{v}
			case strings.HasPrefix(err.Error(), "NOSCRIPT"):
				rest = append(rest, n)
				again, eval = true, true
			default:
				rest = append(rest, n)
				failed = err
			}
		}
		if todo = rest; len(todo) == 0 {
			return replies, nil
		}
		if failed == nil && again {
			continue
		}
		pause, err := s.judge(ctx, op, failed, deadline, attempt, &nameless)
		if err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.done:
			return nil, s.fault(op, store.ErrClosed)
		case <-time.After(pause):
		}
	}
	return replies, nil
}

func (s *Store) begin(ctx context.Context, op string) error {
	select {
	case <-s.done:
		return s.fault(op, store.ErrClosed)
	default:
		return ctx.Err()
	}
}

// exchange sends the calls that are to be done and waits for the answers, the
// context, or Close.
func (s *Store) exchange(ctx context.Context, op string, deadline time.Time, calls []call, todo []int, eval bool) ([]*redis.Cmd, error) {
	words := make([][]any, len(todo))
	for i, n := range todo {
		words[i] = calls[n].words(eval)
	}
	cmds := make([]*redis.Cmd, len(words))
	err := s.async(ctx, op, deadline, func(ctx context.Context) {
		pipe := s.client.Pipeline()
		for i := range words {
			cmds[i] = pipe.Do(ctx, words[i]...)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			for _, c := range cmds {
				if c.Err() == nil && c.Val() == nil {
					c.SetErr(err)
				}
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return cmds, nil
}

// async calls f and waits for it, the context, or Close: the client itself
// looks at a context's deadline only. When async returns an error f may still
// be at work.
func (s *Store) async(ctx context.Context, op string, deadline time.Time, f func(context.Context)) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return s.fault(op, store.ErrClosed)
	}
	s.wg.Add(1)
	s.mu.Unlock()
	answered := make(chan struct{})
	go func() {
		defer s.wg.Done()
		defer close(answered)
		ctx, cancel := context.WithDeadline(ctx, deadline)
		defer cancel()
		f(ctx)
	}()
	select {
	case <-answered:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		return s.fault(op, store.ErrClosed)
	}
}

// judge says how long to wait before trying again after err, or why not to.
// nameless notes that the call was tried without the user name.
func (s *Store) judge(ctx context.Context, op string, err error, deadline time.Time, attempt int, nameless *bool) (time.Duration, error) {
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if s.begin(ctx, op) != nil || errors.Is(err, redis.ErrClosed) {
		return 0, s.fault(op, store.ErrClosed)
	}
	says := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(err.Error(), w) {
				return true
			}
		}
		return false
	}
	unavailable := func(hint string) (time.Duration, error) {
		return 0, s.hinted(op, wrap(store.ErrUnavailable, err), hint)
	}
	pause := min(10*time.Millisecond<<min(attempt, 5), 200*time.Millisecond)
	left := time.Until(deadline)
	var network net.Error
	switch {
	case says("WRONGPASS", "NOAUTH", "invalid password", "invalid username-password", "wrong number of arguments for 'auth'", "without any password configured"):
		// The name may be one that the server does not know: without it, once.
		if s.config.username != "" && !*nameless {
			*nameless = true
			s.login.nameless.Store(true)
			return 0, nil
		}
		s.login.nameless.Store(false)
		return unavailable("check the user name and the password")
	case says("NOPERM"):
		return unavailable("the user needs the commands of @hash, @sortedset, @scripting, @keyspace and @transaction on keys that begin with " + s.config.prefix + ":")
	case says("OOM "):
		return 0, s.hinted(op, wrap(store.ErrFull, err), "raise the server's maxmemory, or invalidate and sweep")
	case says("MISCONF"):
		return unavailable("the server cannot save its data to disk and refuses writes")
	case says("MOVED ") && !s.config.cluster:
		return unavailable("this server belongs to a Cluster: add cluster=true to the address")
	case says("LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MOVED ", "ASK ", "NOREPLICAS", "BUSY", "max number of clients", "UNBLOCKED"):
		if pause < left {
			return pause, nil
		}
		return unavailable("the server is not ready; it may be starting or failing over")
	case says("DB index"):
		return unavailable("check the number of the database in the address")
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, context.DeadlineExceeded), says("redis:", "sentinel", "cluster", "connection"):
		// One server comes back at its own address or not soon; where others can
		// take over, they need a while to notice.
		if pause < left && (attempt < 3 || s.config.cluster || s.config.sentinel != "") {
			return pause, nil
		}
		return unavailable("is the server running, and does the address say where?")
	default:
		return unavailable("the server refused the command")
	}
}

// wrap gives the sentinel its cause as text alone: a timeout of ours must not
// look like the caller's.
func wrap(sentinel, cause error) error { return fmt.Errorf("%w: %s", sentinel, cause.Error()) }
