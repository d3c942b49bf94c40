// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package redisstore_test

import (
	"testing"

	"github.com/cf-invalidation-tracker/cftrack/journal/journaltest"
)

func TestJournal(t *testing.T) {
	s := start(t, false, "--appendonly", "yes", "--appendfsync", "always")
	journaltest.Run(t, harness(s.address, func() {
		s.kill()
		s.up()
	}))
}

func BenchmarkJournal(b *testing.B) { journaltest.Bench(b, harness(start(b, false).address, nil)) }
