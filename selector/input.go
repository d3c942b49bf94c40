// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package selector

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

// StripURL takes scheme, host and fragment off a pasted URL whose host is one of
// the distribution's aliases; what is no http or https URL is returned as it is.
// An alias may begin with "*.", as an alternate domain name may
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/CNAMEs.html), and
// one without port is meant with any. The error is an [*Error].
func StripURL(arg string, aliases []string) (string, error) {
	if !isURL(arg) {
		return arg, nil
	}
	start := strings.Index(arg, "://") + len("://")
	end := len(arg)
	if i := strings.IndexAny(arg[start:], "/?#"); i >= 0 {
		end = start + i
	}
	host, rest := arg[start:end], arg[end:]
	if !isAlias(host, aliases) {
		hint := "name the distribution that this host belongs to, or give the path alone"
		if len(aliases) > 0 {
			hint = "its aliases are " + strings.Join(aliases, ", ") + "; " + hint
		}
		return "", &Error{Where: "URL", Input: arg, Pos: start,
			Reason: fmt.Sprintf("the host %q is no alias of the distribution", host), Hint: hint}
	}
	// A browser keeps the fragment to itself.
	rest, _, _ = strings.Cut(rest, "#")
	if !strings.HasPrefix(rest, "/") {
		rest = "/" + rest
	}
	return rest, nil
}

func isURL(s string) bool {
	for _, scheme := range [...]string{"http://", "https://"} {
		if len(s) >= len(scheme) && strings.EqualFold(s[:len(scheme)], scheme) {
			return true
		}
	}
	return false
}

func isAlias(host string, aliases []string) bool {
	name := host
	if i := strings.LastIndexByte(host, ':'); i >= 0 && strings.Trim(host[i+1:], "0123456789") == "" {
		name = host[:i] // without its port
	}
	name = strings.TrimSuffix(name, ".")
	for _, a := range aliases {
		if a == "" {
			continue
		}
		if strings.EqualFold(a, host) || strings.EqualFold(a, name) {
			return true
		}
		if domain, ok := strings.CutPrefix(a, "*"); ok && len(domain) > 1 && domain[0] == '.' &&
			len(name) > len(domain) && strings.EqualFold(name[len(name)-len(domain):], domain) {
			return true
		}
	}
	return false
}

// longestLine leaves room for a path at its longest, all of it encoded, and the
// host of a URL before it.
const longestLine = 4 * cfpath.MaxLength

// ReadPatterns reads one pattern or URL a line. White space around it and blank
// lines are skipped (a space at the end of a pattern is written %20). There are no
// comments: a line that begins with '#' is an error, since it may be meant as a
// tag. Name stands for the input in errors; an [*Error] names the line, others are
// the reader's.
func ReadPatterns(r io.Reader, name string) ([]string, error) {
	return readPatterns(r, name, '\n', " \t\r", "line")
}

// ReadPatternsNUL is ReadPatterns for patterns that each end with a NUL, as
// 'git diff -z' and 'find -print0' write them. White space is part of a pattern.
func ReadPatternsNUL(r io.Reader, name string) ([]string, error) {
	return readPatterns(r, name, 0, "", "pattern")
}

func readPatterns(r io.Reader, name string, end byte, around, unit string) ([]string, error) {
	var out []string
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 4096), longestLine)
	sc.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		if i := bytes.IndexByte(data, end); i >= 0 {
			return i + 1, data[:i], nil
		}
		if atEOF && len(data) > 0 {
			return len(data), data, nil
		}
		return 0, nil, nil
	})
	n := 0
	for sc.Scan() {
		n++
		text := sc.Text()
		if n == 1 {
			text = strings.TrimPrefix(text, "\ufeff")
		}
		text = strings.Trim(text, around)
		if text == "" {
			continue
		}
		where := fmt.Sprintf("%s:%d:", name, n)
		switch {
		case strings.HasPrefix(text, "#"):
			return nil, &Error{Where: where, Input: text, Reason: "a pattern begins with '/' or '*', and there are no comments",
				Hint: "delete the " + unit + "; a tag is selected with --tag"}
		case !isURL(text):
			if _, err := canonicalPattern(where, text); err != nil {
				return nil, err
			}
		}
		out = append(out, text)
	}
	if err := sc.Err(); err != nil {
		where := fmt.Sprintf("%s:%d:", name, n+1)
		if errors.Is(err, bufio.ErrTooLong) {
			hint := "write one pattern a line"
			if end == 0 {
				hint = "end each pattern with a NUL"
			}
			return nil, &Error{Where: where, Pos: longestLine, Reason: fmt.Sprintf("the %s is longer than %d bytes", unit, longestLine), Hint: hint}
		}
		return nil, fmt.Errorf("%s reading patterns: %w", where, err)
	}
	return out, nil
}
