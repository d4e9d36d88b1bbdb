package fakeaws

import (
	"bytes"
	crand "crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"
)

// The credentials a Server knows when Config names none; they are the example of AWS's own documentation.
const (
	DefaultAccessKeyID     = "AKIAIOSFODNN7EXAMPLE"
	DefaultSecretAccessKey = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)

// maxBodyBytes limits a request's body, before and after decompression. AWS documents no figure; the largest valid
// PutLogEvents, 1 MiB of text of which every byte is escaped, needs 6.3 MB.
const maxBodyBytes = 10 << 20

const (
	targetPrefix = "Logs_20140328."
	contentType  = "application/x-amz-json-1.1"
)

// Config says what a Server is to be. The zero value is a strict server of region us-east-1.
type Config struct {
	// Region is the one region served; requests must be signed for it. Default us-east-1.
	Region string
	// AccountID has 12 digits. Default 123456789012.
	AccountID string
	// Partition begins every ARN. Default aws.
	Partition string
	// Credentials maps access key ids to secrets. Default: DefaultAccessKeyID with its secret.
	Credentials map[string]string
	// Clock decides what is too old or too new and when things were made. Default time.Now. Signatures, sessions and the
	// Date of answers follow the real time, because that is what clients sign. SetClockOffset moves both.
	Clock func() time.Time
	// Latency is waited before each answer.
	Latency time.Duration
	// ReadDelay is how long after its arrival, by Clock, an event is returned first: CloudWatch Logs is eventually
	// consistent. Server.Events returns it at once.
	ReadDelay time.Duration
	// AllowUnknownMembers skips request members that the service's model does not have, as AWS does. The default is
	// to refuse them with SerializationException: no client of ours may send any.
	AllowUnknownMembers bool
	// DiscardMessages counts accepted events without keeping them, for load tests that would not fit in memory.
	DiscardMessages bool
	// Observe, if set, is told of each event that was accepted; the message may not be kept. It is called from many
	// goroutines at once.
	Observe func(group, stream string, message []byte)
	// Enforce allows a call only where the caller's policies do; see the package's comment. Each account then has log
	// groups of its own. Default: every known key may do everything, and all of them share one account's log groups.
	Enforce bool
	// RoleQuota is how many roles an account can have. Default 1,000.
	RoleQuota int
	// Intercept, if set, sees every authenticated call before it is carried out; see Server.SetIntercept.
	Intercept func(Call) error
	// Protocols are the versions of HTTP that are spoken. Over TLS, ALPN chooses among them, HTTP/2 first; over plain TCP there
	// is HTTP/1.1 alone. Default: HTTP/1.1, as the endpoints of CloudWatch Logs. With HTTP/2 alone, a client whose offer lacks h2
	// is refused by the TLS alert no_application_protocol.
	Protocols http.Protocols
	// MinTLS and MaxTLS limit the TLS versions of StartTLS, such as tls.VersionTLS13. Default: TLS 1.2 and later.
	MinTLS, MaxTLS uint16
	// Hosts are further names in the certificate of StartTLS, and CertificateEnd is when it expires; default in a month.
	Hosts          []string
	CertificateEnd time.Time
	// CloseConnections says Connection: close in each answer, which over HTTP/2 is GOAWAY.
	CloseConnections bool
	// CallsPerConnection, if not 0, closes a connection of HTTP/1.1 when a call arrives that is one more, without carrying it
	// out: as where a server gives an idle connection up while a client is sending on it.
	CallsPerConnection int
	// Logger gets one debug line a call, and an error for a panic. Default: nothing is logged.
	Logger *slog.Logger
}

// Call is one request, as an intercept function sees it.
type Call struct {
	// Operation is AWS's name for it, such as "PutLogEvents" or "AssumeRole"; calls to services other than CloudWatch Logs
	// and STS have the service's name before it, as in policies: "iam:CreateRole".
	Operation string
	// LogGroup and LogStream are the names in the request, which need neither be valid nor exist; empty where the
	// operation has none. A resource ARN or identifier of a group here is given as the group's name.
	LogGroup, LogStream string
	// RoleARN and ExternalID are those of AssumeRole.
	RoleARN, ExternalID string
	// Entity is what a call to IAM, EKS or KMS is about, as the request names it: a role's name, a policy's ARN, an
	// association's or a key's id; empty where it names none.
	Entity string
	// AccessKeyID signed the request, and PrincipalARN is whose it is.
	AccessKeyID, PrincipalARN string
	// Events is the number of events in a PutLogEvents.
	Events int
	// BodyBytes is the length of the body as it came over the wire.
	BodyBytes int
	// LogsFormat is the header x-amzn-logs-format.
	LogsFormat string

	later *later // nil in a Call that no server made
}

// later is what an intercept function wants done if the call it let pass succeeds.
type later struct{ do []func() }

// onSuccess has f called once the call was carried out without an error, before its answer. It returns false for a Call that
// no server made: nobody will know.
func (c *Call) onSuccess(f func()) bool {
	if c.later == nil {
		return false
	}
	c.later.do = append(c.later.do, f)
	return true
}

// succeeded calls what onSuccess was given.
func (c *Call) succeeded() {
	if c.later != nil {
		for _, f := range c.later.do {
			f()
		}
	}
}

// Server is the stand-in. It is an http.Handler; Start and StartTLS serve it on the loopback interface.
// All methods may be called at the same time.
type Server struct {
	cfg       Config
	wallClock func() time.Time
	// clockOffset is added to the clocks, in nanoseconds.
	clockOffset atomic.Int64
	mux         *http.ServeMux

	accountsMu sync.Mutex
	accounts   map[string]*account
	home       *account // Config.AccountID's

	mu  sync.RWMutex  // guards the log groups of all accounts
	seq atomic.Uint64 // arrival numbers given out

	intercept atomic.Pointer[func(Call) error]
	delay     atomic.Int64 // SetPolicyDelay's

	authMu  sync.RWMutex // guards what is known of callers: keys, sessions, the key of tokens
	creds   map[string]credential
	assumed []AssumedRole
	used    map[string]map[string]bool // by role, what its sessions were allowed

	documents sync.Map           // text of a policy that was checked → *iampolicy.Document
	tokenKey  []byte             // signs web identity tokens; replaced, never changed
	issuers   map[string]*issuer // by name: see TrustIssuer

	sessionLife atomic.Int64 // SetSessionLife's

	stats stats

	conns connections

	httpMu sync.Mutex
	http   []*http.Server
	serve  sync.WaitGroup
	ca     *authority
	closed bool
}

// New returns a server without groups.
func New(cfg Config) *Server {
	if cfg.Region == "" {
		cfg.Region = "us-east-1"
	}
	if cfg.AccountID == "" {
		cfg.AccountID = "123456789012"
	}
	if cfg.Partition == "" {
		cfg.Partition = "aws"
	}
	if cfg.RoleQuota == 0 {
		cfg.RoleQuota = maxRoles
	}
	if cfg.Protocols == (http.Protocols{}) {
		cfg.Protocols.SetHTTP1(true)
	}
	if cfg.MinTLS == 0 {
		cfg.MinTLS = tls.VersionTLS12
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Credentials == nil {
		cfg.Credentials = map[string]string{DefaultAccessKeyID: DefaultSecretAccessKey}
	}
	s := &Server{cfg: cfg, wallClock: time.Now, accounts: map[string]*account{}, creds: map[string]credential{}, tokenKey: []byte(crand.Text())}
	s.home = s.account(cfg.AccountID)
	for id, secret := range cfg.Credentials {
		s.creds[id] = credential{
			secret: secret, arn: s.home.globalARN("iam", "user/"+id), userID: "AIDA" + id, principal: principal{user: []string{administrator}},
		}
	}
	s.stats.calls = map[CallKey]int{}
	s.SetIntercept(cfg.Intercept)
	s.mux = http.NewServeMux()
	s.mux.HandleFunc("GET /_fake/state", s.serveState)
	s.mux.HandleFunc("GET /_fake/calls", s.serveCalls)
	s.mux.HandleFunc("GET /_fake/events", s.serveEvents)
	s.handleDebug()
	s.mux.HandleFunc("/", s.serveAPI)
	return s
}

// SetClockOffset puts every clock of the server ahead by d, or back where d is negative: what is too old or too new, the
// window for signatures, the end of sessions, and the Date of every answer. A client in front of it then has a clock that is
// wrong by -d, without any machine's clock being set. It may be called while requests are served.
func (s *Server) SetClockOffset(d time.Duration) { s.clockOffset.Store(int64(d)) }

// wall is the time that signatures and sessions are held to, and that answers bear.
func (s *Server) wall() time.Time { return s.wallClock().Add(time.Duration(s.clockOffset.Load())) }

// SetIntercept replaces the function that sees every authenticated call before it is carried out; nil removes it.
// It may return nil (go on), an *APIError (the answer), ErrConnectionReset, ErrAnswerLost, or any other error (an
// internal failure, status 500); it may also wait, to delay one call. It is called from many goroutines at once.
func (s *Server) SetIntercept(f func(Call) error) {
	if f == nil {
		s.intercept.Store(nil)
		return
	}
	s.intercept.Store(&f)
}

// before is the one place that every authenticated call passes before anything is looked at or changed: the place of
// IAM's decisions and of injected faults. loseAnswer asks for the connection to be closed instead of answering.
func (s *Server) before(call *Call) (loseAnswer bool, _ *APIError) {
	f := s.intercept.Load()
	if f == nil {
		return false, nil
	}
	call.later = new(later)
	err := (*f)(*call)
	var apiErr *APIError
	switch {
	case err == nil:
		return false, nil
	case errors.Is(err, ErrAnswerLost):
		return true, nil
	case errors.Is(err, ErrConnectionReset):
		panic(http.ErrAbortHandler)
	case errors.As(err, &apiErr):
		return false, apiErr
	}
	return false, &APIError{Code: codeInternal, Message: err.Error(), Status: http.StatusInternalServerError}
}

// request is the input of an operation.
type request interface {
	// target names the group and stream for a Call.
	target(*account) (group, stream string)
	// do validates the request and carries it out; a nil answer is an empty body.
	do(*account, *Call) (any, *APIError)
}

// operations are those of CloudWatch Logs; each function decodes a body.
var operations = map[string]func(body []byte, allowUnknown bool) (request, error){
	"AssociateKmsKey":               decoder[associateKMSKey],
	"CreateLogGroup":                decoder[createLogGroup],
	"CreateLogStream":               decoder[createLogStream],
	"DeleteLogGroup":                decoder[deleteLogGroup],
	"DeleteLogStream":               decoder[deleteLogStream],
	"DeleteRetentionPolicy":         decoder[deleteRetentionPolicy],
	"DescribeLogGroups":             decoder[describeLogGroups],
	"DescribeLogStreams":            decoder[describeLogStreams],
	"DisassociateKmsKey":            decoder[disassociateKMSKey],
	"FilterLogEvents":               decoder[filterLogEvents],
	"GetLogEvents":                  decoder[getLogEvents],
	"ListTagsForResource":           decoder[listTagsForResource],
	"PutBearerTokenAuthentication":  decoder[putBearerToken],
	"PutLogEvents":                  decodePutLogEvents,
	"PutLogGroupDeletionProtection": decoder[putDeletionProtection],
	"PutRetentionPolicy":            decoder[putRetentionPolicy],
	"TagResource":                   decoder[tagResource],
	"UntagResource":                 decoder[untagResource],
}

func decoder[T any, P interface {
	*T
	request
}](body []byte, allowUnknown bool) (request, error) {
	in := P(new(T))
	if err := decode(body, in, allowUnknown); err != nil {
		return nil, err
	}
	return in, nil
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Two pools, so that steady load makes no garbage of bodies.
var (
	bodyPool = sync.Pool{New: func() any { return new(bytes.Buffer) }}
	gzipPool sync.Pool
)

// serveAPI reads, checks, carries out and answers one call to AWS.
func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request) {
	if !s.conns.begin(r, s.cfg.CallsPerConnection) {
		s.stats.count("-", resultReset)
		panic(http.ErrAbortHandler)
	}
	if s.cfg.CloseConnections {
		w.Header().Set("Connection", "close")
	}
	requestID := newRequestID()
	operation := "-"
	var out any
	var apiErr *APIError
	lost, answerType := false, contentType
	var query *queryService // whose protocol was spoken; nil means JSON
	func() {
		defer func() {
			switch p := recover(); {
			case p == nil:
			case p == http.ErrAbortHandler:
				s.stats.count(operation, resultReset)
				panic(p)
			default:
				s.cfg.Logger.Error("panic", "operation", operation, "panic", p, "stack", string(debug.Stack()))
				apiErr = &APIError{Code: codeInternal, Message: fmt.Sprint("panic: ", p), Status: http.StatusInternalServerError}
			}
		}()
		raw := bodyPool.Get().(*bytes.Buffer)
		defer bodyPool.Put(raw)
		if apiErr = readBody(raw, r.Body, r.ContentLength); apiErr != nil {
			return
		}
		if strings.HasPrefix(r.URL.Path, eksPrefix) {
			answerType = "application/json"
			operation, out, lost, apiErr = s.serveEKS(r, raw.Bytes())
			return
		}
		target := r.Header.Get("X-Amz-Target")
		if target == "" {
			query = stsService // in case of a panic
			operation, query, out, lost, apiErr = s.serveQuery(r, raw.Bytes(), requestID)
			return
		}
		if action, isKMS := strings.CutPrefix(target, kmsPrefix); isKMS {
			operation, out, lost, apiErr = s.serveKMS(r, action, raw.Bytes())
			return
		}
		name, isLogs := strings.CutPrefix(target, targetPrefix)
		decodeBody := operations[name]
		if _, ok := decided[name]; ok && s.cfg.Enforce {
			decodeBody = decodeDecided
		}
		switch {
		case r.Method != http.MethodPost || r.URL.Path != "/" || r.URL.RawQuery != "":
			apiErr = &APIError{Code: codeUnknownOperation, Message: "Requests are POST / without a query.", Status: http.StatusNotFound}
			return
		case r.Header.Get("Content-Type") != contentType:
			apiErr = &APIError{Code: codeUnknownOperation, Message: "The content type must be " + contentType + ".", Status: http.StatusNotFound}
			return
		case !isLogs || decodeBody == nil:
			apiErr = &APIError{Code: codeUnknownOperation, Message: "No such operation here: " + target}
			return
		}
		operation = name
		out, lost, apiErr = s.call(r, operation, decodeBody, raw.Bytes())
	}()

	result := resultOK
	switch {
	case lost:
		result = resultLost
	case apiErr != nil:
		result = apiErr.Code
	}
	s.stats.count(operation, result)
	s.cfg.Logger.Debug("call", "operation", operation, "result", result, "error", apiErr)
	if s.cfg.Latency > 0 {
		timer := time.NewTimer(s.cfg.Latency)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	if lost {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("X-Amzn-Requestid", requestID)
	w.Header().Set("Date", s.wall().UTC().Format(http.TimeFormat))
	if query != nil {
		answerQuery(w, query, out, apiErr, requestID)
		return
	}
	answerJSON(w, answerType, out, apiErr)
}

// call authenticates and carries out one operation of CloudWatch Logs.
func (s *Server) call(r *http.Request, operation string, decodeBody func([]byte, bool) (request, error), raw []byte) (out any, lost bool, _ *APIError) {
	caller, service, apiErr := s.authenticate(r, raw)
	if apiErr != nil {
		return nil, false, apiErr
	}
	if service != "logs" {
		return nil, false, &APIError{Code: codeInvalidSignature, Message: "Credential should be scoped to correct service: 'logs'. "}
	}
	body := raw
	switch encoding := r.Header.Values("Content-Encoding"); {
	case len(encoding) == 0:
	case len(encoding) == 1 && encoding[0] == "gzip":
		plain := bodyPool.Get().(*bytes.Buffer)
		defer bodyPool.Put(plain)
		if apiErr := gunzip(plain, raw); apiErr != nil {
			return nil, false, apiErr
		}
		body = plain.Bytes()
	default:
		return nil, false, serialization("unsupported Content-Encoding %q", encoding)
	}
	in, err := decodeBody(body, s.cfg.AllowUnknownMembers)
	if err != nil {
		return nil, false, serialization("%v", err)
	}
	call := Call{Operation: operation, AccessKeyID: caller.accessKey, PrincipalARN: caller.arn, BodyBytes: len(raw), LogsFormat: r.Header.Get("X-Amzn-Logs-Format")}
	if p, ok := in.(*putLogEvents); ok {
		defer p.release()
		call.Events = len(p.records)
	}
	acct := s.logsAccount(caller)
	call.LogGroup, call.LogStream = in.target(acct)
	if apiErr = revoked(caller, "logs:"+operation); apiErr != nil {
		return nil, false, apiErr
	}
	if s.cfg.Enforce {
		if apiErr = acct.authorize(caller, "logs:"+operation, acct.asksLogs(operation, call.LogGroup, call.LogStream, in)); apiErr != nil {
			return nil, false, apiErr
		}
	}
	if lost, apiErr = s.before(&call); apiErr != nil {
		return nil, lost, apiErr
	}
	if out, apiErr = in.do(acct, &call); apiErr == nil {
		call.succeeded()
	}
	return out, lost, apiErr
}

func bodyTooLarge() *APIError {
	return &APIError{Code: codeBodyTooLarge, Message: fmt.Sprintf("The request is larger than %d bytes.", maxBodyBytes), Status: http.StatusRequestEntityTooLarge}
}

// readBody reads a body whole into dst.
func readBody(dst *bytes.Buffer, body io.Reader, length int64) *APIError {
	dst.Reset()
	if length > maxBodyBytes {
		return bodyTooLarge()
	}
	if length > 0 {
		dst.Grow(int(length) + bytes.MinRead) // ReadFrom wants that much room to see the end
	}
	if _, err := dst.ReadFrom(io.LimitReader(body, maxBodyBytes+1)); err != nil {
		panic(http.ErrAbortHandler) // the client went away in the middle
	}
	if dst.Len() > maxBodyBytes {
		return bodyTooLarge()
	}
	return nil
}

// gunzip decompresses raw, to its checksum at the end, into dst.
func gunzip(dst *bytes.Buffer, raw []byte) *APIError {
	dst.Reset()
	src := bytes.NewReader(raw)
	z, ok := gzipPool.Get().(*gzip.Reader)
	var err error
	if ok {
		err = z.Reset(src)
	} else {
		z, err = gzip.NewReader(src)
	}
	if err != nil {
		return serialization("the body is not gzip: %v", err)
	}
	defer gzipPool.Put(z)
	if _, err := dst.ReadFrom(io.LimitReader(z, maxBodyBytes+1)); err != nil {
		return serialization("the body is not gzip: %v", err)
	}
	if dst.Len() > maxBodyBytes {
		return bodyTooLarge()
	}
	return nil
}

// answerJSON writes an answer in JSON.
func answerJSON(w http.ResponseWriter, contentType string, out any, apiErr *APIError) {
	w.Header().Set("Content-Type", contentType)
	status := http.StatusOK
	if apiErr != nil {
		status = apiErr.status()
		w.Header().Set("X-Amzn-Errortype", apiErr.Code)
		out = struct {
			Type    string `json:"__type"`
			Message string `json:"message"`
		}{apiErr.Code, apiErr.Message}
	}
	if out == nil {
		w.WriteHeader(status)
		return
	}
	body := bodyPool.Get().(*bytes.Buffer)
	defer bodyPool.Put(body)
	body.Reset()
	e := json.NewEncoder(body)
	e.SetEscapeHTML(false)
	if err := e.Encode(out); err != nil {
		panic(err) // answers are made of strings, numbers and lists
	}
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // a client that is gone needs no answer
}

// newRequestID returns a random UUID.
func newRequestID() string {
	a, b := rand.Uint64(), rand.Uint64()
	return fmt.Sprintf("%08x-%04x-4%03x-%04x-%012x", uint32(a>>32), uint16(a>>16), a&0xfff, 0x8000|b>>48&0x3fff, b&(1<<48-1))
}

// Start serves HTTP on addr, a loopback address with a port ("" means 127.0.0.1 and any port), and returns the URL.
func (s *Server) Start(addr string) (string, error) { return s.start(addr, false) }

// StartTLS is Start for HTTPS, with a certificate for localhost and the loopback addresses made by CAPEM's authority.
func (s *Server) StartTLS(addr string) (string, error) { return s.start(addr, true) }

func (s *Server) start(addr string, useTLS bool) (string, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("listen address %q: %w", addr, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", fmt.Errorf("listen address %q is not a loopback address", addr)
	}
	var ca *authority
	if useTLS {
		if ca, err = s.authority(); err != nil {
			return "", err
		}
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "", fmt.Errorf("listen: %w", err)
	}
	h := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 30 * time.Second,
		ErrorLog:          slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
		Protocols:         &s.cfg.Protocols,
		ConnContext:       s.conns.opened,
		ConnState:         s.conns.changed,
	}
	s.httpMu.Lock()
	defer s.httpMu.Unlock()
	if s.closed {
		_ = l.Close()
		return "", errors.New("the server is closed")
	}
	s.http = append(s.http, h)
	counted := &countingListener{Listener: l, stats: &s.stats}
	u := url.URL{Scheme: "http", Host: l.Addr().String()}
	serve := func() error { return h.Serve(counted) }
	if useTLS {
		u.Scheme = "https"
		h.TLSConfig = s.tlsConfig(ca)
		serve = func() error { return h.ServeTLS(counted, "", "") }
	}
	s.serve.Go(func() {
		if err := serve(); !errors.Is(err, http.ErrServerClosed) {
			s.cfg.Logger.Error("serving ended", "error", err)
		}
	})
	return u.String(), nil
}

// Close closes the listeners and all connections. What was stored can still be read.
func (s *Server) Close() error {
	s.httpMu.Lock()
	s.closed = true
	var errs []error
	for _, h := range s.http {
		errs = append(errs, h.Close())
	}
	s.http = nil
	s.httpMu.Unlock()
	s.serve.Wait()
	return errors.Join(errs...)
}
