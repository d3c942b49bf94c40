// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront/types"
)

const listed = `
Aliases: [www.example.org]
DefaultRootObject: index.html
Origins: [{Id: site, DomainName: origin.example.org, OriginPath: /v1}]
DefaultCacheBehavior: {CachePolicyId: Managed-CachingOptimized, OriginRequestPolicyId: own-request}
CacheBehaviors:
- {PathPattern: /api/*, CachePolicyId: own-cache, ViewerProtocolPolicy: https-only}
CustomErrorResponses: [{ErrorCode: 404, ErrorCachingMinTTL: 60}]
CachePolicies:
- Id: own-cache
  CachePolicyConfig:
    Name: api
    MinTTL: 1
    ParametersInCacheKeyAndForwardedToOrigin: {QueryStringsConfig: {QueryStringBehavior: allExcept, QueryStrings: [utm]}}
OriginRequestPolicies:
- Id: own-request
  OriginRequestPolicyConfig: {Name: lang, HeadersConfig: {HeaderBehavior: whitelist, Headers: [Accept-Language]}}
`

func TestSDKListsDistributionsAndPolicies(t *testing.T) {
	s := start(t, nil, &Options{Config: load(t, listed)})
	c, ctx := client(s), t.Context()

	var summaries []types.DistributionSummary
	for p := cloudfront.NewListDistributionsPaginator(c, &cloudfront.ListDistributionsInput{MaxItems: aws.Int32(1)}); p.HasMorePages(); {
		out, err := p.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		summaries = append(summaries, out.DistributionList.Items...)
	}
	g, err := c.GetDistribution(ctx, &cloudfront.GetDistributionInput{Id: aws.String(DefaultDistribution)})
	if err != nil {
		t.Fatal(err)
	}
	d, cfg := g.Distribution, g.Distribution.DistributionConfig
	if len(summaries) != 1 {
		t.Fatalf("%d distributions", len(summaries))
	}
	x := summaries[0]
	if *x.Id != *d.Id || *x.ARN != *d.ARN || *x.DomainName != *d.DomainName || *x.Status != *d.Status || *x.ETag != *g.ETag ||
		x.Aliases.Items[0] != "www.example.org" || !reflect.DeepEqual(x.Origins, cfg.Origins) || !reflect.DeepEqual(x.CacheBehaviors, cfg.CacheBehaviors) ||
		!reflect.DeepEqual(x.DefaultCacheBehavior, cfg.DefaultCacheBehavior) || !reflect.DeepEqual(x.CustomErrorResponses, cfg.CustomErrorResponses) {
		t.Errorf("listed as %+v, but it is %+v", x, d)
	}

	policies := func(kind types.CachePolicyType, size *int32) (names []string, pages int) {
		in := &cloudfront.ListCachePoliciesInput{Type: kind, MaxItems: size}
		for {
			out, err := c.ListCachePolicies(ctx, in)
			if err != nil {
				t.Fatal(err)
			}
			pages++
			l := out.CachePolicyList
			if int(*l.Quantity) != len(l.Items) {
				t.Errorf("quantity %d of %d", *l.Quantity, len(l.Items))
			}
			for _, it := range l.Items {
				if kind != "" && it.Type != kind {
					t.Errorf("%s policy in the list of %s", it.Type, kind)
				}
				one, err := c.GetCachePolicy(ctx, &cloudfront.GetCachePolicyInput{Id: it.CachePolicy.Id})
				if err != nil || !reflect.DeepEqual(one.CachePolicy, it.CachePolicy) {
					t.Errorf("%s listed as %+v, read as %+v, %v", *it.CachePolicy.Id, it.CachePolicy, one, err)
				}
				names = append(names, *it.CachePolicy.CachePolicyConfig.Name)
			}
			if in.Marker = l.NextMarker; in.Marker == nil {
				return names, pages
			}
		}
	}
	all, _ := policies("", nil)
	managed, pages := policies(types.CachePolicyTypeManaged, aws.Int32(2))
	custom, _ := policies(types.CachePolicyTypeCustom, nil)
	if !slices.Equal(custom, []string{"api"}) || !slices.Equal(all, append(slices.Clone(managed), "api")) ||
		!slices.Contains(managed, "Managed-CachingOptimized") || len(managed) != 7 || pages != 4 {
		t.Errorf("managed (%d pages) %q, custom %q, all %q", pages, managed, custom, all)
	}

	out, err := c.ListOriginRequestPolicies(ctx, &cloudfront.ListOriginRequestPoliciesInput{})
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[types.OriginRequestPolicyType]int{}
	for _, it := range out.OriginRequestPolicyList.Items {
		kinds[it.Type]++
		one, err := c.GetOriginRequestPolicy(ctx, &cloudfront.GetOriginRequestPolicyInput{Id: it.OriginRequestPolicy.Id})
		if err != nil || !reflect.DeepEqual(one.OriginRequestPolicy, it.OriginRequestPolicy) {
			t.Errorf("listed as %+v, read as %+v, %v", it.OriginRequestPolicy, one, err)
		}
	}
	if kinds["managed"] != len(ManagedOriginRequestPolicies()) || kinds["custom"] != 1 {
		t.Errorf("origin request policies: %v", kinds)
	}
}

func TestListsRefuseWhatIsWrong(t *testing.T) {
	s := start(t, nil, &Options{Config: load(t, listed)})
	for _, list := range []string{"distribution", "cache-policy", "origin-request-policy", "distribution/" + DefaultDistribution + "/invalidation"} {
		for _, query := range []string{"MaxItems=0", "MaxItems=-1", "MaxItems=x", "MaxItems=99999999999999999999", "Marker=none"} {
			if got := call(s, http.MethodGet, "/2020-05-31/"+list+"?"+query, ""); got.status != 400 || codeOf(got) != "InvalidArgument" {
				t.Errorf("%s?%s: %d %s", list, query, got.status, got.body)
			}
		}
		if got := call(s, http.MethodGet, "/2020-05-31/"+list+"?MaxItems=100000", ""); got.status != 200 || !strings.Contains(got.body, "<MaxItems>100</MaxItems>") {
			t.Errorf("%s: %d %s", list, got.status, got.body)
		}
		for _, p := range []string{"/2020-05-31/" + list + "/", "/2020-05-30/" + list, "/" + list, "/2020-05-31//" + list} {
			if got := call(s, http.MethodGet, p, ""); got.status != 404 || codeOf(got) != "UnknownOperation" {
				t.Errorf("%s: %d %s", p, got.status, got.body)
			}
		}
		if got := call(s, http.MethodPut, "/2020-05-31/"+list, ""); codeOf(got) != "UnknownOperation" {
			t.Errorf("PUT %s: %d %s", list, got.status, got.body)
		}
	}
	for _, list := range []string{"cache-policy", "origin-request-policy"} {
		if got := call(s, http.MethodGet, "/2020-05-31/"+list+"?Type=other", ""); codeOf(got) != "InvalidArgument" {
			t.Errorf("%s: %d %s", list, got.status, got.body)
		}
	}
	// After the last one there is nothing, which is no error.
	if got := call(s, http.MethodGet, "/2020-05-31/distribution?Marker="+DefaultDistribution, ""); got.status != 200 || !strings.Contains(got.body, "<Quantity>0</Quantity>") {
		t.Errorf("after the last: %d %s", got.status, got.body)
	}
	// A policy is read by its ID alone, though a behaviour may name it.
	for p, want := range map[string]string{
		"cache-policy/own-cache": "", "cache-policy/api": "NoSuchCachePolicy", "origin-request-policy/own-request": "",
		"origin-request-policy/own-cache": "NoSuchOriginRequestPolicy",
	} {
		if got := call(s, http.MethodGet, "/2020-05-31/"+p, ""); codeOf(got) != want {
			t.Errorf("%s: %s", p, got.body)
		}
	}
}
