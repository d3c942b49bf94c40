// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cf-invalidation-tracker/cftrack/internal/config"
	"github.com/cf-invalidation-tracker/cftrack/internal/stores"
)

func newConfigCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "config",
		Short:   "Check the configuration",
		Long:    "Check the configuration: see 'cftrack config check'.",
		Example: "  cftrack config check",
		Args:    noCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "check",
		Short: "Say what is wrong with the configuration, or what is in force",
		Long: `Read flags, environment and configuration file as every command does. Print all
that is wrong, with its place, and exit with 2; or else print every setting that is
not the default, with where it is from, and the distributions. Passwords are masked.

The file is YAML. Its keys are the names of flags, limits and distributions:

  store: redis://cache.internal:6379/0?password_file=/run/secrets/redis
  limits:                      # what CloudFront accepts; these are the defaults
    items-per-second: 150
    wildcards-per-second: 1
    calls-per-second: 2
    burst: 1                   # seconds' worth that a request may hold
    items-in-progress: 3000    # or none
    wildcards-in-progress: 15  # or none; two of them are left to people
  distributions:
    - id: E2EXAMPLE
      aliases: [www.example.com, example.com]
      scope: ['/*']            # what the recorders see
      origin-path: /production
      root-object: index.html  # what "/" is at the origin
      policy: CachingOptimized # of the default behaviour; or its values:
      default-ttl: 1h          # min-ttl, max-ttl, query, cache-options, all-headers
      behaviors:
        - pattern: '/api/*'
          max-ttl: 60
          query: include:page,q
      error-ttl: 10s
      error-ttls: {404: 60}
      tiers: 3                 # with Origin Shield
      tag-header: X-Tags
      native-tags: true        # CloudFront takes '#tag' for it
      twins: ['{page}/', '{page}/data.json'] # for --twins, in place of the usual ones
      profile: production      # or role:, of the AWS configuration
      account: production      # whose distributions share rates and budget
      budget: 25               # dollars a month, of the account
      limits: {burst: 2}       # where they differ from those above`,
		Example: `  cftrack config check
  cftrack config check --config ./cftrack.yaml --output json`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error { return a.configCheck() },
	})
	return cmd
}

type settingJSON struct {
	Value  string `json:"value"`
	Source string `json:"source"`
}

type distributionJSON struct {
	ID      string   `json:"id"`
	Aliases []string `json:"aliases"`
	Source  string   `json:"source"`
}

// configCheck prints what is in force; that nothing is wrong was found before.
func (a *app) configCheck() error {
	out := struct {
		File          string                 `json:"file"`
		Settings      map[string]settingJSON `json:"settings"`
		Distributions []distributionJSON     `json:"distributions"`
		Warnings      []string               `json:"warnings"`
	}{a.file.Path, map[string]settingJSON{}, []distributionJSON{}, a.configWarnings()}
	all := a.settings()
	for name, flags := range all {
		v := flags[0].Value.String()
		if secret(name) {
			v = stores.Redact(v)
		}
		out.Settings[name] = settingJSON{v, a.origins[name].Where}
	}
	if s := out.Settings["store"]; s.Value == "" {
		if d, err := stores.Default(a.getenv); err == nil {
			out.Settings["store"] = settingJSON{d, s.Source}
		}
	}
	for _, d := range a.file.Distributions {
		out.Distributions = append(out.Distributions, distributionJSON{d.ID, append([]string{}, d.Aliases...), d.At.String()})
	}
	if a.json() {
		return a.printObject(out)
	}
	p := a.printer()
	if out.File == "" {
		fmt.Fprintf(p, "no configuration file (looked for %s)\n", strings.Join(config.Places(a.getenv), " and "))
	} else {
		fmt.Fprintf(p, "%s is right\n", out.File)
	}
	for _, name := range all.Names() {
		if s, ok := out.Settings[name]; ok && (s.Source != "default" || name == "store") {
			fmt.Fprintf(p, "  %-16s %-40s %s\n", name, s.Value, s.Source)
		}
	}
	for _, d := range out.Distributions {
		fmt.Fprintf(p, "  %-16s %-40s %s\n", "distribution", strings.Join(append([]string{d.ID}, d.Aliases...), " = "), d.Source)
	}
	for _, w := range out.Warnings {
		fmt.Fprintf(p, "warning: %s\n", w)
	}
	return p.Flush()
}

// configWarnings are what is right and yet not as somebody may think.
func (a *app) configWarnings() []string {
	out := []string{}
	known := map[string]bool{config.Variable("config"): true}
	for name := range a.settings() {
		known[config.Variable(name)] = true
	}
	for name := range a.env {
		if strings.HasPrefix(name, "CFTRACK_") && !known[name] {
			out = append(out, fmt.Sprintf("the environment variable %s sets nothing: there is no such flag", name))
		}
	}
	slices.Sort(out)
	return out
}
