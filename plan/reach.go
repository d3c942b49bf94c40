// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import "github.com/cf-invalidation-tracker/cftrack/cfpath"

// A Reach is what many items reach, tags apart. It is asked in the length of a path, however
// many items there are.
type Reach struct {
	paths, stems map[string]bool
}

// ReachOf is what the items reach.
func ReachOf(items []Item) Reach {
	out := Reach{map[string]bool{}, map[string]bool{}}
	for i := range items {
		out.add(items[i].Item)
	}
	return out
}

func (x *Reach) add(it cfpath.Item) {
	switch it.Kind {
	case cfpath.Path:
		x.paths[it.Text] = true
	case cfpath.Wildcard:
		x.stems[it.Text] = true
	}
}

// Matches tells whether one of the items matches the path, as [cfpath.Item.Matches] has it.
func (x *Reach) Matches(path string) bool { return x.paths[path] || x.holds(path, false) }

// holds tells whether a path is reached or, unless just that is meant, all that begins with it.
// "/dir/*" does not count for "/dir/", which it may leave alone.
func (x *Reach) holds(path string, just bool) bool {
	if just && x.paths[path] {
		return true
	}
	longest := len(path)
	if just && longest > 1 && path[longest-1] == '/' {
		longest--
	}
	for n := 1; n <= longest && len(x.stems) > 0; n++ {
		if x.stems[path[:n]] {
			return true
		}
	}
	return false
}
