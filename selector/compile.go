// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"errors"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/inventory"
)

// A Compiled is a valid selector, ready to decide. It is immutable and safe for
// concurrent use.
type Compiled struct {
	empty    bool
	patterns *patterns // nil: no such criterion
	prefixes *patterns
	regexps  []*regexp.Regexp
	tags     map[string]struct{} // in lower case
	age      time.Duration       // at least; -1: any
	recent   time.Duration       // at most; -1: any
	exclude  *patterns
	// What is fetched beside what patterns and prefixes match; nil: nothing.
	patternTwins, prefixTwins *patterns

	root cfpath.RootObject

	named []cfpath.Item
	// unsendable are the patterns that would be named but for their spelling.
	unsendable []string
	// unnamed is what of the patterns the named items do not reach.
	unnamed *patterns
}

// Compile checks the whole selector. The error is an [*Error] for the first
// thing that is wrong; so is that no path could be selected, as far as the criteria
// alone tell. An empty selector compiles, and selects nothing.
func (s Selector) Compile() (*Compiled, error) {
	c := &Compiled{empty: s.Empty(), age: -1, recent: -1}
	var err error
	if c.root, err = cfpath.ParseRootObject(s.RootObject); err != nil {
		return nil, located("--root-object", s.RootObject, err, 0)
	}
	var given, prefixes, exclude []string
	if c.exclude, exclude, err = compilePatterns("--exclude", s.Exclude, s.ExactQuery); err != nil {
		return nil, err
	}
	if c.patterns, given, err = compilePatterns("pattern", s.Patterns, s.ExactQuery); err != nil {
		return nil, err
	}
	if len(s.Prefixes) > 0 {
		c.prefixes = newPatterns(true)
		for _, p := range s.Prefixes {
			p, err := canonical("--prefix", p)
			if err != nil {
				return nil, err
			}
			c.prefixes.addPrefix(p)
			prefixes = append(prefixes, p)
		}
		c.prefixes.finish()
	}
	for _, r := range s.Regexps {
		re, err := compileRegexp(r)
		if err != nil {
			return nil, err
		}
		c.regexps = append(c.regexps, re)
	}
	for _, t := range s.Tags {
		if _, err := cfpath.ParseItem("#" + t); err != nil {
			return nil, located("--tag", t, err, 1)
		}
		if c.tags == nil {
			c.tags = make(map[string]struct{}, len(s.Tags))
		}
		c.tags[strings.ToLower(t)] = struct{}{}
	}
	for _, d := range s.OlderThan {
		if d < 0 {
			return nil, &Error{Where: "--older-than", Input: d.String(), Reason: "an age is not negative", Hint: "write it without '-'"}
		}
		if c.age < 0 || time.Duration(d) < c.age {
			c.age = time.Duration(d)
		}
	}
	for _, d := range s.SeenSince {
		if d < 0 {
			return nil, &Error{Where: "--seen-since", Input: d.String(), Reason: "an age is not negative", Hint: "write it without '-'"}
		}
		c.recent = max(c.recent, time.Duration(d))
	}
	if len(s.Patterns) > 0 && !s.All && c.prefixes == nil && c.regexps == nil && c.tags == nil && !s.Dated() {
		c.name(given, s.ExactQuery)
	}
	if err := s.addTwins(c, given, prefixes); err != nil {
		return nil, err
	}
	if err := s.nothing(c, given, prefixes, exclude); err != nil && !c.empty {
		return nil, err
	}
	return c, nil
}

// addTwins finds out what the twins of patterns and prefixes are.
func (s Selector) addTwins(c *Compiled, patterns, prefixes []string) error {
	if len(s.Twins) == 0 {
		return nil
	}
	twins, err := parseTwins(s.Twins)
	if err != nil {
		return err
	}
	if len(s.Regexps) > 0 {
		return &Error{Where: "--twins", Input: s.Regexps[0], Reason: "the twins of what a regular expression matches are not known",
			Hint: "name the pages with patterns or --prefix"}
	}
	if len(patterns) > 0 {
		c.patternTwins = newPatterns(s.ExactQuery)
		for _, p := range patterns {
			addTwins(c.patternTwins, twins, p)
		}
		c.patternTwins.finish()
	}
	if len(prefixes) > 0 {
		c.prefixTwins = newPatterns(s.ExactQuery)
		for _, p := range prefixes {
			addTwins(c.prefixTwins, twins, p+"*")
		}
		c.prefixTwins.finish()
	}
	return nil
}

// name finds which of the canonical patterns go out as named.
func (c *Compiled) name(given []string, exactQuery bool) {
	c.unnamed = newPatterns(exactQuery)
	seen, unsendable := make(map[cfpath.Item]struct{}), make(map[string]bool)
	for _, p := range given {
		it, ok := c.item(p)
		if !ok {
			c.unnamed.add(p)
			if star := strings.IndexByte(p, '*'); (star < 0 || star == len(p)-1) && !c.excluded(it) && !unsendable[p] {
				unsendable[p] = true
				c.unsendable = append(c.unsendable, p)
			}
			continue
		}
		if it.Kind == cfpath.Path && !exactQuery && !strings.Contains(p, "?") {
			c.unnamed.addPrefix(p + "?")
		}
		if _, again := seen[it]; !again {
			seen[it] = struct{}{}
			c.named = append(c.named, it)
		}
	}
	c.unnamed.finish()
}

// item is the item a canonical pattern is, if CloudFront understands it and no
// exclusion takes anything from it.
func (c *Compiled) item(pattern string) (cfpath.Item, bool) {
	star := strings.IndexByte(pattern, '*')
	if star < 0 {
		it := cfpath.Item{Kind: cfpath.Path, Text: pattern}
		_, err := cfpath.Name(pattern)
		return it, err == nil && !c.excluded(it)
	}
	stem := pattern[:star]
	if stem == "" {
		stem = "/" // every path begins with it
	}
	it := cfpath.Item{Kind: cfpath.Wildcard, Text: stem}
	return it, star == len(pattern)-1 && cfpath.ValidStem(stem) && !c.excluded(it)
}

// excluded tells whether an exclusion takes anything from an item.
func (c *Compiled) excluded(it cfpath.Item) bool {
	switch {
	case c.exclude == nil:
		return false
	case it.Kind == cfpath.Wildcard:
		return c.exclude.matchBelow(it.Text)
	}
	return c.exclude.match(it.Text)
}

// Selects tells whether the entry belongs to the selection. It looks at the
// age of the entry's last sighting at the cut; whether it is from before the cut
// is the caller's question. It does not allocate, but for the root object with a query.
func (c *Compiled) Selects(e *inventory.Entry, cut time.Time) bool {
	if c.recent >= 0 && e.Last.Before(cut.Add(-c.recent)) {
		return false
	}
	if e.Folded {
		// The age of what was folded is not known, only that of its latest.
		return c.MaySelectBelow(e.Path) && c.tagged(e.Tags)
	}
	return c.MaySelect(e.Path) && c.tagged(e.Tags) && (c.age < 0 || e.Last.Before(cut.Add(-c.age)))
}

// MaySelect judges by the path alone: what it does not tell, tags and age,
// counts as selected.
func (c *Compiled) MaySelect(path string) bool {
	if c.maySelect(path) {
		return true
	}
	other, ok := c.root.Other(path)
	return ok && c.maySelect(other)
}

func (c *Compiled) maySelect(path string) bool {
	if c.empty ||
		c.patterns != nil && !c.patterns.match(path) && !c.patternTwins.matches(path) ||
		c.prefixes != nil && !c.prefixes.match(path) && !c.prefixTwins.matches(path) ||
		c.exclude != nil && c.exclude.match(path) {
		return false
	}
	if len(c.regexps) == 0 {
		return true
	}
	for _, re := range c.regexps {
		if re.MatchString(path) {
			return true
		}
	}
	return false
}

// MaySelectBelow tells whether MaySelect may be true for a path that begins with
// prefix, as a folded entry's do. It leans towards true: a regular expression may
// match below any prefix, and two criteria that each select something there may
// have nothing in common.
func (c *Compiled) MaySelectBelow(prefix string) bool {
	if c.maySelectBelow(prefix) {
		return true
	}
	if other, ok := c.root.Other(prefix); ok && strings.Contains(prefix, "?") {
		return c.maySelectBelow(other)
	}
	return c.root != "" && strings.HasPrefix(string(c.root), prefix) && (c.maySelect("/") || c.maySelectBelow("/?"))
}

func (c *Compiled) maySelectBelow(prefix string) bool {
	return !c.empty &&
		(c.patterns == nil || c.patterns.matchBelow(prefix) || c.patternTwins.matchesBelow(prefix)) &&
		(c.prefixes == nil || c.prefixes.matchBelow(prefix) || c.prefixTwins.matchesBelow(prefix)) &&
		(c.exclude == nil || !c.exclude.matchAllBelow(prefix))
}

func (c *Compiled) tagged(tags []string) bool {
	if c.tags == nil {
		return true
	}
	var lower [cfpath.MaxTagLength]byte
	for _, t := range tags {
		if len(t) > len(lower) {
			continue // no tag of CloudFront's
		}
		for i := range len(t) {
			b := t[i]
			if 'A' <= b && b <= 'Z' {
				b += 'a' - 'A'
			}
			lower[i] = b
		}
		if _, ok := c.tags[string(lower[:len(t)])]; ok {
			return true
		}
	}
	return false
}

// OtherPath returns the other path of the default root object, or false if a path is
// not one of its two.
func (c *Compiled) OtherPath(path string) (string, bool) { return c.root.Other(path) }

// Named returns the items that go out as the user named them, sighted or not, in
// the order given: patterns without '*' or with their only '*' at the end, as far
// as CloudFront can be sent them and no exclusion could match what they match.
// There are none unless patterns are the only criterion. What else is selected
// has to be looked up, query strings of a named path included.
func (c *Compiled) Named() []cfpath.Item { return slices.Clone(c.named) }

// Unsendable returns the patterns that would go out as named if CloudFront took
// them: a path with '~', or a wildcard behind one. What is tracked of them is
// looked up; what is not cannot be invalidated by that name.
func (c *Compiled) Unsendable() []string { return slices.Clone(c.unsendable) }

// Names tells whether everything that is selected of the entry is reached by
// items of Named, leaning towards false. For a folded entry it can be true although
// none of them reaches all that the entry stands for.
func (c *Compiled) Names(e *inventory.Entry) bool {
	switch {
	case len(c.named) == 0:
		return false
	case e.Folded:
		return c.patterns.matchBelow(e.Path) && !c.unnamed.matchBelow(e.Path) && !c.patternTwins.matchesBelow(e.Path)
	}
	return c.patterns.match(e.Path) && !c.unnamed.match(e.Path)
}

// Prefix returns the longest known prefix of all selected paths, "" or "/" if
// there is none. It narrows a scan; an entry that was folded above it, so whose
// path is shorter, has to be looked for apart.
func (c *Compiled) Prefix() string {
	var prefix string
	for _, p := range [...][2]*patterns{{c.patterns, c.patternTwins}, {c.prefixes, c.prefixTwins}} {
		if p[0] == nil {
			continue
		}
		common := p[0].common()
		if twins := p[1]; twins != nil && twins.any() {
			common = common[:shared(common, twins.common())]
		}
		if len(common) > len(prefix) {
			prefix = common
		}
	}
	if root := string(c.root); root != "" && prefix != "" &&
		(strings.HasPrefix(root, prefix) || strings.HasPrefix(prefix, root) || strings.HasPrefix(prefix, "/?")) {
		return "/" // under which both of its paths are
	}
	return prefix
}

func compileRegexp(s string) (*regexp.Regexp, error) {
	re, err := regexp.Compile(s)
	if err == nil && impossible(s) {
		return nil, &Error{Where: "--regexp", Input: s, Reason: "it matches no path: a path begins with '/', and what is not plain in a URL is percent-encoded in it",
			Hint: "write \"^/blog\" for \"^blog\", %20 for a space, %C3%BC for an umlaut"}
	}
	if err == nil {
		return re, nil
	}
	e := &Error{Where: "--regexp", Input: s, Reason: err.Error(),
		Hint: "the syntax is https://github.com/google/re2/wiki/Syntax"}
	if bad, ok := errors.AsType[*syntax.Error](err); ok {
		e.Reason = bad.Code.String()
		e.Pos = max(0, strings.Index(s, bad.Expr))
	}
	return nil, e
}

// compilePatterns returns the set of the patterns, nil if there are none, and
// their canonical spelling in the order given.
func compilePatterns(where string, given []string, exactQuery bool) (*patterns, []string, error) {
	if len(given) == 0 {
		return nil, nil, nil
	}
	set := newPatterns(exactQuery)
	spelled := make([]string, 0, len(given))
	for _, g := range given {
		p, err := canonicalPattern(where, g)
		if err != nil {
			return nil, nil, err
		}
		set.add(p)
		spelled = append(spelled, p)
	}
	set.finish()
	return set, spelled, nil
}

// canonicalPattern is canonical for what may begin with '*'.
func canonicalPattern(where, p string) (string, error) {
	switch {
	case strings.HasPrefix(p, "/"):
		return canonical(where, p)
	case strings.HasPrefix(p, "*"):
		full, err := canonical(where, "/"+p)
		if e, ok := errors.AsType[*Error](err); ok {
			e.Input, e.Pos = p, max(0, e.Pos-1)
			return "", e
		}
		return full[1:], nil
	}
	e := &Error{Where: where, Input: p, Reason: "a pattern begins with '/' or '*'",
		Hint: `write "/" and then what follows the host name, or "*" for any beginning`}
	switch {
	case p == "":
		e.Reason = "empty pattern"
	case strings.HasPrefix(p, "#"):
		e.Hint = "a tag is selected with --tag, without '#'"
	case isURL(p):
		e.Hint = "leave out scheme and host"
	}
	return "", e
}

func canonical(where, path string) (string, error) {
	if i := strings.IndexByte(path, '#'); i >= 0 {
		return "", &Error{Where: where, Input: path, Pos: i, Reason: "a browser keeps what follows '#' to itself, so that no path has it",
			Hint: "leave it out; where '#' is part of the path itself, write %23"}
	}
	out, err := cfpath.Canonical(path)
	if err != nil {
		return "", located(where, path, err, 0)
	}
	return out, nil
}

// located makes an error of cfpath ours. The input it saw had shift bytes more in front.
func located(where, input string, err error, shift int) error {
	e := &Error{Where: where, Input: input, Reason: err.Error()}
	if bad, ok := errors.AsType[*cfpath.Error](err); ok {
		e.Pos, e.Reason, e.Hint = min(max(0, bad.Pos-shift), len(input)), bad.Reason, bad.Hint
	}
	return e
}
