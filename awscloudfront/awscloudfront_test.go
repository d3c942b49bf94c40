// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package awscloudfront_test

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cf-invalidation-tracker/cftrack/awscloudfront"
	"github.com/cf-invalidation-tracker/cftrack/dispatch"
	"github.com/cf-invalidation-tracker/cftrack/simulator"
)

// isolated keeps the settings of whoever runs the tests out of them.
func isolated(t *testing.T) {
	t.Helper()
	for _, name := range []string{"AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_CLOUDFRONT", "AWS_CA_BUNDLE",
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

func client(t *testing.T, endpoint string) *awscloudfront.Client {
	t.Helper()
	c, err := awscloudfront.New(t.Context(), awscloudfront.Options{
		AccessKey: "AKIDEXAMPLE", SecretKey: "verysecret", Endpoint: endpoint})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestOneKeyWithoutTheOther(t *testing.T) {
	isolated(t)
	for missing, o := range map[string]awscloudfront.Options{
		"without its access key": {SecretKey: "verysecret"},
		"without its secret key": {AccessKey: "AKIDEXAMPLE"},
	} {
		_, err := awscloudfront.New(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), missing) || strings.Contains(err.Error(), "verysecret") {
			t.Errorf("%s: %v", missing, err)
		}
	}
}

func TestNobodyAnswers(t *testing.T) {
	isolated(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	_, err = client(t, "http://"+addr).CreateInvalidation(t.Context(), "E1", "ref", []string{"/a"})
	var e *dispatch.Error
	if !errors.As(err, &e) || e.Kind != dispatch.NoAnswer || !strings.Contains(e.Hint, "AWS_ENDPOINT_URL_CLOUDFRONT") {
		t.Fatalf("%#v", err)
	}
	if s := err.Error(); !strings.Contains(s, "connection refused") || strings.Count(s, addr) > 2 || len(s) > 200 {
		t.Errorf("%s", s)
	}
}

// CloudFront takes signatures for us-east-1 wherever the caller is; with an endpoint of one's own the SDK
// would sign for the caller's region.
func TestSignsForCloudFrontsRegion(t *testing.T) {
	for region, signed := range map[string]string{"": "us-east-1", "eu-west-1": "us-east-1", "cn-north-1": "cn-northwest-1"} {
		isolated(t)
		t.Setenv("AWS_REGION", region)
		sim, err := simulator.New(nil, &simulator.Options{SigningRegion: signed})
		if err != nil {
			t.Fatal(err)
		}
		defer sim.Close()
		if err := sim.Listen("127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		api, _ := sim.URLs()
		if _, err := client(t, api).CreateInvalidation(t.Context(), simulator.DefaultDistribution, "ref", []string{"/a"}); err != nil {
			t.Errorf("region %q: %v", region, err)
		}
	}
}

func TestFindInvalidationPages(t *testing.T) {
	isolated(t)
	sim, err := simulator.New(nil, &simulator.Options{Distribution: "E1", Tenants: []string{"dt_1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer sim.Close()
	if err := sim.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	api, _ := sim.URLs()
	c := client(t, api)
	for _, target := range []string{"E1", "dt_1"} {
		began := time.Now().Add(-time.Minute)
		first, err := c.CreateInvalidation(t.Context(), target, "first of "+target, []string{"/a?x=1&y=2"})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 120 { // more than a page
			if _, err := c.CreateInvalidation(t.Context(), target, target+strings.Repeat("x", i), []string{"/b"}); err != nil {
				t.Fatal(err)
			}
		}
		got, ok, err := c.FindInvalidation(t.Context(), target, "first of "+target, began)
		if err != nil || !ok || got.ID != first.ID {
			t.Errorf("%s: %+v, %v, %v", target, got, ok, err)
		}
		if _, ok, err := c.FindInvalidation(t.Context(), target, "another", began); ok || err != nil {
			t.Errorf("%s: found what was never sent: %v", target, err)
		}
		if _, ok, err := c.FindInvalidation(t.Context(), target, "first of "+target, time.Now().Add(time.Hour)); ok || err != nil {
			t.Errorf("%s: looked further back than asked: %v", target, err)
		}
	}
}
