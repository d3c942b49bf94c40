// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cfpath

import "strings"

type queryMode uint8

const (
	queryAll queryMode = iota
	queryNone
	queryInclude
	queryExclude
)

// QueryRule says which parameters of a query string are part of the cache
// key, as a cache policy does
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cache-key-understand-cache-policy.html).
// The zero value is all of them. Rules can be compared with ==.
type QueryRule struct {
	mode  queryMode
	names string // canonical, separated by commas
}

// ParseQueryRule reads "all", "none", "include:a,b" or "exclude:a,b"; "" is
// "all". Names are spelled as in the URL and case-sensitive; a comma in a name
// is written %2C. The error is an [*Error].
func ParseQueryRule(s string) (QueryRule, error) {
	const hint = `write "all", "none", "include:a,b" or "exclude:a,b"`
	word, list, hasList := strings.Cut(s, ":")
	var mode queryMode
	switch word {
	case "", "all":
		mode = queryAll
	case "none":
		mode = queryNone
	case "include":
		mode = queryInclude
	case "exclude":
		mode = queryExclude
	default:
		return QueryRule{}, &Error{s, 0, "unknown query rule", hint}
	}
	if mode == queryAll || mode == queryNone {
		if hasList {
			return QueryRule{}, &Error{s, len(word), "this query rule takes no names", hint}
		}
		return QueryRule{mode: mode}, nil
	}
	if !hasList {
		return QueryRule{}, &Error{s, len(word), "this query rule needs names", hint}
	}
	names, pos := "", len(word)+1
	for name := range strings.SplitSeq(list, ",") {
		trimmed := strings.TrimSpace(name)
		if trimmed == "" {
			return QueryRule{}, &Error{s, pos, "empty parameter name", hint}
		}
		if i := strings.IndexAny(name, "&="); i >= 0 {
			return QueryRule{}, &Error{s, pos + i, "a parameter name has no '&' and no '='", "write names without values, separated by commas"}
		}
		if key := encode(trimmed); !listed(names, key) {
			if names != "" {
				names += ","
			}
			names += key
		}
		pos += len(name) + 1
	}
	return QueryRule{mode, names}, nil
}

// listed tells whether a comma-separated list has name in it.
func listed(list, name string) bool {
	for list != "" {
		var first string
		if first, list, _ = strings.Cut(list, ","); first == name {
			return true
		}
	}
	return false
}

// String returns the rule as ParseQueryRule reads it.
func (r QueryRule) String() string {
	switch r.mode {
	case queryNone:
		return "none"
	case queryInclude:
		return "include:" + r.names
	case queryExclude:
		return "exclude:" + r.names
	}
	return "all"
}

// MarshalText implements [encoding.TextMarshaler].
func (r QueryRule) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (r *QueryRule) UnmarshalText(text []byte) (err error) {
	*r, err = ParseQueryRule(string(text))
	return err
}

// Reduces tells whether the rule keeps some parameters and drops others. AWS
// does not say which form an invalidation path must then have, the viewer's
// whole query or only the parameters in the key: send both, or a wildcard
// that ends before the query.
func (r QueryRule) Reduces() bool { return r.mode == queryInclude || r.mode == queryExclude }

// Apply returns the path without the parameters that are not in the cache key.
// Order and spelling stay, since each order is an object of its own; only '&'
// separates parameters
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/QueryStringParameters.html).
// When nothing is left of the query its '?' goes too. A path that loses
// nothing is returned as it is, without allocation.
func (r QueryRule) Apply(path string) string {
	stem, query, has := Split(path)
	if r.mode == queryAll || !has {
		return path
	}
	if r.mode == queryNone {
		return stem
	}
	drops := false
	for part := range strings.SplitSeq(query, "&") {
		drops = drops || !r.keeps(part)
	}
	if !drops {
		return path
	}
	kept := make([]byte, 0, len(query))
	first := true
	for part := range strings.SplitSeq(query, "&") {
		if !r.keeps(part) {
			continue
		}
		if !first {
			kept = append(kept, '&')
		}
		kept, first = append(kept, part...), false
	}
	if len(kept) == 0 {
		return stem
	}
	return stem + "?" + string(kept)
}

// keeps tells whether a parameter ("name=value") is part of the cache key.
func (r QueryRule) keeps(part string) bool {
	name, _, _ := strings.Cut(part, "=")
	return listed(r.names, name) == (r.mode == queryInclude)
}
