// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package lifetime decides whether CloudFront may keep a response, and how
// long. The rules are CloudFront's own, not those of HTTP caches in general:
// minimum, default and maximum TTL of the matching cache behaviour, error
// caching, and the stale directives. Pages that they come from:
//
//	https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/Expiration.html
//	https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/HTTPStatusCodes.html
//	https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/GeneratingCustomErrorResponses.html
//	https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/RequestAndResponseBehaviorCustomOrigin.html
//
// A [Verdict] is an upper bound: CloudFront may evict earlier, never keep
// longer. Wherever AWS does not say what happens, the longer answer is given,
// because an object that is thought to be cached costs an item at most, while
// one that is thought to be gone stays stale. In particular:
//
//   - an Age header is not subtracted, and every cache tier counts anew;
//   - a stated lifetime counts even beside no-cache, no-store or private;
//   - of two values of one directive the greater counts, and one that cannot be
//     read counts as whatever keeps longest: its leading digits, or its absence;
//   - the stale directives count beside anything, the longer of the two;
//   - a status with a custom error response is one that is cached without max-age
//     too, except for those that CloudFront never caches;
//   - Set-Cookie, Vary, Authorization and Pragma do not prevent anything;
//   - a response that was cut short counts like a whole one, since CloudFront
//     stores it, or the error it makes of it.
//
// Outside are the copies that CloudFront serves when an origin fails and that
// the response did not ask for with stale-if-error: a response that may not be
// reused, such as no-store with a minimum TTL of 0, is not kept here.
//
// Everything is pure. [Rules] may be used concurrently as long as nobody
// changes them.
package lifetime

import (
	"math"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

const (
	// DefaultErrorTTL is how long CloudFront keeps an error at least, where the
	// distribution does not say otherwise for its status.
	DefaultErrorTTL = 10 * time.Second

	// DefaultTiers is the number of cache tiers that every distribution has:
	// the edge locations and the regional edge caches. Origin Shield is one more.
	DefaultTiers = 2

	// DefaultMargin is how long the last byte of a response takes at most from whoever
	// recorded it to the last tier that keeps it. Its life counts from then, and until then
	// it can be stored although its path was purged.
	DefaultMargin = 2 * time.Second

	// MaxTiers is the largest number of tiers that [Rules.Validate] accepts.
	MaxTiers = 8
)

// Behavior is what one cache behaviour says about keeping responses. A zero
// Behavior keeps nothing; begin with [DefaultBehavior] or [ManagedPolicy].
type Behavior struct {
	// Pattern selects the paths. Ignored in Rules.Default.
	Pattern cfpath.Pattern
	// MinTTL <= DefaultTTL <= MaxTTL. All zero is the managed policy
	// CachingDisabled, under which errors are not cached either.
	MinTTL, DefaultTTL, MaxTTL time.Duration
	// Query says which query parameters are part of the cache key. It does not
	// bear on lifetimes, and is here because it is found by the same pattern.
	Query cfpath.QueryRule
	// CacheOptions: OPTIONS is among the cached methods.
	CacheOptions bool
	// AllHeaders: all headers are forwarded (settings without a cache policy), so
	// that nothing is cached.
	// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/header-caching.html
	AllHeaders bool
}

// DefaultBehavior has the TTLs of a cache policy that states none: 0, one day
// and one year. The whole query string is part of the key.
func DefaultBehavior() Behavior {
	return Behavior{DefaultTTL: 24 * time.Hour, MaxTTL: 365 * 24 * time.Hour}
}

// Rules are everything about a distribution that decides lifetimes. Begin with
// [DefaultRules]; check what was filled in with [Rules.Validate].
type Rules struct {
	// Behaviors in CloudFront's order: the first that matches wins.
	Behaviors []Behavior
	// Default is for the paths that none of Behaviors matches.
	Default Behavior
	// ErrorTTL is the error caching minimum TTL of the statuses that ErrorTTLs
	// does not list; 0 is DefaultErrorTTL, as CloudFront has it.
	ErrorTTL time.Duration
	// ErrorTTLs is the error caching minimum TTL by status, for each status that
	// has a custom error response. Here 0 is 0.
	ErrorTTLs map[int]time.Duration
	// Tiers is how many tiers of caches may, one after the other, start a
	// lifetime anew; 0 is DefaultTiers.
	Tiers int
}

// DefaultRules is a distribution with one behaviour, [DefaultBehavior].
func DefaultRules() Rules {
	return Rules{Default: DefaultBehavior(), ErrorTTL: DefaultErrorTTL, Tiers: DefaultTiers}
}

// Header is what is asked of a response's header. [net/http.Header] is one.
type Header interface {
	// Values returns the lines of a field; name is in canonical form.
	Values(name string) []string
}

// Response is what the origin answered.
type Response struct {
	// Method of the request, in capitals; "" is GET.
	Method string
	// Status of the answer; 0 is 200.
	Status int
	// Header of the answer; nil is an empty one.
	Header Header
	// End is when CloudFront had the response: Expires counts from it.
	End time.Time
}

// Verdict says how long CloudFront may keep a response, and why.
type Verdict struct {
	// Keep is false if CloudFront cannot serve the response to a second viewer
	// without asking the origin. Then all durations are 0.
	Keep bool
	// Lifetime is the whole: (TTL + Stale) for each tier, at most 292 years.
	Lifetime time.Duration
	// TTL is how long one cache takes the response for fresh.
	TTL time.Duration
	// Stale is how long one cache may serve it after that, as the response
	// allows with stale-while-revalidate or stale-if-error.
	Stale time.Duration
	// Reason is one of the Reason constants.
	Reason string
}

// Reasons, short and stable.
const (
	// Kept; where TTL is from.

	ReasonMaxAge  = "max-age"
	ReasonSMaxAge = "s-maxage"
	ReasonExpires = "expires"
	ReasonDefault = "default"      // nothing stated: the default TTL
	ReasonMin     = "min"          // the minimum TTL, being longer than what was stated
	ReasonMax     = "max"          // the maximum TTL, being shorter than what was stated
	ReasonError   = "error"        // the error caching minimum TTL
	ReasonStale   = "stale"        // never fresh, but may be served stale
	ReasonUnread  = "unreadable"   // stated, but not readable: the longest that it may mean
	ReasonRenewed = "not-modified" // a 304 that leaves in force what is not known here: the longest
	ReasonUnknown = "unknown"      // headers not known: the longest

	// Kept for the minimum TTL in spite of a directive.

	ReasonMinOverNoStore = "min-over-no-store"
	ReasonMinOverPrivate = "min-over-private"
	ReasonMinOverNoCache = "min-over-no-cache"

	// Not kept.

	ReasonNoStore    = "no-store"
	ReasonPrivate    = "private"
	ReasonNoCache    = "no-cache"
	ReasonZero       = "zero-ttl"
	ReasonMethod     = "method"
	ReasonStatus     = "not-cacheable-status"
	ReasonErrorNoAge = "error-without-max-age" // a status that is cached only with max-age or s-maxage
	ReasonNoCaching  = "caching-disabled"      // all TTLs of the behaviour are 0
	ReasonAllHeaders = "all-headers"
)

// Match returns the behaviour that a path falls under: the first of Behaviors
// whose pattern matches, else Default. The path is canonical, with or without
// its query.
func (r *Rules) Match(path string) *Behavior {
	for i := range r.Behaviors {
		if r.Behaviors[i].Pattern.Matches(path) {
			return &r.Behaviors[i]
		}
	}
	return &r.Default
}

// Of decides about one response to a request for path.
//
// A 304 renews what CloudFront has. Its own Cache-Control counts where it has
// max-age, s-maxage, no-store, private or no-cache. Otherwise the stored
// response's goes on, which only a cache that holds it knows: such a cache
// merges the headers and asks as for a 200; all others get the longest.
func (r *Rules) Of(path string, resp Response) Verdict {
	b := r.Match(path)
	if why := b.refuses(resp.Method); why != "" {
		return Verdict{Reason: why}
	}
	k := kindOf(resp.Status)
	if k == notCached {
		return Verdict{Reason: ReasonStatus}
	}
	var c control
	var expires []string
	if resp.Header != nil {
		c = parseControl(resp.Header.Values("Cache-Control"))
		if !c.stated() || c.unread { // else max-age and s-maxage win
			expires = resp.Header.Values("Expires")
		}
	}
	s := c.lifetime(expires, resp)
	stale := min(max(c.staleRevalidate, c.staleIfError), max(b.MaxTTL, 0))
	switch k {
	case cachedIfAged, cachedError:
		ttl, listed := r.errorTTL(resp.Status)
		if k == cachedIfAged && !listed && !c.stated() {
			return Verdict{Reason: ReasonErrorNoAge}
		}
		why := ReasonError
		if s = s.atMost(b.MaxTTL); s.ttl > ttl {
			ttl, why = s.ttl, s.reason
		}
		return r.verdict(ttl, stale, why)
	case renews:
		if !c.stated() && c.forbids == "" {
			return r.longest(b, b.longestTTL(), ReasonRenewed)
		}
	}
	ttl, why := b.ttl(s, &c)
	return r.verdict(ttl, stale, why)
}

// QueryInDoubt tells of a path with a query whether AWS leaves open how an
// invalidation must spell it: where only some of its parameters are in the cache
// key, AWS says neither that all belong in the item nor that only those do.
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/invalidation-specifying-objects.html
func (r *Rules) QueryInDoubt(path string) bool {
	_, _, query := cfpath.Split(path)
	return query && r.Match(path).Query.Reduces()
}

// Unknown is the verdict on a response of which only the path is known: the
// maximum TTL of the behaviour in every tier. That the response may have allowed
// CloudFront to serve it stale for longer is not counted; whoever allows that and
// records from logs states a lifetime.
func (r *Rules) Unknown(path string) Verdict {
	b := r.Match(path)
	if why := b.refuses(""); why != "" {
		return Verdict{Reason: why}
	}
	return r.verdict(b.longestTTL(), 0, ReasonUnknown)
}

// UnknownError is Unknown where the status is known too. An error may have had
// a max-age, so one that CloudFront caches at all, be it only with max-age,
// counts as having had the longest. Below 400 it is Unknown, except for 1xx;
// 0 is a status that is not known.
func (r *Rules) UnknownError(path string, status int) Verdict {
	switch kindOf(status) {
	case notCached:
		return Verdict{Reason: ReasonStatus}
	case cachedIfAged, cachedError:
		b := r.Match(path)
		if why := b.refuses(""); why != "" {
			return Verdict{Reason: why}
		}
		ttl, _ := r.errorTTL(status)
		return r.verdict(max(ttl, b.MaxTTL), 0, ReasonUnknown)
	}
	return r.Unknown(path)
}

// Longest is the longest Lifetime that any verdict under these rules can have.
// What was cached earlier than this ago is gone, unless its lifetime was set
// explicitly.
func (r *Rules) Longest() time.Duration {
	errorTTL := r.ErrorTTL
	if errorTTL == 0 {
		errorTTL = DefaultErrorTTL
	}
	for _, ttl := range r.ErrorTTLs {
		errorTTL = max(errorTTL, ttl)
	}
	longest := time.Duration(0)
	for i := range len(r.Behaviors) + 1 {
		b := &r.Default
		if i < len(r.Behaviors) {
			b = &r.Behaviors[i]
		}
		if b.refuses("") == "" {
			longest = max(longest, r.longest(b, max(errorTTL, b.longestTTL()), "").Lifetime)
		}
	}
	return longest
}

// verdict keeps a response for ttl, and then stale, in every tier.
func (r *Rules) verdict(ttl, stale time.Duration, reason string) Verdict {
	switch ttl = max(ttl, 0); {
	case ttl > 0:
	case stale > 0:
		reason = ReasonStale
	case reason == ReasonNoStore || reason == ReasonPrivate || reason == ReasonNoCache:
		return Verdict{Reason: reason}
	default:
		return Verdict{Reason: ReasonZero}
	}
	tiers := r.Tiers
	if tiers <= 0 {
		tiers = DefaultTiers
	}
	v := Verdict{Keep: true, Lifetime: math.MaxInt64, TTL: ttl, Stale: stale, Reason: reason}
	if most := math.MaxInt64 / time.Duration(tiers); ttl <= most && stale <= most-ttl {
		v.Lifetime = (ttl + stale) * time.Duration(tiers)
	}
	return v
}

// longest is the verdict for what may have carried any stale directive.
func (r *Rules) longest(b *Behavior, ttl time.Duration, reason string) Verdict {
	return r.verdict(ttl, max(b.MaxTTL, 0), reason)
}

// errorTTL is the error caching minimum TTL of a status, and whether the
// distribution has a custom error response for it.
func (r *Rules) errorTTL(status int) (ttl time.Duration, listed bool) {
	if ttl, listed = r.ErrorTTLs[status]; !listed {
		if ttl = r.ErrorTTL; ttl == 0 {
			ttl = DefaultErrorTTL
		}
	}
	return ttl, listed
}

// refuses gives the reason why nothing is cached for a method, or "".
func (b *Behavior) refuses(method string) string {
	switch {
	case b.AllHeaders:
		return ReasonAllHeaders
	case b.MinTTL <= 0 && b.DefaultTTL <= 0 && b.MaxTTL <= 0:
		return ReasonNoCaching
	case method == "" || method == "GET" || method == "HEAD" || method == "OPTIONS" && b.CacheOptions:
		return ""
	}
	return ReasonMethod
}

func (b *Behavior) longestTTL() time.Duration { return max(b.MinTTL, b.DefaultTTL, b.MaxTTL) }

// ttl is AWS's table of TTLs for everything but errors
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/Expiration.html#ExpirationDownloadDist).
func (b *Behavior) ttl(s statement, c *control) (time.Duration, string) {
	s = s.atMost(b.MaxTTL)
	none := statement{b.DefaultTTL, ReasonDefault}
	if c.forbids != "" {
		none = statement{0, c.forbids}
	}
	switch {
	case s.reason == "":
		s = none
	case c.unread:
		s.ttl = max(s.ttl, none.ttl)
	}
	switch {
	case s.ttl > 0 && s.ttl >= b.MinTTL:
		return s.ttl, s.reason
	case c.forbids == "":
		return b.MinTTL, ReasonMin
	case b.MinTTL <= 0:
		return 0, c.forbids
	}
	return b.MinTTL, minOver(c.forbids)
}

func minOver(directive string) string {
	switch directive {
	case ReasonNoStore:
		return ReasonMinOverNoStore
	case ReasonPrivate:
		return ReasonMinOverPrivate
	}
	return ReasonMinOverNoCache
}

// kind of status, as to caching.
type kind uint8

const (
	notCached    kind = iota
	cached            // by headers and TTLs
	renews            // cached, and what it does not state is as it was
	cachedError       // for the error caching minimum TTL at least
	cachedIfAged      // the same, but only with max-age or s-maxage
)

// kindOf knows the errors that CloudFront caches from
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/HTTPStatusCodes.html.
// Which of 2xx and 3xx it caches is not enumerated: all.
func kindOf(status int) kind {
	switch status {
	case 0:
		return cached
	case 304:
		return renews
	case 404, 414, 500, 501, 502, 503, 504:
		return cachedError
	case 400, 403, 405, 412, 415:
		return cachedIfAged
	}
	if 200 <= status && status < 400 {
		return cached
	}
	return notCached
}
