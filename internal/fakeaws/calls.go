package fakeaws

// serviceRequest is the input of an operation of any service but CloudWatch Logs.
type serviceRequest interface {
	// about says in a Call what the request is about.
	about(*Call)
	// asks is what the caller must be allowed to do; nil means nothing.
	asks(*account) []permission
	// do validates the request and carries it out in the caller's account; a nil answer has no result.
	do(*account, identity) (any, *APIError)
}

// callName is what a call is counted as.
func callName(service, action string) string {
	if service == stsService.name {
		return action
	}
	return service + ":" + action
}

// carryOut decides about an authenticated request and carries it out. loseAnswer asks for the connection to be closed
// instead of answering.
func (s *Server) carryOut(in serviceRequest, caller identity, service, action string, bodyBytes int) (out any, loseAnswer bool, _ *APIError) {
	a := s.home
	if caller.arn != "" {
		a = s.account(accountOf(caller.arn))
	}
	if err := revoked(caller, service+":"+action); err != nil {
		return nil, false, err
	}
	if err := a.authorize(caller, service+":"+action, in.asks(a)); err != nil {
		return nil, false, err
	}
	call := Call{Operation: callName(service, action), AccessKeyID: caller.accessKey, PrincipalARN: caller.arn, BodyBytes: bodyBytes}
	in.about(&call)
	lost, err := s.before(&call)
	if err != nil {
		return nil, lost, err
	}
	if out, err = in.do(a, caller); err == nil {
		call.succeeded()
	}
	return out, lost, err
}
