// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// awsCLI runs the AWS CLI against the simulator; nothing of its environment is the user's own.
func awsCLI(t *testing.T, api string, args ...string) ([]byte, error) {
	t.Helper()
	path, err := exec.LookPath("aws")
	if err != nil {
		t.Skip("the AWS CLI (aws) is not on PATH")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, append([]string{"--endpoint-url", api, "--output", "json", "cloudfront"}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=secret",
		"AWS_DEFAULT_REGION=us-east-1", "AWS_PAGER=", "AWS_EC2_METADATA_DISABLED=true"}
	if root := os.Getenv("PYENV_ROOT"); root != "" {
		cmd.Env = append(cmd.Env, "PYENV_ROOT="+root)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, stderr.String())
	}
	return out, err
}

func TestAWSCLI(t *testing.T) {
	s := start(t, nil, now(Options{Rules: nil, TagHeader: "Cache-Tag"}))
	if err := s.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	api, _ := s.URLs()
	id := []string{"--distribution-id", DefaultDistribution}
	out, err := awsCLI(t, api, append([]string{"create-invalidation", "--paths", "/a?x=1&y=2", "/b/*", "#tag"}, id...)...)
	if err != nil {
		t.Fatal(err)
	}
	var created struct {
		Location     string
		Invalidation struct{ Id, Status string }
	}
	if err := json.Unmarshal(out, &created); err != nil {
		t.Fatal(err)
	}
	v := s.Invalidations()[0]
	if created.Invalidation.Id != v.ID || created.Invalidation.Status != Completed || !strings.HasSuffix(created.Location, v.ID) ||
		!reflect.DeepEqual(v.Items, []string{"/a?x=1&y=2", "/b/*", "#tag"}) {
		t.Errorf("%s\n%+v", out, v)
	}
	if _, err := awsCLI(t, api, append([]string{"create-invalidation", "--paths", "/a b"}, id...)...); err == nil || !strings.Contains(err.Error(), "InvalidArgument") {
		t.Errorf("a raw space: %v", err)
	}
	if _, err := awsCLI(t, api, append([]string{"wait", "invalidation-completed", "--id", v.ID}, id...)...); err != nil {
		t.Error(err)
	}
	out, err = awsCLI(t, api, append([]string{"list-invalidations"}, id...)...)
	if err != nil || !strings.Contains(string(out), v.ID) {
		t.Errorf("list: %v %s", err, out)
	}
	out, err = awsCLI(t, api, "get-distribution-config", "--id", DefaultDistribution)
	// Older versions of the CLI leave out what they do not know, such as tags.
	if err != nil || !strings.Contains(string(out), "CallerReference") || !strings.Contains(string(out), "DefaultCacheBehavior") {
		t.Errorf("configuration: %v %s", err, out)
	}
	out, err = awsCLI(t, api, "list-distributions", "--query", "DistributionList.Items[].Id")
	if err != nil || !strings.Contains(string(out), DefaultDistribution) {
		t.Errorf("distributions: %v %s", err, out)
	}
	out, err = awsCLI(t, api, "list-cache-policies", "--type", "managed", "--query", "CachePolicyList.Items[?CachePolicy.CachePolicyConfig.Name=='Managed-CachingOptimized'].CachePolicy.Id | [0]")
	if err != nil {
		t.Fatal(err)
	}
	out, err = awsCLI(t, api, "get-cache-policy", "--id", strings.Trim(strings.TrimSpace(string(out)), `"`))
	if err != nil || !strings.Contains(string(out), `"MaxTTL": 31536000`) {
		t.Errorf("policy: %v %s", err, out)
	}
}

// What the AWS CLI prints of a distribution is a configuration for the next simulator.
func TestAWSCLIPrintsAConfiguration(t *testing.T) {
	first := start(t, nil, &Options{Config: load(t, listed)})
	if err := first.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	api, _ := first.URLs()
	out, err := awsCLI(t, api, "get-distribution-config", "--id", DefaultDistribution)
	if err != nil {
		t.Fatal(err)
	}
	var printed map[string]any
	if err := json.Unmarshal(out, &printed); err != nil {
		t.Fatal(err)
	}
	policy := json.RawMessage(must(awsCLI(t, api, "get-cache-policy", "--id", "own-cache", "--query", "CachePolicy")))
	request := json.RawMessage(must(awsCLI(t, api, "get-origin-request-policy", "--id", "own-request", "--query", "OriginRequestPolicy")))
	printed["CachePolicies"], printed["OriginRequestPolicies"] = []any{policy}, []any{request}
	again, err := LoadConfig(bytes.NewReader(must(json.Marshal(printed))), "printed.json")
	if err != nil {
		t.Fatal(err)
	}
	second := start(t, nil, &Options{Config: again})
	path := strings.TrimSuffix(invalidations, "invalidation") + "config"
	if a, b := call(first, http.MethodGet, path, ""), call(second, http.MethodGet, path, ""); a.body != b.body {
		t.Errorf("it was\n%s\nand is\n%s", a.body, b.body)
	}
}

// javaScript is a program that uses AWS's SDK for JavaScript as its users do.
const javaScript = `
const { CloudFrontClient, CreateInvalidationCommand, ListInvalidationsCommand, ListCachePoliciesCommand, ListDistributionsCommand,
  waitUntilInvalidationCompleted } = require('@aws-sdk/client-cloudfront');
const [endpoint, id] = process.argv.slice(1);
const client = new CloudFrontClient({ endpoint, region: 'us-east-1', maxAttempts: 5, credentials: { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'secret' } });
const create = (CallerReference, ...Items) => client.send(new CreateInvalidationCommand({
  DistributionId: id, InvalidationBatch: { CallerReference, Paths: { Quantity: Items.length, Items } } }));
(async () => {
  const out = {};
  const created = await create('js', '/a?x=1&y=2', '/b/*', '#tag');
  out.location = created.Location;
  out.id = created.Invalidation.Id;
  out.items = created.Invalidation.InvalidationBatch.Paths.Items;
  out.again = (await create('js', '/a?x=1&y=2', '/b/*', '#tag')).Invalidation.Id;
  out.error = await create('bad', '/a b').catch((e) => [e.name, e.$metadata.httpStatusCode, e.constructor.name]);
  out.waited = (await waitUntilInvalidationCompleted({ client, maxWaitTime: 30, minDelay: 1, maxDelay: 2 }, { DistributionId: id, Id: out.id })).state;
  out.listed = (await client.send(new ListInvalidationsCommand({ DistributionId: id }))).InvalidationList.Items.map((i) => [i.Id, i.Status]);
  out.policies = (await client.send(new ListCachePoliciesCommand({ Type: 'managed' }))).CachePolicyList.Quantity;
  out.distributions = (await client.send(new ListDistributionsCommand({}))).DistributionList.Items.map((d) => d.Id);
  console.log(JSON.stringify(out));
})().catch((e) => { console.error(e); process.exit(1); });
`

func TestJavaScriptSDK(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("Node.js (node) is not on PATH")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	run := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, node, args...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "NODE_PATH=" + os.Getenv("NODE_PATH")}
		out, err := cmd.Output()
		var ee *exec.ExitError
		if errors.As(err, &ee) {
			err = fmt.Errorf("%w: %s", err, ee.Stderr)
		}
		return out, err
	}
	if _, err := run("-e", "require.resolve('@aws-sdk/client-cloudfront')"); err != nil {
		if !strings.Contains(err.Error(), "MODULE_NOT_FOUND") {
			t.Fatal(err)
		}
		t.Skip("the module @aws-sdk/client-cloudfront is not in a directory of NODE_PATH")
	}
	var calls atomic.Int32
	s := start(t, nil, &Options{Intercept: func(op string, _ *http.Request) *Fault {
		if op == CreateInvalidation && calls.Add(1) == 1 {
			return Throttling() // which its client retries
		}
		return nil
	}})
	if err := s.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	api, _ := s.URLs()
	out, err := run("-e", javaScript, api, DefaultDistribution)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Location, ID, Again, Waited string
		Items, Distributions        []string
		Error                       []any
		Listed                      [][2]string
		Policies                    int
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	v := s.Invalidations()[0]
	if got.ID != v.ID || got.Again != v.ID || got.Location != api+invalidations+"/"+v.ID || s.Billed() != 3 || !reflect.DeepEqual(got.Items, v.Items) {
		t.Errorf("%s\n%+v", out, v)
	}
	if got.Waited != "SUCCESS" || !reflect.DeepEqual(got.Listed, [][2]string{{v.ID, Completed}}) || got.Policies != 7 ||
		!reflect.DeepEqual(got.Distributions, []string{DefaultDistribution}) || !reflect.DeepEqual(got.Error, []any{"InvalidArgument", 400.0, "InvalidArgument"}) {
		t.Errorf("%s", out)
	}
	if n := calls.Load(); n != 4 {
		t.Errorf("%d calls of CreateInvalidation: want one that was throttled and three", n)
	}
}
