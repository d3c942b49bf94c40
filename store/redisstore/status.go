// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/cf-invalidation-tracker/cftrack/store"
)

// state returns how many writes were acknowledged so far, and in which life of
// the data.
func (d *distribution) state() (writes int64, life int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.writes, d.life
}

func (d *distribution) lives() int {
	_, life := d.state()
	return life
}

// observe holds the counts of writes in the replies of a script that counts
// against those acknowledged before it was sent. Each reply begins with one.
func (s *Store) observe(ctx context.Context, op string, d *distribution, before int64, life int, replies []reply) error {
	for _, r := range replies {
		if r.at(0).int() <= before {
			return s.lost(ctx, op, d, life)
		}
	}
	for _, r := range replies {
		d.saw(r.at(0).int(), life)
	}
	return nil
}

// saw notes an acknowledged count of writes.
func (d *distribution) saw(writes int64, life int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.life == life {
		d.writes = max(d.writes, writes)
	}
}

// contact finds out, once, what is known of the distribution: an epoch has to
// be there before anything is, and what was there must still be.
func (s *Store) contact(ctx context.Context, op string, d *distribution) error {
	d.mu.Lock()
	contacted, life := d.contacted, d.life
	d.mu.Unlock()
	if contacted {
		return nil
	}
	// In this order: the root learns of a distribution after its meta is there.
	root, err := s.readRoot(ctx, op, "", d.field())
	if err != nil {
		return err
	}
	writes, err := s.one(ctx, op, call{name: "HGET", keys: []string{d.meta()}, args: []any{"writes"}})
	if err != nil {
		return err
	}
	registered := root.at(1).int() == 1
	d.mu.Lock()
	d.contacted, d.registered = true, registered
	if d.life == life {
		d.writes = max(d.writes, writes.int())
	}
	d.mu.Unlock()
	if registered && writes.v == nil {
		return s.lost(ctx, op, d, life)
	}
	return nil
}

// readRoot reads the epoch, makes one if there is none or if it is over, and
// asks whether a distribution is registered.
func (s *Store) readRoot(ctx context.Context, op, over, field string) (reply, error) {
	r, err := s.one(ctx, op, call{script: scripts.root, keys: []string{s.root()}, args: []any{rand.Text(), over, field}})
	if err != nil {
		return reply{}, err
	}
	if r.at(0).string() == "" {
		return reply{}, s.fault(op, errReply)
	}
	s.mu.Lock()
	s.epoch = r.at(0).string()
	s.mu.Unlock()
	return r, nil
}

// register lets the root know that the distribution has data now.
func (s *Store) register(ctx context.Context, op string, d *distribution) error {
	d.mu.Lock()
	registered := d.registered
	d.mu.Unlock()
	if registered {
		return nil
	}
	if _, err := s.one(ctx, op, call{name: "HSET", keys: []string{s.root()}, args: []any{d.field(), "1"}}); err != nil {
		return err
	}
	d.mu.Lock()
	d.registered = true
	d.mu.Unlock()
	return nil
}

// lost begins a new epoch, because data of the distribution is gone that had
// been seen in the given life. Others may have seen it too: it counts once.
func (s *Store) lost(ctx context.Context, op string, d *distribution, life int) error {
	select {
	case s.losing <- struct{}{}:
		defer func() { <-s.losing }()
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		return s.fault(op, store.ErrClosed)
	}
	if d.lives() != life {
		return nil
	}
	s.mu.Lock()
	over := s.epoch
	s.mu.Unlock()
	if _, err := s.readRoot(ctx, op, over, d.field()); err != nil {
		return err
	}
	replies, err := s.run(ctx, op, []call{
		// That there is a meta hash again says that this loss was seen.
		{name: "HSETNX", keys: []string{d.meta()}, args: []any{"writes", "0"}},
		{name: "HGET", keys: []string{d.meta()}, args: []any{"writes"}},
	})
	if err != nil {
		return err
	}
	d.pages.name("")
	d.mu.Lock()
	d.life++
	d.writes = replies[1].int()
	d.registered = false
	d.mu.Unlock()
	return s.register(ctx, op, d)
}

// Status implements [store.Store].
func (s *Store) Status(ctx context.Context) (store.Status, error) {
	const op = "status"
	if err := s.begin(ctx, op); err != nil {
		return store.Status{}, err
	}
	if _, err := s.readRoot(ctx, op, "", ""); err != nil {
		return store.Status{}, err
	}
	st := store.Status{Kind: "redis", Address: s.config.shown}
	s.mu.Lock()
	st.Epoch = s.epoch
	s.mu.Unlock()
	nodes, err := s.info(ctx, op)
	if err != nil {
		return store.Status{}, err
	}
	var evicts, durable []string
	for _, info := range nodes {
		evicts = append(evicts, evicting(info))
		durable = append(durable, durability(info))
	}
	slices.Sort(evicts)
	slices.Sort(durable)
	st.Evicts = strings.TrimPrefix(strings.Join(slices.Compact(evicts), "; "), "; ")
	st.Durable = strings.Join(slices.Compact(durable), "; ")
	return st, nil
}

// info reads what the servers say of their memory and persistence: one map a
// primary, empty where the server does not tell.
func (s *Store) info(ctx context.Context, op string) ([]map[string]string, error) {
	sections := []string{"memory", "persistence"}
	var mu sync.Mutex
	var nodes []map[string]string
	ask := func(ctx context.Context, c redis.UniversalClient) error {
		all := make(map[string]string)
		for _, section := range sections {
			text, err := c.Info(ctx, section).Result()
			if err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				continue
			}
			for line := range strings.Lines(text) {
				if k, v, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
					all[k] = v
				}
			}
		}
		mu.Lock()
		defer mu.Unlock()
		nodes = append(nodes, all)
		return nil
	}
	var failed error
	err := s.async(ctx, op, time.Now().Add(s.config.timeout), func(ctx context.Context) {
		if c, ok := s.client.(*redis.ClusterClient); ok {
			failed = c.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error { return ask(ctx, node) })
		} else {
			failed = ask(ctx, s.client)
		}
	})
	if err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, s.hinted(op, wrap(store.ErrUnavailable, failed), "")
	}
	return nodes, nil
}

// evicting says under which policy a server may drop keys that never expire, as
// all of the store's do; "" is none.
// https://redis.io/docs/latest/develop/reference/eviction/
func evicting(info map[string]string) string {
	limit, known := info["maxmemory"]
	policy := info["maxmemory_policy"]
	switch {
	case policy == "noeviction", strings.HasPrefix(policy, "volatile-"), limit == "0":
		return ""
	case !known && policy == "":
		return "unknown: the server does not tell its maxmemory_policy"
	default:
		return policy
	}
}

// durability says what an acknowledged write survives.
func durability(info map[string]string) string {
	const all = "the death of any client"
	switch {
	case info["aof_enabled"] == "1":
		return all + ", and of the server but for what its appendfsync policy (by default a second) leaves unwritten"
	case info["aof_enabled"] == "0":
		return all + "; of the server only what its last snapshot holds, if it takes any (appendonly is off)"
	default:
		return "unknown: the server does not tell how it persists"
	}
}
