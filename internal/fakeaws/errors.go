package fakeaws

import (
	"errors"
	"fmt"
	"net/http"
)

// APIError is an answer that reports failure, as AWS words it.
type APIError struct {
	// Code is AWS's name for the error, such as "ThrottlingException".
	Code string
	// Message is the text for people.
	Message string
	// Status is the HTTP status; 0 means 400.
	Status int
}

// Error returns the code and the message.
func (e *APIError) Error() string { return e.Code + ": " + e.Message }

func (e *APIError) status() int {
	if e.Status == 0 {
		return http.StatusBadRequest
	}
	return e.Status
}

// Two errors that an intercept function returns to break the connection instead of answering.
var (
	// ErrConnectionReset closes the connection without carrying the call out.
	ErrConnectionReset = errors.New("fakeaws: close the connection before the call is carried out")
	// ErrAnswerLost carries the call out and closes the connection instead of answering.
	ErrAnswerLost = errors.New("fakeaws: carry the call out and close the connection")
)

// Codes that are used in more than one place.
const (
	codeInvalidParameter  = "InvalidParameterException"
	codeNotFound          = "ResourceNotFoundException"
	codeAlreadyExists     = "ResourceAlreadyExistsException"
	codeSerialization     = "SerializationException"
	codeInvalidSignature  = "InvalidSignatureException"
	codeIncomplete        = "IncompleteSignatureException"
	codeMissingAuth       = "MissingAuthenticationTokenException"
	codeUnrecognized      = "UnrecognizedClientException"
	codeExpiredToken      = "ExpiredTokenException"
	codeUnknownOperation  = "UnknownOperationException"
	codeValidation        = "ValidationException"
	codeInternal          = "InternalFailure"
	codeDenied            = "AccessDenied"    // of IAM and STS; the JSON services say AccessDeniedException
	codeQueryValidation   = "ValidationError" // of IAM and STS
	codeTooManyTags       = "TooManyTagsException"
	codeBodyTooLarge      = "RequestEntityTooLargeException"
	textGroupNotFound     = "The specified log group does not exist."
	textStreamNotFound    = "The specified log stream does not exist."
	textGroupExists       = "The specified log group already exists"
	textStreamExists      = "The specified log stream already exists"
	textInvalidToken      = "The specified nextToken is invalid."
	textEitherNameOrIdent = "You must include either logGroupIdentifier or logGroupName, but not both."
)

func invalidParameter(format string, args ...any) *APIError {
	return &APIError{Code: codeInvalidParameter, Message: fmt.Sprintf(format, args...)}
}

func serialization(format string, args ...any) *APIError {
	return &APIError{Code: codeSerialization, Message: fmt.Sprintf(format, args...)}
}

func groupNotFound() *APIError  { return &APIError{Code: codeNotFound, Message: textGroupNotFound} }
func streamNotFound() *APIError { return &APIError{Code: codeNotFound, Message: textStreamNotFound} }
