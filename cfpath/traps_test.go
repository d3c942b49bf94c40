// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cfpath

import (
	"slices"
	"testing"
)

// TestTraps has the mistakes that people made with invalidation paths, each
// with what this package makes of it.
func TestTraps(t *testing.T) {
	parse := func(t *testing.T, s string) Item {
		t.Helper()
		it, err := ParseItem(s)
		if err != nil {
			t.Fatal(err)
		}
		return it
	}

	// https://github.com/aws/aws-sdk/issues/525
	t.Run("a tilde can never be named", func(t *testing.T) {
		for _, path := range []string{"/js/runtime~main.js", "/js/runtime%7Emain.js", "/js/runtime%7emain.js"} {
			if item, err := Name(path); err == nil {
				t.Errorf("Name(%q) = %q", path, item)
			}
			stem, ok := TightestStem(path)
			if it := (Item{Wildcard, stem}); !ok || it.String() != "/js/runtime*" || !it.MatchesSurely(path) {
				t.Errorf("TightestStem(%q) = %q", path, stem)
			}
		}
		if _, err := ParseItem("/js/runtime~main.js"); err == nil {
			t.Error("a raw tilde is taken")
		}
		if it := parse(t, "/js/runtime%7Emain.js"); it.MatchesSurely("/js/runtime%7Emain.js") {
			t.Error("%7E is taken to remove something")
		}
	})

	// https://github.com/boto/boto/issues/3850,
	// https://github.com/apancutt/deploy-aws-s3-cloudfront/issues/7,
	// https://github.com/ir-engine/etherealengine-archive/pull/10190
	t.Run("what is encoded needlessly matches nothing that was meant", func(t *testing.T) {
		for item, path := range map[string]string{"/a%3Fb=c": "/a?b=c", "/a?b%3Dc": "/a?b=c", "/a/%2A": "/a/b", "/%61": "/a"} {
			if it := parse(t, item); it.Kind != Path || it.Matches(path) {
				t.Errorf("%v matches %q", it, path)
			}
			if got, err := Canonical(path); got != path || err != nil {
				t.Errorf("Canonical(%q) = %q, %v", path, got, err)
			}
			if got, err := Canonical(item); got != item || err != nil {
				t.Errorf("Canonical(%q) = %q, %v", item, got, err)
			}
		}
	})

	// https://github.com/aws/aws-sdk-go/issues/223,
	// https://github.com/laurilehmijoki/s3_website/issues/63
	t.Run("what is not encoded is refused", func(t *testing.T) {
		for raw, want := range map[string]string{
			"/a b": "/a%20b", "/a[1]": "/a%5B1%5D", "/it's": "/it%27s", "/café": "/caf%C3%A9",
		} {
			if it, err := ParseItem(raw); err == nil {
				t.Errorf("%v is taken", it)
			}
			path, err := Canonical(raw)
			if path != want || err != nil {
				t.Errorf("Canonical(%q) = %q, %v", raw, path, err)
			}
			if item, err := Name(path); item != want || err != nil {
				t.Errorf("Name(%q) = %q, %v", path, item, err)
			}
		}
	})

	// https://github.com/ir-engine/etherealengine-archive/pull/10622,
	// https://github.com/awsdocs/amazon-cloudfront-developer-guide/issues/72
	t.Run("a space is spelled as the viewer spelled it", func(t *testing.T) {
		for _, target := range []string{"/a+b", "/a%20b"} {
			path, err := FromTarget(target)
			if path != target || err != nil {
				t.Errorf("FromTarget(%q) = %q, %v", target, path, err)
			}
		}
		if parse(t, "/a+b").Matches("/a%20b") || parse(t, "/a%20b").Matches("/a+b") {
			t.Error("the two spellings are one")
		}
	})

	// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/QueryStringParameters.html
	t.Run("each query string is an object", func(t *testing.T) {
		paths := []string{"/a", "/a?x=1", "/a?x=1&y=2", "/a?y=2&x=1", "/a?X=1"}
		for _, item := range paths {
			for _, path := range paths {
				if got := parse(t, item).Matches(path); got != (item == path) {
					t.Errorf("%v matches %q: %t", item, path, got)
				}
			}
			if !parse(t, "/a*").MatchesSurely(item) {
				t.Errorf("/a* does not surely match %q", item)
			}
		}
	})

	t.Run("a wildcard reaches further than one path, and only from the end", func(t *testing.T) {
		for _, path := range []string{"/ab", "/a/b", "/a.html", "/a?x"} {
			if !parse(t, "/a*").Matches(path) {
				t.Errorf("/a* does not match %q", path)
			}
			if got := parse(t, "/a?*").Matches(path); got != (path == "/a?x") {
				t.Errorf("/a?* matches %q: %t", path, got)
			}
		}
		if it := parse(t, "/a*b"); it.Matches("/aXb") || !it.Matches("/a*b") {
			t.Errorf("/a*b is %+v", it)
		}
	})

	// https://github.com/pulumi/docs/pull/21786
	t.Run("a wildcard under a directory may leave the directory", func(t *testing.T) {
		it := parse(t, "/dir/*")
		if !it.Matches("/dir/") || it.MatchesSurely("/dir/") || it.Matches("/dir") {
			t.Error("/dir/* is sure of /dir/ or matches /dir")
		}
		if it := parse(t, "/dir/"); !it.MatchesSurely("/dir/") {
			t.Error("/dir/ does not name itself")
		}
		if stem, _ := SureStem("/dir/"); stem != "/dir" {
			t.Errorf("the sure stem of /dir/ is %q", stem)
		}
	})

	// https://github.com/import-io/s3-deploy/issues/54
	t.Run("the root is one object", func(t *testing.T) {
		if it := parse(t, "/"); !it.MatchesSurely("/") || it.Matches("/index.html") {
			t.Error("/ is not just itself")
		}
		for _, path := range []string{"/", "/index.html", "/a/b?c", "//", "/~/@/'"} {
			if !parse(t, "/*").MatchesSurely(path) {
				t.Errorf("/* is not sure of %q", path)
			}
		}
	})

	// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/LinkFormat.html
	t.Run("a trailing slash makes another object", func(t *testing.T) {
		var got []string
		for _, typed := range []string{"/images", "/images/"} {
			path, err := Canonical(typed)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, path)
		}
		if !slices.Equal(got, []string{"/images", "/images/"}) || parse(t, got[0]).Matches(got[1]) || parse(t, got[1]).Matches(got[0]) {
			t.Errorf("the two are %q", got)
		}
	})

	// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/DownloadDistValuesOrigin.html
	t.Run("the origin path is not in the path", func(t *testing.T) {
		if path, ok := StripOrigin("/production", "/production/acme/x"); path != "/acme/x" || !ok {
			t.Errorf("StripOrigin = %q, %t", path, ok)
		}
	})
}
