// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package demo tells the whole story of cftrack on one machine, with real parts:
// an HTTP server with the tracker's middleware in front of a real site's paths, a
// simulated CloudFront whose edges cache it over HTTP, the embedded store, and the
// AWS SDK. It ends with a proof: every page is asked for again at every edge and
// compared with the origin.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cf-invalidation-tracker/cftrack"
	"github.com/cf-invalidation-tracker/cftrack/awscloudfront"
	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
	"github.com/cf-invalidation-tracker/cftrack/store/filestore"
)

// EmbeddedChange selects the pages that change in the embedded site: a pattern
// with a '*' in the middle, which CloudFront does not understand.
const EmbeddedChange = "/docs/Web/API/*Animation*"

// The demo runs on one machine, where bytes need no two seconds from the origin
// to an edge; the defaults of the tracker and the dispatcher are for networks.
const (
	margin = 500 * time.Millisecond
	settle = time.Second
	look   = 500 * time.Millisecond
)

// credentials are what the simulator takes as well as any.
const credentials = "demo"

// Options say what to show. The zero value of every field but Out is usable.
type Options struct {
	// Site is a directory to serve in place of the embedded site.
	Site string
	// Change is the pattern of the pages that change. Default EmbeddedChange; for
	// a directory all pages named *.html.
	Change string
	// Edges is the number of edges, at least two. Default 3.
	Edges int
	// Out takes the story, in lines for people.
	Out io.Writer
	// Progress, if not nil, shows how far something is, of total. Else it is told in
	// lines on Out.
	Progress func(what string, total int) Bar
}

// A Bar shows progress. It is used by one goroutine.
type Bar interface {
	Set(done int)
	End()
}

// A Result is what the demo found, in its JSON form.
type Result struct {
	Pages     int    `json:"pages"`
	Edges     int    `json:"edges"`
	Fetched   int    `json:"fetched"`   // responses that viewers got before the change
	Inventory int    `json:"inventory"` // entries after that
	Change    string `json:"change"`
	Selected  int    `json:"selected"`

	Items      int     `json:"items"`
	Paths      int     `json:"paths"`
	Wildcards  int     `json:"wildcards"`
	Collateral int     `json:"collateral"`
	Price      float64 `json:"price"`

	EveryPathPrice       float64 `json:"every_path_price"`      // each selected page by itself
	EverythingCollateral int     `json:"everything_collateral"` // what "/*" would throw away

	Invalidation string        `json:"invalidation"`
	State        journal.State `json:"state"`
	FollowUps    int           `json:"follow_ups"`

	StaleBefore      int     `json:"stale_before"`      // old copies served after the change, before the purge
	Checked          int     `json:"checked"`           // copies compared with the origin afterwards
	Stale            int     `json:"stale"`             // of these, old
	UnselectedHits   int     `json:"unselected_hits"`   // copies that were not selected and still cached
	UnselectedMisses int     `json:"unselected_misses"` // and that were not
	Seconds          float64 `json:"seconds"`
}

// ErrDisproved says that the proof at the end failed.
var ErrDisproved = errors.New("demo: what was promised did not hold")

// Demo is the running parts. Close ends them.
type Demo struct {
	o     Options
	began time.Time
	step  int
	dir   string
	site  *site

	store   *filestore.Store
	tracker *cftrack.Tracker
	origin  *http.Server
	sim     *simulator.Simulator
	disp    *dispatch.Dispatcher
	viewers *http.Client
	served  atomic.Int64 // requests that reached the origin

	originURL string
	active    sync.WaitGroup
}

// Start starts everything: store, origin, simulator. The caller must Close it.
func Start(ctx context.Context, o Options) (_ *Demo, err error) {
	d := &Demo{o: o, began: time.Now()}
	if d.o.Edges == 0 {
		d.o.Edges = 3
	}
	if d.o.Edges < 2 {
		return nil, errors.New("demo: it takes two edges to have one that is late")
	}
	if o.Site == "" {
		var paths []string
		paths, err = EmbeddedPaths()
		d.site = newSite(paths, nil)
	} else {
		d.site, err = directorySite(o.Site)
	}
	if err != nil {
		return nil, err
	}
	if d.o.Change == "" {
		d.o.Change = EmbeddedChange
		if o.Site != "" {
			d.o.Change = "*.html"
		}
	}
	if d.dir, err = os.MkdirTemp("", "cftrack-demo-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()

	if d.store, err = filestore.Open(filepath.Join(d.dir, "store"), nil); err != nil {
		return nil, err
	}
	d.tracker, err = cftrack.Open(d.store, simulator.DefaultDistribution, &cftrack.Options{Name: "demo", Margin: margin})
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	tracked := d.tracker.Middleware(d.site)
	d.origin = &http.Server{
		ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			d.served.Add(1)
			tracked.ServeHTTP(w, r)
		}),
	}
	d.active.Go(func() { _ = d.origin.Serve(l) }) // it returns when Close closes the server
	d.originURL = "http://" + l.Addr().String()

	d.sim, err = simulator.NewForURL(d.originURL, &simulator.Options{
		Edges:     d.o.Edges,
		TagHeader: "Cache-Tag",
		// As strict as CloudFront's quotas.
		Limits: simulator.Limits{PathRate: 150, WildcardRate: 1},
	})
	if err != nil {
		return nil, err
	}
	if err = d.sim.Listen("127.0.0.1:0"); err != nil {
		return nil, err
	}
	api, _ := d.sim.URLs()
	cdn, err := awscloudfront.New(ctx, awscloudfront.Options{
		AccessKey: credentials, SecretKey: credentials, Endpoint: api, HTTPClient: &http.Client{Transport: &http.Transport{}},
	})
	if err != nil {
		return nil, err
	}
	d.disp = dispatch.New(d.store, simulator.DefaultDistribution, cdn, &dispatch.Options{Holder: "demo", FirstLook: look})
	d.viewers = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: viewers, DisableCompression: true}}
	return d, nil
}

// Close ends everything and removes the store. It may be called again.
func (d *Demo) Close() error {
	var errs []error
	if d.viewers != nil {
		d.viewers.CloseIdleConnections()
	}
	if d.sim != nil {
		errs = append(errs, d.sim.Close())
	}
	if d.origin != nil {
		errs = append(errs, d.origin.Close())
	}
	if d.tracker != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		errs = append(errs, d.tracker.Close(ctx))
	}
	if d.store != nil {
		errs = append(errs, d.store.Close())
	}
	d.active.Wait()
	return errors.Join(append(errs, os.RemoveAll(d.dir))...)
}

// Run tells the story. The error wraps ErrDisproved if it does not end as it must,
// and the result then says where.
func (d *Demo) Run(ctx context.Context) (*Result, error) {
	res := &Result{Pages: len(d.site.paths), Edges: d.o.Edges, Change: d.o.Change}
	sel := selector.Selector{Patterns: []string{d.o.Change}}
	compiled, err := sel.Compile()
	if err != nil {
		return nil, err
	}
	var changed []string
	for _, p := range d.site.paths {
		if compiled.MaySelect(p) {
			changed = append(changed, p)
		}
	}
	if len(changed) == 0 {
		return nil, fmt.Errorf("demo: no page of the site matches %s: name some with --change", d.o.Change)
	}

	if err := d.beginInventory(ctx); err != nil {
		return nil, err
	}

	// One copy is left to be fetched: it will be on its way when the page changes.
	late := copyAt{changed[0], d.o.Edges - 1}
	if err := d.browse(ctx, late, res); err != nil {
		return nil, err
	}
	release := make(chan struct{})
	slow, err := d.changePages(ctx, changed, late, release, res)
	if err != nil {
		return nil, err
	}
	request := dispatch.Request{
		Selector: sel, Reason: "the pages changed", By: "demo", Settle: settle, Margin: margin, FreePaths: new(int),
	}
	if err := d.plan(ctx, request, res); err != nil {
		return nil, err
	}
	if err := d.purge(ctx, request, release, slow, late, res); err != nil {
		return nil, err
	}
	err = d.prove(ctx, compiled.MaySelect, res)
	res.Seconds = time.Since(d.began).Seconds()
	if err != nil {
		return res, err
	}
	d.say("\nProved in %.0f s.", res.Seconds)
	return res, d.tracker.Flush(ctx) // so that whoever goes on by hand sees what the proof has cached
}

// beginInventory shows how an inventory comes to be complete.
func (d *Demo) beginInventory(ctx context.Context) error {
	d.title("A server, a CloudFront, and what it may hold")
	api, edges := d.sim.URLs()
	d.say("%-10s %s  (%s pages, behind the tracker's middleware)", "origin", d.originURL, thousands(len(d.site.paths)))
	d.say("%-10s %s  (simulated: cftrack simulate)", "CloudFront", api)
	for i, e := range edges {
		d.say("%-10s %s", fmt.Sprintf("  edge %d", i), e)
	}
	d.say("%-10s %s", "store", filepath.Join(d.dir, "store"))

	if err := d.tracker.Flush(ctx); err != nil {
		return err
	}
	report, err := d.disp.Invalidate(ctx, dispatch.Request{
		Selector: selector.Selector{Patterns: []string{"/*"}}, Reason: "a new inventory", By: "demo",
		Settle: settle, Margin: margin, FreePaths: new(int),
	})
	if err != nil {
		return err
	}
	if report.State != journal.Completed {
		return fmt.Errorf("demo: the first invalidation is %s: %s", report.State, report.Error)
	}
	rules := lifetime.DefaultRules()
	now, err := d.store.Now(ctx)
	if err != nil {
		return err
	}
	coverage, err := d.disp.Journal().Coverage(ctx, now, rules.Longest())
	if err != nil {
		return err
	}
	if !coverage.Complete {
		return fmt.Errorf("%w: after /* the coverage of the inventory is not complete: %+v", ErrDisproved, coverage)
	}
	d.say("A new inventory cannot know what was cached before it. One /* settles that:")
	d.proves("coverage complete; from here on what CloudFront may hold is in the inventory.")
	return nil
}

// browse has viewers ask for every page at every edge, but for one.
func (d *Demo) browse(ctx context.Context, late copyAt, res *Result) error {
	d.title("Viewers fill the edges")
	var todo []copyAt
	for _, p := range d.site.paths {
		for e := range d.o.Edges {
			if c := (copyAt{p, e}); c != late {
				todo = append(todo, c)
			}
		}
	}
	began := time.Now()
	if err := d.view(ctx, "browsing", todo, func(_ copyAt, got response) error {
		if got.status != http.StatusOK {
			return fmt.Errorf("status %d", got.status)
		}
		res.Fetched++
		return nil
	}); err != nil {
		return err
	}
	if err := d.tracker.Flush(ctx); err != nil {
		return err
	}
	preview, err := d.disp.Plan(ctx, dispatch.Request{Selector: selector.Selector{All: true}, FreePaths: new(int)})
	if err != nil {
		return err
	}
	res.Inventory = preview.Totals.Entries
	d.say("%s responses in %.1f s; the middleware recorded each as it left the origin.", thousands(res.Fetched), time.Since(began).Seconds())
	d.proves("%s entries for %s pages.", thousands(res.Inventory), thousands(res.Pages))
	if res.Inventory != res.Pages {
		return fmt.Errorf("%w: %d pages were cached, %d are in the inventory", ErrDisproved, res.Pages, res.Inventory)
	}
	return nil
}

// changePages changes pages while one of them is still being rendered in its old
// revision, and shows that the edges now serve old copies. It returns how the slow
// response ends.
func (d *Demo) changePages(ctx context.Context, changed []string, late copyAt, release chan struct{}, res *Result) (<-chan error, error) {
	d.title("Some pages change")
	d.site.holdNext(late.path, release)
	slow := make(chan error, 1)
	d.active.Go(func() {
		_, err := d.fetch(ctx, late)
		slow <- err
	})
	select {
	case <-d.site.held:
	case err := <-slow:
		return nil, fmt.Errorf("demo: %s was not rendered: %w", late.path, err)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	d.site.change(changed)
	var todo []copyAt
	for _, p := range changed {
		for e := range d.o.Edges {
			if c := (copyAt{p, e}); c != late {
				todo = append(todo, c)
			}
		}
	}
	if err := d.view(ctx, "", todo, func(c copyAt, got response) error {
		fresh, err := d.fresh(c.path, got)
		if err == nil && !fresh {
			res.StaleBefore++
		}
		return err
	}); err != nil {
		return nil, err
	}
	d.say("%s pages get a new revision: those that match %s", thousands(len(changed)), d.o.Change)
	d.say("(CloudFront itself knows no * in the middle of a path.) One edge is just fetching")
	d.say("%s: that response began before the change.", late.path)
	d.proves("%s of %s copies at the edges are stale now.", thousands(res.StaleBefore), thousands(len(todo)))
	if res.StaleBefore != len(todo) {
		return nil, fmt.Errorf("%w: only %d of %d copies became stale", ErrDisproved, res.StaleBefore, len(todo))
	}
	return slow, nil
}

// plan shows the plan beside what one would do without it.
func (d *Demo) plan(ctx context.Context, r dispatch.Request, res *Result) error {
	d.title("The plan")
	p, err := d.disp.Plan(ctx, r)
	if err != nil {
		return err
	}
	t := p.Totals
	res.Selected, res.Items, res.Paths, res.Wildcards = t.Selected, t.Items, t.Paths, t.Wildcards
	res.Collateral, res.Price = t.Collateral, t.Price
	d.say("%-28s %8s %12s %16s", "", "items", "price", "thrown away")
	row := func(name string, items int, price float64, collateral int) {
		d.say("%-28s %8s %12s %16s", name, thousands(items), dollars(price), thousands(collateral))
	}
	for _, a := range p.Alternatives {
		switch a.Name {
		case "every-path":
			res.EveryPathPrice = a.Price
			row("every page by itself", a.Items, a.Price, a.Collateral)
		case "everything":
			res.EverythingCollateral = a.Collateral
			row("/*", a.Items, a.Price, a.Collateral)
		}
	}
	row("cftrack's plan", t.Items, t.Price, t.Collateral)
	d.say("")
	for i, it := range p.Items {
		if i == shownItems {
			d.say("%11s and %d more", "", len(p.Items)-i)
			break
		}
		d.say("%11s %s", count(it.Covers, "page", "pages"), it.Item)
	}
	d.say("")
	d.say("Prices as if this month's 1,000 free paths were used up; \"thrown away\" are pages")
	d.say("that did not change.")
	if t.Uncovered > 0 || t.Collateral > 0 {
		return fmt.Errorf("%w: the plan leaves %d pages uncovered and throws %d others away", ErrDisproved, t.Uncovered, t.Collateral)
	}
	return nil
}

// purge sends the plan and follows it to the end. The slow response is let go when
// every edge has processed what was sent.
func (d *Demo) purge(ctx context.Context, r dispatch.Request, release chan struct{}, slow <-chan error, late copyAt, res *Result) error {
	d.title("Sent through the AWS SDK, and followed")
	began := time.Now()
	at := func(format string, args ...any) {
		d.say("%5.1f s  %s", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	inv, err := d.disp.Open(ctx, r)
	if err != nil {
		return err
	}
	at("%s is open: whatever is older than this instant is stale", inv.ID)
	batches := map[string]journal.BatchState{}
	released := false
	report, err := d.disp.Drive(ctx, inv.ID, dispatch.UntilDone, func(rep *dispatch.Report) {
		for _, b := range rep.Batches {
			if b.State == batches[b.CallerReference] {
				continue
			}
			batches[b.CallerReference] = b.State
			what := fmt.Sprintf("%s as %s", count(b.Items, "item", "items"), b.InvalidationID)
			if b.FollowUp {
				what = "follow-up of " + what
			}
			switch b.State {
			case journal.Accepted:
				at("%s: accepted", what)
			case journal.BatchDone:
				at("%s: processed by every edge", what)
				if !released {
					released = true
					close(release)
					if err := <-slow; err != nil {
						at("the slow response failed: %v", err)
						continue
					}
					at("the slow response arrives: an edge has cached the old %s", filepath.Base(late.path))
				}
			case journal.BatchRefused:
				at("%s: refused: %s", what, b.Error)
			}
		}
	})
	if err != nil {
		return err
	}
	at("%s is %s", report.ID, report.State)
	res.Invalidation, res.State, res.FollowUps, res.Items, res.Price = report.ID, report.State, report.FollowUps, report.Items, report.Price
	d.proves("%s for the response that slipped through.", count(report.FollowUps, "follow-up", "follow-ups"))
	switch {
	case report.State != journal.Completed:
		return fmt.Errorf("%w: %s ended as %s: %s", ErrDisproved, report.ID, report.State, report.Error)
	case report.FollowUps == 0:
		return fmt.Errorf("%w: %s was cached in its old revision after the purge, and was not followed up", ErrDisproved, late.path)
	}
	return nil
}

// prove asks for every page at every edge once more.
func (d *Demo) prove(ctx context.Context, selected func(path string) bool, res *Result) error {
	d.title("Proof")
	var todo []copyAt
	for _, p := range d.site.paths {
		for e := range d.o.Edges {
			todo = append(todo, copyAt{p, e})
		}
	}
	served := d.served.Load()
	if err := d.view(ctx, "checking", todo, func(c copyAt, got response) error {
		fresh, err := d.fresh(c.path, got)
		if err != nil {
			return err
		}
		res.Checked++
		if !fresh {
			res.Stale++
		}
		if !selected(c.path) {
			if strings.HasPrefix(got.cache, "Hit") {
				res.UnselectedHits++
			} else {
				res.UnselectedMisses++
			}
		}
		return nil
	}); err != nil {
		return err
	}
	d.say("Every page at every edge, compared with the origin: %s copies.", thousands(res.Checked))
	d.proves("%s stale; %s of %s copies that did not change are still hits;",
		thousands(res.Stale), thousands(res.UnselectedHits), thousands(res.UnselectedHits+res.UnselectedMisses))
	d.say("  the origin rendered %s pages for it.", thousands(int(d.served.Load()-served)))
	if res.Stale > 0 || res.UnselectedMisses > 0 {
		return fmt.Errorf("%w: %d stale copies, %d copies that did not change were thrown away", ErrDisproved, res.Stale, res.UnselectedMisses)
	}
	return nil
}

// Environment is what a command needs to talk to the demo while it runs.
func (d *Demo) Environment() []string {
	api, _ := d.sim.URLs()
	return []string{
		"AWS_ENDPOINT_URL_CLOUDFRONT=" + api,
		"AWS_ACCESS_KEY_ID=" + credentials,
		"AWS_SECRET_ACCESS_KEY=" + credentials,
		"AWS_REGION=us-east-1",
		"CFTRACK_STORE=file:" + filepath.Join(d.dir, "store"),
		"CFTRACK_DISTRIBUTION=" + simulator.DefaultDistribution,
	}
}

// Invite says how to go on by hand, while the demo runs or without it.
func (d *Demo) Invite(running bool) {
	_, edges := d.sim.URLs()
	if !running {
		d.say("\nTry next:")
		d.say("  cftrack demo --keep                       # then plan and purge by hand")
		d.say("  cftrack demo --site ./public              # with your own site")
		d.say("  cftrack simulate --origin http://127.0.0.1:8080")
		return
	}
	d.say("\nStill running. In another terminal:\n")
	for _, kv := range d.Environment() {
		d.say("export %s", kv)
	}
	page := d.site.paths[len(d.site.paths)/2]
	d.say("\ncftrack stats")
	d.say("cftrack plan '%s'", d.o.Change)
	d.say("cftrack invalidate '%s' --reason 'by hand'", d.o.Change)
	d.say("curl -sI %s%s | grep -i -e x-cache -e revision", edges[0], page)
	d.say("cftrack status")
	d.say("\nCtrl-C ends it and removes the store.")
}
