package fakeaws

import (
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	kmsPrefix = "TrentService."
	// maxKeyPolicy is the size of a key policy, in bytes (KMS quotas: 32 KB).
	maxKeyPolicy = 32_768
)

// kmsState is an account's keys, guarded by mu.
type kmsState struct {
	mu      sync.RWMutex
	keys    map[string]*kmsKey // by id
	aliases map[string]string  // alias/name → key id
}

func newKMSState() kmsState {
	return kmsState{keys: map[string]*kmsKey{}, aliases: map[string]string{}}
}

// kmsKey is a symmetric encryption key, without the key.
type kmsKey struct {
	id, arn     string
	created     time.Time
	description string
	policy      string
	enabled     bool
	deleting    bool
	rotation    bool
	period      int64 // days
	tags        map[string]string
}

// SetKeyState enables or disables a key, or schedules it for deletion, as its owner might: by ARN.
func (s *Server) SetKeyState(arn string, enabled, pendingDeletion bool) bool {
	a := s.account(accountOf(arn))
	a.kms.mu.Lock()
	defer a.kms.mu.Unlock()
	k := a.keyByARN(arn)
	if k == nil {
		return false
	}
	k.enabled, k.deleting = enabled && !pendingDeletion, pendingDeletion
	return true
}

// keyByARN finds a key. The caller holds the lock.
func (s *account) keyByARN(arn string) *kmsKey {
	id, ok := strings.CutPrefix(arn, s.regionalARN("kms", "key/"))
	if !ok {
		return nil
	}
	return s.kms.keys[id]
}

// kmsOperations are KMS's; each function decodes a body.
var kmsOperations = map[string]func(body []byte, allowUnknown bool) (serviceRequest, error){
	"CreateAlias":          inKMS[createAlias],
	"CreateKey":            inKMS[createKey],
	"DescribeKey":          inKMS[describeKey],
	"DisableKeyRotation":   inKMS[disableKeyRotation],
	"EnableKeyRotation":    inKMS[enableKeyRotation],
	"GetKeyPolicy":         inKMS[getKeyPolicy],
	"GetKeyRotationStatus": inKMS[getKeyRotationStatus],
	"ListAliases":          inKMS[listAliases],
	"ListKeys":             inKMS[listKeys],
	"ListResourceTags":     inKMS[listResourceTags],
	"PutKeyPolicy":         inKMS[putKeyPolicy],
	"TagResource":          inKMS[tagKey],
}

func inKMS[T any, P interface {
	*T
	serviceRequest
}](body []byte, allowUnknown bool) (serviceRequest, error) {
	in := P(new(T))
	if err := decode(body, in, allowUnknown); err != nil {
		return nil, err
	}
	return in, nil
}

// serveKMS answers one call to KMS.
func (s *Server) serveKMS(r *http.Request, action string, body []byte) (operation string, out any, lost bool, _ *APIError) {
	decodeBody := kmsOperations[action]
	if decodeBody == nil || r.Method != http.MethodPost || r.URL.Path != "/" || r.Header.Get("Content-Type") != contentType {
		return "-", nil, false, &APIError{Code: codeUnknownOperation, Message: "No such operation here: " + kmsPrefix + action}
	}
	operation = callName("kms", action)
	caller, scope, apiErr := s.authenticate(r, body)
	if apiErr != nil {
		return operation, nil, false, apiErr
	}
	if scope != "kms" {
		return operation, nil, false, &APIError{Code: codeInvalidSignature, Message: "Credential should be scoped to correct service: 'kms'. "}
	}
	in, err := decodeBody(body, s.cfg.AllowUnknownMembers)
	if err != nil {
		return operation, nil, false, serialization("%v", err)
	}
	out, lost, apiErr = s.carryOut(in, caller, "kms", action, len(body))
	return operation, out, lost, apiErr
}

func kmsNotFound(arn string) *APIError {
	return &APIError{Code: "NotFoundException", Message: "Key '" + arn + "' does not exist"}
}

func kmsInvalid(format string, args ...any) *APIError {
	e := invalidParameter(format, args...)
	e.Code = codeValidation
	return e
}
