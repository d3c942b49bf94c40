// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package redisstore_test

import (
	"testing"

	"github.com/cf-invalidation-tracker/cftrack/journal/journaltest"
)

func TestJournal(t *testing.T) {
	journaltest.Run(t, harness(start(t, false).address, nil).Open)
}
