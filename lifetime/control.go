// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package lifetime

import (
	"math"
	"strings"
	"time"
)

// control is what bears on lifetimes in the Cache-Control lines of a response.
type control struct {
	maxAge, sMaxAge       time.Duration
	hasMaxAge, hasSMaxAge bool
	// unread: a max-age or s-maxage has no plain number. Of these two, what could
	// be read is only one of the things they may mean.
	unread                        bool
	staleRevalidate, staleIfError time.Duration
	forbids                       string // no-store, private, no-cache: the strongest; or ""
}

// stated tells whether there is a max-age or s-maxage at all.
func (c *control) stated() bool { return c.hasMaxAge || c.hasSMaxAge }

// parseControl reads the lines of a Cache-Control field. It takes whatever
// comes: what it does not know it skips.
func parseControl(lines []string) control {
	var c control
	for _, line := range lines {
		for line != "" {
			var d string
			d, line = cutDirective(line)
			c.add(d)
		}
	}
	return c
}

// cutDirective cuts at the first comma outside of quotes. A quote that is never
// closed quotes nothing.
func cutDirective(s string) (directive, rest string) {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case ',':
			return s[:i], s[i+1:]
		case '"':
			if end := quoteEnd(s[i+1:]); end >= 0 {
				i += end + 1
			}
		}
	}
	return s, ""
}

// quoteEnd is the index of the quote that ends a quoted string, or -1.
func quoteEnd(s string) int {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			return i
		case '\\':
			i++
		}
	}
	return -1
}

func (c *control) add(directive string) {
	name, value, hasValue := directive, "", false
	if i := strings.IndexByte(directive, '='); i >= 0 {
		name, value, hasValue = directive[:i], directive[i+1:], true
	}
	name = trim(name)
	switch {
	case is(name, "max-age"):
		c.maxAge, c.hasMaxAge = max(c.maxAge, c.age(value)), true
	case is(name, "s-maxage"):
		c.sMaxAge, c.hasSMaxAge = max(c.sMaxAge, c.age(value)), true
	case is(name, "stale-while-revalidate"):
		seconds, _ := parseSeconds(value)
		c.staleRevalidate = max(c.staleRevalidate, seconds)
	case is(name, "stale-if-error"):
		seconds, _ := parseSeconds(value)
		c.staleIfError = max(c.staleIfError, seconds)
	case hasValue:
		// no-cache="Set-Cookie" and private="Set-Cookie" are about these fields
		// only: the object is cached.
		// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/Cookies.html
	case is(name, ReasonNoStore):
		c.forbids = ReasonNoStore
	case is(name, ReasonPrivate):
		if c.forbids != ReasonNoStore {
			c.forbids = ReasonPrivate
		}
	case is(name, ReasonNoCache):
		if c.forbids == "" {
			c.forbids = ReasonNoCache
		}
	}
}

// is compares without case, in ASCII alone: equal lengths leave no other folding.
func is(name, directive string) bool {
	return len(name) == len(directive) && strings.EqualFold(name, directive)
}

// trim takes off the blanks that HTTP allows around a directive.
func trim(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

func (c *control) age(value string) time.Duration {
	seconds, ok := parseSeconds(value)
	c.unread = c.unread || !ok
	return seconds
}

// parseSeconds reads a number of seconds, with or without quotes. Of anything
// else it gives the leading digits, and false.
func parseSeconds(s string) (time.Duration, bool) {
	s = trim(s)
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	const most = int64(math.MaxInt64 / time.Second)
	n, i := int64(0), 0
	for ; i < len(s) && '0' <= s[i] && s[i] <= '9'; i++ {
		n = min(n, most)*10 + int64(s[i]-'0')
	}
	return time.Duration(min(n, most)) * time.Second, i == len(s) && i > 0
}

// statement is the lifetime that a response states; none if reason is "".
type statement struct {
	ttl    time.Duration
	reason string
}

func (s statement) atMost(most time.Duration) statement {
	if most = max(most, 0); s.ttl > most {
		return statement{most, ReasonMax}
	}
	return s
}

// lifetime picks what counts: s-maxage before max-age before Expires.
func (c *control) lifetime(expires []string, resp Response) statement {
	switch {
	case c.unread:
		s, _ := untilExpires(expires, resp)
		return statement{max(c.maxAge, c.sMaxAge, s), ReasonUnread}
	case c.hasSMaxAge:
		return statement{c.sMaxAge, ReasonSMaxAge}
	case c.hasMaxAge:
		return statement{c.maxAge, ReasonMaxAge}
	}
	if ttl, ok := untilExpires(expires, resp); ok {
		return statement{ttl, ReasonExpires}
	}
	return statement{}
}

// untilExpires is the time from the response to the latest of its Expires
// lines. No date, such as "0", is in the past. AWS does not say whose clock
// counts: it is the origin's, by its Date, if that gives more.
func untilExpires(lines []string, resp Response) (time.Duration, bool) {
	ttl := time.Duration(0)
	for _, line := range lines {
		at, ok := parseDate(line)
		if !ok {
			continue
		}
		ttl = max(ttl, at.Sub(resp.End))
		for _, date := range resp.Header.Values("Date") {
			if from, ok := parseDate(date); ok {
				ttl = max(ttl, at.Sub(from))
			}
		}
	}
	return ttl, len(lines) > 0
}

// parseDate reads the three forms of an HTTP date, and two that are often sent
// in their place.
func parseDate(s string) (time.Time, bool) {
	s = trim(s)
	if len(s) < len(time.ANSIC) { // such as "0" and "-1": spare their errors
		return time.Time{}, false
	}
	for _, layout := range [...]string{
		"Mon, 02 Jan 2006 15:04:05 GMT",
		"Monday, 02-Jan-06 15:04:05 GMT",
		time.ANSIC,
		"Mon, 02 Jan 2006 15:04:05 UTC",
		time.RFC1123Z,
	} {
		if t, err := time.ParseInLocation(layout, s, time.UTC); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}
