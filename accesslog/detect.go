// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"bytes"
	"strings"
)

// detect tells the format by one line, "" if it is in none.
func (r *Reader) detect(line []byte) Format {
	if line[0] == '{' {
		return r.detectJSON(line)
	}
	if bytes.IndexByte(line, '\t') >= 0 {
		r.fields.reset()
		if r.fields.split(line) {
			if _, ok := r.dates.iso(r.fields.v[fieldDate], r.fields.v[fieldTime]); ok {
				return CloudFront
			}
		}
		return ""
	}
	_, _, tail, _, why := r.splitCombined(line)
	if why != "" {
		return ""
	}
	if bytes.IndexByte(tail, '"') >= 0 {
		return Combined
	}
	return Common
}

func (r *Reader) detectJSON(line []byte) Format {
	var keys []string
	j := &r.json
	j.reset(line)
	j.each(func(key []byte) {
		keys = append(keys, string(key))
		j.skip()
	})
	if !j.done() {
		return ""
	}
	all := " " + strings.Join(keys, " ") + " "
	has := func(names ...string) bool {
		for _, n := range names {
			if !strings.Contains(all, " "+n+" ") {
				return false
			}
		}
		return true
	}
	switch {
	case has("cftrack"):
		return CFTrack
	case has("path", "last"):
		return List
	case has("ts", "request"), has("level", "ts", "logger"):
		return Caddy
	}
	return ""
}
