// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"fmt"
	"math"
	"time"
)

// Limits are what the control API accepts. The zero value limits nothing but the size of a request.
// RateQuotas and ProgressQuotas have what AWS documents, and StrictQuotas the most cautious reading of it.
//
// There are two regimes. Since 2026 CloudFront takes so many paths and wildcards a second
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cloudfront-limits.html); before, it
// took so many in progress
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/InvalidationLimits.html, still
// met). Either, both or none may be set. What AWS does not say is a field of its own here, so that a
// caller can be tested under each reading.
//
// A request that is refused takes nothing from any limit on items. One whose reference returns an earlier
// invalidation takes nothing either.
type Limits struct {
	// Batch is the number of items in one request; over it the answer is BatchTooLarge.
	// Default 3,000; negative: no limit. AWS documents none today.
	Batch int

	// Paths and Wildcards are the items in progress at a time, counted apart; over them the answer is
	// TooManyInvalidationsInProgress. Tags count as paths. 0: no limit.
	Paths, Wildcards int

	// PathRate and WildcardRate are items a second. Tags count as paths. 0: no limit.
	PathRate, WildcardRate float64
	// PathBurst and WildcardBurst are how many items may come at once. AWS does not say what becomes of
	// a request with more items than a second allows, so there are two rules. With 0 such a request is
	// accepted, whatever its size, while nothing is owed from those before it, and what it holds is then
	// owed at the rate. With a number, items are tokens of a bucket of that size, which is full at
	// first and fills at the rate: a request with more items than there are tokens is refused, and one
	// larger than the bucket always is.
	PathBurst, WildcardBurst int
	// WildcardsArePaths has wildcards count in PathRate too. AWS does not say whether they do.
	WildcardsArePaths bool
	// WildcardPerRequest has all wildcards of one request count as one in WildcardRate. AWS speaks of
	// "wildcard invalidations", which may be a path or a request.
	WildcardPerRequest bool
	// RateIsThrottling has an excess over PathRate or WildcardRate answered with Throttling in place
	// of TooManyInvalidationsInProgress. AWS does not say which it is.
	RateIsThrottling bool

	// CallRate is the number of calls a second, after a burst of CallBurst (default 10); over it the
	// answer is Throttling. 0: no limit. AWS publishes no figure; its staff named 0.5 for
	// CreateInvalidation in 2022 (https://github.com/aws/aws-sdk-js/issues/3983).
	CallRate  float64
	CallBurst int
	// AllCalls has every operation count in CallRate, and not creations alone. AWS does not say.
	AllCalls bool

	// PerTarget gives the distribution and each tenant limits on items of their own. Otherwise they
	// share one account's. AWS documented the former regime for each distribution and does not say of
	// the rates; the rate of calls is always the account's.
	PerTarget bool
}

// RateQuotas are those of 2026: 150 paths or tags and one wildcard a second
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cloudfront-limits.html), in the
// most generous reading.
func RateQuotas() Limits { return Limits{PathRate: 150, WildcardRate: 1} }

// ProgressQuotas are the former ones, which accounts may still have: 3,000 paths and 15 wildcards in
// progress (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/InvalidationLimits.html).
func ProgressQuotas() Limits { return Limits{Paths: 3000, Wildcards: 15} }

// StrictQuotas are both regimes at once, with the rates in the reading that allows the least: no request
// may hold more than a second's worth, wildcards count as paths too, and creations are throttled.
func StrictQuotas() Limits {
	return Limits{
		Paths: 3000, Wildcards: 15,
		PathRate: 150, PathBurst: 150, WildcardRate: 1, WildcardBurst: 1, WildcardsArePaths: true,
		CallRate: 0.5, CallBurst: 10, AllCalls: false,
	}
}

// limitPresets are those that ParseLimits knows by name.
var limitPresets = map[string]Limits{
	"none": {}, "rate": RateQuotas(), "progress": ProgressQuotas(), "strict": StrictQuotas(),
	"both": {Paths: 3000, Wildcards: 15, PathRate: 150, WildcardRate: 1},
}

// ParseLimits reads limits as "cftrack simulate --limits" takes them: the name rate (RateQuotas), progress
// (ProgressQuotas), both, strict (StrictQuotas) or none, or settings, or a name and settings that change
// it, with commas between:
//
//	both
//	rate,path-burst=150,wildcards-are-paths
//	call-rate=0.5,all-calls
//
// The settings are the fields of Limits, in small letters with hyphens; those that are true or false are given by
// their name alone.
func ParseLimits(text string) (Limits, error) {
	var l Limits
	if err := parseSettings("limits", text, limitPresets, &l, []setting{
		countSetting("batch", &l.Batch), countSetting("paths", &l.Paths), countSetting("wildcards", &l.Wildcards),
		numberSetting("path-rate", &l.PathRate), numberSetting("wildcard-rate", &l.WildcardRate),
		countSetting("path-burst", &l.PathBurst), countSetting("wildcard-burst", &l.WildcardBurst),
		switchSetting("wildcards-are-paths", &l.WildcardsArePaths), switchSetting("wildcard-per-request", &l.WildcardPerRequest),
		switchSetting("rate-is-throttling", &l.RateIsThrottling),
		numberSetting("call-rate", &l.CallRate), countSetting("call-burst", &l.CallBurst), switchSetting("all-calls", &l.AllCalls),
		switchSetting("per-target", &l.PerTarget),
	}); err != nil {
		return Limits{}, err
	}
	if err := l.validate(); err != nil {
		return Limits{}, err
	}
	return l, nil
}

func (l Limits) withDefaults() Limits {
	if l.Batch == 0 {
		l.Batch = 3000
	}
	if l.CallBurst == 0 {
		l.CallBurst = 10
	}
	return l
}

// validate refuses what cannot be meant. It sees the limits as they were given.
func (l Limits) validate() error {
	for _, f := range []struct {
		name string
		v    float64
	}{
		{"Paths", float64(l.Paths)}, {"Wildcards", float64(l.Wildcards)},
		{"PathRate", l.PathRate}, {"WildcardRate", l.WildcardRate}, {"CallRate", l.CallRate},
		{"PathBurst", float64(l.PathBurst)}, {"WildcardBurst", float64(l.WildcardBurst)}, {"CallBurst", float64(l.CallBurst)},
	} {
		if !(f.v >= 0) || math.IsInf(f.v, 0) {
			return fmt.Errorf("limits: %s is %v: give 0 for no limit, or a positive number", f.name, f.v)
		}
	}
	for _, f := range []struct {
		name  string
		set   bool
		of    string
		there bool
	}{
		{"PathBurst", l.PathBurst > 0, "PathRate", l.PathRate > 0},
		{"WildcardBurst", l.WildcardBurst > 0, "WildcardRate", l.WildcardRate > 0},
		{"WildcardsArePaths", l.WildcardsArePaths, "PathRate", l.PathRate > 0},
		{"WildcardPerRequest", l.WildcardPerRequest, "WildcardRate", l.WildcardRate > 0},
		{"RateIsThrottling", l.RateIsThrottling, "PathRate or WildcardRate", l.PathRate > 0 || l.WildcardRate > 0},
		{"CallBurst", l.CallBurst > 0, "CallRate", l.CallRate > 0},
		{"AllCalls", l.AllCalls, "CallRate", l.CallRate > 0},
	} {
		if f.set && !f.there {
			return fmt.Errorf("limits: %s says nothing without %s: set that too, or neither", f.name, f.of)
		}
	}
	return nil
}

// limitsCalls says whether an operation counts in CallRate.
func (l Limits) limitsCalls(op string) bool {
	return l.AllCalls || op == CreateInvalidation || op == CreateInvalidationForTenant
}

// A quota is what one caller, or all of them together, have used of one account's or target's limits.
type quota struct {
	calls, paths, wildcards          bucket
	pathsInProgress, wildsInProgress int
}

// quotaKey names a quota. The zero target is the account, the caller "" is everybody.
type quotaKey struct {
	target scope
	caller string
}

// quotasOf returns what counts for a call of a caller: everybody's quota, and the caller's own, as if
// nobody else called. It holds s.mu.
func (s *Simulator) quotasOf(target scope, caller string) (all, own *quota) {
	get := func(k quotaKey) *quota {
		q := s.quotas[k]
		if q == nil {
			q = &quota{}
			s.quotas[k] = q
		}
		return q
	}
	return get(quotaKey{target: target}), get(quotaKey{target, caller})
}

// take counts one call, if there is room for it.
func (q *quota) take(now time.Time, l *Limits) bool {
	if !q.calls.room(now, l.CallRate, l.CallBurst, 1) {
		return false
	}
	q.calls.owe(l.CallRate, 1)
	return true
}

// weigh is what a batch counts in the rates.
func (l *Limits) weigh(paths, wildcards int) (p, w float64) {
	p, w = float64(paths), float64(wildcards)
	if l.WildcardsArePaths {
		p += w
	}
	if l.WildcardPerRequest {
		w = min(w, 1)
	}
	return p, w
}

// lacks names the limit that has no room for a batch, "" if all have.
func (q *quota) lacks(now time.Time, l *Limits, paths, wildcards int) Cause {
	p, w := l.weigh(paths, wildcards)
	switch {
	case l.Paths > 0 && paths > 0 && q.pathsInProgress+paths > l.Paths:
		return PathsInProgress
	case l.Wildcards > 0 && wildcards > 0 && q.wildsInProgress+wildcards > l.Wildcards:
		return WildcardsInProgress
	case !q.paths.room(now, l.PathRate, l.PathBurst, p):
		return PathRate
	case !q.wildcards.room(now, l.WildcardRate, l.WildcardBurst, w):
		return WildcardRate
	}
	return ""
}

// use counts a batch that was accepted.
func (q *quota) use(l *Limits, paths, wildcards int) {
	p, w := l.weigh(paths, wildcards)
	q.paths.owe(l.PathRate, p)
	q.wildcards.owe(l.WildcardRate, w)
	q.pathsInProgress += paths
	q.wildsInProgress += wildcards
}

// release counts a batch that is Completed.
func (q *quota) release(paths, wildcards int) {
	q.pathsInProgress -= paths
	q.wildsInProgress -= wildcards
}

// bucket is a debt that shrinks at a rate. A rate of 0 means no limit.
type bucket struct {
	debt float64
	at   time.Time
}

// room says whether n more may come: with a burst, if the debt stays within it; without, if nothing is
// owed.
func (b *bucket) room(now time.Time, rate float64, burst int, n float64) bool {
	if rate <= 0 || n <= 0 {
		return true
	}
	const rounding = 1e-9
	b.debt = max(0, b.debt-now.Sub(b.at).Seconds()*rate)
	b.at = now
	if burst == 0 {
		return b.debt <= rounding
	}
	return b.debt+n <= float64(burst)+rounding
}

// owe comes right after room, at the same instant.
func (b *bucket) owe(rate, n float64) {
	if rate > 0 {
		b.debt += n
	}
}
