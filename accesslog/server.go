// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package accesslog

import "bytes"

// combined reads the common and combined formats, with or without the virtual
// host in front:
//
//	host:port 192.0.2.1 - user [02/Jan/2006:15:04:05 -0700] "GET /a HTTP/1.1" 200 5 "referrer" "agent"
//
// Apache writes when the request began
// (https://httpd.apache.org/docs/2.4/mod/mod_log_config.html), nginx when it
// ended (https://nginx.org/en/docs/http/ngx_http_log_module.html), and nothing
// in the line tells which of them wrote it.
func (r *Reader) combined(line []byte, dst *Line) reason {
	var s seen
	head, request, tail, at, why := r.splitCombined(line)
	if why != "" {
		return r.wrong(why)
	}
	s.status, _ = status(tail)
	if first, _, _ := bytes.Cut(head, []byte{' '}); bytes.Count(head, []byte{' '}) > 3 && isVirtualHost(first) {
		s.host = first
	}
	r.instant(&s, at)
	r.scratch = unescape(r.scratch[:0], request)
	var ok bool
	if s.method, r.key, ok = splitRequest(r.key[:0], r.scratch); !ok {
		return skipNoRequest
	}
	return r.server(&s, dst)
}

// splitCombined returns what is before the time, the request as it is escaped,
// what follows, with the status first, and the time; or what is wrong with the
// line.
func (r *Reader) splitCombined(line []byte) (head, request, tail []byte, at int64, why string) {
	// A quote in a user's name is escaped: the first one opens the request.
	head, rest, ok := bytes.Cut(line, []byte(`] "`))
	open := bytes.LastIndexByte(head, '[')
	if !ok || open < 0 {
		return nil, nil, nil, 0, `no [time] "request" in the line`
	}
	if at, ok = r.dates.common(head[open+1:]); !ok {
		return nil, nil, nil, 0, "the time is not like [02/Jan/2006:15:04:05 -0700]"
	}
	size := quoted(rest)
	if size < 0 {
		return nil, nil, nil, 0, "the request has no closing quote"
	}
	if _, ok = status(rest[size+1:]); !ok {
		return nil, nil, nil, 0, "no status after the request"
	}
	return head[:open], rest[:size], rest[size+1:], at, ""
}

// isVirtualHost tells "host:port" from a client's address, which has no port; an
// IPv6 address has more than one colon.
func isVirtualHost(b []byte) bool {
	host, port, ok := bytes.Cut(b, []byte{':'})
	return ok && len(host) > 0 && number(port) >= 0
}

// quoted returns the length of a quoted string up to its closing quote, or -1.
func quoted(b []byte) int {
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			return i
		case '\\':
			i++
		}
	}
	return -1
}

// status reads " 200 " at the beginning of b. A "-" is a status too: none, 0.
func status(b []byte) (int, bool) {
	if len(b) < 2 || b[0] != ' ' {
		return 0, false
	}
	b, _, _ = bytes.Cut(b[1:], []byte{' '})
	if string(b) == "-" {
		return 0, true
	}
	n := number(b)
	return n, n >= 0 && len(b) == 3
}

// unescape appends b to dst without the escapes of Apache and nginx: \xHH, \"
// and \\, and C's for controls. Any other backslash stands for itself.
func unescape(dst, b []byte) []byte {
	for {
		i := bytes.IndexByte(b, '\\')
		if i < 0 || i+1 == len(b) {
			return append(dst, b...)
		}
		dst = append(dst, b[:i]...)
		c, n := b[i], 1
		switch e := b[i+1]; e {
		case '"', '\\':
			c, n = e, 2
		case 'x':
			if v, ok := hex(b[i+2:], 2); ok {
				c, n = byte(v), 4
			}
		default:
			if v := control(e); v != 0 {
				c, n = v, 2
			}
		}
		dst, b = append(dst, c), b[i+n:]
	}
}

// control returns the control character that C escapes with e, or 0.
func control(e byte) byte {
	switch e {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'v':
		return '\v'
	}
	return 0
}

func hex(b []byte, n int) (v rune, ok bool) {
	if len(b) < n {
		return 0, false
	}
	for _, c := range b[:n] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		v = v<<4 | rune(c)
	}
	return v, true
}

// splitRequest splits a request line, appending its target to key. A target may
// contain spaces, which some servers let pass; without a protocol it is HTTP/0.9.
func splitRequest(key, line []byte) (method, target []byte, ok bool) {
	method, rest, ok := bytes.Cut(line, []byte{' '})
	if !ok || len(method) == 0 {
		return nil, key, false
	}
	for _, c := range method {
		if c < 'A' || c > 'Z' {
			return nil, key, false
		}
	}
	if i := bytes.LastIndex(rest, []byte(" HTTP/")); i >= 0 {
		rest = rest[:i]
	}
	return method, append(key, rest...), len(rest) > 0
}
