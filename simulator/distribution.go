// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
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

type originXML struct {
	ID            string           `xml:"Id"`
	DomainName    string           `xml:"DomainName"`
	OriginPath    string           `xml:"OriginPath"`
	CustomHeaders listOf[struct{}] `xml:"CustomHeaders"`
	HTTPPort      int              `xml:"CustomOriginConfig>HTTPPort"`
	HTTPSPort     int              `xml:"CustomOriginConfig>HTTPSPort"`
	Protocol      string           `xml:"CustomOriginConfig>OriginProtocolPolicy"`
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
	QueryString bool             `xml:"QueryString"`
	Cookies     string           `xml:"Cookies>Forward"`
	Headers     listOf[namesXML] `xml:"Headers"`
}

type behaviorXML struct {
	PathPattern    string        `xml:"PathPattern,omitempty"`
	TargetOriginID string        `xml:"TargetOriginId"`
	ViewerProtocol string        `xml:"ViewerProtocolPolicy"`
	Allowed        allowedXML    `xml:"AllowedMethods"`
	Smooth         bool          `xml:"SmoothStreaming"`
	Compress       bool          `xml:"Compress"`
	CachePolicyID  string        `xml:"CachePolicyId,omitempty"`
	Forwarded      *forwardedXML `xml:"ForwardedValues"`
	MinTTL         *int64        `xml:"MinTTL"`
	DefaultTTL     *int64        `xml:"DefaultTTL"`
	MaxTTL         *int64        `xml:"MaxTTL"`
}

type behaviorsXML struct {
	CacheBehavior []behaviorXML `xml:"CacheBehavior"`
}

type errorResponseXML struct {
	ErrorCode int   `xml:"ErrorCode"`
	MinTTL    int64 `xml:"ErrorCachingMinTTL"`
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

type policyXML struct {
	XMLName  xml.Name         `xml:"http://cloudfront.amazonaws.com/doc/2020-05-31/ CachePolicy"`
	ID       string           `xml:"Id"`
	Modified string           `xml:"LastModifiedTime"`
	Name     string           `xml:"CachePolicyConfig>Name"`
	MinTTL   int64            `xml:"CachePolicyConfig>MinTTL"`
	Default  int64            `xml:"CachePolicyConfig>DefaultTTL"`
	MaxTTL   int64            `xml:"CachePolicyConfig>MaxTTL"`
	Key      policyParameters `xml:"CachePolicyConfig>ParametersInCacheKeyAndForwardedToOrigin"`
}

type policyParameters struct {
	Gzip    bool   `xml:"EnableAcceptEncodingGzip"`
	Headers string `xml:"HeadersConfig>HeaderBehavior"`
	Cookies string `xml:"CookiesConfig>CookieBehavior"`
	Query   struct {
		Behavior string            `xml:"QueryStringBehavior"`
		Names    *listOf[namesXML] `xml:"QueryStrings"`
	} `xml:"QueryStringsConfig"`
}

// originID is the only origin's name in the configuration.
const originID = "origin"

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

func (s *Simulator) etag() http.Header { return http.Header{"Etag": {"ESIMULATOR" + s.domain[1:5]}} }

func (s *Simulator) distribution() reply {
	d := &distributionXML{
		ID: s.opts.Distribution, ARN: "arn:aws:cloudfront::123456789012:distribution/" + s.opts.Distribution,
		Status: "Deployed", Modified: formatTime(s.born), DomainName: s.domain, Config: s.config(),
	}
	s.mu.Lock()
	for _, v := range s.byScope[scope{id: s.opts.Distribution}] {
		if v.Status == InProgress {
			d.InProgress++
		}
	}
	s.mu.Unlock()
	return reply{http.StatusOK, s.etag(), d}
}

func (s *Simulator) distributionConfig() reply {
	return reply{http.StatusOK, s.etag(), &rootConfigXML{configXML: s.config()}}
}

func (s *Simulator) config() configXML {
	o, r := &s.opts, &s.rules
	domain := originHost
	if t, ok := s.origin.(*urlTransport); ok {
		domain = t.host
	}
	c := configXML{
		CallerReference: "simulator", DefaultRootObject: o.DefaultRootObject,
		PriceClass: "PriceClass_All", Enabled: true, ConnectionMode: "direct",
		Origins: listOf[originsXML]{1, &originsXML{[]originXML{{
			ID: originID, DomainName: domain, OriginPath: o.OriginPath,
			HTTPPort: 80, HTTPSPort: 443, Protocol: "match-viewer",
		}}}},
		DefaultBehavior: behaviorConfig(&r.Default, 0),
	}
	c.Aliases.Quantity = len(o.Aliases)
	if len(o.Aliases) > 0 {
		c.Aliases.Items = &aliasesXML{o.Aliases}
	}
	if n := len(r.Behaviors); n > 0 {
		c.Behaviors = listOf[behaviorsXML]{n, &behaviorsXML{}}
		for i := range r.Behaviors {
			b := behaviorConfig(&r.Behaviors[i], i+1)
			b.PathPattern = r.Behaviors[i].Pattern.String()
			c.Behaviors.Items.CacheBehavior = append(c.Behaviors.Items.CacheBehavior, b)
		}
	}
	if statuses := s.errorTTLs(); len(statuses) > 0 {
		c.ErrorResponses = listOf[errorResponsesXML]{len(statuses), &errorResponsesXML{}}
		for _, status := range slices.Sorted(maps.Keys(statuses)) {
			c.ErrorResponses.Items.CustomErrorResponse = append(c.ErrorResponses.Items.CustomErrorResponse,
				errorResponseXML{status, seconds(statuses[status])})
		}
	}
	if o.TagHeader != "" {
		c.TagConfig = &tagConfigXML{o.TagHeader}
	}
	return c
}

// errorTTLs lists the error caching times that are not CloudFront's 10 s; it has no default to set.
func (s *Simulator) errorTTLs() map[int]time.Duration {
	out := map[int]time.Duration{}
	if t := s.rules.ErrorTTL; t != 0 && t != lifetime.DefaultErrorTTL {
		for _, status := range []int{400, 403, 404, 405, 414, 416, 500, 501, 502, 503, 504} {
			out[status] = t
		}
	}
	maps.Copy(out, s.rules.ErrorTTLs)
	return out
}

func policyID(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", i) }

// behaviorConfig describes behaviour i, where 0 is the default one.
func behaviorConfig(b *lifetime.Behavior, i int) behaviorXML {
	cached := []string{http.MethodHead, http.MethodGet}
	if b.CacheOptions {
		cached = append(cached, http.MethodOptions)
	}
	all := []string{"HEAD", "DELETE", "POST", "GET", "OPTIONS", "PUT", "PATCH"}
	x := behaviorXML{
		TargetOriginID: originID, ViewerProtocol: "allow-all", CachePolicyID: policyID(i),
		Allowed: allowedXML{len(all), methodsXML{all}, listOf[methodsXML]{len(cached), &methodsXML{cached}}},
	}
	if b.AllHeaders {
		// Only the legacy settings can say it.
		ttl := []int64{seconds(b.MinTTL), seconds(b.DefaultTTL), seconds(b.MaxTTL)}
		x.CachePolicyID = ""
		x.MinTTL, x.DefaultTTL, x.MaxTTL = &ttl[0], &ttl[1], &ttl[2]
		x.Forwarded = &forwardedXML{
			QueryString: b.Query.String() != "none", Cookies: "none",
			Headers: listOf[namesXML]{1, &namesXML{[]string{"*"}}},
		}
	}
	return x
}

func (s *Simulator) cachePolicy(id string) (reply, error) {
	behaviors := append([]lifetime.Behavior{s.rules.Default}, s.rules.Behaviors...)
	for i := range behaviors {
		b := &behaviors[i]
		if policyID(i) != id || b.AllHeaders {
			continue
		}
		p := &policyXML{
			ID: id, Modified: formatTime(s.born), Name: fmt.Sprintf("behavior-%d", i),
			MinTTL: seconds(b.MinTTL), Default: seconds(b.DefaultTTL), MaxTTL: seconds(b.MaxTTL),
		}
		p.Key.Headers, p.Key.Cookies = "none", "none"
		p.Key.Query.Behavior, p.Key.Query.Names = queryConfig(b.Query)
		return reply{http.StatusOK, s.etag(), p}, nil
	}
	return reply{}, &apiError{http.StatusNotFound, "NoSuchCachePolicy", "The cache policy does not exist."}
}

// queryConfig is a query rule in the words of a cache policy.
func queryConfig(r cfpath.QueryRule) (string, *listOf[namesXML]) {
	kind, list, _ := strings.Cut(r.String(), ":")
	switch kind {
	case "include":
		kind = "whitelist"
	case "exclude":
		kind = "allExcept"
	default:
		return kind, nil
	}
	names := strings.Split(list, ",")
	for i, n := range names {
		names[i] = strings.ReplaceAll(n, "%2C", ",")
	}
	return kind, &listOf[namesXML]{len(names), &namesXML{names}}
}
