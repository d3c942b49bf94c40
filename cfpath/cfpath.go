// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package cfpath is the grammar of CloudFront paths: how a requested URL is
// spelled, which spelling an invalidation must use, what a trailing wildcard
// matches, and which behaviour a path falls under.
//
// A path is what CloudFront matches: path and query string as the viewer
// asked, in canonical form. Canonical form keeps the viewer's spelling (case,
// order, every %XX as it was) and percent-encodes only what CloudFront
// refuses in an invalidation. [FromTarget], [Canonical] and [FromLog] make
// canonical paths from a request, from what somebody typed and from an access
// log; every other function expects one and is safe, if pessimistic, when it
// gets something else.
//
// Where AWS does not say whether an item reaches a path, there are two
// answers. [Item.Matches] says what the item may remove: use it to find what
// is hit. [Item.MatchesSurely] says what AWS confirms is removed: use it to
// decide what may be forgotten.
//
// All functions are pure and safe for concurrent use. The rules are those of
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/invalidation-specifying-objects.html
// where no other page is named.
package cfpath

import (
	"fmt"
	"strings"
)

const (
	// MaxLength is the length of the longest URL CloudFront serves, in bytes
	// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cloudfront-limits.html).
	MaxLength = 8192

	// MaxItemLength is the length of the longest path in an invalidation, in
	// characters, a trailing '*' included.
	MaxItemLength = 4000
)

// Error says what is wrong with an input, where, and what to do about it.
type Error struct {
	Input  string // what was given, whole
	Pos    int    // byte offset in Input
	Reason string
	Hint   string // what to write instead; may be empty
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s: byte %d: %s", quote(e.Input), e.Pos, e.Reason)
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

// quote keeps messages readable when the input is thousands of bytes long.
func quote(s string) string {
	const most = 120
	if len(s) <= most {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%q... (%d bytes)", s[:most], len(s))
}

// FromTarget returns the canonical path of an HTTP request target as it was
// received ([net/http.Request.RequestURI]), never of a decoded path: the
// viewer's spelling is the name under which CloudFront holds the object.
// It takes origin form ("/a%20b?x=1") and absolute form ("http://host/a?x=1").
// A target has no fragment, so '#' is a character like others.
// The error is an [*Error].
func FromTarget(target string) (string, error) {
	if strings.HasPrefix(target, "/") {
		return Canonical(target)
	}
	const hint = `a request target is "/path?query" or "http://host/path?query"`
	authority := schemeLength(target)
	if authority == 0 {
		return "", &Error{target, 0, "the request target names no path", hint}
	}
	end := strings.IndexAny(target[authority:], "/?#")
	switch {
	case end == 0, authority == len(target):
		return "", &Error{target, authority, "the request target has no host", hint}
	case end < 0:
		return "/", nil
	}
	end += authority
	switch target[end] {
	case '/':
		return Canonical(target[end:])
	case '?':
		return Canonical("/" + target[end:])
	}
	return "", &Error{target, end, "a fragment follows the host", hint}
}

// schemeLength is the length of a leading "http://" or "https://", or 0.
func schemeLength(s string) int {
	for _, scheme := range [...]string{"http://", "https://"} {
		if len(s) >= len(scheme) && strings.EqualFold(s[:len(scheme)], scheme) {
			return len(scheme)
		}
	}
	return 0
}

// Canonical returns the canonical form of a path in the viewer's spelling,
// such as one that somebody typed. It percent-encodes space and controls,
// < > " # { } | \ ^ [ ] ` and ', bytes from 0x7F up (so also what is not UTF-8),
// and a '%' that begins no escape; all else stays as it is, '~', '@', '*' and
// existing escapes included. Canonical(Canonical(x)) is Canonical(x). A path
// that is canonical already is returned as it is, without allocation.
//
// A path must begin with '/' and be no longer than [MaxLength], where an escape
// of a character that Canonical encodes counts as the one byte that the viewer
// may have sent for it. The result can thus be up to three times as long.
// The error is an [*Error].
func Canonical(path string) (string, error) {
	if !strings.HasPrefix(path, "/") {
		hint := `write "/" and then what follows the host name`
		if schemeLength(path) > 0 {
			hint = "leave out scheme and host"
		}
		return "", &Error{path, 0, "a path begins with '/'", hint}
	}
	if len(path) > 3*MaxLength {
		return "", tooLong(path)
	}
	out := encode(path)
	if len(out) > MaxLength && shortest(out) > MaxLength {
		return "", tooLong(path)
	}
	return out, nil
}

func tooLong(path string) error {
	return &Error{
		path, min(len(path), MaxLength),
		fmt.Sprintf("longer than %d bytes, which CloudFront does not serve", MaxLength),
		"name a prefix of it and end that with '*'",
	}
}

// shortest is the length of the shortest spelling of a canonical path.
func shortest(path string) int {
	n := 0
	for i := 0; i < len(path); n++ {
		if b, ok := escape(path, i); ok && refused(b) {
			i += 3
		} else {
			i++
		}
	}
	return n
}

const upperhex = "0123456789ABCDEF"

// encode percent-encodes what refused says, and '%' outside escapes.
func encode(s string) string {
	more := 0
	for i := 0; i < len(s); i++ {
		if encodes(s, i) {
			more += 2
		}
	}
	if more == 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + more)
	for i := 0; i < len(s); i++ {
		if encodes(s, i) {
			writeEscape(&b, s[i])
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// encodes tells whether the byte at i must be encoded.
func encodes(s string, i int) bool {
	if s[i] != '%' {
		return refused(s[i])
	}
	_, ok := escape(s, i)
	return !ok
}

func writeEscape(b *strings.Builder, c byte) {
	b.WriteByte('%')
	b.WriteByte(upperhex[c>>4])
	b.WriteByte(upperhex[c&15])
}

// The ASCII characters that an invalidation refuses raw, as bit sets. '%' is
// among them for its own sake: an escape of it stands for a literal '%'. '~',
// which no spelling makes acceptable, is not.
//
// RFC 1738 calls all of them unsafe except ' : a batch with a raw apostrophe
// was refused (https://github.com/laurilehmijoki/s3_website/issues/63,
// https://github.com/ir-engine/etherealengine-archive/pull/10608).
const (
	refusedLow uint64 = 1<<(' '+1) - 1 | 1<<'"' | 1<<'#' | 1<<'%' | 1<<'\'' | 1<<'<' | 1<<'>'

	refusedHigh uint64 = 1<<('['-64) | 1<<('\\'-64) | 1<<(']'-64) | 1<<('^'-64) | 1<<('`'-64) |
		1<<('{'-64) | 1<<('|'-64) | 1<<('}'-64) | 1<<(0x7F-64)
)

func refused(c byte) bool {
	switch {
	case c < 64:
		return refusedLow>>c&1 != 0
	case c < 128:
		return refusedHigh>>(c-64)&1 != 0
	}
	return true
}

// escape returns the byte that the escape at i stands for; false if none begins there.
func escape(s string, i int) (byte, bool) {
	if i+2 >= len(s) || s[i] != '%' {
		return 0, false
	}
	hi, ok1 := unhex(s[i+1])
	lo, ok2 := unhex(s[i+2])
	return hi<<4 | lo, ok1 && ok2
}

func unhex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// Split cuts a path at its first '?'. The query is without it; hasQuery tells
// "/a?" from "/a".
func Split(path string) (stem, query string, hasQuery bool) {
	return strings.Cut(path, "?")
}

// StripOrigin returns the viewer's path for a path that arrived at an origin
// with this origin path: CloudFront puts the origin path before what the
// viewer asked for, and an invalidation must not name it, see
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/DownloadDistValuesOrigin.html.
// So with "/production", "/production/a" is "/a"; "/production" and
// "/productions/a" were not requested through that origin and give false.
// The origin path may be empty; a missing leading or an extra trailing '/'
// makes no difference.
func StripOrigin(originPath, path string) (string, bool) {
	prefix := encode(strings.Trim(originPath, "/"))
	if prefix == "" {
		return path, strings.HasPrefix(path, "/")
	}
	if n := len(prefix) + 1; len(path) > n && path[0] == '/' && path[1:n] == prefix && path[n] == '/' {
		return path[n:], true
	}
	return "", false
}
