// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cf-invalidation-tracker/cftrack"
	"github.com/cf-invalidation-tracker/cftrack/awscloudfront"
	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

const dist = simulator.DefaultDistribution

// A response is one answer of an origin server. Its content was read from the
// site when it began, which is the worst there is.
type response struct {
	id         int
	path       string
	tags       []string
	maxAge     time.Duration
	by         *process // the recorder; nil: a server that logs
	read, end  time.Time
	over       bool // it has left its server
	given      bool // its own handler gave it up
	imported   time.Time
	assumption bool
}

// A process is one life of a recorder or a purger.
type process struct {
	name string
	*link
	// Of a recorder.
	tracker *cftrack.Tracker
	handler http.Handler
	closing atomic.Bool
	ended   atomic.Bool // closed, cleanly
	// Of a purger.
	purger *dispatch.Dispatcher
	ctx    context.Context
	cancel context.CancelFunc
	busy   sync.WaitGroup
	tends  atomic.Bool // it looks after what is open
}

// A world is one history while it runs.
type world struct {
	t      *testing.T
	script *Script
	base   time.Time
	g      *ground
	j      *journal.Journal // seen without a link
	sim    *simulator.Simulator
	cdn    dispatch.CDN
	rules  lifetime.Rules
	wg     sync.WaitGroup // of steps that take time

	mu        sync.Mutex
	events    []string
	faults    []string
	responses []*response
	running   int
	tags      []string             // of each page, now
	servers   []*process           // of each server, now; nil: none
	purgers   []*process           // likewise
	lives     int                  // processes so far
	all       []*process           // that ever were
	opened    map[string]time.Time // when somebody asked for an invalidation
	claims    map[string]time.Time
	sky       string // the weather
	fair      time.Time
	skyRand   *rand.Rand
	last      map[string]seen                 // what the edges held at the last look
	present   map[string]map[string]time.Time // at the saving of each batch: since when
	saved     map[string]bool                 // invalidation and item, as soon as a batch has it
	files     map[string][]byte               // plan files, by the name that the script gives them
	fixed     map[string]*dispatch.PlanFile   // and by hash
	followUps map[string]bool                 // batches that are such; one that is found again does not say so
	counts    map[string]int                  // how often what is rare came to pass
	losses    bool                            // the store lost data
	final     journal.Knowledge
	listed    map[string]inventory.Entry // in the end
}

// Run plays a history and returns what was wrong with it, and what happened.
func Run(t *testing.T, s *Script) (faults, events []string) {
	w := run(t, s)
	return w.faults, w.events
}

func run(t *testing.T, s *Script) *world {
	w := &world{script: s, opened: make(map[string]time.Time), claims: make(map[string]time.Time),
		present: make(map[string]map[string]time.Time), saved: make(map[string]bool), files: make(map[string][]byte), fixed: make(map[string]*dispatch.PlanFile),
		followUps: make(map[string]bool), counts: make(map[string]int),
		last: make(map[string]seen), skyRand: rand.New(rand.NewPCG(s.Seed, 3))}
	synctest.Test(t, func(t *testing.T) {
		w.t = t
		w.play()
	})
	return w
}

func (w *world) play() {
	s := w.script
	w.base = time.Now()
	w.g = newGround(s.Offset)
	w.g.keep = s.has(Back, Empty)
	w.g.saved = w.judgeBatch
	w.j = journal.Open(w.g, dist)
	w.rules = lifetime.DefaultRules()
	w.rules.Tiers = max(1, s.Tiers)
	for _, p := range s.Pages {
		w.tags = append(w.tags, p.Tags)
	}
	var err error
	limits := simulator.Limits{}
	switch s.Quota {
	case "rates":
		limits = simulator.RateQuotas()
	case "progress":
		limits = simulator.Limits{Paths: 60, Wildcards: 3}
	case "both":
		limits = simulator.RateQuotas()
		limits.Paths, limits.Wildcards = 60, 3
	case "strict":
		// What was sent a second apart comes a little less than a second apart.
		limits = simulator.Limits{PathRate: 157, WildcardRate: 1.05, PathBurst: 150, WildcardBurst: 1, WildcardsArePaths: true}
	}
	w.sim, err = simulator.New(http.HandlerFunc(w.origin), &simulator.Options{
		Edges: max(1, s.Edges), Rules: &w.rules, SpareDoubtful: s.Spare, Seed: s.Seed,
		Propagation: s.Effect, Completion: max(-1, s.Status), Intercept: w.intercept, Limits: limits,
		Foreign: w.foreign(), Regional: s.Upper, TiersIgnoreAge: s.Renew, Harsh: s.Harsh,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.cdn, err = awscloudfront.New(context.Background(), awscloudfront.Options{AccessKey: "AKIDEXAMPLE", SecretKey: "secret",
		Endpoint: "http://api.simulator", HTTPClient: &http.Client{Transport: w.sim.Transport()}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.servers = make([]*process, len(s.Servers))
	w.purgers = make([]*process, max(1, s.Purgers))
	for i := range w.purgers {
		w.startPurger(i)
	}
	for i, x := range s.Servers {
		if x.Late == 0 {
			w.startServer(i)
		} else {
			w.wg.Go(func() { time.Sleep(x.Late); w.startServer(i) })
		}
	}
	for i := range s.Steps {
		st := &s.Steps[i]
		w.wg.Go(func() {
			time.Sleep(time.Until(w.base.Add(st.At)))
			w.do(st)
		})
	}
	stop := make(chan struct{})
	var looks sync.WaitGroup
	looks.Go(func() { w.lookNowAndThen(stop) })
	w.wg.Wait()
	w.conclude()
	close(stop)
	looks.Wait()
	w.closeAll()
}

func (w *world) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.events) > 20_000 {
		return // it goes round in circles, and link.call notices
	}
	w.events = append(w.events, fmt.Sprintf("%9.3f  ", time.Since(w.base).Seconds())+fmt.Sprintf(format, args...))
}

func (w *world) count(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[what]++
}

func (w *world) fault(format string, args ...any) {
	w.say("FAULT: "+format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.faults) < 20 {
		w.faults = append(w.faults, fmt.Sprintf(format, args...))
	}
}

func (w *world) newLink(what string) *link {
	w.mu.Lock()
	w.lives++
	n := w.lives
	w.mu.Unlock()
	l := newLink(w.g, w.script.Seed*1000+uint64(n), w.script.Lag, what)
	l.tell, l.fail = w.say, w.fault
	return l
}

// startServer begins another life of a server.
func (w *world) startServer(i int) {
	x := w.script.Servers[i]
	w.mu.Lock()
	old := w.servers[i]
	n := w.lives
	w.mu.Unlock()
	if old != nil && !old.isDead() && !old.closing.Load() {
		return // it is still there
	}
	p := &process{name: fmt.Sprintf("server%d.%d", i, n)}
	p.link = w.newLink(p.name)
	if x.Logs {
		p.handler = http.HandlerFunc(w.site)
	} else {
		var err error
		rules := w.rules
		p.tracker, err = cftrack.Open(shop{p.link}, dist, &cftrack.Options{
			Name: p.name, Lease: x.Lease, Margin: x.Margin, Rules: &rules,
		})
		if err != nil {
			w.t.Fatal(err)
		}
		p.handler = p.tracker.Middleware(http.HandlerFunc(w.site))
	}
	w.say("%s serves", p.name)
	w.mu.Lock()
	w.servers[i] = p
	w.all = append(w.all, p)
	w.mu.Unlock()
}

func (w *world) startPurger(i int) *process {
	w.mu.Lock()
	i %= len(w.purgers)
	old := w.purgers[i]
	n := w.lives
	w.mu.Unlock()
	if old != nil && !old.isDead() {
		return old
	}
	p := &process{name: fmt.Sprintf("purger%d.%d", i, n)}
	p.link = w.newLink(p.name)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.killed = p.cancel
	rules := w.rules
	p.purger = dispatch.New(shop{p.link}, dist, phone{w.cdn, p.link}, &dispatch.Options{Rules: &rules, Holder: p.name})
	w.mu.Lock()
	w.purgers[i] = p
	w.all = append(w.all, p)
	w.mu.Unlock()
	return p
}

func (w *world) server(i int) *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i >= len(w.servers) {
		return nil
	}
	return w.servers[i]
}

func (w *world) do(st *Step) {
	switch st.Do {
	case Get:
		w.get(st)
		return
	case Weather:
		w.mu.Lock()
		w.sky, w.fair = st.Text, time.Now().Add(st.For)
		w.mu.Unlock()
	case Retag:
		w.mu.Lock()
		w.tags[st.Page] = st.Text
		w.mu.Unlock()
	case Import:
		w.doImport(st)
		return
	case Outage:
		w.mu.Lock()
		all := slices.Clone(w.all)
		w.mu.Unlock()
		for _, p := range all {
			p.cut(st.For)
		}
	case Back, Empty:
		w.lose(st)
	case Purge, Plan, Send, KillPurger, StopPurger, Purger, Cancel:
		w.doPurger(st)
		return
	default:
		w.doServer(st)
		return
	}
	w.say("%s", st)
}

func (l *link) cut(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = time.Now().Add(d)
}

func (w *world) lose(st *Step) {
	w.mu.Lock()
	live := slices.ContainsFunc(w.servers, func(p *process) bool {
		return p != nil && p.tracker != nil && !p.isDead() && !p.closing.Load() && p.tracker.Ready() == nil
	})
	w.mu.Unlock()
	if !live {
		return // nobody is there to notice
	}
	w.say("%s", st)
	w.mu.Lock()
	w.losses = true
	w.mu.Unlock()
	if st.Do == Empty {
		w.g.back(-1)
	} else {
		w.g.back(st.Ops)
	}
}

func (w *world) doServer(st *Step) {
	if st.Do == Open {
		if st.Who < len(w.script.Servers) {
			w.startServer(st.Who)
		}
		return
	}
	p := w.server(st.Who)
	if p == nil || p.isDead() || p.closing.Load() || p.tracker == nil {
		return
	}
	w.say("%s", st)
	switch st.Do {
	case Kill:
		p.mu.Lock()
		p.killAt = st.Ops
		p.mu.Unlock()
		if st.Ops == 0 {
			p.kill()
		}
	case Cut:
		p.cut(st.For)
	case Stall:
		p.mu.Lock()
		p.slow, p.slowFor = st.Ops, st.For
		p.mu.Unlock()
	case Close:
		w.closeServer(p)
	case Claim:
		page := w.script.Pages[st.Page]
		path, err := cfpath.Canonical(page.Path)
		if err != nil {
			w.t.Fatal(err)
		}
		w.mu.Lock()
		w.claims[path] = time.Now()
		w.mu.Unlock()
		if err := p.tracker.SetTTL(context.Background(), page.Path, st.For); err != nil {
			w.fault("SetTTL: %v", err)
		}
	default:
		w.t.Fatalf("no such step: %v", st)
	}
}

// closeServer ends a recorder in order: first its HTTP server, then itself.
func (w *world) closeServer(p *process) {
	p.closing.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	for w.runningAt(p) > 0 && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	err := p.tracker.Close(ctx)
	w.say("%s closed: %v", p.name, err)
	p.ended.Store(err == nil && !p.isDead())
	p.kill()
}

func (w *world) runningAt(p *process) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, r := range w.responses {
		if r.by == p && !r.over && r.end.IsZero() {
			n++
		}
	}
	return n
}

func (w *world) doPurger(st *Step) {
	switch st.Do {
	case Purge, Plan, Send:
		p := w.startPurger(st.Who)
		p.busy.Add(1)
		defer p.busy.Done()
		defer w.recovered(p)
		switch st.Do {
		case Plan:
			w.makePlan(p, st)
		case Send:
			w.sendPlan(p, st)
		default:
			w.purge(p, st, request(st))
		}
		return
	case Cancel:
		p := w.startPurger(0)
		invs, err := w.j.Invalidations(p.ctx, 0)
		if err == nil && len(invs) > 0 {
			_, err = p.purger.Journal().RequestCancel(p.ctx, invs[len(invs)-1].ID)
			w.say("%s asks to cancel %s: %v", p.name, invs[len(invs)-1].ID, err)
		}
		return
	case Purger:
		w.tend(w.startPurger(st.Who))
		return
	}
	w.mu.Lock()
	p := w.purgers[st.Who%len(w.purgers)]
	w.mu.Unlock()
	if p.isDead() {
		return
	}
	w.say("%s", st)
	p.mu.Lock()
	if st.Do == KillPurger {
		p.killAt = st.Ops
	} else {
		p.stopAt, p.stopFor = st.Ops, st.For
	}
	p.mu.Unlock()
	if st.Do == KillPurger && st.Ops == 0 {
		p.kill()
	}
}

func request(st *Step) dispatch.Request {
	return dispatch.Request{Selector: st.Selector, Now: st.Now, Settle: st.Settle, Exact: st.Exact, AssumeComplete: st.Assume, Batch: st.Batch,
		RepeatAfter: st.Repeat}
}

func (w *world) purge(p *process, st *Step, r dispatch.Request) {
	asked := time.Now()
	inv, err := p.purger.Open(p.ctx, r)
	if err != nil {
		w.say("%s could not do %s: %v", p.name, st, err)
		return
	}
	w.mu.Lock()
	w.opened[inv.ID] = asked
	w.mu.Unlock()
	w.say("%s opened %s: %s (asked %v ago)", p.name, inv.ID, st, time.Since(asked))
	report, err := p.purger.Drive(p.ctx, inv.ID, dispatch.UntilDone, nil)
	if report == nil {
		w.say("%s lost %s: %v", p.name, inv.ID, err)
		return
	}
	w.say("%s has driven %s: %s, %d items, %d follow-ups, holding %v, uncovered %v: %v", p.name, inv.ID, report.State,
		report.Items, report.FollowUps, report.Holding, report.Uncovered, err)
	if report.State.Ended() {
		w.look("after " + inv.ID)
	}
}

// recovered makes a process that panics dead, and that a fault.
func (w *world) recovered(p *process) {
	if x := recover(); x != nil {
		w.fault("%s panics: %v\n%s", p.name, x, debug.Stack())
		p.kill()
	}
}

// tend has a purger look after whatever is open, as a daemon does.
func (w *world) tend(p *process) {
	if !p.tends.CompareAndSwap(false, true) {
		return
	}
	p.busy.Add(1)
	go func() {
		defer p.busy.Done()
		defer w.recovered(p)
		for p.ctx.Err() == nil {
			id, _ := open(p.ctx, p.purger.Journal())
			if id != "" {
				r, err := p.purger.Drive(p.ctx, id, dispatch.UntilDone, nil)
				if r != nil {
					w.say("%s tended %s: %s, %d items, %d follow-ups, holding %v: %v", p.name, id, r.State, r.Items, r.FollowUps, r.Holding, err)
				}
			}
			select {
			case <-time.After(2 * time.Second):
			case <-p.ctx.Done():
			}
		}
	}()
}

// open returns an invalidation that has not ended, or was reported to since.
func open(ctx context.Context, j *journal.Journal) (string, error) {
	unread, err := j.Unread(ctx)
	if err != nil {
		return "", err
	}
	invs, err := j.Invalidations(ctx, 0)
	if err != nil {
		return "", err
	}
	for _, inv := range invs {
		_, reported := unread[inv.Number]
		if !inv.State.Ended() || reported {
			return inv.ID, nil
		}
	}
	return "", nil
}

// get asks an edge for a page, as a viewer.
func (w *world) get(st *Step) {
	if st.Page >= len(w.script.Pages) {
		return
	}
	r := httptest.NewRequest("GET", "http://edge.simulator/", nil)
	r.RequestURI = w.script.Pages[st.Page].Path
	r.Header.Set("X-Step", strconv.Itoa(slices.IndexFunc(w.script.Steps, func(x Step) bool { return x.At == st.At && x.Do == Get && x.Page == st.Page })))
	defer func() { _ = recover() }() // a connection that breaks
	w.sim.Edge(st.Edge%w.sim.Edges()).ServeHTTP(httptest.NewRecorder(), r)
}

// origin is where the edges' requests arrive: it hands them to a server, and what
// that answers to the network.
func (w *world) origin(rw http.ResponseWriter, r *http.Request) {
	i, err := strconv.Atoi(r.Header.Get("X-Step"))
	if err != nil {
		w.t.Error(err)
	}
	st := w.script.Steps[i]
	p := w.server(st.Who)
	if p == nil || p.isDead() || p.closing.Load() {
		http.Error(rw, "no such server", http.StatusBadGateway)
		return
	}
	path, err := cfpath.FromTarget(r.RequestURI)
	if err != nil {
		w.t.Error(err)
	}
	page := slices.IndexFunc(w.script.Pages, func(x Page) bool { return x.Path == r.RequestURI })
	res := &response{path: path, read: time.Now(), maxAge: time.Duration(w.script.Pages[page].MaxAge) * time.Second}
	if p.tracker != nil {
		res.by = p
	}
	if res.maxAge == 0 {
		res.maxAge = 24 * time.Hour
	}
	w.mu.Lock()
	res.id = len(w.responses)
	w.responses = append(w.responses, res)
	w.running++
	line := w.tags[page]
	w.mu.Unlock()
	for tag := range strings.SplitSeq(line, ",") {
		if tag = strings.TrimSpace(tag); tag != "" {
			res.tags = append(res.tags, tag)
		}
	}
	defer func() {
		w.mu.Lock()
		res.over = true
		w.running--
		w.mu.Unlock()
	}()
	call := &call{step: &st, res: res, p: p, w: w, tags: line}
	r = r.WithContext(context.WithValue(r.Context(), callKey{}, call))
	w.say("response %d of %s begins: edge %d, %s, %v + %v", res.id, path, st.Edge, p.name, st.For, st.Drain)
	if st.Stream {
		p.handler.ServeHTTP(rw, r)
		call.finish()
		return
	}
	held := &bag{header: http.Header{}}
	p.handler.ServeHTTP(held, r)
	call.finish()
	time.Sleep(st.Drain)
	for k, v := range held.header {
		rw.Header()[k] = v
	}
	rw.WriteHeader(held.status)
	_, _ = rw.Write(held.body.Bytes())
}

// A call is what the site needs to know of a request.
type call struct {
	step *Step
	res  *response
	p    *process
	w    *world
	tags string
}

type callKey struct{}

func (c *call) finish() {
	c.w.mu.Lock()
	c.res.end = time.Now()
	c.w.mu.Unlock()
	c.w.say("response %d of %s ends at its server", c.res.id, c.res.path)
}

// bag is what the network has taken from a server and not delivered yet.
type bag struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (b *bag) Header() http.Header { return b.header }
func (b *bag) WriteHeader(status int) {
	if b.status == 0 {
		b.status = status
	}
}
func (b *bag) Write(p []byte) (int, error) { b.WriteHeader(200); return b.body.Write(p) }

// site answers with the number of the response, after the time that it takes.
func (w *world) site(rw http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(callKey{}).(*call)
	page := slices.IndexFunc(w.script.Pages, func(x Page) bool { return x.Path == r.RequestURI })
	if age := w.script.Pages[page].MaxAge; age > 0 {
		rw.Header().Set("Cache-Control", fmt.Sprintf("max-age=%d", age))
	}
	if c.tags != "" {
		rw.Header().Set("Cache-Tag", c.tags)
	}
	body := fmt.Sprintf("response %d.", c.res.id)
	if c.step.Stream {
		rw.WriteHeader(200)
		_, _ = rw.Write([]byte(body[:4]))
		body = body[4:]
	}
	timer := time.NewTimer(c.step.For)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.p.died:
		panic(http.ErrAbortHandler) // with its process
	}
	if c.p.isDead() {
		panic(http.ErrAbortHandler)
	}
	if t := c.p.tracker; t != nil && c.step.Text != "" {
		w.mu.Lock()
		w.claims[c.res.path] = time.Now()
		c.res.given = true
		w.mu.Unlock()
		ttl := time.Duration(0)
		if c.step.Text == "ttl" {
			ttl = time.Second
		}
		if err := t.SetTTL(r.Context(), c.res.path, ttl); err != nil {
			w.fault("SetTTL in a handler: %v", err)
		}
	}
	_, _ = rw.Write([]byte(body))
}

// foreign is what somebody else sends: of pages that are not ours, so that what is gone
// is our doing, but within the same limits.
func (w *world) foreign() simulator.Foreign {
	if w.script.Foreign == 0 {
		return simulator.Foreign{}
	}
	return simulator.Foreign{Rate: w.script.Foreign, Paths: 5, Wildcards: 1}
}

// intercept is CloudFront's weather.
func (w *world) intercept(op string, _ *http.Request) *simulator.Fault {
	if op == simulator.ListInvalidations && w.script.Blind {
		return &simulator.Fault{Status: http.StatusForbidden, Code: "AccessDenied", Message: "not authorized to perform: cloudfront:ListInvalidations"}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !time.Now().Before(w.fair) {
		return nil
	}
	r := w.skyRand
	if r.IntN(100) < 40 {
		return nil
	}
	sky := w.sky
	if sky == "mixed" {
		sky = []string{"unavailable", "throttling", "lost answers", "lost requests", "slow", "lag"}[r.IntN(6)]
	}
	switch sky {
	case "unavailable":
		return simulator.ServiceUnavailable()
	case "throttling":
		return simulator.Throttling()
	case "lost answers":
		return simulator.LostAnswer()
	case "lost requests":
		return simulator.LostRequest()
	case "slow":
		return &simulator.Fault{Delay: time.Duration(r.Int64N(int64(10 * time.Second)))}
	case "lag":
		if op == simulator.GetInvalidation {
			return &simulator.Fault{Status: 404, Code: "NoSuchInvalidation", Message: "The specified invalidation does not exist."}
		}
	}
	return nil
}

// conclude ends all trouble and has everything carried out that is open.
func (w *world) conclude() {
	w.mu.Lock()
	w.fair = time.Time{}
	all, purgers := slices.Clone(w.all), slices.Clone(w.purgers)
	w.mu.Unlock()
	for _, p := range all {
		p.mu.Lock()
		p.down, p.killAt, p.stopAt, p.slow, p.lag = time.Time{}, 0, 0, 0, false
		p.mu.Unlock()
	}
	for _, p := range purgers {
		p.kill()
	}
	w.say("the purgers are killed; a last one begins")
	last := w.startPurger(0)
	w.tend(last)
	w.doImport(&Step{})
	const patience = 15 * time.Minute
	for end := time.Now().Add(patience); ; {
		time.Sleep(1500 * time.Millisecond)
		w.mu.Lock()
		running := w.running
		w.mu.Unlock()
		id, err := open(context.Background(), w.j)
		if err != nil {
			w.t.Fatal(err)
		}
		if id == "" && running == 0 && w.allTold() {
			break
		}
		if time.Now().After(end) {
			r, err := last.purger.Status(context.Background(), id)
			w.fault("%s did not end within %v: %+v %v", id, patience, r, err)
			break
		}
	}
	w.look("at the end")
	o := w.observe()
	w.final, w.listed = o.journal, o.entries
	w.judgeBills()
	w.judgePlanFiles()
	w.judgeQuota()
	w.countRare()
}

// allTold reports whether all live recorders have flushed and read since all
// responses ended.
func (w *world) allTold() bool {
	w.mu.Lock()
	servers := slices.Clone(w.servers)
	var newest time.Time
	for _, r := range w.responses {
		if r.end.After(newest) {
			newest = r.end
		}
	}
	w.mu.Unlock()
	sessions, err := w.j.Sessions(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, p := range servers {
		if p == nil || p.tracker == nil || p.isDead() {
			continue
		}
		if !slices.ContainsFunc(sessions, func(s *journal.Session) bool {
			return s.Recorder == p.name && !s.Lost(w.g.now()) && s.Flushed.After(newest.Add(w.g.offset)) &&
				time.Since(newest) > w.script.Servers[0].Margin+3*time.Second
		}) {
			return false
		}
	}
	return true
}

func (w *world) closeAll() {
	w.mu.Lock()
	all := slices.Clone(w.all)
	servers := slices.Clone(w.servers)
	w.mu.Unlock()
	for _, p := range servers {
		if p != nil && p.tracker != nil && !p.isDead() && !p.closing.Load() {
			w.closeServer(p)
			if !p.ended.Load() {
				w.fault("%s could not be closed in good weather", p.name)
			}
		}
	}
	w.look("after all recorders closed")
	for _, p := range all {
		p.kill()
		if p.cancel != nil {
			p.cancel()
		}
		p.busy.Wait()
		if p.tracker != nil {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_ = p.tracker.Close(ctx)
		}
	}
	w.sim.Close()
}

var _ store.Store = shop{}
