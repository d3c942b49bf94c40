// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"strings"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

// queryRule is a selection of query parameters in the words of package cfpath.
func queryRule(q QueryStringsConfig) (cfpath.QueryRule, error) {
	text := "none"
	switch names := escapeCommas(q.QueryStrings); {
	case q.QueryStringBehavior == "all", q.QueryStringBehavior == "allExcept" && names == "":
		text = "all"
	case q.QueryStringBehavior == "whitelist" && names != "":
		text = "include:" + names
	case q.QueryStringBehavior == "allExcept":
		text = "exclude:" + names
	}
	return cfpath.ParseQueryRule(text)
}

func escapeCommas(names []string) string {
	escaped := make([]string, len(names))
	for i, n := range names {
		escaped[i] = strings.ReplaceAll(n, ",", "%2C")
	}
	return strings.Join(escaped, ",")
}
