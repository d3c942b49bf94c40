// Copyright The cftrack Authors
// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// LoadConfig reads a Config from YAML, or from the JSON that 'aws cloudfront get-distribution-config'
// and 'get-distribution' print. Names are those of CloudFront's API. A list may be written as a YAML
// list, or as there with Quantity and Items. Settings of a distribution that make no difference here
// (Comment, ViewerCertificate, Logging and the like) are passed over; a name that CloudFront does not
// know is an error. CachePolicies and OriginRequestPolicies may stand beside DistributionConfig; their
// elements are what 'aws cloudfront get-cache-policy' prints as CachePolicy.
//
// The name is that of the file, for errors, which are [*ConfigError]s with line and column. The Config
// is validated.
func LoadConfig(r io.Reader, name string) (*Config, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("simulator: %s: %w", name, err)
	}
	tree, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, badYAML(name, err)
	}
	l := &loader{name: name, fields: map[string]ast.Node{}}
	c := &Config{}
	var bodies []ast.Node
	for _, doc := range tree.Docs {
		if doc.Body != nil && doc.Body.Type() != ast.CommentType {
			bodies = append(bodies, doc.Body)
		}
	}
	switch len(bodies) {
	case 0:
		return nil, &ConfigError{At: name + ":1:1", Reason: "it is empty", Hint: "describe a distribution, beginning with DefaultCacheBehavior"}
	case 1:
		l.top(bodies[0], c)
	default:
		l.fail(bodies[1], "", "put everything into one", "a second document")
	}
	if l.err != nil {
		return nil, l.err
	}
	var bad *ConfigError
	if err := c.Validate(); errors.As(err, &bad) {
		bad.At = l.position(bad.Field, bodies[0])
		return nil, bad
	}
	return c, nil
}

func badYAML(name string, err error) error {
	out := &ConfigError{At: name + ":1:1", Reason: "it is neither YAML nor JSON: " + err.Error(), Hint: "indent with spaces, and quote what begins with * & ! % @"}
	var ye yaml.Error
	if errors.As(err, &ye) && ye.GetToken() != nil && ye.GetToken().Position != nil {
		out.At = fmt.Sprintf("%s:%d:%d", name, ye.GetToken().Position.Line, ye.GetToken().Position.Column)
		out.Reason = "it is neither YAML nor JSON: " + ye.GetMessage()
	}
	return out
}

// loader fills structs from a tree by the names of their fields. It keeps the first error.
type loader struct {
	name   string
	fields map[string]ast.Node // by field, such as "CacheBehaviors[2].PathPattern"
	err    *ConfigError
}

func (l *loader) fail(n ast.Node, field, hint, format string, args ...any) {
	if l.err == nil {
		l.err = &ConfigError{At: l.at(n), Field: field, Reason: fmt.Sprintf(format, args...), Hint: hint}
	}
}

func (l *loader) at(n ast.Node) string {
	if m, ok := n.(ast.MapNode); ok { // its own token is a colon or a brace
		if it := m.MapRange(); it.Next() {
			return l.at(it.Key())
		}
	}
	line, column := 1, 1
	if t := n.GetToken(); t != nil && t.Position != nil {
		line, column = t.Position.Line, t.Position.Column
	}
	return fmt.Sprintf("%s:%d:%d", l.name, line, column)
}

// position finds where a field was written, or else what it would be part of.
func (l *loader) position(field string, whole ast.Node) string {
	for field != "" {
		if n, ok := l.fields[field]; ok {
			return l.at(n)
		}
		field = field[:max(0, strings.LastIndexAny(field, ".["))]
	}
	return l.at(whole)
}

type member struct {
	name       string
	key, value ast.Node
}

func (l *loader) members(n ast.Node, field string) []member {
	m, ok := n.(ast.MapNode)
	if !ok {
		l.fail(n, field, "write 'Name: value' lines below it", "it is no mapping")
		return nil
	}
	var out []member
	for it := m.MapRange(); it.Next(); {
		key, ok := it.Key().(ast.Node)
		if !ok || key.GetToken() == nil || key.Type() == ast.MergeKeyType {
			l.fail(n, field, "write the settings out", "a key that is no name")
			continue
		}
		out = append(out, member{key.GetToken().Value, key, it.Value()})
	}
	return out
}

// top takes off what the AWS CLI puts around a configuration.
func (l *loader) top(n ast.Node, c *Config) {
	members := l.members(n, "")
	wrapped := slices.ContainsFunc(members, func(m member) bool { return m.name == "DistributionConfig" || m.name == "Distribution" })
	if !wrapped {
		l.object(n, "", reflect.ValueOf(c).Elem())
		return
	}
	for _, m := range members {
		switch m.name {
		case "ETag":
		case "DistributionConfig":
			l.object(m.value, "", reflect.ValueOf(c).Elem())
		case "Distribution":
			for _, m := range l.members(m.value, "Distribution") {
				if m.name == "DistributionConfig" {
					l.object(m.value, "", reflect.ValueOf(c).Elem())
				}
			}
		case "CachePolicies":
			l.value(m.value, m.name, reflect.ValueOf(&c.CachePolicies).Elem())
		case "OriginRequestPolicies":
			l.value(m.value, m.name, reflect.ValueOf(&c.OriginRequestPolicies).Elem())
		default:
			l.fail(m.key, "", "beside DistributionConfig there may be CachePolicies and OriginRequestPolicies", "unknown name %q", m.name)
		}
	}
}

// without are names of CloudFront's API that make no difference here, by type.
var without = map[string]string{
	"Config": "AnycastIpListId CallerReference Comment ConnectionMode ConnectionFunctionAssociation ContinuousDeploymentPolicyId Enabled HttpVersion IsIPV6Enabled " +
		"Logging OriginGroups PriceClass Restrictions Staging TenantConfig ViewerCertificate ViewerMtlsConfig WebACLId",
	"Origin":             "ConnectionTimeout OriginAccessControlId OriginShield ResponseCompletionTimeout S3OriginConfig VpcOriginConfig",
	"CustomOriginConfig": "HTTPPort HTTPSPort OriginKeepaliveTimeout OriginProtocolPolicy OriginSslProtocols IpAddressType OriginMtlsConfig",
	"CacheBehavior": "FieldLevelEncryptionId FunctionAssociations GrpcConfig LambdaFunctionAssociations RealtimeLogConfigArn ResponseHeadersPolicyId " +
		"SmoothStreaming TrustedKeyGroups TrustedSigners",
	"CachePolicy":         "LastModifiedTime",
	"OriginRequestPolicy": "LastModifiedTime",
}

func (l *loader) object(n ast.Node, field string, v reflect.Value) {
	t := v.Type()
	ignored := strings.Fields(without[t.Name()])
	seen := map[string]bool{}
	for _, m := range l.members(n, field) {
		inner := m.name
		if field != "" {
			inner = field + "." + m.name
		}
		if seen[m.name] {
			l.fail(m.key, inner, "write it once", "it is there twice")
		}
		seen[m.name] = true
		f, ok := t.FieldByName(m.name)
		switch {
		case ok && f.IsExported():
			l.fields[inner] = m.value
			l.value(m.value, inner, v.FieldByIndex(f.Index))
		case slices.Contains(ignored, m.name):
		default:
			hint := "names are those of CloudFront's API"
			for i := range t.NumField() {
				ignored = append(ignored, t.Field(i).Name)
			}
			for _, name := range ignored {
				if strings.EqualFold(name, strings.NewReplacer("-", "", "_", "").Replace(m.name)) {
					hint = "write " + name
				}
			}
			l.fail(m.key, "", hint, "unknown name %q", inner)
		}
	}
}

func (l *loader) value(n ast.Node, field string, v reflect.Value) {
	if l.err != nil {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if n.Type() == ast.NullType {
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		l.value(n, field, v.Elem())
	case reflect.Slice:
		l.list(n, field, v)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[AllowedMethods]() && n.Type() == ast.SequenceType {
			l.list(n, field, v.FieldByName("Items"))
			return
		}
		if v.Type() == reflect.TypeFor[AllowedMethods]() {
			n = withoutQuantity(n)
		}
		l.object(n, field, v)
	default:
		l.scalar(n, field, v)
	}
}

// withoutQuantity is a mapping without what only repeats the length of its Items.
func withoutQuantity(n ast.Node) ast.Node {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		return n
	}
	c := *m
	c.Values = slices.DeleteFunc(slices.Clone(m.Values), func(v *ast.MappingValueNode) bool { return v.Key.GetToken().Value == "Quantity" })
	return &c
}

func (l *loader) list(n ast.Node, field string, v reflect.Value) {
	var items []ast.Node
	switch s := n.(type) {
	case *ast.SequenceNode:
		items = s.Values
	case *ast.NullNode:
	case ast.MapNode:
		quantity := -1
		for _, m := range l.members(n, field) {
			switch m.name {
			case "Items":
				if list, ok := m.value.(*ast.SequenceNode); ok {
					items = list.Values
				} else if m.value.Type() != ast.NullType {
					l.fail(m.value, field+".Items", "begin each element with '- '", "it is no list")
				}
			case "Quantity":
				q := reflect.ValueOf(&quantity).Elem()
				l.scalar(m.value, field+".Quantity", q)
			default:
				l.fail(m.key, field, "write a list, or Quantity and Items", "unknown name %q", m.name)
			}
		}
		if quantity >= 0 && quantity != len(items) {
			l.fail(n, field+".Quantity", "correct it, or write a plain list", "it is %d, but there are %d items", quantity, len(items))
		}
	default:
		l.fail(n, field, "begin each element with '- '", "it is no list")
	}
	if len(items) == 0 {
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(items), len(items)))
	for i, it := range items {
		inner := fmt.Sprintf("%s[%d]", field, i)
		l.fields[inner] = it
		l.value(it, inner, v.Index(i))
	}
}

func (l *loader) scalar(n ast.Node, field string, v reflect.Value) {
	var text string
	switch s := n.(type) {
	case *ast.StringNode:
		text = s.Value
	case *ast.LiteralNode:
		text = strings.TrimRight(s.Value.Value, "\n")
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		text = n.GetToken().Value
	case *ast.NullNode:
		return
	default:
		l.fail(n, field, "write one value; quote what begins with * & or !", "it is no plain value")
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			l.fail(n, field, "write true or false", "it is %q", text)
		}
		v.SetBool(b)
	default: // int, int64
		if text == "" { // as the API has it for a ResponseCode that is not there
			return
		}
		i, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			l.fail(n, field, "write a whole number; times are in seconds", "it is %q", text)
		}
		v.SetInt(i)
	}
}
