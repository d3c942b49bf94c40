// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

// Package awscloudfront is the dispatcher's way to Amazon CloudFront, over the
// AWS SDK for Go. Credentials, region and endpoint come from the SDK's own
// chain, so that AWS_ENDPOINT_URL_CLOUDFRONT points it at a simulator.
//
// It does not retry: package dispatch does, knowing what it saved.
package awscloudfront

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront"
	"github.com/aws/aws-sdk-go-v2/service/cloudfront/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"

	"github.com/cf-invalidation-tracker/cftrack/dispatch"
)

// Options says whom to be. The zero value takes everything from the SDK's chain
// of environment variables, shared files and instance roles.
type Options struct {
	// Profile of the shared configuration files.
	Profile string
	// Role is the ARN of a role to assume.
	Role string
	// AccessKey and SecretKey, if given, must both be: they are used instead of
	// the chain.
	AccessKey, SecretKey string
	// Endpoint overrides the chain's, as for a simulator.
	Endpoint string
	// HTTPClient is used for the calls; nil means the SDK's.
	HTTPClient *http.Client
}

// API is what is asked of the SDK's client.
type API interface {
	CreateInvalidation(context.Context, *cloudfront.CreateInvalidationInput, ...func(*cloudfront.Options)) (*cloudfront.CreateInvalidationOutput, error)
	GetInvalidation(context.Context, *cloudfront.GetInvalidationInput, ...func(*cloudfront.Options)) (*cloudfront.GetInvalidationOutput, error)
	ListInvalidations(context.Context, *cloudfront.ListInvalidationsInput, ...func(*cloudfront.Options)) (*cloudfront.ListInvalidationsOutput, error)
	CreateInvalidationForDistributionTenant(context.Context, *cloudfront.CreateInvalidationForDistributionTenantInput, ...func(*cloudfront.Options)) (*cloudfront.CreateInvalidationForDistributionTenantOutput, error)
	GetInvalidationForDistributionTenant(context.Context, *cloudfront.GetInvalidationForDistributionTenantInput, ...func(*cloudfront.Options)) (*cloudfront.GetInvalidationForDistributionTenantOutput, error)
	ListInvalidationsForDistributionTenant(context.Context, *cloudfront.ListInvalidationsForDistributionTenantInput, ...func(*cloudfront.Options)) (*cloudfront.ListInvalidationsForDistributionTenantOutput, error)
}

// Client is a dispatch.CDN. It is safe for concurrent use.
type Client struct {
	api   API
	creds aws.CredentialsProvider
}

var (
	_ dispatch.CDN    = (*Client)(nil)
	_ dispatch.Lister = (*Client)(nil)
)

// New reads the SDK's configuration and returns a client. It makes no call to
// CloudFront; missing credentials show in the first one.
func New(ctx context.Context, o Options) (*Client, error) {
	switch {
	case o.AccessKey == "" && o.SecretKey != "":
		return nil, errors.New("awscloudfront: a secret key was given without its access key: give both, or neither to use the SDK's chain")
	case o.AccessKey != "" && o.SecretKey == "":
		return nil, errors.New("awscloudfront: an access key was given without its secret key: give both, or neither to use the SDK's chain")
	}
	load := []func(*config.LoadOptions) error{
		// CloudFront is one service for all regions; the SDK wants one named.
		config.WithDefaultRegion("us-east-1"),
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }),
		config.WithAppID("cftrack"),
		// What matters comes back as an error; the SDK's own lines would go to
		// standard error between ours.
		config.WithLogger(logging.Nop{}),
	}
	if o.Profile != "" {
		load = append(load, config.WithSharedConfigProfile(o.Profile))
	}
	if o.AccessKey != "" {
		load = append(load, config.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider(o.AccessKey, o.SecretKey, "")))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fmt.Errorf("awscloudfront: reading the AWS configuration: %w", err)
	}
	if o.Role != "" {
		cfg.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg), o.Role))
	}
	api := cloudfront.NewFromConfig(cfg, func(c *cloudfront.Options) {
		// CloudFront has one region to sign for. The SDK knows it, but not once the endpoint is overridden.
		// https://docs.aws.amazon.com/general/latest/gr/cf_region.html
		c.Region = "us-east-1"
		if strings.HasPrefix(cfg.Region, "cn-") {
			c.Region = "cn-northwest-1"
		}
		if o.Endpoint != "" {
			c.BaseEndpoint = aws.String(o.Endpoint)
		}
		if o.HTTPClient != nil {
			c.HTTPClient = o.HTTPClient
		}
	})
	return &Client{api: api, creds: cfg.Credentials}, nil
}

// IsTenant reports whether an ID is that of a distribution tenant, which has
// operations of its own.
// https://docs.aws.amazon.com/cloudfront/latest/APIReference/API_CreateInvalidationForDistributionTenant.html
func IsTenant(distribution string) bool { return strings.HasPrefix(distribution, "dt_") }

// CreateInvalidation implements dispatch.CDN.
func (c *Client) CreateInvalidation(ctx context.Context, distribution, reference string, items []string) (dispatch.Receipt, error) {
	if err := c.authenticated(ctx); err != nil {
		return dispatch.Receipt{}, err
	}
	batch := &types.InvalidationBatch{
		CallerReference: &reference,
		Paths:           &types.Paths{Items: items, Quantity: aws.Int32(int32(len(items)))},
	}
	var inv *types.Invalidation
	var err error
	if IsTenant(distribution) {
		var out *cloudfront.CreateInvalidationForDistributionTenantOutput
		out, err = c.api.CreateInvalidationForDistributionTenant(ctx,
			&cloudfront.CreateInvalidationForDistributionTenantInput{Id: &distribution, InvalidationBatch: batch})
		if err == nil {
			inv = out.Invalidation
		}
	} else {
		var out *cloudfront.CreateInvalidationOutput
		out, err = c.api.CreateInvalidation(ctx,
			&cloudfront.CreateInvalidationInput{DistributionId: &distribution, InvalidationBatch: batch})
		if err == nil {
			inv = out.Invalidation
		}
	}
	return receipt(inv, classify(err, "cloudfront:CreateInvalidation", distribution))
}

// GetInvalidation implements dispatch.CDN.
func (c *Client) GetInvalidation(ctx context.Context, distribution, id string) (dispatch.Receipt, error) {
	inv, err := c.get(ctx, distribution, id)
	return receipt(inv, err)
}

func (c *Client) get(ctx context.Context, distribution, id string) (*types.Invalidation, error) {
	if err := c.authenticated(ctx); err != nil {
		return nil, err
	}
	const action = "cloudfront:GetInvalidation"
	if IsTenant(distribution) {
		out, err := c.api.GetInvalidationForDistributionTenant(ctx,
			&cloudfront.GetInvalidationForDistributionTenantInput{DistributionTenantId: &distribution, Id: &id})
		if err != nil {
			return nil, classify(err, action, distribution)
		}
		return out.Invalidation, nil
	}
	out, err := c.api.GetInvalidation(ctx, &cloudfront.GetInvalidationInput{DistributionId: &distribution, Id: &id})
	if err != nil {
		return nil, classify(err, action, distribution)
	}
	return out.Invalidation, nil
}

// FindInvalidation implements dispatch.CDN.
func (c *Client) FindInvalidation(ctx context.Context, distribution, reference string, since time.Time) (dispatch.Receipt, bool, error) {
	for s, err := range c.SentSince(ctx, distribution, since, func(string) bool { return false }) {
		if err != nil {
			return dispatch.Receipt{}, false, err
		}
		if s.Reference == reference {
			return s.Receipt, true, nil
		}
	}
	return dispatch.Receipt{}, false, nil
}

// SentSince implements dispatch.CDN. CloudFront lists invalidations newest first
// and without their references, so that each one in question costs a call.
func (c *Client) SentSince(ctx context.Context, distribution string, since time.Time, known func(id string) bool) iter.Seq2[dispatch.Sent, error] {
	return func(yield func(dispatch.Sent, error) bool) {
		if err := c.authenticated(ctx); err != nil {
			yield(dispatch.Sent{}, err)
			return
		}
		for marker := (*string)(nil); ; {
			list, err := c.list(ctx, distribution, marker)
			if err != nil {
				yield(dispatch.Sent{}, classify(err, "cloudfront:ListInvalidations", distribution))
				return
			}
			for _, s := range list.Items {
				if aws.ToTime(s.CreateTime).Before(since) {
					return
				}
				if known(aws.ToString(s.Id)) {
					continue
				}
				if !yield(c.sent(ctx, distribution, aws.ToString(s.Id))) {
					return
				}
			}
			if marker = list.NextMarker; !aws.ToBool(list.IsTruncated) || marker == nil {
				return
			}
		}
	}
}

// sent reads what was sent as an invalidation.
func (c *Client) sent(ctx context.Context, distribution, id string) (dispatch.Sent, error) {
	inv, err := c.get(ctx, distribution, id)
	if err != nil {
		return dispatch.Sent{}, err
	}
	r, err := receipt(inv, nil)
	s := dispatch.Sent{Receipt: r}
	if err == nil {
		s.Created = aws.ToTime(inv.CreateTime)
		if b := inv.InvalidationBatch; b != nil {
			s.Reference = aws.ToString(b.CallerReference)
			if b.Paths != nil {
				s.Items = b.Paths.Items
			}
		}
	}
	return s, err
}

// ListInvalidations implements dispatch.Lister.
func (c *Client) ListInvalidations(ctx context.Context, distribution, marker string) ([]dispatch.Receipt, string, error) {
	if err := c.authenticated(ctx); err != nil {
		return nil, "", err
	}
	var from *string
	if marker != "" {
		from = &marker
	}
	list, err := c.list(ctx, distribution, from)
	if err != nil {
		return nil, "", classify(err, "cloudfront:ListInvalidations", distribution)
	}
	receipts := make([]dispatch.Receipt, 0, len(list.Items))
	for _, s := range list.Items {
		receipts = append(receipts, dispatch.Receipt{ID: aws.ToString(s.Id), Completed: completed(s.Status)})
	}
	if !aws.ToBool(list.IsTruncated) {
		return receipts, "", nil
	}
	return receipts, aws.ToString(list.NextMarker), nil
}

func completed(status *string) bool { return strings.EqualFold(aws.ToString(status), "Completed") }

func (c *Client) list(ctx context.Context, distribution string, marker *string) (*types.InvalidationList, error) {
	if IsTenant(distribution) {
		out, err := c.api.ListInvalidationsForDistributionTenant(ctx,
			&cloudfront.ListInvalidationsForDistributionTenantInput{Id: &distribution, Marker: marker})
		if err != nil {
			return nil, err
		}
		return out.InvalidationList, nil
	}
	out, err := c.api.ListInvalidations(ctx, &cloudfront.ListInvalidationsInput{DistributionId: &distribution, Marker: marker})
	if err != nil {
		return nil, err
	}
	return out.InvalidationList, nil
}

// authenticated tells missing credentials apart from everything that a call can
// run into.
func (c *Client) authenticated(ctx context.Context) error {
	_, err := c.creds.Retrieve(ctx)
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	return &dispatch.Error{Kind: dispatch.BadCredentials, Code: "NoCredentials",
		Message: "no usable AWS credentials were found",
		Hint: "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role is attached; " +
			"`aws sts get-caller-identity` shows what the chain finds",
		Err: err}
}

func receipt(inv *types.Invalidation, err error) (dispatch.Receipt, error) {
	if err != nil {
		return dispatch.Receipt{}, err
	}
	if inv == nil || aws.ToString(inv.Id) == "" {
		return dispatch.Receipt{}, &dispatch.Error{Kind: dispatch.NoAnswer, Code: "EmptyAnswer",
			Message: "CloudFront answered without an invalidation"}
	}
	r := dispatch.Receipt{ID: *inv.Id, Completed: completed(inv.Status)}
	if inv.InvalidationBatch != nil && inv.InvalidationBatch.Paths != nil {
		for _, it := range inv.InvalidationBatch.Paths.Items {
			if strings.HasSuffix(it, "*") {
				r.Wildcards++
			} else {
				r.Others++
			}
		}
	}
	return r, nil
}

// Policy is the least IAM policy for a distribution.
func Policy(distribution string) string {
	resource := "distribution/" + distribution
	if IsTenant(distribution) {
		resource = "distribution-tenant/" + distribution
	}
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":` +
		`["cloudfront:CreateInvalidation","cloudfront:GetInvalidation","cloudfront:ListInvalidations"],` +
		`"Resource":"arn:aws:cloudfront::ACCOUNT:` + resource + `"}]}`
}

// classify says what an error of the SDK means. The codes are those of
// https://docs.aws.amazon.com/cloudfront/latest/APIReference/API_CreateInvalidation.html
// and of https://github.com/aws/aws-sdk-go-v2/blob/main/aws/retry/standard.go
func classify(err error, action, distribution string) error {
	if err == nil {
		return nil
	}
	e := &dispatch.Error{Kind: dispatch.NoAnswer, Err: err}
	status := 0
	var re *awshttp.ResponseError
	if errors.As(err, &re) && re.Response != nil {
		status = re.HTTPStatusCode()
	}
	var api smithy.APIError
	if !errors.As(err, &api) {
		if status >= 500 {
			e.Kind = dispatch.Unavailable
		}
		var ue *url.Error
		if errors.As(err, &ue) {
			// The SDK wraps this five times; what went wrong is at its end.
			e.Code, e.Message = "NoAnswer", fmt.Sprintf("%s %s: %v", ue.Op, ue.URL, ue.Err)
			e.Hint = "check the network, and AWS_ENDPOINT_URL_CLOUDFRONT if it is set"
		}
		return e
	}
	e.Code, e.Message = api.ErrorCode(), api.ErrorMessage()
	switch e.Code {
	case "TooManyInvalidationsInProgress":
		e.Kind = dispatch.Busy
	case "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottledException", "TooManyRequestsException",
		"RequestLimitExceeded", "BandwidthLimitExceeded", "LimitExceededException", "RequestThrottled", "SlowDown",
		"PriorRequestNotComplete", "EC2ThrottledException":
		e.Kind = dispatch.Throttled
	case "InvalidArgument":
		e.Kind = dispatch.BadItem
	case "BatchTooLarge":
		e.Kind = dispatch.TooLarge
	case "AccessDenied", "AccessDeniedException":
		e.Kind = dispatch.Denied
		e.Hint = fmt.Sprintf("the caller needs %s on %s; the least policy is %s", action, distribution, Policy(distribution))
	case "InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException", "UnrecognizedClientException",
		"InvalidAccessKeyId", "MissingAuthenticationToken", "IncompleteSignature", "RequestExpired", "InvalidSignatureException",
		"AuthFailure", "OptInRequired":
		e.Kind = dispatch.BadCredentials
		e.Hint = "check the credentials and this machine's clock; `aws sts get-caller-identity` shows who AWS takes you for"
	case "NoSuchDistribution", "EntityNotFound":
		e.Kind = dispatch.NoDistribution
		e.Hint = fmt.Sprintf("%s is not a distribution of this account; `aws cloudfront list-distributions` shows them", distribution)
	case "NoSuchInvalidation":
		e.Kind = dispatch.NoInvalidation
	case "InvalidationBatchAlreadyExists":
		e.Kind = dispatch.ReferenceUsed
	default:
		switch {
		case status >= 500:
			e.Kind = dispatch.Unavailable
		case status == http.StatusTooManyRequests:
			e.Kind = dispatch.Throttled
		case status != 0:
			e.Kind = dispatch.Refused
		}
	}
	return e
}
