// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package simulator is a CloudFront to test against: the control API for invalidations as REST-XML,
// which the AWS SDKs and the AWS CLI talk to unchanged, and a number of edges that cache an origin by
// CloudFront's rules and process every invalidation at a moment of their own.
//
// It is used like httptest. In process, without sockets (and so inside a testing/synctest bubble):
//
//	sim, err := simulator.New(origin, nil)
//	defer sim.Close()
//	client := &http.Client{Transport: sim.Transport()} // http://api.simulator, http://edge0.simulator, ...
//
// or on real ports, with Listen and URLs.
//
// The distribution is that of Options.Config, in CloudFront's own words, which LoadConfig also reads from
// what the AWS CLI prints of a real one: behaviours with their cache and origin request policies, origins,
// error pages, tags. Options.Rules are a shorter way to say what is kept, and for how long. Objects have
// variants as the policies say, ranges are served and kept, and with Options.Regional there are two tiers
// of caches. docs/http-cache-tests.md in the repository tells how an edge differs from a cache as RFC 9111 has it.
//
// The control API can be as strict and as bad as CloudFront's: Options.Limits are its quotas, in each reading
// of what AWS says of them, Options.Timing how long an invalidation takes (RealisticTiming), Options.Weather
// what goes wrong by itself, Options.Foreign what somebody else invalidates, and Options.Intercept has a test
// choose what becomes of each call. Afterwards Invalidations, Billed, Log and Refusals tell what happened, and
// whose fault a refusal was.
//
// Where AWS does not say what CloudFront does, the simulator does what is worst for its user, or has
// an option for it: a fetch that is under way when an invalidation is processed is stored when it ends, in
// each tier, a reference used again with its items in another order is a conflict, and Options.SpareDirectory
// and Options.SpareDoubtful leave objects alone whose removal is in doubt. Options.Harsh and
// Options.TiersIgnoreAge are about tiers.
//
// What it does not do: compress (Compress is only described), fail over between origins, apply response
// headers policies, functions, signed URLs, geographic restrictions and viewer certificates, find out
// countries and devices (CloudFront-Viewer-Country and the like are what a request says itself), evict, and pass on trailers and upgrades.
package simulator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/lifetime"
)

// DefaultDistribution is the distribution ID when Options name none.
const DefaultDistribution = "E2SIMULATOR000"

// Options configure a Simulator. The zero value of every field is usable.
type Options struct {
	// Distribution is the ID that the control API knows. Default DefaultDistribution.
	Distribution string
	// Tenants are the distribution tenants that the control API knows. An invalidation for a tenant
	// is listed under the tenant and reaches the same edges.
	Tenants []string
	// Aliases are the alternate domain names in the distribution's configuration. The edges answer
	// to any host.
	Aliases []string

	// Config describes the distribution in CloudFront's own words, in place of Rules, OriginPath,
	// DefaultRootObject, TagHeader and Aliases, which are the short way.
	Config *Config

	// Edges is the number of edges, each with a cache of its own. Default 3.
	Edges int
	// Regional is the number of regional caches; edge i asks the one of number i modulo Regional, and
	// that one the origin. Default 0: the edges ask the origin. What is not cached, OPTIONS included,
	// skips the regional caches
	// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/HowCloudFrontWorks.html).
	Regional int
	// Harsh has regional caches process an invalidation at any moment, like the edges, so that an edge
	// that has processed it may be filled again with what it removed. AWS does not say whether that
	// can happen. Without it no edge processes an invalidation before its regional cache.
	Harsh bool
	// TiersIgnoreAge has an edge keep what a regional cache gives it for the whole lifetime again.
	// AWS does not say whether it does. Without it the time in the regional cache counts.
	TiersIgnoreAge bool
	// KeepForErrors has the edges keep also what they must not serve to a second viewer (no-store, private,
	// no-cache or max-age=0 with a minimum TTL of 0), to serve it when the origin fails, as
	// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/Expiration.html says.
	KeepForErrors bool
	// EnforceHTTPS applies the ViewerProtocolPolicy of a Config. Listen has no TLS; in process, a viewer
	// that asks https://edge0.simulator uses it.
	EnforceHTTPS bool
	// RootKeyIsIndex has "/" cached under the name of the default root object, of which AWS does not say
	// whether it is so. Without it the object is cached under "/".
	RootKeyIsIndex bool
	// AccessLog, if not nil, gets a line for each request that an edge has answered, as a standard log
	// has it; the file name of CloudFront's logs has the distribution, not the line. One Write is a line,
	// the first one with the header. After an error nothing more is written, and Close returns it.
	AccessLog io.Writer

	// Rules decide what an edge keeps and for how long, and which query parameters name an object.
	// Tiers does not matter: an edge asks the origin itself. They must not be changed afterwards.
	// Default lifetime.DefaultRules.
	Rules *lifetime.Rules
	// OriginPath is put before the path of every request to the origin, such as "/production".
	OriginPath string
	// OriginTimeout is how long the origin may take to begin its answer; then the answer is 504.
	// Default 30 s, as CloudFront's
	// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/DownloadDistValuesOrigin.html).
	OriginTimeout time.Duration
	// DefaultRootObject is what the origin is asked for in place of "/", such as "index.html".
	DefaultRootObject string
	// TagHeader is the response header from which cache tags are taken. Without it no object has
	// tags, and "#tag" items are accepted and remove nothing.
	TagHeader string
	// SpareDirectory makes "/dir/*" leave "/dir/" alone, as was seen in
	// https://github.com/pulumi/docs/pull/21786. "/*" still removes "/".
	SpareDirectory bool
	// SpareDoubtful has an item remove a path only where AWS confirms that it does, as
	// cfpath.Item.MatchesSurely says. It includes SpareDirectory.
	SpareDoubtful bool

	// Propagation is the longest time until an edge processes an invalidation; each edge draws its
	// own below it. Default 300 ms; negative: every edge has processed it before the call is answered.
	Propagation time.Duration
	// Completion is the time from the last edge until GetInvalidation says Completed. Default 200 ms;
	// negative: none.
	Completion time.Duration
	// Timing, in place of Propagation and Completion, draws from distributions with a long tail;
	// RealisticTiming is CloudFront's.
	Timing Timing
	// Limits are what the control API accepts.
	Limits Limits
	// Weather is what goes wrong with the control API by itself.
	Weather Weather
	// Foreign is what somebody else invalidates meanwhile, from New until Close.
	Foreign Foreign
	// ReferenceMemory is how long a caller reference is remembered, from the creation of its
	// invalidation; afterwards it begins a new one, which is billed. 0: for ever. AWS does not say.
	ReferenceMemory time.Duration
	// ReorderedIsSame has a reference used again with the same items in another order return the first
	// invalidation; otherwise that is a conflict. AWS does not say.
	ReorderedIsSame bool
	// SigningRegion is the region that requests must be signed for, "*" for any. Default us-east-1, which
	// the SDKs use for CloudFront wherever the caller is
	// (https://docs.aws.amazon.com/general/latest/gr/cf_region.html), but not all of them once the
	// endpoint is overridden: then the caller's region must be set to it.
	SigningRegion string
	// Intercept, if not nil, sees every call of the control API before it is carried out, and may
	// make it go wrong. It may read r.Body and is called concurrently.
	Intercept func(op string, r *http.Request) *Fault
	// Seed decides everything random: IDs, delays, weather, what somebody else does.
	Seed uint64
}

// Simulator is one simulated distribution. Its methods may be called from any goroutine.
type Simulator struct {
	opts   Options
	rules  lifetime.Rules
	origin http.RoundTripper
	domain string
	born   time.Time
	config *Config
	edges  []*edge
	upper  []*edge // the regional caches
	log    *accessLog

	behaviors    map[*lifetime.Behavior]*behavior
	pages        map[int]CustomErrorResponse
	tagHeader    string
	originPrefix string // path of the origin's URL

	ctx    context.Context
	cancel context.CancelFunc
	active sync.WaitGroup // requests and goroutines that Close waits for

	mu         sync.Mutex
	closed     bool
	rand       *rand.Rand                // decides about invalidations
	noise      *rand.Rand                // decides about nothing
	ids        map[string]*invalidation  // by scope and ID
	refs       map[string]*invalidation  // by scope and reference
	byScope    map[scope][]*invalidation // oldest first
	all        []*invalidation           // oldest first
	calls      map[string]int            // by operation
	quotas     map[quotaKey]*quota
	sky        sky
	callLog    []Call
	servers    []*http.Server
	foreigners int // invalidations that somebody else asked for
	api        string
	urls       []string
}

// New returns a simulator whose edges fetch from origin, which is called in process. With a nil origin
// there is only the control API, and the edges answer 502. A nil opts means the defaults.
// The caller must Close it.
func New(origin http.Handler, opts *Options) (*Simulator, error) {
	s, err := build(opts)
	if err != nil {
		return nil, err
	}
	if origin != nil {
		s.origin = &handlerTransport{handler: origin, sim: s}
	}
	return s, nil
}

// NewForURL returns a simulator whose edges fetch from an origin over HTTP. The URL has a scheme
// (http or https) and a host; a path in it goes before Options.OriginPath.
func NewForURL(origin string, opts *Options) (*Simulator, error) {
	t, path, err := newURLTransport(origin)
	if err != nil {
		return nil, err
	}
	s, err := build(opts)
	if err != nil {
		return nil, err
	}
	s.origin = t
	s.originPrefix = path
	return s, nil
}

func build(opts *Options) (*Simulator, error) {
	s := &Simulator{
		ids:     map[string]*invalidation{},
		refs:    map[string]*invalidation{},
		byScope: map[scope][]*invalidation{},
		calls:   map[string]int{},
		quotas:  map[quotaKey]*quota{},
		born:    time.Now(),
	}
	if opts != nil {
		s.opts = *opts
	}
	o := &s.opts
	o.Tenants, o.Aliases = slices.Clone(o.Tenants), slices.Clone(o.Aliases)
	if o.Distribution == "" {
		o.Distribution = DefaultDistribution
	}
	if o.Edges == 0 {
		o.Edges = 3
	}
	if o.Timing != (Timing{}) && (o.Propagation != 0 || o.Completion != 0) {
		return nil, errors.New("simulator: there is a Timing beside Propagation or Completion: give either")
	}
	o.Propagation = orDefault(o.Propagation, 300*time.Millisecond)
	o.Completion = orDefault(o.Completion, 200*time.Millisecond)
	if o.OriginTimeout <= 0 {
		o.OriginTimeout = 30 * time.Second
	}
	for _, err := range []error{
		o.Limits.validate(), o.Weather.validate(), o.Foreign.validate(),
		o.Timing.Effect.validate("timing: Effect"), o.Timing.Status.validate("timing: Status"),
	} {
		if err != nil {
			return nil, fmt.Errorf("simulator: %w", err)
		}
	}
	if o.ReferenceMemory < 0 {
		return nil, fmt.Errorf("simulator: reference memory %v: give 0 for ever, or a positive time", o.ReferenceMemory)
	}
	o.Limits = o.Limits.withDefaults()
	o.Foreign.From = slices.Clone(o.Foreign.From)
	o.SigningRegion = cmp.Or(o.SigningRegion, "us-east-1")
	if o.Edges < 0 || o.Edges > 1000 {
		return nil, fmt.Errorf("simulator: %d edges: give 1 to 1000", o.Edges)
	}
	for _, id := range append([]string{o.Distribution}, o.Tenants...) {
		if id == "" || strings.ContainsAny(id, "/?# ") {
			return nil, fmt.Errorf("simulator: ID %q of a distribution or tenant: give letters and digits", id)
		}
	}
	if o.OriginPath != "" && (o.OriginPath[0] != '/' || strings.HasSuffix(o.OriginPath, "/")) {
		return nil, fmt.Errorf("simulator: origin path %q: it begins with / and does not end with it", o.OriginPath)
	}
	if strings.HasPrefix(o.DefaultRootObject, "/") {
		return nil, fmt.Errorf("simulator: default root object %q: give it without the leading /", o.DefaultRootObject)
	}
	if o.Regional < 0 || o.Regional > o.Edges {
		return nil, fmt.Errorf("simulator: %d regional caches: give 0 to %d, the number of edges", o.Regional, o.Edges)
	}
	if err := s.compile(); err != nil {
		return nil, err
	}
	if o.AccessLog != nil {
		s.log = &accessLog{w: o.AccessLog}
	}
	s.rand = rand.New(rand.NewPCG(o.Seed, 0))
	s.noise = rand.New(rand.NewPCG(o.Seed, 1))
	s.sky = sky{weather: o.Weather, rand: rand.New(rand.NewPCG(o.Seed, weatherStream))}
	s.domain = "d" + strings.ToLower(s.randomID(13)) + ".cloudfront.net"
	for i := range o.Regional {
		s.upper = append(s.upper, newEdge(s, 1000+i, nil))
	}
	for i := range o.Edges {
		var up *edge
		if o.Regional > 0 {
			up = s.upper[i%o.Regional]
		}
		s.edges = append(s.edges, newEdge(s, i, up))
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if o.Foreign.Rate > 0 {
		f, r := o.Foreign, rand.New(rand.NewPCG(o.Seed, foreignStream))
		s.goFunc(func() { s.runForeign(f, r) })
	}
	return s, nil
}

// Streams of randomness that no edge has.
const (
	weatherStream = 1<<32 + iota
	foreignStream
)

func orDefault(d, def time.Duration) time.Duration {
	switch {
	case d < 0:
		return 0
	case d == 0:
		return def
	}
	return d
}

// API returns the handler of the control API. A fault that drops the connection panics with
// http.ErrAbortHandler, as net/http expects it.
func (s *Simulator) API() http.Handler { return http.HandlerFunc(s.serveAPI) }

// Edge returns the handler of edge i, from 0. It panics if there is no such edge.
func (s *Simulator) Edge(i int) http.Handler { return s.edges[i] }

// Edges returns the number of edges.
func (s *Simulator) Edges() int { return len(s.edges) }

// Listen binds the control API to addr and the edges to the ports after it, or, where the port of addr
// is 0, each to a free port. Nothing stays bound after an error.
func (s *Simulator) Listen(addr string) error {
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("simulator: listen address %q: give host:port: %w", addr, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return fmt.Errorf("simulator: listen address %q: the port is a number", addr)
	}
	handlers := []http.Handler{s.API()}
	for _, e := range s.edges {
		handlers = append(handlers, e)
	}
	var listeners []net.Listener
	closeAll := func() {
		for _, l := range listeners {
			_ = l.Close() // the error that led here matters more
		}
	}
	for i := range handlers {
		p := uint64(0)
		if port != 0 {
			p = port + uint64(i)
		}
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.FormatUint(p, 10)))
		if err != nil {
			closeAll()
			return fmt.Errorf("simulator: %w", err)
		}
		listeners = append(listeners, l)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.servers != nil {
		closeAll()
		if s.closed {
			return errors.New("simulator: listen after close")
		}
		return errors.New("simulator: it listens already")
	}
	for i, h := range handlers {
		srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
		l := listeners[i]
		u := "http://" + l.Addr().String()
		if i == 0 {
			s.api = u
		} else {
			s.urls = append(s.urls, u)
		}
		s.servers = append(s.servers, srv)
		s.active.Go(func() { _ = srv.Serve(l) }) // it returns when Close closes the server
	}
	return nil
}

// URLs returns where Listen has bound the control API and the edges; empty before Listen.
func (s *Simulator) URLs() (api string, edges []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.api, slices.Clone(s.urls)
}

// Transport returns a RoundTripper that calls the handlers in process: the host "api.simulator" is the
// control API, "edge0.simulator" the first edge, and so on. A dropped connection is an error.
func (s *Simulator) Transport() http.RoundTripper { return hostTransport{s} }

// Close ends everything that runs, origin requests included, and waits for it. Later requests get 503.
// It may be called again. It must not be called from a handler of the simulator or of its origin.
func (s *Simulator) Close() error {
	s.mu.Lock()
	s.closed = true
	servers := s.servers
	s.mu.Unlock()
	s.cancel()
	var errs []error
	for _, srv := range servers {
		errs = append(errs, srv.Close())
	}
	s.active.Wait()
	if c, ok := s.origin.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
	return errors.Join(append(errs, s.log.failure())...)
}

// enter begins something that Close waits for; it says no once Close has begun.
func (s *Simulator) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.active.Add(1)
	return true
}

// goFunc starts a goroutine that Close waits for; the caller is inside enter or holds s.mu unclosed.
func (s *Simulator) goFunc(f func()) { s.active.Go(f) }

// sleep waits for d, or until the context or the simulator ends; it says whether d has passed.
func (s *Simulator) sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-s.ctx.Done():
	}
	return false
}

// Object is what an edge holds of one path. It stays when it has expired, until it is replaced or
// removed, and serves when the origin fails.
type Object struct {
	Path    string // canonical, with the query parameters that are part of the key
	Variant string // headers and cookies that are part of the key, as "Name: value" lines
	Method  string // GET, HEAD (headers alone) or OPTIONS
	Status  int
	Header  http.Header
	Body    []byte // must not be changed
	Tags    []string
	Stored  time.Time // when the response had come in full, or was renewed
	Expires time.Time // until then it is served without asking the origin
	Stale   time.Time // until then it is served while it is being renewed; not before Expires
}

// Fresh says whether the edge would serve the object at t without asking the origin.
func (o Object) Fresh(t time.Time) bool { return t.Before(o.Expires) }

// Peek looks up what an edge holds for a GET of a request target, without touching it. Of several variants
// it is the first in the order of Variant.
func (s *Simulator) Peek(edge int, target string) (Object, bool) { return s.edges[edge].peek(target) }

// Objects lists what an edge holds, expired objects included, in the order of their paths and variants.
// A byte range of what is not held whole is an object with status 206.
func (s *Simulator) Objects(edge int) []Object { return s.edges[edge].list() }

// Regional lists what a regional cache holds, from 0, as Objects does for an edge.
func (s *Simulator) Regional(i int) []Object { return s.upper[i].list() }
