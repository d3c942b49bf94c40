// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cfpath

import "testing"

func TestFromTarget(t *testing.T) {
	for _, c := range []struct{ name, target, want string }{
		{"origin form", "/a%20b?x=1", "/a%20b?x=1"},
		{"absolute form", "http://h/a?x", "/a?x"},
		{"absolute form, scheme in capitals", "HTTPS://h:8443/a", "/a"},
		{"absolute form without path", "http://h", "/"},
		{"absolute form with only a query", "http://h?x=1", "/?x=1"},
		{"absolute form with a URL in its query", "http://h?u=/b", "/?u=/b"},
		{"userinfo", "http://u:p@h/a", "/a"},
		{"two leading slashes are a path", "//h/a", "//h/a"},
		{"a target has no fragment", "/a#b", "/a%23b"},
		{"raw UTF-8", "/é", "/%C3%A9"},
		{"raw ISO-8859-1", "/\xe9", "/%E9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := FromTarget(c.target); got != c.want || err != nil {
				t.Errorf("FromTarget(%q) = %q, %v; want %q", c.target, got, err, c.want)
			}
		})
	}
}
