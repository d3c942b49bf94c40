// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cfpath

import "testing"

func TestRootObject(t *testing.T) {
	for _, tc := range []struct{ object, path, other string }{
		{"index.html", "/", "/index.html"},
		{"index.html", "/index.html", "/"},
		{"index.html", "/?q=1", "/index.html?q=1"},
		{"index.html", "/index.html?q=1", "/?q=1"},
		{"index.html", "/index.html5", ""},
		{"index.html", "/a/index.html", ""},
		{"index.html", "/a", ""},
		{"home/a b.html", "/", "/home/a%20b.html"},
		{"", "/", ""},
		{"", "/?q", ""},
	} {
		root, err := ParseRootObject(tc.object)
		if err != nil {
			t.Fatal(err)
		}
		other, ok := root.Other(tc.path)
		if other != tc.other || ok != (tc.other != "") {
			t.Errorf("%q, %s: %q, %t", tc.object, tc.path, other, ok)
		}
		if back, ok := root.Other(other); other != "" && (!ok || back != tc.path) {
			t.Errorf("%q: %s, and back %q", tc.object, other, back)
		}
	}
	for _, bad := range []string{"/index.html", "index.html?x", "*.html", "a#b", "/"} {
		if root, err := ParseRootObject(bad); err == nil {
			t.Errorf("%q: %q", bad, root)
		}
	}
}
