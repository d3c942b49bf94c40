// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

// A reach says what the items say one by one.
func TestReach(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		path := rapid.StringMatching(`/[ab/]{0,4}`)
		var items []Item
		for range rapid.IntRange(0, 4).Draw(t, "items") {
			kind := rapid.SampledFrom([]cfpath.Kind{cfpath.Path, cfpath.Wildcard, cfpath.Tag}).Draw(t, "kind")
			items = append(items, Item{Item: cfpath.Item{Kind: kind, Text: path.Draw(t, "text")}})
		}
		p, reach := path.Draw(t, "path"), ReachOf(items)
		if want := slices.ContainsFunc(items, func(it Item) bool { return it.Item.Matches(p) }); reach.Matches(p) != want {
			t.Errorf("%v on %s: %v", items, p, !want)
		}
		spared := func(it Item) bool { return it.Item.Matches(p) && !spares(it.Item, p) }
		if want := slices.ContainsFunc(items, spared); reach.holds(p, true) != want {
			t.Errorf("%v on %s itself: %v", items, p, !want)
		}
	})
}
