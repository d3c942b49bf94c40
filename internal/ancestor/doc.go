// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package ancestor proves that whoever used the small Node.js tracker that this
// project descends from finds all of it here: a test for each of its calls and
// habits, named after it, and one for each of its faults, which must not happen.
//
// The module is https://github.com/Kinvey/cf-invalidation-tracker.
package ancestor
