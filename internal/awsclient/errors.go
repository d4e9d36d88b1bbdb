package awsclient

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Class is what an answer of AWS means for what to do next.
type Class uint8

const (
	// ClassNone: no error.
	ClassNone Class = iota
	// ClassRetryable: AWS or the way to it failed; the same call may work later.
	ClassRetryable
	// ClassThrottled: the same, and less of it should be sent.
	ClassThrottled
	// ClassDenied: these credentials may not do this.
	ClassDenied
	// ClassCredentials: there are no usable credentials at all (none found, expired,
	// wrong, or a clock that is off). Nobody's call would work.
	ClassCredentials
	// ClassNotFound: the group or stream is not there.
	ClassNotFound
	// ClassExists: it is there already.
	ClassExists
	// ClassConflict: somebody else is changing it; look again.
	ClassConflict
	// ClassInvalid: this request will never be accepted as it is.
	ClassInvalid
	// ClassCanceled: we gave up waiting.
	ClassCanceled
)

func (c Class) String() string {
	switch c {
	case ClassNone:
		return "ok"
	case ClassThrottled:
		return "throttled"
	case ClassDenied:
		return "denied"
	case ClassCredentials:
		return "credentials"
	case ClassNotFound:
		return "not found"
	case ClassExists:
		return "exists"
	case ClassConflict:
		return "conflict"
	case ClassInvalid:
		return "invalid"
	case ClassCanceled:
		return "canceled"
	}
	return "retryable"
}

// codes are the error codes of the API references of CloudWatch Logs, IAM, KMS and EKS
// (each operation's "Errors", and "Common Error Types"). What is not here is told by its
// HTTP status.
var codes = map[string]Class{
	"ThrottlingException":                 ClassThrottled,
	"Throttling":                          ClassThrottled,
	"RequestThrottled":                    ClassThrottled,
	"TooManyRequestsException":            ClassThrottled,
	"RequestLimitExceeded":                ClassThrottled,
	"LimitExceededException":              ClassThrottled,
	"ServiceUnavailableException":         ClassRetryable,
	"ServiceUnavailable":                  ClassRetryable,
	"InternalFailure":                     ClassRetryable,
	"RequestTimeout":                      ClassRetryable,
	"AccessDeniedException":               ClassDenied,
	"AccessDenied":                        ClassDenied,
	"NotAuthorized":                       ClassDenied,
	"UnrecognizedClientException":         ClassCredentials,
	"InvalidSignatureException":           ClassCredentials,
	"SignatureDoesNotMatch":               ClassCredentials,
	"ExpiredTokenException":               ClassCredentials,
	"ExpiredToken":                        ClassCredentials,
	"RequestExpired":                      ClassCredentials,
	"InvalidClientTokenId":                ClassCredentials,
	"IncompleteSignature":                 ClassCredentials,
	"MissingAuthenticationToken":          ClassCredentials,
	"MissingAuthenticationTokenException": ClassCredentials,
	"OptInRequired":                       ClassCredentials,
	"ResourceNotFoundException":           ClassNotFound,
	"ResourceAlreadyExistsException":      ClassExists,
	"OperationAbortedException":           ClassConflict,
	"InvalidParameterException":           ClassInvalid,
	"ValidationException":                 ClassInvalid,
	"InvalidOperationException":           ClassInvalid,
	"SerializationException":              ClassInvalid,
	"UnsupportedOperationException":       ClassInvalid,
	// IAM.
	"NoSuchEntity":                  ClassNotFound,
	"EntityAlreadyExists":           ClassExists,
	"ConcurrentModification":        ClassConflict,
	"DeleteConflict":                ClassConflict,
	"EntityTemporarilyUnmodifiable": ClassConflict,
	"LimitExceeded":                 ClassInvalid, // a quota on how many there may be, not on calls
	"MalformedPolicyDocument":       ClassInvalid,
	"InvalidInput":                  ClassInvalid,
	"ValidationError":               ClassInvalid,
	"UnmodifiableEntity":            ClassInvalid,
	"PolicyNotAttachable":           ClassInvalid,
	// KMS.
	"NotFoundException":                ClassNotFound,
	"AlreadyExistsException":           ClassExists,
	"ConflictException":                ClassConflict,
	"KMSInvalidStateException":         ClassInvalid,
	"MalformedPolicyDocumentException": ClassInvalid,
	// EKS.
	"ResourceInUseException":         ClassExists,
	"ResourceLimitExceededException": ClassInvalid,
	"InvalidRequestException":        ClassInvalid,
	"ServerException":                ClassRetryable,
}

// Classify says what err means. Errors that did not come from AWS (no route, no
// answer, TLS, DNS) are retryable: it is never the record's fault. Errors of the
// project that have a method Class say it themselves.
func Classify(err error) Class {
	if err == nil {
		return ClassNone
	}
	// Before AWS's own codes: credentials that could not be had often have a refusal
	// of STS inside, which is not one of the call they were needed for.
	var classed interface{ Class() Class }
	if errors.As(err, &classed) {
		return classed.Class()
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		if c, ok := codes[api.ErrorCode()]; ok {
			return c
		}
		var resp *smithyhttp.ResponseError
		if errors.As(err, &resp) {
			switch status := resp.HTTPStatusCode(); {
			case status == 429:
				return ClassThrottled
			case status == 403:
				return ClassDenied
			case status == 413:
				return ClassInvalid
			}
		}
		return ClassRetryable
	}
	if errors.Is(err, context.Canceled) {
		return ClassCanceled
	}
	return ClassRetryable
}

// Unanswered reports whether a call of Client.Put that failed may have been carried out all the
// same: it was sent, or may have been, and no answer came.
func Unanswered(err error) bool {
	var credentials *CredentialsError
	var refused *RefusedError
	var answer *smithyhttp.ResponseError
	var unsent unsentError
	switch {
	case err == nil, errors.As(err, &credentials), errors.As(err, &refused), errors.As(err, &unsent):
		return false
	case errors.As(err, &answer) && answer.Response != nil && answer.HTTPStatusCode() != 0:
		return false
	}
	return true
}

// CredentialsError says that no usable credentials were found, or that a role could
// not be assumed.
type CredentialsError struct {
	// Role is the role's ARN; empty where the credentials to begin with are missing.
	Role string
	// Source names where they would come from, and Remedy says what an operator can do. Both may
	// be empty.
	Source, Remedy string
	Err            error
}

func (e *CredentialsError) Error() string {
	if why, _ := unreached(e.Err); why != "" && e.Role != "" { // STS did not answer: nothing is known of the role
		return fmt.Sprintf("role %s can't be assumed: %s", e.Role, why)
	}
	if e.Role != "" {
		return fmt.Sprintf("role %s can't be assumed: %s; check its trust policy and the external id", e.Role, Brief(e.Err))
	}
	from, remedy := "", "give the pod a role (EKS Pod Identity or IRSA), or set role_arn or profile"
	if e.Source != "" {
		from, remedy = " from "+e.Source, e.Remedy
	}
	return fmt.Sprintf("no usable AWS credentials%s: %s; %s", from, Brief(e.Err), remedy)
}

// Class is ClassCredentials.
func (e *CredentialsError) Class() Class { return ClassCredentials }

func (e *CredentialsError) Unwrap() error { return e.Err }

// Brief is err in one line, for a log: AWS's code and message without the SDK's wrapping, or
// what is wrong between here and the peer and what mends it.
func Brief(err error) string {
	var credentials *CredentialsError
	if errors.As(err, &credentials) {
		return credentials.Error()
	}
	var refused *RefusedError
	if errors.As(err, &refused) {
		return refused.Error()
	}
	if why := strange(err); why != "" {
		return why
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		if api.ErrorMessage() == "" {
			return api.ErrorCode()
		}
		return api.ErrorCode() + ": " + api.ErrorMessage()
	}
	if why, _ := unreached(err); why != "" {
		return why
	}
	return err.Error()
}
