package fakeaws

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"
)

const eksPrefix = "/clusters/"

// eksState is an account's clusters and EKS Pod Identity associations, guarded by mu.
type eksState struct {
	mu           sync.RWMutex
	clusters     map[string]*cluster
	associations map[string]*association // by id
}

func newEKSState() eksState {
	return eksState{clusters: map[string]*cluster{}, associations: map[string]*association{}}
}

// cluster is an EKS cluster: no more than its name, and where its service account tokens come from.
type cluster struct {
	name, arn string
	issuer    string // with https://
	created   time.Time
}

// AddCluster makes an EKS cluster in an account, or does nothing where there is one of that name, and returns its ARN.
func (v Account) AddCluster(name string) string {
	s := v.a
	s.eks.mu.Lock()
	defer s.eks.mu.Unlock()
	c := s.eks.clusters[name]
	if c == nil {
		c = &cluster{
			name: name, arn: s.regionalARN("eks", "cluster/"+name), created: s.now(),
			issuer: fmt.Sprintf("https://oidc.eks.%s.%s/id/%032X", s.cfg.Region, dnsSuffix(s.cfg.Partition), queryID(s.id, name)),
		}
		s.eks.clusters[name] = c
	}
	return c.arn
}

// SetClusterIssuer says where the service account tokens of a cluster come from, which AddCluster has made: a name that begins with https://, of which
// TrustIssuer tells the keys.
func (v Account) SetClusterIssuer(cluster, issuer string) error {
	s := v.a
	s.eks.mu.Lock()
	defer s.eks.mu.Unlock()
	c := s.eks.clusters[cluster]
	if c == nil {
		return noSuchCluster(cluster)
	}
	c.issuer = issuer
	return nil
}

// regionalARN makes an ARN of a service in the server's region.
func (s *account) regionalARN(service, resource string) string {
	return "arn:" + s.cfg.Partition + ":" + service + ":" + s.cfg.Region + ":" + s.id + ":" + resource
}

func dnsSuffix(partition string) string {
	if partition == "aws-cn" {
		return "amazonaws.com.cn"
	}
	return "amazonaws.com"
}

// eksRequest is a request of EKS, part of whose input is in the path and the query.
type eksRequest interface {
	serviceRequest
	// take reads the names in the path, and the query, of which it takes out what it knows.
	take(cluster, id string, query url.Values)
}

var eksPath = regexp.MustCompile(`^/clusters/([0-9A-Za-z][0-9A-Za-z_-]{0,99})(/pod-identity-associations(/[^/]+)?)?$`)

// eksOperation finds what a method and a path ask for.
func eksOperation(method, path string) (name, cluster, id string, in eksRequest) {
	m := eksPath.FindStringSubmatch(path)
	if m == nil {
		return "-", "", "", nil
	}
	cluster, id = m[1], strings.TrimPrefix(m[3], "/")
	switch {
	case m[2] == "" && method == http.MethodGet:
		return "DescribeCluster", cluster, "", &describeCluster{}
	case m[2] == "":
	case id == "" && method == http.MethodPost:
		return "CreatePodIdentityAssociation", cluster, "", &createAssociation{}
	case id == "" && method == http.MethodGet:
		return "ListPodIdentityAssociations", cluster, "", &listAssociations{}
	case id != "" && method == http.MethodGet:
		return "DescribePodIdentityAssociation", cluster, id, &describeAssociation{}
	case id != "" && method == http.MethodPost:
		return "UpdatePodIdentityAssociation", cluster, id, &updateAssociation{}
	case id != "" && method == http.MethodDelete:
		return "DeletePodIdentityAssociation", cluster, id, &deleteAssociation{}
	}
	return "-", "", "", nil
}

// serveEKS answers one call to EKS.
func (s *Server) serveEKS(r *http.Request, body []byte) (operation string, out any, lost bool, _ *APIError) {
	action, cluster, id, in := eksOperation(r.Method, r.URL.Path)
	if in == nil {
		return "-", nil, false, &APIError{Code: codeUnknownOperation, Message: "No such operation here: " + r.Method + " " + r.URL.Path, Status: http.StatusNotFound}
	}
	operation = callName("eks", action)
	caller, scope, apiErr := s.authenticate(r, body)
	if apiErr != nil {
		return operation, nil, false, &APIError{Code: apiErr.Code, Message: apiErr.Message, Status: http.StatusForbidden}
	}
	if scope != "eks" {
		return operation, nil, false, &APIError{Code: codeInvalidSignature, Message: "Credential should be scoped to correct service: 'eks'. ", Status: http.StatusForbidden}
	}
	if len(body) > 0 {
		if err := decode(body, in, s.cfg.AllowUnknownMembers); err != nil {
			return operation, nil, false, serialization("%v", err)
		}
	}
	query := r.URL.Query()
	in.take(cluster, id, query)
	if len(query) > 0 && !s.cfg.AllowUnknownMembers {
		return operation, nil, false, serialization("unknown parameter in the query: %v", query)
	}
	out, lost, apiErr = s.carryOut(in, caller, "eks", action, len(body))
	return operation, out, lost, apiErr
}

func eksInvalid(format string, args ...any) *APIError { return invalidParameter(format, args...) }

func noSuchCluster(name string) *APIError {
	return &APIError{Code: codeNotFound, Message: "No cluster found for name: " + name + ".", Status: http.StatusNotFound}
}

// onCluster is the beginning of the requests about a cluster.
type onCluster struct{ cluster string }

func (r *onCluster) about(c *Call) { c.Entity = r.cluster }

func (r *onCluster) asks(s *account) []permission {
	return []permission{{resource: s.regionalARN("eks", "cluster/"+r.cluster)}}
}

func (r *onCluster) take(cluster, _ string, _ url.Values) { r.cluster = cluster }

type describeCluster struct {
	onCluster `json:"-"`
}

func (r *describeCluster) do(s *account, _ identity) (any, *APIError) {
	s.eks.mu.RLock()
	defer s.eks.mu.RUnlock()
	c := s.eks.clusters[r.cluster]
	if c == nil {
		return nil, noSuchCluster(r.cluster)
	}
	type oidc struct {
		Issuer string `json:"issuer"`
	}
	type identity struct {
		OIDC oidc `json:"oidc"`
	}
	type description struct {
		Name     string   `json:"name"`
		ARN      string   `json:"arn"`
		Created  int64    `json:"createdAt"`
		Status   string   `json:"status"`
		Identity identity `json:"identity"`
	}
	return struct {
		Cluster description `json:"cluster"`
	}{description{c.name, c.arn, c.created.Unix(), "ACTIVE", identity{oidc{c.issuer}}}}, nil
}

// newAssociationID makes an id as EKS does: "a-" and 17 lower-case letters and digits.
func newAssociationID() string { return "a-" + strings.ToLower(rand.Text()[:17]) }
