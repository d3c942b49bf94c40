// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

// Statuses of an invalidation.
const (
	InProgress = "InProgress"
	Completed  = "Completed"
)

// Invalidation is a snapshot of one that was accepted.
type Invalidation struct {
	ID              string
	Target          string // the distribution or the tenant
	Tenant          bool
	Caller          string // access key ID of who created it, or SomebodyElse
	CallerReference string
	Items           []string // as sent
	Created         time.Time
	Completed       time.Time // zero while it is in progress
	Status          string    // InProgress or Completed
	Calls           int       // Create calls that were answered, or would have been, with this one
	Edges           int       // edges that have processed it
	Regional        int       // regional caches that have processed it
	Removed         int       // objects removed, over all caches
}

func (v Invalidation) xml() *invalidationXML {
	return &invalidationXML{
		ID: v.ID, Status: v.Status, Created: formatTime(v.Created),
		Batch: batchXML{v.CallerReference, pathsXML{len(v.Items), &itemsXML{v.Items}}},
	}
}

// invalidation is guarded by Simulator.mu; its items never change.
type invalidation struct {
	Invalidation
	match            *matcher
	paths, wildcards int
	quotas           []*quota      // what it takes up until it is Completed
	lag, statusLag   time.Duration // until the API knows of it, and of its completion
}

// seen is what the API says of the invalidation; false: nothing yet. It holds s.mu.
func (v *invalidation) seen(now time.Time) (Invalidation, bool) {
	out := v.Invalidation
	if v.statusLag > 0 && out.Status == Completed && now.Before(out.Completed.Add(v.statusLag)) {
		out.Status = InProgress
	}
	return out, !now.Before(out.Created.Add(v.lag))
}

// count notes that a cache has processed it.
func (v *invalidation) count(s *Simulator, e *edge, removed int) {
	v.Removed += removed
	if slices.Contains(s.upper, e) {
		v.Regional++
	} else {
		v.Edges++
	}
}

// Invalidations returns those that were accepted, oldest first.
func (s *Simulator) Invalidations() []Invalidation {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Invalidation, len(s.all))
	for i, v := range s.all {
		out[i] = v.Invalidation
		out[i].Items = slices.Clone(v.Items)
	}
	return out
}

// Billed returns the number of items accepted so far from the callers of the API: what CloudFront bills.
// A repeated reference is billed once. What somebody else created is left out.
func (s *Simulator) Billed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, v := range s.all {
		if v.Caller != SomebodyElse {
			n += len(v.Items)
		}
	}
	return n
}

// admit counts a call in the rate of calls. Its error is *apiError. It holds s.mu.
func (s *Simulator) admit(c *Call) error {
	l := &s.opts.Limits
	if !l.limitsCalls(c.Operation) {
		return nil
	}
	all, own := s.quotasOf(scope{}, c.Caller)
	c.Time = time.Now()
	if !all.take(c.Time, l) {
		c.Cause, c.Own = CallRate, !own.calls.room(c.Time, l.CallRate, l.CallBurst, 1)
		return Throttling().err()
	}
	if own != all {
		own.take(c.Time, l)
	}
	return nil
}

// accept checks a batch and begins to carry it out, or finds the one that its reference began before.
// It tells the call what became of it. Its errors are *apiError.
func (s *Simulator) accept(target scope, reference string, items []string, c *Call) (Invalidation, error) {
	c.Reference = reference
	m := newMatcher(&s.opts)
	valid := true
	for _, text := range items {
		it, err := cfpath.ParseItem(text)
		if err != nil {
			valid = false
			c.Paths++
			continue
		}
		m.add(it)
		if it.Kind == cfpath.Wildcard {
			c.Wildcards++
		} else {
			c.Paths++
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	now, l := time.Now(), &s.opts.Limits
	c.Time = now
	if l.Batch > 0 && len(items) > l.Batch {
		return Invalidation{}, &apiError{http.StatusRequestEntityTooLarge, "BatchTooLarge", "Invalidation batch specified is too large."}
	}
	if !valid {
		// It does not say which: https://github.com/aws/aws-sdk/issues/525.
		return Invalidation{}, &apiError{http.StatusBadRequest, "InvalidArgument", "Your request contains one or more invalid invalidation paths."}
	}
	refKey := target.String() + "/" + reference
	if first := s.refs[refKey]; first != nil && s.remembers(first, now) {
		if !s.same(first.Items, items) {
			return Invalidation{}, &apiError{http.StatusConflict, "InvalidationBatchAlreadyExists",
				"The caller reference is that of an earlier invalidation with other paths."}
		}
		first.Calls++
		c.ID, c.Repeat = first.ID, true
		out, _ := first.seen(now)
		return out, nil
	}
	share := scope{}
	if l.PerTarget {
		share = target
	}
	all, own := s.quotasOf(share, c.Caller)
	if c.Cause = all.lacks(now, l, c.Paths, c.Wildcards); c.Cause != "" {
		c.Own = own.lacks(now, l, c.Paths, c.Wildcards) != ""
		if l.RateIsThrottling && (c.Cause == PathRate || c.Cause == WildcardRate) {
			return Invalidation{}, Throttling().err()
		}
		return Invalidation{}, TooManyInvalidationsInProgress().err()
	}

	v := &invalidation{
		Invalidation: Invalidation{
			ID: "I" + s.randomID(13), Target: target.id, Tenant: target.tenant, Caller: c.Caller, CallerReference: reference,
			Items: items, Created: now, Status: InProgress, Calls: 1,
		},
		match: m, paths: c.Paths, wildcards: c.Wildcards, quotas: []*quota{all},
		lag: s.sky.weather.Lag.draw(s.sky.rand), statusLag: s.sky.weather.StatusLag.draw(s.sky.rand),
	}
	if own != all {
		own.lacks(now, l, c.Paths, c.Wildcards) // brings its debts up to now
		v.quotas = append(v.quotas, own)
	}
	for _, q := range v.quotas {
		q.use(l, v.paths, v.wildcards)
	}
	c.ID = v.ID
	s.ids[target.String()+"/"+v.ID] = v
	s.refs[refKey] = v
	s.byScope[target] = append(s.byScope[target], v)
	s.all = append(s.all, v)
	s.propagate(v)
	out, _ := v.seen(now)
	return out, nil
}

// remembers says whether CloudFront still knows the reference of an invalidation.
func (s *Simulator) remembers(v *invalidation, now time.Time) bool {
	m := s.opts.ReferenceMemory
	return m == 0 || now.Before(v.Created.Add(m))
}

// same says whether two lists of items under one reference are the same batch.
func (s *Simulator) same(a, b []string) bool {
	if s.opts.ReorderedIsSame {
		a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	}
	return slices.Equal(a, b)
}

// complete ends an invalidation. It holds s.mu.
func (s *Simulator) complete(v *invalidation) {
	v.Status, v.Completed = Completed, time.Now()
	for _, q := range v.quotas {
		q.release(v.paths, v.wildcards)
	}
}

// moments draws when each of n caches processes an invalidation, and how long after the last of them it
// is Completed. It holds s.mu.
func (s *Simulator) moments(n int) (each []time.Duration, after time.Duration) {
	if t := s.opts.Timing; t != (Timing{}) {
		each, done := t.moments(s.rand, n)
		return each, done - slices.Max(each)
	}
	each = make([]time.Duration, n)
	for i := range each {
		if s.opts.Propagation > 0 {
			each[i] = time.Duration(s.rand.Int64N(int64(s.opts.Propagation)))
		}
	}
	return each, s.opts.Completion
}

// propagate has every cache process the invalidation at its own moment. It holds s.mu.
func (s *Simulator) propagate(v *invalidation) {
	type step struct {
		after time.Duration
		edge  *edge
	}
	caches := slices.Concat(s.upper, s.edges)
	each, completion := s.moments(len(caches))
	steps := make([]step, len(caches))
	// Regional caches come first where they tie with their edges, so that without Harsh no edge is before its own.
	for i, e := range caches {
		steps[i] = step{each[i], e}
		if i >= len(s.upper) && e.up != nil && !s.opts.Harsh {
			steps[i].after = max(each[i], each[slices.Index(s.upper, e.up)])
		}
	}
	slices.SortStableFunc(steps, func(a, b step) int { return cmp.Compare(a.after, b.after) })

	if steps[len(steps)-1].after == 0 {
		for _, st := range steps {
			v.count(s, st.edge, st.edge.invalidate(v.match))
		}
		if completion == 0 {
			s.complete(v)
			return
		}
		steps = nil
	}
	s.goFunc(func() {
		start := v.Created
		for _, st := range steps {
			if !s.sleep(s.ctx, time.Until(start.Add(st.after))) {
				return
			}
			n := st.edge.invalidate(v.match)
			s.mu.Lock()
			v.count(s, st.edge, n)
			s.mu.Unlock()
		}
		if !s.sleep(s.ctx, completion) {
			return
		}
		s.mu.Lock()
		s.complete(v)
		s.mu.Unlock()
	})
}

// matcher says which objects the items of one invalidation name.
type matcher struct {
	exact map[string]struct{}
	wild  []cfpath.Item
	tags  map[string]struct{} // lower case

	spareDirectory, spareDoubtful bool
}

func newMatcher(o *Options) *matcher {
	return &matcher{
		exact: map[string]struct{}{}, tags: map[string]struct{}{},
		spareDirectory: o.SpareDirectory, spareDoubtful: o.SpareDoubtful,
	}
}

func (m *matcher) add(it cfpath.Item) {
	// An encoded tilde is accepted and removes nothing: https://github.com/aws/aws-sdk/issues/525.
	tilde := strings.Contains(it.Text, "%7E") || strings.Contains(it.Text, "%7e")
	switch {
	case it.Kind == cfpath.Tag:
		m.tags[strings.ToLower(it.Text)] = struct{}{}
	case tilde:
	case it.Kind == cfpath.Wildcard:
		m.wild = append(m.wild, it)
	default:
		m.exact[it.Text] = struct{}{}
	}
}

// matches takes a canonical path, reduced to the query parameters of the key.
func (m *matcher) matches(path string, tags []string) bool {
	if _, ok := m.exact[path]; ok && !(m.spareDoubtful && cfpath.InDoubt(path)) {
		return true
	}
	for _, it := range m.wild {
		if !it.Matches(path) {
			continue
		}
		if m.spareDirectory && path == it.Text && path != "/" && strings.HasSuffix(path, "/") {
			continue
		}
		if m.spareDoubtful && !it.MatchesSurely(path) {
			continue
		}
		return true
	}
	for _, t := range tags {
		if _, ok := m.tags[t]; ok {
			return true
		}
	}
	return false
}

// randomID draws from s.rand, under s.mu once the simulator is built. Only invalidations draw from it,
// so that their IDs and delays depend on the seed and their order alone.
func (s *Simulator) randomID(n int) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	b := make([]byte, n)
	for i := range b {
		b[i] = letters[s.rand.IntN(len(letters))]
	}
	return string(b)
}

func (s *Simulator) randomUUID() string {
	a, b := s.noise.Uint64(), s.noise.Uint64()
	return fmt.Sprintf("%08x-%04x-4%03x-%04x-%012x", a>>32, a>>16&0xffff, a&0xfff, 0x8000|b>>48&0x3fff, b&0xffffffffffff)
}
