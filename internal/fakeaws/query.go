package fakeaws

import (
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
)

// AWS's query protocol: parameters in a form, answers in XML.

// maxParameters bounds a form; the largest that IAM's model allows has a few hundred.
const maxParameters = 4_096

// parseQuery reads a form in which every name stands once.
func parseQuery(encoded string) (map[string]string, error) {
	if strings.Count(encoded, "&") >= maxParameters {
		return nil, errors.New("too many parameters")
	}
	values, err := url.ParseQuery(encoded)
	if err != nil {
		return nil, err
	}
	form := make(map[string]string, len(values))
	for name, vs := range values {
		if len(vs) != 1 {
			return nil, fmt.Errorf("parameter %s is given %d times", name, len(vs))
		}
		form[name] = vs[0]
	}
	return form, nil
}

// decodeQuery reads a form into the struct that in points to: names are the fields' query tags. Fields are *string,
// *int64, *bool, lists of strings and of structs, and embedded structs. A list's elements are <name>.member.1, .2 and so
// on without a gap; <name> with an empty value is a list without any. A parameter that no field has is refused, unless
// allowUnknown; Action and Version belong to the protocol.
func decodeQuery(form map[string]string, in any, allowUnknown bool) error {
	used := map[string]bool{"Action": true, "Version": true}
	if err := decodeMembers(form, used, "", reflect.ValueOf(in).Elem()); err != nil {
		return err
	}
	for name := range form {
		if !used[name] && !allowUnknown {
			return fmt.Errorf("unknown parameter %s", name)
		}
	}
	return nil
}

func decodeMembers(form map[string]string, used map[string]bool, prefix string, v reflect.Value) error {
	t := v.Type()
	for i := range t.NumField() {
		if t.Field(i).Anonymous {
			if err := decodeMembers(form, used, prefix, v.Field(i)); err != nil {
				return err
			}
			continue
		}
		if err := decodeMember(form, used, prefix+t.Field(i).Tag.Get("query"), v.Field(i)); err != nil {
			return err
		}
	}
	return nil
}

func decodeMember(form map[string]string, used map[string]bool, name string, field reflect.Value) (err error) {
	value, ok := form[name]
	if ok {
		used[name] = true
	}
	switch p := field.Addr().Interface().(type) {
	case **string:
		if ok {
			*p = &value
		}
		return nil
	case **int64:
		if ok {
			*p = new(int64)
			if **p, err = strconv.ParseInt(value, 10, 64); err != nil {
				return fmt.Errorf("parameter %s is not a number", name)
			}
		}
		return nil
	case **bool:
		if ok {
			*p = new(bool)
			**p = value == "true"
			if value != "true" && value != "false" {
				return fmt.Errorf("parameter %s is neither true nor false", name)
			}
		}
		return nil
	}
	if field.Kind() != reflect.Slice {
		return errors.New("no such kind of parameter")
	}
	if ok {
		if value != "" {
			return fmt.Errorf("parameter %s is a list", name)
		}
		field.Set(reflect.MakeSlice(field.Type(), 0, 0))
	}
	for n := 1; n <= maxParameters; n++ {
		element := fmt.Sprintf("%s.member.%d", name, n)
		item := reflect.New(field.Type().Elem()).Elem()
		if item.Kind() == reflect.String {
			text, ok := form[element]
			if !ok {
				return nil
			}
			used[element] = true
			item.SetString(text)
		} else {
			before := len(used)
			if err := decodeMembers(form, used, element+".", item); err != nil {
				return err
			}
			if len(used) == before {
				return nil
			}
		}
		field.Set(reflect.Append(field, item))
	}
	return nil
}

// queryErr is err in the words of the services that speak the query protocol.
func (c *constraints) queryErr() *APIError {
	if err := c.err(); err != nil {
		return &APIError{Code: codeQueryValidation, Message: err.Message}
	}
	return nil
}

// queryService is what the answers of a service of the query protocol have in common.
type queryService struct{ name, version, namespace string }

var (
	stsService = &queryService{"sts", stsVersion, "https://sts.amazonaws.com/doc/2011-06-15/"}
	iamService = &queryService{"iam", "2010-05-08", "https://iam.amazonaws.com/doc/2010-05-08/"}
)

// queryAnswer is the answer to one call: <operation>Response around <operation>Result, which nil leaves out.
type queryAnswer struct {
	service   *queryService
	operation string
	result    any
	requestID string
}

// MarshalXML writes the answer.
func (a queryAnswer) MarshalXML(e *xml.Encoder, _ xml.StartElement) error {
	start := xml.StartElement{
		Name: xml.Name{Local: a.operation + "Response"},
		Attr: []xml.Attr{{Name: xml.Name{Local: "xmlns"}, Value: a.service.namespace}},
	}
	metadata := struct {
		RequestID string `xml:"RequestId"`
	}{a.requestID}
	err := e.EncodeToken(start)
	if err == nil && a.result != nil {
		err = e.EncodeElement(a.result, xml.StartElement{Name: xml.Name{Local: a.operation + "Result"}})
	}
	if err == nil {
		err = e.EncodeElement(metadata, xml.StartElement{Name: xml.Name{Local: "ResponseMetadata"}})
	}
	if err == nil {
		err = e.EncodeToken(start.End())
	}
	return err
}

type queryErrorResponse struct {
	XMLName   xml.Name `xml:"ErrorResponse"`
	Namespace string   `xml:"xmlns,attr"`
	Type      string   `xml:"Error>Type"`
	Code      string   `xml:"Error>Code"`
	Message   string   `xml:"Error>Message"`
	RequestID string   `xml:"RequestId"`
}

// answerQuery writes an answer of the query protocol.
func answerQuery(w http.ResponseWriter, service *queryService, out any, apiErr *APIError, requestID string) {
	status := http.StatusOK
	if apiErr != nil {
		status = apiErr.status()
		fault := "Sender"
		if status >= http.StatusInternalServerError {
			fault = "Receiver"
		}
		out = queryErrorResponse{Namespace: service.namespace, Type: fault, Code: apiErr.Code, Message: apiErr.Message, RequestID: requestID}
	}
	body, err := xml.MarshalIndent(out, "", "  ")
	if err != nil {
		panic(err) // answers are made of strings and numbers
	}
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that is gone needs no answer
}

// queryError gives an authentication failure the name these services have for it.
func queryError(e *APIError) *APIError {
	code := map[string]string{
		codeInvalidSignature: "SignatureDoesNotMatch",
		codeIncomplete:       "IncompleteSignature",
		codeMissingAuth:      "MissingAuthenticationToken",
		codeUnrecognized:     "InvalidClientTokenId",
		codeExpiredToken:     "ExpiredToken",
	}[e.Code]
	return &APIError{Code: code, Message: e.Message, Status: http.StatusForbidden}
}
