// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/cf-invalidation-tracker/cftrack/selector"
	"github.com/cf-invalidation-tracker/cftrack/store"
)

// A LargeSelector names a selector that stands in documents of its own, since the
// invalidation is written with each batch and read every second.
type LargeSelector struct {
	Hash  string `json:"hash"` // of its JSON; equal selectors share documents
	Parts int    `json:"parts"`
	// Text is how it begins, for people.
	Text string `json:"text"`
}

// largeSelector is from how many bytes of JSON on a selector is large.
const largeSelector = 16 << 10

var errNotLoaded = errors.New("it was not loaded")

type selectorPart struct {
	JSON string `json:"json"`
}

func (l *LargeSelector) key(part int) string {
	return fmt.Sprintf("%s%s/%06d", dirSelectors, l.Hash, part)
}

// SelectorText returns the selector as the command line would say it, of a large
// one how it begins.
func (inv *Invalidation) SelectorText() string {
	if inv.Large != nil {
		return inv.Large.Text
	}
	return inv.Selector.String()
}

// setLarge sets inv.Large if the selector is large, and returns its parts.
func (inv *Invalidation) setLarge() []selectorPart {
	data, err := json.Marshal(inv.Selector)
	if err != nil || len(data) < largeSelector {
		inv.Large = nil
		return nil
	}
	sum := sha256.Sum256(data)
	inv.Large = &LargeSelector{Hash: hex.EncodeToString(sum[:]), Text: inv.Selector.Brief()}
	var parts []selectorPart
	for s := string(data); s != ""; inv.Large.Parts++ {
		n := min(len(s), partSize)
		for n < len(s) && !utf8.RuneStart(s[n]) {
			n--
		}
		parts = append(parts, selectorPart{s[:n]})
		s = s[n:]
	}
	return parts
}

// writeParts writes what a new invalidation refers to, and returns what has to be
// required of it when that is written: whoever tidies up may take away what
// nothing refers to yet.
func writeParts[T any](ctx context.Context, j *Journal, parts []T, key func(int) string) ([]store.Requirement, error) {
	var require []store.Requirement
	for i, p := range parts {
		v, err := j.commit(ctx, nil, put(key(i), p))
		if err != nil {
			return nil, err
		}
		require = append(require, store.Requirement{Key: key(i), Version: v})
	}
	return require, nil
}

// Load reads the selector of an invalidation where that is large; of others it does
// nothing. A selector that is not there any more is no error here, but of
// [Invalidation.Compile].
func (j *Journal) Load(ctx context.Context, inv *Invalidation) error {
	if inv.Large == nil || inv.unreadable == nil {
		return nil
	}
	j.mu.Lock()
	s, ok := j.large[inv.Large.Hash]
	j.mu.Unlock()
	if !ok {
		var text strings.Builder
		parts := 0
		err := each(ctx, j, dirSelectors+inv.Large.Hash+"/", "", func(p *selectorPart, _ uint64, _ string) {
			text.WriteString(p.JSON)
			parts++
		})
		if err != nil {
			return err
		}
		if parts != inv.Large.Parts {
			inv.unreadable = fmt.Errorf("%d of its %d documents are there: the store has lost some", parts, inv.Large.Parts)
			return nil
		}
		if err := json.Unmarshal([]byte(text.String()), &s); err != nil {
			inv.unreadable = err
			return nil
		}
		j.mu.Lock()
		if len(j.large) >= largeKept {
			clear(j.large)
		}
		if j.large == nil {
			j.large = make(map[string]selector.Selector)
		}
		j.large[inv.Large.Hash] = s
		j.mu.Unlock()
	}
	inv.Selector, inv.unreadable = s, nil
	return nil
}

// largeKept is how many large selectors are kept in memory: those of the open
// invalidations are asked for every second.
const largeKept = 8
