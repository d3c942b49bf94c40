// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package filestore

import (
	"testing"

	"github.com/cf-invalidation-tracker/cftrack/journal/journaltest"
)

func TestJournal(t *testing.T) { journaltest.Run(t, harness.Open) }
