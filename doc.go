// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package cftrack records at an origin what CloudFront may have cached, so that
// an invalidation can name exactly that.
//
// [Open] returns a [Tracker] for one distribution over a store (packages below
// store/). Most servers then need one call more: [Tracker.Middleware] around
// their handlers, which works under every router that takes a
// func(http.Handler) http.Handler. It notes each response that CloudFront may
// keep, and for how long, by CloudFront's own rules (package lifetime). Servers
// that know better say so with [Tracker.Record], [Tracker.SetTTL] and
// [Tracker.Remove]. Sending invalidations is not done here: see package dispatch
// and the command cftrack.
//
// # What is promised
//
// From the flush after a response (within a second) until its lifetime is over,
// the inventory has an entry for whatever CloudFront may hold of what passed the
// tracker. What cannot be kept is said: a tracker that dies, or that has to drop
// something, leaves a gap in the coverage of the inventory. While a server runs,
// its tracker watches the distribution's invalidations, and reports every
// response that began before one and may have reached CloudFront after it was
// sent; only then does it acknowledge the invalidation.
//
// What the tracker cannot know: copies from before it was first used, and
// responses of servers that do not use one. Coverage counts the first in; the
// second is for the operator to exclude.
//
// Recording never waits for the store, never changes a response, and holds a
// bounded number of paths.
//
// # Compatibility
//
// What is stored will be readable by every later version of the same major
// version. Several versions may run against one store.
package cftrack
