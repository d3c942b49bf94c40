// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package setstore makes a full store of anything that can keep a set of paths:
// a table, a file, a service that a team runs anyway. It asks for no more than
// [Store]: set, list and clear. What else the set can do it may say by further
// methods, which are looked for once, in [New]: [Connector], [Disconnector],
// [Deleter] and [TTLSetter].
//
// Records and documents are kept in memory (package memstore); the set mirrors
// which paths are live. On first use the set is read into the inventory, where
// each path counts as sighted at that moment and kept until it is purged.
// What is acknowledged is in the set, so that a restart forgets no path. A set
// may hold more than is live, never less.
//
// # What it does not promise
//
// This is less than package store asks for:
//
//   - Times, hits, tags and claims are in memory only. After a restart a path of
//     the set is kept until it is purged.
//   - So are the journal, sessions and leases. A restart forgets invalidations
//     under way, with the references under which their batches were sent: started
//     again they are new ones, and are billed again. It forgets what was purged,
//     what follow-ups were owed, which recorders were lost, and the coverage.
//     Therefore the store says that it evicts, the coverage is never complete, and
//     no wildcard is looked up unless the caller vouches for the inventory.
//   - One process at a time may use a set, as its recorder and its dispatcher.
//     What others add to it meanwhile is not seen, and may be cleared.
//   - A set holds the paths of one distribution.
//   - Without a Deleter, paths that were purged, removed or have expired stay in
//     the set until nothing at all is live, and then it is cleared. If the process
//     restarts before, they come back and are sent once more. Clearing the set and
//     filling it again would avoid that, and forget paths if it were interrupted.
//   - An acknowledged write survives what the set survives.
//   - The longest call takes as long as the set needs for one path, times the
//     paths in it; the set is called by one goroutine at a time.
//
// Use it where a set is what there is. Else the embedded store (package
// filestore) keeps every promise and needs nothing installed.
package setstore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/memstore"
)

// A Store is a set of paths. Its methods are never called concurrently. They
// should return soon after the context is done.
//
// Paths are canonical and percent-encoded, and up to 64 KiB long. One that ends
// in '*' stands for all that begin with what is before.
type Store interface {
	// Set adds a path, and undoes a time to live that it had. When it returns nil
	// the path stays. Setting a path that is there is no error.
	Set(ctx context.Context, path string) error
	// List returns all paths. Paths that others put there may be spelled as an
	// HTTP request target, or be a whole URL.
	List(ctx context.Context) ([]string, error)
	// Clear removes all paths.
	Clear(ctx context.Context) error
}

// A Connector is called before anything else, on first use, until it succeeds
// once. Finding back to a server that went away later is the set's own business.
type Connector interface {
	Connect(ctx context.Context) error
}

// A Disconnector is called by Close if the set was connected. Its context is
// done after [DisconnectTimeout].
type Disconnector interface {
	Disconnect(ctx context.Context) error
}

// A Deleter can remove one path. One that is not there is no error.
type Deleter interface {
	Delete(ctx context.Context, path string) error
}

// A TTLSetter can drop a path by itself when ttl from now is over, which is more
// than 0. It is called after Set, again and again as a life becomes longer or
// shorter, and not for paths that are kept until they are purged.
type TTLSetter interface {
	SetTTL(ctx context.Context, path string, ttl time.Duration) error
}

// DisconnectTimeout is how long Close waits for a [Disconnector].
const DisconnectTimeout = 5 * time.Second

// Options are the settings of a store. The zero value is good.
type Options struct {
	// Distribution is the one whose paths the set holds. Default: the first whose
	// inventory is used.
	Distribution string
	// Name names the set for people, without secrets. Default: the type of the set.
	Name string
	// Logger is told which listed paths CloudFront cannot have asked for; they are
	// left out. Default: nobody is.
	Logger *slog.Logger
}

// New returns a store over set, which must not be used by anybody else any more.
// It does not connect; see package store.
func New(set Store, opts *Options) store.Store {
	a := &adapter{set: set, mem: memstore.New(), turn: make(chan struct{}, 1), held: make(map[string]member)}
	if opts != nil {
		a.opts = *opts
	}
	if a.opts.Name == "" {
		a.opts.Name = strings.TrimPrefix(fmt.Sprintf("%T", set), "*")
	}
	if a.opts.Logger == nil {
		a.opts.Logger = slog.New(slog.DiscardHandler)
	}
	a.connector, _ = set.(Connector)
	a.disconnector, _ = set.(Disconnector)
	a.deleter, _ = set.(Deleter)
	a.ttl, _ = set.(TTLSetter)
	a.life, a.end = context.WithCancel(context.Background())
	return a
}

// An adapter is a set with what it lacks in memory.
type adapter struct {
	set  Store
	opts Options
	mem  *memstore.Store
	life context.Context // done when the store is closed
	end  context.CancelFunc

	connector    Connector
	disconnector Disconnector
	deleter      Deleter
	ttl          TTLSetter

	turn chan struct{} // holds a token while somebody uses the set, and what follows

	connected, listed, bound, closed bool

	found []string          // of List, until it is known whose paths they are
	held  map[string]member // by path: what the set holds
	err   error             // of Close
}

// A member is how the set holds a path.
type member struct {
	names   []string  // how it is spelled there; more than one only if it was listed so
	folded  bool      // it stands for all paths that begin with it
	expires time.Time // by the set's own doing; zero if that is not known
}

var _ store.Store = (*adapter)(nil)

// begin waits for the caller's turn, and connects and lists if that was not done
// yet. The context it returns is also done when the store is closed.
func (a *adapter) begin(ctx context.Context, op string) (_ context.Context, done func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	select {
	case a.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	inner, cancel := context.WithCancel(ctx)
	unhook := context.AfterFunc(a.life, cancel)
	done = func() {
		unhook()
		cancel()
		<-a.turn
	}
	if err := a.reach(inner); err != nil {
		done()
		return nil, nil, a.fault(ctx, op, err)
	}
	return inner, done, nil
}

func (a *adapter) reach(ctx context.Context) error {
	switch {
	case a.closed:
		return store.ErrClosed
	case a.set == nil:
		return errors.New("setstore.New was given no set")
	}
	if !a.connected {
		if a.connector != nil {
			if err := a.connector.Connect(ctx); err != nil {
				return err
			}
		}
		a.connected = true
	}
	if !a.listed {
		found, err := a.set.List(ctx)
		if err != nil {
			return err
		}
		a.found, a.listed = found, true
	}
	return nil
}

// use is begin for the inventory of a distribution.
func (a *adapter) use(ctx context.Context, op, distribution string) (_ context.Context, done func(), err error) {
	inner, done, err := a.begin(ctx, op)
	if err != nil {
		return nil, nil, err
	}
	if err := a.bind(inner, distribution); err != nil {
		done()
		return nil, nil, a.fault(ctx, op, err)
	}
	return inner, done, nil
}

// bind reads what was listed into the inventory of the distribution.
func (a *adapter) bind(ctx context.Context, distribution string) error {
	if a.opts.Distribution == "" && !a.bound {
		a.opts.Distribution = distribution
	}
	if distribution != a.opts.Distribution {
		return &foreignError{distribution, a.opts.Distribution}
	}
	if a.bound {
		return nil
	}
	now, err := a.mem.Now(ctx)
	if err != nil {
		return err
	}
	held := make(map[string]member, len(a.found))
	var updates []inventory.Update
	for _, name := range a.found {
		target, folded := strings.CutSuffix(name, "*")
		path, err := cfpath.FromTarget(target)
		if err != nil {
			a.opts.Logger.Warn("the set holds what CloudFront cannot have asked for; it is left out",
				"store", a.address(), "path", name, "error", err)
			continue
		}
		m := held[path]
		held[path] = member{names: append(m.names, name), folded: m.folded || folded}
		r := inventory.Sighting{End: now, Expires: inventory.Never}.Record()
		r.Folded = folded
		updates = append(updates, inventory.Update{Path: path, Record: r})
	}
	if err := a.mem.Merge(ctx, distribution, updates); err != nil {
		return err
	}
	a.bound, a.held, a.found = true, held, nil
	return nil
}

// A foreignError is a distribution that the set is not for.
type foreignError struct{ asked, held string }

func (e *foreignError) Error() string {
	return fmt.Sprintf("the set holds the paths of the distribution %q, not of %q", e.held, e.asked)
}

func (a *adapter) address() string { return "set:" + a.opts.Name }

// fault says what an error of the set or of the memory means for the caller,
// whose context is ctx.
func (a *adapter) fault(ctx context.Context, op string, err error) error {
	var known *store.Error
	var foreign *foreignError
	e := &store.Error{Op: op, Store: a.address(), Err: err}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case a.life.Err() != nil:
		e.Err = store.ErrClosed // whatever it interrupted
	case errors.As(err, &known):
		e.Err, e.Hint = known.Err, known.Hint
	case errors.As(err, &foreign):
		e.Hint = "open a store for each distribution, over a set of its own"
	case !errors.Is(err, store.ErrFull) && !errors.Is(err, store.ErrClosed):
		e.Err = fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return e
}

// entry is the live entry of a path, nil if there is none.
func (a *adapter) entry(ctx context.Context, path string, now time.Time) (*inventory.Entry, error) {
	for e, err := range a.mem.Scan(ctx, a.opts.Distribution, store.Range{Prefix: path, Now: now}) {
		if err != nil || e.Path != path {
			return nil, err
		}
		return &e, nil
	}
	return nil, nil
}

// mirror makes the set hold the path if it is live, and as long as it is.
func (a *adapter) mirror(ctx context.Context, path string, now time.Time) error {
	e, err := a.entry(ctx, path, now)
	if err != nil {
		return err
	}
	was, held := a.held[path]
	if e == nil {
		if !held || a.deleter == nil {
			return nil
		}
		if err := a.drop(ctx, was.names); err != nil {
			return err
		}
		delete(a.held, path)
		return nil
	}
	if held && was.folded == e.Folded && (a.ttl == nil || was.expires.Equal(e.Expires)) {
		return nil
	}
	is := member{folded: e.Folded}
	switch {
	case e.Folded || strings.HasSuffix(path, "*"):
		is.names = []string{path + "*"}
	case held && !was.folded:
		is.names = was.names
	default:
		is.names = []string{path}
	}
	for _, name := range is.names {
		if err := a.set.Set(ctx, name); err != nil {
			return err
		}
	}
	var stale []string // a path that was not folded before is spelled otherwise
	for _, name := range was.names {
		if !slices.Contains(is.names, name) {
			stale = append(stale, name)
		}
	}
	// The time to live is not known before it is set, nor what is stale gone.
	all := append(slices.Clone(is.names), stale...)
	a.held[path] = member{names: all, folded: is.folded}
	if a.ttl != nil && e.Expires.Before(inventory.Never) {
		for _, name := range is.names {
			if err := a.ttl.SetTTL(ctx, name, e.Expires.Sub(now)); err != nil {
				return err
			}
		}
	}
	is.expires = e.Expires
	a.held[path] = member{names: all, folded: is.folded, expires: is.expires}
	if len(stale) > 0 && a.deleter != nil {
		if err := a.drop(ctx, stale); err != nil {
			return err
		}
		a.held[path] = is
	}
	return nil
}

func (a *adapter) drop(ctx context.Context, names []string) error {
	for _, name := range names {
		if err := a.deleter.Delete(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// clearIfEmpty clears a set that cannot delete once nothing in it is live.
func (a *adapter) clearIfEmpty(ctx context.Context, now time.Time) error {
	if a.deleter != nil || len(a.held) == 0 {
		return nil
	}
	for _, err := range a.mem.Scan(ctx, a.opts.Distribution, store.Range{Now: now}) {
		return err // of the first, which is live, or none
	}
	if err := a.set.Clear(ctx); err != nil {
		return err
	}
	clear(a.held)
	return nil
}

// Now implements [store.Store] with this process's clock.
func (a *adapter) Now(ctx context.Context) (time.Time, error) {
	now, err := a.mem.Now(ctx)
	return now, a.fault(ctx, "now", err)
}

// Merge implements [store.Store].
func (a *adapter) Merge(ctx context.Context, distribution string, updates []inventory.Update) error {
	inner, done, err := a.use(ctx, "merge", distribution)
	if err != nil {
		return err
	}
	defer done()
	return a.fault(ctx, "merge", a.merge(inner, distribution, updates))
}

func (a *adapter) merge(ctx context.Context, distribution string, updates []inventory.Update) error {
	if err := a.mem.Merge(ctx, distribution, updates); err != nil {
		return err
	}
	now, err := a.mem.Now(ctx)
	if err != nil {
		return err
	}
	claims := false
	for _, u := range updates {
		claim := u.Record.Removed != 0 || u.Record.TTLAt != 0
		claims = claims || claim
		if m, held := a.held[u.Path]; held && !claim && a.ttl == nil && m.folded == u.Record.Folded {
			continue // nothing new for the set
		}
		if err := a.mirror(ctx, u.Path, now); err != nil {
			return err
		}
	}
	if claims {
		return a.clearIfEmpty(ctx, now)
	}
	return nil
}

// Scan implements [store.Store].
func (a *adapter) Scan(ctx context.Context, distribution string, r store.Range) iter.Seq2[inventory.Entry, error] {
	return func(yield func(inventory.Entry, error) bool) {
		_, done, err := a.use(ctx, "scan", distribution)
		if err != nil {
			yield(inventory.Entry{}, err)
			return
		}
		done()
		for e, err := range a.mem.Scan(ctx, distribution, r) {
			if !yield(e, a.fault(ctx, "scan", err)) {
				return
			}
		}
	}
}

// Clear implements [store.Store].
func (a *adapter) Clear(ctx context.Context, distribution string, conditions []store.Condition) (int, error) {
	inner, done, err := a.use(ctx, "clear", distribution)
	if err != nil {
		return 0, err
	}
	defer done()
	n, err := a.clear(inner, distribution, conditions)
	return n, a.fault(ctx, "clear", err)
}

func (a *adapter) clear(ctx context.Context, distribution string, conditions []store.Condition) (int, error) {
	n, err := a.mem.Clear(ctx, distribution, conditions)
	if err != nil {
		return n, err
	}
	now, err := a.mem.Now(ctx)
	if err != nil {
		return n, err
	}
	for _, c := range conditions {
		if _, held := a.held[c.Path]; held && a.deleter != nil {
			if err := a.mirror(ctx, c.Path, now); err != nil {
				return n, err
			}
		}
	}
	return n, a.clearIfEmpty(ctx, now)
}

// Sweep implements [store.Store]. It also makes up for what could not be taken
// out of the set earlier.
func (a *adapter) Sweep(ctx context.Context, distribution string, now time.Time) (int, error) {
	inner, done, err := a.use(ctx, "sweep", distribution)
	if err != nil {
		return 0, err
	}
	defer done()
	n, err := a.sweep(inner, distribution, now)
	return n, a.fault(ctx, "sweep", err)
}

// sweepAtOnce is how many paths one sweep takes out of the set, as others wait.
const sweepAtOnce = 1000

func (a *adapter) sweep(ctx context.Context, distribution string, now time.Time) (int, error) {
	n, err := a.mem.Sweep(ctx, distribution, now)
	if err != nil || len(a.held) == 0 {
		return n, err
	}
	if a.deleter != nil {
		live := make(map[string]struct{}, len(a.held))
		for e, err := range a.mem.Scan(ctx, distribution, store.Range{Now: now}) {
			if err != nil {
				return n, err
			}
			live[e.Path] = struct{}{}
		}
		dropped := 0
		for path, m := range a.held {
			if _, ok := live[path]; ok {
				continue
			}
			if err := a.drop(ctx, m.names); err != nil {
				return n, err
			}
			delete(a.held, path)
			if dropped++; dropped == sweepAtOnce {
				break
			}
		}
	}
	return n, a.clearIfEmpty(ctx, now)
}

// List implements [store.Store], in memory.
func (a *adapter) List(ctx context.Context, distribution, prefix, after string, limit int) ([]store.Document, error) {
	docs, err := a.mem.List(ctx, distribution, prefix, after, limit)
	return docs, a.fault(ctx, "list", err)
}

// Commit implements [store.Store], in memory.
func (a *adapter) Commit(ctx context.Context, distribution string, t store.Transaction) (uint64, error) {
	version, err := a.mem.Commit(ctx, distribution, t)
	return version, a.fault(ctx, "commit", err)
}

// Status implements [store.Store]. It connects, so that what opens a session
// knows whether the set is there.
func (a *adapter) Status(ctx context.Context) (store.Status, error) {
	inner, done, err := a.begin(ctx, "status")
	if err != nil {
		return store.Status{}, err
	}
	defer done()
	s, err := a.mem.Status(inner)
	if err != nil {
		return store.Status{}, a.fault(ctx, "status", err)
	}
	return store.Status{
		Kind: "set", Address: a.address(), Epoch: s.Epoch,
		Evicts:  "a restart forgets times, tags and the journal",
		Durable: "paths alone: what the set survives; everything else is gone when this process ends",
	}, nil
}

// Close implements [store.Store]. Calls that are under way are interrupted.
func (a *adapter) Close() error {
	a.end()
	a.turn <- struct{}{}
	defer func() { <-a.turn }()
	if a.closed {
		return a.err
	}
	a.closed = true
	err := a.mem.Close()
	if a.connected && a.disconnector != nil {
		ctx, cancel := context.WithTimeout(context.Background(), DisconnectTimeout)
		defer cancel()
		if derr := a.disconnector.Disconnect(ctx); derr != nil {
			err = &store.Error{Op: "close", Store: a.address(), Err: derr}
		}
	}
	a.err = err
	return err
}
