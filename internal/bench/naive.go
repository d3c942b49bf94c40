// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path"
	"slices"
	"strings"
)

// The ways of known tools to make few items of many paths, after what their
// documentation and sources say they do. None knows what else there is. Each takes paths
// in byte order.

// commonPrefix is one wildcard after what all have in common, as the CloudFront purger
// of Blitz for Craft CMS sends (https://github.com/putyourlightson/craft-blitz-cloudfront).
func commonPrefix(paths []string) []string {
	a, b := paths[0], paths[len(paths)-1]
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return []string{a[:n] + "*"}
}

// directories sends "dir/*" for each directory in which two or more pages of its own changed.
func directories(paths []string) []string {
	own := map[string]int{}
	for _, p := range paths {
		own[dirOf(p)]++
	}
	var out []string
	for _, p := range paths {
		item := p
		for dir := dirOf(p); dir != ""; dir = dirOf(strings.TrimSuffix(dir, "/")) {
			if own[dir] > 1 {
				item = dir + "*" // the highest counts
			}
		}
		out = append(out, item)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// dirOf is the directory with its '/', "" if there is none.
func dirOf(p string) string { return p[:strings.LastIndexByte(p, '/')+1] }

// balanced replaces, as long as there are too many, what the deepest directory shared by two
// or more holds by "dir/*", as the balanced strategy of a deployment action for GitHub does.
func balanced(paths []string, most int) []string {
	items := slices.Clone(paths)
	for len(items) > most {
		count := map[string]int{}
		for _, it := range items {
			for dir := dirOf(strings.TrimSuffix(it, "/*")); dir != ""; dir = dirOf(strings.TrimSuffix(dir, "/")) {
				count[dir]++
			}
		}
		deepest := "/"
		for dir, n := range count {
			if d := strings.Count(dir, "/") - strings.Count(deepest, "/"); n > 1 && (d > 0 || d == 0 && dir < deepest) {
				deepest = dir
			}
		}
		items = slices.DeleteFunc(items, func(it string) bool { return strings.HasPrefix(it, deepest) })
		items = append(items, deepest+"*")
	}
	slices.Sort(items)
	return items
}

// levels shortens all paths of more than so many levels by a directory, level after level,
// until there are few enough, as s3deploy does (https://github.com/bep/s3deploy). A path that ends in
// "index.html" is taken for its directory.
func levels(paths []string, most int) []string {
	var items []string
	deepest := 0
	for _, p := range paths {
		clean := path.Clean(p)
		if strings.HasSuffix(p, "/") && clean != "/" {
			clean += "/"
		}
		if rest, ok := strings.CutSuffix(clean, "index.html"); ok {
			clean = dirOf(rest)
		}
		items = append(items, clean)
		deepest = max(deepest, strings.Count(clean, "/"))
	}
	unique := func() {
		slices.Sort(items)
		items = slices.Compact(items)
	}
	unique()
	for level := deepest; level > 0 && len(items) > most; level-- {
		for i, it := range items {
			if strings.Count(it, "/") <= level {
				continue
			}
			dirs := strings.Split(strings.Trim(dirOf(it), "/"), "/")
			if len(dirs) > 1 {
				dirs = dirs[:len(dirs)-1]
			}
			items[i] = "/" + strings.Join(dirs, "/") + "/*"
		}
		unique()
	}
	if len(items) > most || slices.Contains(items, "/*") {
		return []string{"/*"}
	}
	return items
}
