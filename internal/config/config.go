// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package config gives settings their values: the command line's, else the
// environment's, else the file's, else the default, and says of each where it is
// from. It also reads what only a file can say: the distributions.
//
// It prints nothing and looks at nothing by itself: environment and file come in
// as values. Everything that is wrong is reported at once, with its place.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// A Problem is something wrong, where, and what to do about it.
type Problem struct {
	At      string `json:"at"` // "file:line:column", or the name of a variable
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

// Problems is everything that is wrong. It is an error if it is not empty.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, x := range p {
		lines[i] = x.At + ": " + x.Message
	}
	return strings.Join(lines, "\n")
}

// Variable is the name of the environment variable that sets a flag.
func Variable(flag string) string {
	return "CFTRACK_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// Places are the files that are looked for, in this order, when none is named.
func Places(getenv func(string) string) []string {
	var places []string
	if dir := getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		places = append(places, filepath.Join(dir, "cftrack", "cftrack.yaml"))
	} else if home := getenv("HOME"); home != "" {
		places = append(places, filepath.Join(home, ".config", "cftrack", "cftrack.yaml"))
	}
	return append(places, "/etc/cftrack/cftrack.yaml")
}

// Read reads the file that was named, or else the first of places that there is.
// With neither it returns an empty File. Known tells the names of settings. The
// error may be [Problems].
func Read(named string, places []string, known func(string) bool) (*File, error) {
	if named != "" {
		data, err := os.ReadFile(named)
		if err != nil {
			return &File{}, Problems{{At: named, Message: reading(err), Hint: "name a file that can be read with --config"}}
		}
		return Parse(named, data, known)
	}
	for _, path := range places {
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return &File{}, Problems{{At: path, Message: reading(err), Hint: "make it readable, or name another file with --config"}}
		}
		return Parse(path, data, known)
	}
	return &File{}, nil
}

func reading(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Sprintf("the configuration cannot be read: %v", err)
}

// A Source says which of the places a value can come from it came from, the
// weakest first.
type Source uint8

// The sources.
const (
	Default Source = iota
	FromFile
	FromEnvironment
	FromFlag
)

// An Origin is where the value of a setting is from.
type Origin struct {
	Source Source
	Where  string // for people: "--store", "CFTRACK_STORE", "cftrack.yaml:3:8", "default"
}

// Settings are the flags of all commands by their name: flags of one name have
// one value.
type Settings map[string][]*pflag.Flag

// Names returns the names in order.
func (s Settings) Names() []string {
	names := make([]string, 0, len(s))
	for name := range s {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Apply gives every flag that the command line did not set its value from the
// environment or else the file, and returns where all values are from. A variable
// that is set to nothing counts as not set; several values of one flag are one a
// line. The error is [Problems]; no message in it holds a value of secret flags.
func (s Settings) Apply(getenv func(string) string, file *File, secret func(name string) bool) (map[string]Origin, error) {
	origins := make(map[string]Origin, len(s))
	var problems Problems
	for _, name := range s.Names() {
		flags := s[name]
		if slices.ContainsFunc(flags, func(f *pflag.Flag) bool { return f.Changed }) {
			origins[name] = Origin{FromFlag, "--" + name}
			continue
		}
		var values []string
		o := Origin{Default, "default"}
		if v := getenv(Variable(name)); v != "" {
			values, o = lines(v), Origin{FromEnvironment, Variable(name)}
		} else if set, ok := file.setting(name); ok {
			values, o = set.Values, Origin{FromFile, set.At.String()}
		}
		origins[name] = o
		if p, ok := assign(flags, values, o.Where, secret(name)); !ok {
			problems = append(problems, p)
		}
	}
	if len(problems) > 0 {
		return origins, problems
	}
	return origins, nil
}

func lines(s string) []string {
	var out []string
	for line := range strings.Lines(s) {
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			out = append(out, line)
		}
	}
	return out
}

// assign sets the flags of one name, which all read values alike.
func assign(flags []*pflag.Flag, values []string, where string, secret bool) (Problem, bool) {
	for _, f := range flags {
		if _, list := f.Value.(pflag.SliceValue); !list && len(values) > 1 {
			return Problem{where, fmt.Sprintf("%s has one value, not %d", f.Name, len(values)), "leave one of them"}, false
		}
		for _, v := range values {
			if err := f.Value.Set(v); err != nil {
				p := Problem{where, fmt.Sprintf("%s: %q is no value for it", f.Name, v), "it takes one of type " + f.Value.Type()}
				var de *DurationError
				switch {
				case errors.As(err, &de):
					p.Message, p.Hint = f.Name+": "+de.Error(), DurationHint
				case f.Value.Type() == "bool":
					p.Hint = "write true or false"
				case f.Value.Type() == "int", f.Value.Type() == "uint64":
					p.Hint = "write a number"
				default:
					p.Hint = err.Error()
				}
				if secret {
					p.Message = "not a value of " + f.Name
				}
				return p, false
			}
		}
	}
	return Problem{}, true
}
