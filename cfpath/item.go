// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cfpath

import (
	"fmt"
	"strings"
)

// MaxTagLength is the length of the longest cache tag, in characters.
const MaxTagLength = 256

// Kind is what an item names.
type Kind uint8

// The kinds of items.
const (
	Path     Kind = iota // one path
	Wildcard             // every path with a prefix
	Tag                  // every object with a cache tag
)

// String returns "path", "wildcard" or "tag".
func (k Kind) String() string {
	switch k {
	case Path:
		return "path"
	case Wildcard:
		return "wildcard"
	case Tag:
		return "tag"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// MarshalText implements [encoding.TextMarshaler].
func (k Kind) MarshalText() ([]byte, error) {
	if k > Tag {
		return nil, &Error{k.String(), 0, "unknown kind of item", "kinds are path, wildcard and tag"}
	}
	return []byte(k.String()), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (k *Kind) UnmarshalText(text []byte) error {
	for _, known := range [...]Kind{Path, Wildcard, Tag} {
		if string(text) == known.String() {
			*k = known
			return nil
		}
	}
	return &Error{string(text), 0, "unknown kind of item", "kinds are path, wildcard and tag"}
}

// Item is one billed unit of an invalidation. Items can be compared with ==,
// but tags differing in case only are the same to CloudFront, see [Item.Covers].
type Item struct {
	Kind Kind
	Text string // a wildcard's without its trailing '*', a tag's without its '#'
}

// ParseItem reads an item as CloudFront's API takes it: a path that begins
// with '/', a wildcard if it ends in '*', or "#tag"
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/invalidation-by-tags.html).
// It accepts what CloudFront accepts: a '*' elsewhere, which is just a
// character, and %7E, although that removes nothing. The error is an [*Error].
func ParseItem(s string) (Item, error) {
	if tag, ok := strings.CutPrefix(s, "#"); ok {
		return parseTag(s, tag)
	}
	if !strings.HasPrefix(s, "/") {
		return Item{}, &Error{s, 0, "an item begins with '/' or '#'", `write "/" and then what follows the host name, or "#" and a tag`}
	}
	for i := range len(s) {
		switch {
		case s[i] == '~':
			return Item{}, &Error{s, i, "CloudFront refuses '~', and removes nothing for %7E", "use a wildcard that ends before it, or a tag"}
		case s[i] == '%' && encodes(s, i):
			return Item{}, &Error{s, i, "'%' begins no escape", "write %25 for a literal '%'"}
		case s[i] != '%' && refused(s[i]):
			return Item{}, &Error{s, i, fmt.Sprintf("CloudFront refuses %q unencoded", s[i:i+1]), fmt.Sprintf("write %%%02X", s[i])}
		}
	}
	if len(s) > MaxItemLength {
		return Item{}, &Error{s, MaxItemLength, fmt.Sprintf("an item has at most %d characters", MaxItemLength), "use a wildcard with a shorter prefix, or a tag"}
	}
	if stem, ok := strings.CutSuffix(s, "*"); ok {
		return Item{Wildcard, stem}, nil
	}
	return Item{Path, s}, nil
}

func parseTag(s, tag string) (Item, error) {
	const hint = "a tag has visible ASCII characters without ','"
	if tag == "" {
		return Item{}, &Error{s, 1, "empty tag", hint}
	}
	for i := range len(tag) {
		if c := tag[i]; c <= ' ' || c >= 0x7F || c == ',' {
			return Item{}, &Error{s, 1 + i, fmt.Sprintf("%q cannot be in a tag", tag[i:i+1]), hint}
		}
	}
	if len(tag) > MaxTagLength {
		return Item{}, &Error{s, 1 + MaxTagLength, fmt.Sprintf("a tag has at most %d characters", MaxTagLength), "use a shorter tag, on the objects too"}
	}
	return Item{Tag, tag}, nil
}

// String returns the item as it is sent.
func (it Item) String() string {
	switch it.Kind {
	case Wildcard:
		return it.Text + "*"
	case Tag:
		return "#" + it.Text
	}
	return it.Text
}

// Matches tells whether by AWS's wording the item removes the path: a path
// equals it byte by byte, a wildcard is a prefix of it, query string included, so that
// "/dir/*" matches "/dir/". A tag matches no path.
func (it Item) Matches(path string) bool {
	switch it.Kind {
	case Path:
		return it.Text == path
	case Wildcard:
		return strings.HasPrefix(path, it.Text)
	}
	return false
}

// MatchesSurely is Matches where that is confirmed. It is false for
//
//   - an exact item whose spelling is [InDoubt];
//   - a wildcard whose stem reaches beyond the first such doubt in the path, or ends
//     between the bytes of one character;
//   - "/dir/*" for "/dir/", which it was seen to leave alone
//     (https://github.com/pulumi/docs/pull/21786); "/*" for "/" is sure, since it is the whole distribution;
//   - an item that cannot be sent or removes nothing, such as one with %7E.
func (it Item) MatchesSurely(path string) bool {
	if !it.Matches(path) {
		return false
	}
	if it.Kind == Path {
		_, troubled := findTrouble(path)
		return !troubled && !InDoubt(path)
	}
	n := len(it.Text)
	return ValidStem(it.Text) && n <= findDoubt(path) && surely(path, n)
}

// Covers tells whether the item matches every path that other matches, in the
// sense of Matches: "/dir/*" covers "/dir/". A tag covers the same tag, case
// ignored; of the other kinds only "/*" covers a tag, being the whole distribution.
func (it Item) Covers(other Item) bool {
	switch {
	case it.Kind == Wildcard && other.Kind == Tag:
		return it.Text == "/"
	case it.Kind == Wildcard:
		return strings.HasPrefix(other.Text, it.Text)
	case it.Kind == Tag && other.Kind == Tag:
		return strings.EqualFold(it.Text, other.Text)
	}
	return it == other
}
