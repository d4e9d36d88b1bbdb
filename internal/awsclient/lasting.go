package awsclient

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Lasting reports whether a call that failed will fail in the same way until a person changes
// something: rights, credentials, an endpoint, a certificate, a proxy. It is false where waiting may
// help: AWS fails or throttles, nothing listens yet, no answer comes, what is asked about is not there.
func Lasting(err error) bool {
	if err == nil {
		return false
	}
	var credentials *CredentialsError
	if errors.As(err, &credentials) {
		// Their source may be asked over the network, and AWS's answer be one of a bad moment.
		var network net.Error
		var request *url.Error
		var answer *smithyhttp.ResponseError
		if errors.As(credentials.Err, &network) || errors.As(credentials.Err, &request) || errors.As(credentials.Err, &answer) {
			return Lasting(credentials.Err)
		}
		return true
	}
	var refused *RefusedError
	if errors.As(err, &refused) {
		return true
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		if class, known := codes[api.ErrorCode()]; known {
			return class == ClassDenied || class == ClassCredentials || class == ClassInvalid
		}
	}
	if strange(err) != "" {
		return true
	}
	_, lasting := unreached(err)
	return lasting
}

// strange says in one line that an answer is not one of AWS's, and what mends it; empty where it may be.
func strange(err error) string {
	var answer *smithyhttp.ResponseError
	if !errors.As(err, &answer) || answer.Response == nil || answer.Response.Response == nil {
		return ""
	}
	var api smithy.APIError
	if errors.As(err, &api) && api.ErrorCode() != "" && api.ErrorCode() != "UnknownError" {
		return ""
	}
	status := answer.HTTPStatusCode()
	switch {
	case status < 300 || status >= 500:
		return ""
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status == http.StatusTooManyRequests, status == http.StatusRequestEntityTooLarge:
		return ""
	}
	from, to := "the endpoint", ""
	if r := answer.Response.Request; r != nil && r.URL != nil {
		from = r.URL.Host
	}
	if location := answer.Response.Header.Get("Location"); location != "" {
		if u, err := url.Parse(location); err == nil {
			to = ", a redirect to " + u.Host
		}
	}
	return fmt.Sprintf("%s answered with status %d%s, and not as AWS does: correct the endpoint, or have the proxy in front of it pass requests on", from, status, to)
}

// notOnTheWay keeps the SDK from repeating a call that the way to AWS will refuse again. Answers of
// AWS are for the SDK, and for who signs, to judge.
func notOnTheWay(err error) aws.Ternary {
	if _, lasting := unreached(err); lasting {
		return aws.FalseTernary
	}
	return aws.UnknownTernary
}
