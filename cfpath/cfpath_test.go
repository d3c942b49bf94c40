// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package cfpath

import (
	"errors"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// anyText draws text in which the grammar's special cases are frequent.
func anyText() *rapid.Generator[string] {
	piece := rapid.OneOf(
		rapid.SampledFrom([]string{
			"/", "//", "/.", "/..", "/%2e%2E/", "?", "&", "=", "*", "~", "%7E", "%7e", "'", "%27", "@", "%", "%2", "%2f", "%2F", "%41",
			"%25", "%20", " ", "+", "#", `"`, "[", "]", "é", "%C3%A9", "%c3%a9", "%E9", "\xe9", "日本", "%E3%81%82", "-", ",", ":", "http://h",
		}),
		rapid.StringMatching(`[a-c]{1,3}`),
		rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 1, 2).Draw(t, "bytes")) }),
		rapid.Custom(func(t *rapid.T) string { return strings.Repeat("x", rapid.IntRange(3990, 4005).Draw(t, "length")) }),
	)
	return rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(piece, 0, 8).Draw(t, "pieces"), "")
	})
}

// anyPath draws canonical paths.
func anyPath() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		path, err := Canonical("/" + anyText().Draw(t, "text"))
		if err != nil {
			t.Skip("too long")
		}
		return path
	})
}

// wantError fails unless err is an *Error that points into the input and says all of its parts.
func wantError(t interface {
	Helper()
	Fatalf(string, ...any)
}, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v (%T) is not an *Error", err, err)
	}
	if e.Pos < 0 || e.Pos > len(e.Input) {
		t.Fatalf("position %d is outside the input of %d bytes", e.Pos, len(e.Input))
	}
	if e.Reason == "" || !strings.Contains(err.Error(), e.Reason) || !strings.Contains(err.Error(), e.Hint) ||
		!strings.Contains(err.Error(), quote(e.Input)) {
		t.Fatalf("%q does not say all of %+v", err, *e)
	}
}

func TestFromTarget(t *testing.T) {
	for _, c := range []struct{ name, target, want string }{
		{"origin form", "/a%20b?x=1", "/a%20b?x=1"},
		{"absolute form", "http://h/a?x", "/a?x"},
		{"absolute form, scheme in capitals", "HTTPS://h:8443/a", "/a"},
		{"absolute form without path", "http://h", "/"},
		{"absolute form with only a query", "http://h?x=1", "/?x=1"},
		{"absolute form with a URL in its query", "http://h?u=/b", "/?u=/b"},
		{"userinfo", "http://u:p@h/a", "/a"},
		{"two leading slashes are a path", "//h/a", "//h/a"},
		{"a URL as a path", "/http://h/a", "/http://h/a"},
		{"a target has no fragment", "/a#b", "/a%23b"},
		{"raw UTF-8", "/é", "/%C3%A9"},
		{"raw ISO-8859-1", "/\xe9", "/%E9"},
		{"dots and slashes arrive raw", "/a/../b//c/./", "/a/../b//c/./"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := FromTarget(c.target); got != c.want || err != nil {
				t.Errorf("FromTarget(%q) = %q, %v; want %q", c.target, got, err, c.want)
			}
		})
	}
	for _, c := range []struct {
		name, target string
		pos          int
	}{
		{"empty", "", 0},
		{"asterisk form", "*", 0},
		{"authority form", "h:443", 0},
		{"relative", "a/b", 0},
		{"another scheme", "ftp://h/a", 0},
		{"no host", "http:///a", 7},
		{"nothing but a scheme", "http://", 7},
		{"fragment after the host", "http://h#/a", 8},
		{"too long", "/" + strings.Repeat("a", MaxLength), MaxLength},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := FromTarget(c.target)
			if err == nil {
				t.Fatalf("FromTarget(%q) = %q, want an error", c.target, got)
			}
			wantError(t, err)
			var e *Error
			if errors.As(err, &e); e.Pos != c.pos {
				t.Errorf("position %d, want %d: %v", e.Pos, c.pos, err)
			}
		})
	}
}

// TestEncoding has a case for every row of what AWS, RFC 1738 and reports say
// about characters in an invalidation.
func TestEncoding(t *testing.T) {
	for _, c := range []struct{ name, path, want string }{
		{"letters, digits, -_. and slash", "/AZaz09-_./", "/AZaz09-_./"},
		{"? & = of a query", "/a?b=c&d=e?f", "/a?b=c&d=e?f"},
		{"safe, extra and reserved", "/;:+!(),$", "/;:+!(),$"},
		{"asterisk", "/a*b*", "/a*b*"},
		{"space", "/ ", "/%20"},
		{"less than", "/<", "/%3C"},
		{"greater than", "/>", "/%3E"},
		{"quotation mark", `/"`, "/%22"},
		{"number sign", "/#", "/%23"},
		{"left brace", "/{", "/%7B"},
		{"right brace", "/}", "/%7D"},
		{"vertical bar", "/|", "/%7C"},
		{"backslash", `/\`, "/%5C"},
		{"circumflex", "/^", "/%5E"},
		{"left bracket", "/[", "/%5B"},
		{"right bracket", "/]", "/%5D"},
		{"backtick", "/`", "/%60"},
		{"controls", "/\x00\t\n\x1f\x7f", "/%00%09%0A%1F%7F"},
		{"literal percent", "/100%", "/100%25"},
		{"percent and one hex digit", "/%4", "/%254"},
		{"percent and no hex digits", "/%zz%4g", "/%25zz%254g"},
		{"percent before an escape", "/%%41", "/%25%41"},
		{"escapes stay, with the case of their hex", "/%2f%2F%41%7E%25", "/%2f%2F%41%7E%25"},
		{"non-ASCII is UTF-8 as escapes", "/é日", "/%C3%A9%E6%97%A5"},
		{"what is not UTF-8 is kept byte by byte", "/\xff\xc3(", "/%FF%C3("},
		{"tilde stays: no spelling helps", "/~", "/~"},
		{"apostrophe", "/it's", "/it%27s"},
		{"at sign", "/@a", "/@a"},
		{"plus and %20 are what the viewer sent", "/a+b%20c", "/a+b%20c"},
		{"the same in the query", "/a?q=x y&[]='é'", "/a?q=x%20y&%5B%5D=%27%C3%A9%27"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Canonical(c.path)
			if got != c.want || err != nil {
				t.Fatalf("Canonical(%q) = %q, %v; want %q", c.path, got, err, c.want)
			}
			// What CloudFront refuses is refused as an item, and named after encoding.
			_, errRaw := ParseItem(c.path)
			_, errDone := ParseItem(got)
			if tilde := strings.Contains(got, "~"); (errRaw == nil) != (c.path == c.want && !tilde) || (errDone == nil) == tilde {
				t.Errorf("as items: %q gives %v, %q gives %v", c.path, errRaw, got, errDone)
			}
		})
	}
}

func TestCanonicalErrors(t *testing.T) {
	for _, c := range []struct{ name, path, hint string }{
		{"empty", "", `"/"`},
		{"no slash", "a", `"/"`},
		{"URL", "https://h/a", "scheme and host"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Canonical(c.path)
			wantError(t, err)
			if !strings.Contains(err.Error(), c.hint) {
				t.Errorf("%v has no hint about %s", err, c.hint)
			}
		})
	}
}

func TestCanonicalLength(t *testing.T) {
	for _, c := range []struct {
		name, unit string
		n          int
		ok         bool
	}{
		{"longest", "a", MaxLength - 1, true},
		{"too long", "a", MaxLength, false},
		{"longest raw", "'", MaxLength - 1, true},
		{"too long raw", "'", MaxLength, false},
		{"escapes that may have been raw", "%27", MaxLength - 1, true},
		{"too many of them", "%27", MaxLength, false},
		{"escapes that the viewer sent", "%41", MaxLength/3 + 1, false},
		{"far too long", "a", 1 << 20, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			once, err := Canonical("/" + strings.Repeat(c.unit, c.n))
			if (err == nil) != c.ok {
				t.Fatalf("error %v", err)
			}
			if err != nil {
				wantError(t, err)
				if len(err.Error()) > 400 {
					t.Errorf("message of %d bytes", len(err.Error()))
				}
			} else if twice, err := Canonical(once); twice != once || err != nil {
				t.Errorf("not idempotent: %v", err)
			}
		})
	}
}

// slowCanonical follows the definition by other means.
func slowCanonical(path string) string {
	raw := regexp.MustCompile(`(?s)%[0-9A-Fa-f]{2}|.|\n`)
	var out strings.Builder
	for i := 0; i < len(path); {
		unit := path[i : i+1]
		if m := raw.FindString(path[i:]); len(m) == 3 && m[0] == '%' {
			unit = m
		}
		i += len(unit)
		if len(unit) == 3 || unit[0] > ' ' && unit[0] < 0x7F && !strings.Contains("<>\"#%{}|\\^[]`'", unit) {
			out.WriteString(unit)
		} else {
			out.WriteString("%" + strings.ToUpper(url.PathEscape("\x80" + unit)[4:]))
		}
	}
	return out.String()
}

func checkCanonical(t interface {
	Helper()
	Fatalf(string, ...any)
}, path string) {
	t.Helper()
	got, err := Canonical(path)
	if err != nil {
		wantError(t, err)
		if strings.HasPrefix(path, "/") && len(path) <= MaxLength {
			t.Fatalf("Canonical(%q): %v", path, err)
		}
		return
	}
	if again, err := Canonical(got); again != got || err != nil {
		t.Fatalf("not idempotent: %q, then %q, then %q, %v", path, got, again, err)
	}
	if lossless, err := url.PathUnescape(got); err != nil || lossless != lenient(path) {
		t.Fatalf("Canonical(%q) = %q stands for %q, %v", path, got, lossless, err)
	}
	if target, err := FromTarget(path); target != got || err != nil {
		t.Fatalf("FromTarget(%q) = %q, %v; Canonical gives %q", path, target, err, got)
	}
	_, err = ParseItem(got)
	if want := len(got) <= MaxItemLength && !strings.Contains(got, "~"); (err == nil) != want {
		t.Fatalf("ParseItem(%q): %v", got, err)
	}
}

// lenient decodes escapes and keeps a '%' that begins none.
func lenient(s string) string {
	return regexp.MustCompile(`%[0-9A-Fa-f]{2}`).ReplaceAllStringFunc(s, func(e string) string {
		raw, _ := url.PathUnescape(e)
		return raw
	})
}

func TestCanonicalProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		path := "/" + anyText().Draw(t, "path")
		checkCanonical(t, path)
		if got, err := Canonical(path); err == nil && got != slowCanonical(path) {
			t.Fatalf("Canonical(%q) = %q, want %q", path, got, slowCanonical(path))
		}
	})
}

func FuzzCanonical(f *testing.F) {
	for _, s := range []string{"/", "/a b", "/%", "/%2", "/%zz", "/\xff", "/a?b#c", "a", "", "http://h/a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) { checkCanonical(t, path) })
}

func FuzzFromTarget(f *testing.F) {
	for _, s := range []string{"/", "*", "http://h", "HTTP://h/?", "https://?", "http://h#", "//", "h:443"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		path, err := FromTarget(target)
		if err != nil {
			wantError(t, err)
			return
		}
		if again, err := FromTarget(path); again != path || err != nil {
			t.Fatalf("FromTarget(%q) = %q, which is not canonical: %q, %v", target, path, again, err)
		}
		// The query is all that follows the first '?', whatever the form.
		_, query, has := strings.Cut(target, "?")
		if _, got, gotHas := Split(path); got != encode(query) || gotHas != has {
			t.Fatalf("FromTarget(%q) = %q has another query", target, path)
		}
	})
}

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		path, stem, query string
		has               bool
	}{
		{"/a", "/a", "", false},
		{"/a?", "/a", "", true},
		{"/a?b?c", "/a", "b?c", true},
		{"/a%3Fb", "/a%3Fb", "", false},
	} {
		if stem, query, has := Split(c.path); stem != c.stem || query != c.query || has != c.has {
			t.Errorf("Split(%q) = %q, %q, %t", c.path, stem, query, has)
		}
	}
}

func TestStripOrigin(t *testing.T) {
	for _, c := range []struct {
		name, origin, path, want string
		ok                       bool
	}{
		{"no origin path", "", "/a", "/a", true},
		{"slash", "/", "/a", "/a", true},
		{"prefix", "/production", "/production/a?b", "/a?b", true},
		{"root", "/production", "/production/", "/", true},
		{"only once", "/p", "/p/p/a", "/p/a", true},
		{"several segments", "/p/q", "/p/q/a", "/a", true},
		{"origin path alone", "/production", "/production", "", false},
		{"origin path and query", "/production", "/production?a", "", false},
		{"longer segment", "/production", "/productions/a", "", false},
		{"another case", "/production", "/Production/a", "", false},
		{"not there", "/production", "/a/production/a", "", false},
		{"slashes do not matter", "production/", "/production/a", "/a", true},
		{"encoded as paths are", "/pro duction", "/pro%20duction/a", "/a", true},
		{"no path", "", "a", "a", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, ok := StripOrigin(c.origin, c.path); got != c.want || ok != c.ok {
				t.Errorf("StripOrigin(%q, %q) = %q, %t", c.origin, c.path, got, ok)
			}
		})
	}
	rapid.Check(t, func(t *rapid.T) {
		origin, path := anyPath().Draw(t, "origin"), anyPath().Draw(t, "path")
		origin, _, _ = Split(origin)
		origin = strings.TrimRight(origin, "/")
		if strings.HasPrefix(origin, "//") {
			t.Skip("no origin path begins with two slashes")
		}
		if got, ok := StripOrigin(origin, origin+path); got != path || !ok {
			t.Fatalf("StripOrigin(%q, %q) = %q, %t", origin, origin+path, got, ok)
		}
	})
}
