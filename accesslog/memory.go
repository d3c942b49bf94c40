// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

// A target is what became of a request target; parsing one costs more than
// finding it here again, and most lines repeat one.
type target struct {
	path    string
	unknown time.Duration // lifetime if nothing is known
	keep    bool          // by the same
	options bool          // whether OPTIONS is cached
	why     reason
	wrong   string // of a malformed one
}

// What is remembered is bounded: once it is full it is forgotten at once, which
// costs less than to choose.
const (
	maxPaths     = 1 << 17
	maxPathBytes = 32 << 20
	maxTexts     = 1 << 12 // each of tags, hosts and values of headers
	maxText      = 1 << 12 // bytes of one
)

// at returns what became of the raw target in r.key, using canonical to make it a
// path.
func (r *Reader) at(canonical func(r *Reader, raw string) target) target {
	if t, ok := r.paths[string(r.key)]; ok {
		return t
	}
	raw := string(r.key)
	t := canonical(r, raw)
	if t.why == none {
		b := r.rules.Match(t.path)
		t.options = b.CacheOptions
		t.path = b.Query.Apply(t.path)
		v := r.rules.Unknown(t.path)
		t.unknown, t.keep = v.Lifetime, v.Keep
	}
	if len(r.paths) >= maxPaths || r.pathBytes >= maxPathBytes {
		clear(r.paths)
		r.pathBytes = 0
	}
	r.paths[raw] = t
	r.pathBytes += len(raw) + len(t.path) + len(t.wrong)
	return t
}

// ofTarget makes a request target, as a server logs it, a path.
func ofTarget(r *Reader, raw string) target {
	switch {
	case len(raw) > 8192:
		// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/cloudfront-limits.html
		return target{why: skipTooLong}
	case raw == "" || raw[0] != '/' && !strings.Contains(raw, "://"):
		return target{why: skipNoRequest}
	}
	path, err := cfpath.FromTarget(raw)
	if err != nil {
		return target{why: malformed, wrong: err.Error()}
	}
	if r.opts.OriginPath != "" {
		var ok bool
		if path, ok = cfpath.StripOrigin(r.opts.OriginPath, path); !ok {
			return target{why: skipOriginPath}
		}
	}
	return target{path: path}
}

// text returns b as a string, one copy for all lines that have the same.
func (r *Reader) text(b []byte) string {
	if s, ok := r.texts[string(b)]; ok {
		return s
	}
	s := string(b)
	remember(r.texts, s, s)
	return s
}

// header holds the fields of a response's header that bear on its lifetime.
type header struct{ cacheControl, expires, age []string }

func (h *header) reset() {
	h.cacheControl, h.expires, h.age = h.cacheControl[:0], h.expires[:0], h.age[:0]
}

// Values implements [lifetime.Header].
func (h *header) Values(name string) []string {
	if lines := h.lines(name); lines != nil {
		return *lines
	}
	return nil
}

func (h *header) lines(name string) *[]string {
	switch name {
	case "Cache-Control":
		return &h.cacheControl
	case "Expires":
		return &h.expires
	case "Age":
		return &h.age
	}
	return nil
}

// addHeader adds one line of a field; "-" and "" are none.
func (r *Reader) addHeader(lines *[]string, value []byte) {
	if len(value) > 0 && string(value) != "-" {
		*lines = append(*lines, r.text(value))
	}
}

func remember[V any](m map[string]V, key string, value V) {
	if len(key) > maxText {
		return
	}
	if len(m) >= maxTexts {
		clear(m)
	}
	m[key] = value
}

func (r *Reader) hostCounts(host []byte) bool {
	if len(r.opts.Hosts) == 0 || len(host) == 0 || string(host) == "-" {
		return true
	}
	if counts, ok := r.hosts[string(host)]; ok {
		return counts
	}
	name := strings.ToLower(string(host))
	if i := strings.LastIndexByte(name, ':'); i >= 0 && strings.IndexByte(name[i:], ']') < 0 {
		name = name[:i]
	}
	counts := false
	for _, h := range r.opts.Hosts {
		h = strings.ToLower(h)
		if under, ok := strings.CutPrefix(h, "*"); ok {
			counts = counts || strings.HasPrefix(under, ".") && strings.HasSuffix(name, under) && len(name) > len(under)
		} else {
			counts = counts || h == name
		}
	}
	remember(r.hosts, string(host), counts)
	return counts
}

// A tagHeader is a response header with tags. A JSON log names it by key, as
// nginx spells its variables.
type tagHeader struct {
	name, key string
	by        byte
}

// How tags are separated. In Reader.tagged one of these stands before each value;
// no value contains them.
const (
	byNothing = iota
	byCommas
	bySpaces // or commas
)

func tagHeaders(names string) []tagHeader {
	if names == "" {
		names = "Cache-Tag,Surrogate-Key"
	}
	var hs []tagHeader
	for name := range strings.SplitSeq(names, ",") {
		h := tagHeader{name: http.CanonicalHeaderKey(strings.TrimSpace(name)), by: byCommas}
		h.key = strings.ReplaceAll(strings.ToLower(h.name), "-", "_")
		if h.name == "Surrogate-Key" || h.name == "Xkey" {
			h.by = bySpaces
		}
		hs = append(hs, h)
	}
	return hs
}

// addTags notes a value with tags, such as a line of a header; "-" and "" are
// none.
func (r *Reader) addTags(by byte, value []byte) {
	if len(value) > 0 && string(value) != "-" {
		r.tagged = append(append(r.tagged, by), value...)
		r.tagLines++
	}
}

func (r *Reader) resetTags() { r.tagged, r.tagLines = r.tagged[:0], 0 }

// noted returns the tags that addTags has noted.
func (r *Reader) noted() []string {
	if len(r.tagged) == 0 {
		return nil
	}
	if tags, ok := r.tags[string(r.tagged)]; ok {
		return tags
	}
	var tags []string
	by := r.tagged[0]
	for rest := r.tagged[1:]; ; {
		n := bytes.IndexFunc(rest, func(c rune) bool {
			return c <= bySpaces || by != byNothing && c == ',' || by == bySpaces && (c == ' ' || c == '\t')
		})
		value := rest
		if n >= 0 {
			value = rest[:n]
		}
		if by != byNothing {
			value = bytes.TrimSpace(value)
		}
		if len(value) > 0 {
			tags = append(tags, string(value))
		}
		if n < 0 {
			break
		}
		if rest[n] <= bySpaces {
			by = rest[n]
		}
		rest = rest[n+1:]
	}
	tags = slices.Clip(tags)
	remember(r.tags, string(r.tagged), tags)
	return tags
}
