// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

// InScope tells whether all that begins with stem is in the scope, as
// [Options.Scope] has it: a plan names wildcards of its own only there.
func InScope(patterns []string, stem string) (bool, error) {
	s, err := newScope(patterns)
	return err == nil && s.holds(stem), err
}
