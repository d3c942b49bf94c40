// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package selector

import "strings"

// patterns is a set of canonical patterns. Of those without '*' and those with
// the only '*' at the end there can be many at no cost.
type patterns struct {
	exactQuery bool
	exact      ordered
	stems      ordered // exact again, to be asked for what stands before a query
	prefixes   ordered // none begins with another
	globs      globs
}

func newPatterns(exactQuery bool) *patterns { return &patterns{exactQuery: exactQuery} }

func (s *patterns) add(pattern string) {
	switch star := strings.IndexByte(pattern, '*'); {
	case star < 0:
		s.exact.list = append(s.exact.list, pattern)
	case strings.Trim(pattern[star:], "*") == "":
		s.addPrefix(pattern[:star])
	default:
		s.globs.all = append(s.globs.all, newGlob(pattern))
	}
}

func (s *patterns) addPrefix(p string) { s.prefixes.list = append(s.prefixes.list, p) }

// finish must follow the last add.
func (s *patterns) finish() {
	s.exact.finish()
	s.stems.list = s.exact.list
	s.prefixes.finish()
	s.prefixes.list = shortest(s.prefixes.list)
	s.globs.finish()
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
	if s.exact.has(path) || s.prefixes.begun(path) {
		return true
	}
	stem, query := s.withoutQuery(path)
	return query && s.stems.has(stem) || s.globs.match(path, stem, query, false)
}

// matches is match of a set that may be nil.
func (s *patterns) matches(path string) bool { return s != nil && s.match(path) }

// matchesBelow is matchBelow of a set that may be nil.
func (s *patterns) matchesBelow(prefix string) bool { return s != nil && s.matchBelow(prefix) }

// any tells whether there is a pattern.
func (s *patterns) any() bool {
	return len(s.exact.list)+len(s.prefixes.list)+len(s.globs.all) > 0
}

// shared is how many bytes two strings have in common at their beginning.
func shared(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// matchBelow tells whether a pattern matches any string that begins with prefix.
func (s *patterns) matchBelow(prefix string) bool {
	if s.prefixes.begun(prefix) || s.prefixes.begins(prefix) || s.exact.begins(prefix) || s.globs.matchBelow(prefix) {
		return true
	}
	stem, query := s.withoutQuery(prefix)
	return query && s.stems.has(stem)
}

// matchAllBelow tells whether one pattern alone matches every string that begins
// with prefix.
func (s *patterns) matchAllBelow(prefix string) bool {
	if s.prefixes.begun(prefix) {
		return true
	}
	stem, query := s.withoutQuery(prefix)
	return query && s.stems.has(stem) || s.globs.match(prefix, stem, query, true)
}

// common is the longest prefix of everything the set matches.
func (s *patterns) common() string {
	common, first := "", true
	meet := func(p string) {
		if first {
			common, first = p, false
			return
		}
		common = common[:shared(common, p)]
	}
	// Between the first and the last of a sorted list all have what these two share.
	for _, sorted := range [...][]string{s.exact.list, s.prefixes.list, s.globs.heads.list} {
		if len(sorted) > 0 {
			meet(sorted[0])
			meet(sorted[len(sorted)-1])
		}
	}
	return common
}
