// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/cf-invalidation-tracker/cftrack/plan"
)

// A Position is a place in a file; line and column count from 1.
type Position struct {
	File         string
	Line, Column int
}

func (p Position) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column) }

// A File is what a configuration file says. The zero value says nothing.
type File struct {
	Path          string
	Settings      []Setting
	Distributions []Distribution
	Limits        plan.Limits // CloudFront's, for all distributions; a zero field says nothing
}

// A Setting is the value of a flag, several if the flag is a list.
type Setting struct {
	Name   string
	Values []string
	At     Position
}

func (f *File) setting(name string) (Setting, bool) {
	for _, s := range f.Settings {
		if s.Name == name {
			return s, true
		}
	}
	return Setting{}, false
}

// Distribution returns the distribution of that ID or alias.
func (f *File) Distribution(name string) (*Distribution, bool) {
	for i := range f.Distributions {
		d := &f.Distributions[i]
		if d.ID == name {
			return d, true
		}
	}
	for i := range f.Distributions {
		d := &f.Distributions[i]
		for _, a := range d.Aliases {
			if strings.EqualFold(a, name) {
				return d, true
			}
		}
	}
	return nil, false
}

// Parse reads a file: a mapping of names of settings to their values, and
// "distributions". The error is [Problems]; the File holds what could be read.
func Parse(path string, data []byte, known func(string) bool) (*File, error) {
	f := &File{Path: path}
	d := &decoder{path: path}
	tree, err := parser.ParseBytes(data, 0)
	if err != nil {
		return f, Problems{syntax(path, err)}
	}
	var bodies []ast.Node
	for _, doc := range tree.Docs {
		if doc.Body != nil && doc.Body.Type() != ast.CommentType {
			bodies = append(bodies, doc.Body)
		}
	}
	if len(bodies) > 1 {
		d.fail(bodies[1], "put all settings into one", "a second document")
		return f, d.problems
	}
	if len(bodies) == 0 {
		return f, nil
	}
	for _, e := range d.entries(bodies[0], "the configuration") {
		switch {
		case e.name == "distributions":
			for _, n := range d.items(e.value, e.name) {
				f.Distributions = append(f.Distributions, d.distribution(n))
			}
		case e.name == "limits" && mapping(e.value): // else it is simulate's flag of that name
			f.Limits = d.limits(e.value)
		case known(e.name):
			if values := d.texts(e.value, e.name); len(values) > 0 {
				s := Setting{Name: e.name, At: values[0].at}
				for _, v := range values {
					s.Values = append(s.Values, v.text)
				}
				f.Settings = append(f.Settings, s)
			}
		default:
			d.fail(e.key, "names are those of the flags, distributions and limits; see 'cftrack help'", "unknown setting %q", e.name)
		}
	}
	d.unique(f.Distributions)
	d.agree(f)
	if len(d.problems) > 0 {
		return f, d.problems
	}
	return f, nil
}

func mapping(n ast.Node) bool { _, ok := n.(ast.MapNode); return ok }

func syntax(path string, err error) Problem {
	p := Problem{At: path, Message: "not YAML: " + err.Error(), Hint: "indent with spaces, and quote a value that begins with * & ! % @ or `, or ends in a colon"}
	var ye yaml.Error
	if errors.As(err, &ye) && ye.GetToken() != nil {
		pos := ye.GetToken().Position
		p.At = Position{path, pos.Line, pos.Column}.String()
		p.Message = "not YAML: " + ye.GetMessage()
	}
	return p
}

// A decoder walks a tree and notes every problem. What it returns for a node in
// trouble is empty.
type decoder struct {
	path     string
	problems Problems
}

func (d *decoder) at(n ast.Node) Position {
	if m, ok := n.(ast.MapNode); ok { // its own token is the colon
		if it := m.MapRange(); it.Next() {
			return d.at(it.Key())
		}
	}
	if pos := n.GetToken().Position; pos != nil {
		return Position{d.path, pos.Line, pos.Column}
	}
	return Position{d.path, 1, 1}
}

func (d *decoder) fail(n ast.Node, hint, format string, args ...any) {
	d.problems = append(d.problems, Problem{d.at(n).String(), fmt.Sprintf(format, args...), hint})
}

type entry struct {
	name       string
	key, value ast.Node
}

// entries returns what is in a mapping, in its order.
func (d *decoder) entries(n ast.Node, what string) []entry {
	m, ok := n.(ast.MapNode)
	if !ok {
		d.fail(n, "write 'name: value' lines", "%s is no mapping", what)
		return nil
	}
	var out []entry
	for it := m.MapRange(); it.Next(); {
		key, ok := it.Key().(ast.Node)
		if !ok || key.GetToken() == nil {
			continue
		}
		if key.Type() == ast.MergeKeyType {
			d.fail(key, "write the settings out", "merging with << is not supported")
			continue
		}
		out = append(out, entry{key.GetToken().Value, key, it.Value()})
	}
	return out
}

// items returns what is in a list.
func (d *decoder) items(n ast.Node, what string) []ast.Node {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		d.fail(n, "begin each element with '- '", "%s is no list", what)
		return nil
	}
	return s.Values
}

type text struct {
	text string
	at   Position
	node ast.Node
}

// texts returns a value, or the values of a list.
func (d *decoder) texts(n ast.Node, what string) []text {
	var out []text
	if s, ok := n.(*ast.SequenceNode); ok {
		for _, v := range s.Values {
			if t, ok := d.text(v, what); ok {
				out = append(out, t)
			}
		}
		return out
	}
	if t, ok := d.text(n, what); ok {
		out = append(out, t)
	}
	return out
}

func (d *decoder) text(n ast.Node, what string) (text, bool) {
	switch v := n.(type) {
	case *ast.StringNode:
		return text{v.Value, d.at(n), n}, true
	case *ast.LiteralNode:
		return text{strings.TrimRight(v.Value.Value, "\n"), d.at(n), n}, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return text{n.GetToken().Value, d.at(n), n}, true
	case *ast.NullNode:
		d.fail(n, "give it one, or delete the line", "%s has no value", what)
	case *ast.AliasNode:
		d.fail(n, "quote it: '*...'", "%s is an alias of YAML", what)
	case *ast.AnchorNode, *ast.TagNode:
		d.fail(n, "quote it, if it is a value", "%s has an anchor or a tag of YAML", what)
	default:
		d.fail(n, "write one value, or a list of values", "%s is no plain value", what)
	}
	return text{}, false
}
