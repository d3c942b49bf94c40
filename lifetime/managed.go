// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package lifetime

import (
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

// ManagedPolicy returns the behaviour that one of AWS's managed cache policies
// gives, by its name (with or without "Managed-" before it) or ID, and false for
// any other policy. It knows the policies in
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/using-managed-cache-policies.html
// but not those for Amplify Hosting alone.
func ManagedPolicy(nameOrID string) (Behavior, bool) {
	const day, year = 24 * time.Hour, 365 * 24 * time.Hour
	var b Behavior
	query := "all"
	switch strings.TrimPrefix(nameOrID, "Managed-") {
	case "CachingOptimized", "658327ea-f89d-4fab-a63d-7e88639e58f6",
		"CachingOptimizedForUncompressedObjects", "b2884449-e4de-46a7-ac36-70bc7f1ddd6d":
		b, query = Behavior{MinTTL: time.Second, DefaultTTL: day, MaxTTL: year}, "none"
	case "CachingDisabled", "4135ea2d-6df8-44a3-9df3-4b5a84be39ad":
		query = "none"
	case "UseOriginCacheControlHeaders", "83da9c7e-98b4-4e11-a168-04f0df8e2c65":
		b, query = Behavior{MaxTTL: year}, "none"
	case "UseOriginCacheControlHeaders-QueryStrings", "4cc15a8a-d715-48a4-82b8-cc0b614638fe":
		b = Behavior{MaxTTL: year}
	case "Amplify", "2e54312d-136d-493c-8eb9-b001f22f67d2":
		b = Behavior{MinTTL: 2 * time.Second, DefaultTTL: 2 * time.Second, MaxTTL: 10 * time.Minute}
	case "Elemental-MediaPackage", "08627262-05a9-4f76-9ded-b50ca2e3a84f":
		b, query = Behavior{DefaultTTL: day, MaxTTL: year}, "include:aws.manifestfilter,start,end,m"
	default:
		return Behavior{}, false
	}
	rule, err := cfpath.ParseQueryRule(query)
	b.Query = rule
	return b, err == nil
}
