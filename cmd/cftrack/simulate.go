// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cf-invalidation-tracker/cftrack/internal/config"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
)

// quotas are the rates that CloudFront accepts.
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cloudfront-limits.html
var quotas = simulator.Limits{PathRate: 150, WildcardRate: 1}

type simulateFlags struct {
	origin, listen, rootObject, tagHeader string
	edges                                 int
	propagation, completion               config.Duration
	quotas, spare                         bool
	seed                                  uint64
}

func newSimulateCmd(a *app) *cobra.Command {
	flags := simulateFlags{propagation: config.Duration(300 * time.Millisecond), completion: config.Duration(200 * time.Millisecond)}
	cmd := &cobra.Command{
		Use:   "simulate --origin URL",
		Short: "A local CloudFront to test against",
		Long: `Run a CloudFront on this machine until it is interrupted: the control API for
invalidations, which every AWS SDK and the AWS CLI can talk to, and edges that
cache the origin by CloudFront's rules and process each invalidation at a moment of
their own. The edges are on the ports after that of --listen.

With --output json, one object with the addresses is printed once it is ready.
Lifetimes and the query rule are those of the distribution in the configuration, or
as the flags say.`,
		Example: `  cftrack simulate --origin http://127.0.0.1:8080
  cftrack simulate --origin http://127.0.0.1:8080 --listen :0 --output json
  cftrack simulate --origin http://127.0.0.1:8080 --edges 5 --propagation 20s --quotas`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.simulate(cmd.Context(), &flags) },
	}
	f := cmd.Flags()
	f.StringVar(&flags.origin, "origin", "", "where the edges fetch from")
	f.StringVar(&flags.listen, "listen", "127.0.0.1:4580", "address of the control API; the edges have the ports after it; :0 is free ports of 127.0.0.1")
	f.IntVar(&flags.edges, "edges", 3, "how many edges")
	f.Var(&flags.propagation, "propagation", "the longest time until an edge processes an invalidation")
	f.Var(&flags.completion, "completion", "the time from the last edge until the invalidation is Completed")
	f.BoolVar(&flags.quotas, "quotas", false, "refuse what is over CloudFront's rates: 150 paths and one wildcard a second")
	f.BoolVar(&flags.spare, "spare-doubtful", false, "remove only what AWS confirms that an item removes")
	f.StringVar(&flags.rootObject, "root-object", "", "the default root object, as index.html")
	f.StringVar(&flags.tagHeader, "native-tag-header", "", "the response header with the tags that '#tag' removes")
	f.Uint64Var(&flags.seed, "seed", 0, "decides everything random")
	return cmd
}

func (a *app) simulate(ctx context.Context, flags *simulateFlags) (err error) {
	if flags.origin == "" {
		return usage("origin", "give --origin http://HOST:PORT", "which origin?")
	}
	host, port, err := net.SplitHostPort(flags.listen)
	if err != nil {
		return usage("listen", "write HOST:PORT, or :0 for free ports", "--listen: %v", err)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	if a.dist == "" && len(a.file.Distributions) != 1 {
		a.dist = simulator.DefaultDistribution
	}
	t, err := a.target()
	if err != nil {
		return err
	}
	o := &simulator.Options{
		Aliases: t.aliases, Edges: flags.edges, Rules: &t.rules, OriginPath: a.originPath(t),
		DefaultRootObject: flags.rootObject, TagHeader: flags.tagHeader, SpareDoubtful: flags.spare, Seed: flags.seed,
		// 0 means at once, for which the simulator's word is a negative one.
		Propagation: orNone(flags.propagation), Completion: orNone(flags.completion),
	}
	if strings.HasPrefix(t.id, "dt_") {
		o.Tenants = []string{t.id}
	} else {
		o.Distribution = t.id
	}
	if flags.quotas {
		o.Limits = quotas
	}
	sim, err := simulator.NewForURL(flags.origin, o)
	if err != nil {
		return usage("simulator", "see 'cftrack simulate --help'", "%s", strings.TrimPrefix(err.Error(), "simulator: "))
	}
	defer func() {
		if e := sim.Close(); err == nil {
			err = e
		}
	}()
	if err := sim.Listen(net.JoinHostPort(host, port)); err != nil {
		return &fault{exit: exitFailed, code: "listen", message: strings.TrimPrefix(err.Error(), "simulator: "),
			hint: "choose another address with --listen, or free ports with --listen :0", cause: err}
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		a.say("warning: %s can be reached from other machines, and asks nobody for a password", host)
	}
	api, edges := sim.URLs()
	if a.json() {
		if err := a.printObject(struct {
			API          string   `json:"api"`
			Edges        []string `json:"edges"`
			Distribution string   `json:"distribution"`
		}{api, edges, t.id}); err != nil {
			return err
		}
	}
	a.say("distribution %s, origin %s", t.id, flags.origin)
	a.say("  control API  %s", api)
	for i, e := range edges {
		a.say("  edge %-6d  %s", i, e)
	}
	a.say("In another terminal:\n  export AWS_ENDPOINT_URL_CLOUDFRONT=%s AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any", api)
	a.say("  cftrack invalidate '/*' --distribution %s\nCtrl-C ends it.", t.id)
	<-ctx.Done()
	return nil
}

func orNone(d config.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return time.Duration(d)
}
