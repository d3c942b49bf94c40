// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cf-invalidation-tracker/cftrack/internal/config"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
)

type simulateFlags struct {
	origin, listen, rootObject, tagHeader string
	cloudfront, accessLog, signingRegion  string
	limits, weather, foreign              string
	foreignItems                          []string
	edges, regional                       int
	propagation, completion, memory       config.Duration
	spareDirectory, spare                 bool
	realistic, reordered                  bool
	harsh, ignoreAge, keepForErrors, root bool
	seed                                  uint64
}

func newSimulateCmd(a *app, flags *simulateFlags) *cobra.Command {
	flags.propagation, flags.completion = config.Duration(300*time.Millisecond), config.Duration(200*time.Millisecond)
	cmd := &cobra.Command{
		Use:   "simulate --origin URL",
		Short: "A local CloudFront to test against",
		Long: `Run a CloudFront on this machine until it is interrupted: the control API for
invalidations, which every AWS SDK and the AWS CLI can talk to, and edges that
cache the origin by CloudFront's rules and process each invalidation at a moment of
their own. The edges are on the ports after that of --listen.

With --output json, one object with the addresses is printed once it is ready.

What is cached, and for how long, is said by --cloudfront FILE: a distribution in
CloudFront's own words, as YAML or as 'aws cloudfront get-distribution-config' prints
it, with CachePolicies beside it where they are not AWS's own. Without it the
distribution in the configuration or the flags say it.

--limits takes rate (150 paths and one wildcard a second, as since 2026), progress
(3,000 paths and 15 wildcards in progress, as before), both, strict or none, and
settings after that, with commas between, for what AWS does not say:
batch, paths, wildcards, path-rate, wildcard-rate, path-burst, wildcard-burst,
call-rate, call-burst (each =NUMBER), wildcards-are-paths, wildcard-per-request,
rate-is-throttling, all-calls, per-target.

--weather takes calm, rough or storm, and settings: unavailable, throttled,
lost-answers, lost-requests (each =SHARE, as 10%), unavailable-burst=CALLS, and delay,
lag and status-lag (each =MEDIAN/P95, as 200ms/2s).

--foreign takes rate=BATCHES (a second), paths=N and wildcards=N (in each): what
somebody else invalidates meanwhile, at random among the --foreign-item given.`,
		Example: `  cftrack simulate --origin http://127.0.0.1:8080
  cftrack simulate --origin http://127.0.0.1:8080 --listen :0 --output json
  cftrack simulate --origin http://127.0.0.1:8080 --cloudfront distribution.yaml --regional 1
  cftrack simulate --origin http://127.0.0.1:8080 --realistic --limits both --weather rough
  cftrack simulate --origin http://127.0.0.1:8080 --limits rate,path-burst=150,wildcards-are-paths
  cftrack simulate --origin http://127.0.0.1:8080 --foreign rate=0.1,paths=50,wildcards=1`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.simulate(cmd.Context(), flags) },
	}
	f := cmd.Flags()
	f.StringVar(&flags.origin, "origin", "", "where the edges fetch from")
	f.StringVar(&flags.listen, "listen", "127.0.0.1:4580", "address of the control API; the edges have the ports after it; :0 is free ports of 127.0.0.1")
	f.StringVar(&flags.cloudfront, "cloudfront", "", "a file with the distribution in CloudFront's words")
	f.IntVar(&flags.edges, "edges", 3, "how many edges")
	f.IntVar(&flags.regional, "regional", 0, "how many regional caches between the edges and the origin")
	f.BoolVar(&flags.harsh, "harsh", false, "regional caches may process an invalidation after their edges")
	f.BoolVar(&flags.ignoreAge, "tiers-ignore-age", false, "an edge keeps what a regional cache gives it for the whole lifetime again")
	f.BoolVar(&flags.keepForErrors, "keep-for-errors", false, "keep also what must not be reused, for when the origin fails")
	f.BoolVar(&flags.root, "root-key-is-index", false, "cache / under the name of the default root object")
	f.Var(&flags.propagation, "propagation", "the longest time until an edge processes an invalidation")
	f.Var(&flags.completion, "completion", "the time from the last edge until the invalidation is Completed")
	f.BoolVar(&flags.realistic, "realistic", false, "CloudFront's own times in place of these two: in effect within 5 s and Completed within 25 s, for 95 of 100")
	f.StringVar(&flags.limits, "limits", "none", "what the control API accepts: rate, progress, both, strict or none, and settings (see above)")
	f.StringVar(&flags.weather, "weather", "calm", "what goes wrong with it: calm, rough or storm, and settings (see above)")
	f.StringVar(&flags.foreign, "foreign", "", "what somebody else invalidates, as rate=0.1,paths=50,wildcards=1")
	f.StringArrayVar(&flags.foreignItems, "foreign-item", nil, "an item that somebody else may name; without any, they name paths of their own")
	f.Var(&flags.memory, "reference-memory", "how long a caller reference is remembered; 0: for ever")
	f.BoolVar(&flags.reordered, "reordered-is-same", false, "the same items in another order are no conflict under one reference")
	f.StringVar(&flags.signingRegion, "signing-region", "us-east-1", "the region that requests must be signed for; *: any")
	f.BoolVar(&flags.spareDirectory, "spare-directory", false, "'/dir/*' leaves /dir/ alone")
	f.BoolVar(&flags.spare, "spare-doubtful", false, "remove only what AWS confirms that an item removes")
	f.StringVar(&flags.rootObject, "root-object", "", "the default root object, as index.html")
	f.StringVar(&flags.tagHeader, "native-tag-header", "", "the response header with the tags that '#tag' removes")
	f.StringVar(&flags.accessLog, "access-log", "", "a file for what the edges served, as CloudFront's standard logs have it; it is added to")
	f.Uint64Var(&flags.seed, "seed", 0, "decides everything random")
	return cmd
}

// beside names a flag that cannot stand beside another one, "" if there is none.
func (a *app) beside(names ...string) string {
	for _, name := range names {
		if a.origins[name].Source >= config.FromEnvironment {
			return name
		}
	}
	return ""
}

// options are those that the flags say by themselves.
func (f *simulateFlags) options(a *app) (o *simulator.Options, err error) {
	o = &simulator.Options{
		Edges: f.edges, Regional: f.regional, Harsh: f.harsh, TiersIgnoreAge: f.ignoreAge, KeepForErrors: f.keepForErrors, RootKeyIsIndex: f.root,
		DefaultRootObject: f.rootObject, TagHeader: f.tagHeader, SpareDirectory: f.spareDirectory, SpareDoubtful: f.spare, Seed: f.seed,
		ReferenceMemory: time.Duration(f.memory), ReorderedIsSame: f.reordered, SigningRegion: f.signingRegion,
	}
	if o.Limits, err = simulator.ParseLimits(f.limits); err != nil {
		return nil, usage("limits", "as rate, or both,path-burst=150; see 'cftrack simulate --help'", "--%v", err)
	}
	if o.Weather, err = simulator.ParseWeather(f.weather); err != nil {
		return nil, usage("weather", "as rough, or storm,delay=200ms/2s; see 'cftrack simulate --help'", "--%v", err)
	}
	if f.foreign != "" {
		if o.Foreign, err = simulator.ParseForeign(f.foreign); err != nil {
			return nil, usage("foreign", "as rate=0.1,paths=50,wildcards=1", "--%v", err)
		}
	}
	if o.Foreign.From = f.foreignItems; f.foreign == "" && len(f.foreignItems) > 0 {
		return nil, usage("foreign", "say how often with --foreign rate=0.1,paths=50", "--foreign-item without --foreign")
	}
	if f.realistic {
		if name := a.beside("propagation", "completion"); name != "" {
			return nil, usage("realistic", "leave one of them out", "--realistic and --%s", name)
		}
		o.Timing = simulator.RealisticTiming()
	} else {
		// 0 means at once, for which the simulator's word is a negative one.
		o.Propagation, o.Completion = orNone(f.propagation), orNone(f.completion)
	}
	return o, nil
}

// readCloudFront reads --cloudfront.
func (f *simulateFlags) readCloudFront(a *app) (*simulator.Config, error) {
	if name := a.beside("min-ttl", "default-ttl", "max-ttl", "error-ttl", "query", "origin-path", "root-object", "native-tag-header"); name != "" {
		return nil, usage("cloudfront", "say it in the file, and leave --"+name+" out", "--cloudfront and --%s", name)
	}
	file, err := os.Open(f.cloudfront)
	if err != nil {
		return nil, usage("cloudfront", "name a file that can be read", "--cloudfront: %v", err)
	}
	defer file.Close()
	c, err := simulator.LoadConfig(file, f.cloudfront)
	var bad *simulator.ConfigError
	if errors.As(err, &bad) {
		where := bad.At
		if bad.Field != "" {
			where += ": " + bad.Field
		}
		return nil, usage("cloudfront", bad.Hint, "%s: %s", where, bad.Reason)
	}
	return c, err
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
	o, err := flags.options(a)
	if err != nil {
		return err
	}
	if flags.cloudfront != "" {
		if o.Config, err = flags.readCloudFront(a); err != nil {
			return err
		}
	} else {
		o.Aliases, o.Rules, o.OriginPath = t.aliases, &t.rules, a.originPath(t)
		o.DefaultRootObject = a.rootObject(t, flags.rootObject)
	}
	if strings.HasPrefix(t.id, "dt_") {
		o.Tenants = []string{t.id}
	} else {
		o.Distribution = t.id
	}
	if flags.accessLog != "" {
		file, e := os.OpenFile(flags.accessLog, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if e != nil {
			return usage("access-log", "name a file that can be written", "--access-log: %v", e)
		}
		defer func() {
			if e := file.Close(); err == nil {
				err = e
			}
		}()
		o.AccessLog = file
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
	a.say("In another terminal:\n  export AWS_ENDPOINT_URL_CLOUDFRONT=%s AWS_REGION=us-east-1 AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any", api)
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
