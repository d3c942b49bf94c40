// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"strings"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
)

// A leaf is a selected entry that needs an item.
type leaf struct {
	path    string
	trouble *trouble
	sure    int   // length of the longest stem that surely covers it
	sig     int32 // what native tags it could be covered by, see tags.go
	folded  bool
	spared  bool // a named wildcard may leave it alone
	doubt   bool // its exact item may not reach it
	plain   bool // nothing in it needs a closer look
}

// A trouble is that an entry cannot be named.
type trouble struct {
	path       string
	reason     string
	entries    int // a folded one may stand for several
	inside     int // not selected, and reached by whatever covers it
	sig        int32
	stem       int // length of the stem that would cover it; 0: none
	collateral int // of that
}

// judge finds out how the entry can be named. A stem as long as the path is sure
// for "/dir/" too: that it is spared is looked at where a stem is chosen.
func (l *leaf) judge(doubtful func(string) bool) {
	l.sure = len(l.path)
	if l.plain = plain(l.path); !l.plain {
		l.doubt = cfpath.InDoubt(l.path)
		_, err := cfpath.Name(l.path)
		if l.folded {
			if stemmable(l.path) {
				err = nil
			} else if err == nil {
				err = &cfpath.Unnameable{Path: l.path, Trouble: cfpath.Trouble{Reason: cfpath.ReasonRefused}}
			}
		}
		if err != nil {
			l.trouble = newTrouble(l.path, err)
		}
		known := l.path
		if l.folded {
			known += "x" // as what it stands for goes on: "/s?" is no empty query
		}
		if stem, ok := cfpath.SureStem(known); !ok {
			l.sure = 0
		} else if l.folded {
			l.sure = min(l.sure, len(stem))
		} else if l.doubt || len(stem) < len(l.path)-1 || !strings.HasSuffix(l.path, "/") {
			l.sure = len(stem)
		}
	}
	if doubtful != nil && doubtful(l.path) {
		l.doubt = true
		n := pathLength(l.path)
		if n == len(l.path) {
			n = 1 // nobody says where the doubt begins
		}
		l.sure = min(l.sure, n)
	}
}

func newTrouble(path string, err error) *trouble {
	t := &trouble{path: path, entries: 1, reason: cfpath.ReasonRefused}
	if cause, ok := errors.AsType[*cfpath.Unnameable](err); ok {
		t.reason = cause.Reason
	}
	if stem, ok := cfpath.TightestStem(path); ok {
		t.stem = len(stem)
	}
	return t
}

// plain tells quickly that a path can be named without doubt.
func plain(path string) bool {
	if len(path) == 0 || path[0] != '/' || len(path) >= cfpath.MaxItemLength {
		return false
	}
	last := byte(0)
	for i := range len(path) {
		c := path[i]
		if odd(c) || last == '/' && (c == '/' || c == '.') {
			return false
		}
		last = c
	}
	return last != '?' && last != '*'
}

func odd(c byte) bool {
	const (
		low  uint64 = 1<<(' '+1) - 1 | 1<<'"' | 1<<'#' | 1<<'%' | 1<<'\'' | 1<<'<' | 1<<'>'
		high uint64 = 1<<('@'-64) | 1<<('['-64) | 1<<('\\'-64) | 1<<(']'-64) | 1<<('^'-64) | 1<<('`'-64) |
			1<<('{'-64) | 1<<('|'-64) | 1<<('}'-64) | 1<<('~'-64) | 1<<(0x7F-64)
	)
	switch {
	case c < 64:
		return low>>c&1 != 0
	case c < 128:
		return high>>(c-64)&1 != 0
	}
	return true
}

// nameable tells whether an exact item surely covers it.
func (l *leaf) nameable() bool { return !l.folded && l.trouble == nil && !l.doubt }

// directory tells whether the wildcard with its path as stem may leave it alone:
// https://github.com/pulumi/docs/pull/21786. "/*" is the whole distribution.
func (l *leaf) directory() bool { return len(l.path) > 1 && l.path[len(l.path)-1] == '/' }

func (l *leaf) reason() string {
	if l.spared {
		return ReasonDirectory
	}
	return ReasonExact
}

func exactItem(l *leaf, code string) draft {
	d := draft{text: l.path, covers: 1, unsure: l.doubt}
	if code == ReasonDirectory {
		d.why = &Reason{code, "CloudFront was seen to leave it alone when " + l.path + "* was invalidated"}
	}
	return d
}

func foldedReason(path string) Reason {
	return Reason{ReasonFolded, "too many paths begin with " + path + " to know each: it is known as one"}
}
