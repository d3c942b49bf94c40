// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package storetest

import "testing"

func TestPathsAreAsDescribed(t *testing.T) {
	const n = 100_000
	seen := make(map[string]bool, n)
	for i := range n {
		path := Path(i)
		if len(path) != 66 {
			t.Fatalf("%q is %d bytes long", path, len(path))
		}
		if again := i%10 < 3; i >= 10 && again != seen[path] {
			t.Fatalf("sighting %d of %q: a repetition is %v, want %v", i, path, seen[path], again)
		}
		seen[path] = true
	}
}
