// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"testing"

	"github.com/cf-invalidation-tracker/cftrack/journal/journaltest"
)

func TestJournal(t *testing.T) { journaltest.Run(t, harness) }

// TestJournalOfAnotherProcess kills the process that owns the database.
func TestJournalOfAnotherProcess(t *testing.T) { journaltest.Run(t, otherProcess()) }

func BenchmarkJournal(b *testing.B) { journaltest.Bench(b, harness) }
