// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A Budget is a number of entries, or a share of those selected. As text it is "12" or "2.5%".
type Budget struct {
	Entries int
	Percent float64 // if not 0, it counts: of the selected entries, rounded down
}

// ParseBudget reads "12" or "2.5%".
func ParseBudget(s string) (Budget, error) {
	if p, ok := strings.CutSuffix(s, "%"); ok {
		v, err := strconv.ParseFloat(p, 64)
		if err != nil || !(v >= 0) || v > 1e6 {
			return Budget{}, fmt.Errorf("plan: %q is no percentage: write a number and '%%', as 2.5%%", s)
		}
		return Budget{Percent: v}, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return Budget{}, fmt.Errorf("plan: %q is no number of entries: write 12, or 2.5%% for a share of those selected", s)
	}
	return Budget{Entries: n}, nil
}

// String is the budget as [ParseBudget] reads it.
func (b Budget) String() string {
	if b.Percent != 0 {
		return strconv.FormatFloat(b.Percent, 'g', -1, 64) + "%"
	}
	return strconv.Itoa(b.Entries)
}

// MarshalText implements [encoding.TextMarshaler].
func (b Budget) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (b *Budget) UnmarshalText(text []byte) (err error) {
	*b, err = ParseBudget(string(text))
	return err
}

// Of is how many entries the budget is when so many are selected.
func (b Budget) Of(selected int) int {
	if b.Percent == 0 {
		return b.Entries
	}
	return int(math.Floor(b.Percent*float64(selected)/100 + 1e-9)) // 29 % of 100 are 29
}
