// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package stores opens the store that an address names.
package stores

import (
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/cf-invalidation-tracker/cftrack/store"
	"github.com/cf-invalidation-tracker/cftrack/store/memstore"
)

// An Error says what is wrong with an address. It holds no secret.
type Error struct {
	Address string // redacted
	Reason  string
	Hint    string
}

func (e *Error) Error() string { return fmt.Sprintf("store %q: %s", e.Address, e.Reason) }

const kinds = "addresses are memory:, file:DIR, redis://HOST:PORT/DB, rediss://HOST:PORT/DB and redis+unix:///SOCKET"

// Default is the address of the embedded store in the user's data directory.
func Default(getenv func(string) string) (string, error) {
	if dir := getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return "file:" + filepath.Join(dir, "cftrack"), nil
	}
	if home := getenv("HOME"); home != "" {
		return "file:" + filepath.Join(home, ".local", "share", "cftrack"), nil
	}
	return "", &Error{"", "there is no data directory to keep one in, since HOME is not set", "name a store with --store file:DIR"}
}

// Open opens the store at an address. It does not dial. The error for an address
// that names none is an [*Error].
func Open(address string, log *slog.Logger) (store.Store, error) {
	kind, rest, ok := strings.Cut(address, ":")
	if !ok {
		hint := kinds
		if strings.ContainsAny(address, `/\`) {
			hint = "for a directory write file:" + address
		}
		return nil, &Error{Redact(address), "not an address", hint}
	}
	switch kind {
	case "memory":
		if rest != "" {
			return nil, &Error{Redact(address), "the store in memory has no name", "write memory:"}
		}
		return memstore.New(), nil
	case "file":
		dir, err := directory(address, rest)
		if err != nil {
			return nil, err
		}
		return openFile(dir, log)
	case "redis", "rediss", "redis+unix":
		return openRedis(address)
	case "dynamodb":
		return nil, &Error{Redact(address), "this version has no DynamoDB store", kinds}
	}
	return nil, &Error{Redact(address), fmt.Sprintf("no kind of store is called %q", kind), kinds}
}

// directory reads what follows "file:", a path or, after "//", an absolute one.
func directory(address, rest string) (string, error) {
	if strings.HasPrefix(rest, "//") {
		rest = rest[2:]
		if !strings.HasPrefix(rest, "/") {
			return "", &Error{Redact(address), "a directory on another host cannot be opened", "write file:DIR"}
		}
	}
	switch {
	case rest == "":
		return "", &Error{Redact(address), "no directory", "write file:DIR"}
	case rest == "~" || strings.HasPrefix(rest, "~/"):
		return "", &Error{Redact(address), "the shell has not expanded the ~", `write "file:$HOME` + rest[1:] + `"`}
	}
	return filepath.Abs(rest)
}

// HasSecret reports whether an address holds a password.
func HasSecret(address string) bool { return Redact(address) != address }

const mask = "xxxxx"

var (
	userinfo = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]*:/*[^:]*:)(.+)@`)
	// hosts is an address without a user whose hosts and ports are such.
	hosts   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*:(//)?([^:@/\[\]]*|\[[^\]@/]*\])(:\d+)?(,([^:@/\[\]]*|\[[^\]@/]*\])(:\d+)?)*(/[^@:]*)?$`)
	secrets = regexp.MustCompile(`(?i)([?&;](?:password|pass|secret|token|auth)=)[^&#;]*`)
)

// Redact returns an address without the secrets in it. It errs on the side of
// hiding: what cannot be read may be a password whose signs nobody encoded.
func Redact(address string) string {
	if strings.HasPrefix(address, "file:") {
		return address
	}
	before, _, _ := strings.Cut(address, "?")
	if _, err := url.Parse(address); err != nil || strings.Contains(before, "@") || !hosts.MatchString(before) {
		address = userinfo.ReplaceAllString(address, "${1}"+mask+"@")
	}
	return secrets.ReplaceAllString(address, "${1}"+mask)
}
