// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

// Config is a distribution in CloudFront's own words, as far as it decides what is cached, under which
// key, for how long, and what the origin is asked
// (https://docs.aws.amazon.com/cloudfront/latest/APIReference/API_DistributionConfig.html).
// Fields are named as there, and so are their values; times are whole seconds. [LoadConfig] reads one
// from a file. It must not be changed while a Simulator uses it.
type Config struct {
	Aliases              []string
	DefaultRootObject    string // without the leading /
	Origins              []Origin
	DefaultCacheBehavior CacheBehavior   // its PathPattern is empty
	CacheBehaviors       []CacheBehavior // the first that matches wins
	CustomErrorResponses []CustomErrorResponse
	CacheTagConfig       *CacheTagConfig // nil: no tags are taken

	// The account's own policies, beside those that AWS manages ([ManagedCachePolicies],
	// [ManagedOriginRequestPolicies]). They are no part of a DistributionConfig.
	CachePolicies         []CachePolicy
	OriginRequestPolicies []OriginRequestPolicy
}

// Origin is one of the origins. They all are the simulator's one origin: what tells them apart there is
// OriginPath, CustomHeaders and DomainName, which is the Host it is asked for unless the viewer's is forwarded.
type Origin struct {
	Id                 string
	DomainName         string
	OriginPath         string // such as "/production"
	CustomHeaders      []OriginCustomHeader
	ConnectionAttempts int // 1 to 3, default 3: how often a GET or HEAD that gets no answer is sent
	CustomOriginConfig *CustomOriginConfig
}

// OriginCustomHeader is a header that every request to an origin has, in place of the viewer's.
type OriginCustomHeader struct{ HeaderName, HeaderValue string }

// CustomOriginConfig is about origins that are not S3 buckets.
type CustomOriginConfig struct {
	OriginReadTimeout int // seconds, 0 is the Simulator's OriginTimeout
}

// CacheBehavior says what is cached of the paths that PathPattern matches. It has either a CachePolicyId,
// or ForwardedValues with TTLs of its own, which are the settings from before there were policies.
type CacheBehavior struct {
	PathPattern           string
	TargetOriginId        string // empty: the only origin
	ViewerProtocolPolicy  string // allow-all (default), redirect-to-https, https-only; see Options.EnforceHTTPS
	AllowedMethods        AllowedMethods
	Compress              bool   // described; the edges compress nothing themselves
	CachePolicyId         string // the ID, or the name
	OriginRequestPolicyId string // the ID, or the name
	ForwardedValues       *ForwardedValues
	MinTTL                *int64 // these three only beside ForwardedValues
	DefaultTTL            *int64
	MaxTTL                *int64
}

// AllowedMethods are the methods that reach the origin; others are answered 403. Empty is GET and HEAD.
type AllowedMethods struct {
	Items         []string
	CachedMethods []string // GET and HEAD, with or without OPTIONS
}

// ForwardedValues are the older settings of what is part of the cache key; all of it is forwarded too.
type ForwardedValues struct {
	QueryString          bool
	QueryStringCacheKeys []string // of the forwarded parameters, those in the key; empty: all
	Cookies              CookiePreference
	Headers              []string // "*": all, and nothing is cached
}

// CookiePreference says which cookies are forwarded; names may have * and ?.
type CookiePreference struct {
	Forward          string // none (default), whitelist, all
	WhitelistedNames []string
}

// CustomErrorResponse replaces an error of the origin, and says how long it is cached.
type CustomErrorResponse struct {
	ErrorCode          int
	ErrorCachingMinTTL *int64 // default 10
	ResponsePagePath   string // with ResponseCode, or both empty
	ResponseCode       int
}

// CacheTagConfig says where tags are taken from.
type CacheTagConfig struct{ HeaderName string }

// CachePolicy decides the cache key and the TTLs.
type CachePolicy struct {
	Id                string
	CachePolicyConfig CachePolicyConfig
}

// CachePolicyConfig is what a cache policy says.
type CachePolicyConfig struct {
	Name       string
	Comment    string
	MinTTL     int64
	DefaultTTL *int64 // default a day, or MinTTL if that is more
	MaxTTL     *int64 // default a year, or DefaultTTL if that is more

	ParametersInCacheKeyAndForwardedToOrigin CacheKeyParameters
}

// CacheKeyParameters are parts of the cache key, besides the path.
type CacheKeyParameters struct {
	EnableAcceptEncodingGzip   bool
	EnableAcceptEncodingBrotli bool
	HeadersConfig              HeadersConfig      // none, whitelist
	CookiesConfig              CookiesConfig      // none, whitelist, allExcept, all
	QueryStringsConfig         QueryStringsConfig // none, whitelist, allExcept, all
}

// OriginRequestPolicy decides what else the origin is sent, beside what is in the cache key.
type OriginRequestPolicy struct {
	Id                        string
	OriginRequestPolicyConfig OriginRequestPolicyConfig
}

// OriginRequestPolicyConfig is what an origin request policy says.
type OriginRequestPolicyConfig struct {
	Name               string
	Comment            string
	HeadersConfig      HeadersConfig      // none, whitelist, allViewer, allViewerAndWhitelistCloudFront, allExcept
	CookiesConfig      CookiesConfig      // none, whitelist, allExcept, all
	QueryStringsConfig QueryStringsConfig // none, whitelist, allExcept, all
}

// HeadersConfig selects headers by name, in any case.
type HeadersConfig struct {
	HeaderBehavior string // "" is none
	Headers        []string
}

// CookiesConfig selects cookies by name.
type CookiesConfig struct {
	CookieBehavior string // "" is none
	Cookies        []string
}

// QueryStringsConfig selects query parameters by name.
type QueryStringsConfig struct {
	QueryStringBehavior string // "" is none
	QueryStrings        []string
}

const (
	daySeconds  = int64(24 * time.Hour / time.Second)
	yearSeconds = 365 * daySeconds
	maxErrorTTL = int64(1<<31 - 1)
)

// TTLs returns minimum, default and maximum in seconds, with CloudFront's defaults for what is nil.
func (p *CachePolicyConfig) TTLs() (minimum, normal, maximum int64) {
	return ttls(&p.MinTTL, p.DefaultTTL, p.MaxTTL)
}

// ttls has the defaults of
// https://docs.aws.amazon.com/cloudfront/latest/APIReference/API_CachePolicyConfig.html.
func ttls(minimum, normal, maximum *int64) (low, def, high int64) {
	low, def = value(minimum, 0), value(normal, daySeconds)
	if normal == nil {
		def = max(def, low)
		if maximum != nil {
			def = max(low, min(def, *maximum))
		}
	}
	return low, def, value(maximum, max(yearSeconds, def))
}

func value[T any](p *T, otherwise T) T {
	if p != nil {
		return *p
	}
	return otherwise
}

// CachePolicy finds a policy by its ID or name, among the account's own and then among the managed ones.
func (c *Config) CachePolicy(idOrName string) (CachePolicy, bool) {
	name := strings.TrimPrefix(idOrName, "Managed-")
	for _, p := range slices.Concat(c.CachePolicies, ManagedCachePolicies()) {
		if p.Id == idOrName || p.CachePolicyConfig.Name == idOrName ||
			strings.TrimPrefix(p.CachePolicyConfig.Name, "Managed-") == name {
			return p, true
		}
	}
	return CachePolicy{}, false
}

// OriginRequestPolicy finds a policy by its ID or name, among the account's own and then among the managed ones.
func (c *Config) OriginRequestPolicy(idOrName string) (OriginRequestPolicy, bool) {
	name := strings.TrimPrefix(idOrName, "Managed-")
	for _, p := range slices.Concat(c.OriginRequestPolicies, ManagedOriginRequestPolicies()) {
		if p.Id == idOrName || p.OriginRequestPolicyConfig.Name == idOrName ||
			strings.TrimPrefix(p.OriginRequestPolicyConfig.Name, "Managed-") == name {
			return p, true
		}
	}
	return OriginRequestPolicy{}, false
}

// A ConfigError says what of a Config CloudFront would not accept.
type ConfigError struct {
	At     string // where in its file, as FILE:LINE:COLUMN; empty if it came from no file
	Field  string // such as "CacheBehaviors[2].PathPattern"
	Reason string
	Hint   string // what to do
}

func (e *ConfigError) Error() string {
	at := ""
	if e.At != "" {
		at = e.At + ": "
	}
	if e.Field == "" {
		return fmt.Sprintf("%s%s; %s", at, e.Reason, e.Hint)
	}
	return fmt.Sprintf("%s%s: %s; %s", at, e.Field, e.Reason, e.Hint)
}

// Validate checks what CloudFront would refuse, or could not carry out. The error is a [*ConfigError]
// about the first field that is wrong.
func (c *Config) Validate() error {
	v := validator{c: c}
	v.run()
	if v.err != nil {
		return v.err
	}
	return nil
}

type validator struct {
	c   *Config
	err *ConfigError
}

func (v *validator) fail(field, hint, format string, args ...any) {
	if v.err == nil {
		v.err = &ConfigError{Field: field, Reason: fmt.Sprintf(format, args...), Hint: hint}
	}
}

func (v *validator) oneOf(field, got string, allowed ...string) {
	if got != "" && !slices.Contains(allowed, got) {
		v.fail(field, "write one of "+strings.Join(allowed, ", "), "there is no %q", got)
	}
}

func (v *validator) run() {
	c := v.c
	if strings.HasPrefix(c.DefaultRootObject, "/") {
		v.fail("DefaultRootObject", "give it without the leading /", "it is %q", c.DefaultRootObject)
	}
	ids := map[string]bool{}
	for i, o := range c.Origins {
		field := fmt.Sprintf("Origins[%d]", i)
		if ids[o.Id] {
			v.fail(field+".Id", "give each origin an Id of its own", "%q is there twice", o.Id)
		}
		ids[o.Id] = true
		if o.OriginPath != "" && (o.OriginPath[0] != '/' || strings.HasSuffix(o.OriginPath, "/")) {
			v.fail(field+".OriginPath", "it begins with / and does not end with it, as /production", "it is %q", o.OriginPath)
		}
		if o.ConnectionAttempts < 0 || o.ConnectionAttempts > 3 {
			v.fail(field+".ConnectionAttempts", "write 1 to 3", "it is %d", o.ConnectionAttempts)
		}
		if o.CustomOriginConfig != nil && o.CustomOriginConfig.OriginReadTimeout < 0 {
			v.fail(field+".CustomOriginConfig.OriginReadTimeout", "write seconds, or 0 for the default", "it is negative")
		}
		for _, h := range o.CustomHeaders {
			if !validToken(h.HeaderName) {
				v.fail(field+".CustomHeaders", "write the name of a header, as X-Secret", "%q is none", h.HeaderName)
			}
		}
	}
	v.policies()
	v.behavior("DefaultCacheBehavior", &c.DefaultCacheBehavior)
	if p := c.DefaultCacheBehavior.PathPattern; p != "" && p != "*" {
		v.fail("DefaultCacheBehavior.PathPattern", "leave it out, or move the behaviour to CacheBehaviors", "it is %q, but the default behaviour is for every path", p)
	}
	for i := range c.CacheBehaviors {
		field := fmt.Sprintf("CacheBehaviors[%d]", i)
		if _, err := cfpath.ParsePattern(c.CacheBehaviors[i].PathPattern); err != nil {
			v.fail(field+".PathPattern", "write a pattern such as /images/*.jpg", "%v", err)
		}
		v.behavior(field, &c.CacheBehaviors[i])
	}
	v.errorResponses()
	if t := c.CacheTagConfig; t != nil && !validToken(t.HeaderName) {
		v.fail("CacheTagConfig.HeaderName", "write the name of a header, as Cache-Tag", "%q is none", t.HeaderName)
	}
}

func (v *validator) policies() {
	ids := map[string]bool{}
	unique := func(field, id string) {
		if id == "" || ids[id] {
			v.fail(field+".Id", "give each policy an ID of its own", "%q is empty or there twice", id)
		}
		ids[id] = true
	}
	for i, p := range v.c.CachePolicies {
		field := fmt.Sprintf("CachePolicies[%d]", i)
		unique(field, p.Id)
		field += ".CachePolicyConfig"
		low, def, high := p.CachePolicyConfig.TTLs()
		v.order(field, low, def, high)
		k := &p.CachePolicyConfig.ParametersInCacheKeyAndForwardedToOrigin
		field += ".ParametersInCacheKeyAndForwardedToOrigin"
		v.oneOf(field+".HeadersConfig.HeaderBehavior", k.HeadersConfig.HeaderBehavior, "none", "whitelist")
		v.oneOf(field+".CookiesConfig.CookieBehavior", k.CookiesConfig.CookieBehavior, "none", "whitelist", "allExcept", "all")
		v.query(field+".QueryStringsConfig", k.QueryStringsConfig)
	}
	for i, p := range v.c.OriginRequestPolicies {
		field := fmt.Sprintf("OriginRequestPolicies[%d]", i)
		unique(field, p.Id)
		field += ".OriginRequestPolicyConfig"
		k := &p.OriginRequestPolicyConfig
		v.oneOf(field+".HeadersConfig.HeaderBehavior", k.HeadersConfig.HeaderBehavior, "none", "whitelist", "allViewer", "allViewerAndWhitelistCloudFront", "allExcept")
		v.oneOf(field+".CookiesConfig.CookieBehavior", k.CookiesConfig.CookieBehavior, "none", "whitelist", "allExcept", "all")
		v.query(field+".QueryStringsConfig", k.QueryStringsConfig)
	}
}

func (v *validator) query(field string, q QueryStringsConfig) {
	v.oneOf(field+".QueryStringBehavior", q.QueryStringBehavior, "none", "whitelist", "allExcept", "all")
	if _, err := queryRule(q); err != nil {
		v.fail(field+".QueryStrings", "write names of parameters", "%v", err)
	}
}

// order checks what CloudFront refuses as InvalidTTLOrder.
func (v *validator) order(field string, low, def, high int64) {
	const most = int64(1<<63-1) / int64(time.Second)
	switch {
	case low < 0:
		v.fail(field+".MinTTL", "write 0 or more seconds", "it is negative")
	case def < low || high < def:
		v.fail(field, "CloudFront takes MinTTL <= DefaultTTL <= MaxTTL", "the TTLs are %d, %d and %d", low, def, high)
	case high > most:
		v.fail(field+".MaxTTL", "write a time that people live to see", "%d s is more than can be counted", high)
	}
}

func (v *validator) behavior(field string, b *CacheBehavior) {
	v.oneOf(field+".ViewerProtocolPolicy", b.ViewerProtocolPolicy, "allow-all", "redirect-to-https", "https-only")
	if _, ok := v.c.origin(b.TargetOriginId); !ok {
		v.fail(field+".TargetOriginId", "write the Id of one of Origins", "there is no origin %q", b.TargetOriginId)
	}
	for _, m := range b.AllowedMethods.Items {
		v.oneOf(field+".AllowedMethods", m, "GET", "HEAD", "OPTIONS", "PUT", "POST", "PATCH", "DELETE")
	}
	for _, m := range b.AllowedMethods.CachedMethods {
		v.oneOf(field+".AllowedMethods.CachedMethods", m, "GET", "HEAD", "OPTIONS")
		if !slices.Contains(b.methods(), m) {
			v.fail(field+".AllowedMethods.CachedMethods", "list it among the allowed methods too", "%s is not allowed", m)
		}
	}
	if b.OriginRequestPolicyId != "" {
		if _, ok := v.c.OriginRequestPolicy(b.OriginRequestPolicyId); !ok {
			v.fail(field+".OriginRequestPolicyId", "write the ID of a managed policy, or describe it in OriginRequestPolicies", "there is no policy %q", b.OriginRequestPolicyId)
		}
	}
	switch f := b.ForwardedValues; {
	case b.CachePolicyId != "" && f != nil:
		v.fail(field, "leave one of them out", "it has a CachePolicyId and ForwardedValues")
	case b.CachePolicyId != "":
		if b.MinTTL != nil || b.DefaultTTL != nil || b.MaxTTL != nil {
			v.fail(field, "leave them out, or use ForwardedValues", "the cache policy has the TTLs")
		}
		if _, ok := v.c.CachePolicy(b.CachePolicyId); !ok {
			v.fail(field+".CachePolicyId", "write the ID of a managed policy, or describe it in CachePolicies as 'aws cloudfront get-cache-policy' prints it", "there is no policy %q", b.CachePolicyId)
		}
	case f == nil:
		v.fail(field, "write CachePolicyId: 658327ea-f89d-4fab-a63d-7e88639e58f6 for CachingOptimized", "it has neither a CachePolicyId nor ForwardedValues")
	default:
		v.oneOf(field+".ForwardedValues.Cookies.Forward", f.Cookies.Forward, "none", "whitelist", "all")
		low, def, high := ttls(b.MinTTL, b.DefaultTTL, b.MaxTTL)
		v.order(field, low, def, high)
		if slices.Contains(f.Headers, "*") && low > 0 {
			v.fail(field+".MinTTL", "write 0, since nothing is cached when all headers are forwarded", "it is %d", low)
		}
		if !f.QueryString && len(f.QueryStringCacheKeys) > 0 {
			v.fail(field+".ForwardedValues.QueryStringCacheKeys", "write QueryString: true", "query strings are not forwarded")
		}
		v.query(field+".ForwardedValues.QueryStringCacheKeys", QueryStringsConfig{"whitelist", f.QueryStringCacheKeys})
	}
}

func (v *validator) errorResponses() {
	seen := map[int]bool{}
	for i, r := range v.c.CustomErrorResponses {
		field := fmt.Sprintf("CustomErrorResponses[%d]", i)
		// https://docs.aws.amazon.com/cloudfront/latest/APIReference/API_CustomErrorResponse.html
		if !slices.Contains(pageStatuses, r.ErrorCode) {
			v.fail(field+".ErrorCode", fmt.Sprintf("CloudFront takes %v", pageStatuses), "it is %d", r.ErrorCode)
		}
		if seen[r.ErrorCode] {
			v.fail(field+".ErrorCode", "list it once", "%d is there twice", r.ErrorCode)
		}
		seen[r.ErrorCode] = true
		if t := value(r.ErrorCachingMinTTL, 0); t < 0 || t > maxErrorTTL {
			v.fail(field+".ErrorCachingMinTTL", "write 0 or more seconds", "it is %d", t)
		}
		if (r.ResponsePagePath == "") != (r.ResponseCode == 0) {
			v.fail(field, "give both or none", "ResponsePagePath and ResponseCode belong together")
		}
		if r.ResponsePagePath != "" && r.ResponsePagePath[0] != '/' {
			v.fail(field+".ResponsePagePath", "begin it with /", "it is %q", r.ResponsePagePath)
		}
		if r.ResponseCode != 0 && r.ResponseCode != http.StatusOK && !slices.Contains(pageStatuses, r.ResponseCode) {
			v.fail(field+".ResponseCode", fmt.Sprintf("CloudFront takes 200 and %v", pageStatuses), "it is %d", r.ResponseCode)
		}
	}
}

// pageStatuses can have a custom error response.
var pageStatuses = []int{400, 403, 404, 405, 414, 416, 500, 501, 502, 503, 504}

func validToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 127 || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

// origin finds an origin; without any there is one that has no settings.
func (c *Config) origin(id string) (*Origin, bool) {
	for i := range c.Origins {
		if c.Origins[i].Id == id || id == "" && len(c.Origins) == 1 {
			return &c.Origins[i], true
		}
	}
	return &Origin{}, len(c.Origins) == 0
}

func (b *CacheBehavior) methods() []string {
	if len(b.AllowedMethods.Items) == 0 {
		return []string{http.MethodHead, http.MethodGet}
	}
	return b.AllowedMethods.Items
}

func (b *CacheBehavior) cachedMethods() []string {
	if len(b.AllowedMethods.CachedMethods) == 0 {
		return []string{http.MethodHead, http.MethodGet}
	}
	return b.AllowedMethods.CachedMethods
}
