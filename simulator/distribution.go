// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"cmp"
	"encoding/xml"
	"net/http"
	"strconv"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/lifetime"
)

// The elements of a configuration that decide what is cached, under which name and for how long:
// https://docs.aws.amazon.com/cloudfront/latest/APIReference/API_DistributionConfig.html.

type listOf[T any] struct {
	Quantity int `xml:"Quantity"`
	Items    *T  `xml:"Items"`
}

type namesXML struct {
	Name []string `xml:"Name"`
}

type methodsXML struct {
	Method []string `xml:"Method"`
}

type aliasesXML struct {
	CNAME []string `xml:"CNAME"`
}

type originHeadersXML struct {
	OriginCustomHeader []OriginCustomHeader `xml:"OriginCustomHeader"`
}

type originXML struct {
	ID            string                   `xml:"Id"`
	DomainName    string                   `xml:"DomainName"`
	OriginPath    string                   `xml:"OriginPath"`
	CustomHeaders listOf[originHeadersXML] `xml:"CustomHeaders"`
	HTTPPort      int                      `xml:"CustomOriginConfig>HTTPPort"`
	HTTPSPort     int                      `xml:"CustomOriginConfig>HTTPSPort"`
	Protocol      string                   `xml:"CustomOriginConfig>OriginProtocolPolicy"`
	ReadTimeout   int                      `xml:"CustomOriginConfig>OriginReadTimeout"`
	Attempts      int                      `xml:"ConnectionAttempts"`
}

type originsXML struct {
	Origin []originXML `xml:"Origin"`
}

type allowedXML struct {
	Quantity int                `xml:"Quantity"`
	Items    methodsXML         `xml:"Items"`
	Cached   listOf[methodsXML] `xml:"CachedMethods"`
}

type forwardedXML struct {
	QueryString bool              `xml:"QueryString"`
	Forward     string            `xml:"Cookies>Forward"`
	CookieNames *listOf[namesXML] `xml:"Cookies>WhitelistedNames"`
	Headers     listOf[namesXML]  `xml:"Headers"`
	QueryKeys   listOf[namesXML]  `xml:"QueryStringCacheKeys"`
}

type behaviorXML struct {
	PathPattern     string        `xml:"PathPattern,omitempty"`
	TargetOriginID  string        `xml:"TargetOriginId"`
	ViewerProtocol  string        `xml:"ViewerProtocolPolicy"`
	Allowed         allowedXML    `xml:"AllowedMethods"`
	Smooth          bool          `xml:"SmoothStreaming"`
	Compress        bool          `xml:"Compress"`
	CachePolicyID   string        `xml:"CachePolicyId,omitempty"`
	RequestPolicyID string        `xml:"OriginRequestPolicyId,omitempty"`
	Forwarded       *forwardedXML `xml:"ForwardedValues"`
	MinTTL          *int64        `xml:"MinTTL"`
	DefaultTTL      *int64        `xml:"DefaultTTL"`
	MaxTTL          *int64        `xml:"MaxTTL"`
}

type behaviorsXML struct {
	CacheBehavior []behaviorXML `xml:"CacheBehavior"`
}

type errorResponseXML struct {
	ErrorCode    int    `xml:"ErrorCode"`
	PagePath     string `xml:"ResponsePagePath"`
	ResponseCode string `xml:"ResponseCode"` // a string in the API, empty where there is no page
	MinTTL       int64  `xml:"ErrorCachingMinTTL"`
}

type errorResponsesXML struct {
	CustomErrorResponse []errorResponseXML `xml:"CustomErrorResponse"`
}

type tagConfigXML struct {
	HeaderName string `xml:"HeaderName"`
}

type configXML struct {
	CallerReference   string                    `xml:"CallerReference"`
	Aliases           listOf[aliasesXML]        `xml:"Aliases"`
	DefaultRootObject string                    `xml:"DefaultRootObject"`
	Origins           listOf[originsXML]        `xml:"Origins"`
	DefaultBehavior   behaviorXML               `xml:"DefaultCacheBehavior"`
	Behaviors         listOf[behaviorsXML]      `xml:"CacheBehaviors"`
	ErrorResponses    listOf[errorResponsesXML] `xml:"CustomErrorResponses"`
	Comment           string                    `xml:"Comment"`
	PriceClass        string                    `xml:"PriceClass"`
	Enabled           bool                      `xml:"Enabled"`
	Staging           bool                      `xml:"Staging"`
	ConnectionMode    string                    `xml:"ConnectionMode"`
	TagConfig         *tagConfigXML             `xml:"CacheTagConfig"`
}

type rootConfigXML struct {
	XMLName xml.Name `xml:"http://cloudfront.amazonaws.com/doc/2020-05-31/ DistributionConfig"`
	configXML
}

type distributionXML struct {
	XMLName    xml.Name  `xml:"http://cloudfront.amazonaws.com/doc/2020-05-31/ Distribution"`
	ID         string    `xml:"Id"`
	ARN        string    `xml:"ARN"`
	Status     string    `xml:"Status"`
	Modified   string    `xml:"LastModifiedTime"`
	InProgress int       `xml:"InProgressInvalidationBatches"`
	DomainName string    `xml:"DomainName"`
	Config     configXML `xml:"DistributionConfig"`
}

// policyXML is a cache policy.
type policyXML struct {
	XMLName  xml.Name        `xml:"http://cloudfront.amazonaws.com/doc/2020-05-31/ CachePolicy"`
	ID       string          `xml:"Id"`
	Modified string          `xml:"LastModifiedTime"`
	Config   policyConfigXML `xml:"CachePolicyConfig"`
}

type policyConfigXML struct {
	Comment string        `xml:"Comment"`
	Name    string        `xml:"Name"`
	Default int64         `xml:"DefaultTTL"`
	MaxTTL  int64         `xml:"MaxTTL"`
	MinTTL  int64         `xml:"MinTTL"`
	Key     parametersXML `xml:"ParametersInCacheKeyAndForwardedToOrigin"`
}

type parametersXML struct {
	Gzip   bool `xml:"EnableAcceptEncodingGzip"`
	Brotli bool `xml:"EnableAcceptEncodingBrotli"`
	selectionsXML
}

// selectionsXML are what both kinds of policies select.
type selectionsXML struct {
	Headers struct {
		Behavior string            `xml:"HeaderBehavior"`
		Names    *listOf[namesXML] `xml:"Headers"`
	} `xml:"HeadersConfig"`
	Cookies struct {
		Behavior string            `xml:"CookieBehavior"`
		Names    *listOf[namesXML] `xml:"Cookies"`
	} `xml:"CookiesConfig"`
	Query struct {
		Behavior string            `xml:"QueryStringBehavior"`
		Names    *listOf[namesXML] `xml:"QueryStrings"`
	} `xml:"QueryStringsConfig"`
}

// requestPolicyXML is an origin request policy.
type requestPolicyXML struct {
	XMLName  xml.Name               `xml:"http://cloudfront.amazonaws.com/doc/2020-05-31/ OriginRequestPolicy"`
	ID       string                 `xml:"Id"`
	Modified string                 `xml:"LastModifiedTime"`
	Config   requestPolicyConfigXML `xml:"OriginRequestPolicyConfig"`
}

type requestPolicyConfigXML struct {
	Comment string `xml:"Comment"`
	Name    string `xml:"Name"`
	selectionsXML
}

// originID is the only origin's name where Options say no Config.
const originID = "origin"

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

func (s *Simulator) etag() http.Header { return http.Header{"Etag": {"ESIMULATOR" + s.domain[1:5]}} }

func (s *Simulator) distribution() reply {
	d := &distributionXML{
		ID: s.opts.Distribution, ARN: "arn:aws:cloudfront::123456789012:distribution/" + s.opts.Distribution,
		Status: "Deployed", Modified: formatTime(s.born), DomainName: s.domain, Config: s.describe(),
	}
	s.mu.Lock()
	for _, v := range s.byScope[scope{id: s.opts.Distribution}] {
		if seen, _ := v.seen(time.Now()); seen.Status == InProgress {
			d.InProgress++
		}
	}
	s.mu.Unlock()
	return reply{http.StatusOK, s.etag(), d}
}

func (s *Simulator) distributionConfig() reply {
	return reply{http.StatusOK, s.etag(), &rootConfigXML{configXML: s.describe()}}
}

// describe is the configuration on the wire.
func (s *Simulator) describe() configXML {
	c := s.config
	domain := originHost
	if t, ok := s.origin.(*urlTransport); ok {
		domain = t.host
	}
	x := configXML{
		CallerReference: "simulator", DefaultRootObject: c.DefaultRootObject,
		PriceClass: "PriceClass_All", Enabled: true, ConnectionMode: "direct",
		DefaultBehavior: describeBehavior(c, &c.DefaultCacheBehavior),
	}
	origins := c.Origins
	if len(origins) == 0 {
		origins = []Origin{{Id: originID}}
	}
	x.Origins = listOf[originsXML]{len(origins), &originsXML{}}
	for _, o := range origins {
		ox := originXML{
			ID: o.Id, DomainName: cmp.Or(o.DomainName, domain), OriginPath: o.OriginPath, HTTPPort: 80, HTTPSPort: 443,
			Protocol: "match-viewer", ReadTimeout: int(s.opts.OriginTimeout / time.Second), Attempts: cmp.Or(o.ConnectionAttempts, 3),
		}
		if s.opts.Config == nil {
			ox.OriginPath = s.originPrefix + o.OriginPath
		}
		if t := o.CustomOriginConfig; t != nil && t.OriginReadTimeout > 0 {
			ox.ReadTimeout = t.OriginReadTimeout
		}
		if n := len(o.CustomHeaders); n > 0 {
			ox.CustomHeaders = listOf[originHeadersXML]{n, &originHeadersXML{o.CustomHeaders}}
		}
		x.Origins.Items.Origin = append(x.Origins.Items.Origin, ox)
	}
	x.Aliases.Quantity = len(c.Aliases)
	if len(c.Aliases) > 0 {
		x.Aliases.Items = &aliasesXML{c.Aliases}
	}
	if n := len(c.CacheBehaviors); n > 0 {
		x.Behaviors = listOf[behaviorsXML]{n, &behaviorsXML{}}
		for i := range c.CacheBehaviors {
			x.Behaviors.Items.CacheBehavior = append(x.Behaviors.Items.CacheBehavior, describeBehavior(c, &c.CacheBehaviors[i]))
		}
	}
	if n := len(c.CustomErrorResponses); n > 0 {
		x.ErrorResponses = listOf[errorResponsesXML]{n, &errorResponsesXML{}}
		for _, r := range c.CustomErrorResponses {
			rx := errorResponseXML{ErrorCode: r.ErrorCode, PagePath: r.ResponsePagePath, MinTTL: value(r.ErrorCachingMinTTL, seconds(lifetime.DefaultErrorTTL))}
			if r.ResponseCode != 0 {
				rx.ResponseCode = strconv.Itoa(r.ResponseCode)
			}
			x.ErrorResponses.Items.CustomErrorResponse = append(x.ErrorResponses.Items.CustomErrorResponse, rx)
		}
	}
	if t := c.CacheTagConfig; t != nil {
		x.TagConfig = &tagConfigXML{t.HeaderName}
	}
	return x
}

func describeBehavior(c *Config, b *CacheBehavior) behaviorXML {
	allowed, cached := b.methods(), b.cachedMethods()
	origin, _ := c.origin(b.TargetOriginId)
	x := behaviorXML{
		PathPattern: b.PathPattern, TargetOriginID: cmp.Or(origin.Id, originID), ViewerProtocol: cmp.Or(b.ViewerProtocolPolicy, "allow-all"),
		Allowed:  allowedXML{len(allowed), methodsXML{allowed}, listOf[methodsXML]{len(cached), &methodsXML{cached}}},
		Compress: b.Compress,
	}
	if p, ok := c.OriginRequestPolicy(b.OriginRequestPolicyId); ok {
		x.RequestPolicyID = p.Id
	}
	if p, ok := c.CachePolicy(b.CachePolicyId); ok {
		x.CachePolicyID = p.Id
		return x
	}
	if f := b.ForwardedValues; f != nil {
		low, def, high := ttls(b.MinTTL, b.DefaultTTL, b.MaxTTL)
		x.MinTTL, x.DefaultTTL, x.MaxTTL = &low, &def, &high
		x.Forwarded = &forwardedXML{QueryString: f.QueryString, Forward: cmp.Or(f.Cookies.Forward, "none"), CookieNames: namesOf(f.Cookies.WhitelistedNames)}
		if n := namesOf(f.Headers); n != nil {
			x.Forwarded.Headers = *n
		}
		if n := namesOf(f.QueryStringCacheKeys); n != nil {
			x.Forwarded.QueryKeys = *n
		}
	}
	return x
}

func namesOf(names []string) *listOf[namesXML] {
	if len(names) == 0 {
		return nil
	}
	return &listOf[namesXML]{len(names), &namesXML{names}}
}

func selections(h HeadersConfig, c CookiesConfig, q QueryStringsConfig) selectionsXML {
	var x selectionsXML
	x.Headers.Behavior, x.Headers.Names = cmp.Or(h.HeaderBehavior, "none"), namesOf(h.Headers)
	x.Cookies.Behavior, x.Cookies.Names = cmp.Or(c.CookieBehavior, "none"), namesOf(c.Cookies)
	x.Query.Behavior, x.Query.Names = cmp.Or(q.QueryStringBehavior, "none"), namesOf(q.QueryStrings)
	return x
}

func describePolicy(p *CachePolicy, modified string) *policyXML {
	c := &p.CachePolicyConfig
	low, def, high := c.TTLs()
	k := &c.ParametersInCacheKeyAndForwardedToOrigin
	return &policyXML{ID: p.Id, Modified: modified, Config: policyConfigXML{
		Comment: c.Comment, Name: c.Name, Default: def, MaxTTL: high, MinTTL: low,
		Key: parametersXML{k.EnableAcceptEncodingGzip, k.EnableAcceptEncodingBrotli, selections(k.HeadersConfig, k.CookiesConfig, k.QueryStringsConfig)},
	}}
}

func describeRequestPolicy(p *OriginRequestPolicy, modified string) *requestPolicyXML {
	c := &p.OriginRequestPolicyConfig
	return &requestPolicyXML{ID: p.Id, Modified: modified, Config: requestPolicyConfigXML{
		Comment: c.Comment, Name: c.Name, selectionsXML: selections(c.HeadersConfig, c.CookiesConfig, c.QueryStringsConfig),
	}}
}

// cachePolicy finds a policy by its ID, as the control API does.
func (s *Simulator) cachePolicy(id string) (reply, error) {
	if p, ok := s.config.CachePolicy(id); ok && p.Id == id {
		return reply{http.StatusOK, s.etag(), describePolicy(&p, formatTime(s.born))}, nil
	}
	return reply{}, &apiError{http.StatusNotFound, "NoSuchCachePolicy", "The cache policy does not exist."}
}

// originRequestPolicy finds a policy by its ID.
func (s *Simulator) originRequestPolicy(id string) (reply, error) {
	if p, ok := s.config.OriginRequestPolicy(id); ok && p.Id == id {
		return reply{http.StatusOK, s.etag(), describeRequestPolicy(&p, formatTime(s.born))}, nil
	}
	return reply{}, &apiError{http.StatusNotFound, "NoSuchOriginRequestPolicy", "The origin request policy does not exist."}
}
