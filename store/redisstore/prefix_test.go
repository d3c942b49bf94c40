// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import "testing"

func TestPrefixEnd(t *testing.T) {
	for prefix, want := range map[string]string{
		"a": "b", "a\xff": "b", "a\xfe": "a\xff", "\xfe": "\xff", "a\uFFFD": "a\xef\xbf\xbe", "é": "\xc3\xaa", "a\xff\xff": "b",
		"": "", "\xff": "", "\xff\xff": "",
	} {
		if got, ok := prefixEnd(prefix); got != want || ok != (want != "") {
			t.Errorf("%q ends at %q, %v; want %q", prefix, got, ok, want)
		}
	}
}
