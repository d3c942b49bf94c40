// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/selector"
)

// A Script is one history as plain data: who exists, and what happens when. It is
// drawn from a seed or written by hand, and shrinks by leaving things out.
type Script struct {
	Seed    uint64        // of what is drawn while it runs: latencies
	Offset  time.Duration // by which the store's clock is ahead of everybody's
	Edges   int
	Spare   bool // the simulator's SpareDoubtful
	Effect  time.Duration
	Status  time.Duration // from the effect to Completed
	Lag     bool          // calls of a store take up to seconds now and then
	Quota   string        // of items: "rates", "strict" or none
	Foreign float64       `json:",omitempty"` // batches a second that somebody else sends
	Blind   bool          `json:",omitempty"` // nobody may list invalidations
	Tiers   int
	Upper   int  `json:",omitempty"` // regional caches
	Renew   bool `json:",omitempty"` // edges keep what they get from those for a whole life again
	Harsh   bool `json:",omitempty"` // and may get from one what they have purged; then all is repeated
	Pages   []Page
	Servers []Server
	Purgers int
	Quiet   Quiet `json:",omitzero"`
	Steps   []Step
}

// A Quiet is a time of hours in which nothing happens.
type Quiet struct{ From, Until time.Duration }

// A Page is a path of the site.
type Page struct {
	Path   string
	MaxAge int // seconds; 0 says nothing, which is a day
	Tags   string
}

// A Server is an origin server with its recorder. One that logs has none.
type Server struct {
	Logs   bool
	Late   time.Duration // when it begins to serve
	Lease  time.Duration
	Margin time.Duration
}

// A Kind says what a step does.
type Kind string

const (
	Get        Kind = "get"        // Edge, Page, Who serves, For: how long; Drain; Stream; Say
	Retag      Kind = "retag"      // Page, Text
	Claim      Kind = "claim"      // Who, Page, For: 0 removes
	Open       Kind = "open"       // Who restarts, as another process
	Close      Kind = "close"      // Who ends cleanly
	Kill       Kind = "kill"       // Who, at its Ops-th call from now
	Cut        Kind = "cut"        // Who cannot reach the store, For
	Stall      Kind = "stall"      // Who's calls take For more, until Ops of them did
	Outage     Kind = "outage"     // nobody can reach the store, For
	Back       Kind = "back"       // the store loses its last Ops writes
	Empty      Kind = "empty"      // the store loses everything
	Import     Kind = "import"     // the logs so far, Text: of whom and how; For: starts are not known
	Purge      Kind = "purge"      // Purger Who invalidates Selector
	Plan       Kind = "plan"       // Purger Who makes plan file Text of Selector
	Send       Kind = "send"       // Purger Who sends plan file Text
	KillPurger Kind = "killpurger" // Who, at its Ops-th call from now
	StopPurger Kind = "stoppurger" // Who sleeps For, from its Ops-th call on
	Purger     Kind = "purger"     // Who begins to look after what is open
	Cancel     Kind = "cancel"     // the newest invalidation
	Weather    Kind = "weather"    // CloudFront answers as Text says, For
)

// A Step is something that happens.
type Step struct {
	At       time.Duration
	Do       Kind
	Who      int           `json:",omitempty"`
	Page     int           `json:",omitempty"`
	Edge     int           `json:",omitempty"`
	Ops      int           `json:",omitempty"`
	For      time.Duration `json:",omitempty"`
	Drain    time.Duration `json:",omitempty"`
	Stream   bool          `json:",omitempty"` // the header goes before the waiting
	Text     string        `json:",omitempty"`
	Selector selector.Selector
	Now      bool          `json:",omitempty"`
	Settle   time.Duration `json:",omitempty"`
	Exact    bool          `json:",omitempty"`
	Assume   bool          `json:",omitempty"`
	Batch    int           `json:",omitempty"` // items a batch
	Budget   string        `json:",omitempty"` // of collateral, of a plan file
	Repeat   time.Duration `json:",omitempty"` // after which all goes out once more
}

func (s Step) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-10s", s.Do)
	switch s.Do {
	case Get:
		fmt.Fprintf(&b, "edge %d, page %d from server %d, %v", s.Edge, s.Page, s.Who, s.For)
		if s.Drain > 0 {
			fmt.Fprintf(&b, " and %v to drain", s.Drain)
		}
		if s.Stream {
			b.WriteString(", streamed")
		}
		if s.Text != "" {
			b.WriteString(", handler says " + s.Text)
		}
	case Purge, Plan:
		fmt.Fprintf(&b, "purger %d: %s now=%v settle=%v exact=%v assume=%v batch=%d repeat=%v %s%s",
			s.Who, s.Selector, s.Now, s.Settle, s.Exact, s.Assume, s.Batch, s.Repeat, s.Budget, s.Text)
	default:
		fmt.Fprintf(&b, "who %d page %d ops %d for %v %s", s.Who, s.Page, s.Ops, s.For, s.Text)
	}
	return b.String()
}

// String is a readable form of the whole history.
func (s *Script) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, store %+v ahead, %d edges, effect %v, status %v, spare %v, lag %v, quota %q, foreign %v blind %v, tiers %d, upper %d renew %v harsh %v, %d purgers\n",
		s.Seed, s.Offset, s.Edges, s.Effect, s.Status, s.Spare, s.Lag, s.Quota, s.Foreign, s.Blind, s.Tiers, s.Upper, s.Renew, s.Harsh, s.Purgers)
	for i, p := range s.Pages {
		fmt.Fprintf(&b, "  page %d: %s max-age=%d tags %q\n", i, p.Path, p.MaxAge, p.Tags)
	}
	for i, x := range s.Servers {
		fmt.Fprintf(&b, "  server %d: logs %v, late %v, lease %v, margin %v\n", i, x.Logs, x.Late, x.Lease, x.Margin)
	}
	for _, st := range s.Steps {
		fmt.Fprintf(&b, "  %8.3f %s\n", st.At.Seconds(), st)
	}
	return b.String()
}

// paths are what pages are drawn from: directories and what lies below them,
// queries, spellings in doubt, and paths that no item can name.
var paths = []string{
	"/", "/a", "/a?x=1", "/a?x=2", "/a/", "/a/b", "/a/b?x=1", "/a/b/", "/a/b/c", "/a/c", "/a/cc", "/a/c.png",
	"/b", "/b/", "/b/a", "/b/b", "/b/b.png", "/b/a/c?x=1", "/c.png", "/c/a.png", "/caf%C3%A9",
	"/a/it%27s", "/b/@x", "/a/%41", "/b//c", // in doubt
	"/a/~u", "/b/~u/x", "/c*", // unnameable
}

var tagSets = []string{"", "", "x", "y", "x, y", "X", "z"}

type drawer struct{ *rand.Rand }

func (r drawer) chance(percent int) bool { return r.IntN(100) < percent }

// between draws evenly, and not to the round number, so that no two things happen
// at one instant.
func (r drawer) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(r.Int64N(int64(hi-lo)+1))
}

func pick[T any](r drawer, from ...T) T { return from[r.IntN(len(from))] }

// Draw makes a history of a seed.
func Draw(seed uint64) *Script {
	r := drawer{rand.New(rand.NewPCG(seed, 0xcf7ac4))}
	s := &Script{Seed: seed, Edges: 1 + r.IntN(3), Purgers: 1 + r.IntN(3), Tiers: 1 + r.IntN(2)}
	if r.chance(70) {
		s.Offset = r.between(-5*time.Second, 5*time.Second)
	}
	s.Spare = r.chance(30)
	s.Quota = pick(r, "", "", "rates", "strict")
	s.Lag = r.chance(40)
	s.Effect = pick(r, 0, 300*time.Millisecond, 2*time.Second, 5*time.Second)
	s.Status = pick(r, 0, 200*time.Millisecond, 3*time.Second, 25*time.Second)
	if r.chance(15) {
		s.Foreign, s.Blind = pick(r, 0.05, 0.3, 0.7), r.chance(30) // of the strictest rate they leave a third
		s.Quota = pick(r, "strict", "strict", "progress", "both")
	}
	if s.Effect += r.between(1, time.Millisecond); s.Effect < time.Millisecond {
		s.Effect = -1
	}
	s.pages(r)

	length := r.between(10*time.Second, 100*time.Second)
	for i := range 1 + r.IntN(3) {
		x := Server{Lease: pick(r, 2*time.Second, 10*time.Second, 10*time.Second), Margin: 2 * time.Second}
		if i > 0 && r.chance(25) {
			x.Late = r.between(0, length)
		}
		s.Servers = append(s.Servers, x)
	}
	if r.chance(15) {
		s.Servers = append(s.Servers, Server{Logs: true})
	}

	var cuts []time.Duration
	for range 1 + r.IntN(3) {
		cuts = append(cuts, r.between(0, length))
	}
	slices.Sort(cuts)
	for i, at := range cuts {
		if i > 0 && r.chance(25) {
			at = cuts[i-1] + r.between(0, 3*time.Second) // overlapping
			cuts[i] = at
		}
		p := s.purge(r, at)
		if r.chance(15) { // the same once more, by somebody else
			p.Who, p.At = r.IntN(s.Purgers), p.At+r.between(0, 10*time.Second)
			s.Steps = append(s.Steps, p)
		}
	}
	for range 5 + r.IntN(40) {
		s.get(r, cuts, length)
	}
	// Trouble: several kinds at most, so that each has quiet around it too.
	trouble := []func(drawer, time.Duration){
		s.recorderTrouble, s.recorderTrouble, s.purgerTrouble, s.purgerTrouble, s.storeTrouble, s.weather, s.words,
	}
	for range r.IntN(4) {
		f := pick(r, trouble...)
		for range 1 + r.IntN(3) {
			at := r.between(0, length)
			switch { // near a cut is where it matters
			case r.chance(30):
				at = max(0, pick(r, cuts...)+r.between(-200*time.Millisecond, time.Second))
			case r.chance(60):
				at = max(0, pick(r, cuts...)+r.between(-5*time.Second, 8*time.Second))
			}
			f(r, at)
		}
	}
	if r.chance(60) {
		s.Steps = append(s.Steps, Step{At: 0, Do: Purger, Who: r.IntN(s.Purgers)})
	}
	if r.chance(2) { // an hour of virtual time costs as much as a hundred short histories
		s.hours(r, length)
	}
	if slices.ContainsFunc(s.Servers, func(x Server) bool { return x.Logs }) {
		for range 1 + r.IntN(2) {
			s.Steps = append(s.Steps, Step{At: r.between(length/3, length+time.Minute), Do: Import, For: pick(r, 0, time.Hour)})
		}
	}
	if r.chance(30) {
		s.Upper = 1 + r.IntN(s.Edges)
		s.Renew = s.Tiers > 1 && r.chance(50)
	}
	switch {
	case s.Upper > 0 && r.chance(30):
		s.repeat(r)
		s.harsh(r)
	case r.chance(5):
		s.repeat(r)
	}
	s.sort()
	return s
}

// repeat has all that is purged go out once more.
func (s *Script) repeat(r drawer) {
	for i := range s.Steps {
		if st := &s.Steps[i]; st.Do == Purge || st.Do == Send {
			st.Repeat = r.between(1, time.Minute)
		}
	}
}

// harsh has edges be filled again while they purge, by many requests. What is cancelled
// would not go out once more, and others may rely on it.
func (s *Script) harsh(r drawer) {
	s.Harsh = true
	s.Effect = r.between(2*time.Second, 6*time.Second)
	s.Steps = slices.DeleteFunc(s.Steps, func(x Step) bool { return x.Do == Cancel })
	var cuts []time.Duration
	for _, st := range s.Steps {
		if st.Do == Purge || st.Do == Send {
			cuts = append(cuts, st.At)
		}
	}
	for range 10 + r.IntN(30) {
		s.Steps = append(s.Steps, Step{Do: Get, Edge: r.IntN(s.Edges), Page: r.IntN(len(s.Pages)), Who: r.IntN(len(s.Servers)),
			At: pick(r, cuts...) + r.between(0, 12*time.Second), For: r.between(time.Millisecond, 300*time.Millisecond)})
	}
}

func (s *Script) has(kinds ...Kind) bool {
	return slices.ContainsFunc(s.Steps, func(x Step) bool { return slices.Contains(kinds, x.Do) })
}

func (s *Script) sort() {
	slices.SortStableFunc(s.Steps, func(a, b Step) int { return int(a.At - b.At) })
}

func (s *Script) pages(r drawer) {
	n := 3 + r.IntN(10)
	for _, i := range r.Perm(len(paths))[:n] {
		s.Pages = append(s.Pages, Page{Path: paths[i],
			MaxAge: pick(r, 0, 0, 86400, 86400, 600, 45, 10), Tags: pick(r, tagSets...)})
	}
}

func (s *Script) get(r drawer, cuts []time.Duration, length time.Duration) {
	g := Step{Do: Get, Edge: r.IntN(s.Edges), Page: r.IntN(len(s.Pages)), Who: r.IntN(len(s.Servers))}
	g.At = r.between(0, length)
	if r.chance(50) {
		g.At = max(0, pick(r, cuts...)+r.between(-6*time.Second, 4*time.Second))
	}
	g.For = r.between(time.Millisecond, 300*time.Millisecond)
	drains := 20
	switch {
	case r.chance(25):
		g.For = r.between(0, 25*time.Second)
	case r.chance(20): // as late as can be without being known for a straggler
		g.At = max(0, pick(r, cuts...)+r.between(-2*time.Second, 200*time.Millisecond))
		drains = 80
	}
	switch {
	case r.chance(drains):
		g.Drain = r.between(0, 1900*time.Millisecond)
	case r.chance(20):
		g.Stream = true
	}
	if r.chance(2) {
		g.Text = pick(r, "remove", "ttl")
	}
	s.Steps = append(s.Steps, g)
	if r.chance(8) {
		s.Steps = append(s.Steps, Step{At: r.between(0, length), Do: Retag, Page: g.Page, Text: pick(r, tagSets...)})
	}
}

// purge draws somebody's purge at an instant, or plan file that is sent then, and
// returns its last step.
func (s *Script) purge(r drawer, at time.Duration) Step {
	p := Step{At: at, Do: Purge, Who: r.IntN(s.Purgers)}
	sel := &p.Selector
	switch r.IntN(10) {
	case 0:
		sel.All = true
	case 1:
		sel.Patterns = []string{"/*"}
	case 2:
		sel.Prefixes = []string{pick(r, "/a", "/a/", "/b/", "/")}
	case 3:
		sel.Tags = []string{pick(r, "x", "y", "z")}
	case 4:
		sel.Regexps = []string{pick(r, `^/a`, `\.png$`, `/[bc]`, `x=1`)}
	case 5:
		for range 1 + r.IntN(3) {
			sel.Patterns = append(sel.Patterns, pick(r, s.Pages...).Path)
		}
	default:
		for range 1 + r.IntN(2) {
			sel.Patterns = append(sel.Patterns, pick(r, "*.png", "/a/*", "/b/*", "/a*", "*/b*", "/a/*c*", "/*/a*", "*?x=1"))
		}
	}
	if r.chance(15) && !sel.All {
		sel.Exclude = []string{pick(r, "/a/b", "*.png", "/b/*", "*x=1")}
	}
	if r.chance(10) && len(sel.Tags) == 0 {
		sel.Tags = []string{pick(r, "x", "y")}
	}
	p.Now = r.chance(35)
	p.Settle = pick(r, 0, 0, time.Second, 5*time.Second)
	p.Exact = r.chance(15)
	p.Assume = r.chance(25)
	p.Batch = pick(r, 0, 0, 0, 1, 2)
	if r.chance(20) {
		made := p
		made.Do, made.Text, made.Budget = Plan, fmt.Sprint("file ", len(s.Steps)), pick(r, "", "1", "3", "100%")
		made.Who, made.At = r.IntN(s.Purgers), max(0, at-pick(r, 100*time.Millisecond, r.between(0, time.Minute)))
		made.Assume = made.Assume || r.chance(50)
		s.Steps = append(s.Steps, made)
		p = Step{At: at, Do: Send, Who: p.Who, Now: p.Now, Settle: p.Settle, Text: made.Text}
	}
	s.Steps = append(s.Steps, p)
	if r.chance(5) {
		s.Steps = append(s.Steps, Step{At: at + r.between(0, 10*time.Second), Do: Cancel})
	}
	return p
}

// hours draws what happens hours later: logs are read, of a time in which recorders
// were cut off or nobody had one.
func (s *Script) hours(r drawer, length time.Duration) {
	s.Quiet = Quiet{length + time.Minute, length + r.between(65*time.Minute, 2*time.Hour)}
	late := s.Quiet.Until + time.Minute
	switch r.IntN(3) {
	case 0:
		for i := range s.Servers {
			s.Servers[i].Logs = true
		}
	case 1:
		for who := range s.Servers {
			at := r.between(0, length)
			s.Steps = append(s.Steps, Step{Do: Cut, At: at, Who: who, For: late - at + r.between(-time.Minute, 2*time.Minute)})
		}
	default:
		at := r.between(0, length)
		s.Steps = append(s.Steps, Step{Do: StopPurger, At: at, Who: r.IntN(s.Purgers), Ops: r.IntN(40), For: late - at})
	}
	var cuts []time.Duration
	for range 1 + r.IntN(2) {
		at := late + r.between(-time.Minute, 2*time.Minute)
		cuts = append(cuts, at)
		s.purge(r, at)
	}
	for range r.IntN(10) {
		s.get(r, cuts, length)
	}
	for range 1 + r.IntN(3) {
		s.Steps = append(s.Steps, Step{Do: Import, At: late + r.between(-time.Minute, 4*time.Minute),
			Text: pick(r, "", "all", "all", "again", "again", "half"), For: pick(r, 0, 0, time.Hour)})
	}
}

func (s *Script) recorderTrouble(r drawer, at time.Duration) {
	who := r.IntN(len(s.Servers))
	st := Step{At: at, Who: who}
	switch r.IntN(6) {
	case 0, 1:
		st.Do, st.Ops = Kill, pick(r, 0, r.IntN(12))
		if r.chance(60) {
			s.Steps = append(s.Steps, Step{At: at + r.between(0, 30*time.Second), Do: Open, Who: who})
		}
	case 2:
		st.Do = Close
		if r.chance(60) {
			s.Steps = append(s.Steps, Step{At: at + r.between(0, 15*time.Second), Do: Open, Who: who})
		}
	case 3, 4:
		st.Do, st.For = Cut, r.between(0, 30*time.Second)
	default:
		st.Do, st.For, st.Ops = Stall, r.between(0, 15*time.Second), 1+r.IntN(3)
	}
	s.Steps = append(s.Steps, st)
}

func (s *Script) purgerTrouble(r drawer, at time.Duration) {
	st := Step{At: at, Who: r.IntN(s.Purgers), Ops: r.IntN(40)}
	st.Do = KillPurger
	if r.chance(45) {
		st.Do, st.For = StopPurger, r.between(0, 50*time.Second)
	}
	s.Steps = append(s.Steps, st, Step{At: at + r.between(0, 40*time.Second), Do: Purger, Who: r.IntN(s.Purgers)})
}

func (s *Script) storeTrouble(r drawer, at time.Duration) {
	st := Step{At: at}
	switch r.IntN(8) {
	case 0, 1:
		st.Do, st.Ops = Back, 1+r.IntN(pick(r, 3, 30))
	case 2:
		st.Do = Empty
	default:
		st.Do, st.For = Outage, r.between(0, 20*time.Second)
	}
	s.Steps = append(s.Steps, st)
}

func (s *Script) weather(r drawer, at time.Duration) {
	s.Steps = append(s.Steps, Step{At: at, Do: Weather, For: r.between(0, 30*time.Second),
		Text: pick(r, "unavailable", "throttling", "lost answers", "lost requests", "slow", "lag", "mixed")})
}

func (s *Script) words(r drawer, at time.Duration) {
	s.Steps = append(s.Steps, Step{At: at, Do: Claim, Who: r.IntN(len(s.Servers)), Page: r.IntN(len(s.Pages)),
		For: pick(r, 0, 0, 5*time.Second)})
}
