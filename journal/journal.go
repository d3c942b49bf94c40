// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package journal is the durable record of invalidations, their batches, the
// recorders' sessions and what they report, kept as documents in a store. It is
// also the purge history that late sightings are judged by.
//
// A [Journal] reads and writes; what follows from what was read is decided by
// pure functions beside it ([Coverage], [History], [Session.Lost]). All instants
// are store time. Every write that a dispatcher makes is conditional on its
// [Lease], so that one that slept over a takeover changes nothing.
//
// Documents of a distribution, by key:
//
//	head            the number of the last invalidation opened
//	inv/NUMBER      an invalidation
//	bat/NUMBER/N    a batch: one CreateInvalidation call
//	sel/HASH/N      a part of a large selector
//	fix/HASH/N      a part of a plan file that an invalidation is bound to
//	rep/NUMBER/…    what a recorder sighted from before the cut
//	new/NUMBER      a mark: reports came in that no dispatcher has read
//	ses/ID          a recorder's session
//	gap/ID          a stretch of time in which sightings may be missing
//	track           since when there have been recorders
//	lease           which dispatcher leads
//	windows         what CloudFront was seen to let be in progress
//	compacted       when what can no longer matter was last forgotten
//	epoch           which life of the store's data this was written in
//
// Beside them, under no distribution, account/NAME is what all distributions of
// an AWS account share.
package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

const (
	keyHead  = "head"
	keyTrack = "track"
	keyLease = "lease"
	dirLease = "lease/" // what only one holder has: a store that went back gives versions again

	keyWindows   = "windows"
	keyCompacted = "compacted"
	keyEpoch     = "epoch"

	dirInvalidations = "inv/"
	dirBatches       = "bat/"
	dirFixed         = "fix/"
	dirSelectors     = "sel/"
	dirReports       = "rep/"
	dirUnread        = "new/"
	dirSessions      = "ses/"
	dirGaps          = "gap/"
)

var (
	// ErrNotFound: no such invalidation.
	ErrNotFound = errors.New("journal: no such invalidation")
	// ErrLeaseLost: another dispatcher leads this distribution, or did since the
	// caller last renewed. Nothing was written.
	ErrLeaseLost = errors.New("journal: another dispatcher leads this distribution")
)

// A State says how far an invalidation is.
type State string

// The states, in the order of an invalidation's life; the last four are ends.
const (
	Sending     State = "sending"     // settling, planning or being sent
	Propagating State = "propagating" // all accepted, not all Completed
	Sweeping    State = "sweeping"    // waiting for recorders, following up stragglers
	Completed   State = "completed"
	Partial     State = "partial" // done, but something was uncovered or refused
	Cancelled   State = "cancelled"
	Failed      State = "failed" // stopped by an error that waiting does not mend
)

// Error codes of invalidations that a guard stopped before anything was sent, or
// that cannot be read.
const (
	CodePriceGuard = "price-guard"
	// CodeBudget: it would have cost more than is left of the month's budget.
	CodeBudget = "budget"
	// CodeOverBudget: no plan keeps within the collateral, items or wildcards that
	// were asked for.
	CodeOverBudget = "over-budget"
	// CodePlanDiffers: its plan file no longer fits the inventory.
	CodePlanDiffers = "plan-differs"
	// CodeUnreadable: the selector is of a newer version, or damaged.
	CodeUnreadable = "unreadable"
)

// Guard reports whether an error code is that of a guard: going on would send what
// somebody set a limit against.
func Guard(code string) bool {
	switch code {
	case CodePriceGuard, CodeBudget, CodeOverBudget, CodePlanDiffers:
		return true
	}
	return false
}

// Stopped reports whether a guard stopped it.
func (inv *Invalidation) Stopped() bool { return inv.State == Failed && Guard(inv.ErrorCode) }

// Ended reports whether nothing more happens by itself.
func (s State) Ended() bool {
	return s == Completed || s == Partial || s == Cancelled || s == Failed
}

// An Invalidation is a plan being carried out.
type Invalidation struct {
	ID           string            `json:"id"`
	Number       uint64            `json:"number"`
	Distribution string            `json:"distribution"`
	Selector     selector.Selector `json:"selector"`
	// Large: the selector stands elsewhere, and [Journal.Load] reads it.
	Large *LargeSelector `json:"large_selector,omitempty"`
	// Cut: content older than this is stale.
	Cut    time.Time `json:"cut"`
	Opened time.Time `json:"opened"`
	Reason string    `json:"reason,omitempty"`
	// By names the process and person that opened it.
	By      string  `json:"by,omitempty"`
	Options Options `json:"options"`
	// Fixed: exactly the items of a plan file are sent.
	Fixed *FixedPlan `json:"fixed,omitempty"`
	State State      `json:"state"`
	// Planned is set once the items are known.
	Planned *Planned `json:"planned,omitempty"`
	// Sent: every planned item stands in an answered batch.
	Sent bool `json:"sent,omitempty"`
	// Batches counts the batches saved so far; the next one has this number.
	Batches int `json:"batches"`
	// FollowUps counts the items sent for stragglers.
	FollowUps int `json:"follow_ups"`
	// Saved is what needed not be sent, since other invalidations sent it.
	Saved Saving `json:"saved,omitzero"`
	// Repeat is when the items go out once more; zero if they do not, or until
	// everything else is done.
	Repeat time.Time `json:"repeat,omitzero"`
	// Refused are items that CloudFront did not take.
	Refused []Refusal `json:"refused,omitempty"`
	// NotFollowed says why completion could not be watched.
	NotFollowed string `json:"not_followed,omitempty"`
	// Cancel asks the dispatcher to stop.
	Cancel bool `json:"cancel,omitempty"`
	// Error is what ended it as Failed.
	Error     string    `json:"error,omitempty"`
	ErrorCode string    `json:"error_code,omitempty"`
	Ended     time.Time `json:"ended,omitzero"`
	// Compacted is set once batches of it were forgotten.
	Compacted *Summary `json:"compacted,omitempty"`

	version    uint64
	raw        json.RawMessage // the selector, where it cannot be read
	unreadable error
}

// Compile compiles the selector. One that cannot be read is an error: whoever
// judges sightings must take it to select everything.
func (inv *Invalidation) Compile() (*selector.Compiled, error) {
	if inv.unreadable != nil {
		return nil, fmt.Errorf("journal: the selector of %s cannot be read, it is damaged or of a newer version: %w", inv.ID, inv.unreadable)
	}
	return inv.Selector.Compile()
}

// UnmarshalJSON implements [json.Unmarshaler]. A selector that cannot be decoded
// stands in the way of [Invalidation.Compile] alone: one invalidation must not hide
// the others.
func (inv *Invalidation) UnmarshalJSON(data []byte) error {
	type plain Invalidation
	if json.Unmarshal(data, (*plain)(inv)) == nil {
		if inv.Large != nil {
			inv.unreadable = errNotLoaded
		}
		return nil
	}
	// Once more, with what may be at fault set apart.
	*inv = Invalidation{}
	d := struct {
		*plain
		Selector json.RawMessage `json:"selector"`
	}{plain: (*plain)(inv)}
	if err := json.Unmarshal(data, &d); err != nil || d.Selector == nil {
		return err
	}
	if inv.unreadable = json.Unmarshal(d.Selector, &inv.Selector); inv.unreadable != nil {
		inv.Selector, inv.raw = selector.Selector{}, d.Selector
	}
	return nil
}

// MarshalJSON implements [json.Marshaler]; it keeps a selector that could not be
// read, and leaves out one that stands elsewhere.
func (inv *Invalidation) MarshalJSON() ([]byte, error) {
	type plain Invalidation
	raw := inv.raw
	if inv.Large != nil {
		raw = json.RawMessage("{}")
	}
	if raw == nil {
		return json.Marshal((*plain)(inv))
	}
	return json.Marshal(struct {
		*plain
		Selector json.RawMessage `json:"selector"`
	}{(*plain)(inv), raw})
}

// Follows reports whether inv, read after was, is the same invalidation in the same or
// a later state. It is not if the store has lost data in between.
func (inv *Invalidation) Follows(was *Invalidation) bool {
	return inv.ID == was.ID && inv.version >= was.version
}

// Options are the choices an invalidation was opened with; they do not change.
type Options struct {
	Planning
	Settle       time.Duration `json:"settle"`
	Margin       time.Duration `json:"margin"`
	SweepTimeout time.Duration `json:"sweep_timeout"`
	// MaxPrice in dollars; nothing is sent if the plan costs more. Negative: no limit.
	MaxPrice float64 `json:"max_price"`
	// FreePaths left this month; negative: as far as the journal knows.
	FreePaths int `json:"free_paths"`
	// EntriesPerMinute is how many entries may be invalidated a minute; 0: no limit.
	EntriesPerMinute int `json:"entries_per_minute,omitempty"`
	// RepeatAfter is how long after completion the items go out once more; 0: never.
	RepeatAfter time.Duration `json:"repeat_after,omitempty"`
}

// A Saving is what an invalidation did not send, since batches of others that were
// under way did: entries, at least so many items, and what these would have cost.
type Saving struct {
	Entries int     `json:"entries"`
	Items   int     `json:"items"`
	Price   float64 `json:"price"`
}

// Planning are the options that decide which items a plan has. A plan file has
// them too.
type Planning struct {
	Exact          bool `json:"exact,omitempty"`
	OnlySeen       bool `json:"only_seen,omitempty"`
	AssumeComplete bool `json:"assume_complete,omitempty"`
	Batch          int  `json:"batch,omitempty"`
	// NativeTags: "#tag" is an item of the distribution.
	NativeTags bool `json:"native_tags,omitempty"`
	// MaxCollateral is "12" entries or "2.5%" of those selected; empty: none, or any
	// number with MaxItems.
	MaxCollateral string `json:"max_collateral,omitempty"`
	MaxItems      *int   `json:"max_items,omitempty"`
	MaxWildcards  *int   `json:"max_wildcards,omitempty"`
}

// Limited tells whether collateral, items or wildcards are bounded by choice.
func (p *Planning) Limited() bool {
	return p.MaxCollateral != "" || p.MaxItems != nil || p.MaxWildcards != nil
}

// Planned is what a plan came to when it was made for sending.
type Planned struct {
	At       time.Time `json:"at"`
	Items    int       `json:"items"`
	Selected int       `json:"selected"`
	Entries  int       `json:"entries"`
	Price    float64   `json:"price"`
	// FreePaths is how many paths were taken as free.
	FreePaths int `json:"free_paths"`
	// Dropped are items that needed not be sent in the end.
	Dropped   int       `json:"dropped,omitempty"`
	Uncovered []Refusal `json:"uncovered,omitempty"`
}

// A Refusal is something that was not or could not be sent.
type Refusal struct {
	Item   string `json:"item"`
	Reason string `json:"reason"`
	Remedy string `json:"remedy,omitempty"`
}

// A BatchState says what is known of a batch.
type BatchState string

// The states of a batch. A saved one may or may not have reached CloudFront.
const (
	Saved        BatchState = "saved"
	Accepted     BatchState = "accepted"
	BatchDone    BatchState = "completed"
	BatchRefused BatchState = "refused" // answered with an error that CloudFront must repeat
)

// A Batch is one CreateInvalidation call. From the moment it is saved, its
// number, reference, items and Sent never change.
type Batch struct {
	Number    int       `json:"number"`
	Reference string    `json:"reference"`
	Items     []string  `json:"items"`
	Sent      time.Time `json:"sent"`
	FollowUp  bool      `json:"follow_up,omitempty"`
	Repeat    bool      `json:"repeat,omitempty"` // once more, as --repeat-after asks
	// Collateral is how many entries that nobody selected its looked-up items reached
	// when they were planned.
	Collateral int `json:"collateral,omitempty"`

	State          BatchState `json:"state"`
	InvalidationID string     `json:"invalidation_id,omitempty"`
	Accepted       time.Time  `json:"accepted,omitzero"`
	Completed      time.Time  `json:"completed,omitzero"`
	Error          string     `json:"error,omitempty"`
	// Idle: whoever made calls of it got an answer to each, and has let go of it. It
	// must be taken back before the next call is made.
	Idle bool `json:"idle,omitempty"`
	// Forgotten: what its items confirmedly cover was cleared.
	Forgotten bool `json:"forgotten,omitempty"`

	inv     uint64
	version uint64
}

// Invalidation returns the number of the invalidation that it belongs to.
func (b *Batch) Invalidation() uint64 { return b.inv }

// What the reference of a batch says beside its number, so that one that the store has
// lost can be told when CloudFront still has it.
const (
	markFollowUp = "follow-up"
	markRepeat   = "again"
)

// reference names a batch of the invalidation for CloudFront.
func (inv *Invalidation) reference(b *Batch, random string) string {
	parts := []string{"cftrack", inv.ID, strconv.Itoa(b.Number)}
	switch {
	case b.Repeat:
		parts = append(parts, markRepeat)
	case b.FollowUp:
		parts = append(parts, markFollowUp)
	}
	return strings.Join(append(parts, random), "/")
}

// Found returns the batch of a reference, with what that says of it: number, FollowUp
// and Repeat. It reports false where the reference is not one of the invalidation.
func (inv *Invalidation) Found(reference string) (*Batch, bool) {
	rest, ok := strings.CutPrefix(reference, "cftrack/"+inv.ID+"/")
	if !ok {
		return nil, false
	}
	text, rest, _ := strings.Cut(rest, "/")
	n, err := strconv.Atoi(text)
	if err != nil {
		return nil, false
	}
	b := &Batch{Number: n, Reference: reference, inv: inv.Number}
	mark, _, marked := strings.Cut(rest, "/")
	b.Repeat, b.FollowUp = marked && mark == markRepeat, marked && mark == markFollowUp
	return b, true
}

// Answered reports whether CloudFront's answer is known.
func (b *Batch) Answered() bool { return b.State != Saved }

// Purged reports whether CloudFront accepted it.
func (b *Batch) Purged() bool { return b.State == Accepted || b.State == BatchDone }

// A Journal reads and writes the documents of one distribution. It is safe for
// concurrent use, and holds nothing that changes in the store.
type Journal struct {
	store store.Store
	dist  string

	mu    sync.Mutex
	large map[string]selector.Selector // some large selectors, by hash; they never change
}

// Open returns the journal of a distribution in st. It does no I/O.
func Open(st store.Store, distribution string) *Journal {
	return &Journal{store: st, dist: distribution}
}

// Distribution returns the distribution whose journal this is.
func (j *Journal) Distribution() string { return j.dist }

// Store returns the store that the journal is kept in.
func (j *Journal) Store() store.Store { return j.store }

type head struct {
	Number uint64 `json:"number"`
}

func number(n uint64) string { return fmt.Sprintf("%016x", n) }

// Create opens an invalidation: from its return on, every recorder that reads
// the journal sees it. It fills ID, Number, Opened and State; now is store time
// and random distinguishes journals that lost data.
func (j *Journal) Create(ctx context.Context, inv *Invalidation, now time.Time, random string) error {
	for {
		err := j.create(ctx, inv, now, random, nil)
		if !errors.Is(err, store.ErrConflict) { // else somebody opened one meanwhile
			return err
		}
	}
}

// create is one attempt at Create, under further requirements.
func (j *Journal) create(ctx context.Context, inv *Invalidation, now time.Time, random string, require []store.Requirement) error {
	var h head
	hv, err := j.get(ctx, keyHead, &h)
	if err != nil {
		return err
	}
	inv.Number = h.Number + 1
	inv.ID = fmt.Sprintf("inv-%d-%s", inv.Number, random)
	inv.Distribution = j.dist
	inv.Opened, inv.State = now, Sending
	if parts := inv.setLarge(); parts != nil {
		more, err := writeParts(ctx, j, parts, inv.Large.key)
		if err != nil {
			return err
		}
		require = append(require, more...)
	}
	v, err := j.commit(ctx, append(require, store.Requirement{Key: keyHead, Version: hv}),
		put(keyHead, head{inv.Number}), put(dirInvalidations+number(inv.Number), inv))
	if err == nil {
		inv.version = v
	}
	return err
}

// Invalidations returns the invalidations opened after number after, oldest first.
func (j *Journal) Invalidations(ctx context.Context, after uint64) ([]*Invalidation, error) {
	var out []*Invalidation
	from := ""
	if after > 0 {
		from = dirInvalidations + number(after)
	}
	err := each(ctx, j, dirInvalidations, from, func(inv *Invalidation, v uint64, _ string) {
		inv.version = v
		out = append(out, inv)
	})
	return out, err
}

// Invalidation returns the one with that ID or number.
func (j *Journal) Invalidation(ctx context.Context, id string) (*Invalidation, error) {
	n, err := parseID(id)
	if err != nil {
		return nil, err
	}
	inv := new(Invalidation)
	inv.version, err = j.get(ctx, dirInvalidations+number(n), inv)
	if err != nil {
		return nil, err
	}
	if inv.version == 0 || strings.HasPrefix(id, "inv-") && inv.ID != id {
		return nil, fmt.Errorf("%w: %q in distribution %s; cftrack status lists what there is", ErrNotFound, id, j.dist)
	}
	return inv, nil
}

// parseID reads the number out of "inv-NUMBER-RANDOM" or "NUMBER".
func parseID(id string) (uint64, error) {
	s := strings.TrimPrefix(id, "inv-")
	if i := strings.IndexByte(s, '-'); i >= 0 {
		s = s[:i]
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%w: %q is not an ID; they look like inv-12-k3f9", ErrNotFound, id)
	}
	return n, nil
}

// Numbered returns the invalidation of that number.
func (j *Journal) Numbered(ctx context.Context, n uint64) (*Invalidation, error) {
	return j.Invalidation(ctx, strconv.FormatUint(n, 10))
}

// Last returns the number of the newest invalidation; 0 if there is none.
func (j *Journal) Last(ctx context.Context) (uint64, error) {
	var h head
	_, err := j.get(ctx, keyHead, &h)
	return h.Number, err
}

// Batches returns the batches of invalidation n in order of their numbers; n 0
// means those of all invalidations.
func (j *Journal) Batches(ctx context.Context, n uint64) ([]*Batch, error) {
	var out []*Batch
	dir := dirBatches
	if n != 0 {
		dir += number(n) + "/"
	}
	err := each(ctx, j, dir, "", func(b *Batch, v uint64, key string) {
		b.version = v
		hex, _, _ := strings.Cut(key[len(dirBatches):], "/")
		b.inv, _ = strconv.ParseUint(hex, 16, 64) // a key we wrote
		out = append(out, b)
	})
	return out, err
}

// RequestCancel marks an invalidation to be stopped by whoever dispatches it.
func (j *Journal) RequestCancel(ctx context.Context, id string) (*Invalidation, error) {
	return j.change(ctx, id, func(inv *Invalidation) bool {
		if inv.State.Ended() || inv.Cancel {
			return false
		}
		inv.Cancel = true
		return true
	})
}

// Reopen lets an invalidation that failed, or could not be followed, go on where
// it was. One that is over otherwise stays so, and so does one that a guard
// stopped: a new one with another limit is a new decision.
func (j *Journal) Reopen(ctx context.Context, id string) (*Invalidation, error) {
	return j.change(ctx, id, func(inv *Invalidation) bool {
		switch {
		case inv.State == Failed && !inv.Stopped():
			inv.State, inv.Error, inv.ErrorCode, inv.Ended = Sending, "", "", time.Time{}
		case inv.NotFollowed == "" || inv.State.Ended():
			return false
		}
		inv.NotFollowed = ""
		return true
	})
}

// change edits an invalidation until the edit is written or not wanted.
func (j *Journal) change(ctx context.Context, id string, edit func(*Invalidation) bool) (*Invalidation, error) {
	for {
		inv, err := j.Invalidation(ctx, id)
		if err != nil || !edit(inv) {
			return inv, err
		}
		key := dirInvalidations + number(inv.Number)
		inv.version, err = j.commit(ctx, []store.Requirement{{Key: key, Version: inv.version}}, put(key, inv))
		if !errors.Is(err, store.ErrConflict) {
			return inv, err
		}
	}
}

// put encodes a document; the types here always can be.
func put(key string, v any) store.Put {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("journal: %T cannot be encoded: %v", v, err))
	}
	return store.Put{Key: key, Value: b}
}

func (j *Journal) commit(ctx context.Context, require []store.Requirement, puts ...store.Put) (uint64, error) {
	return j.store.Commit(ctx, j.dist, store.Transaction{Require: require, Put: puts})
}

// get decodes the document of key into v and returns its version; 0, leaving v
// alone, if there is none.
func (j *Journal) get(ctx context.Context, key string, v any) (uint64, error) {
	docs, err := j.store.List(ctx, j.dist, key, "", 1)
	if err != nil || len(docs) == 0 || docs[0].Key != key {
		return 0, err
	}
	return docs[0].Version, decode(docs[0], v)
}

func decode(d store.Document, v any) error {
	unmarshal := func() error { return json.Unmarshal(d.Value, v) }
	if u, ok := v.(json.Unmarshaler); ok { // which reads it all itself: once is enough
		unmarshal = func() error { return u.UnmarshalJSON(d.Value) }
	}
	if err := unmarshal(); err != nil {
		return fmt.Errorf("journal: document %s is damaged or of a newer version: %w", d.Key, err)
	}
	return nil
}

// each decodes the documents below dir in order of key, a page at a time.
func each[T any](ctx context.Context, j *Journal, dir, after string, f func(*T, uint64, string)) error {
	const page = 256
	for {
		docs, err := j.store.List(ctx, j.dist, dir, after, page)
		if err != nil {
			return err
		}
		for _, d := range docs {
			v := new(T)
			if err := decode(d, v); err != nil {
				return err
			}
			f(v, d.Version, d.Key)
		}
		if len(docs) < page {
			return nil
		}
		after = docs[len(docs)-1].Key
	}
}
