// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront/types"
	"github.com/aws/smithy-go"

	"github.com/cf-invalidation-tracker/cftrack/cfpath"
	"github.com/cf-invalidation-tracker/cftrack/lifetime"
)

// client is the real SDK, over the simulator's in-process transport.
func client(s *Simulator, change ...func(*cloudfront.Options)) *cloudfront.Client {
	return cloudfront.New(cloudfront.Options{
		Region:       "us-east-1",
		BaseEndpoint: aws.String("http://api.simulator"),
		HTTPClient:   &http.Client{Transport: s.Transport()},
		Credentials:  credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", ""),
	}, change...)
}

func input(reference string, items ...string) *cloudfront.CreateInvalidationInput {
	return &cloudfront.CreateInvalidationInput{
		DistributionId: aws.String(DefaultDistribution),
		InvalidationBatch: &types.InvalidationBatch{
			CallerReference: &reference,
			Paths:           &types.Paths{Items: items, Quantity: aws.Int32(int32(len(items)))},
		},
	}
}

func code(err error) string {
	var e smithy.APIError
	if errors.As(err, &e) {
		return e.ErrorCode()
	}
	return fmt.Sprint(err)
}

func TestSDKFollowsAnInvalidation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, nil, nil)
		c, ctx := client(s), t.Context()
		items := []string{"/a", "/list?x=1&y=2", "/b/*", "#tag", "/%C3%A9"}
		created, err := c.CreateInvalidation(ctx, input("ref", items...))
		if err != nil {
			t.Fatal(err)
		}
		inv := created.Invalidation
		if want := "http://api.simulator" + invalidations + "/" + *inv.Id; aws.ToString(created.Location) != want {
			t.Errorf("Location %q, want %q", aws.ToString(created.Location), want)
		}
		if *inv.Status != InProgress || !inv.CreateTime.Equal(time.Now()) {
			t.Errorf("status %q, created %v", *inv.Status, inv.CreateTime)
		}
		if b := inv.InvalidationBatch; *b.CallerReference != "ref" || !reflect.DeepEqual(b.Paths.Items, items) || *b.Paths.Quantity != 5 {
			t.Errorf("echo: %+v", b.Paths)
		}
		w := cloudfront.NewInvalidationCompletedWaiter(c)
		begin := time.Now()
		err = w.Wait(ctx, &cloudfront.GetInvalidationInput{DistributionId: aws.String(DefaultDistribution), Id: inv.Id}, time.Hour)
		if err != nil {
			t.Error(err)
		}
		if d := time.Since(begin); d > 25*time.Second {
			t.Errorf("the waiter took %v: more than its first delay", d)
		}
		if n := s.Billed(); n != 5 {
			t.Errorf("billed %d items", n)
		}
		if got := s.Calls(); got[CreateInvalidation] != 1 || got[GetInvalidation] == 0 || len(got) != 2 {
			t.Errorf("calls: %v", got)
		}
	})
}

func TestSDKSeesTypedErrors(t *testing.T) {
	s := start(t, nil, &Options{Limits: Limits{Batch: 3, Paths: 2, Wildcards: 1}, Propagation: time.Hour})
	c, ctx := client(s), t.Context()
	create := func(in *cloudfront.CreateInvalidationInput) error {
		_, err := c.CreateInvalidation(ctx, in)
		return err
	}
	other := input("r", "/a")
	other.DistributionId = aws.String("EOTHER")
	wrong := input("r", "/a")
	wrong.InvalidationBatch.Paths.Quantity = aws.Int32(2)
	_, noInvalidation := c.GetInvalidation(ctx, &cloudfront.GetInvalidationInput{DistributionId: aws.String(DefaultDistribution), Id: aws.String("INONE")})
	_, noTenant := c.CreateInvalidationForDistributionTenant(ctx, &cloudfront.CreateInvalidationForDistributionTenantInput{Id: aws.String("dt_none"), InvalidationBatch: input("r", "/a").InvalidationBatch})
	_, noPolicy := c.GetCachePolicy(ctx, &cloudfront.GetCachePolicyInput{Id: aws.String("none")})
	if err := create(input("first", "/1", "/w*")); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name string
		err  error
		as   any
		code string
	}{
		{"no distribution", create(other), new(*types.NoSuchDistribution), "NoSuchDistribution"},
		{"quantity", create(wrong), new(*types.InconsistentQuantities), "InconsistentQuantities"},
		{"bad path", create(input("r", "/ok", "no-slash")), new(*types.InvalidArgument), "InvalidArgument"},
		{"batch", create(input("r", "/a", "/b", "/c", "/d")), new(*types.BatchTooLarge), "BatchTooLarge"},
		{"paths in progress", create(input("r", "/2", "/3")), new(*types.TooManyInvalidationsInProgress), "TooManyInvalidationsInProgress"},
		{"wildcards in progress", create(input("r", "/2*")), new(*types.TooManyInvalidationsInProgress), "TooManyInvalidationsInProgress"},
		{"reference", create(input("first", "/w*", "/1")), nil, "InvalidationBatchAlreadyExists"},
		{"no invalidation", noInvalidation, new(*types.NoSuchInvalidation), "NoSuchInvalidation"},
		{"no tenant", noTenant, new(*types.EntityNotFound), "EntityNotFound"},
		{"no policy", noPolicy, new(*types.NoSuchCachePolicy), "NoSuchCachePolicy"},
		{"room for one", create(input("r", "/2")), nil, "<nil>"},
	} {
		if row.as != nil && !errors.As(row.err, row.as) {
			t.Errorf("%s: %v is no %T", row.name, row.err, row.as)
		}
		if code(row.err) != row.code {
			t.Errorf("%s: code %s, want %s", row.name, code(row.err), row.code)
		}
	}
	if n := s.Billed(); n != 3 {
		t.Errorf("billed %d, want the three accepted items", n)
	}
}

func TestWire(t *testing.T) {
	s := start(t, nil, now(Options{Limits: Limits{Batch: 4}}))
	path := invalidations
	ok := `<InvalidationBatch xmlns="http://cloudfront.amazonaws.com/doc/2020-05-31/"><CallerReference>%s</CallerReference><Paths><Items><Path>/a?x=1&amp;y=2</Path></Items><Quantity>1</Quantity></Paths></InvalidationBatch>`
	for _, row := range []struct {
		name, method, path, body string
		status                   int
		code                     string
	}{
		{"namespace, reference first", "POST", path, fmt.Sprintf(ok, "w1"), 201, ""},
		{"declaration, comments, spaces", "POST", path, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- c -->\n" + fmt.Sprintf(ok, "w2") + "\n<!-- d -->\n", 201, ""},
		{"quantity first, reference last", "POST", path, batch("w3", "/a"), 201, ""},
		{"raw non-ASCII", "POST", path, batch("w4", "/é"), 400, "InvalidArgument"},
		{"raw space", "POST", path, batch("w5", "/a", "/b c"), 400, "InvalidArgument"},
		{"raw tilde", "POST", path, batch("w6", "/a~b"), 400, "InvalidArgument"},
		{"no leading slash", "POST", path, batch("w7", "a"), 400, "InvalidArgument"},
		{"over 4,000 characters", "POST", path, batch("w8", "/"+strings.Repeat("a", 4000)), 400, "InvalidArgument"},
		{"4,000 characters", "POST", path, batch("w9", "/"+strings.Repeat("a", 3999)), 201, ""},
		{"encoded tilde", "POST", path, batch("w10", "/a%7Eb"), 201, ""},
		{"tag", "POST", path, batch("w11", "#a:b"), 201, ""},
		{"tag with a space", "POST", path, batch("w12", "#a b"), 400, "InvalidArgument"},
		{"empty path", "POST", path, batch("w13", ""), 400, "InvalidArgument"},
		{"no items", "POST", path, batch("w14"), 400, "InvalidArgument"},
		{"no reference", "POST", path, batch("", "/a"), 400, "InvalidArgument"},
		{"too many", "POST", path, batch("w15", "/a", "/b", "/c", "/d", "/e"), 413, "BatchTooLarge"},
		{"no body", "POST", path, "", 400, "MissingBody"},
		{"white body", "POST", path, " \n", 400, "MissingBody"},
		{"not XML", "POST", path, "{}", 400, "MalformedXML"},
		{"other root", "POST", path, "<Invalidation/>", 400, "MalformedXML"},
		{"cut off", "POST", path, fmt.Sprintf(ok, "w16")[:100], 400, "MalformedXML"},
		{"two roots", "POST", path, batch("w17", "/a") + batch("w17", "/a"), 400, "MalformedXML"},
		{"text after", "POST", path, batch("w18", "/a") + "x", 400, "MalformedXML"},
		{"no paths", "POST", path, "<InvalidationBatch><CallerReference>r</CallerReference></InvalidationBatch>", 400, "MalformedXML"},
		{"no quantity", "POST", path, "<InvalidationBatch><Paths/><CallerReference>r</CallerReference></InvalidationBatch>", 400, "MalformedXML"},
		{"quantity no number", "POST", path, strings.Replace(batch("r", "/a"), ">1<", ">x<", 1), 400, "MalformedXML"},
		{"quantity too low", "POST", path, strings.Replace(batch("r", "/a"), ">1<", ">0<", 1), 400, "InconsistentQuantities"},
		{"unknown invalidation", "GET", path + "/I0", "", 404, "NoSuchInvalidation"},
		{"unknown distribution", "GET", strings.Replace(path, "E2", "E3", 1), "", 404, "NoSuchDistribution"},
		{"a tenant is no distribution", "GET", strings.Replace(path, "distribution/", "distribution-tenant/", 1), "", 404, "EntityNotFound"},
		{"other version", "POST", strings.Replace(path, "2020", "2019", 1), batch("r", "/a"), 404, "UnknownOperation"},
		{"other method", "DELETE", path, "", 404, "UnknownOperation"},
		{"other resource", "GET", "/2020-05-31/function/x", "", 404, "UnknownOperation"},
		{"root", "GET", "/", "", 404, "UnknownOperation"},
		{"page size", "GET", path + "?MaxItems=0", "", 400, "InvalidArgument"},
		{"marker", "GET", path + "?Marker=I0", "", 400, "InvalidArgument"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := call(s, row.method, row.path, row.body)
			if got.status != row.status || got.header.Get("X-Amzn-Requestid") == "" || got.header.Get("Content-Type") != "text/xml" {
				t.Errorf("%d %v", got.status, got.header)
			}
			m := regexp.MustCompile(`^<\?xml version="1.0" encoding="UTF-8"\?>\n<ErrorResponse xmlns="http://cloudfront.amazonaws.com/doc/2020-05-31/"><Error><Type>Sender</Type><Code>(.*)</Code><Message>(.*)</Message></Error><RequestId>(.*)</RequestId></ErrorResponse>$`).FindStringSubmatch(got.body)
			switch {
			case row.code == "" && m != nil, row.code != "" && m == nil:
				t.Fatalf("body: %s", got.body)
			case m == nil:
				return
			}
			if m[1] != row.code || m[3] != got.header.Get("X-Amzn-Requestid") {
				t.Errorf("%s; want code %s", got.body, row.code)
			}
			if m[1] == "InvalidArgument" && strings.Contains(m[2], "/b c") {
				t.Errorf("the message names the path: %s", m[2])
			}
		})
	}
}

func TestSignatureIsRequired(t *testing.T) {
	s := start(t, nil, now(Options{}))
	for header, want := range map[string]string{
		"":                           "MissingAuthenticationToken",
		"Bearer x":                   "IncompleteSignature",
		signature[:len(signature)-1]: "IncompleteSignature",
		strings.Replace(signature, "cloudfront", "s3", 1): "SignatureDoesNotMatch",
	} {
		r := httptest.NewRequest(http.MethodPost, invalidations, strings.NewReader(batch("r", "/a")))
		r.Header.Set("Authorization", header)
		w := httptest.NewRecorder()
		s.API().ServeHTTP(w, r)
		if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "<Code>"+want+"</Code>") {
			t.Errorf("%q: %d %s, want %s", header, w.Code, w.Body, want)
		}
	}
	if n := len(s.Invalidations()); n != 0 {
		t.Errorf("%d invalidations accepted", n)
	}
}

func TestReferenceReturnsTheFirstInvalidation(t *testing.T) {
	s := start(t, nil, &Options{Tenants: []string{"dt_1"}, Limits: Limits{Paths: 1, PathRate: 1e-9}, Propagation: time.Hour})
	first := call(s, http.MethodPost, invalidations, batch("r", "/a"))
	again := call(s, http.MethodPost, invalidations, batch("r", "/a"))
	if first.status != 201 || again.status != 201 || first.body != again.body || first.header.Get("Location") != again.header.Get("Location") {
		t.Errorf("first %d %s, again %d %s", first.status, first.body, again.status, again.body)
	}
	if got := call(s, http.MethodPost, invalidations, batch("r", "/b")); got.status != http.StatusConflict {
		t.Errorf("other items under the same reference: %d %s", got.status, got.body)
	}
	all := s.Invalidations()
	if len(all) != 1 || all[0].Calls != 2 || s.Billed() != 1 {
		t.Errorf("%+v, billed %d", all, s.Billed())
	}
	// A refused batch leaves its reference free.
	if got := call(s, http.MethodPost, invalidations, batch("r2", "/x")); got.status != 400 {
		t.Errorf("over the limit: %d", got.status)
	}
	if got := call(s, http.MethodPost, invalidations, batch("r2", "#y")); strings.Contains(got.body, "AlreadyExists") {
		t.Errorf("a refused batch holds its reference: %s", got.body)
	}
	// A tenant has its own references.
	s2 := start(t, nil, now(Options{Tenants: []string{"dt_1"}}))
	for _, p := range []string{invalidations, "/2020-05-31/distribution-tenant/dt_1/invalidation"} {
		if got := call(s2, http.MethodPost, p, batch("r", p)); got.status != 201 {
			t.Errorf("%s: %d %s", p, got.status, got.body)
		}
	}
}

func TestListPages(t *testing.T) {
	s := start(t, nil, now(Options{Tenants: []string{"dt_1"}}))
	c, ctx := client(s), t.Context()
	var want []string
	for i := range 250 {
		v := invalidate(t, s, fmt.Sprintf("/%d", i))
		want = append([]string{v.ID}, want...)
	}
	if _, err := c.CreateInvalidationForDistributionTenant(ctx, &cloudfront.CreateInvalidationForDistributionTenantInput{
		Id: aws.String("dt_1"), InvalidationBatch: input("tenant", "/t").InvalidationBatch}); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int32{0, 1, 25, 100, 1000} {
		in := &cloudfront.ListInvalidationsInput{DistributionId: aws.String(DefaultDistribution)}
		if size > 0 {
			in.MaxItems = aws.Int32(size)
		}
		var got []string
		pages := 0
		for p := cloudfront.NewListInvalidationsPaginator(c, in); p.HasMorePages(); {
			page, err := p.NextPage(ctx)
			if err != nil {
				t.Fatal(err)
			}
			pages++
			l := page.InvalidationList
			if int(*l.Quantity) != len(l.Items) || (size > 0 && *l.Quantity > size) || *l.IsTruncated != (l.NextMarker != nil) {
				t.Fatalf("page of %d: quantity %d of %d, truncated %v, next %v", size, len(l.Items), *l.Quantity, *l.IsTruncated, l.NextMarker)
			}
			for _, it := range l.Items {
				got = append(got, *it.Id)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("pages of %d: %d of %d, newest first", size, len(got), len(want))
		}
		if n := map[int32]int{0: 3, 1: 250, 25: 10, 100: 3, 1000: 3}[size]; pages != n {
			t.Errorf("pages of %d: %d of them, want %d", size, pages, n)
		}
	}
	l, err := c.ListInvalidationsForDistributionTenant(ctx, &cloudfront.ListInvalidationsForDistributionTenantInput{Id: aws.String("dt_1")})
	if err != nil || len(l.InvalidationList.Items) != 1 {
		t.Fatalf("tenant: %v %+v", err, l)
	}
	g, err := c.GetInvalidationForDistributionTenant(ctx, &cloudfront.GetInvalidationForDistributionTenantInput{
		DistributionTenantId: aws.String("dt_1"), Id: l.InvalidationList.Items[0].Id})
	if err != nil || g.Invalidation.InvalidationBatch.Paths.Items[0] != "/t" {
		t.Errorf("tenant: %v %+v", err, g)
	}
	empty := start(t, nil, nil)
	if l, err := client(empty).ListInvalidations(ctx, &cloudfront.ListInvalidationsInput{DistributionId: aws.String(DefaultDistribution)}); err != nil || *l.InvalidationList.Quantity != 0 {
		t.Errorf("empty list: %v %+v", err, l)
	}
}

func TestConfigurationCanBeRead(t *testing.T) {
	rules := lifetime.DefaultRules()
	rules.ErrorTTLs = map[int]time.Duration{404: time.Minute}
	rules.Default.Query = must(cfpath.ParseQueryRule("none"))
	for pattern, query := range map[string]string{"/img/*": "include:w,h"} {
		b := lifetime.DefaultBehavior()
		b.Pattern, b.Query = must(cfpath.ParsePattern(pattern)), must(cfpath.ParseQueryRule(query))
		b.MinTTL, b.DefaultTTL, b.MaxTTL = time.Second, time.Minute, time.Hour
		rules.Behaviors = append(rules.Behaviors, b)
	}
	legacy := lifetime.DefaultBehavior()
	legacy.Pattern, legacy.AllHeaders = must(cfpath.ParsePattern("/api/*")), true
	rules.Behaviors = append(rules.Behaviors, legacy)
	s := start(t, nil, &Options{Rules: &rules, Aliases: []string{"www.example.org"}, OriginPath: "/p", DefaultRootObject: "index.html", TagHeader: "Cache-Tag", Propagation: time.Hour})
	c, ctx := client(s), t.Context()
	invalidate(t, s, "/a")

	d, err := c.GetDistribution(ctx, &cloudfront.GetDistributionInput{Id: aws.String(DefaultDistribution)})
	if err != nil {
		t.Fatal(err)
	}
	if *d.Distribution.InProgressInvalidationBatches != 1 || *d.Distribution.Id != DefaultDistribution || aws.ToString(d.ETag) == "" {
		t.Errorf("%+v", d.Distribution)
	}
	g, err := c.GetDistributionConfig(ctx, &cloudfront.GetDistributionConfigInput{Id: aws.String(DefaultDistribution)})
	if err != nil {
		t.Fatal(err)
	}
	cfg := g.DistributionConfig
	if !reflect.DeepEqual(cfg, d.Distribution.DistributionConfig) {
		t.Error("GetDistribution and GetDistributionConfig differ")
	}
	if cfg.Aliases.Items[0] != "www.example.org" || *cfg.DefaultRootObject != "index.html" || *cfg.CacheTagConfig.HeaderName != "Cache-Tag" ||
		*cfg.Origins.Items[0].OriginPath != "/p" || cfg.ConnectionMode != types.ConnectionModeDirect {
		t.Errorf("%+v", cfg)
	}
	if e := cfg.CustomErrorResponses.Items; len(e) != 1 || *e[0].ErrorCode != 404 || *e[0].ErrorCachingMinTTL != 60 {
		t.Errorf("error caching: %+v", e)
	}
	b := cfg.CacheBehaviors.Items
	if len(b) != 2 || *b[0].PathPattern != "/img/*" || *b[1].PathPattern != "/api/*" {
		t.Fatalf("behaviours: %+v", b)
	}
	if h := b[1].ForwardedValues.Headers.Items; len(h) != 1 || h[0] != "*" || *b[1].MaxTTL != 31536000 || b[1].CachePolicyId != nil {
		t.Errorf("all headers: %+v", b[1])
	}
	p, err := c.GetCachePolicy(ctx, &cloudfront.GetCachePolicyInput{Id: b[0].CachePolicyId})
	if err != nil {
		t.Fatal(err)
	}
	pc := p.CachePolicy.CachePolicyConfig
	q := pc.ParametersInCacheKeyAndForwardedToOrigin.QueryStringsConfig
	if *pc.MinTTL != 1 || *pc.DefaultTTL != 60 || *pc.MaxTTL != 3600 || q.QueryStringBehavior != types.CachePolicyQueryStringBehaviorWhitelist || len(q.QueryStrings.Items) != 2 {
		t.Errorf("policy of /img/*: %+v %+v", pc, q)
	}
	p, err = c.GetCachePolicy(ctx, &cloudfront.GetCachePolicyInput{Id: cfg.DefaultCacheBehavior.CachePolicyId})
	if err != nil || p.CachePolicy.CachePolicyConfig.ParametersInCacheKeyAndForwardedToOrigin.QueryStringsConfig.QueryStringBehavior != types.CachePolicyQueryStringBehaviorNone {
		t.Errorf("default policy: %v %+v", err, p)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestFaults(t *testing.T) {
	for _, row := range []struct {
		name     string
		fault    *Fault
		code     string // "" : the call succeeds
		accepted int
		retried  bool // by the SDK itself
	}{
		{"throttling", Throttling(), "", 1, true},
		{"in progress", TooManyInvalidationsInProgress(), "TooManyInvalidationsInProgress", 0, false},
		{"unavailable", ServiceUnavailable(), "", 1, true},
		{"denied", AccessDenied(), "AccessDenied", 0, false},
		{"lost answer", LostAnswer(), "", 1, true},
		{"lost request", LostRequest(), "", 1, true},
		{"done but 503", &Fault{Work: true, Status: 503, Code: "ServiceUnavailable"}, "", 1, true},
		{"code alone", &Fault{Code: "Odd"}, "Odd", 0, false},
		{"slow", &Fault{Delay: time.Minute}, "", 1, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var calls atomic.Int32
				s := start(t, nil, &Options{Intercept: func(op string, r *http.Request) *Fault {
					if op == CreateInvalidation && calls.Add(1) == 1 {
						return row.fault
					}
					return nil
				}})
				begin := time.Now()
				out, err := client(s).CreateInvalidation(t.Context(), input("r", "/a"))
				if row.code != "" {
					if code(err) != row.code {
						t.Errorf("error %v, want %s", err, row.code)
					}
				} else if err != nil {
					t.Error(err)
				} else if v := s.Invalidations()[0]; *out.Invalidation.Id != v.ID {
					t.Errorf("answered %s, accepted %s", *out.Invalidation.Id, v.ID)
				}
				if n := len(s.Invalidations()); n != row.accepted || s.Billed() != row.accepted {
					t.Errorf("%d accepted, %d billed", n, s.Billed())
				}
				if n := s.Calls()[CreateInvalidation]; (n > 1) != row.retried {
					t.Errorf("%d calls, retried: want %v", n, row.retried)
				}
				if d := time.Since(begin); d < row.fault.Delay {
					t.Errorf("took %v", d)
				}
			})
		})
	}
}

func TestFaultOverSockets(t *testing.T) {
	var calls atomic.Int32
	s := start(t, nil, &Options{Intercept: func(string, *http.Request) *Fault {
		if calls.Add(1) == 1 {
			return LostAnswer()
		}
		return nil
	}})
	if err := s.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	api, _ := s.URLs()
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	c := client(s, func(o *cloudfront.Options) {
		o.BaseEndpoint, o.HTTPClient, o.RetryMaxAttempts = &api, &http.Client{Transport: tr}, 1
	})
	if _, err := c.CreateInvalidation(t.Context(), input("r", "/a")); err == nil || code(err) == "InternalFailure" {
		t.Fatalf("a lost answer: %v", err)
	}
	if n := len(s.Invalidations()); n != 1 {
		t.Fatalf("%d invalidations after the lost answer, want 1", n)
	}
	out, err := c.CreateInvalidation(t.Context(), input("r", "/a"))
	if err != nil || *out.Invalidation.Id != s.Invalidations()[0].ID || s.Billed() != 1 {
		t.Errorf("again: %v, billed %d", err, s.Billed())
	}
}

func TestLimitsInProgressEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, nil, &Options{Limits: Limits{Paths: 3, Wildcards: 1}})
		n := 0
		try := func(want int, items ...string) {
			t.Helper()
			n++
			if got := call(s, http.MethodPost, invalidations, batch(fmt.Sprint(n), items...)); got.status != want {
				t.Errorf("%v: %d %s, want %d", items, got.status, got.body, want)
			}
		}
		try(400, "/1", "/2", "/3", "/4")
		try(201, "/1", "#2", "/3", "/w*")
		try(400, "/4")
		try(400, "/w*")
		time.Sleep(time.Second)
		if v := s.Invalidations()[0]; v.Status != Completed {
			t.Fatalf("after a second: %s", v.Status)
		}
		if got := call(s, http.MethodGet, strings.TrimSuffix(invalidations, "/invalidation"), ""); !strings.Contains(got.body, "<InProgressInvalidationBatches>0<") {
			t.Errorf("after a second: %s", got.body)
		}
		try(201, "/4", "/5")
		try(201, "/w*")
		try(400, "/6", "/7")
		try(201, "/6")
	})
}

func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, nil, now(Options{Limits: Limits{PathRate: 150, WildcardRate: 1, CallRate: 2, CallBurst: 3}}))
		n := 0
		send := func(items ...string) string {
			n++
			got := call(s, http.MethodPost, invalidations, batch(fmt.Sprint(n), items...))
			if got.status == http.StatusCreated {
				return ""
			}
			_, rest, _ := strings.Cut(got.body, "<Code>")
			c, _, _ := strings.Cut(rest, "<")
			return c
		}
		step := func(after time.Duration, want string, items ...string) {
			t.Helper()
			time.Sleep(after)
			if got := send(items...); got != want {
				t.Errorf("%v of call %d: %q, want %q", items[0], n, got, want)
			}
		}
		many := make([]string, 300)
		for i := range many {
			many[i] = fmt.Sprintf("/%d", i)
		}
		const tooMany = "TooManyInvalidationsInProgress"
		step(0, "", many...)
		step(time.Second, tooMany, "/a") // 150 are owed still
		step(time.Second, "", "/a")
		step(2*time.Second, "", "/a*", "/b*")
		step(time.Second, tooMany, "/c*")
		step(0, "", "/only-paths")
		step(time.Second, "", "/c*")
		step(time.Minute, "", "/1")
		step(0, tooMany, "#2") // a tag is a path, and 1/150 s has not passed
		step(0, tooMany, "/3")
		step(0, "Throttling", "/4")
		step(0, "Throttling", "/5")
		step(500*time.Millisecond, "", "/6")
		step(0, "Throttling", "/7")
	})
}

func FuzzParseBatch(f *testing.F) {
	f.Add([]byte(batch("r", "/a", "#t", "/b?x=1&y=2")))
	f.Add([]byte("<?xml version='1.0'?><InvalidationBatch xmlns='x'><Paths><Quantity>1</Quantity></Paths></InvalidationBatch>"))
	f.Add([]byte("<InvalidationBatch>"))
	f.Fuzz(func(t *testing.T, body []byte) {
		ref, items, err := parseBatch(body)
		var e *apiError
		switch {
		case err == nil && (ref == "" || len(items) == 0):
			t.Errorf("accepted without reference or items: %q %q", ref, items)
		case err != nil && (!errors.As(err, &e) || e.status/100 != 4 || e.code == ""):
			t.Errorf("error %v", err)
		}
	})
}
