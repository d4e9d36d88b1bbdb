package awsclient

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Signer signs requests. The SDK's own keeps the keys that it derives from a secret by the access
// key's id, for the day: where a file was read half written, it would go on to sign with the
// wrong secret after the right one was read.
//
// It signs with AWS's time, once that is known: an SDK's client learns the time for itself, so that
// the first call of each is refused, and takes it from any answer, a proxy's too. It may be used by
// many goroutines.
type Signer struct {
	clock *Clock

	mu     sync.Mutex
	key    [2]string // id and secret that signer was last used with
	signer *v4.Signer
}

// Signer is for the clients of other services that are made with Config.
func (c *Client) Signer() *Signer { return &c.identity.signer }

// SignHTTP signs r. at is the SDK's time, for while AWS's is not known.
func (s *Signer) SignHTTP(ctx context.Context, c aws.Credentials, r *http.Request, payloadHash, service, region string, at time.Time, options ...func(*v4.SignerOptions)) error {
	s.mu.Lock()
	if key := [2]string{c.AccessKeyID, c.SecretAccessKey}; s.signer == nil || s.key != key {
		s.key, s.signer = key, v4.NewSigner()
	}
	signer := s.signer
	s.mu.Unlock()
	if _, told := s.clock.Told(); told {
		at = s.clock.Now()
	}
	return signer.SignHTTP(ctx, c, r, payloadHash, service, region, at, options...)
}
