// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package selector says what a change concerns: which entries of an inventory
// are selected by patterns, prefixes, regular expressions, tags and age.
//
// A [Selector] is what somebody asked for, and is kept with what was done. A
// [Compiled] decides: [Compiled.Selects] for an entry, [Compiled.MaySelect] where
// only a path is known, [Compiled.Named] for what CloudFront understands by itself.
//
// The same criterion given several times is a union, different criteria narrow
// each other, exclusions come last.
//
// In a pattern '*' is any run of characters, '/' and '?' included, and everything
// else stands for itself. A pattern without '?' also means the path with any
// query string: "/a" selects "/a" and "/a?x=1", "*.png" selects "/x.png?v=2".
// Exclusions follow the same rule. Patterns and prefixes are compared with
// canonical paths (see package cfpath), so they are brought into that form first: a
// raw space is %20, and a '%' that begins no escape is %25.
//
// A folded entry stands for more paths than its own. It is selected if any path
// that begins with its own may be, and excluded only if all of them are.
package selector

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A Selector names what to invalidate. The zero value selects nothing. It makes
// the round trip through JSON.
type Selector struct {
	// All is every entry. Beside other criteria it narrows nothing, but then
	// nothing goes out as named: what is selected is what is tracked.
	All      bool     `json:"all,omitempty"`
	Patterns []string `json:"patterns,omitempty"`
	Prefixes []string `json:"prefixes,omitempty"`
	// Regexps are RE2, not anchored, over the canonical path.
	Regexps []string `json:"regexps,omitempty"`
	// Tags are without '#'; CloudFront folds their case, and so does a Selector
	// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/invalidation-by-tags.html).
	Tags []string `json:"tags,omitempty"`
	// OlderThan selects entries whose last sighting ended more than this before
	// the cut; of several the shortest decides, being the union.
	OlderThan []Duration `json:"older_than,omitempty"`
	// SeenSince selects entries whose last sighting ended no more than this before
	// the cut; of several the longest decides, being the union.
	SeenSince []Duration `json:"seen_since,omitempty"`
	// Exclude are patterns. Alone they select nothing.
	Exclude []string `json:"exclude,omitempty"`
	// Twins are templates, as of [DefaultTwins]: what is fetched beside the pages that
	// Patterns and Prefixes select is selected too. Tags and ages are those of the
	// twin itself. Nothing of it goes out as named. Regexps cannot be combined with it.
	Twins []string `json:"twins,omitempty"`
	// RootObject is the distribution's default root object, as "index.html", or empty.
	// It and "/" are one page: who selects either selects both, with their queries. Only
	// what excludes both excludes it.
	RootObject string `json:"root_object,omitempty"`
	// ExactQuery takes patterns literally: one without '?' is a path without query.
	ExactQuery bool `json:"exact_query,omitempty"`
}

// Empty tells whether there is no criterion to select by.
func (s Selector) Empty() bool {
	return !s.All && len(s.Patterns) == 0 && len(s.Prefixes) == 0 && len(s.Regexps) == 0 &&
		len(s.Tags) == 0 && !s.Dated()
}

// Dated tells whether it matters when an entry was sighted.
func (s Selector) Dated() bool { return len(s.OlderThan) > 0 || len(s.SeenSince) > 0 }

// MarshalJSON implements [json.Marshaler]. Bytes that are not UTF-8, which
// JSON cannot hold, become the escapes that they mean in a path.
func (s Selector) MarshalJSON() ([]byte, error) {
	type plain Selector
	p := plain(s)
	for _, list := range [...]*[]string{&p.Patterns, &p.Prefixes, &p.Exclude} {
		*list = escaped(*list)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // a '&' is to be read, and to be found
	err := enc.Encode(p)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// escaped returns the list with all bytes that are not UTF-8 escaped.
func escaped(list []string) []string {
	for i, text := range list {
		if utf8.ValidString(text) {
			continue
		}
		list = slices.Clone(list)
		for ; i < len(list); i++ {
			text = list[i]
			if utf8.ValidString(text) {
				continue
			}
			var b strings.Builder
			for len(text) > 0 {
				r, n := utf8.DecodeRuneInString(text)
				if r == utf8.RuneError && n == 1 {
					fmt.Fprintf(&b, "%%%02X", text[0])
				} else {
					b.WriteString(text[:n])
				}
				text = text[n:]
			}
			list[i] = b.String()
		}
		break
	}
	return list
}

// String returns the selector as the command line would say it, quoted for a POSIX shell.
func (s Selector) String() string {
	var b strings.Builder
	add := func(flag string, values ...string) {
		for _, v := range values {
			if b.Len() > 0 {
				b.WriteByte(' ')
			}
			if flag != "" {
				b.WriteString(flag + " ")
			}
			b.WriteString(shell(v))
		}
	}
	add("", s.Patterns...)
	if s.All {
		add("", "--all")
	}
	add("--prefix", s.Prefixes...)
	add("--regexp", s.Regexps...)
	add("--tag", s.Tags...)
	for _, d := range s.OlderThan {
		add("--older-than", d.String())
	}
	for _, d := range s.SeenSince {
		add("--seen-since", d.String())
	}
	add("--exclude", s.Exclude...)
	if s.ExactQuery {
		add("", "--exact-query")
	}
	if len(s.Twins) > 0 {
		add("", "--twins")
	}
	return b.String()
}

// Brief is String, but of a selector with very many patterns only how it begins.
func (s Selector) Brief() string {
	const most = 8
	short, left := s, 0
	for _, list := range [...]*[]string{&short.Patterns, &short.Prefixes, &short.Regexps, &short.Tags, &short.Exclude} {
		if more := len(*list) - most; more > most {
			*list, left = (*list)[:most], left+more
		}
	}
	if left == 0 {
		return s.String()
	}
	return fmt.Sprintf("%s ... and %d more", short.String(), left)
}

// shell quotes a word where a shell would read more into it.
func shell(s string) string {
	plain := s != ""
	for i := 0; i < len(s) && plain; i++ {
		c := s[i]
		plain = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("/-_.,:=@%+", c) >= 0
	}
	if plain {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// A Duration is a [time.Duration] that is a number of seconds in JSON.
type Duration time.Duration

// String returns the duration as Go writes it, without the zeros at its end: "1h".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalJSON implements [encoding/json.Marshaler].
func (d Duration) MarshalJSON() ([]byte, error) {
	whole, part := d/Duration(time.Second), d%Duration(time.Second)
	if part == 0 {
		return strconv.AppendInt(nil, int64(whole), 10), nil
	}
	// In decimal, so that no nanosecond is lost.
	sign := ""
	if d < 0 {
		sign, whole, part = "-", -whole, -part
	}
	return []byte(strings.TrimRight(fmt.Sprintf("%s%d.%09d", sign, whole, part), "0")), nil
}

// UnmarshalJSON implements [encoding/json.Unmarshaler].
func (d *Duration) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil
	}
	// Through time.ParseDuration where it can, which is exact; it knows no exponents.
	if exact, err := time.ParseDuration(string(data) + "s"); err == nil {
		*d = Duration(exact)
		return nil
	}
	seconds, err := strconv.ParseFloat(string(data), 64)
	if err != nil || math.Abs(seconds) >= math.MaxInt64/1e9 {
		return &Error{Where: "duration", Input: string(data), Reason: "not a duration", Hint: "give a number of seconds, less than 292 years"}
	}
	*d = Duration(math.Round(seconds * 1e9))
	return nil
}

// An Error says what is wrong with an input, where, and what to do about it.
type Error struct {
	Where  string // the criterion ("pattern", "--tag") or the file and line
	Input  string // what was given, whole
	Pos    int    // byte offset in Input
	Reason string
	Hint   string // what to write instead; may be empty
}

func (e *Error) Error() string {
	const most = 120
	in := fmt.Sprintf("%q", e.Input)
	if len(e.Input) > most {
		in = fmt.Sprintf("%q... (%d bytes)", e.Input[:most], len(e.Input))
	}
	s := fmt.Sprintf("%s %s: byte %d: %s", e.Where, in, e.Pos, e.Reason)
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}
