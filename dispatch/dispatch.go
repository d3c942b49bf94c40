// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package dispatch plans invalidations over an inventory and carries them out:
// opened in the journal, settled, saved before they are sent, sent again under
// the same reference until CloudFront answers, followed until every edge has
// processed them, and swept for what passed by meanwhile.
//
// A [Dispatcher] owns no goroutine: [Dispatcher.Drive] works in the caller's
// until the invalidation is done, and several may drive at once, in any number
// of processes. One of them at a time leads, by the journal's lease.
package dispatch

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
	"github.com/cf-invalidation-tracker/cftrack/plan"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/storetime"
)

// The defaults of a request.
const (
	DefaultSettle       = 3 * time.Second
	DefaultSweepTimeout = 10 * time.Minute
	DefaultBatch        = 1000

	maxBatch = 3000 // what CloudFront takes in a request
)

// MonthlyFreePaths is how many paths a month CloudFront does not charge, over
// all distributions of an account.
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/PayingForInvalidation.html
const MonthlyFreePaths = 1000

// Options configures a Dispatcher. The zero value works.
type Options struct {
	// Rules decide lifetimes and which queries are part of a path; nil means
	// CloudFront's defaults.
	Rules *lifetime.Rules
	// Scope is what the recorders see; empty means what their sessions state.
	Scope []string
	// Limits of CloudFront; the zero value means the documented ones. It begins
	// with them, and believes CloudFront's answers.
	Limits plan.Limits
	// Account names the AWS account, whose rates all dispatchers on the store share,
	// whatever their distribution. Default "default".
	Account string
	// Budget in dollars is what the account may spend on invalidations in a
	// calendar month (UTC), as far as this store knows. nil: no limit.
	Budget *float64
	// Holder names this dispatcher in the journal; empty means a random name.
	Holder string
	// FirstLook is how long after an answer CloudFront is first asked whether an
	// invalidation is complete. Default 3 s; later looks come every 2 s, and
	// more slowly after a minute.
	FirstLook time.Duration
	// GiveUp is how long CloudFront may leave calls without a useful answer
	// before Drive returns [ErrUndone]. Default 10 min.
	GiveUp time.Duration
	// Logger receives what happens; nil discards.
	Logger *slog.Logger
	// Random returns a short random word for names; nil means crypto/rand.
	Random func() string
}

// A Dispatcher plans and sends the invalidations of one distribution.
type Dispatcher struct {
	journal *journal.Journal
	cdn     CDN
	opts    Options
	clock   storetime.Clock
	purse   purse

	mu  sync.Mutex
	own map[string]bool // invalidations opened here and not yet driven
}

// New returns a dispatcher over the inventory and journal in st. It does no I/O.
// cdn may be nil for planning only.
func New(st store.Store, distribution string, cdn CDN, opts *Options) *Dispatcher {
	d := &Dispatcher{journal: journal.Open(st, distribution), cdn: cdn, purse: purse{turn: make(chan struct{}, 1)}}
	if opts != nil {
		d.opts = *opts
	}
	if d.opts.Rules == nil {
		r := lifetime.DefaultRules()
		d.opts.Rules = &r
	}
	if d.opts.Random == nil {
		d.opts.Random = randomWord
	}
	if d.opts.Holder == "" {
		d.opts.Holder = d.opts.Random()
	}
	if d.opts.FirstLook <= 0 {
		d.opts.FirstLook = 3 * time.Second
	}
	if d.opts.GiveUp <= 0 {
		d.opts.GiveUp = 10 * time.Minute
	}
	if d.opts.Account == "" {
		d.opts.Account = "default"
	}
	d.opts.Limits = d.opts.Limits.WithDefaults()
	if d.opts.Logger == nil {
		d.opts.Logger = slog.New(slog.DiscardHandler)
	}
	return d
}

// randomWord returns ten letters and digits that people can read aloud.
func randomWord() string {
	var b [6]byte
	rand.Read(b[:]) // never fails
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}

// Journal returns the journal that the dispatcher works on.
func (d *Dispatcher) Journal() *journal.Journal { return d.journal }

// A Request says what to invalidate and how. The zero value of every field but
// Selector is the default.
type Request struct {
	Selector selector.Selector
	Reason   string
	By       string

	Exact          bool // every selected entry verbatim, by itself
	OnlySeen       bool // leave out what was named but never sighted
	AssumeComplete bool // the caller vouches for the inventory being complete
	NativeTags     bool // the distribution has cache tags of its own
	// The budgets of plan.Options. Where no plan keeps to them, nothing is sent.
	MaxCollateral          *plan.Budget
	MaxItems, MaxWildcards *int
	// Explain, Compare and Twins are for Plan alone. Twins are templates of what may
	// be fetched beside a page: what of it was sighted and is not selected is pointed out.
	Explain      []string
	Compare      bool
	Twins        []string
	Now          bool // no settling
	Batch        int  // items a request; default 1,000
	Settle       time.Duration
	Margin       time.Duration
	SweepTimeout time.Duration
	// MaxPrice in dollars: a plan that costs more is not sent. nil: no limit.
	MaxPrice *float64
	// FreePaths left this month; nil: 1,000 less what this store knows of.
	FreePaths *int
	// EntriesPerMinute is how many entries may be invalidated a minute, so that a
	// purge is no stampede to the origin; 0: no limit.
	EntriesPerMinute int
	// RepeatAfter is how long after everything has completed the same items go out
	// once more; 0: never. It is for who must be sure against CloudFront's tiers
	// refilling each other with what is purged.
	RepeatAfter time.Duration
	// Plan is a plan file, of which exactly the items are sent, or nothing. What it
	// says counts in place of the Selector and of all that decides which items there are.
	Plan *PlanFile
}

// options returns the choices of the request, with what its plan file says.
func (r *Request) options() (journal.Options, error) {
	if f := r.Plan; f != nil {
		r.Selector = f.Selector
	}
	o := journal.Options{
		Planning: r.Planning(), Settle: r.Settle, Margin: r.Margin, SweepTimeout: r.SweepTimeout,
		MaxPrice: -1, FreePaths: -1, EntriesPerMinute: r.EntriesPerMinute, RepeatAfter: r.RepeatAfter,
	}
	switch {
	case o.EntriesPerMinute < 0:
		return o, fmt.Errorf("dispatch: %d entries a minute: give a number, or 0 for no limit", o.EntriesPerMinute)
	case o.RepeatAfter < 0:
		return o, fmt.Errorf("dispatch: repeat after %v: give how long after completion, or 0 for never", o.RepeatAfter)
	}
	if o.Batch < 0 || o.Batch > maxBatch {
		return o, fmt.Errorf("dispatch: a batch of %d items: CloudFront takes 1 to 3,000 in a request", o.Batch)
	}
	if p := r.MaxPrice; p != nil {
		if !(*p >= 0) {
			return o, fmt.Errorf("dispatch: a price limit of %v: give dollars, 0 or more", *p)
		}
		o.MaxPrice = *p
	}
	if o.Batch == 0 {
		o.Batch = DefaultBatch
	}
	if o.Margin <= 0 {
		o.Margin = lifetime.DefaultMargin
	}
	if o.SweepTimeout <= 0 {
		o.SweepTimeout = DefaultSweepTimeout
	}
	switch {
	case r.Now:
		o.Settle = 0
	case o.Settle <= 0:
		o.Settle = DefaultSettle
	}
	if r.FreePaths != nil {
		o.FreePaths = max(0, *r.FreePaths)
	}
	return o, nil
}

// A Preview is a plan and what it rests on.
type Preview struct {
	*plan.Plan
	Cut      time.Time
	Coverage journal.Coverage
	// Young: the newest sighting among the selected ended at this instant.
	Young time.Time
	// FreePaths is how many paths were taken as free.
	FreePaths int
	// Review compares the plan file with the inventory; nil where there is no file.
	Review *Review
	// Saved is what batches that are under way make unnecessary to send.
	Saved journal.Saving
	// FollowUps are what is likely to be sent again for responses that are under way.
	FollowUps Likely
	// Repeats: everything is sent twice.
	Repeats bool
	// Twins are entries that are fetched beside what is selected, and are not.
	Twins Sample

	beside *selector.Compiled // selects the twins too

	sentThisMonth int
}

// Likely is what an invalidation will probably come to beyond its plan.
type Likely struct {
	Share float64 `json:"share"` // items a planned item
	Items int     `json:"items"`
	Price float64 `json:"price"`
	// Known: it rests on the journal, and not on an assumption.
	Known bool `json:"known"`
}

// Sends is how many items the plan sends in all, follow-ups apart.
func (p *Preview) Sends() int {
	if p.Repeats {
		return 2 * p.Totals.Items
	}
	return p.Totals.Items
}

// Price is what the plan costs in dollars, at most, follow-ups apart.
func (p *Preview) Price() float64 { return plan.PriceModel{FreePaths: p.FreePaths}.Of(p.Sends()) }

// Plan computes what would be sent now, and sends nothing. With a plan file that is
// the file's items, and the preview's Review says whether they may be.
func (d *Dispatcher) Plan(ctx context.Context, r Request) (*Preview, error) {
	o, err := r.options()
	if err != nil {
		return nil, err
	}
	now, err := d.now(ctx)
	if err != nil {
		return nil, err
	}
	if r.Plan != nil {
		if err := d.fits(r.Plan); err != nil {
			return nil, err
		}
		p, _, err := d.review(ctx, r.Selector, o, r.Plan.fixed(), r.Plan.made(), now, now, nil)
		return p, err
	}
	return d.plan(ctx, r.Selector, o, now, now, nil, func(p *Preview, po *plan.Options) error {
		po.Explain, po.Compare = r.Explain, r.Compare
		return p.lookForTwins(r.Selector, r.Twins)
	})
}

// preview is what a plan rests on, whatever it will send.
func (d *Dispatcher) preview(ctx context.Context, o journal.Options, cut, now time.Time) (*Preview, journal.Knowledge, error) {
	k, err := d.journal.Know(ctx)
	if err != nil {
		return nil, k, err
	}
	p := &Preview{Cut: cut, FreePaths: o.FreePaths, Repeats: o.RepeatAfter > 0,
		Coverage: journal.ComputeCoverage(k, now, d.opts.Rules.Longest())}
	if p.sentThisMonth, err = d.sentThisMonth(ctx, k.Batches, now); err != nil {
		return nil, k, err
	}
	if p.FreePaths < 0 {
		p.FreePaths = max(0, MonthlyFreePaths-p.sentThisMonth)
	}
	return p, k, nil
}

// plan computes the plan for a cut at now. skip leaves selected entries out that
// are taken care of; edit may change how it is planned.
func (d *Dispatcher) plan(ctx context.Context, s selector.Selector, o journal.Options, cut, now time.Time,
	skip func(*inventory.Entry) bool, edit func(*Preview, *plan.Options) error) (*Preview, error) {
	c, err := s.Compile()
	if err != nil {
		return nil, err
	}
	p, k, err := d.preview(ctx, o, cut, now)
	if err != nil {
		return nil, err
	}
	po := plan.Options{
		Named: c.Named(), OnlySeen: o.OnlySeen, Exact: o.Exact,
		Wildcards: o.AssumeComplete || p.Coverage.Complete,
		Scope:     d.scope(p.Coverage), Doubtful: d.opts.Rules.QueryInDoubt,
		Price: plan.PriceModel{FreePaths: p.FreePaths}, Limits: d.opts.Limits,
		RootObject: s.RootObject,
	}
	if err := setBudgets(&po, o); err != nil {
		return nil, err
	}
	if err := edit(p, &po); err != nil {
		return nil, err
	}
	underWay := 0
	without := skip
	if p.Coverage.Complete && o.RepeatAfter == 0 { // what goes out twice goes out here
		without = d.skipUnderWay(k.Batches, o.Margin+d.clock.Skew(), skip, &underWay)
	}
	p.Plan, err = plan.Compute(d.inputs(ctx, c, cut, now, without, p), po)
	if err == nil && underWay > 0 {
		p.Saved.Entries = underWay
		all, err := plan.Compute(d.inputs(ctx, c, cut, now, skip, p), po)
		if err != nil {
			return nil, err
		}
		p.Saved.Items = max(0, all.Totals.Items-p.Totals.Items)
		p.Saved.Price = max(0, all.Totals.Price-p.Totals.Price)
	}
	if err == nil {
		p.FollowUps = likely(k.Invalidations, p.Totals.Items, plan.PriceModel{FreePaths: p.FreePaths - p.Sends()})
	}
	if err == nil && !o.OnlySeen && !o.AssumeComplete && !p.Coverage.Complete {
		p.unsendable(c)
	}
	if err == nil {
		p.warnOfGaps()
		p.warnOfTwins()
		d.warnOfBudget(p)
	}
	return p, err
}

// unsendable adds to what is uncovered what the user named, nobody sighted, and
// CloudFront does not take by that name: it may be cached all the same.
func (p *Preview) unsendable(c *selector.Compiled) {
	names := c.Unsendable()
	if len(names) == 0 {
		return
	}
	added := 0
	known := make(map[string]bool, len(p.Uncovered))
	for i := range p.Uncovered {
		known[p.Uncovered[i].Path] = true
	}
	reached := plan.ReachOf(p.Items)
	for _, name := range names {
		path := strings.TrimSuffix(name, "*")
		if known[path] || reached.Matches(path) {
			continue
		}
		u := plan.Uncovered{Path: name, Reason: cfpath.ReasonRefused}
		if _, err := cfpath.Name(path); err != nil {
			if t, ok := errors.AsType[*cfpath.Unnameable](err); ok {
				u.Reason = t.Reason
			}
		}
		if stem, ok := cfpath.TightestStem(path); ok {
			u.Remedy = stem + "*"
		}
		p.Uncovered = append(p.Uncovered, u)
		added++
	}
	if added == 0 {
		return
	}
	p.Totals.Uncovered += added
	p.Warnings = slices.DeleteFunc(p.Warnings, func(w plan.Warning) bool { return w.Code == plan.WarnNothing })
	p.Warnings = append(p.Warnings, plan.Warning{Code: plan.WarnUncovered, Message: fmt.Sprintf(
		"%d of what was named cannot be sent by that name and was never sighted; a wildcard that ends before the trouble covers it",
		added)})
}

// inputs yields the whole inventory, marked by what the selector selects.
func (d *Dispatcher) inputs(ctx context.Context, c *selector.Compiled, cut, now time.Time,
	skip func(*inventory.Entry) bool, p *Preview) iter.Seq2[plan.Input, error] {
	return func(yield func(plan.Input, error) bool) {
		p.Twins = Sample{First: []string{}} // it may be ranged over more than once
		for e, err := range d.entries(ctx, now) {
			if err != nil {
				yield(plan.Input{}, err)
				return
			}
			in := plan.Input{Entry: e, Selected: c.Selects(e, cut)}
			in.Named = in.Selected && e.Folded && c.Names(e)
			if in.Selected && e.Last.After(p.Young) {
				p.Young = e.Last
			}
			if in.Selected && skip != nil && skip(e) {
				continue
			}
			if !in.Selected && p.beside != nil && p.beside.Selects(e, cut) {
				p.Twins.add(e.Path)
			}
			if !yield(in, nil) {
				return
			}
		}
	}
}

// entries yields the whole inventory, each entry until the next is asked for: they are
// millions, and the same memory does for all.
func (d *Dispatcher) entries(ctx context.Context, now time.Time) iter.Seq2[*inventory.Entry, error] {
	return func(yield func(*inventory.Entry, error) bool) {
		var one inventory.Entry
		for e, err := range d.journal.Store().Scan(ctx, d.journal.Distribution(), store.Range{Now: now}) {
			if one = e; !yield(&one, err) {
				return
			}
		}
	}
}

// Open writes an invalidation to the journal, where recorders see it from then
// on: its cut is the instant of the call. Nothing is sent before [Dispatcher.Drive].
// A plan file is compared with the inventory when it is sent, not here.
func (d *Dispatcher) Open(ctx context.Context, r Request) (*journal.Invalidation, error) {
	o, err := r.options()
	if err != nil {
		return nil, err
	}
	if r.Selector.Empty() {
		return nil, errors.New("dispatch: the selector is empty: name what to invalidate")
	}
	if _, err := r.Selector.Compile(); err != nil {
		return nil, err
	}
	now, err := d.now(ctx)
	if err != nil {
		return nil, err
	}
	inv := &journal.Invalidation{Selector: r.Selector, Cut: now, Reason: r.Reason, By: r.By, Options: o}
	if r.Plan != nil {
		if err := d.fits(r.Plan); err != nil {
			return nil, err
		}
		inv.Fixed = r.Plan.made()
		err = d.journal.CreateFixed(ctx, inv, r.Plan.fixed(), now, d.opts.Random())
	} else {
		err = d.journal.Create(ctx, inv, now, d.opts.Random())
	}
	if err == nil {
		d.began(inv.ID)
	}
	return inv, err
}

// Invalidate opens an invalidation and drives it to its end.
func (d *Dispatcher) Invalidate(ctx context.Context, r Request) (*Report, error) {
	inv, err := d.Open(ctx, r)
	if err != nil {
		return nil, err
	}
	return d.Drive(ctx, inv.ID, UntilDone, nil)
}

// now returns store time, measuring the offset again when the last measurement
// is old.
func (d *Dispatcher) now(ctx context.Context) (time.Time, error) {
	if err := d.clock.Sync(ctx, d.journal.Store()); err != nil {
		return time.Time{}, err
	}
	return d.clock.Now(), nil
}
