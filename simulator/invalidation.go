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

// Limits are what the control API accepts. Zero means no limit, unless a field says otherwise.
// The quotas are at https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cloudfront-limits.html.
type Limits struct {
	// Batch is the number of items in one request; over it the answer is BatchTooLarge.
	// Default 3,000; negative: no limit.
	Batch int
	// Paths and Wildcards in progress at a time, the former quotas of 3,000 and 15; over them the
	// answer is TooManyInvalidationsInProgress. Tags count as paths.
	Paths, Wildcards int
	// PathRate and WildcardRate are items a second, the quotas of 2026 of 150 and 1; tags count as
	// paths. A request is accepted, whatever its size, while nothing is owed from those before it,
	// and refused with TooManyInvalidationsInProgress until then.
	PathRate, WildcardRate float64
	// CallRate is the number of CreateInvalidation calls a second, after a burst of CallBurst
	// (default 10); over it the answer is Throttling.
	CallRate  float64
	CallBurst int
}

func (l Limits) withDefaults() Limits {
	if l.Batch == 0 {
		l.Batch = 3000
	}
	if l.CallBurst <= 0 {
		l.CallBurst = 10
	}
	return l
}

// Invalidation is a snapshot of one that was accepted.
type Invalidation struct {
	ID              string
	Target          string // the distribution or the tenant
	Tenant          bool
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

// Billed returns the number of items accepted so far: what CloudFront bills. A repeated reference is
// billed once.
func (s *Simulator) Billed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, v := range s.all {
		n += len(v.Items)
	}
	return n
}

// accept checks a batch and begins to carry it out, or finds the one that its reference began before.
func (s *Simulator) accept(target scope, reference string, items []string) (Invalidation, error) {
	m := newMatcher(&s.opts)
	var paths, wildcards int
	valid := true
	for _, text := range items {
		it, err := cfpath.ParseItem(text)
		if err != nil {
			valid = false
			break
		}
		m.add(it)
		if it.Kind == cfpath.Wildcard {
			wildcards++
		} else {
			paths++
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	now, l := time.Now(), s.opts.Limits
	if !s.buckets[callBucket].take(now, l.CallRate, float64(l.CallBurst), 1) {
		return Invalidation{}, Throttling().err()
	}
	if l.Batch > 0 && len(items) > l.Batch {
		return Invalidation{}, &apiError{http.StatusRequestEntityTooLarge, "BatchTooLarge", "Invalidation batch specified is too large."}
	}
	if !valid {
		// It does not say which: https://github.com/aws/aws-sdk/issues/525.
		return Invalidation{}, &apiError{http.StatusBadRequest, "InvalidArgument", "Your request contains one or more invalid invalidation paths."}
	}
	refKey := target.String() + "/" + reference
	if first := s.refs[refKey]; first != nil {
		if !slices.Equal(first.Items, items) {
			return Invalidation{}, &apiError{http.StatusConflict, "InvalidationBatchAlreadyExists",
				"The caller reference is that of an earlier invalidation with other paths."}
		}
		first.Calls++
		return first.Invalidation, nil
	}
	if !s.room(now, paths, wildcards) {
		return Invalidation{}, TooManyInvalidationsInProgress().err()
	}

	v := &invalidation{
		Invalidation: Invalidation{
			ID: "I" + s.randomID(13), Target: target.id, Tenant: target.tenant, CallerReference: reference,
			Items: items, Created: now, Status: InProgress, Calls: 1,
		},
		match: m, paths: paths, wildcards: wildcards,
	}
	s.ids[target.String()+"/"+v.ID] = v
	s.refs[refKey] = v
	s.byScope[target] = append(s.byScope[target], v)
	s.all = append(s.all, v)
	s.propagate(v)
	return v.Invalidation, nil
}

// room applies the limits on items, and takes the items from the rates if there is room. It holds s.mu.
func (s *Simulator) room(now time.Time, paths, wildcards int) bool {
	l := s.opts.Limits
	p, w := paths, wildcards
	if l.Paths > 0 || l.Wildcards > 0 {
		for _, v := range s.all {
			if v.Status == InProgress {
				p += v.paths
				w += v.wildcards
			}
		}
	}
	if (l.Paths > 0 && paths > 0 && p > l.Paths) || (l.Wildcards > 0 && wildcards > 0 && w > l.Wildcards) {
		return false
	}
	pb, wb := &s.buckets[pathBucket], &s.buckets[wildcardBucket]
	if (paths > 0 && pb.owes(now, l.PathRate)) || (wildcards > 0 && wb.owes(now, l.WildcardRate)) {
		return false
	}
	pb.owe(l.PathRate, float64(paths))
	wb.owe(l.WildcardRate, float64(wildcards))
	return true
}

// propagate has every edge process the invalidation at its own moment. It holds s.mu.
func (s *Simulator) propagate(v *invalidation) {
	type step struct {
		after time.Duration
		edge  *edge
	}
	// Regional caches come first where they tie with their edges, so that without Harsh no edge is before its own.
	steps := make([]step, 0, len(s.upper)+len(s.edges))
	for i, e := range slices.Concat(s.upper, s.edges) {
		st := step{edge: e}
		if s.opts.Propagation > 0 {
			st.after = time.Duration(s.rand.Int64N(int64(s.opts.Propagation)))
		}
		if i >= len(s.upper) && e.up != nil && !s.opts.Harsh {
			st.after = max(st.after, steps[slices.Index(s.upper, e.up)].after)
		}
		steps = append(steps, st)
	}
	slices.SortStableFunc(steps, func(a, b step) int { return cmp.Compare(a.after, b.after) })

	if s.opts.Propagation == 0 {
		for _, st := range steps {
			v.count(s, st.edge, st.edge.invalidate(v.match))
		}
		if s.opts.Completion == 0 {
			v.Status, v.Completed = Completed, time.Now()
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
		if !s.sleep(s.ctx, s.opts.Completion) {
			return
		}
		s.mu.Lock()
		v.Status, v.Completed = Completed, time.Now()
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

const (
	callBucket = iota
	pathBucket
	wildcardBucket
	bucketCount
)

// bucket is a debt that shrinks at a rate. A rate of 0 means no limit.
type bucket struct {
	debt float64
	at   time.Time
}

func (b *bucket) settle(now time.Time, rate float64) {
	b.debt = max(0, b.debt-now.Sub(b.at).Seconds()*rate)
	b.at = now
}

func (b *bucket) owes(now time.Time, rate float64) bool {
	if rate <= 0 {
		return false
	}
	b.settle(now, rate)
	return b.debt > 1e-9
}

func (b *bucket) owe(rate, n float64) {
	if rate > 0 {
		b.debt += n
	}
}

func (b *bucket) take(now time.Time, rate, burst, n float64) bool {
	if rate <= 0 {
		return true
	}
	b.settle(now, rate)
	if b.debt+n > burst+1e-9 {
		return false
	}
	b.debt += n
	return true
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
