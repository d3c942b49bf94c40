// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cfpath

import "strings"

// MaxPatternLength is the length of the longest path pattern, in characters.
const MaxPatternLength = 255

// Pattern is the path pattern of a cache behaviour: '*' is any run of
// characters, '/' included, '?' exactly one, all else itself, in its case
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/DownloadDistValuesCacheBehavior.html).
// The zero value matches every path, like "*". Patterns can be compared with ==.
type Pattern struct {
	text string // as given
	glob string // with leading '/', and spelled canonically
}

// ParsePattern reads a path pattern; a leading '/' is optional. The error is an [*Error].
func ParsePattern(s string) (Pattern, error) {
	if s == "" {
		return Pattern{}, &Error{s, 0, "empty path pattern", `write "*" for all paths`}
	}
	if len(s) > MaxPatternLength {
		return Pattern{}, &Error{s, MaxPatternLength, "a path pattern has at most 255 characters", "shorten it with '*'"}
	}
	for i := range len(s) {
		if !inPattern(s[i]) {
			return Pattern{}, &Error{s, i, "CloudFront takes no " + quote(s[i:i+1]) + " in a path pattern", "put '?' for one character or '*' for several in its place"}
		}
	}
	// Canonical paths have these two as escapes, whichever way they were requested.
	glob := strings.NewReplacer(`"`, "%22", "'", "%27").Replace(s)
	if glob[0] != '/' {
		glob = "/" + glob
	}
	return Pattern{s, glob}, nil
}

func inPattern(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte(`_-.*$/~"'@:+&?`, c) >= 0
}

// String returns the pattern as it was given, "*" for the zero value.
func (p Pattern) String() string {
	if p.text == "" {
		return "*"
	}
	return p.text
}

// MarshalText implements [encoding.TextMarshaler].
func (p Pattern) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (p *Pattern) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePattern(string(text))
	return err
}

// Matches tells whether a canonical path falls under the pattern. The query
// is not considered. Only for this the rest is normalised: escapes of letters,
// digits, '-', '.', '_' and '~' are decoded, as in RFC 3986, then "//" becomes "/",
// then "." and ".." are resolved. An escape that remains is three characters for '?'.
func (p Pattern) Matches(path string) bool {
	if p.glob == "" {
		return true
	}
	stem, _, _ := Split(path)
	if needsNormalizing(stem) {
		return p.matchesNormalized(stem)
	}
	return match(p.glob, stem)
}

// matchesNormalized is apart from Matches so that only unusual paths pay for the buffer.
func (p Pattern) matchesNormalized(stem string) bool {
	return match(p.glob, normalize(make([]byte, 0, MaxLength), stem))
}

// match is linear in the path but for one pattern's worth of steps a byte:
// only the last '*' met has to be tried again.
func match[T string | []byte](glob string, s T) bool {
	g, star, retry := 0, -1, 0
	for i := 0; i < len(s); {
		switch {
		case g < len(glob) && glob[g] == '*':
			star, retry = g, i
			g++
		case g < len(glob) && (glob[g] == '?' || glob[g] == s[i]):
			g++
			i++
		case star >= 0:
			retry++
			g, i = star+1, retry
		default:
			return false
		}
	}
	for g < len(glob) && glob[g] == '*' {
		g++
	}
	return g == len(glob)
}

func needsNormalizing(stem string) bool {
	if !strings.HasPrefix(stem, "/") {
		return false // no path, and no segments to resolve
	}
	for i := range len(stem) {
		switch stem[i] {
		case '%':
			return true
		case '/':
			if i+1 < len(stem) && (stem[i+1] == '/' || stem[i+1] == '.') {
				return true
			}
		}
	}
	return false
}

// normalize writes the normalised stem into out, which is empty. The stem begins with '/'.
func normalize(out []byte, stem string) []byte {
	// Escapes first: they may hide dots.
	for i := 0; i < len(stem); i++ {
		if b, ok := escape(stem, i); ok && unreserved(b) {
			out = append(out, b)
			i += 2
		} else {
			out = append(out, stem[i])
		}
	}
	// Then segment by segment, in place: what is written is never longer than what was read.
	w := 0
	for r := 0; r < len(out); {
		for r < len(out) && out[r] == '/' {
			r++
		}
		end := r
		for end < len(out) && out[end] != '/' {
			end++
		}
		segment := out[r:end]
		switch {
		case len(segment) > 0 && string(segment) != "." && string(segment) != "..":
			out[w] = '/'
			w += 1 + copy(out[w+1:], segment)
		default:
			for up := len(segment) == 2; up && w > 0; {
				w--
				up = out[w] != '/'
			}
			if end == len(out) {
				out[w] = '/'
				w++
			}
		}
		r = end
	}
	return out[:w]
}

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}
