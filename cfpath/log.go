// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cfpath

import "strings"

// FromLog returns the canonical path, in the viewer's spelling, of an access
// log's cs-uri-stem and cs-uri-query; a query of "-" or "" is none.
//
// It takes off one layer of encoding, the log's own, which turns '%' into
// "%25" and so on
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/standard-logs-reference.html):
// "/a%2520b" is "/a%20b". An escape that the log never writes, such as "%2F", is
// the viewer's. AWS does not confirm that the stem is encoded twice; if it is
// not, "/a%20b" still gives "/a%20b".
//
// The stem of a real-time log contains the query already
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/real-time-logs.html);
// then the query must be the same again or none. The error is an [*Error].
func FromLog(stem, query string) (string, error) {
	if stem == "" || stem == "-" {
		return "", &Error{stem, 0, "the log line has no cs-uri-stem", "check the order of the fields"}
	}
	path := decodeLog(stem)
	if query != "" && query != "-" {
		query = decodeLog(query)
		_, inStem, has := Split(path)
		switch {
		case !has:
			path += "?" + query
		case inStem != query:
			return "", &Error{
				path, strings.IndexByte(path, '?'), "cs-uri-stem and cs-uri-query hold different queries",
				"check the order of the fields",
			}
		}
	}
	return Canonical(path)
}

// ToLog returns the two fields that CloudFront would write for a path, "-" for
// no query. FromLog gives the path back, except that logs do not tell an empty
// query ("/a?") and the query "-" from none.
func ToLog(path string) (stem, query string) {
	stem, query, _ = Split(path)
	if query == "" {
		return encodeLog(stem), "-"
	}
	return encodeLog(stem), encodeLog(query)
}

// logged tells whether standard logs percent-encode a byte: those of a refused
// character, and '~'.
func logged(c byte) bool { return c == '~' || refused(c) }

func decodeLog(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		if c, ok := escape(s, i); ok && logged(c) {
			b.WriteByte(c)
			i += 2
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func encodeLog(s string) string {
	more := 0
	for i := 0; i < len(s); i++ {
		if logged(s[i]) {
			more += 2
		}
	}
	if more == 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + more)
	for i := 0; i < len(s); i++ {
		if logged(s[i]) {
			writeEscape(&b, s[i])
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
