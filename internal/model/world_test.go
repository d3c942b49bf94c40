// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cf-invalidation-tracker/cftrack"
	"github.com/cf-invalidation-tracker/cftrack/awscloudfront"
	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

const dist = simulator.DefaultDistribution

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
