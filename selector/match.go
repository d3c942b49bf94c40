// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"slices"
	"strings"
)

// patterns is a set of canonical patterns. Of those without '*' and those with
// the only '*' at the end there can be many at no cost.
type patterns struct {
	exactQuery bool
	exact      map[string]struct{}
	sorted     []string // the keys of exact
	prefixes   []string // sorted; none begins with another
	globs      []glob
}

func newPatterns(exactQuery bool) *patterns {
	return &patterns{exactQuery: exactQuery, exact: make(map[string]struct{})}
}

func (s *patterns) add(pattern string) {
	switch star := strings.IndexByte(pattern, '*'); {
	case star < 0:
		s.exact[pattern] = struct{}{}
	case strings.Trim(pattern[star:], "*") == "":
		s.prefixes = append(s.prefixes, pattern[:star])
	default:
		s.globs = append(s.globs, newGlob(pattern))
	}
}

// finish must follow the last add.
func (s *patterns) finish() {
	s.sorted = make([]string, 0, len(s.exact))
	for p := range s.exact {
		s.sorted = append(s.sorted, p)
	}
	slices.Sort(s.sorted)
	slices.Sort(s.prefixes)
	kept := s.prefixes[:0]
	for _, p := range s.prefixes {
		if len(kept) == 0 || !strings.HasPrefix(p, kept[len(kept)-1]) {
			kept = append(kept, p)
		}
	}
	s.prefixes = kept
}

// withoutQuery is the path before its query, if patterns match that too.
func (s *patterns) withoutQuery(path string) (string, bool) {
	if s.exactQuery {
		return "", false
	}
	q := strings.IndexByte(path, '?')
	if q < 0 {
		return "", false
	}
	return path[:q], true
}

// match tells whether a pattern matches the path. A pattern that has a '?' cannot
// match what stands before the first one of the path.
func (s *patterns) match(path string) bool {
	if _, ok := s.exact[path]; ok || s.prefixOf(path) {
		return true
	}
	stem, query := s.withoutQuery(path)
	if query {
		if _, ok := s.exact[stem]; ok {
			return true
		}
	}
	for i := range s.globs {
		if g := &s.globs[i]; g.match(path) || query && g.match(stem) {
			return true
		}
	}
	return false
}

// prefixOf tells whether a trailing wildcard matches the path. Everything from
// a prefix of the path up to the path begins with that prefix, and no other of
// the set does; so only the last one before the path can be it.
func (s *patterns) prefixOf(path string) bool {
	i, found := slices.BinarySearch(s.prefixes, path)
	return found || i > 0 && strings.HasPrefix(path, s.prefixes[i-1])
}

// matchBelow tells whether a pattern matches any string that begins with prefix.
func (s *patterns) matchBelow(prefix string) bool {
	if s.prefixOf(prefix) || begins(s.prefixes, prefix) || begins(s.sorted, prefix) {
		return true
	}
	if stem, query := s.withoutQuery(prefix); query {
		if _, ok := s.exact[stem]; ok {
			return true
		}
	}
	for i := range s.globs {
		// Its first '*' swallows whatever the prefix has more.
		if head := s.globs[i].head; strings.HasPrefix(head, prefix) || strings.HasPrefix(prefix, head) {
			return true
		}
	}
	return false
}

// begins tells whether one of a sorted list begins with prefix.
func begins(sorted []string, prefix string) bool {
	i, _ := slices.BinarySearch(sorted, prefix)
	return i < len(sorted) && strings.HasPrefix(sorted[i], prefix)
}

// matchAllBelow tells whether one pattern alone matches every string that begins
// with prefix.
func (s *patterns) matchAllBelow(prefix string) bool {
	if s.prefixOf(prefix) {
		return true
	}
	stem, query := s.withoutQuery(prefix)
	if query {
		if _, ok := s.exact[stem]; ok {
			return true
		}
	}
	for i := range s.globs {
		if g := &s.globs[i]; g.tail == "" && g.match(prefix) || query && g.match(stem) {
			return true
		}
	}
	return false
}

// common is the longest prefix of everything the set matches.
func (s *patterns) common() string {
	common, first := "", true
	meet := func(p string) {
		if first {
			common, first = p, false
			return
		}
		n := 0
		for n < len(p) && n < len(common) && p[n] == common[n] {
			n++
		}
		common = common[:n]
	}
	// Between the first and the last of a sorted list all have what these two share.
	for _, sorted := range [...][]string{s.sorted, s.prefixes} {
		if len(sorted) > 0 {
			meet(sorted[0])
			meet(sorted[len(sorted)-1])
		}
	}
	for _, g := range s.globs {
		meet(g.head)
	}
	return common
}

// A glob is head*middle[0]*…*tail.
type glob struct {
	head, tail string
	middle     []string
	length     int // of all the literals
}

// newGlob takes a pattern with at least one '*'.
func newGlob(pattern string) glob {
	parts := strings.Split(pattern, "*")
	g := glob{head: parts[0], tail: parts[len(parts)-1], length: len(pattern) - len(parts) + 1}
	for _, p := range parts[1 : len(parts)-1] {
		if p != "" {
			g.middle = append(g.middle, p)
		}
	}
	return g
}

// match takes each literal at its first place, which leaves most to the next;
// so nothing is tried twice.
func (g *glob) match(path string) bool {
	if len(path) < g.length || !strings.HasPrefix(path, g.head) || !strings.HasSuffix(path, g.tail) {
		return false
	}
	rest := path[len(g.head) : len(path)-len(g.tail)]
	for _, m := range g.middle {
		i := strings.Index(rest, m)
		if i < 0 {
			return false
		}
		rest = rest[i+len(m):]
	}
	return true
}
