// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

// usable tells whether there is a stem.
func (t *tree) usable(g *group) bool {
	if g.need == 0 {
		return true // and no use for one
	}
	if !g.noWild && t.scope.all && g.lo <= g.hi && g.one.plain && strings.IndexByte(g.path[:g.hi], '*') < 0 {
		return true // nothing in it that could be cut in the wrong place
	}
	for n := g.longest(); n >= g.lo; n-- {
		if t.sendable(g, n) {
			return true
		}
	}
	return false
}

// longest is the length beyond which no stem can be sent.
func (g *group) longest() int {
	stem, _ := cfpath.TightestStem(g.path[:g.hi])
	return len(stem)
}

// sendable tells whether path[:n] can be the stem of the group's wildcard.
func (t *tree) sendable(g *group, n int) bool {
	stem := g.path[:n]
	if !stemmable(stem) {
		return false
	}
	if g.one.folded && stem == g.one.path {
		return true // the entry itself says that all of this was seen
	}
	return !g.noWild && t.scope.holds(stem)
}

// stemmable tells whether stem + "*" can be sent and says what it means: not after
// another '*', nor between the escapes of one character.
func stemmable(stem string) bool {
	return cfpath.ValidStem(stem) && !strings.HasSuffix(stem, "*") && !splitsCharacter(stem)
}

// splitsCharacter tells whether a stem ends between the escapes of one character:
// it is then no text in any charset.
func splitsCharacter(stem string) bool {
	for have := 1; have <= 3; have++ {
		i := len(stem) - 3*have
		if i < 0 || stem[i] != '%' {
			return false
		}
		b, err := strconv.ParseUint(stem[i+1:i+3], 16, 8)
		switch {
		case err != nil || b < 0x80:
			return false
		case b >= 0xF0:
			return have < 4
		case b >= 0xE0:
			return have < 3
		case b >= 0xC0:
			return have < 2
		}
	}
	return false
}

// pick chooses the group's stem, in the order the package comment gives; 0 if
// there is none.
func (t *tree) pick(g *group) int {
	best, bestRank := 0, -1
	for n := g.longest(); n >= g.lo; n-- {
		if r := g.rank(n); r > bestRank && t.sendable(g, n) {
			best, bestRank = n, r
		}
	}
	return best
}

func (g *group) rank(n int) int {
	r := 0
	if n <= g.sure {
		r += 16
	}
	if !g.directory || n < g.hi || n == 1 {
		r += 8
	}
	if n > 1 { // "/*" is nobody's boundary
		switch g.path[n-1] {
		case '/', '?':
			r += 2
		case '.', '-', '_', '=', '&':
			r++
		}
	}
	if g.need == 1 && g.one.folded && n == g.hi {
		r += 4
	}
	return r
}

// A scope is where recorders see what is requested.
type scope struct {
	all      bool
	patterns []cfpath.Pattern
}

func newScope(patterns []string) (scope, error) {
	s := scope{all: len(patterns) == 0}
	for i, given := range patterns {
		p, err := cfpath.ParsePattern(given)
		if err != nil {
			return scope{}, fmt.Errorf("plan: scope %d: %w", i+1, err)
		}
		s.all = s.all || given == "*" || given == "/*"
		s.patterns = append(s.patterns, p)
	}
	return s, nil
}

// holds tells whether all that begins with stem is in the scope. One pattern must
// match up to a '*' at its end; what is below a query is where its path is.
func (s *scope) holds(stem string) bool {
	if s.all {
		return true
	}
	query := strings.Contains(stem, "?")
	for _, p := range s.patterns {
		if (query || strings.HasSuffix(p.String(), "*")) && p.Matches(stem) {
			return true
		}
	}
	return false
}
