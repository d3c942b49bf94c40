// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cfpath

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Reasons of a Trouble.
const (
	ReasonTilde        = "tilde"         // '~', raw or as %7E: AWS supports neither
	ReasonTooLong      = "too-long"      // over MaxItemLength
	ReasonTrailingStar = "trailing-star" // the path itself ends in '*', which an item takes for a wildcard
	ReasonRefused      = "refused"       // a character that an invalidation refuses; canonical paths have none
)

// Trouble says why an invalidation cannot name a path exactly.
type Trouble struct {
	At     int    // byte offset where it begins; of several, the first
	Reason string // one of the Reason constants
}

// Unnameable is the error of Name.
type Unnameable struct {
	Path string
	Trouble
}

func (e *Unnameable) Error() string {
	why := e.Reason
	switch e.Reason {
	case ReasonTilde:
		why = "CloudFront does not invalidate a path with '~', encoded or not"
	case ReasonTooLong:
		why = fmt.Sprintf("an item has at most %d characters", MaxItemLength)
	case ReasonTrailingStar:
		why = "an item that ends in '*' is a wildcard"
	case ReasonRefused:
		why = "CloudFront refuses this character in an item"
	}
	return fmt.Sprintf("%s: byte %d: cannot be invalidated by its exact path: %s; "+
		"use a wildcard that ends before it, or a tag", quote(e.Path), e.At, why)
}

// Name returns the item that names exactly this canonical path, which is the
// path itself, or an [*Unnameable]. See [InDoubt] for what the item's acceptance
// is worth.
func Name(path string) (item string, err error) {
	if t, ok := findTrouble(path); ok {
		return "", &Unnameable{path, t}
	}
	return path, nil
}

func findTrouble(path string) (Trouble, bool) {
	if at, reason := findUnsendable(path); reason != "" {
		return Trouble{at, reason}, true
	}
	switch {
	case len(path) > MaxItemLength:
		return Trouble{MaxItemLength, ReasonTooLong}, true
	case strings.HasSuffix(path, "*"):
		return Trouble{len(path) - 1, ReasonTrailingStar}, true
	}
	return Trouble{}, false
}

// findUnsendable finds the first character, within the length of an item, that no item can hold.
func findUnsendable(path string) (at int, reason string) {
	if !strings.HasPrefix(path, "/") {
		return 0, ReasonRefused
	}
	for i := 0; i < min(len(path), MaxItemLength); i++ {
		c := path[i]
		if c == '%' {
			var ok bool
			if c, ok = escape(path, i); !ok {
				return i, ReasonRefused
			}
			if c == '~' {
				return i, ReasonTilde
			}
			i += 2
			continue
		}
		if c == '~' {
			return i, ReasonTilde
		}
		if refused(c) {
			return i, ReasonRefused
		}
	}
	return 0, ""
}

// InDoubt tells whether AWS leaves open that the item naming this path exactly
// reaches the object, although it may be accepted: acceptance must then not make
// anything forgotten. In doubt are
//
//   - %27, since the viewer may have sent a raw apostrophe, which AWS's rule
//     says not to encode and its API refuses;
//   - '@', once refused, see http://www.onepwr.org/2013/08/02/cloudfront-woes-your-request-contains-one-or-more-invalid-invalidation-paths-use-custom-regexp-for-uriencode/;
//   - escapes of characters that AWS says not to encode (%41, %2F, %3F ...): they
//     name another object (https://github.com/boto/boto/issues/3850) or, as for %7E,
//     none; whether the cache keeps them apart is not documented;
//   - escaped bytes that are not UTF-8, since AWS does not name the charset;
//   - "//", "/./" and "/../", normalised to choose the behaviour and not said to be
//     kept or lost in the cache
//     (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/DownloadDistValuesCacheBehavior.html);
//   - an empty query, "/a?".
//
// The hex case of an escape is not in doubt: the item has the viewer's.
func InDoubt(path string) bool { return findDoubt(path) < len(path) }

// findDoubt returns the offset from which on CloudFront may hold the path in
// another spelling; the length of the path if there is none.
func findDoubt(path string) int {
	stem, query, has := Split(path)
	at := len(path)
	if has && query == "" {
		at = len(stem)
	}
	for start := 1; start < len(stem); {
		end := start
		for end < len(stem) && stem[end] != '/' {
			end++
		}
		switch n := dots(stem[start:end]); {
		case n == 2:
			return min(at, 1) // may take away any segment before it
		case n == 1, start == end:
			at = min(at, start)
		}
		start = end + 1
	}
	for i := 0; i < at; i++ {
		c := path[i]
		if c == '@' || c != '%' && refused(c) {
			return i
		}
		if c != '%' {
			continue
		}
		b, ok := escape(path, i)
		if !ok || !refused(b) || b == '\'' {
			return i
		}
		if b >= utf8.RuneSelf {
			n := runeLength(path, i)
			if n == 0 {
				return i
			}
			i += 3*n - 1
		} else {
			i += 2
		}
	}
	return at
}

// dots is the number of dots of a segment of nothing but dots, however spelled, else 0.
func dots(segment string) int {
	n := 0
	for i := 0; i < len(segment); i++ {
		b, ok := escape(segment, i)
		switch {
		case ok && b == '.':
			i += 2
		case segment[i] != '.':
			return 0
		}
		n++
	}
	return n
}

// runeLength is the number of escapes from i on that together are one
// character of UTF-8; 0 if they are none.
func runeLength(path string, i int) int {
	var buf [utf8.UTFMax]byte
	n := 0
	for ; n < len(buf); n++ {
		b, ok := escape(path, i+3*n)
		if !ok {
			break
		}
		buf[n] = b
	}
	if r, size := utf8.DecodeRune(buf[:n]); r != utf8.RuneError || size > 1 {
		return size
	}
	return 0
}

// TightestStem returns the longest prefix of path that can stand before a
// trailing '*' and ends before what keeps the path from being named, never
// inside an escape. Without trouble that is the path itself, as far as there
// is room for the '*'. It is false where there is no such prefix: path does not
// begin with '/'.
func TightestStem(path string) (stem string, ok bool) {
	n := min(len(path), MaxItemLength-1)
	if t, troubled := findTrouble(path); troubled {
		n = min(n, t.At)
	}
	return path[:escapeStart(path, n)], n > 0
}

// SureStem returns the longest stem whose wildcard is confirmed to remove the
// path (see [Item.MatchesSurely]): it ends before any trouble and any doubt. It is
// false only where path does not begin with '/'; at worst the stem is "/".
func SureStem(path string) (stem string, ok bool) {
	stem, ok = TightestStem(path)
	if !ok {
		return "", false
	}
	n := escapeStart(path, min(len(stem), findDoubt(path)))
	for n > 1 && !surely(path, n) {
		n = escapeStart(path, n-1)
	}
	return path[:n], true
}

// surely tells whether a wildcard that ends at n, outside an escape and
// before any trouble or doubt, is confirmed to match.
func surely(path string, n int) bool {
	if n == 1 {
		return true // "/*" is the whole distribution
	}
	// The report that "/dir/*" left "/dir/" alone:
	// https://github.com/pulumi/docs/pull/21786.
	if n == len(path) && path[n-1] == '/' {
		return false
	}
	// Inside a character's bytes the stem is no text in any charset.
	b, ok := escape(path, n)
	return !ok || b&0xC0 != 0x80
}

// escapeStart is n, or the start of the escape that a cut at n would break,
// where all escapes before n are whole or cut by it.
func escapeStart(path string, n int) int {
	for i := n - 1; i >= 0 && i >= n-2; i-- {
		if path[i] == '%' {
			return i
		}
	}
	return n
}

// ValidStem tells whether stem + "*" can be sent and be of use: it begins with '/',
// has neither '~' nor %7E, no character that CloudFront refuses, does not end
// inside an escape, and leaves room for the '*'.
func ValidStem(stem string) bool {
	_, reason := findUnsendable(stem)
	return reason == "" && len(stem) < MaxItemLength
}
