// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cfpath

import "strings"

// A RootObject is the path of a distribution's default root object, such as
// "/index.html": what CloudFront asks the origin for in place of "/". AWS does not say
// under which of the two a viewer's "/" is kept, so they are one page here, with any
// query. The zero value is that there is none.
// https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/DefaultRootObject.html
type RootObject string

// ParseRootObject reads it as a distribution has it, without the leading slash.
// Empty is none. The error is an [*Error].
func ParseRootObject(name string) (RootObject, error) {
	if name == "" {
		return "", nil
	}
	switch i := strings.IndexAny(name, "?#*"); {
	case name[0] == '/':
		return "", &Error{Input: name, Reason: "a default root object has no leading '/'", Hint: `write it as the distribution has it: "index.html"`}
	case i >= 0:
		return "", &Error{Input: name, Pos: i, Reason: "a default root object is one file", Hint: `write it as the distribution has it: "index.html"`}
	}
	path, err := Canonical("/" + name)
	return RootObject(path), err
}

// Other returns the other path of the page, or false if a path is not the root
// object's.
func (r RootObject) Other(path string) (string, bool) {
	if r == "" {
		return "", false
	}
	if rest, ok := strings.CutPrefix(path, string(r)); ok && (rest == "" || rest[0] == '?') {
		return "/" + rest, true
	}
	if path == "/" || strings.HasPrefix(path, "/?") {
		return string(r) + path[1:], true
	}
	return "", false
}
