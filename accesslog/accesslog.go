// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package accesslog reads access logs into sightings: those of CloudFront
// itself, and those of the web servers behind it.
//
// A [Reader] reads one source. It finds out whether the source is compressed
// and in which format it is, and gives one outcome for every line: recorded,
// skipped for a reason, or malformed. No line stops it and none is passed over
// in silence; only an unreadable source, or one in no known format, is an
// error.
//
// Logs say less than a recorder inside a server: most lines carry neither the
// lifetime of the response nor when it began. What a line leaves open is
// widened outward, so that a sighting stands for at least what CloudFront may
// hold, and [Line] says which of its parts are assumed. The log formats in
// formats.md leave nothing open. Logs are best effort, CloudFront's own
// included
// (https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/AccessLogs.html):
// they add to an inventory and never make it complete.
package accesslog

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/inventory"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
)

// A Format is how the lines of a log are written.
type Format string

const (
	// CloudFront is CloudFront's standard log: W3C extended, tab-separated, its
	// fields named by a #Fields line in any order. Without that line the
	// documented order is taken.
	CloudFront Format = "cloudfront"
	// CFTrack is the JSON that formats.md has nginx and Apache write.
	CFTrack Format = "cftrack"
	// Caddy is Caddy's own JSON access log.
	Caddy Format = "caddy"
	// Combined is the format of that name of Apache and nginx, also with the
	// virtual host in front (vhost_combined).
	Combined Format = "combined"
	// Common is Combined without referrer and user agent.
	Common Format = "common"
	// List is what "cftrack list --output json" prints.
	List Format = "list"
)

// Formats returns all formats, the most telling first.
func Formats() []Format {
	return []Format{CloudFront, CFTrack, Caddy, Combined, Common, List}
}

// ParseFormat reads the name of a format. "nginx" and "apache" are names of
// CFTrack; "" is "", to be found out from the content.
func ParseFormat(s string) (Format, error) {
	switch s {
	case "":
		return "", nil
	case "nginx", "apache":
		return CFTrack, nil
	}
	for _, f := range Formats() {
		if s == string(f) {
			return f, nil
		}
	}
	return "", fmt.Errorf("unknown log format %q: write one of %s, nginx, apache, or leave it out", s, formatNames())
}

func formatNames() string {
	var b strings.Builder
	for i, f := range Formats() {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(f))
	}
	return b.String()
}

// Widen is how far a time that a line does not tell is moved outward: a
// response is taken to have lasted no longer.
const Widen = 60 * time.Second

// Options say how to read a log. The zero value is ready to use.
type Options struct {
	// Format of the lines; "" is found out from the content.
	Format Format
	// Rules decide what CloudFront keeps and for how long. Nil is
	// [lifetime.DefaultRules]. They are not changed.
	Rules *lifetime.Rules
	// TTL, if not 0, is the lifetime of every line, whatever its headers say; the
	// longest possible is until it is purged.
	// What CloudFront would not keep is skipped all the same.
	TTL time.Duration
	// Margin is the longest time between the end of a line and the moment when
	// CloudFront has the last byte: that is when a life begins to count. An expiry
	// that a list states is past it already. Default 2 s; negative: none.
	Margin time.Duration
	// OriginPath is what CloudFront puts before the path on its way to this
	// origin, such as "/production". It is taken off; other paths are skipped as
	// "origin-path". It does not concern CloudFront's own logs and lists.
	OriginPath string
	// Now is store time when the source was opened, after everything in it had
	// been written (see [Reader.SetNow] for one that still grows). Lines whose
	// lifetime was over by then are skipped as "expired", and no end is widened
	// beyond it. Zero switches both off.
	Now time.Time
	// Hosts, if any, are the only hosts whose lines count; "*.example.com" is
	// every name under example.com. Case and port do not matter. A line that
	// names no host always counts.
	Hosts []string
	// TagHeader names the response header that carries the tags, or several,
	// separated by commas. Default: Cache-Tag and Surrogate-Key. Tags are separated
	// by commas, in Surrogate-Key and Xkey also by spaces.
	TagHeader string
}

// A Line is what one line of a log says.
type Line struct {
	// Sighting is the response. Its strings and its Tags may be shared with other
	// lines: they stay valid, and must not be changed.
	Sighting inventory.Sighting
	// StartAssumed says that the line does not tell when the origin began the
	// response: Start is [Widen] before the earliest instant that is known.
	StartAssumed bool
	// LifetimeAssumed says that the line does not tell the lifetime: it is what
	// the rules give a response of which only the path and the status are known.
	LifetimeAssumed bool
	// Folded says that the sighting stands for every path that begins with its
	// path. It comes from lists alone.
	Folded bool
	// Mixed says that no native tag is known to cover what CloudFront holds: the
	// tags came in several header lines, of which it may have read but one, or
	// are a list's union.
	Mixed bool
}

// Record returns the record of the line alone.
func (l *Line) Record() inventory.Record {
	r := l.Sighting.Record()
	r.Folded = r.Folded || l.Folded
	r.Mixed = r.Mixed || l.Mixed
	return r
}

// An Outcome is what became of a line.
type Outcome uint8

const (
	// Recorded lines are sightings.
	Recorded Outcome = iota
	// Skipped lines are well-formed and stand for nothing that CloudFront keeps;
	// [Reader.Why] has the reason, one of a fixed set of words.
	Skipped
	// Malformed lines could not be read; [Reader.Why] says why.
	Malformed
)

// String returns "recorded", "skipped" or "malformed".
func (o Outcome) String() string {
	switch o {
	case Recorded:
		return "recorded"
	case Skipped:
		return "skipped"
	case Malformed:
		return "malformed"
	}
	return fmt.Sprintf("Outcome(%d)", uint8(o))
}

// A Problem is a malformed line.
type Problem struct {
	Name string // of the source
	Line int    // counted from 1
	Why  string
}

// String returns the problem as "name:line: why".
func (p Problem) String() string { return fmt.Sprintf("%s:%d: %s", p.Name, p.Line, p.Why) }

// MaxProblems is how many malformed lines a [Summary] describes; all are
// counted.
const MaxProblems = 10

// A Summary counts the lines of a source. Lines is always the sum of Recorded,
// everything in Skipped, and Malformed.
type Summary struct {
	Name      string
	Format    Format // "" while it is not known
	Lines     int
	Comments  int // blank lines and lines that begin with '#', not in Lines
	Recorded  int
	Skipped   map[string]int // by reason
	Malformed int
	Problems  []Problem // the first [MaxProblems]
	Bytes     int64     // read from the source, before decompression
}

// reason is why a line is not a sighting.
type reason uint8

const (
	none reason = iota
	skipMethod
	skipStatus
	skipNotKept
	skipExpired
	skipHost
	skipOriginPath
	skipNoRequest
	skipTooLong
	skipProtocol
	skipRedirect
	skipLimit
	skipCapacity
	skipInvalid
	skipBlocked
	skipNotAccess
	malformed
)

var reasonNames = [malformed]string{
	skipMethod:     "method",            // neither GET nor HEAD, nor OPTIONS where that is cached
	skipStatus:     "status",            // a status that CloudFront does not keep
	skipNotKept:    "not-kept",          // its headers or the behaviour forbid it
	skipExpired:    "expired",           // its lifetime is over
	skipHost:       "other-host",        // not among Options.Hosts
	skipOriginPath: "origin-path",       // not under Options.OriginPath
	skipNoRequest:  "no-request",        // nothing that CloudFront would send
	skipTooLong:    "too-long",          // longer than CloudFront passes on
	skipProtocol:   "protocol",          // WebSocket or gRPC
	skipRedirect:   "redirect",          // CloudFront's own, to HTTPS
	skipLimit:      "limit-exceeded",    // answered by CloudFront, no object
	skipCapacity:   "capacity-exceeded", // likewise
	skipInvalid:    "invalid-request",   // likewise
	skipBlocked:    "blocked",           // likewise
	skipNotAccess:  "not-access",        // another kind of record between access records
}

// Reader reads one log. It is not safe for concurrent use, [Reader.Bytes]
// apart. It starts no goroutine and need not be closed; closing the source is
// the caller's.
type Reader struct {
	name string
	opts Options
	src  source
	err  error // sticky

	format   Format
	tries    int // lines that no format has read yet
	why      string
	comments int
	recorded int
	skipped  [malformed]int
	bad      int
	problems []Problem

	rules      *lifetime.Rules
	ownRules   lifetime.Rules
	tagHeaders []tagHeader
	now        int64 // UnixNano; 0 is unknown
	hosts      map[string]bool
	fields     fields
	dates      dates
	paths      map[string]target
	pathBytes  int
	texts      map[string]string
	tags       map[string][]string
	header     header
	key        []byte // of paths
	tagged     []byte // of tags
	tagLines   int    // that are in it
	json       scanner
	scratch    []byte
}

// NewReader returns a reader of r. Its name appears in problems and errors. Nil
// options are the zero Options.
func NewReader(r io.Reader, name string, opts *Options) *Reader {
	rd := &Reader{
		name: name, src: source{r: r},
		hosts: map[string]bool{}, paths: map[string]target{}, texts: map[string]string{}, tags: map[string][]string{},
	}
	if opts != nil {
		rd.opts = *opts
	}
	rd.rules = rd.opts.Rules
	if rd.rules == nil {
		rd.ownRules = lifetime.DefaultRules()
		rd.rules = &rd.ownRules
	}
	var err error
	if rd.format, err = ParseFormat(string(rd.opts.Format)); err != nil {
		rd.err = err
	}
	rd.opts.Margin = max(0, cmp.Or(rd.opts.Margin, lifetime.DefaultMargin))
	rd.fields.reset()
	rd.tagHeaders = tagHeaders(rd.opts.TagHeader)
	rd.SetNow(rd.opts.Now)
	return rd
}

// SetNow changes Options.Now, for a source that grows while it is read.
func (r *Reader) SetNow(now time.Time) {
	r.now = 0
	if !now.IsZero() {
		r.now = now.UnixNano()
	}
}

// Next reads up to the next line that is not blank or a comment, and says what
// became of it. Only after Recorded is dst meaningful.
//
// At the end the error is [io.EOF]. Any other error says that the rest of the
// source cannot be read: what came before it counts.
func (r *Reader) Next(dst *Line) (Outcome, error) {
	for r.err == nil {
		line, tooLong, err := r.src.next()
		if err != nil && len(line) == 0 {
			r.err = r.ended(err)
			break
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return r.malformed("the source breaks off inside this line"), nil
		}
		if tooLong {
			return r.malformed(fmt.Sprintf("longer than %d bytes: no server writes such a line", maxLine)), nil
		}
		line = trim(line)
		if len(line) == 0 || line[0] == '#' {
			if why := r.comment(line); why != "" {
				return r.malformed(why), nil
			}
			r.comments++
			continue
		}
		switch why := r.parse(line, dst); why {
		case none:
			r.recorded++
			return Recorded, nil
		case malformed:
			return r.malformed(r.why), nil
		default:
			r.skipped[why]++
			r.why = reasonNames[why]
			return Skipped, nil
		}
	}
	return Malformed, r.err
}

// Why returns the reason of the last line that was skipped, or what is wrong
// with the last one that was malformed.
func (r *Reader) Why() string { return r.why }

// Bytes returns how much has been read from the source, before decompression.
// It may be called while another goroutine is in Next.
func (r *Reader) Bytes() int64 { return r.src.read.Load() }

// Summary returns what has been read so far.
func (r *Reader) Summary() Summary {
	s := Summary{
		Name: r.name, Format: r.format, Comments: r.comments, Recorded: r.recorded, Malformed: r.bad,
		Lines: r.recorded + r.bad, Skipped: map[string]int{}, Problems: append([]Problem(nil), r.problems...), Bytes: r.Bytes(),
	}
	for i, n := range r.skipped {
		if n > 0 {
			s.Skipped[reasonNames[i]] = n
			s.Lines += n
		}
	}
	return s
}

func (r *Reader) malformed(why string) Outcome {
	r.why = why
	r.bad++
	if len(r.problems) < MaxProblems {
		r.problems = append(r.problems, Problem{r.name, r.src.line, why})
	}
	return Malformed
}

// ended turns the end of the source into the reader's error.
func (r *Reader) ended(err error) error {
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: unreadable after line %d (%w): the lines before it count, read the source again once it is whole", r.name, r.src.line, err)
	}
	if r.format == "" && r.tries > 0 {
		return r.unknownFormat()
	}
	return io.EOF
}

func (r *Reader) unknownFormat() error {
	return fmt.Errorf("%s: in no known log format (%s): name the format, or decompress the file if it is not gzip", r.name, formatNames())
}

// maxTries is how many lines may pass before the format must be known: a
// rotated file can begin in the middle of a line.
const maxTries = 20

func (r *Reader) parse(line []byte, dst *Line) reason {
	if r.format == "" {
		if r.format = r.detect(line); r.format == "" {
			if r.tries++; r.tries == maxTries {
				r.err = r.unknownFormat()
			}
			return r.wrong("in no known log format")
		}
	}
	switch r.format {
	case CloudFront:
		return r.cloudFront(line, dst)
	case CFTrack:
		return r.cftrack(line, dst)
	case Caddy:
		return r.caddy(line, dst)
	case List:
		return r.list(line, dst)
	}
	return r.combined(line, dst)
}

func (r *Reader) wrong(why string) reason {
	r.why = why
	return malformed
}
