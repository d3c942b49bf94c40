// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// crash kills what keeps the data while others write to it. Calls may fail
// meanwhile, within bounds; what was acknowledged is there afterwards.
func (s *suite) crash() {
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	handles := s.handles(2)
	const crashes, writers = 3, 4
	var (
		stop     = make(chan struct{})
		wg       sync.WaitGroup
		acked    [writers]int
		commits  int
		progress atomic.Int64
	)
	again := func() bool {
		select {
		case <-stop:
			return false
		case <-ctx.Done():
			return false
		default:
			return true
		}
	}
	for w := range writers {
		wg.Go(func() {
			for again() {
				var updates []inventory.Update
				for i := range 50 {
					updates = append(updates, s.sight(fmt.Sprintf("/%d/%07d", w, acked[w]+i), 1, 100_000))
				}
				if handles[w%2].Merge(ctx, "d", updates) == nil {
					acked[w] += len(updates)
					progress.Add(1)
				}
			}
		})
	}
	wg.Go(func() {
		version := uint64(0)
		for again() {
			v, err := handles[1].Commit(ctx, "d", store.Transaction{
				Require: []store.Requirement{{Key: "k", Version: version}},
				Put:     []store.Put{{Key: "k", Value: []byte(strconv.Itoa(commits + 1))}},
			})
			if err == nil {
				version = v
				commits++
				continue
			}
			// It may have happened: look, as every committer must.
			docs, err := handles[1].List(ctx, "d", "k", "", 0)
			if err != nil || len(docs) != 1 {
				continue
			}
			n, err := strconv.Atoi(string(docs[0].Value))
			if err != nil || n < commits || n > commits+1 {
				s.Errorf("the document says %q after %d acknowledged commits", docs[0].Value, commits)
				return
			}
			version, commits = docs[0].Version, n
		}
	})
	for range crashes {
		for seen := progress.Load(); progress.Load() < seen+20 && ctx.Err() == nil; {
			s.list("other", "", "", 0)
		}
		s.h.Crash(s.T, s.store)
	}
	for seen := progress.Load(); progress.Load() < seen+20 && ctx.Err() == nil; {
		if _, err := handles[0].List(ctx, "other", "", "", 0); err != nil {
			continue
		}
	}
	close(stop)
	wg.Wait()
	s.must(ctx.Err())
	there := make(map[string]bool)
	for _, p := range s.paths("d", 2) {
		there[p] = true
	}
	for w, n := range acked {
		for i := range n {
			if p := fmt.Sprintf("/%d/%07d", w, i); !there[p] {
				s.Fatalf("%s was acknowledged and is gone (writer %d had %d)", p, w, n)
			}
		}
	}
	if docs := s.list("d", "k", "", 0); len(docs) != 1 || string(docs[0].Value) != strconv.Itoa(commits) {
		s.Errorf("documents %+v after %d acknowledged commits", docs, commits)
	}
}
