// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cf-invalidation-tracker/cftrack/internal/config"
	"github.com/cf-invalidation-tracker/cftrack/selector"
)

const selectorHelp = `
A pattern begins with / or *. In it * stands for any run of characters, anywhere,
and everything else for itself; without ? it also means the path with any query
string. Quote patterns, or the shell looks for files of that name. A pasted URL
is a path if its host is an alias of the distribution. @FILE, or - for standard
input, reads patterns or URLs, one a line (with -0, as 'git diff -z' writes them). The
same flag again is a union, different flags narrow, exclusions come last.`

// selectorFlags are the flags of a SELECTOR, beside its patterns.
type selectorFlags struct {
	selector.Selector
	olderThan, seenSince ages
	null                 bool // between patterns that are read
	twins                bool
}

func (s *selectorFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&s.All, "all", false, "everything that is tracked")
	f.StringArrayVar(&s.Prefixes, "prefix", nil, "what begins with this `path`")
	f.StringArrayVar(&s.Regexps, "regexp", nil, "paths in which the regular expression `RE2` matches somewhere")
	f.StringArrayVar(&s.Tags, "tag", nil, "entries that carry the `tag`")
	f.Var(&s.olderThan, "older-than", "entries last sighted longer ago")
	f.Var(&s.seenSince, "seen-since", "entries last sighted no longer ago")
	f.StringArrayVar(&s.Exclude, "exclude", nil, "a `pattern` of what to leave out")
	f.BoolVarP(&s.null, "null", "0", false, "what @FILE and - read ends with NULs, not with lines")
	f.BoolVar(&s.twins, "twins", false, "also what is fetched beside the selected pages, such as index.html, with and without slash, and the data of frameworks")
	f.BoolVar(&s.ExactQuery, "exact-query", false, "take patterns without ? as paths without query string")
}

// read returns the selector that flags and arguments make, checked.
func (s *selectorFlags) read(a *app, args []string, t *target) (selector.Selector, *selector.Compiled, error) {
	out := s.Selector
	out.OlderThan, out.SeenSince = s.olderThan, s.seenSince
	if s.twins {
		out.Twins = t.twins()
	}
	if err := expanded(args); err != nil {
		return out, nil, err
	}
	var patterns []string
	stdin := false
	for _, arg := range args {
		switch {
		case arg == "-":
			if stdin {
				return out, nil, usage("selector", "give - once", "standard input cannot be read twice")
			}
			stdin = true
			lines, err := s.readPatterns(a.stdin, "standard input")
			if err != nil {
				return out, nil, err
			}
			patterns = append(patterns, lines...)
		case strings.HasPrefix(arg, "@"):
			lines, err := s.readPatternFile(arg[1:])
			if err != nil {
				return out, nil, err
			}
			patterns = append(patterns, lines...)
		default:
			patterns = append(patterns, arg)
		}
	}
	for _, p := range patterns {
		path, err := selector.StripURL(p, t.aliases)
		if err != nil {
			return out, nil, err
		}
		out.Patterns = append(out.Patterns, path)
	}
	for i, p := range out.Exclude {
		path, err := selector.StripURL(p, t.aliases)
		if err != nil {
			return out, nil, err
		}
		out.Exclude = slices.Clone(out.Exclude)
		out.Exclude[i] = path
	}
	c, err := out.Compile()
	return out, c, err
}

// twins are the templates of what is fetched beside a page.
func (t *target) twins() []string {
	if t.Distribution != nil && t.Twins != nil {
		return t.Twins
	}
	return selector.DefaultTwins()
}

// inScope refuses prefixes under which nothing is recorded.
func (s *selectorFlags) inScope(t *target) error {
	if len(t.scope) == 0 {
		return nil
	}
	for _, p := range s.Prefixes {
		p, _, _ = strings.Cut(p, "?")
		for _, pattern := range t.scope {
			// Up to what stands for several, which may be anything.
			head := "/" + strings.TrimPrefix(pattern, "/")
			if i := strings.IndexAny(head, "*?"); i >= 0 {
				head = head[:i]
			}
			if strings.HasPrefix(p, head) || strings.HasPrefix(head, p) {
				return nil
			}
		}
	}
	if len(s.Prefixes) == 0 {
		return nil
	}
	return usage("selector", fmt.Sprintf("name it, as '%s*', and it goes out as it is named; or see to the scope in the configuration", s.Prefixes[0]),
		"--prefix %q: nothing is recorded there: the scope of %s is %s", s.Prefixes[0], t.id, strings.Join(t.scope, ", "))
}

// required refuses the selector that nobody gave.
func required(s selector.Selector, args []string) error {
	if !s.Empty() {
		return nil
	}
	if len(args) > 0 || len(s.Exclude) > 0 {
		return usage("selector", "give a pattern, such as '/blog/*', or --all for everything that is tracked", "nothing is selected: there is no pattern in what was given")
	}
	return usage("selector", "give a pattern, such as '/blog/*', or --all for everything that is tracked", "name what is meant")
}

func (s *selectorFlags) readPatterns(r io.Reader, name string) ([]string, error) {
	if s.null {
		return selector.ReadPatternsNUL(r, name)
	}
	return selector.ReadPatterns(r, name)
}

func (s *selectorFlags) readPatternFile(name string) (_ []string, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, &fault{exit: exitUsage, code: "file", message: "patterns: " + err.Error(), hint: "name a file that can be read after the @", cause: err}
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return s.readPatterns(f, name)
}

// expanded refuses arguments that are the work of the shell: all of them are
// files on this machine. A single one is taken for it only where it is all that
// the directory has, as '/srv/www/*' would come to.
func expanded(args []string) error {
	if len(args) == 0 {
		return nil
	}
	for _, arg := range args {
		if arg == "/" || arg == "-" {
			return nil
		}
		if _, err := os.Lstat(arg); err != nil {
			return nil
		}
	}
	if len(args) == 1 && strings.HasPrefix(args[0], "/") {
		all, err := os.ReadDir(filepath.Dir(args[0]))
		if err != nil || len(all) != 1 {
			return nil
		}
	}
	shown := args
	if len(shown) > 3 {
		shown = append(slices.Clone(shown[:3]), "...")
	}
	return usage("shell-expansion", "quote patterns: '/*'; if these very paths are meant, pass them in a file as @FILE, or one a line to -",
		"the shell seems to have put file names in place of a pattern: %s", strings.Join(shown, " "))
}

// ages is the value of --older-than and --seen-since.
type ages []selector.Duration

func (v *ages) Set(s string) error {
	d, err := config.ParseDuration(s)
	if err == nil {
		*v = append(*v, selector.Duration(d))
	}
	return err
}

func (v *ages) String() string { return strings.Join(v.GetSlice(), ",") }
func (*ages) Type() string     { return "duration" }

// Append, Replace and GetSlice make it a list for pflag.
func (v *ages) Append(s string) error { return v.Set(s) }

func (v *ages) Replace(all []string) error {
	*v = nil
	for _, s := range all {
		if err := v.Set(s); err != nil {
			return err
		}
	}
	return nil
}

func (v *ages) GetSlice() []string {
	out := make([]string, 0, len(*v))
	for _, d := range *v {
		out = append(out, d.String())
	}
	return out
}
