// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package redisstore keeps inventories and documents in Redis, or what speaks
// its protocol: one server, a Cluster, or a primary that Sentinel watches. It
// needs Redis 5 or later, scripts included.
//
// The server may be shared: all keys begin with a prefix of the store's own,
// nothing ever looks at other keys, and no command holds the server up for long.
// Keys never expire.
//
// An inventory is a row of pages. A page is a hash of up to some hundred paths
// that follow each other; a sorted set, the index, names the pages in order. A
// page never changes its range: when it grows it is replaced, in one step, by
// pages of other names. So a client that knows a page and finds it still there
// knows what it covers, without asking the index, and one that does not find it
// asks again. All keys of a distribution lie in one slot of a Cluster.
//
// Redis can lose data: it evicts, is flushed, restarts without a log, or fails
// over to a replica that was behind. Every write counts in the distribution's
// meta hash, so that a client sees when the count has gone back, and every part
// that vanishes on its own is missed by another: then the epoch in
// [store.Status] changes.
package redisstore

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// Options are what an address cannot say or should not. The zero value is fine.
type Options struct {
	// Username and Password hold where the address has none.
	Username, Password string
	// TLS is used for rediss addresses; nil means the system's roots.
	TLS *tls.Config
	// DialTimeout bounds the opening of a connection; default 2 s.
	DialTimeout time.Duration
	// Timeout bounds each exchange with the server, retries included; default 5 s.
	// A long call makes several.
	Timeout time.Duration
}

// A Store is a [store.Store] in Redis. Open one with [Open].
type Store struct {
	config config
	client redis.UniversalClient
	login  login

	done   chan struct{} // closed by Close
	losing chan struct{} // held while a loss is dealt with
	wg     sync.WaitGroup

	mu            sync.Mutex
	closed        bool
	epoch         string
	distributions map[string]*distribution
}

var _ store.Store = (*Store)(nil)

// Open returns the store at address, without dialling. The address is one of
//
//	redis://[user[:password]@]host[:port][,host[:port]…][/database]
//	rediss://…            the same with TLS
//	redis+unix:[//[user[:password]@]]/path/of/socket
//
// with these options as its query:
//
//	prefix=P              begins every key; default cftrack
//	username=U            instead of in front of the @
//	password_file=F       holds the password; read for each connection, so it may change
//	db=N                  instead of /database
//	cluster=true          the hosts are some nodes of a Cluster
//	sentinel=NAME         the hosts are Sentinels that watch the primary NAME
//	sentinel_username=U, sentinel_password_file=F
//	ca_file=F             trusts these certificates (PEM) instead of the system's
//	dial_timeout=D, timeout=D
//
// A user name that the server does not know, as older addresses carry
// (redis://anything:secret@host), is left out when the server refuses it.
func Open(address string, o *Options) (*Store, error) {
	if o == nil {
		o = new(Options)
	}
	c, err := parse(address, *o)
	if err != nil {
		return nil, err
	}
	s := &Store{
		config: c, login: login{config: &c},
		done: make(chan struct{}), losing: make(chan struct{}, 1), distributions: make(map[string]*distribution),
	}
	s.client = c.client(&s.login)
	return s, nil
}

// Close implements [store.Store].
func (s *Store) Close() error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	s.mu.Unlock()
	if !first {
		s.wg.Wait()
		return nil
	}
	close(s.done)
	err := s.client.Close()
	s.wg.Wait()
	return err
}

// A distribution is what a client remembers of one.
type distribution struct {
	name  string
	tag   string // the keys' common beginning
	pages pages

	mu         sync.Mutex
	contacted  bool
	registered bool  // the root knows that it has data
	writes     int64 // the greatest count of writes that was acknowledged
	life       int   // how often data was lost
}

func (d *distribution) meta() string          { return d.tag + "meta" }
func (d *distribution) index() string         { return d.tag + "index" }
func (d *distribution) page(id string) string { return d.tag + "p:" + id }

// field is the distribution's name as a field of the root.
func (d *distribution) field() string { return "distribution:" + d.name }

func (s *Store) root() string { return s.config.prefix + ":root" }

func (s *Store) distribution(name string) *distribution {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.distributions[name]
	if d == nil {
		name = strings.Clone(name)
		d = &distribution{name: name, tag: s.config.prefix + ":{" + hashTag(name) + "}:"}
		s.distributions[name] = d
	}
	return d
}

// hashTag makes of any name a hash tag that no other name has and that no
// brace ends early. It is never empty: {} would not be a tag.
// https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags
func hashTag(name string) string {
	var b strings.Builder
	b.WriteString("d.")
	for i := range len(name) {
		switch c := name[i]; {
		case '0' <= c && c <= '9', 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', c == '-', c == '_', c == '.':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// Now implements [store.Store]. In a Cluster it is the clock of one node.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	r, err := s.one(ctx, "now", call{script: scripts.now, keys: []string{s.root()}})
	if err != nil {
		return time.Time{}, err
	}
	v := r.list()
	if len(v) != 2 {
		return time.Time{}, s.fault("now", errReply)
	}
	return time.Unix(reply{v[0]}.int(), reply{v[1]}.int()*1000).UTC(), nil
}

// claimInstant is what the encoding makes of t, floored, 0 for the zero time.
func claimInstant(t time.Time) int64 { return inventory.RemovedClaim(t).Removed }
