package fakeaws

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Signature Version 4, from the receiver's side: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
const (
	sigAlgorithm = "AWS4-HMAC-SHA256"
	sigTimeForm  = "20060102T150405Z"
	// maxClockSkew is how far a request's date may be from the server's clock; AWS documents five minutes.
	maxClockSkew = 5 * time.Minute
)

// authorization is a parsed Authorization header.
type authorization struct {
	accessKey     string
	date          string // YYYYMMDD
	region        string
	service       string
	signedHeaders []string // lower case, sorted, no duplicates
	signature     string   // 64 lower-case hex digits
}

// parseAuthorization reads the header's value; the error is AWS's answer to a malformed one.
func parseAuthorization(header string) (authorization, *APIError) {
	var a authorization
	incomplete := func(why string) (authorization, *APIError) {
		return authorization{}, &APIError{Code: codeIncomplete, Message: "Authorization header is malformed: " + why}
	}
	if header == "" {
		return a, &APIError{Code: codeMissingAuth, Message: "Missing Authentication Token"}
	}
	rest, ok := strings.CutPrefix(header, sigAlgorithm+" ")
	if !ok {
		return incomplete("unsupported algorithm, " + sigAlgorithm + " is required.")
	}
	seen := map[string]bool{}
	var credential, signed string
	for part := range strings.SplitSeq(rest, ",") {
		key, value, ok := strings.Cut(strings.Trim(part, " "), "=")
		if !ok || seen[key] {
			return incomplete("each of Credential, SignedHeaders and Signature is required once.")
		}
		seen[key] = true
		switch key {
		case "Credential":
			credential = value
		case "SignedHeaders":
			signed = value
		case "Signature":
			a.signature = value
		default:
			return incomplete("unknown parameter.")
		}
	}
	if len(seen) != 3 {
		return incomplete("each of Credential, SignedHeaders and Signature is required once.")
	}
	scope := strings.Split(credential, "/")
	if len(scope) != 5 || slices.Contains(scope, "") {
		return incomplete("Credential must be <access key>/<date>/<region>/<service>/aws4_request.")
	}
	if scope[4] != "aws4_request" {
		return incomplete("Credential should be scoped with a valid terminator: 'aws4_request'.")
	}
	a.accessKey, a.date, a.region, a.service = scope[0], scope[1], scope[2], scope[3]
	if len(a.date) != 8 || strings.Trim(a.date, "0123456789") != "" {
		return incomplete("Credential's date must be YYYYMMDD.")
	}
	a.signedHeaders = strings.Split(signed, ";")
	for i, h := range a.signedHeaders {
		if h == "" || h != strings.ToLower(h) || i > 0 && h <= a.signedHeaders[i-1] {
			return incomplete("SignedHeaders must be lower case, sorted and without duplicates.")
		}
	}
	if len(a.signature) != 2*sha256.Size || strings.Trim(a.signature, "0123456789abcdef") != "" {
		return incomplete("Signature must be 64 lower-case hex digits.")
	}
	return a, nil
}

// signatureInput is what a signature is made over, apart from the credential.
type signatureInput struct {
	request     *http.Request
	payloadHash string // hex SHA-256 of the body as it came over the wire
	date        string // the X-Amz-Date, or Date, header in sigTimeForm
}

// sign returns the signature that a holder of secret would have made.
func (a authorization) sign(in signatureInput, secret string) string {
	var c strings.Builder
	c.WriteString(in.request.Method)
	c.WriteByte('\n')
	c.WriteString(canonicalPath(in.request.URL))
	c.WriteByte('\n')
	c.WriteString(canonicalQuery(in.request.URL.Query()))
	c.WriteByte('\n')
	for _, name := range a.signedHeaders {
		c.WriteString(name)
		c.WriteByte(':')
		for i, v := range headerValues(in.request, name) {
			if i > 0 {
				c.WriteByte(',')
			}
			c.WriteString(strings.Join(strings.Fields(v), " "))
		}
		c.WriteByte('\n')
	}
	c.WriteByte('\n')
	c.WriteString(strings.Join(a.signedHeaders, ";"))
	c.WriteByte('\n')
	c.WriteString(in.payloadHash)

	hash := sha256.Sum256([]byte(c.String()))
	scope := a.date + "/" + a.region + "/" + a.service + "/aws4_request"
	text := sigAlgorithm + "\n" + in.date + "\n" + scope + "\n" + hex.EncodeToString(hash[:])

	key := []byte("AWS4" + secret)
	for _, s := range []string{a.date, a.region, a.service, "aws4_request", text} {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(s))
		key = mac.Sum(nil)
	}
	return hex.EncodeToString(key)
}

// headerValues gives a header as the client sent it; net/http keeps two of them out of the map.
func headerValues(r *http.Request, name string) []string {
	switch name {
	case "host":
		return []string{r.Host}
	case "content-length":
		if r.ContentLength >= 0 {
			return []string{strconv.FormatInt(r.ContentLength, 10)}
		}
		return nil
	case "transfer-encoding":
		return r.TransferEncoding
	}
	return r.Header.Values(name)
}

func canonicalPath(u *url.URL) string {
	path := u.EscapedPath()
	if path == "" {
		return "/"
	}
	// Every service but S3 encodes the already encoded path a second time.
	var b strings.Builder
	for i, segment := range strings.Split(path, "/") {
		if i > 0 {
			b.WriteByte('/')
		}
		b.WriteString(uriEncode(segment))
	}
	return b.String()
}

func canonicalQuery(q url.Values) string {
	pairs := make([][2]string, 0, len(q))
	for k, vs := range q {
		for _, v := range vs {
			pairs = append(pairs, [2]string{uriEncode(k), uriEncode(v)})
		}
	}
	slices.SortFunc(pairs, func(x, y [2]string) int {
		if c := strings.Compare(x[0], y[0]); c != 0 {
			return c
		}
		return strings.Compare(x[1], y[1])
	})
	var b strings.Builder
	for i, p := range pairs {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(p[0] + "=" + p[1])
	}
	return b.String()
}

// uriEncode percent-encodes everything but RFC 3986's unreserved characters.
func uriEncode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.', c == '~':
			b.WriteByte(c)
		default:
			const hexDigits = "0123456789ABCDEF"
			b.WriteByte('%')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		}
	}
	return b.String()
}

// authenticate checks that r was signed by a key this server knows, for one of its services, over these very bytes.
// It returns who called and the service the request was signed for.
func (s *Server) authenticate(r *http.Request, body []byte) (caller identity, service string, _ *APIError) {
	if len(r.Header.Values("Authorization")) > 1 {
		return identity{}, "", &APIError{Code: codeIncomplete, Message: "Authorization header is malformed: given more than once."}
	}
	a, apiErr := parseAuthorization(r.Header.Get("Authorization"))
	if apiErr != nil {
		return identity{}, "", apiErr
	}
	bad := func(message string) (identity, string, *APIError) {
		return identity{}, a.service, &APIError{Code: codeInvalidSignature, Message: message}
	}

	date := r.Header.Get("X-Amz-Date")
	dateHeader := "x-amz-date"
	var at time.Time
	var err error
	if date != "" {
		at, err = time.Parse(sigTimeForm, date)
	} else {
		dateHeader = "date"
		at, err = http.ParseTime(r.Header.Get("Date"))
		date = at.UTC().Format(sigTimeForm)
	}
	if err != nil {
		return identity{}, a.service, &APIError{Code: codeIncomplete, Message: "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."}
	}
	if date[:8] != a.date {
		return bad("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '" + a.date + "' != '" + date[:8] + "', from '" + date + "'.")
	}
	now := s.wall()
	if limit := now.Add(-maxClockSkew); at.Before(limit) {
		return bad("Signature expired: " + date + " is now earlier than " + limit.UTC().Format(sigTimeForm) + " (" + now.UTC().Format(sigTimeForm) + " - 5 min.)")
	}
	if limit := now.Add(maxClockSkew); at.After(limit) {
		return bad("Signature not yet current: " + date + " is still later than " + limit.UTC().Format(sigTimeForm) + " (" + now.UTC().Format(sigTimeForm) + " + 5 min.)")
	}

	switch a.service {
	case "logs", "eks", "kms":
		if a.region != s.cfg.Region {
			return bad("Credential should be scoped to a valid region, not '" + a.region + "'. ")
		}
	case "iam":
		if a.region != iamRegion(s.cfg.Partition) {
			return bad("Credential should be scoped to a valid region, not '" + a.region + "'. ")
		}
	case "sts":
		// The global endpoint of STS is signed for us-east-1.
		if a.region != s.cfg.Region && a.region != "us-east-1" {
			return bad("Credential should be scoped to a valid region, not '" + a.region + "'. ")
		}
	default:
		return bad("Credential should be scoped to correct service: 'logs'. ")
	}

	// AWS requires the host, the date and every x-amz-* header that is sent to be signed.
	required := []string{"host", dateHeader}
	for name := range r.Header {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-amz-") {
			required = append(required, lower)
		}
	}
	for _, name := range required {
		if _, ok := slices.BinarySearch(a.signedHeaders, name); !ok {
			return bad("'" + name + "' must be a 'SignedHeader' in the AWS Authorization.")
		}
	}
	for _, name := range a.signedHeaders {
		if len(headerValues(r, name)) == 0 {
			return bad("The signed header '" + name + "' is not in the request.")
		}
	}

	sum := sha256.Sum256(body)
	payloadHash := hex.EncodeToString(sum[:])
	if claimed := r.Header.Get("X-Amz-Content-Sha256"); claimed != "" && claimed != payloadHash {
		return bad("The provided 'x-amz-content-sha256' header does not match what was computed.")
	}

	cred, ok := s.credential(a.accessKey)
	token := r.Header.Get("X-Amz-Security-Token")
	if !ok || cred.sessionToken != token {
		return identity{}, a.service, &APIError{Code: codeUnrecognized, Message: "The security token included in the request is invalid."}
	}
	if !cred.expires.IsZero() && !now.Before(cred.expires) {
		return identity{}, a.service, &APIError{Code: codeExpiredToken, Message: "The security token included in the request is expired"}
	}
	want := a.sign(signatureInput{request: r, payloadHash: payloadHash, date: date}, cred.secret)
	if !hmac.Equal([]byte(want), []byte(a.signature)) {
		return bad("The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	}
	return identity{a.accessKey, cred.arn, cred.userID, cred.principal}, a.service, nil
}
