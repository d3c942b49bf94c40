// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Operations of the control API, as Intercept and Calls name them.
const (
	CreateInvalidation          = "CreateInvalidation"
	GetInvalidation             = "GetInvalidation"
	ListInvalidations           = "ListInvalidations"
	CreateInvalidationForTenant = "CreateInvalidationForDistributionTenant"
	GetInvalidationForTenant    = "GetInvalidationForDistributionTenant"
	ListInvalidationsForTenant  = "ListInvalidationsForDistributionTenant"
	GetDistribution             = "GetDistribution"
	GetDistributionConfig       = "GetDistributionConfig"
	ListDistributions           = "ListDistributions"
	GetCachePolicy              = "GetCachePolicy"
	ListCachePolicies           = "ListCachePolicies"
	GetOriginRequestPolicy      = "GetOriginRequestPolicy"
	ListOriginRequestPolicies   = "ListOriginRequestPolicies"
)

// Fault is what goes wrong with one call of the control API.
type Fault struct {
	// Delay passes before anything else happens.
	Delay time.Duration
	// Work has the call carried out all the same, before it is answered or dropped. It is also
	// carried out when neither Drop nor Code is set.
	Work bool
	// Drop breaks the connection in place of an answer. With Work the answer is lost, without it
	// the request.
	Drop bool
	// Status (default 400), Code and Message are the answer when Code is set.
	Status        int
	Code, Message string
}

// Throttling is the answer to too many calls.
func Throttling() *Fault {
	return &Fault{Status: http.StatusBadRequest, Code: "Throttling", Message: "Rate exceeded"}
}

// TooManyInvalidationsInProgress is the answer to too many items.
func TooManyInvalidationsInProgress() *Fault {
	return &Fault{Status: http.StatusBadRequest, Code: "TooManyInvalidationsInProgress",
		Message: "Processing your request will cause you to exceed the maximum number of in-progress invalidations."}
}

// ServiceUnavailable is CloudFront out of order.
func ServiceUnavailable() *Fault {
	return &Fault{Status: http.StatusServiceUnavailable, Code: "ServiceUnavailable",
		Message: "CloudFront encountered an internal error. Please try again."}
}

// AccessDenied is the answer to a caller without the permission.
func AccessDenied() *Fault {
	return &Fault{Status: http.StatusForbidden, Code: "AccessDenied",
		Message: "User is not authorized to perform this operation on this resource."}
}

// LostAnswer carries the call out and drops the connection before the answer.
func LostAnswer() *Fault { return &Fault{Work: true, Drop: true} }

// LostRequest drops the connection before anything is done.
func LostRequest() *Fault { return &Fault{Drop: true} }

func (f *Fault) err() error {
	return &apiError{cmp.Or(f.Status, http.StatusBadRequest), f.Code, f.Message}
}

// scope is what an invalidation is sent to.
type scope struct {
	tenant bool
	id     string
}

func (c scope) String() string {
	if c.tenant {
		return "distribution-tenant/" + c.id
	}
	return "distribution/" + c.id
}

// operations are in the order of their paths. {T} is the ID of a distribution or tenant, {ID} any other.
var operations = []struct{ method, path, op string }{
	{http.MethodGet, "cache-policy", ListCachePolicies},
	{http.MethodGet, "cache-policy/{ID}", GetCachePolicy},
	{http.MethodGet, "distribution", ListDistributions},
	{http.MethodGet, "distribution/{T}", GetDistribution},
	{http.MethodGet, "distribution/{T}/config", GetDistributionConfig},
	{http.MethodGet, "distribution/{T}/invalidation", ListInvalidations},
	{http.MethodPost, "distribution/{T}/invalidation", CreateInvalidation},
	{http.MethodGet, "distribution/{T}/invalidation/{ID}", GetInvalidation},
	{http.MethodGet, "distribution-tenant/{T}/invalidation", ListInvalidationsForTenant},
	{http.MethodPost, "distribution-tenant/{T}/invalidation", CreateInvalidationForTenant},
	{http.MethodGet, "distribution-tenant/{T}/invalidation/{ID}", GetInvalidationForTenant},
	{http.MethodGet, "origin-request-policy", ListOriginRequestPolicies},
	{http.MethodGet, "origin-request-policy/{ID}", GetOriginRequestPolicy},
}

// route finds the operation that a request names; "" if it names none.
func route(method, path string) (op string, target scope, id string) {
	rest, ok := strings.CutPrefix(path, "/"+apiVersion+"/")
	if !ok {
		return "", scope{}, ""
	}
	parts := strings.Split(rest, "/")
next:
	for _, o := range operations {
		pattern := strings.Split(o.path, "/")
		if o.method != method || len(pattern) != len(parts) {
			continue
		}
		target, id = scope{}, ""
		for i, p := range pattern {
			switch {
			case p == "{T}" && parts[i] != "":
				target = scope{tenant: parts[0] == "distribution-tenant", id: parts[i]}
			case p == "{ID}" && parts[i] != "":
				id = parts[i]
			case p != parts[i]:
				continue next
			}
		}
		return o.op, target, id
	}
	return "", scope{}, ""
}

func (s *Simulator) serveAPI(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		http.Error(w, "the simulator is closed", http.StatusServiceUnavailable)
		return
	}
	defer s.active.Done()

	op, target, id := route(r.Method, r.URL.Path)
	c := &Call{Time: time.Now(), Operation: op, Caller: caller(r), Target: target.id, ID: id}
	s.mu.Lock()
	s.calls[op]++
	requestID := s.randomUUID()
	s.mu.Unlock()

	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		p := failed(&apiError{http.StatusRequestEntityTooLarge, "BatchTooLarge", "Invalidation batch specified is too large: " + err.Error()})
		s.decided(c, p)
		p.write(w, requestID)
		return
	}
	fault, cause, late := s.goesWrong(op, r, body)
	if !s.sleep(r.Context(), fault.Delay) {
		// The caller has gone, or the simulator closes.
		c.Lost = true
		s.decided(c, reply{})
		failed(ServiceUnavailable().err()).write(w, requestID)
		return
	}
	c.Time = time.Now()
	var p reply
	if fault.Work || (!fault.Drop && fault.Code == "") {
		p = s.call(c, target, id, r, body)
	}
	if fault.Drop || fault.Code != "" {
		c.Lost = fault.Drop
		c.Cause = cmp.Or(c.Cause, cause) // a quota that was exceeded matters more
	}
	if !fault.Drop && fault.Code != "" {
		p = failed(fault.err())
	}
	s.decided(c, p)
	if !s.sleep(r.Context(), late) {
		failed(ServiceUnavailable().err()).write(w, requestID)
		return
	}
	if fault.Drop {
		panic(http.ErrAbortHandler)
	}
	p.write(w, requestID)
}

// goesWrong asks Intercept, then the weather, what goes wrong with a call, and why. Late is what passes
// after it was carried out.
func (s *Simulator) goesWrong(op string, r *http.Request, body []byte) (f Fault, cause Cause, late time.Duration) {
	if s.opts.Intercept != nil {
		r.Body = io.NopCloser(bytes.NewReader(body))
		if f := s.opts.Intercept(op, r); f != nil {
			return *f, Intercepted, 0
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, late := s.sky.next(); f != nil {
		return *f, BadWeather, late
	}
	return Fault{}, "", 0
}

// decided puts a call into the log.
func (s *Simulator) decided(c *Call, p reply) {
	c.Status = p.status
	if e, ok := p.body.(*errorXML); ok {
		c.Code = e.Code
		c.Cause = cmp.Or(c.Cause, BadRequest)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.record(c)
}

// call carries an operation out.
func (s *Simulator) call(c *Call, target scope, id string, r *http.Request, body []byte) reply {
	p, err := s.carryOut(c, target, id, r, body)
	if err != nil {
		return failed(err)
	}
	return p
}

func (s *Simulator) carryOut(c *Call, target scope, id string, r *http.Request, body []byte) (reply, error) {
	if err := s.checkAuthorization(r.Header.Get("Authorization")); err != nil {
		return reply{}, err
	}
	s.mu.Lock()
	err := s.admit(c)
	s.mu.Unlock()
	if err != nil {
		return reply{}, err
	}
	q := r.URL.Query()
	switch c.Operation {
	case "":
		return reply{}, &apiError{http.StatusNotFound, "UnknownOperation",
			fmt.Sprintf("The simulator has no operation for %s %s.", r.Method, r.URL.Path)}
	case ListDistributions:
		return s.listDistributions(q)
	case GetCachePolicy:
		return s.cachePolicy(id)
	case ListCachePolicies:
		return s.listCachePolicies(q)
	case GetOriginRequestPolicy:
		return s.originRequestPolicy(id)
	case ListOriginRequestPolicies:
		return s.listRequestPolicies(q)
	}
	if target.tenant && !slices.Contains(s.opts.Tenants, target.id) {
		return reply{}, &apiError{http.StatusNotFound, "EntityNotFound", "The specified distribution tenant does not exist."}
	}
	if !target.tenant && target.id != s.opts.Distribution {
		return reply{}, &apiError{http.StatusNotFound, "NoSuchDistribution", "The specified distribution does not exist."}
	}
	switch c.Operation {
	case CreateInvalidation, CreateInvalidationForTenant:
		return s.create(c, target, r, body)
	case GetInvalidation, GetInvalidationForTenant:
		return s.get(target, id)
	case ListInvalidations, ListInvalidationsForTenant:
		return s.listInvalidations(target, q)
	case GetDistribution:
		return s.distribution(), nil
	default: // GetDistributionConfig
		return s.distributionConfig(), nil
	}
}

var authorization = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([^/,\s]+)/[0-9]{8}/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request,\s*SignedHeaders=[a-z0-9;-]+,\s*Signature=[0-9a-f]{64}$`)

// caller is the access key ID of a signed request.
func caller(r *http.Request) string {
	if m := authorization.FindStringSubmatch(r.Header.Get("Authorization")); m != nil {
		return m[1]
	}
	return ""
}

// checkAuthorization looks at the presence and the shape of a signature, not at the signature: the
// simulator knows no secret.
func (s *Simulator) checkAuthorization(header string) error {
	if header == "" {
		return &apiError{http.StatusForbidden, "MissingAuthenticationToken", "Request is missing Authentication Token"}
	}
	m := authorization.FindStringSubmatch(header)
	if m == nil {
		return &apiError{http.StatusForbidden, "IncompleteSignature", "Authorization header is not of the form of Signature Version 4."}
	}
	if m[3] != "cloudfront" {
		return &apiError{http.StatusForbidden, "SignatureDoesNotMatch", "Credential should be scoped to correct service: 'cloudfront'."}
	}
	if want := s.opts.SigningRegion; want != "*" && m[2] != want {
		return &apiError{http.StatusForbidden, "SignatureDoesNotMatch", fmt.Sprintf("Credential should be scoped to a valid region, not '%s': this is '%s'.", m[2], want)}
	}
	return nil
}

func (s *Simulator) create(c *Call, target scope, r *http.Request, body []byte) (reply, error) {
	reference, items, err := parseBatch(body)
	if err != nil {
		return reply{}, err
	}
	inv, err := s.accept(target, reference, items, c)
	if err != nil {
		return reply{}, err
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	location := fmt.Sprintf("%s://%s/%s/%s/invalidation/%s", scheme, r.Host, apiVersion, target, inv.ID)
	return reply{http.StatusCreated, http.Header{"Location": {location}}, inv.xml()}, nil
}

func (s *Simulator) get(target scope, id string) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.ids[target.String()+"/"+id]; v != nil {
		if out, known := v.seen(time.Now()); known {
			return reply{status: http.StatusOK, body: out.xml()}, nil
		}
	}
	return reply{}, &apiError{http.StatusNotFound, "NoSuchInvalidation", "The specified invalidation does not exist."}
}
