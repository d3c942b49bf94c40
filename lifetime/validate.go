// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package lifetime

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

// Error says which of the Rules is wrong, and what to do about it.
type Error struct {
	Field  string // such as "Behaviors[2].MaxTTL"
	Value  string
	Reason string
	Hint   string
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s is %s: %s; %s", e.Field, e.Value, e.Reason, e.Hint)
}

// Validate checks what CloudFront would not have accepted either, and what was
// likely forgotten. The error is an [*Error] about the first field that is wrong.
func (r *Rules) Validate() error {
	for i := range r.Behaviors {
		b, field := &r.Behaviors[i], fmt.Sprintf("Behaviors[%d]", i)
		if b.Pattern == (cfpath.Pattern{}) {
			return &Error{
				field + ".Pattern", "empty", "it would match every path and hide what comes after it",
				"give it a pattern, or put its settings into Default",
			}
		}
		if err := b.validate(field); err != nil {
			return err
		}
	}
	if p := r.Default.Pattern.String(); p != "*" && p != "/*" {
		return &Error{
			"Default.Pattern", fmt.Sprintf("%q", p), "the default behaviour is for every path",
			"leave it empty, or move this behaviour to Behaviors",
		}
	}
	if err := r.Default.validate("Default"); err != nil {
		return err
	}
	if r.ErrorTTL < 0 {
		return negative("ErrorTTL", r.ErrorTTL)
	}
	for _, status := range slices.Sorted(maps.Keys(r.ErrorTTLs)) {
		field := fmt.Sprintf("ErrorTTLs[%d]", status)
		if status < 400 || status > 599 {
			return &Error{
				field, r.ErrorTTLs[status].String(), "it is not the status of an error",
				"list statuses from 400 to 599",
			}
		}
		if r.ErrorTTLs[status] < 0 {
			return negative(field, r.ErrorTTLs[status])
		}
	}
	if r.Tiers < 0 || r.Tiers > MaxTiers {
		return &Error{
			"Tiers", fmt.Sprint(r.Tiers), fmt.Sprintf("a distribution has from 1 to %d tiers of caches", MaxTiers),
			fmt.Sprintf("write 0 for the default, %d; one more with Origin Shield", DefaultTiers),
		}
	}
	return nil
}

// validate checks the order of TTLs, which CloudFront refuses as InvalidTTLOrder.
func (b *Behavior) validate(field string) error {
	switch {
	case b.MinTTL < 0:
		return negative(field+".MinTTL", b.MinTTL)
	case b.DefaultTTL < b.MinTTL:
		return &Error{
			field + ".DefaultTTL", b.DefaultTTL.String(), fmt.Sprintf("it is below MinTTL, %s", b.MinTTL),
			"CloudFront takes MinTTL <= DefaultTTL <= MaxTTL: raise it or lower MinTTL",
		}
	case b.MaxTTL < b.DefaultTTL:
		return &Error{
			field + ".MaxTTL", b.MaxTTL.String(), fmt.Sprintf("it is below DefaultTTL, %s", b.DefaultTTL),
			"CloudFront takes MinTTL <= DefaultTTL <= MaxTTL: raise it or lower DefaultTTL",
		}
	case b.AllHeaders && b.MinTTL > 0:
		return &Error{
			field + ".MinTTL", b.MinTTL.String(), "with AllHeaders nothing is cached, and CloudFront takes only 0",
			"write 0, or clear AllHeaders",
		}
	}
	return nil
}

func negative(field string, d time.Duration) error {
	return &Error{field, d.String(), "it is negative", "write 0 or more"}
}
