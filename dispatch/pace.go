// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"strings"
	"sync"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/plan"
)

// wildcardsPerBatch is how many wildcards a batch has at most: of the fifteen
// that may be in progress under CloudFront's older quota, two are left to people.
const wildcardsPerBatch = 13

// A pace spreads what one dispatcher sends over time: after each batch it waits
// until the rates have room for what was sent. It knows of no other sender;
// what CloudFront answers corrects it. It is safe for concurrent use: a goroutine
// that lost the lease may still be at its last call when another leads.
type pace struct {
	mu    sync.Mutex
	free  time.Time // when the next batch may be saved
	limit int       // items a batch after push-back; 0: none
}

func (p *pace) wait(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.free.Sub(now)
}

// take splits the queue into what fits the next batch, at least one item, and
// the rest. A wildcard too many waits; what comes after it need not.
func (p *pace) take(queue []queued, size int) (next, rest []queued) {
	p.mu.Lock()
	defer p.mu.Unlock()
	wild := wildcardsPerBatch
	if p.limit > 0 {
		size, wild = min(size, p.limit), min(wild, p.limit)
	}
	for i, q := range queue {
		if len(next) == size {
			return next, append(rest, queue[i:]...)
		}
		if q.item.Kind == cfpath.Wildcard {
			if wild == 0 {
				rest = append(rest, q)
				continue
			}
			wild--
		}
		next = append(next, q)
	}
	return next, rest
}

// sent makes room for what was accepted, and lets batches grow again slowly.
func (p *pace) sent(now time.Time, items []string, limits plan.Limits) {
	wild := 0
	for _, it := range items {
		if strings.HasSuffix(it, "*") {
			wild++
		}
	}
	cost := max(float64(len(items)-wild)/limits.ItemsPerSecond, float64(wild)/limits.WildcardsPerSecond)
	p.mu.Lock()
	defer p.mu.Unlock()
	// A hair more than the rate asks for: one that is met to the nanosecond is
	// missed by whoever counts from the other end.
	p.free = now.Add(time.Duration(cost*float64(time.Second)) + 10*time.Millisecond)
	if p.limit > 0 {
		p.limit += max(1, p.limit/4)
		if p.limit > 3000 {
			p.limit = 0
		}
	}
}

// shrink halves what the next batches may hold. Saved ones never change.
func (p *pace) shrink() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limit == 0 {
		p.limit = 1000
	}
	p.limit = max(1, p.limit/2)
}

// limits returns the limits in force.
func (d *Dispatcher) limits() plan.Limits { return d.opts.Limits.WithDefaults() }
