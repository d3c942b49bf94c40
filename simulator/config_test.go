// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/lifetime"
)

func load(t testing.TB, text string) *Config {
	t.Helper()
	c, err := LoadConfig(strings.NewReader(text), "cloudfront.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLoadConfig(t *testing.T) {
	c := load(t, `
Aliases: [www.example.com]
Origins:
  - {Id: app, DomainName: app.example.com, OriginPath: /production, CustomHeaders: [{HeaderName: X-Secret, HeaderValue: s}]}
DefaultCacheBehavior: {CachePolicyId: Managed-CachingOptimized, AllowedMethods: [GET, HEAD]}
CacheBehaviors:
  - PathPattern: /old/*
    MinTTL: 0
    AllowedMethods: {Items: [GET, HEAD, OPTIONS], CachedMethods: {Quantity: 3, Items: [GET, HEAD, OPTIONS]}, Quantity: 3}
    ForwardedValues: {QueryString: true, QueryStringCacheKeys: [w], Cookies: {Forward: whitelist, WhitelistedNames: {Items: [a*]}}}
CustomErrorResponses:
  - {ErrorCode: 404, ResponsePagePath: /404.html, ResponseCode: 404, ErrorCachingMinTTL: 0}
CacheTagConfig: {HeaderName: Cache-Tag}
CachePolicies:
  - {Id: own, CachePolicyConfig: {Name: own, MinTTL: 5}}
`)
	zero := int64(0)
	want := &Config{
		Aliases:              []string{"www.example.com"},
		Origins:              []Origin{{Id: "app", DomainName: "app.example.com", OriginPath: "/production", CustomHeaders: []OriginCustomHeader{{"X-Secret", "s"}}}},
		DefaultCacheBehavior: CacheBehavior{CachePolicyId: "Managed-CachingOptimized", AllowedMethods: AllowedMethods{Items: []string{"GET", "HEAD"}}},
		CacheBehaviors: []CacheBehavior{{
			PathPattern: "/old/*", MinTTL: &zero,
			AllowedMethods: AllowedMethods{[]string{"GET", "HEAD", "OPTIONS"}, []string{"GET", "HEAD", "OPTIONS"}},
			ForwardedValues: &ForwardedValues{
				QueryString: true, QueryStringCacheKeys: []string{"w"},
				Cookies: CookiePreference{"whitelist", []string{"a*"}},
			},
		}},
		CustomErrorResponses: []CustomErrorResponse{{404, &zero, "/404.html", 404}},
		CacheTagConfig:       &CacheTagConfig{"Cache-Tag"},
		CachePolicies:        []CachePolicy{{Id: "own", CachePolicyConfig: CachePolicyConfig{Name: "own", MinTTL: 5}}},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

// What the AWS CLI prints of a distribution, with the settings that make no difference here.
const printed = `{
    "ETag": "E37HOT42DHPVYH",
    "DistributionConfig": {
        "CallerReference": "2015-09-01", "Comment": "", "PriceClass": "PriceClass_All", "Enabled": true, "WebACLId": "", "HttpVersion": "http2",
        "Aliases": {"Quantity": 0}, "DefaultRootObject": "index.html", "Staging": false,
        "Logging": {"Bucket": "", "Prefix": "", "Enabled": false, "IncludeCookies": false},
        "Origins": {"Quantity": 1, "Items": [{
            "Id": "my-origin", "DomainName": "my-bucket.s3.amazonaws.com", "OriginPath": "", "CustomHeaders": {"Quantity": 0},
            "S3OriginConfig": {"OriginAccessIdentity": ""}, "ConnectionAttempts": 3, "ConnectionTimeout": 10, "OriginShield": {"Enabled": false}}]},
        "OriginGroups": {"Quantity": 0},
        "DefaultCacheBehavior": {
            "TargetOriginId": "my-origin", "TrustedSigners": {"Enabled": false, "Quantity": 0}, "ViewerProtocolPolicy": "allow-all",
            "ForwardedValues": {"QueryString": true, "Cookies": {"Forward": "none"}, "Headers": {"Quantity": 0}, "QueryStringCacheKeys": {"Quantity": 0}},
            "MinTTL": 3600, "DefaultTTL": 86400, "MaxTTL": 31536000, "SmoothStreaming": false, "Compress": false,
            "LambdaFunctionAssociations": {"Quantity": 0}, "FieldLevelEncryptionId": "",
            "AllowedMethods": {"Quantity": 2, "Items": ["HEAD", "GET"], "CachedMethods": {"Quantity": 2, "Items": ["HEAD", "GET"]}}},
        "CacheBehaviors": {"Quantity": 0},
        "CustomErrorResponses": {"Quantity": 1, "Items": [{"ErrorCode": 404, "ResponsePagePath": "", "ResponseCode": "", "ErrorCachingMinTTL": 300}]},
        "ViewerCertificate": {"CloudFrontDefaultCertificate": true, "MinimumProtocolVersion": "SSLv3"},
        "Restrictions": {"GeoRestriction": {"RestrictionType": "none", "Quantity": 0}}
    }
}`

func TestLoadWhatTheCLIPrints(t *testing.T) {
	for name, text := range map[string]string{
		"get-distribution-config": printed,
		"get-distribution": `{"Distribution": {"Id": "E1", "Status": "Deployed", ` + strings.TrimPrefix(strings.TrimSpace(printed), `{
    "ETag": "E37HOT42DHPVYH",`) + `}`,
	} {
		c := load(t, text)
		if c.DefaultRootObject != "index.html" || *c.DefaultCacheBehavior.MinTTL != 3600 || len(c.Origins) != 1 ||
			*c.CustomErrorResponses[0].ErrorCachingMinTTL != 300 || c.DefaultCacheBehavior.ForwardedValues == nil {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	const ok = "DefaultCacheBehavior: {CachePolicyId: CachingDisabled}\n"
	for _, row := range []struct{ text, at, want string }{
		{"", "1:1", "empty"},
		{"a: [", "1:4", "neither YAML nor JSON"},
		{"[1]", "1:1", "no mapping"},
		{ok + "---\n" + ok, "3:1", "second document"},
		{ok + "defaultRootObject: x\n", "2:1", "write DefaultRootObject"},
		{ok + "Default-Root-Object: x\n", "2:1", "write DefaultRootObject"},
		{ok + "Foo: x\n", "2:1", `unknown name "Foo"`},
		{ok + "DefaultRootObject: /x\n", "2:20", "without the leading /"},
		{ok + "DefaultRootObject: [x]\n", "2:20", "no plain value"},
		{ok + "Aliases: x\n", "2:10", "no list"},
		{ok + "Aliases: {Quantity: 2, Items: [a]}\n", "2:11", "there are 1 items"},
		{ok + "CacheBehaviors:\n  - {PathPattern: /a b, CachePolicyId: CachingDisabled}\n", "3:19", "CacheBehaviors[0].PathPattern"},
		{ok + "CacheBehaviors:\n  - {PathPattern: /a, CachePolicyId: nope}\n", "3:38", `there is no policy "nope"`},
		{ok + "CacheBehaviors:\n  - {PathPattern: /a}\n", "3:6", "neither a CachePolicyId nor ForwardedValues"},
		{ok + "CacheBehaviors:\n  - {PathPattern: /a, CachePolicyId: CachingDisabled, MinTTL: 1}\n", "3:6", "the cache policy has the TTLs"},
		{ok + "CacheBehaviors:\n  - {PathPattern: /a, CachePolicyId: CachingDisabled, MinTTL: 1s}\n", "3:63", "times are in seconds"},
		{ok + "CacheBehaviors:\n  - {PathPattern: /a, CachePolicyId: CachingDisabled, Compress: maybe}\n", "3:65", "true or false"},
		{"DefaultCacheBehavior: {ForwardedValues: {QueryString: false}, MinTTL: 5, MaxTTL: 4}", "1:24", "MinTTL <= DefaultTTL <= MaxTTL"},
		{"DefaultCacheBehavior: {ForwardedValues: {QueryString: false, Headers: ['*']}, MinTTL: 5}", "1:87", "nothing is cached"},
		{"DefaultCacheBehavior: {CachePolicyId: CachingDisabled, AllowedMethods: [GET, TRACE]}", "1:72", "there is no \"TRACE\""},
		{"DefaultCacheBehavior: {CachePolicyId: CachingDisabled, TargetOriginId: x}\nOrigins: [{Id: y}]", "1:72", "no origin \"x\""},
		{"DefaultCacheBehavior: {CachePolicyId: CachingDisabled, PathPattern: /x}", "1:69", "for every path"},
		{ok + "CustomErrorResponses: [{ErrorCode: 418}]\n", "2:36", "it is 418"},
		{ok + "CustomErrorResponses: [{ErrorCode: 404, ResponseCode: 200}]\n", "2:25", "belong together"},
		{ok + "CacheTagConfig: {HeaderName: 'a b'}\n", "2:30", `"a b" is none`},
		{ok + "CachePolicies: [{Id: x, CachePolicyConfig: {ParametersInCacheKeyAndForwardedToOrigin: {HeadersConfig: {HeaderBehavior: all}}}}]\n", "2:120", "whitelist"},
		{ok + ok, "2:1", "already defined"},
		{ok + "CachePolicies: [{Id: x, CachePolicyConfig: {ParametersInCacheKeyAndForwardedToOrigin: {QueryStringsConfig: {QueryStringBehavior: whitelist, QueryStrings: [a&b]}}}}]\n", "2:155", "no '&'"},
	} {
		_, err := LoadConfig(strings.NewReader(row.text), "f")
		var ce *ConfigError
		if !errors.As(err, &ce) || ce.At != "f:"+row.at || !strings.Contains(err.Error(), row.want) || ce.Hint == "" {
			t.Errorf("%q:\n got %v\nwant f:%s ... %s", row.text, err, row.at, row.want)
		}
	}
}

// The managed policies agree with those that package lifetime knows by the same IDs.
func TestManagedPolicies(t *testing.T) {
	policies := ManagedCachePolicies()
	if len(policies) != 7 || len(ManagedOriginRequestPolicies()) != 8 {
		t.Errorf("%d and %d policies", len(policies), len(ManagedOriginRequestPolicies()))
	}
	for _, p := range policies {
		for _, name := range []string{p.Id, p.CachePolicyConfig.Name, strings.TrimPrefix(p.CachePolicyConfig.Name, "Managed-")} {
			want, ok := lifetime.ManagedPolicy(name)
			found, has := new(Config).CachePolicy(name)
			if !ok || !has || found.Id != p.Id {
				t.Errorf("%s: known to lifetime: %v, found %v %s", name, ok, has, found.Id)
				continue
			}
			low, def, high := p.CachePolicyConfig.TTLs()
			if want.MinTTL != time.Duration(low)*time.Second || want.DefaultTTL != time.Duration(def)*time.Second || want.MaxTTL != time.Duration(high)*time.Second {
				t.Errorf("%s: TTLs %d %d %d, want %+v", name, low, def, high, want)
			}
			if rule := must(queryRule(p.CachePolicyConfig.ParametersInCacheKeyAndForwardedToOrigin.QueryStringsConfig)); rule != want.Query {
				t.Errorf("%s: query %v, want %v", name, rule, want.Query)
			}
		}
	}
	for _, p := range ManagedOriginRequestPolicies() {
		if found, ok := new(Config).OriginRequestPolicy(p.OriginRequestPolicyConfig.Name); !ok || found.Id != p.Id {
			t.Errorf("%s: %v %s", p.OriginRequestPolicyConfig.Name, ok, found.Id)
		}
	}
	own := &Config{CachePolicies: []CachePolicy{{Id: "x", CachePolicyConfig: CachePolicyConfig{Name: "CachingOptimized"}}}}
	if p, _ := own.CachePolicy("CachingOptimized"); p.Id != "x" {
		t.Error("the account's own policy does not come before a managed one of that name")
	}
}

// https://docs.aws.amazon.com/cloudfront/latest/APIReference/API_CachePolicyConfig.html
func TestTTLDefaults(t *testing.T) {
	n := func(i int64) *int64 { return &i }
	for _, row := range []struct {
		low, def, high *int64
		want           [3]int64
	}{
		{nil, nil, nil, [3]int64{0, 86400, 31536000}},
		{n(100000), nil, nil, [3]int64{100000, 100000, 31536000}},
		{n(40000000), nil, nil, [3]int64{40000000, 40000000, 40000000}},
		{nil, n(40000000), nil, [3]int64{0, 40000000, 40000000}},
		{nil, nil, n(60), [3]int64{0, 60, 60}},
		{n(1), n(2), n(3), [3]int64{1, 2, 3}},
	} {
		a, b, c := ttls(row.low, row.def, row.high)
		if [3]int64{a, b, c} != row.want {
			t.Errorf("%v: got %d %d %d", row.want, a, b, c)
		}
	}
}

func FuzzLoadConfig(f *testing.F) {
	f.Add(printed)
	f.Add("DefaultCacheBehavior: {CachePolicyId: CachingDisabled}\nAliases: &a [*a]")
	f.Add("{? [a]: b}")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := LoadConfig(strings.NewReader(text), "f")
		var ce *ConfigError
		if err != nil && !errors.As(err, &ce) {
			t.Errorf("%T: %v", err, err)
		}
		if err == nil && c.Validate() != nil {
			t.Errorf("loaded, and then not valid: %v", c.Validate())
		}
	})
}
