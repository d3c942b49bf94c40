// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// The protocol is described at
// https://docs.aws.amazon.com/cloudfront/latest/APIReference/API_CreateInvalidation.html.
const (
	apiVersion = "2020-05-31"
	namespace  = "http://cloudfront.amazonaws.com/doc/2020-05-31/"
	timeFormat = "2006-01-02T15:04:05.000Z"
	// maxBody has room for 3,000 items of 4,000 characters and their elements.
	maxBody = 32 << 20
)

// batchIn is the request body. Namespaces and the order of elements are not looked at: clients differ.
type batchIn struct {
	XMLName         xml.Name `xml:"InvalidationBatch"`
	CallerReference string   `xml:"CallerReference"`
	Paths           *struct {
		Quantity *int     `xml:"Quantity"`
		Items    []string `xml:"Items>Path"`
	} `xml:"Paths"`
}

type pathsXML struct {
	Quantity int       `xml:"Quantity"`
	Items    *itemsXML `xml:"Items"`
}

type itemsXML struct {
	Path []string `xml:"Path"`
}

type batchXML struct {
	CallerReference string   `xml:"CallerReference"`
	Paths           pathsXML `xml:"Paths"`
}

type invalidationXML struct {
	XMLName xml.Name `xml:"http://cloudfront.amazonaws.com/doc/2020-05-31/ Invalidation"`
	ID      string   `xml:"Id"`
	Status  string   `xml:"Status"`
	Created string   `xml:"CreateTime"`
	Batch   batchXML `xml:"InvalidationBatch"`
}

type errorXML struct {
	XMLName xml.Name `xml:"http://cloudfront.amazonaws.com/doc/2020-05-31/ ErrorResponse"`
	Type    string   `xml:"Error>Type"`
	Code    string   `xml:"Error>Code"`
	Message string   `xml:"Error>Message"`
	Request string   `xml:"RequestId"`
}

// apiError is an answer of the control API that is not a success.
type apiError struct {
	status        int
	code, message string
}

func (e *apiError) Error() string { return fmt.Sprintf("%s (%d): %s", e.code, e.status, e.message) }

// reply is an answer of the control API before it is written.
type reply struct {
	status int
	header http.Header
	body   any
}

func failed(err error) reply {
	var e *apiError
	if !errors.As(err, &e) {
		e = &apiError{http.StatusInternalServerError, "InternalFailure", err.Error()}
	}
	kind := "Sender"
	if e.status >= 500 {
		kind = "Receiver"
	}
	return reply{status: e.status, body: &errorXML{Type: kind, Code: e.code, Message: e.message}}
}

func (p reply) write(w http.ResponseWriter, requestID string) {
	if e, ok := p.body.(*errorXML); ok {
		e.Request = requestID
	}
	var b bytes.Buffer
	b.WriteString(xml.Header)
	if err := xml.NewEncoder(&b).Encode(p.body); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	for k, v := range p.header {
		h[k] = v
	}
	h.Set("X-Amzn-RequestId", requestID)
	h.Set("Content-Type", "text/xml")
	w.WriteHeader(p.status)
	_, _ = w.Write(b.Bytes()) // the client has gone: nobody is left to tell
}

func noItems() error {
	return &apiError{http.StatusBadRequest, "InvalidArgument", "Your request must name at least one path to invalidate."}
}

// parseBatch reads a request body. Its errors are *apiError.
func parseBatch(body []byte) (reference string, items []string, err error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return "", nil, &apiError{http.StatusBadRequest, "MissingBody", "This operation requires a body. Ensure that the body is present and the Content-Type header is set."}
	}
	malformed := func(why string) error {
		return &apiError{http.StatusBadRequest, "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema: " + why}
	}
	var in batchIn
	d := xml.NewDecoder(bytes.NewReader(body))
	if err := d.Decode(&in); err != nil {
		return "", nil, malformed(err.Error())
	}
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", nil, malformed(err.Error())
		}
		switch t := t.(type) {
		case xml.Comment, xml.ProcInst:
		case xml.CharData:
			if len(bytes.TrimSpace(t)) > 0 {
				return "", nil, malformed("text after the root element")
			}
		default:
			return "", nil, malformed("a second root element")
		}
	}
	switch {
	case in.Paths == nil:
		return "", nil, malformed("Paths is missing")
	case in.Paths.Quantity == nil:
		return "", nil, malformed("Quantity is missing")
	case in.CallerReference == "":
		return "", nil, &apiError{http.StatusBadRequest, "InvalidArgument", "The parameter CallerReference is required."}
	case *in.Paths.Quantity != len(in.Paths.Items):
		return "", nil, &apiError{http.StatusBadRequest, "InconsistentQuantities", "The value of Quantity and the size of Items do not match."}
	case len(in.Paths.Items) == 0:
		return "", nil, noItems()
	}
	return in.CallerReference, in.Paths.Items, nil
}

func formatTime(t time.Time) string { return t.UTC().Format(timeFormat) }
