// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
)

// behavior is a cache behaviour as the edges use it. It does not change.
type behavior struct {
	rule    *lifetime.Behavior
	query   cfpath.QueryRule // parameters in the key
	forward cfpath.QueryRule // more parameters that the origin gets

	keyHeaders           []string // canonical, sorted
	keyCookies           selection
	gzip, brotli         bool
	headers              selection // more headers that the origin gets
	cookies              selection // more cookies that the origin gets
	legacy               bool      // also headers that nobody named reach the origin
	allowed              []string  // nil: all
	protocol             string    // ViewerProtocolPolicy
	origin               originSettings
	forwardsCookies      bool
	cacheable, cachesOPT bool
}

// originSettings are those of a behaviour's origin.
type originSettings struct {
	path     string
	host     string // empty: that of the address
	custom   []OriginCustomHeader
	attempts int
	timeout  time.Duration
}

// selection is a set of names.
type selection struct {
	mode  string // as in a policy; "" is none
	names []string
	globs bool // * and ? in names are wildcards
}

func (s selection) has(name string) bool {
	listed := slices.ContainsFunc(s.names, func(n string) bool { return n == name || s.globs && glob(n, name) })
	switch s.mode {
	case "all", "allViewer":
		return true
	case "allViewerAndWhitelistCloudFront":
		return listed || !strings.HasPrefix(name, "Cloudfront-")
	case "whitelist":
		return listed
	case "allExcept":
		return !listed
	}
	return false
}

func (s selection) any() bool { return s.mode != "" && s.mode != "none" }

func glob(pattern, s string) bool {
	for i := range len(pattern) {
		switch {
		case pattern[i] == '*':
			for j := i; j <= len(s); j++ {
				if glob(pattern[i+1:], s[j:]) {
					return true
				}
			}
			return false
		case i >= len(s), pattern[i] != '?' && pattern[i] != s[i]:
			return false
		}
	}
	return len(pattern) == len(s)
}

func canonical(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = textproto.CanonicalMIMEHeaderKey(n)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// compile makes rules and behaviours of Options.Config, or the other way round.
func (s *Simulator) compile() error {
	o := &s.opts
	if o.Config == nil {
		s.rules = lifetime.DefaultRules()
		if o.Rules != nil {
			s.rules = *o.Rules
		}
		if err := s.rules.Validate(); err != nil {
			return fmt.Errorf("simulator: %w", err)
		}
		s.config = configOf(o, &s.rules)
	} else {
		if o.Rules != nil || o.OriginPath != "" || o.DefaultRootObject != "" || o.TagHeader != "" || len(o.Aliases) > 0 {
			return errors.New("simulator: Options.Config says it all: leave out Rules, OriginPath, DefaultRootObject, TagHeader and Aliases")
		}
		if err := o.Config.Validate(); err != nil {
			return fmt.Errorf("simulator: %w", err)
		}
		s.config = o.Config
		s.rules = s.config.Rules()
		if err := s.rules.Validate(); err != nil {
			return fmt.Errorf("simulator: %w", err)
		}
	}
	s.behaviors = map[*lifetime.Behavior]*behavior{}
	s.addBehavior(&s.rules.Default, &s.config.DefaultCacheBehavior)
	for i := range s.config.CacheBehaviors {
		s.addBehavior(&s.rules.Behaviors[i], &s.config.CacheBehaviors[i])
	}
	s.pages = map[int]CustomErrorResponse{}
	for _, r := range s.config.CustomErrorResponses {
		if r.ResponsePagePath != "" {
			s.pages[r.ErrorCode] = r
		}
	}
	if t := s.config.CacheTagConfig; t != nil {
		s.tagHeader = t.HeaderName
	}
	return nil
}

// behavior finds the cache behaviour of a canonical path.
func (s *Simulator) behavior(path string) *behavior { return s.behaviors[s.rules.Match(path)] }

func (s *Simulator) addBehavior(rule *lifetime.Behavior, c *CacheBehavior) {
	origin, _ := s.config.origin(c.TargetOriginId)
	b := &behavior{
		rule: rule, query: rule.Query, protocol: c.ViewerProtocolPolicy,
		cachesOPT: rule.CacheOptions,
		cacheable: !rule.AllHeaders && (rule.MinTTL > 0 || rule.DefaultTTL > 0 || rule.MaxTTL > 0),
		origin: originSettings{
			path: origin.OriginPath, host: origin.DomainName, custom: origin.CustomHeaders, attempts: 1, timeout: s.opts.OriginTimeout,
		},
	}
	b.forward, _ = queryRule(QueryStringsConfig{}) // none
	s.behaviors[rule] = b
	if t := origin.CustomOriginConfig; t != nil && t.OriginReadTimeout > 0 {
		b.origin.timeout = time.Duration(t.OriginReadTimeout) * time.Second
	}
	if s.opts.Config == nil {
		b.legacy, b.origin.host = true, ""
		if rule.AllHeaders {
			b.headers = selection{mode: "allViewer"}
		}
		return
	}
	b.origin.attempts = cmp.Or(origin.ConnectionAttempts, 3)
	b.allowed = c.methods()
	if p, ok := s.config.CachePolicy(c.CachePolicyId); ok {
		k := p.CachePolicyConfig.ParametersInCacheKeyAndForwardedToOrigin
		if k.HeadersConfig.HeaderBehavior == "whitelist" {
			b.keyHeaders = canonical(k.HeadersConfig.Headers)
		}
		b.keyCookies = selection{mode: k.CookiesConfig.CookieBehavior, names: k.CookiesConfig.Cookies}
		b.gzip, b.brotli = k.EnableAcceptEncodingGzip, k.EnableAcceptEncodingBrotli
	} else if f := c.ForwardedValues; f != nil {
		b.legacy, b.gzip = true, c.Compress
		if f.QueryString {
			b.forward, _ = queryRule(QueryStringsConfig{QueryStringBehavior: "all"})
		}
		b.keyCookies = selection{f.Cookies.Forward, f.Cookies.WhitelistedNames, true}
		if slices.Contains(f.Headers, "*") {
			b.headers = selection{mode: "allViewer"}
		} else {
			b.keyHeaders = canonical(f.Headers)
		}
	}
	if p, ok := s.config.OriginRequestPolicy(c.OriginRequestPolicyId); ok {
		c := &p.OriginRequestPolicyConfig
		b.forward, _ = queryRule(c.QueryStringsConfig)
		b.headers = selection{mode: c.HeadersConfig.HeaderBehavior, names: canonical(c.HeadersConfig.Headers)}
		b.cookies = selection{mode: c.CookiesConfig.CookieBehavior, names: c.CookiesConfig.Cookies}
	}
	if b.gzip || b.brotli {
		b.keyHeaders = slices.DeleteFunc(b.keyHeaders, func(n string) bool { return n == "Accept-Encoding" })
	}
	b.forwardsCookies = b.keyCookies.any() || b.cookies.any()
}

// Rules are what a Config says about lifetimes and about the query parameters in the key. The Config is valid.
func (c *Config) Rules() lifetime.Rules {
	r := lifetime.Rules{Default: ruleOf(c, &c.DefaultCacheBehavior), ErrorTTL: lifetime.DefaultErrorTTL, Tiers: lifetime.DefaultTiers}
	for i := range c.CacheBehaviors {
		r.Behaviors = append(r.Behaviors, ruleOf(c, &c.CacheBehaviors[i]))
	}
	for _, e := range c.CustomErrorResponses {
		if r.ErrorTTLs == nil {
			r.ErrorTTLs = map[int]time.Duration{}
		}
		r.ErrorTTLs[e.ErrorCode] = lifetime.DefaultErrorTTL
		if e.ErrorCachingMinTTL != nil {
			r.ErrorTTLs[e.ErrorCode] = time.Duration(*e.ErrorCachingMinTTL) * time.Second
		}
	}
	return r
}

func ruleOf(c *Config, b *CacheBehavior) lifetime.Behavior {
	rule := lifetime.Behavior{CacheOptions: slices.Contains(b.cachedMethods(), http.MethodOptions)}
	if b.PathPattern != "" && b.PathPattern != "*" {
		rule.Pattern, _ = cfpath.ParsePattern(b.PathPattern) // it was validated
	}
	var low, def, high int64
	var query QueryStringsConfig
	if p, ok := c.CachePolicy(b.CachePolicyId); ok {
		low, def, high = p.CachePolicyConfig.TTLs()
		query = p.CachePolicyConfig.ParametersInCacheKeyAndForwardedToOrigin.QueryStringsConfig
	} else if f := b.ForwardedValues; f != nil {
		low, def, high = ttls(b.MinTTL, b.DefaultTTL, b.MaxTTL)
		rule.AllHeaders = slices.Contains(f.Headers, "*")
		switch {
		case f.QueryString && len(f.QueryStringCacheKeys) > 0:
			query = QueryStringsConfig{"whitelist", f.QueryStringCacheKeys}
		case f.QueryString:
			query.QueryStringBehavior = "all"
		}
	}
	rule.Query, _ = queryRule(query)
	rule.MinTTL, rule.DefaultTTL, rule.MaxTTL = time.Duration(low)*time.Second, time.Duration(def)*time.Second, time.Duration(high)*time.Second
	return rule
}

// configOf describes Options.Rules and what belongs to them as a Config.
func configOf(o *Options, r *lifetime.Rules) *Config {
	c := &Config{Aliases: o.Aliases, DefaultRootObject: o.DefaultRootObject, Origins: []Origin{{Id: originID, OriginPath: o.OriginPath}}}
	if o.TagHeader != "" {
		c.CacheTagConfig = &CacheTagConfig{o.TagHeader}
	}
	describe := func(rule *lifetime.Behavior, i int) CacheBehavior {
		b := CacheBehavior{TargetOriginId: originID, ViewerProtocolPolicy: "allow-all"}
		b.AllowedMethods.Items = []string{"HEAD", "DELETE", "POST", "GET", "OPTIONS", "PUT", "PATCH"}
		b.AllowedMethods.CachedMethods = []string{"HEAD", "GET"}
		if rule.CacheOptions {
			b.AllowedMethods.CachedMethods = append(b.AllowedMethods.CachedMethods, "OPTIONS")
		}
		low, def, high := seconds(rule.MinTTL), seconds(rule.DefaultTTL), seconds(rule.MaxTTL)
		if rule.AllHeaders { // only the older settings can say it
			b.MinTTL, b.DefaultTTL, b.MaxTTL = &low, &def, &high
			b.ForwardedValues = &ForwardedValues{QueryString: rule.Query.String() != "none", Cookies: CookiePreference{Forward: "none"}, Headers: []string{"*"}}
			return b
		}
		b.CachePolicyId = policyID(i)
		k := noParameters(false)
		k.QueryStringsConfig = queryConfig(rule.Query)
		c.CachePolicies = append(c.CachePolicies, CachePolicy{b.CachePolicyId, CachePolicyConfig{
			Name: fmt.Sprintf("behavior-%d", i), MinTTL: low, DefaultTTL: &def, MaxTTL: &high, ParametersInCacheKeyAndForwardedToOrigin: k,
		}})
		return b
	}
	c.DefaultCacheBehavior = describe(&r.Default, 0)
	for i := range r.Behaviors {
		b := describe(&r.Behaviors[i], i+1)
		b.PathPattern = r.Behaviors[i].Pattern.String()
		c.CacheBehaviors = append(c.CacheBehaviors, b)
	}
	// CloudFront has no default to set in place of its 10 s.
	errorTTLs := map[int]time.Duration{}
	if t := r.ErrorTTL; t != 0 && t != lifetime.DefaultErrorTTL {
		for _, status := range pageStatuses {
			errorTTLs[status] = t
		}
	}
	maps.Copy(errorTTLs, r.ErrorTTLs)
	for _, status := range slices.Sorted(maps.Keys(errorTTLs)) {
		t := seconds(errorTTLs[status])
		c.CustomErrorResponses = append(c.CustomErrorResponses, CustomErrorResponse{ErrorCode: status, ErrorCachingMinTTL: &t})
	}
	return c
}

func policyID(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", i) }

// queryRule is a selection of query parameters in the words of package cfpath.
func queryRule(q QueryStringsConfig) (cfpath.QueryRule, error) {
	escaped := make([]string, len(q.QueryStrings))
	for i, n := range q.QueryStrings {
		escaped[i] = strings.ReplaceAll(n, ",", "%2C")
	}
	names := strings.Join(escaped, ",")
	text := "none"
	switch {
	case q.QueryStringBehavior == "all", q.QueryStringBehavior == "allExcept" && names == "":
		text = "all"
	case q.QueryStringBehavior == "whitelist" && names != "":
		text = "include:" + names
	case q.QueryStringBehavior == "allExcept":
		text = "exclude:" + names
	}
	return cfpath.ParseQueryRule(text)
}

// queryConfig is a query rule in the words of a cache policy.
func queryConfig(r cfpath.QueryRule) QueryStringsConfig {
	kind, list, _ := strings.Cut(r.String(), ":")
	switch kind {
	case "include":
		kind = "whitelist"
	case "exclude":
		kind = "allExcept"
	default:
		return QueryStringsConfig{QueryStringBehavior: kind}
	}
	names := strings.Split(list, ",")
	for i, n := range names {
		names[i] = strings.ReplaceAll(n, "%2C", ",")
	}
	return QueryStringsConfig{kind, names}
}
