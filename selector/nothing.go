// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"fmt"
	"regexp/syntax"
	"strings"
)

// nothing finds out that a selector cannot select any path, where that can be
// decided from its criteria alone: by far most who ask for nothing made a mistake.
// Patterns are canonical.
func (s Selector) nothing(c *Compiled, patterns, prefixes, exclude []string) error {
	if c.age >= 0 && c.recent >= 0 && c.recent <= c.age {
		return &Error{Where: "--seen-since", Input: Duration(c.recent).String(),
			Reason: "nothing that was sighted since then is older than " + Duration(c.age).String() + ", which --older-than asks for",
			Hint:   "give --seen-since a longer time than --older-than"}
	}
	if err := s.apart(c, patterns, prefixes); err != nil || c.exclude == nil {
		return err
	}
	// What has to be left out for nothing to be left.
	where, given, canonical := "", []string{"everything"}, []string{"/*"}
	switch {
	case len(patterns) > 0:
		where, given, canonical = "pattern ", s.Patterns, patterns
	case len(prefixes) > 0:
		where, given = "--prefix ", s.Prefixes
		canonical = make([]string, len(prefixes))
		for i, p := range prefixes {
			canonical[i] = p + "*"
		}
	}
	by := -1
	for _, p := range canonical {
		if by = s.leavesOut(exclude, p); by < 0 {
			return nil
		}
	}
	what := where + given[len(given)-1]
	if where != "" && len(given) > 1 {
		what = fmt.Sprintf("%s, and the other %d are left out too", what, len(given)-1)
	}
	return &Error{Where: "--exclude", Input: s.Exclude[by], Reason: "it leaves out all of " + what, Hint: "leave less out, or select more"}
}

// leavesOut returns the first exclusion that matches all that a pattern matches,
// or -1. A '*' of the pattern is only matched by one of the exclusion, whose other
// characters are never '*'; so the pattern stands for all it matches.
func (s Selector) leavesOut(exclude []string, pattern string) int {
	for i, e := range exclude {
		set := newPatterns(s.ExactQuery)
		set.add(e)
		set.finish()
		q := strings.IndexByte(pattern, '?')
		if star := strings.IndexByte(pattern, '*'); q >= 0 && star >= 0 && star < q {
			// Its own first '?' need not be the first of what it matches.
			set.exactQuery = true
		}
		if !set.match(pattern) {
			continue
		}
		// A pattern without '?' also matches with any query, unless it is literal.
		if s.ExactQuery || q >= 0 || strings.HasSuffix(pattern, "*") || set.matchAllBelow(pattern+"?") {
			return i
		}
	}
	return -1
}

// apart finds out that patterns and prefixes have nothing in common.
func (s Selector) apart(c *Compiled, patterns, prefixes []string) error {
	if len(patterns) == 0 || len(prefixes) == 0 || len(s.Twins) > 0 {
		return nil
	}
	for _, p := range prefixes {
		if c.patterns.matchBelow(p) {
			return nil
		}
	}
	return &Error{Where: "--prefix", Input: s.Prefixes[0], Reason: fmt.Sprintf("no pattern, such as %s, matches anything that begins so", s.Patterns[0]),
		Hint: "different criteria narrow each other; for a union, write the prefix as the pattern '" + prefixes[0] + "*'"}
}

// inPaths tells of the bytes that a canonical path may have.
func inPaths(r rune) bool {
	return r > ' ' && r < 0x7f && !strings.ContainsRune(`"#'<>[\]^{|}`+"`", r)
}

// impossible finds out that a regular expression matches no canonical path: none
// that begins with '/' and has no other characters than these have. It looks for a
// way through the program on which every step can be taken by some path.
func impossible(expr string) bool {
	re, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return false
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		return false
	}
	// A place is an instruction, what was read last, and what is promised to come next.
	type place struct {
		pc         uint32
		last, next kind
	}
	seen := make(map[place]bool)
	var todo []place
	visit := func(p place) {
		if !seen[p] {
			seen[p] = true
			todo = append(todo, p)
		}
	}
	visit(place{uint32(prog.Start), noKind, anyKind})
	// It is not anchored: it may begin after any character.
	visit(place{uint32(prog.Start), wordKind, anyKind})
	visit(place{uint32(prog.Start), otherKind, anyKind})
	for len(todo) > 0 {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		in := &prog.Inst[p.pc]
		switch in.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			visit(place{in.Out, p.last, p.next})
			visit(place{in.Arg, p.last, p.next})
		case syntax.InstCapture, syntax.InstNop:
			visit(place{in.Out, p.last, p.next})
		case syntax.InstEmptyWidth:
			for _, next := range [...]kind{wordKind, otherKind, endKind} {
				if (p.next == anyKind || p.next == next) && holds(syntax.EmptyOp(in.Arg), p.last, next) {
					visit(place{in.Out, p.last, next})
				}
			}
		case syntax.InstMatch:
			return false
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			for r := rune('!'); r <= '~'; r++ {
				k := otherKind
				if syntax.IsWordChar(r) {
					k = wordKind
				}
				if inPaths(r) && (p.last != noKind || r == '/') && (p.next == anyKind || p.next == k) && in.MatchRune(r) {
					visit(place{in.Out, k, anyKind})
				}
			}
		}
	}
	return true
}

// A kind is what stands before or after a place in a path.
type kind uint8

const (
	anyKind   kind = iota // anything, for what comes next
	noKind                // nothing: it is the beginning
	endKind               // nothing: it is the end
	wordKind              // a character of \w
	otherKind             // another one
)

// holds tells whether an assertion holds between two kinds.
func holds(op syntax.EmptyOp, last, next kind) bool {
	if last == noKind && next != otherKind {
		return false // a path begins with '/'
	}
	boundary := (last == wordKind) != (next == wordKind)
	return !(op&(syntax.EmptyBeginLine|syntax.EmptyBeginText) != 0 && last != noKind ||
		op&(syntax.EmptyEndLine|syntax.EmptyEndText) != 0 && next != endKind ||
		op&syntax.EmptyWordBoundary != 0 && !boundary ||
		op&syntax.EmptyNoWordBoundary != 0 && boundary)
}
