// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// Lists of the control API, whose pages are asked for with Marker, the ID of the last element of the page
// before, and MaxItems:
// https://docs.aws.amazon.com/cloudfront/latest/APIReference/API_ListInvalidations.html.

type invalidationListXML struct {
	XMLName   xml.Name      `xml:"http://cloudfront.amazonaws.com/doc/2020-05-31/ InvalidationList"`
	Marker    string        `xml:"Marker"`
	Next      string        `xml:"NextMarker,omitempty"`
	MaxItems  int           `xml:"MaxItems"`
	Truncated bool          `xml:"IsTruncated"`
	Quantity  int           `xml:"Quantity"`
	Items     *summariesXML `xml:"Items"`
}

type summariesXML struct {
	Summary []summaryXML `xml:"InvalidationSummary"`
}

type summaryXML struct {
	ID      string `xml:"Id"`
	Created string `xml:"CreateTime"`
	Status  string `xml:"Status"`
}

type distributionListXML struct {
	XMLName   xml.Name          `xml:"http://cloudfront.amazonaws.com/doc/2020-05-31/ DistributionList"`
	Marker    string            `xml:"Marker"`
	Next      string            `xml:"NextMarker,omitempty"`
	MaxItems  int               `xml:"MaxItems"`
	Truncated bool              `xml:"IsTruncated"`
	Quantity  int               `xml:"Quantity"`
	Items     *distributionsXML `xml:"Items"`
}

type distributionsXML struct {
	Summary []distributionSummaryXML `xml:"DistributionSummary"`
}

// distributionSummaryXML is what a list says of a distribution.
type distributionSummaryXML struct {
	ID              string                    `xml:"Id"`
	ARN             string                    `xml:"ARN"`
	ETag            string                    `xml:"ETag"`
	Status          string                    `xml:"Status"`
	Modified        string                    `xml:"LastModifiedTime"`
	DomainName      string                    `xml:"DomainName"`
	Aliases         listOf[aliasesXML]        `xml:"Aliases"`
	Origins         listOf[originsXML]        `xml:"Origins"`
	DefaultBehavior behaviorXML               `xml:"DefaultCacheBehavior"`
	Behaviors       listOf[behaviorsXML]      `xml:"CacheBehaviors"`
	ErrorResponses  listOf[errorResponsesXML] `xml:"CustomErrorResponses"`
	Comment         string                    `xml:"Comment"`
	PriceClass      string                    `xml:"PriceClass"`
	Enabled         bool                      `xml:"Enabled"`
	Staging         bool                      `xml:"Staging"`
	ConnectionMode  string                    `xml:"ConnectionMode"`
}

// Lists of policies have no Marker and no IsTruncated.
type policyListXML struct {
	XMLName  xml.Name     `xml:"http://cloudfront.amazonaws.com/doc/2020-05-31/ CachePolicyList"`
	Next     string       `xml:"NextMarker,omitempty"`
	MaxItems int          `xml:"MaxItems"`
	Quantity int          `xml:"Quantity"`
	Items    *policiesXML `xml:"Items"`
}

type policiesXML struct {
	Summary []policySummaryXML `xml:"CachePolicySummary"`
}

type policySummaryXML struct {
	Type   string     `xml:"Type"`
	Policy *policyXML `xml:"CachePolicy"`
}

type requestPolicyListXML struct {
	XMLName  xml.Name            `xml:"http://cloudfront.amazonaws.com/doc/2020-05-31/ OriginRequestPolicyList"`
	Next     string              `xml:"NextMarker,omitempty"`
	MaxItems int                 `xml:"MaxItems"`
	Quantity int                 `xml:"Quantity"`
	Items    *requestPoliciesXML `xml:"Items"`
}

type requestPoliciesXML struct {
	Summary []requestPolicySummaryXML `xml:"OriginRequestPolicySummary"`
}

type requestPolicySummaryXML struct {
	Type   string            `xml:"Type"`
	Policy *requestPolicyXML `xml:"OriginRequestPolicy"`
}

// pageSize is the default and the largest page of a list. AWS documents neither.
const pageSize = 100

// A page is the part of a list that a request asks for.
type page[T any] struct {
	items  []T
	marker string
	max    int
	next   string // ID of the last item, if there are more
}

// paged cuts a list. Its error is *apiError.
func paged[T any](q url.Values, all []T, id func(T) string) (page[T], error) {
	p := page[T]{marker: q.Get("Marker"), max: pageSize}
	if m := q.Get("MaxItems"); m != "" {
		n, err := strconv.Atoi(m)
		if err != nil || n < 1 {
			return p, &apiError{http.StatusBadRequest, "InvalidArgument", fmt.Sprintf("MaxItems %q is not a positive number.", m)}
		}
		p.max = min(n, pageSize)
	}
	if p.marker != "" {
		i := slices.IndexFunc(all, func(v T) bool { return id(v) == p.marker })
		if i < 0 {
			return p, &apiError{http.StatusBadRequest, "InvalidArgument", fmt.Sprintf("The marker %q names nothing in the list.", p.marker)}
		}
		all = all[i+1:]
	}
	p.items = all[:min(p.max, len(all))]
	if len(p.items) < len(all) {
		p.next = id(p.items[len(p.items)-1])
	}
	return p, nil
}

// listInvalidations has the newest first.
func (s *Simulator) listInvalidations(target scope, q url.Values) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	known := make([]summaryXML, 0, len(s.byScope[target]))
	for _, v := range slices.Backward(s.byScope[target]) {
		if out, ok := v.seen(now); ok {
			known = append(known, summaryXML{out.ID, formatTime(out.Created), out.Status})
		}
	}
	p, err := paged(q, known, func(v summaryXML) string { return v.ID })
	if err != nil {
		return reply{}, err
	}
	x := &invalidationListXML{Marker: p.marker, Next: p.next, MaxItems: p.max, Truncated: p.next != "", Quantity: len(p.items)}
	if len(p.items) > 0 {
		x.Items = &summariesXML{p.items}
	}
	return reply{status: http.StatusOK, body: x}, nil
}

func (s *Simulator) listDistributions(q url.Values) (reply, error) {
	d, _ := s.distribution().body.(*distributionXML)
	c := &d.Config
	p, err := paged(q, []distributionSummaryXML{{
		d.ID, d.ARN, s.etag().Get("Etag"), d.Status, d.Modified, d.DomainName, c.Aliases, c.Origins, c.DefaultBehavior, c.Behaviors,
		c.ErrorResponses, c.Comment, c.PriceClass, c.Enabled, c.Staging, c.ConnectionMode,
	}}, func(v distributionSummaryXML) string { return v.ID })
	if err != nil {
		return reply{}, err
	}
	x := &distributionListXML{Marker: p.marker, Next: p.next, MaxItems: p.max, Truncated: p.next != "", Quantity: len(p.items)}
	if len(p.items) > 0 {
		x.Items = &distributionsXML{p.items}
	}
	return reply{status: http.StatusOK, body: x}, nil
}

// policyTypes says which policies a list is asked for; without a type it is both.
func policyTypes(q url.Values) (managed, custom bool, err error) {
	switch t := q.Get("Type"); t {
	case "":
		return true, true, nil
	case "managed", "custom":
		return t == "managed", t == "custom", nil
	default:
		return false, false, &apiError{http.StatusBadRequest, "InvalidArgument", fmt.Sprintf("Type %q is neither managed nor custom.", t)}
	}
}

// policyPage is the part that a request asks for of the policies of a kind.
func policyPage[P, S any](q url.Values, managed, custom []P, describe func(kind string, p *P) S, id func(S) string) (page[S], error) {
	withManaged, withCustom, err := policyTypes(q)
	if err != nil {
		return page[S]{}, err
	}
	var all []S
	add := func(kind string, policies []P) {
		for i := range policies {
			all = append(all, describe(kind, &policies[i]))
		}
	}
	if withManaged {
		add("managed", managed)
	}
	if withCustom {
		add("custom", custom)
	}
	return paged(q, all, id)
}

func (s *Simulator) listCachePolicies(q url.Values) (reply, error) {
	p, err := policyPage(q, ManagedCachePolicies(), s.config.CachePolicies, func(kind string, p *CachePolicy) policySummaryXML {
		return policySummaryXML{kind, describePolicy(p, formatTime(s.born))}
	}, func(v policySummaryXML) string { return v.Policy.ID })
	if err != nil {
		return reply{}, err
	}
	x := &policyListXML{Next: p.next, MaxItems: p.max, Quantity: len(p.items)}
	if len(p.items) > 0 {
		x.Items = &policiesXML{p.items}
	}
	return reply{status: http.StatusOK, body: x}, nil
}

func (s *Simulator) listRequestPolicies(q url.Values) (reply, error) {
	p, err := policyPage(q, ManagedOriginRequestPolicies(), s.config.OriginRequestPolicies, func(kind string, p *OriginRequestPolicy) requestPolicySummaryXML {
		return requestPolicySummaryXML{kind, describeRequestPolicy(p, formatTime(s.born))}
	}, func(v requestPolicySummaryXML) string { return v.Policy.ID })
	if err != nil {
		return reply{}, err
	}
	x := &requestPolicyListXML{Next: p.next, MaxItems: p.max, Quantity: len(p.items)}
	if len(p.items) > 0 {
		x.Items = &requestPoliciesXML{p.items}
	}
	return reply{status: http.StatusOK, body: x}, nil
}
