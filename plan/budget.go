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

// none is the absence of a cap.
const none = math.MaxInt32

// check says what is wrong with the budgets.
func (o *Options) check() error {
	for _, b := range []struct {
		name string
		n    *int
	}{{"MaxItems", o.MaxItems}, {"MaxWildcards", o.MaxWildcards}} {
		if b.n != nil && *b.n < 0 {
			return fmt.Errorf("plan: %s is %d: it must be 0 or more; nil is no cap", b.name, *b.n)
		}
	}
	if p := o.MaxPrice; p != nil && !(*p >= 0) {
		return fmt.Errorf("plan: MaxPrice is %v: it must be 0 or more; nil is no cap", *p)
	}
	if c := o.MaxCollateral; c != nil && (c.Entries < 0 || !(c.Percent >= 0)) {
		return fmt.Errorf("plan: MaxCollateral is %v: it must be 0 or more; nil is none", *c)
	}
	return nil
}

// flat tells whether wildcards may not be looked up.
func (o *Options) flat() bool { return o.Exact || !o.Wildcards }

func (o *Options) objective() string {
	if o.MaxItems != nil && o.MaxCollateral == nil {
		return ObjectiveCollateral
	}
	return ObjectiveItems
}

// budgets are what looked-up items may cost; none where there is no cap. They are
// negative where what is named costs more than that.
type budgets struct {
	items, wildcards, collateral int
}

// budgets are those of the options, for so many selected entries.
func (o *Options) budgets(selected int) budgets {
	b := budgets{items: none, wildcards: none}
	if o.MaxItems != nil {
		b.items = *o.MaxItems
		b.collateral = none
	}
	if o.MaxPrice != nil {
		b.items = min(b.items, o.Price.Items(*o.MaxPrice))
	}
	if o.MaxWildcards != nil {
		b.wildcards = *o.MaxWildcards
	}
	if o.MaxCollateral != nil {
		b.collateral = o.MaxCollateral.Of(selected)
	}
	return b
}

// without takes off what named items cost.
func (b budgets) without(items []Item) budgets {
	for i := range items {
		if b.items < none {
			b.items--
		}
		if items[i].wildcard() && b.wildcards < none {
			b.wildcards--
		}
	}
	return b
}

// Up to this reach plans are exact: the greatest index of a frontier, and the most
// cells where wildcards count too.
const (
	maxIndex = 4096
	maxCells = 1 << 18
)

// nearly returns what computes a good plan and a bound, without a cap on wildcards.
func (b budgets) nearly() *frontiers {
	return &frontiers{measure: leastCollateral, hulls: true, other: 1<<uncoveredShift - 1,
		index: int32(max(0, b.items)), collateral: b.collateral}
}

// exactly returns what computes the best plan exactly, without a cap on wildcards
// unless capped, or false if that is too much. It is nil where the tree alone does.
func (b budgets) exactly(reach int, capped bool) (*frontiers, bool) {
	size := 1
	d := &frontiers{other: 1<<uncoveredShift - 1}
	if capped {
		d.capped, d.most = true, int32(max(0, b.wildcards))
		size += int(d.most)
	}
	fits := func(n int) bool { return n <= reach && (n+1)*size <= maxCells }
	switch {
	case b.collateral == 0 && !capped:
		return nil, true
	case fits(b.collateral):
		d.measure, d.index = leastItems, int32(b.collateral)
	case fits(b.items):
		d.measure, d.index = leastCollateral, int32(max(0, b.items))
		if b.collateral < none {
			d.other = int64(b.collateral)
		}
	case b.collateral == none && b.items == none && fits(0):
		d.measure = leastOfAll
	default:
		return nil, false
	}
	return d, true
}
