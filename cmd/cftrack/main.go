// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Command cftrack knows what CloudFront may have cached, and invalidates exactly
// what a change concerns.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/cf-invalidation-tracker/cftrack/store/redisstore"
)

func main() { os.Exit(mainCode()) }

func mainCode() int {
	// A reader that goes away, as head does, is an error of the write, not a death.
	signal.Ignore(syscall.SIGPIPE)
	redisstore.DiscardClientLog()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The second signal is the system's own: it ends what does not end in time.
	context.AfterFunc(ctx, stop)
	return run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ())
}
