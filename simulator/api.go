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
	"strconv"
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
	GetCachePolicy              = "GetCachePolicy"
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

// route finds the operation that a request names; "" if it names none.
func route(method, path string) (op string, target scope, id string) {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if len(parts) < 3 || parts[0] != apiVersion || parts[2] == "" {
		return "", scope{}, ""
	}
	if parts[1] == "cache-policy" && len(parts) == 3 && method == http.MethodGet {
		return GetCachePolicy, scope{}, parts[2]
	}
	target = scope{tenant: parts[1] == "distribution-tenant", id: parts[2]}
	if !target.tenant && parts[1] != "distribution" {
		return "", scope{}, ""
	}
	pick := func(direct, tenant string) string {
		if target.tenant {
			return tenant
		}
		return direct
	}
	switch rest := parts[3:]; {
	case len(rest) == 1 && rest[0] == "invalidation" && method == http.MethodPost:
		op = pick(CreateInvalidation, CreateInvalidationForTenant)
	case len(rest) == 1 && rest[0] == "invalidation" && method == http.MethodGet:
		op = pick(ListInvalidations, ListInvalidationsForTenant)
	case len(rest) == 2 && rest[0] == "invalidation" && rest[1] != "" && method == http.MethodGet:
		op, id = pick(GetInvalidation, GetInvalidationForTenant), rest[1]
	case len(rest) == 0 && method == http.MethodGet:
		op = pick(GetDistribution, "")
	case len(rest) == 1 && rest[0] == "config" && method == http.MethodGet:
		op = pick(GetDistributionConfig, "")
	}
	return op, target, id
}

func (s *Simulator) serveAPI(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		http.Error(w, "the simulator is closed", http.StatusServiceUnavailable)
		return
	}
	defer s.active.Done()

	op, target, id := route(r.Method, r.URL.Path)
	s.mu.Lock()
	s.calls[op]++
	requestID := s.randomUUID()
	s.mu.Unlock()

	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		failed(&apiError{http.StatusRequestEntityTooLarge, "BatchTooLarge", "Invalidation batch specified is too large: " + err.Error()}).write(w, requestID)
		return
	}
	var fault Fault
	if s.opts.Intercept != nil {
		r.Body = io.NopCloser(bytes.NewReader(body))
		if f := s.opts.Intercept(op, r); f != nil {
			fault = *f
		}
	}
	if !s.sleep(r.Context(), fault.Delay) {
		// The caller has gone, or the simulator closes.
		failed(ServiceUnavailable().err()).write(w, requestID)
		return
	}
	var p reply
	if fault.Work || (!fault.Drop && fault.Code == "") {
		p = s.call(op, target, id, r, body)
	}
	switch {
	case fault.Drop:
		panic(http.ErrAbortHandler)
	case fault.Code != "":
		p = failed(fault.err())
	}
	p.write(w, requestID)
}

// call carries an operation out.
func (s *Simulator) call(op string, target scope, id string, r *http.Request, body []byte) reply {
	if err := checkAuthorization(r.Header.Get("Authorization")); err != nil {
		return failed(err)
	}
	if op == "" {
		return failed(&apiError{http.StatusNotFound, "UnknownOperation",
			fmt.Sprintf("The simulator has no operation for %s %s.", r.Method, r.URL.Path)})
	}
	if op == GetCachePolicy {
		p, err := s.cachePolicy(id)
		if err != nil {
			return failed(err)
		}
		return p
	}
	if target.tenant && !slices.Contains(s.opts.Tenants, target.id) {
		return failed(&apiError{http.StatusNotFound, "EntityNotFound", "The specified distribution tenant does not exist."})
	}
	if !target.tenant && target.id != s.opts.Distribution {
		return failed(&apiError{http.StatusNotFound, "NoSuchDistribution", "The specified distribution does not exist."})
	}
	var p reply
	var err error
	switch op {
	case CreateInvalidation, CreateInvalidationForTenant:
		p, err = s.create(target, r, body)
	case GetInvalidation, GetInvalidationForTenant:
		p, err = s.get(target, id)
	case ListInvalidations, ListInvalidationsForTenant:
		p, err = s.listInvalidations(target, r)
	case GetDistribution:
		p = s.distribution()
	case GetDistributionConfig:
		p = s.distributionConfig()
	}
	if err != nil {
		return failed(err)
	}
	return p
}

var authorization = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=[^/,\s]+/[0-9]{8}/[a-z0-9-]+/([a-z0-9-]+)/aws4_request,\s*SignedHeaders=[a-z0-9;-]+,\s*Signature=[0-9a-f]{64}$`)

// checkAuthorization looks at the presence and the shape of a signature, not at the signature: the
// simulator knows no secret.
func checkAuthorization(header string) error {
	if header == "" {
		return &apiError{http.StatusForbidden, "MissingAuthenticationToken", "Request is missing Authentication Token"}
	}
	m := authorization.FindStringSubmatch(header)
	if m == nil {
		return &apiError{http.StatusForbidden, "IncompleteSignature", "Authorization header is not of the form of Signature Version 4."}
	}
	if m[1] != "cloudfront" {
		return &apiError{http.StatusForbidden, "SignatureDoesNotMatch", "Credential should be scoped to correct service: 'cloudfront'."}
	}
	return nil
}

func (s *Simulator) create(target scope, r *http.Request, body []byte) (reply, error) {
	reference, items, err := parseBatch(body)
	if err != nil {
		return reply{}, err
	}
	inv, err := s.accept(target, reference, items)
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
	inv := s.ids[target.String()+"/"+id]
	if inv == nil {
		return reply{}, &apiError{http.StatusNotFound, "NoSuchInvalidation", "The specified invalidation does not exist."}
	}
	return reply{status: http.StatusOK, body: inv.Invalidation.xml()}, nil
}

// pageSize is the default and the largest page of a list. AWS documents neither.
const pageSize = 100

func (s *Simulator) listInvalidations(target scope, r *http.Request) (reply, error) {
	q := r.URL.Query()
	page := listXML{Marker: q.Get("Marker"), MaxItems: pageSize}
	if m := q.Get("MaxItems"); m != "" {
		n, err := strconv.Atoi(m)
		if err != nil || n < 1 {
			return reply{}, &apiError{http.StatusBadRequest, "InvalidArgument", fmt.Sprintf("MaxItems %q is not a positive number.", m)}
		}
		page.MaxItems = min(n, pageSize)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := s.byScope[target]
	if page.Marker != "" {
		i := slices.IndexFunc(rest, func(v *invalidation) bool { return v.ID == page.Marker })
		if i < 0 {
			return reply{}, &apiError{http.StatusBadRequest, "InvalidArgument", fmt.Sprintf("The marker %q is not an invalidation.", page.Marker)}
		}
		rest = rest[:i]
	}
	for i := len(rest) - 1; i >= 0 && page.Quantity < page.MaxItems; i-- {
		if page.Items == nil {
			page.Items = &summariesXML{}
		}
		v := rest[i]
		page.Items.Summary = append(page.Items.Summary, summaryXML{v.ID, formatTime(v.Created), v.Status})
		page.Quantity++
	}
	if page.Quantity < len(rest) {
		page.Truncated = true
		page.NextMarker = page.Items.Summary[page.Quantity-1].ID
	}
	return reply{status: http.StatusOK, body: &page}, nil
}
