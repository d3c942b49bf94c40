// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/spf13/cobra"

// newLaterCmds returns the commands that this version does not have, which say so.
func newLaterCmds() []*cobra.Command {
	var out []*cobra.Command
	for name, instead := range map[string]string{
		"serve":  "record inside your server with the Go package, or import its access logs; run the commands from a timer or a deployment",
		"doctor": "'cftrack config check' checks the configuration, 'cftrack plan' the selection, 'cftrack coverage' the inventory",
		"verify": "'cftrack status ID' says whether every edge has processed an invalidation",
		"warm":   "'cftrack list --output json' has the paths and how often they were served",
	} {
		out = append(out, &cobra.Command{
			Use:                name,
			Hidden:             true,
			DisableFlagParsing: true,
			Annotations:        map[string]string{"unconfigured": "yes"},
			RunE: func(*cobra.Command, []string) error {
				return usage("not-in-this-version", instead, "this version has no command %s", name)
			},
		})
	}
	return out
}
