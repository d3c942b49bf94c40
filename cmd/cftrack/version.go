// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersionCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Long:    "Print the version of cftrack, and what it was built from.",
		Example: "  cftrack version --output json",
		Args:    noArguments,
		// It must work when nothing else does.
		Annotations: map[string]string{"unconfigured": "yes"},
		RunE: func(*cobra.Command, []string) error {
			out := struct {
				Version string `json:"version"`
				Commit  string `json:"commit"`
				Go      string `json:"go"`
			}{"(devel)", "", runtime.Version()}
			if info, ok := debug.ReadBuildInfo(); ok {
				if info.Main.Version != "" {
					out.Version = info.Main.Version
				}
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						out.Commit = s.Value
					}
				}
			}
			if a.json() {
				return a.printObject(out)
			}
			p := a.printer()
			fmt.Fprintf(p, "cftrack %s, %s\n", out.Version, out.Go)
			if out.Commit != "" {
				fmt.Fprintf(p, "commit %s\n", out.Commit)
			}
			return p.Flush()
		},
	}
}
