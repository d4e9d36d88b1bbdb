// Package fakeaws is a stand-in for Amazon CloudWatch Logs (and the two STS calls its clients make), served over HTTP
// or HTTPS on the loopback interface. It keeps state, verifies every signature and payload hash, enforces the limits
// of the service's model and answers with AWS's own error codes, so that a client that works here has made the
// requests CloudWatch would have taken.
//
// It knows nothing of tenants, of Fluent Bit or of the AWS SDK: only the wire. Where AWS documents no behaviour, the
// stricter reading was chosen and the place says so.
package fakeaws
