// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"testing"
)

func TestNaiveWays(t *testing.T) {
	site := []string{"/a/1", "/a/2", "/a/b/3", "/c/d/4", "/c/e/5", "/f"}
	for _, tt := range []struct {
		name string
		got  []string
		want []string
	}{
		{"common prefix", commonPrefix([]string{"/ab/1", "/ab/2", "/ac"}), []string{"/a*"}},
		{"directories", directories(site), []string{"/a/*", "/c/d/4", "/c/e/5", "/f"}},
		{"balanced, few enough", balanced(site, 6), site},
		{"balanced", balanced(site, 4), []string{"/a/*", "/c/d/4", "/c/e/5", "/f"}},
		{"balanced, higher", balanced(site, 3), []string{"/a/*", "/c/*", "/f"}},
		{"levels, few enough", levels(site, 6), site},
		{"levels, one of three is not enough", levels(site, 4), []string{"/a/*", "/c/*", "/f"}},
		{"levels, an index", levels([]string{"/x/my-index.html", "/y"}, 8), []string{"/x/", "/y"}},
	} {
		if !slices.Equal(tt.got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, tt.got, tt.want)
		}
	}
}
