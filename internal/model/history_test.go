// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package model proves the promises by random histories: recorders, purgers, a
// store and a CloudFront, each with troubles of its own, in virtual time. What the
// simulated edges would serve is the judge.
//
//	CFTRACK_HISTORIES=200000 go test ./internal/model -run Histories   # make soak
//	CFTRACK_HISTORIES=1 CFTRACK_SEED=933 go test ./internal/model -run Histories
//
// The second plays one history again. Latencies are drawn from its seed; what runs
// at the very same instant is left to Go's scheduler, so that now and then a
// history has to be played a few times until it fails again.
package model

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// How many are played where nothing else is said: enough to notice what is
// broken, and on a server (CI=true) what is subtle too.
const (
	fewHistories = 200
	ciHistories  = 2000
	firstSeed    = 1
)

// The AWS SDK is told everything by its options.
func TestMain(m *testing.M) {
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") {
			os.Unsetenv(name)
		}
	}
	os.Setenv("AWS_CONFIG_FILE", os.DevNull)
	os.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	goleak.VerifyTestMain(m)
}

func setting(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// Half of the histories are the same every time, half are new.
func TestHistories(t *testing.T) {
	many := uint64(fewHistories)
	if os.Getenv("CI") == "true" {
		many = ciHistories
	}
	n := setting(t, "CFTRACK_HISTORIES", many)
	if seed := setting(t, "CFTRACK_SEED", 0); seed != 0 {
		histories(t, seed, n)
		return
	}
	histories(t, firstSeed, n/2)
	histories(t, rand.Uint64N(1<<40), n-n/2)
}

// endless is how long no history takes, on the slowest of machines: what goes round in
// circles in virtual time would otherwise do so without a word.
const endless = 2 * time.Minute

func histories(t *testing.T, first, n uint64) {
	most := setting(t, "CFTRACK_FAILURES", 0) // how many do not end it
	var next, failed atomic.Uint64
	next.Store(first)
	began := time.Now()
	workers := min(runtime.GOMAXPROCS(0), int(n))
	t.Run(fmt.Sprintf("from seed %d", first), func(t *testing.T) {
		for i := range workers {
			t.Run(fmt.Sprint("worker ", i), func(t *testing.T) {
				t.Parallel()
				for {
					seed := next.Add(1) - 1
					if seed >= first+n || failed.Load() > most {
						return
					}
					s := Draw(seed)
					hangs := time.AfterFunc(endless, func() { panic(fmt.Sprintf("history %d does not end", seed)) })
					faults, events := Run(t, s)
					hangs.Stop()
					if len(faults) == 0 {
						continue
					}
					failed.Add(1)
					t.Errorf("history %d (the %d.): %s", seed, seed-first+1, strings.Join(faults, "\n"))
					if tries := setting(t, "CFTRACK_SHRINK", 300); tries > 0 {
						s, faults, events = shrink(t, s, faults, events, int(tries))
					}
					t.Errorf("history %d, shrunk:\n%s\n\n%v\n%s\n\nfor testdata: %s", seed, strings.Join(faults, "\n"), s,
						strings.Join(events, "\n"), s.json(t))
				}
			})
		}
	})
	played := min(next.Load()-first, n)
	t.Logf("%d histories from seed %d in %v, %d failed", played, first, time.Since(began).Round(time.Millisecond), failed.Load())
}

func (s *Script) json(t *testing.T) []byte {
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Histories in which something was wrong once, shrunk. The names say what.
func TestHistoriesThatFailedOnce(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d histories, %v", len(files), err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".json"), func(t *testing.T) {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			s := new(Script)
			if err := json.Unmarshal(b, s); err != nil {
				t.Fatal(err)
			}
			hold(t, s)
		})
	}
}

// shrink leaves out of a failing history whatever it can do without.
func shrink(t *testing.T, s *Script, faults, events []string, tries int) (*Script, []string, []string) {
	fails := func(c Script) bool {
		if tries--; tries < 0 {
			return false
		}
		f, e := Run(t, &c)
		if len(f) == 0 {
			return false
		}
		s, faults, events = &c, f, e
		return true
	}
	for size := len(s.Steps); size >= 1; size /= 2 {
		for i := 0; i < len(s.Steps); {
			c := *s
			c.Steps = slices.Delete(slices.Clone(s.Steps), i, min(i+size, len(s.Steps)))
			if !fails(c) {
				i += size
			}
		}
	}
	for _, simpler := range []func(*Script){
		func(c *Script) { c.Lag = false },
		func(c *Script) { c.Quiet = Quiet{} },
		func(c *Script) { c.Offset = 0 },
		func(c *Script) { c.Spare = false },
		func(c *Script) { c.Servers = c.Servers[:1] },
		func(c *Script) { c.Servers = c.Servers[:min(2, len(c.Servers))] },
		func(c *Script) { c.Purgers = 1 },
		func(c *Script) { c.Edges, c.Upper = 1, min(1, c.Upper) },
	} {
		c := *s
		simpler(&c)
		fails(c)
	}
	return s, faults, events
}
