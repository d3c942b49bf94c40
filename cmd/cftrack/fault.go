// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/internal/config"
	"github.com/cf-invalidation-tracker/cftrack/internal/stores"
	"github.com/cf-invalidation-tracker/cftrack/journal"
	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// The exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	exitUndone = 3 // something was left undone, but nothing is lost
)

// A fault is how a command ends other than well: its exit code, and what is said
// about it. Problems are set where there are several.
type fault struct {
	exit     int
	message  string
	code     string // short and stable, for programs
	hint     string
	problems config.Problems
	cause    error
	// differences say why a plan file is not sent.
	differences *dispatch.Review
}

func (f *fault) Error() string { return f.message }
func (f *fault) Unwrap() error { return f.cause }

func usage(code, hint, format string, args ...any) error {
	return &fault{exit: exitUsage, code: code, hint: hint, message: fmt.Sprintf(format, args...)}
}

// explain turns any error into a fault.
func explain(err error) *fault {
	var (
		f  *fault
		ps config.Problems
		pe *selector.Error
		ce *cfpath.Error
		ae *stores.Error
		se *store.Error
		de *dispatch.Error
		fe *dispatch.PlanFileError
	)
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &ps):
		f := &fault{exit: exitUsage, code: "configuration", message: ps[0].At + ": " + ps[0].Message, hint: ps[0].Hint, problems: ps}
		if more := len(ps) - 1; more > 0 {
			f.message += fmt.Sprintf(" (and %d more)", more)
		}
		return f
	case errors.As(err, &pe):
		bare := *pe
		bare.Hint = ""
		return &fault{exit: exitUsage, code: "selector", message: bare.Error(), hint: pe.Hint, cause: err}
	case errors.As(err, &ce):
		bare := *ce
		bare.Hint = ""
		return &fault{exit: exitUsage, code: "path", message: bare.Error(), hint: ce.Hint, cause: err}
	case errors.As(err, &fe):
		return planFileFault(fe)
	case errors.As(err, &ae):
		return &fault{exit: exitUsage, code: "store-address", message: ae.Error(), hint: ae.Hint, cause: err}
	case errors.Is(err, dispatch.ErrUndone):
		f := &fault{exit: exitUndone, code: "undone", message: err.Error(), hint: "'cftrack resume' goes on where it stopped", cause: err}
		if errors.Is(err, context.Canceled) {
			f.code, f.message = "interrupted", "interrupted; nothing is lost"
		}
		return f
	case errors.Is(err, context.Canceled):
		return &fault{exit: exitFailed, code: "interrupted", message: "interrupted", cause: err}
	case errors.Is(err, journal.ErrNotFound):
		return &fault{exit: exitFailed, code: "not-found", message: strings.TrimPrefix(err.Error(), "journal: "), hint: "'cftrack status' lists the invalidations", cause: err}
	case errors.As(err, &se):
		f := &fault{exit: exitFailed, code: "store", hint: se.Hint, cause: err}
		bare := *se
		bare.Hint = ""
		f.message = bare.Error()
		switch {
		case errors.Is(err, store.ErrUnavailable):
			f.code = "store-unavailable"
		case errors.Is(err, store.ErrFull):
			f.code = "store-full"
		}
		return f
	case errors.As(err, &de):
		f := &fault{exit: exitFailed, code: "cloudfront", message: de.Error(), hint: de.Hint, cause: err}
		if de.Code != "" {
			f.code = de.Code
		}
		return f
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return &fault{exit: exitUsage, code: "file", message: err.Error(), hint: "name a file that can be read", cause: err}
	}
	return &fault{exit: exitFailed, code: "failed", message: err.Error(), cause: err}
}

// complain says how a command ended.
func (a *app) complain(f *fault, asJSON bool) {
	if asJSON {
		o := struct {
			Error    string          `json:"error"`
			Code     string          `json:"code"`
			Hint     string          `json:"hint"`
			Problems config.Problems `json:"problems,omitempty"`

			Differences *dispatch.Review `json:"differences,omitempty"`
		}{f.message, f.code, f.hint, nil, f.differences}
		if len(f.problems) > 1 {
			o.Problems = f.problems
		}
		enc := json.NewEncoder(a.stderr)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(o) // there is nowhere left to complain
		return
	}
	if len(f.problems) == 0 {
		f.problems = config.Problems{{Message: f.message, Hint: f.hint}}
	}
	for _, p := range f.problems {
		message := printable(p.Message)
		if p.At != "" {
			message = p.At + ": " + message
		}
		fmt.Fprintf(a.stderr, "cftrack: %s\n", message)
		if p.Hint != "" {
			fmt.Fprintf(a.stderr, "  hint: %s\n", printable(p.Hint))
		}
	}
}

// wantsJSON finds out how errors are to be printed before flags are known to be
// right.
func wantsJSON(args []string, env map[string]string) bool {
	want := env[config.Variable("output")]
	for i, arg := range args {
		if arg == "--" {
			break
		}
		if v, ok := strings.CutPrefix(arg, "--output="); ok {
			want = v
		} else if arg == "--output" && i+1 < len(args) {
			want = args[i+1]
		}
	}
	return want == "json"
}
