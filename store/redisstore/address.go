// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package redisstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// A config is an address, taken apart.
type config struct {
	shown  string // for people, without secrets
	prefix string

	hosts            []string
	socket           bool
	db               int
	tls              *tls.Config
	cluster          bool
	sentinel         string
	sentinelUsername string
	sentinelPassword string

	username, password, passwordFile string

	dialTimeout, timeout time.Duration
}

// errAddress is all that is said of an address that is none: the parser's own
// words may quote a password.
var errAddress = errors.New("redisstore: the address is not of the form redis://user:password@host:6379/0?prefix=cftrack " +
	"(characters such as / # ? @ % in a user name or password are written as %XX)")

func parse(address string, o Options) (config, error) {
	c := config{
		prefix: "cftrack", username: o.Username, password: o.Password,
		dialTimeout: or(o.DialTimeout, 2*time.Second), timeout: or(o.Timeout, 5*time.Second),
	}
	u, err := url.Parse(address)
	if err != nil || u.Opaque != "" || u.Fragment != "" {
		return c, errAddress
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return c, errAddress
	}
	if u.User != nil {
		if name := u.User.Username(); name != "" {
			c.username = name
		}
		if password, ok := u.User.Password(); ok {
			c.password = password
		}
	}
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	switch u.Scheme {
	case "redis", "rediss":
		if c.hosts, err = hosts(u.Host, q.Get("sentinel") != ""); err != nil {
			return c, err
		}
		if db := strings.Trim(u.Path, "/"); db != "" {
			if q.Has("db") {
				return c, errors.New("redisstore: the address names a database twice: in its path and as db=")
			}
			q.Set("db", db)
		}
	case "redis+unix":
		if u.Host != "" || u.Path == "" {
			return c, errors.New("redisstore: the address of a socket is of the form redis+unix:///path/of/socket?db=0")
		}
		c.hosts, c.socket = []string{u.Path}, true
	default:
		return c, fmt.Errorf("redisstore: the address begins with %q, want redis, rediss or redis+unix", u.Scheme)
	}
	if u.Scheme == "rediss" {
		c.tls = &tls.Config{MinVersion: tls.VersionTLS12}
		if o.TLS != nil {
			c.tls = o.TLS.Clone()
		}
	}
	for key, values := range q {
		if len(values) != 1 {
			return c, fmt.Errorf("redisstore: option %s occurs %d times in the address", key, len(values))
		}
		if err := c.set(key, values[0]); err != nil {
			return c, err
		}
	}
	switch {
	case c.cluster && c.sentinel != "":
		return c, errors.New("redisstore: cluster and sentinel exclude each other")
	case c.cluster && c.db != 0:
		return c, errors.New("redisstore: a Cluster has no database but 0; use prefix to keep stores apart")
	case c.socket && (c.cluster || c.sentinel != ""):
		return c, errors.New("redisstore: a socket reaches one server: neither cluster nor sentinel")
	case len(c.hosts) > 1 && !c.cluster && c.sentinel == "":
		return c, errors.New("redisstore: several hosts need cluster=true or sentinel=NAME")
	case c.password != "" && c.passwordFile != "":
		return c, errors.New("redisstore: there is both a password and a password_file")
	}
	show := url.Values{}
	for _, key := range []string{"prefix", "cluster", "sentinel"} {
		if q.Has(key) {
			show.Set(key, q.Get(key))
		}
	}
	if c.socket && c.db != 0 {
		show.Set("db", strconv.Itoa(c.db))
	} else if !c.socket && c.db != 0 {
		shown.Path = "/" + strconv.Itoa(c.db)
	}
	shown.RawQuery = show.Encode()
	c.shown = shown.String()
	return c, nil
}

// set takes one option of the query.
func (c *config) set(key, value string) error {
	var err error
	switch key {
	case "prefix":
		if c.prefix = value; value == "" || strings.ContainsAny(value, "{}") {
			err = errors.New("must be something without braces")
		}
	case "username":
		c.username = value
	case "password_file":
		c.passwordFile = value
	case "db":
		if c.db, err = strconv.Atoi(value); err != nil || c.db < 0 {
			err = errors.New("must be a number from 0 on")
		}
	case "cluster":
		if c.cluster, err = strconv.ParseBool(value); err != nil {
			err = errors.New("must be true or false")
		}
	case "sentinel":
		c.sentinel = value
	case "sentinel_username":
		c.sentinelUsername = value
	case "sentinel_password_file":
		c.sentinelPassword, err = readPassword(value)
	case "ca_file":
		err = c.trust(value)
	case "dial_timeout":
		c.dialTimeout, err = duration(value)
	case "timeout":
		c.timeout, err = duration(value)
	default:
		return fmt.Errorf("redisstore: unknown option %q in the address; there are prefix, username, password_file, db, cluster, "+
			"sentinel, sentinel_username, sentinel_password_file, ca_file, dial_timeout and timeout", key)
	}
	if err != nil {
		return fmt.Errorf("redisstore: option %s: %w", key, err)
	}
	return nil
}

func (c *config) trust(file string) error {
	if c.tls == nil {
		return errors.New("needs an address that begins with rediss")
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	c.tls.RootCAs = x509.NewCertPool()
	if !c.tls.RootCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s holds no certificate", file)
	}
	return nil
}

func duration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, errors.New("must be a duration such as 2s")
	}
	return d, nil
}

func or(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

// hosts splits host[:port],… and adds the ports that are missing.
func hosts(list string, sentinel bool) ([]string, error) {
	port := "6379"
	if sentinel {
		port = "26379"
	}
	if list == "" {
		list = "localhost"
	}
	var all []string
	for h := range strings.SplitSeq(list, ",") {
		if _, _, err := net.SplitHostPort(h); err != nil {
			h = net.JoinHostPort(strings.Trim(h, "[]"), port)
		}
		if host, p, err := net.SplitHostPort(h); err != nil || host == "" || p == "" {
			return nil, fmt.Errorf("redisstore: %q is not host or host:port", h)
		}
		all = append(all, h)
	}
	return all, nil
}

func readPassword(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("the password's file: %w", err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// A login says what to authenticate with.
type login struct {
	config *config
	// nameless: the server does not know the user name but takes the password.
	nameless atomic.Bool
}

func (l *login) credentials(context.Context) (username, password string, err error) {
	username, password = l.config.username, l.config.password
	if l.config.passwordFile != "" {
		if password, err = readPassword(l.config.passwordFile); err != nil {
			return "", "", err
		}
	}
	if password == "" || l.nameless.Load() {
		username = ""
	}
	return username, password, nil
}

func (c *config) client(l *login) redis.UniversalClient {
	o := redis.UniversalOptions{
		Addrs: c.hosts, DB: c.db, TLSConfig: c.tls,
		IsClusterMode: c.cluster, MasterName: c.sentinel,
		SentinelUsername: c.sentinelUsername, SentinelPassword: c.sentinelPassword,
		CredentialsProviderContext: l.credentials,
		DialTimeout:                c.dialTimeout, ReadTimeout: c.timeout, WriteTimeout: c.timeout,
		ContextTimeoutEnabled: true,
		// Store.run retries, and knows better what and for how long.
		MaxRetries: -1, DialerRetries: 1,
		// Protocol 2 and no identification: every server and proxy knows that.
		Protocol: 2, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if c.socket {
		simple := o.Simple()
		simple.Network = "unix"
		return redis.NewClient(simple)
	}
	return redis.NewUniversalClient(&o)
}
