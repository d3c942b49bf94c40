// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cftrack_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// What each package may import of this module and of the standard library, tests
// apart. What is not listed may import what it likes of both. "./store/*" is every
// package below ./store that has no line of its own. docs/design.md has the reasons.
var allowed = map[string]struct {
	module []string
	not    []string // of the standard library
}{
	"./cfpath":         {nil, append([]string{"net", "time"}, world...)},
	"./inventory":      {nil, world},
	"./lifetime":       {[]string{"./cfpath"}, world},
	"./selector":       {[]string{"./cfpath", "./inventory"}, world},
	"./plan":           {[]string{"./cfpath", "./inventory"}, append([]string{"net"}, world...)},
	"./store":          {[]string{"./inventory"}, nil},
	"./store/*":        {[]string{"./cfpath", "./inventory", "./store"}, nil},
	"./store/setstore": {[]string{"./cfpath", "./inventory", "./store", "./store/memstore"}, nil}, // it keeps in memory what its store cannot
	"./storetime":      {nil, nil},
	"./journal":        {[]string{"./cfpath", "./inventory", "./selector", "./store"}, nil},
	".":                {[]string{"./cfpath", "./inventory", "./journal", "./lifetime", "./selector", "./store", "./storetime"}, nil},
	"./dispatch":       {[]string{"./cfpath", "./inventory", "./journal", "./lifetime", "./plan", "./selector", "./store", "./storetime"}, nil},
	"./awscloudfront":  {[]string{"./dispatch"}, nil},
	"./accesslog":      {[]string{"./cfpath", "./inventory", "./lifetime"}, nil},
	"./simulator":      {[]string{"./cfpath", "./lifetime"}, nil},
}

// world is what packages that only decide have no business with. net/url is fine,
// so is net for taking a host and port apart, and so is time, of which they take
// values; that they do not read the clock is a rule of the linter.
var world = []string{"net/http", "os", "log", "syscall", "math/rand", "math/rand/v2", "crypto/rand"}

// A third-party module belongs to the packages that talk through it, so that
// nobody else links it. What only tests import has no line here.
var owners = map[string][]string{
	"github.com/aws":           {"./awscloudfront"},
	"github.com/cockroachdb":   {"./store/filestore"},
	"github.com/redis":         {"./store/redisstore"},
	"golang.org/x/sys":         {"./store/filestore"},
	"github.com/klauspost":     {"./accesslog"},
	"github.com/goccy/go-yaml": {"./internal/config", "./simulator"},
	"github.com/spf13":         {"./cmd/cftrack", "./internal/config"},
	"github.com/schollz":       {"./cmd/cftrack"},
	"github.com/rivo/uniseg":   {"./cmd/cftrack"},
	"golang.org/x/term":        {"./cmd/cftrack"},
	"pgregory.net/rapid":       {"./store/storetest"},
}

func TestImports(t *testing.T) {
	all := listPackages(t)
	for name, p := range all {
		rule, ruled := allowed[name]
		if !ruled && within(name, "./store") {
			rule, ruled = allowed["./store/*"], true
		}
		for _, imp := range p.Imports {
			first, _, _ := strings.Cut(imp, "/")
			switch {
			case first == "." && within(imp, "./cmd"):
				t.Errorf("%s imports the command %s", name, imp)
			case first == "." && within(imp, "./internal") && !within(name, "./internal", "./cmd"):
				t.Errorf("%s imports %s: only commands, tests and internal packages may", name, imp)
			case first == ".":
				if ruled && !slices.Contains(rule.module, imp) {
					t.Errorf("%s imports %s; of this module it may import %q", name, imp, rule.module)
				}
			case strings.Contains(first, "."):
				if !owns(name, imp) {
					t.Errorf("%s imports %s, which belongs to another package: see owners", name, imp)
				}
			case slices.Contains(rule.not, imp):
				t.Errorf("%s imports %s, but it only decides and talks to nothing", name, imp)
			}
		}
	}
	for name := range allowed {
		if name != "./store/*" && all[name] == nil {
			t.Errorf("there is a rule for %s, but no such package", name)
		}
	}
}

// Who imports a package links no backend and no client that it does not name.
func TestLinks(t *testing.T) {
	all := listPackages(t)
	for _, name := range []string{".", "./dispatch", "./plan", "./accesslog", "./simulator", "./store/memstore"} {
		for _, dep := range all[name].Deps {
			if within(dep, "github.com/aws", "github.com/cockroachdb", "github.com/redis", "./internal") ||
				within(dep, "./store") && dep != "./store" {
				t.Errorf("%s links %s", name, dep)
			}
			if name == "." && within(dep, "./plan", "./dispatch", "./accesslog", "./simulator", "./awscloudfront") {
				t.Errorf("the root links %s", dep)
			}
		}
	}
}

// A listed is what the go command says of a package. Names of this module's
// packages are relative: "." is the root, "./store/memstore" one of the backends.
type listed struct {
	ImportPath    string
	Imports, Deps []string
}

func listPackages(t *testing.T) map[string]*listed {
	t.Helper()
	const module = "github.com/cf-invalidation-tracker/cftrack"
	relative := func(path string) string {
		if within(path, module) {
			return "." + strings.TrimPrefix(path, module)
		}
		return path
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,Deps", "./...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, stderr.String())
	}
	all := map[string]*listed{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		p := &listed{}
		if err := d.Decode(p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		for _, list := range [][]string{p.Imports, p.Deps} {
			for i := range list {
				list[i] = relative(list[i])
			}
		}
		all[relative(p.ImportPath)] = p
	}
}

// within reports whether a path is one of trees, or lies below one.
func within(path string, trees ...string) bool {
	return slices.ContainsFunc(trees, func(t string) bool { return path == t || strings.HasPrefix(path, t+"/") })
}

func owns(name, imp string) bool {
	for tree, packages := range owners {
		if within(imp, tree) {
			return slices.Contains(packages, name)
		}
	}
	return false
}
