// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/plan"
	"github.com/cf-invalidation-tracker/cftrack/selector"
)

// PlanVersion is the version of the plan files that this package writes and reads.
const PlanVersion = 1

// A PlanFile is a plan to be reviewed now and sent later: exactly its items, or
// nothing. docs/plan-files.md describes its JSON form.
type PlanFile struct {
	Version int `json:"version"`
	// Hash is that of [PlanFile.Sum], empty in a file that was written by hand.
	Hash         string `json:"hash"`
	Distribution string `json:"distribution"`
	// Cut is when the plan was made. The invalidation gets a cut of its own.
	Cut      time.Time         `json:"cut"`
	Selector selector.Selector `json:"selector"`
	Options  journal.Planning  `json:"options"`
	// Collateral are the paths in the inventory that the items reach and the
	// selector does not select, in byte order; never nil.
	Collateral []string `json:"collateral"`
	*plan.Plan
}

// Sum returns the hash over all that decides what is sent, what that reaches
// beside, and what it leaves: "sha256:" and the hexadecimal digits of the SHA-256
// of the JSON object
//
//	{"collateral":[…],"distribution":…,"items":[…],"options":{…},"selector":{…},"uncovered":[…],"version":…}
//
// in the canonical form of RFC 8785, where items are the items' texts in order and
// uncovered the paths. Prices, counts, reasons and times do not enter.
func (f *PlanFile) Sum() string {
	doc := struct {
		Version      int               `json:"version"`
		Distribution string            `json:"distribution"`
		Selector     selector.Selector `json:"selector"`
		Options      journal.Planning  `json:"options"`
		Items        []string          `json:"items"`
		Collateral   []string          `json:"collateral"`
		Uncovered    []string          `json:"uncovered"`
	}{f.Version, f.Distribution, f.Selector, f.Options, f.items(), append([]string{}, f.Collateral...), []string{}}
	for _, u := range f.Uncovered {
		doc.Uncovered = append(doc.Uncovered, u.Path)
	}
	data, err := json.Marshal(doc)
	if err != nil {
		panic(fmt.Sprintf("dispatch: a plan file cannot be encoded: %v", err)) // all its types can be
	}
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		panic(fmt.Sprintf("dispatch: a plan file cannot be read back: %v", err))
	}
	sum := sha256.Sum256(canonical(nil, v))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// canonical appends decoded JSON in the form of RFC 8785. Keys here are ASCII,
// so that the order of bytes is that of UTF-16.
func canonical(out []byte, v any) []byte {
	switch v := v.(type) {
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		out = append(out, '{')
		for i, k := range keys {
			if i > 0 {
				out = append(out, ',')
			}
			out = append(canonicalString(out, k), ':')
			out = canonical(out, v[k])
		}
		return append(out, '}')
	case []any:
		out = append(out, '[')
		for i, e := range v {
			if i > 0 {
				out = append(out, ',')
			}
			out = canonical(out, e)
		}
		return append(out, ']')
	case string:
		return canonicalString(out, v)
	default: // a number, a truth value or null: encoding/json writes them as ECMAScript does
		b, err := json.Marshal(v)
		if err != nil {
			panic(fmt.Sprintf("dispatch: %T cannot be encoded: %v", v, err))
		}
		return append(out, b...)
	}
}

func canonicalString(out []byte, s string) []byte {
	out = append(out, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			out = append(out, '\\', c)
		case c >= ' ':
			out = append(out, c)
		default:
			if j := strings.IndexByte("\b\t\n\f\r", c); j >= 0 {
				out = append(out, '\\', "btnfr"[j])
			} else {
				out = fmt.Appendf(out, `\u%04x`, c)
			}
		}
	}
	return append(out, '"')
}

func (f *PlanFile) items() []string {
	out := make([]string, 0, len(f.Items))
	for i := range f.Items {
		out = append(out, f.Items[i].Item.String())
	}
	return out
}

// fixed is what an invalidation that sends the file is bound to.
func (f *PlanFile) fixed() *journal.Fixed {
	out := &journal.Fixed{Items: f.items(), Collateral: f.Collateral}
	for _, u := range f.Uncovered {
		out.Uncovered = append(out.Uncovered, journal.Refusal{Item: u.Path, Reason: u.Reason, Remedy: u.Remedy})
	}
	return out
}

// made names the file in a journal.
func (f *PlanFile) made() *journal.FixedPlan { return &journal.FixedPlan{Hash: f.Sum(), Cut: f.Cut} }

// fits checks that a file is meant for this dispatcher's distribution.
func (d *Dispatcher) fits(f *PlanFile) error {
	if f.Distribution == d.journal.Distribution() {
		return nil
	}
	return &PlanFileError{Field: "distribution", Reason: fmt.Sprintf("it was made for %s, not for %s", f.Distribution, d.journal.Distribution()),
		Hint: "send it with --distribution " + f.Distribution + ", or make a plan for this one"}
}

// A PlanFileError says what is wrong with a plan file and what to do now.
type PlanFileError struct {
	Field  string // such as "items[3]"; empty if it is about the file
	Reason string
	Hint   string
}

func (e *PlanFileError) Error() string {
	if e.Field == "" {
		return "plan file: " + e.Reason
	}
	return "plan file: " + e.Field + ": " + e.Reason
}

const madeAnew = "make the plan again with 'cftrack plan ... --output json'"

// maxPlanFile bounds a plan file: more than a hundred thousand paths of the
// longest kind.
const maxPlanFile = 512 << 20

// ReadPlanFile reads and checks a plan file: its version, its items, and that its
// hash is its own if it has one. The error is a [*PlanFileError], or the reader's.
func ReadPlanFile(r io.Reader) (*PlanFile, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxPlanFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxPlanFile {
		return nil, &PlanFileError{Reason: fmt.Sprintf("it is larger than %d MB", maxPlanFile>>20), Hint: "plan with wider patterns, or in parts"}
	}
	// By name, since encoding/json takes "Items" for "items".
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, &PlanFileError{Reason: notJSON(data, err), Hint: madeAnew}
	}
	f := &PlanFile{Plan: &plan.Plan{Items: []plan.Item{}, Warnings: []plan.Warning{}, Alternatives: []plan.Alternative{}}}
	read := func(name string, into any, strict bool) {
		raw, ok := fields[name]
		switch {
		case err != nil:
		case !ok || string(raw) == "null":
			err = &PlanFileError{Field: name, Reason: "it is missing", Hint: madeAnew}
		default:
			d := json.NewDecoder(bytes.NewReader(raw))
			if strict {
				d.DisallowUnknownFields()
			}
			if e := d.Decode(into); e != nil {
				err = &PlanFileError{Field: name, Reason: strings.TrimPrefix(e.Error(), "json: "), Hint: madeAnew}
			}
		}
	}
	read("version", &f.Version, false)
	if err == nil && f.Version != PlanVersion {
		return nil, &PlanFileError{Field: "version", Reason: fmt.Sprintf("version %d; this cftrack reads %d", f.Version, PlanVersion),
			Hint: "send it with the cftrack that made it, or " + madeAnew}
	}
	read("distribution", &f.Distribution, false)
	read("cut", &f.Cut, false)
	// What is not known there may narrow the selection.
	read("selector", &f.Selector, true)
	read("options", &f.Options, true)
	read("collateral", &f.Collateral, false)
	read("uncovered", &f.Uncovered, false)
	if raw, ok := fields["hash"]; ok && string(raw) != "null" {
		read("hash", &f.Hash, false)
	}
	var items []json.RawMessage
	read("items", &items, false)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool, len(items))
	for i, raw := range items {
		var it plan.Item
		field := fmt.Sprintf("items[%d]", i)
		if err := json.Unmarshal(raw, &it); err != nil {
			e := &PlanFileError{Field: field, Reason: err.Error(), Hint: madeAnew}
			if ce, ok := errors.AsType[*cfpath.Error](err); ok {
				bare := *ce
				bare.Hint = ""
				e.Reason, e.Hint = bare.Error(), ce.Hint
			}
			return nil, e
		}
		text := it.Item.String()
		if seen[text] {
			return nil, &PlanFileError{Field: field, Reason: fmt.Sprintf("%s stands there twice, and would be paid for twice", text), Hint: "take one of them out, and the hash"}
		}
		seen[text] = true
		f.Items = append(f.Items, it)
	}
	return f, f.check()
}

// check looks at what does not depend on an inventory.
func (f *PlanFile) check() error {
	if f.Distribution == "" {
		return &PlanFileError{Field: "distribution", Reason: "it is empty", Hint: madeAnew}
	}
	if f.Selector.Empty() {
		return &PlanFileError{Field: "selector", Reason: "it selects nothing", Hint: madeAnew}
	}
	if _, err := f.Selector.Compile(); err != nil {
		e := &PlanFileError{Field: "selector", Reason: err.Error(), Hint: madeAnew}
		if se, ok := errors.AsType[*selector.Error](err); ok && se.Hint != "" {
			bare := *se
			bare.Hint = ""
			e.Reason, e.Hint = bare.Error(), se.Hint
		}
		return e
	}
	if n := f.Options.Batch; n < 0 || n > maxBatch {
		return &PlanFileError{Field: "options.batch", Reason: fmt.Sprintf("CloudFront takes no requests of %d items", n), Hint: fmt.Sprintf("write 1 to %d", maxBatch)}
	}
	if err := f.withinBudgets(); err != nil {
		return err
	}
	slices.Sort(f.Collateral) // a set: its order means nothing
	if f.Hash == "" {
		return nil
	}
	if sum := f.Sum(); f.Hash != sum {
		return &PlanFileError{Field: "hash", Reason: fmt.Sprintf("the file was changed after it was made: it says %s, and what it sends has %s", f.Hash, sum),
			Hint: madeAnew + "; if the change is meant, have it reviewed and take the hash out"}
	}
	return nil
}

// withinBudgets refuses the nearest plan where none kept to its budgets.
func (f *PlanFile) withinBudgets() error {
	o := &f.Options
	const anew = "allow more, or select less, and " + madeAnew
	if o.MaxItems != nil && len(f.Items) > *o.MaxItems {
		return &PlanFileError{Field: "options.max_items", Reason: fmt.Sprintf("it has %d items, and at most %d were asked for", len(f.Items), *o.MaxItems), Hint: anew}
	}
	if o.MaxCollateral != "" {
		if _, err := plan.ParseBudget(o.MaxCollateral); err != nil {
			return &PlanFileError{Field: "options.max_collateral", Reason: strings.TrimPrefix(err.Error(), "plan: "), Hint: madeAnew}
		}
	}
	wildcards := 0
	for i := range f.Items {
		if f.Items[i].Item.Kind == cfpath.Wildcard {
			wildcards++
		}
	}
	if o.MaxWildcards != nil && wildcards > *o.MaxWildcards {
		return &PlanFileError{Field: "options.max_wildcards", Reason: fmt.Sprintf("it has %d wildcards, and at most %d were asked for", wildcards, *o.MaxWildcards), Hint: anew}
	}
	return nil
}

// notJSON says where a file stops being a JSON object.
func notJSON(data []byte, err error) string {
	if len(bytes.TrimSpace(data)) == 0 {
		return "it is empty"
	}
	var se *json.SyntaxError
	if errors.As(err, &se) {
		line := 1 + bytes.Count(data[:min(int(se.Offset), len(data))], []byte("\n"))
		return fmt.Sprintf("line %d: it is no JSON: %s", line, se)
	}
	return "it is not a JSON object"
}
