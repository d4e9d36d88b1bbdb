package fakeaws

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// PodIdentityAgent stands in for the agent of EKS Pod Identity on a node: an HTTP server on the loopback
// interface that gives a caller with the right token a session of one role. Its URL is for
// AWS_CONTAINER_CREDENTIALS_FULL_URI. Like the node's, it can be away, restart and fail. All methods may be called at
// the same time.
type PodIdentityAgent struct {
	s       *Server
	role    string
	address string

	mu     sync.Mutex
	token  string
	life   time.Duration
	status int // of the answer, where it is a failure
	asked  int
	server *http.Server
	served chan struct{}
}

const podCredentialsPath = "/v1/credentials"

// StartPodIdentityAgent starts an agent that hands out sessions of a role to those who bring the token.
func (s *Server) StartPodIdentityAgent(role, token string) (*PodIdentityAgent, error) {
	if !roleARN.MatchString(role) {
		return nil, fmt.Errorf("%q is no role's ARN", role)
	}
	a := &PodIdentityAgent{s: s, role: role, token: token, life: podSession * time.Second, address: "127.0.0.1:0"}
	return a, a.Start()
}

// URL is where credentials are asked for. It stays the same over restarts.
func (a *PodIdentityAgent) URL() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return "http://" + a.address + podCredentialsPath
}

// Start starts the agent again, at the address it had.
func (a *PodIdentityAgent) Start() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.server != nil {
		return errors.New("the agent is running")
	}
	l, err := net.Listen("tcp", a.address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	a.address = l.Addr().String()
	a.server = &http.Server{Handler: a, ReadHeaderTimeout: 30 * time.Second}
	a.served = make(chan struct{})
	go func(server *http.Server, served chan struct{}) {
		defer close(served)
		_ = server.Serve(l) // Stop ends it
	}(a.server, a.served)
	return nil
}

// Stop ends the agent: connections are refused. One that is not running stays so.
func (a *PodIdentityAgent) Stop() error {
	a.mu.Lock()
	server, served := a.server, a.served
	a.server = nil
	a.mu.Unlock()
	if server == nil {
		return nil
	}
	err := server.Close()
	<-served
	return err
}

// Expect changes the token that is asked for, as when the kubelet has renewed it.
func (a *PodIdentityAgent) Expect(token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.token = token
}

// Fail has the agent answer with an HTTP status and no credentials; 0 ends that.
func (a *PodIdentityAgent) Fail(status int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status = status
}

// Life changes how long the sessions last that are handed out from now on.
func (a *PodIdentityAgent) Life(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.life = d
}

// Asked is how often credentials were asked for, whatever the answer.
func (a *PodIdentityAgent) Asked() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked
}

// ServeHTTP answers one request.
func (a *PodIdentityAgent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.asked++
	token, life, status := a.token, a.life, a.status
	a.mu.Unlock()
	switch {
	case r.Method != http.MethodGet || r.URL.Path != podCredentialsPath:
		status = http.StatusNotFound
	case status != 0:
	case r.Header.Get("Authorization") != token:
		status = http.StatusUnauthorized
	}
	if status != 0 {
		http.Error(w, "Unable to get credentials", status) // the agent answers in plain text
		return
	}
	out, key := a.s.begin(session{role: a.role, roleID: newIAMID("AROA"), name: "eks-agent", seconds: int64(life / time.Second)})
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{ // a client that is gone needs no answer
		"AccessKeyId": key.AccessKeyID, "SecretAccessKey": key.SecretAccessKey, "Token": key.SessionToken,
		"AccountId": accountOf(a.role), "Expiration": out.Expiration,
	})
}
