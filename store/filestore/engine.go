// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

const (
	// mergeChunk and clearChunk bound how long a merge or a clear keeps the
	// other waiting, scanChunk and scanBytes what a scan holds in memory.
	mergeChunk = 2000
	clearChunk = 256
	scanChunk  = 1024
	scanBytes  = 1 << 20
	// scanLook bounds how many dead records a scan passes over in one go.
	scanLook = 16 * scanChunk

	// sweepTime is after what time a sweep that removed something leaves the rest
	// to the next.
	sweepTime = 5 * time.Second

	// recentKept is how many finished transactions are remembered.
	recentKept = 4096

	// memTable is how much Pebble gathers in memory before it writes a table. Its
	// logs, five of which it may keep, grow and shrink with it.
	memTable = 24 << 20

	// probeSize must fit on the disk before the database is opened for writing
	// again, and probeWait passes between two tries.
	probeSize = 1 << 20
	probeWait = time.Second
)

// errMoved: this process does not serve the database any more.
var errMoved = errors.New("the database moved to another process")

// An engine is the database in the process that owns it.
type engine struct {
	dir       string // of Pebble's files
	fs        vfs.FS
	log       *slog.Logger
	memTable  uint64
	probeWait time.Duration

	// mu is over db and what it is opened with. Calls share it; opening the
	// database again, and closing it, excludes them.
	mu      sync.RWMutex
	db      *pebble.DB // nil if it could not be opened again, or was closed
	files   *freezer
	cause   error // why db is nil or read-only
	closed  bool
	nextTry time.Time
	epoch   string
	recent  recent

	// looks excludes merges while a clear or sweep looks at records and removes
	// them. Neither waits for the disk under it.
	looks sync.RWMutex
	// docs makes a commit one step, its way to the disk included: nobody must
	// act on a document that may yet be lost and whose version given again.
	docs sync.RWMutex
}

// A transactionID names one call to Commit, repetitions included.
type transactionID [16]byte

func openEngine(dir string, opts *Options) (*engine, error) {
	e := &engine{dir: dir, fs: opts.disk, log: opts.Logger, memTable: opts.memTable, probeWait: opts.probeWait}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.open(); err != nil {
		return nil, err
	}
	return e, nil
}

// options are Pebble's, for what is written in bursts, read in order, and shares
// its process with others: little memory, and long runs of similar keys.
func (e *engine) options(files *freezer, readOnly bool) *pebble.Options {
	log := logger{log: e.log, fatal: files.freeze}
	opts := &pebble.Options{
		FS:                          files,
		Merger:                      merger,
		FormatMajorVersion:          pebble.FormatTableFormatV6,
		ReadOnly:                    readOnly,
		ErrorIfNotExists:            readOnly,
		CacheSize:                   16 << 20,
		MemTableSize:                e.memTable,
		MemTableStopWritesThreshold: 3,
		// Paths come in no order, so each compaction of level 0 rewrites what lies
		// below: half as many of them take a third off the cost of a merge.
		L0CompactionThreshold: 8,
		L0StopWritesThreshold: 100,
		LBaseMaxBytes:         128 << 20,
		MaxOpenFiles:          500,
		BytesPerSync:          1 << 20,
		WALBytesPerSync:       0,
		Logger:                log,
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) { e.log.Error("database: background work", "error", err) },
			DataCorruption: func(info pebble.DataCorruptionInfo) {
				e.log.Error("database: corrupt", "path", info.Path, "details", info.Details)
			},
		},
	}
	for i := range opts.Levels {
		opts.Levels[i].BlockSize = 16 << 10
		opts.Levels[i].Compression = func() *block.CompressionProfile { return block.SnappyCompression }
	}
	return opts
}

// logger passes on what Pebble has to say about trouble, and turns what it
// believes to be the end of the process into the end of writing.
type logger struct {
	log   *slog.Logger
	fatal func(error)
}

func (l logger) Infof(string, ...any) {}

func (l logger) Errorf(format string, args ...any) {
	l.log.Error("database: " + fmt.Sprintf(format, args...))
}

func (l logger) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	l.log.Error("database: fatal", "error", err)
	l.fatal(err)
}

// open opens the database, only for reading if the disk does not take writes.
// The caller holds e.mu and has no database open.
func (e *engine) open() error {
	err := e.probe()
	if err == nil {
		if err = e.openAs(false); err == nil {
			e.cause = nil
			return nil
		}
	}
	e.cause, e.nextTry = err, time.Now().Add(e.probeWait)
	if e.openAs(true) != nil {
		return err
	}
	e.log.Warn("database: reading only", "dir", e.dir, "error", err)
	return nil
}

func (e *engine) openAs(readOnly bool) error {
	files := newFreezer(e.fs)
	db, err := pebble.Open(e.dir, e.options(files, readOnly))
	if err == nil {
		err = e.load(db)
	}
	if cause := files.cause(); cause != nil {
		err = cause // what Pebble then says is a consequence
	}
	if err != nil {
		if db != nil {
			e.closeDB(db)
		}
		return err
	}
	e.db, e.files = db, files
	return nil
}

func (e *engine) closeDB(db *pebble.DB) {
	if err := db.Close(); err != nil {
		e.log.Warn("database: closing", "dir", e.dir, "error", err)
	}
}

// load reads what is kept in memory, and makes it in a new database.
func (e *engine) load(db *pebble.DB) error {
	epoch, err := get(db, []byte{kindMeta, 'e'})
	switch {
	case err != nil:
		return err
	case epoch == nil:
		epoch = []byte(rand.Text())
		if err := db.Set([]byte{kindMeta, 'e'}, epoch, pebble.Sync); err != nil {
			return err
		}
	}
	e.epoch = string(epoch)
	e.recent = recent{versions: make(map[transactionID]uint64)}
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{kindRecent}, UpperBound: []byte{kindRecent + 1}})
	if err != nil {
		return err
	}
	for valid := it.First(); valid; valid = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return errors.Join(err, it.Close())
		}
		if key := it.Key(); len(key) == 1+8 && len(value) == len(transactionID{})+8 {
			e.recent.next = binary.BigEndian.Uint64(key[1:])
			e.recent.add(transactionID(value), binary.BigEndian.Uint64(value[len(transactionID{}):]))
		}
	}
	return it.Close()
}

// get returns a copy of the value of key, nil if there is none.
func get(db *pebble.DB, key []byte) ([]byte, error) {
	value, closer, err := db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	value = append([]byte{}, value...)
	return value, closer.Close()
}

// close ends the engine. It may be called more than once.
func (e *engine) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	if e.db != nil {
		e.closeDB(e.db)
		e.db = nil
	}
}

// use runs f with the database, healthy and writable if need be. It opens the
// database again if a write failed since.
func (e *engine) use(ctx context.Context, write bool, f func(*pebble.DB) error) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if done, err := e.tryUse(write, f); done {
			return err
		}
		if err := e.heal(write); err != nil {
			return err
		}
	}
}

func (e *engine) tryUse(write bool, f func(*pebble.DB) error) (done bool, _ error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.closed {
		return true, errMoved
	}
	if e.db == nil || e.files.cause() != nil || write && e.cause != nil {
		return false, nil
	}
	err := f(e.db)
	if write && err == nil {
		// Pebble saw no error, but what it wrote may not have reached the disk.
		if cause := e.files.cause(); cause != nil {
			err = fmt.Errorf("%w: writing: %w", store.ErrUnavailable, cause)
		}
	}
	return true, err
}

// heal opens the database again where that may help.
func (e *engine) heal(write bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return errMoved
	}
	frozen := e.db != nil && e.files.cause() != nil
	switch {
	case e.db != nil && !frozen && (!write || e.cause == nil):
		return nil // somebody else was here before
	case frozen:
		e.log.Error("database: a write failed, opening again", "dir", e.dir, "error", e.files.cause())
	case time.Now().Before(e.nextTry):
		return refused(e.cause)
	case e.db != nil:
		if err := e.probe(); err != nil {
			e.cause, e.nextTry = err, time.Now().Add(e.probeWait)
			return refused(err)
		}
	}
	if e.db != nil {
		e.closeDB(e.db)
		e.db = nil
	}
	if err := e.open(); err != nil {
		return refused(err)
	}
	if e.cause == nil {
		e.log.Info("database: writing again", "dir", e.dir)
	} else if write {
		return refused(e.cause)
	}
	return nil
}

// refused is the error of a call that changed nothing.
func refused(cause error) error {
	if full(cause) {
		return fmt.Errorf("%w: %w", store.ErrFull, cause)
	}
	return fmt.Errorf("%w: %w", store.ErrUnavailable, cause)
}

// probe finds out whether the disk takes writes.
func (e *engine) probe() error {
	if err := e.fs.MkdirAll(e.dir, 0o700); err != nil {
		return err
	}
	name := filepath.Join(e.dir, "probe")
	file, err := e.fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = file.Write(make([]byte, probeSize))
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close(), e.fs.Remove(name))
}

func (e *engine) merge(ctx context.Context, distribution string, updates []inventory.Update) error {
	head := prefix(kindEntry, distribution)
	var key, value []byte
	for chunk := range slices.Chunk(updates, mergeChunk) {
		err := e.use(ctx, true, func(db *pebble.DB) error {
			b := db.NewBatchWithSize(len(chunk) * 128)
			for i := range chunk {
				key = append(append(key[:0], head...), chunk[i].Path...)
				value = chunk[i].Record.Append(value[:0])
				if err := b.Merge(key, value, nil); err != nil {
					return errors.Join(err, b.Close())
				}
			}
			e.looks.RLock()
			err := db.ApplyNoSyncWait(b, pebble.Sync)
			e.looks.RUnlock()
			return synced(b, err)
		})
		if err != nil {
			return err
		}
	}
	return e.idle(ctx, len(updates))
}

// idle is the answer of a call that had nothing to do.
func (e *engine) idle(ctx context.Context, work int) error {
	if work > 0 {
		return nil
	}
	return e.use(ctx, false, func(*pebble.DB) error { return nil })
}

// synced waits until b, which was applied, is on disk.
func synced(b *pebble.Batch, err error) error {
	if err == nil {
		err = b.SyncWait()
	}
	return errors.Join(err, b.Close())
}

// scan calls yield for the live entries within r until it returns false, holding
// nothing while it does. It returns the path to go on from if it cannot go on.
func (e *engine) scan(ctx context.Context, distribution string, r store.Range, yield func(inventory.Entry) bool) (next string, err error) {
	head := prefix(kindEntry, distribution)
	opts := pebble.IterOptions{
		LowerBound: append(head, max(r.Prefix, r.From)...),
		UpperBound: after(append(head, r.Prefix...)),
	}
	var c chunk
	for limit := 64; ; limit = min(2*limit, scanChunk) {
		err := e.use(ctx, false, func(db *pebble.DB) error { return c.read(db, &opts, len(head), r.Now, limit) })
		if err != nil {
			return string(opts.LowerBound[len(head):]), err
		}
		for i := range c.entries {
			if i%64 == 0 && ctx.Err() != nil {
				return c.entries[i].Path, ctx.Err()
			}
			if !yield(c.entries[i]) {
				return "", nil
			}
		}
		if !c.more {
			return "", nil
		}
		// The first path beyond the last that was looked at.
		opts.LowerBound = append(append(opts.LowerBound[:0], c.last...), 0)
	}
}

// A chunk is what a scan reads in one go.
type chunk struct {
	entries []inventory.Entry
	last    []byte // the key looked at last
	more    bool
}

func (c *chunk) read(db *pebble.DB, opts *pebble.IterOptions, head int, now time.Time, limit int) error {
	c.entries, c.more = c.entries[:0], false
	if now.IsZero() || bytes.Compare(opts.LowerBound, opts.UpperBound) >= 0 {
		return nil
	}
	it, err := db.NewIter(opts)
	if err != nil {
		return err
	}
	var paths arena
	size, looked := 0, 0
	for valid := it.First(); valid; valid = it.Next() {
		key := it.Key()
		value, err := it.ValueAndErr()
		if err != nil {
			return errors.Join(err, it.Close())
		}
		var record inventory.Record
		if err := record.Decode(value); err != nil {
			return errors.Join(fmt.Errorf("path %q: %w", key[head:], err), it.Close())
		}
		if record.Live(now) {
			c.entries = append(c.entries, record.Entry(paths.add(key[head:])))
		}
		looked++
		if size += len(value) + len(key); len(c.entries) >= limit || size >= scanBytes || looked >= scanLook {
			c.last, c.more = append(c.last[:0], key...), true
			break
		}
	}
	return errors.Join(it.Error(), it.Close())
}

// An arena makes strings a few at a time. It is small, because who keeps one of
// them keeps its neighbours alive.
type arena struct{ free strings.Builder }

func (a *arena) add(b []byte) string {
	const size = 2 << 10
	if a.free.Cap()-a.free.Len() < len(b) {
		a.free = strings.Builder{}
		a.free.Grow(max(size, len(b)))
	}
	start := a.free.Len()
	a.free.Write(b)
	return a.free.String()[start:]
}

// remove removes the records of keys, in chunks, for which the condition of the
// same index holds.
func (e *engine) remove(ctx context.Context, keys [][]byte, holds func(i int, r *inventory.Record) bool) (removed int, _ error) {
	order := make([]int, len(keys))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return bytes.Compare(keys[a], keys[b]) })
	for chunk := range slices.Chunk(order, clearChunk) {
		n := 0
		err := e.use(ctx, true, func(db *pebble.DB) error {
			b := db.NewBatch()
			e.looks.Lock()
			err := func() (err error) {
				n, err = removeFrom(db, b, keys, chunk, holds)
				if err == nil && n > 0 {
					err = db.ApplyNoSyncWait(b, pebble.Sync)
				}
				return err
			}()
			e.looks.Unlock()
			if n == 0 || err != nil {
				return errors.Join(err, b.Close())
			}
			return synced(b, nil)
		})
		if err != nil {
			return removed, err
		}
		removed += n
	}
	return removed, e.idle(ctx, len(keys))
}

func removeFrom(db *pebble.DB, b *pebble.Batch, keys [][]byte, order []int, holds func(int, *inventory.Record) bool) (n int, _ error) {
	it, err := db.NewIter(&pebble.IterOptions{
		LowerBound: keys[order[0]], UpperBound: append(slices.Clip(keys[order[len(order)-1]]), 0),
	})
	if err != nil {
		return 0, err
	}
	var gone []byte
	for _, i := range order {
		key := keys[i]
		if gone != nil && bytes.Equal(key, gone) || !it.SeekGE(key) || !bytes.Equal(it.Key(), key) {
			continue
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return 0, errors.Join(err, it.Close())
		}
		var record inventory.Record
		if err := record.Decode(value); err != nil {
			return 0, errors.Join(err, it.Close())
		}
		if holds(i, &record) {
			if err := b.Delete(key, nil); err != nil {
				return 0, errors.Join(err, it.Close())
			}
			gone = key
			n++
		}
	}
	return n, errors.Join(it.Error(), it.Close())
}

func (e *engine) clear(ctx context.Context, distribution string, conditions []store.Condition) (int, error) {
	head := prefix(kindEntry, distribution)
	keys := make([][]byte, len(conditions))
	for i, c := range conditions {
		keys[i] = append(head, c.Path...)
	}
	return e.remove(ctx, keys, func(i int, r *inventory.Record) bool { return conditions[i].Holds(r) })
}

func (e *engine) sweep(ctx context.Context, distribution string, now time.Time) (swept int, _ error) {
	head := prefix(kindEntry, distribution)
	opts := pebble.IterOptions{LowerBound: head, UpperBound: after(head)}
	begun := time.Now()
	for more := true; more && (swept == 0 || time.Since(begun) < sweepTime); {
		var dead [][]byte
		err := e.use(ctx, false, func(db *pebble.DB) error {
			it, err := db.NewIter(&opts)
			if err != nil {
				return err
			}
			more = false
			looked := 0
			for valid := it.First(); valid; valid = it.Next() {
				value, err := it.ValueAndErr()
				if err != nil {
					return errors.Join(err, it.Close())
				}
				var record inventory.Record
				if err := record.Decode(value); err != nil {
					return errors.Join(err, it.Close())
				}
				if record.Dead(now) {
					dead = append(dead, bytes.Clone(it.Key()))
				}
				if looked++; looked >= scanLook {
					opts.LowerBound = append(bytes.Clone(it.Key()), 0)
					more = true
					break
				}
			}
			return errors.Join(it.Error(), it.Close())
		})
		if err != nil {
			return swept, err
		}
		if len(dead) == 0 {
			continue
		}
		n, err := e.remove(ctx, dead, func(_ int, r *inventory.Record) bool { return r.Dead(now) })
		if swept += n; err != nil {
			return swept, err
		}
	}
	return swept, nil
}

func (e *engine) list(ctx context.Context, distribution, begin, last string, limit int) (docs []store.Document, _ error) {
	head := prefix(kindDocument, distribution)
	lower := append(head, begin...)
	if last >= begin {
		lower = append(append(head, last...), 0)
	}
	upper := after(append(head, begin...))
	err := e.use(ctx, false, func(db *pebble.DB) error {
		if bytes.Compare(lower, upper) >= 0 {
			return nil
		}
		e.docs.RLock()
		defer e.docs.RUnlock()
		it, err := db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
		if err != nil {
			return err
		}
		for valid := it.First(); valid && (limit <= 0 || len(docs) < limit); valid = it.Next() {
			b, err := it.ValueAndErr()
			if err != nil {
				return errors.Join(err, it.Close())
			}
			key := string(it.Key()[len(head):])
			version, value, err := stored(key, b)
			if err != nil {
				return errors.Join(err, it.Close())
			}
			docs = append(docs, store.Document{Key: key, Value: bytes.Clone(value), Version: version})
		}
		return errors.Join(it.Error(), it.Close())
	})
	return docs, err
}

// commit applies t once, however often it is called with the same id.
func (e *engine) commit(ctx context.Context, distribution string, t store.Transaction, id transactionID) (version uint64, _ error) {
	head := prefix(kindDocument, distribution)
	counter := prefix(kindVersion, distribution)
	err := e.use(ctx, true, func(db *pebble.DB) error {
		e.docs.Lock()
		defer e.docs.Unlock()
		if done, ok := e.recent.versions[id]; ok {
			version = done
			return nil
		}
		for _, r := range t.Require {
			b, err := get(db, append(head, r.Key...))
			if err != nil {
				return err
			}
			var is uint64
			if b != nil {
				if is, _, err = stored(r.Key, b); err != nil {
					return err
				}
			}
			if is != r.Version {
				return store.ErrConflict
			}
		}
		latest, err := get(db, counter)
		if err != nil {
			return err
		}
		if len(latest) == 8 {
			version = binary.BigEndian.Uint64(latest)
		}
		version++
		b := db.NewBatch()
		err = b.Set(counter, binary.BigEndian.AppendUint64(nil, version), nil)
		for _, p := range t.Put {
			err = errors.Join(err, b.Set(append(head, p.Key...), append(binary.BigEndian.AppendUint64(nil, version), p.Value...), nil))
		}
		for _, key := range t.Delete {
			err = errors.Join(err, b.Delete(append(head, key...), nil))
		}
		if id != (transactionID{}) {
			err = errors.Join(err, e.recent.put(b, id, version))
		}
		if err == nil {
			err = db.ApplyNoSyncWait(b, pebble.Sync)
		}
		if err = synced(b, err); err == nil && id != (transactionID{}) {
			e.recent.add(id, version)
		}
		return err
	})
	return version, err
}

// recent remembers the latest transactions, for those who repeat one because its
// answer was lost.
type recent struct {
	versions map[transactionID]uint64
	ring     [recentKept]transactionID
	next     uint64 // the number of the next transaction
}

// put adds a transaction, as done, to what b writes.
func (r *recent) put(b *pebble.Batch, id transactionID, version uint64) error {
	key := func(n uint64) []byte { return binary.BigEndian.AppendUint64([]byte{kindRecent}, n) }
	err := b.Set(key(r.next), binary.BigEndian.AppendUint64(id[:], version), nil)
	if r.next >= recentKept {
		err = errors.Join(err, b.Delete(key(r.next-recentKept), nil))
	}
	return err
}

// add adds a transaction that was written.
func (r *recent) add(id transactionID, version uint64) {
	slot := &r.ring[r.next%recentKept]
	delete(r.versions, *slot)
	r.versions[id], *slot = version, id
	r.next++
}

// info returns the epoch, and why nothing can be written now, if so.
func (e *engine) info(ctx context.Context) (epoch string, readOnly error, _ error) {
	err := e.use(ctx, false, func(*pebble.DB) error {
		epoch, readOnly = e.epoch, e.cause
		return nil
	})
	return epoch, readOnly, err
}
