// Package fakeaws is a stand-in for Amazon CloudWatch Logs, and for what of IAM, STS, EKS and KMS its clients and the
// provisioner use, served over HTTP or HTTPS on the loopback interface. It keeps state, verifies every signature and
// payload hash, enforces the limits of the services' models and answers with AWS's own error codes, so that a client that
// works here has made the requests AWS would have taken.
//
// One server is all services and as many accounts as are named; which service is meant is told by the protocol and must be
// what the signature's credential scope says. With Config.Enforce every call is allowed or denied by its caller's policies,
// through internal/iampolicy. The keys of Config then are administrators of the default account.
//
// It knows nothing of tenants, of Fluent Bit or of the AWS SDK: only the wire. Where AWS documents no behaviour, the
// stricter reading was chosen and the place says so.
package fakeaws
