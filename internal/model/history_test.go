// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package model proves the promises by random histories: recorders, purgers, a
// store and a CloudFront, each with troubles of its own, in virtual time. What the
// simulated edges would serve is the judge.
package model

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const (
	ciHistories = 100
	firstSeed   = 1
)

func TestHistories(t *testing.T) {
	n := uint64(ciHistories)
	if s := os.Getenv("CFTRACK_HISTORIES"); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	first := uint64(firstSeed)
	if s := os.Getenv("CFTRACK_SEED"); s != "" {
		var err error
		if first, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	var next, failed atomic.Uint64
	next.Store(first)
	began := time.Now()
	t.Run("seeds", func(t *testing.T) {
		for i := range 2 {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				for {
					seed := next.Add(1) - 1
					if seed >= first+n || failed.Load() > 3 {
						return
					}
					s := Draw(seed)
					faults, events := Run(t, s)
					if len(faults) > 0 {
						failed.Add(1)
						t.Errorf("history %d:\n%s\n%v%s", seed, strings.Join(faults, "\n"), s, strings.Join(events, "\n"))
					}
				}
			})
		}
	})
	t.Logf("%d histories from seed %d in %v", n, first, time.Since(began))
}
