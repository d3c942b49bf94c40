// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

// ManagedCachePolicies returns the cache policies that AWS manages and documents
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/using-managed-cache-policies.html).
// Of the four for Amplify Hosting alone it documents no more than their IDs, so they are not among them.
func ManagedCachePolicies() []CachePolicy {
	hosts := []string{"Host", "Origin", "X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"}
	return []CachePolicy{
		cachePolicy("2e54312d-136d-493c-8eb9-b001f22f67d2", "Amplify", 2, 2, 600, CacheKeyParameters{
			true, true,
			HeadersConfig{"whitelist", []string{"Authorization", "CloudFront-Viewer-Country", "Host"}},
			CookiesConfig{"all", nil}, QueryStringsConfig{"all", nil},
		}),
		cachePolicy("4135ea2d-6df8-44a3-9df3-4b5a84be39ad", "CachingDisabled", 0, 0, 0, noParameters(false)),
		cachePolicy("658327ea-f89d-4fab-a63d-7e88639e58f6", "CachingOptimized", 1, daySeconds, yearSeconds, noParameters(true)),
		cachePolicy("b2884449-e4de-46a7-ac36-70bc7f1ddd6d", "CachingOptimizedForUncompressedObjects", 1, daySeconds, yearSeconds, noParameters(false)),
		cachePolicy("08627262-05a9-4f76-9ded-b50ca2e3a84f", "Elemental-MediaPackage", 0, daySeconds, yearSeconds, CacheKeyParameters{
			true, false,
			HeadersConfig{"whitelist", []string{"Origin"}}, CookiesConfig{"none", nil},
			QueryStringsConfig{"whitelist", []string{"aws.manifestfilter", "start", "end", "m"}},
		}),
		cachePolicy("83da9c7e-98b4-4e11-a168-04f0df8e2c65", "UseOriginCacheControlHeaders", 0, 0, yearSeconds, CacheKeyParameters{
			true, true,
			HeadersConfig{"whitelist", hosts}, CookiesConfig{"all", nil}, QueryStringsConfig{"none", nil},
		}),
		cachePolicy("4cc15a8a-d715-48a4-82b8-cc0b614638fe", "UseOriginCacheControlHeaders-QueryStrings", 0, 0, yearSeconds, CacheKeyParameters{
			true, true,
			HeadersConfig{"whitelist", hosts}, CookiesConfig{"all", nil}, QueryStringsConfig{"all", nil},
		}),
	}
}

func cachePolicy(id, name string, low, def, high int64, k CacheKeyParameters) CachePolicy {
	return CachePolicy{id, CachePolicyConfig{
		Name: "Managed-" + name, MinTTL: low, DefaultTTL: &def, MaxTTL: &high, ParametersInCacheKeyAndForwardedToOrigin: k,
	}}
}

func noParameters(compressed bool) CacheKeyParameters {
	return CacheKeyParameters{
		compressed, compressed,
		HeadersConfig{"none", nil}, CookiesConfig{"none", nil}, QueryStringsConfig{"none", nil},
	}
}

// ManagedOriginRequestPolicies returns the origin request policies that AWS manages
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/using-managed-origin-request-policies.html).
func ManagedOriginRequestPolicies() []OriginRequestPolicy {
	none, all := CookiesConfig{"none", nil}, CookiesConfig{"all", nil}
	noQuery, allQuery := QueryStringsConfig{"none", nil}, QueryStringsConfig{"all", nil}
	list := func(names ...string) HeadersConfig { return HeadersConfig{"whitelist", names} }
	policy := func(id, name string, h HeadersConfig, c CookiesConfig, q QueryStringsConfig) OriginRequestPolicy {
		return OriginRequestPolicy{id, OriginRequestPolicyConfig{
			Name: "Managed-" + name, HeadersConfig: h, CookiesConfig: c, QueryStringsConfig: q,
		}}
	}
	return []OriginRequestPolicy{
		policy("216adef6-5c7f-47e4-b989-5492eafa07d3", "AllViewer", HeadersConfig{"allViewer", nil}, all, allQuery),
		policy("33f36d7e-f396-46d9-90e0-52428a34d9dc", "AllViewerAndCloudFrontHeaders-2022-06",
			HeadersConfig{"allViewerAndWhitelistCloudFront", []string{
				"CloudFront-Forwarded-Proto", "CloudFront-Is-Android-Viewer", "CloudFront-Is-Desktop-Viewer",
				"CloudFront-Is-IOS-Viewer", "CloudFront-Is-Mobile-Viewer", "CloudFront-Is-SmartTV-Viewer",
				"CloudFront-Is-Tablet-Viewer", "CloudFront-Viewer-Address", "CloudFront-Viewer-ASN",
				"CloudFront-Viewer-City", "CloudFront-Viewer-Country", "CloudFront-Viewer-Country-Name",
				"CloudFront-Viewer-Country-Region", "CloudFront-Viewer-Country-Region-Name",
				"CloudFront-Viewer-Http-Version", "CloudFront-Viewer-Latitude", "CloudFront-Viewer-Longitude",
				"CloudFront-Viewer-Metro-Code", "CloudFront-Viewer-Postal-Code", "CloudFront-Viewer-Time-Zone",
				"CloudFront-Viewer-TLS",
			}}, all, allQuery),
		policy("b689b0a8-53d0-40ab-baf2-68738e2966ac", "AllViewerExceptHostHeader", HeadersConfig{"allExcept", []string{"Host"}}, all, allQuery),
		policy("59781a5b-3903-41f3-afcb-af62929ccde1", "CORS-CustomOrigin", list("Origin"), none, noQuery),
		policy("88a5eaf4-2fd4-4709-b370-b4c650ea3fcf", "CORS-S3Origin",
			list("Origin", "Access-Control-Request-Headers", "Access-Control-Request-Method"), none, noQuery),
		policy("775133bc-15f2-49f9-abea-afb2e0bf67d2", "Elemental-MediaTailor-PersonalizedManifests",
			list("Origin", "Access-Control-Request-Headers", "Access-Control-Request-Method", "User-Agent", "X-Forwarded-For"), none, allQuery),
		policy("bf0718e1-ba1e-49d1-88b1-f726733018ae", "HostHeaderOnly", list("Host"), none, noQuery),
		policy("acba4595-bd28-49b8-b9fe-13317c0390fa", "UserAgentRefererHeaders", list("User-Agent", "Referer"), none, noQuery),
	}
}
