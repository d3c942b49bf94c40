// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// DiscardClientLog silences the Redis client's own log lines, which go to standard
// error for the whole process and say what comes back as errors anyway. It is for
// programs, which own their standard error; a library leaves it alone. Call it
// before the first Open.
func DiscardClientLog() { redis.SetLogger(discard{}) }

type discard struct{}

func (discard) Printf(context.Context, string, ...any) {}
