// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/cf-invalidation-tracker/cftrack/awscloudfront"
	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/internal/config"
	"github.com/cf-invalidation-tracker/cftrack/internal/stores"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/storetime"
)

// An app is one run of the command: where it reads and writes, and what its
// global flags and its configuration say.
type app struct {
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	env    map[string]string

	root    *cobra.Command
	store   string
	dist    string
	output  string
	config  string
	lives   lifeFlags
	file    *config.File
	origins map[string]config.Origin
}

// run runs the command line args and returns its exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, env []string) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, env: make(map[string]string, len(env)), file: &config.File{}}
	for _, kv := range env {
		k, v, _ := strings.Cut(kv, "=")
		a.env[k] = v
	}
	a.newRoot()
	a.root.SetArgs(args)
	err := a.root.ExecuteContext(ctx)
	if err == nil || errors.Is(err, syscall.EPIPE) {
		return exitDone // whoever read the output has seen enough
	}
	f := explain(err)
	a.complain(f, a.json() || wantsJSON(args, a.env))
	return f.exit
}

func (a *app) getenv(name string) string { return a.env[name] }

func (a *app) newRoot() {
	a.root = &cobra.Command{
		Use:   "cftrack",
		Short: "Invalidate in CloudFront exactly what changed",
		Long: `cftrack keeps an inventory of what CloudFront may have cached, finds the cheapest
invalidation that covers what changed and touches nothing else, and sends it within
CloudFront's limits until every edge has processed it.

Every flag can also be set as an environment variable, --default-ttl as
CFTRACK_DEFAULT_TTL, and by its name in a YAML file: the one of --config, else
cftrack/cftrack.yaml in the user's configuration directory, else
/etc/cftrack/cftrack.yaml. 'cftrack config check' says what is in force.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 something was left undone, but
nothing is lost.`,
		Example: `  cftrack import /var/log/nginx/access.log
  cftrack plan '/blog/*/comments*'
  cftrack invalidate '/blog/*/comments*' --reason 'moderation'`,
		Args:              noCommand,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: a.configure,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	a.root.SuggestionsMinimumDistance = 2
	a.root.SetIn(a.stdin)
	a.root.SetOut(a.stdout)
	a.root.SetErr(a.stderr)
	a.root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		hint := fmt.Sprintf("see '%s --help'", cmd.CommandPath())
		var de *config.DurationError
		if errors.As(err, &de) {
			hint = config.DurationHint
		}
		return usage("flag", hint, "%v", err)
	})
	f := a.root.PersistentFlags()
	f.StringVar(&a.store, "store", "", "where inventory and journal are: memory:, file:DIR, redis://HOST:PORT/DB, rediss://... or redis+unix:///SOCKET (default file: in the user's data directory)")
	f.StringVar(&a.dist, "distribution", "", "the distribution, its ID or an alias from the configuration (default the only one in the configuration)")
	f.StringVar(&a.output, "output", "text", "text or json: how results are printed")
	f.StringVar(&a.config, "config", "", "the configuration file")
	a.lives.add(f)
	a.root.AddGroup(&cobra.Group{ID: "inventory", Title: "What CloudFront may hold:"},
		&cobra.Group{ID: "invalidate", Title: "Invalidating:"}, &cobra.Group{ID: "other", Title: "More:"})
	a.root.SetHelpCommandGroupID("other")
	a.root.SetCompletionCommandGroupID("other")
	a.group("inventory", newRecordCmd(a), newTTLCmd(a), newRemoveCmd(a), newImportCmd(a), newListCmd(a), newStatsCmd(a), newCoverageCmd(a))
	a.group("invalidate", newPlanCmd(a), newInvalidateCmd(a), newStatusCmd(a), newResumeCmd(a), newCancelCmd(a))
	a.group("other", newDemoCmd(a), newSimulateCmd(a, &simulateFlags{}), newConfigCmd(a), newVersionCmd(a))
	a.root.AddCommand(newLaterCmds()...)
	_ = a.root.RegisterFlagCompletionFunc("distribution", a.completeDistribution)
	_ = a.root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

func (a *app) group(id string, cmds ...*cobra.Command) {
	for _, c := range cmds {
		c.GroupID = id
		a.root.AddCommand(c)
	}
}

// noCommand refuses what looks like a command and is none.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := "'cftrack help' lists the commands"
	if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
		hint = "did you mean " + strings.Join(s, " or ") + "?"
	}
	return usage("command", hint, "there is no command %q", args[0])
}

// noArguments refuses arguments.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usage("arguments", fmt.Sprintf("see '%s --help'", cmd.CommandPath()), "%s takes no arguments, not %q", cmd.Name(), args[0])
}

// settings are all flags by name; flags of several commands may share one.
func (a *app) settings() config.Settings {
	s := make(config.Settings)
	add := func(f *pflag.Flag) {
		if f.Name != "help" && f.Name != "version" && f.Name != "config" {
			s[f.Name] = append(s[f.Name], f)
		}
	}
	a.root.PersistentFlags().VisitAll(add)
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Name() != "completion" {
			c.LocalNonPersistentFlags().VisitAll(add)
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(a.root)
	return s
}

// secret tells of the settings whose values may hold a password.
func secret(name string) bool { return name == "store" }

// configure gives all flags their values before any command runs.
func (a *app) configure(cmd *cobra.Command, _ []string) error {
	if cmd.Annotations["unconfigured"] != "" || cmd.Parent() != nil && cmd.Parent().Name() == "completion" {
		return nil
	}
	all := a.settings()
	if a.config == "" {
		a.config = a.getenv(config.Variable("config"))
	}
	var problems config.Problems
	collect := func(err error) error {
		var p config.Problems
		if errors.As(err, &p) {
			problems = append(problems, p...)
			return nil
		}
		return err
	}
	var err error
	known := func(name string) bool { _, ok := all[name]; return ok }
	a.file, err = config.Read(a.config, config.Places(a.getenv), known)
	if err = collect(err); err != nil {
		return err
	}
	a.origins, err = all.Apply(a.getenv, a.file, secret)
	if err = collect(err); err != nil {
		return err
	}
	if a.output != "text" && a.output != "json" {
		problems = append(problems, a.wrongSetting("output", fmt.Sprintf("%q is no output format", a.output), "write text or json"))
	}
	if a.origins["store"].Source == config.FromFlag && stores.HasSecret(a.store) {
		problems = append(problems, a.wrongSetting("store", "a password on the command line can be read by everybody on this machine",
			"set CFTRACK_STORE, write it into the configuration, or name a file with ?password_file="))
	}
	if len(problems) == 0 {
		return nil
	}
	return problems
}

func (a *app) wrongSetting(name, message, hint string) config.Problem {
	return config.Problem{At: a.origins[name].Where, Message: message, Hint: hint}
}

func (a *app) json() bool { return a.output == "json" }

// A target is the distribution that a command is about.
type target struct {
	id      string
	aliases []string
	scope   []string
	rules   lifetime.Rules
	*config.Distribution
}

// target finds the distribution and its rules.
func (a *app) target() (*target, error) {
	t := &target{id: a.dist}
	switch d, ok := a.file.Distribution(a.dist); {
	case ok:
		t.Distribution = d
	case a.dist != "" && strings.ContainsAny(a.dist, "./: "):
		return nil, usage("distribution", a.knownDistributions(), "%q is neither an ID nor an alias in the configuration", a.dist)
	case a.dist != "":
	case len(a.file.Distributions) == 1:
		t.Distribution = &a.file.Distributions[0]
	default:
		return nil, usage("distribution", a.knownDistributions(), "which distribution?")
	}
	if t.Distribution != nil {
		t.id, t.aliases, t.scope = t.ID, t.Aliases, t.Scope
	}
	over, under := a.lives.overrides(a.origins)
	var err error
	if t.rules, err = t.Rules(over, under); err != nil {
		var le *lifetime.Error
		if errors.As(err, &le) {
			where := a.origins[le.Field].Where
			if t.Distribution != nil && a.origins[le.Field].Source < config.FromEnvironment {
				where = t.At.String()
			}
			return nil, config.Problems{{At: where, Message: fmt.Sprintf("%s is %s: %s", le.Field, le.Value, le.Reason), Hint: le.Hint}}
		}
		return nil, err
	}
	return t, nil
}

func (a *app) knownDistributions() string {
	hint := "give its ID with --distribution, or list it in the configuration under distributions:"
	var names []string
	for _, d := range a.file.Distributions {
		names = append(names, strings.Join(append([]string{d.ID}, d.Aliases...), " = "))
	}
	if len(names) > 0 {
		hint = "give its ID or alias with --distribution; the configuration has " + strings.Join(names, ", ")
	}
	return hint
}

// originPath is what CloudFront puts before every path on its way to the origin.
func (a *app) originPath(t *target) string {
	if t.Distribution != nil && t.OriginPath != nil && a.origins["origin-path"].Source < config.FromEnvironment {
		return *t.OriginPath
	}
	return a.lives.originPath
}

// rootObject is the default root object: what the flag says, or else the distribution.
func (a *app) rootObject(t *target, flag string) string {
	if t.Distribution != nil && t.RootObject != "" && a.origins["root-object"].Source < config.FromEnvironment {
		return t.RootObject
	}
	return flag
}

// openStore opens the store of the command. Nothing is dialled yet.
func (a *app) openStore() (store.Store, error) {
	address := a.store
	if address == "" {
		var err error
		if address, err = stores.Default(a.getenv); err != nil {
			return nil, err
		}
	}
	return stores.Open(address, a.logger(a.stderr))
}

// now reads the store's clock, and returns the clock to go on with.
func now(ctx context.Context, st store.Store) (*storetime.Clock, time.Time, error) {
	var c storetime.Clock
	if err := c.Sync(ctx, st); err != nil {
		return nil, time.Time{}, err
	}
	return &c, c.Now(), nil
}

// An opened is what most commands work on. Its store must be closed.
type opened struct {
	*target
	store store.Store
	clock *storetime.Clock
	now   time.Time
}

// open opens the store and reads its clock.
func (a *app) open(ctx context.Context) (*opened, error) {
	t, err := a.target()
	if err != nil {
		return nil, err
	}
	st, err := a.openStore()
	if err != nil {
		return nil, err
	}
	c, at, err := now(ctx, st)
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return &opened{t, st, c, at}, nil
}

// close closes the store, and adds what goes wrong to *err.
func (o *opened) close(err *error) {
	if e := o.store.Close(); *err == nil {
		*err = e
	}
}

// dispatcher returns one over the opened store, with a way to CloudFront if it
// is to send.
func (a *app) dispatcher(ctx context.Context, o *opened, send bool, log io.Writer) (*dispatch.Dispatcher, error) {
	var cdn dispatch.CDN
	if send {
		var who awscloudfront.Options
		if o.Distribution != nil {
			who.Profile, who.Role = o.Profile, o.Role
		}
		c, err := awscloudfront.New(ctx, who)
		if err != nil {
			return nil, err
		}
		cdn = c
	}
	opts := &dispatch.Options{Rules: &o.rules, Scope: o.scope, Holder: a.who(), Logger: a.logger(log),
		Limits: a.file.LimitsOf(o.Distribution), Budget: a.file.BudgetOf(o.Distribution)}
	if o.Distribution != nil {
		opts.Account = o.Account
	}
	return dispatch.New(o.store, o.id, cdn, opts), nil
}

// who names the person and machine for the journal.
func (a *app) who() string {
	name := a.getenv("USER")
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return name + "@" + host
}

// logger writes warnings for people, and nothing where JSON is wanted.
func (a *app) logger(w io.Writer) *slog.Logger {
	if a.json() {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(&lineHandler{w: w})
}

// terminal reports whether a stream is one a person sits at.
func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (a *app) completeDistribution(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	known := a.settings()
	named := a.config
	if named == "" {
		named = a.getenv(config.Variable("config"))
	}
	f, _ := config.Read(named, config.Places(a.getenv), func(n string) bool { _, ok := known[n]; return ok })
	var out []string
	for _, d := range f.Distributions {
		out = append(out, d.ID)
		out = append(out, d.Aliases...)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
