package fakeaws

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// association gives the pods of a service account a role.
type association struct {
	id, arn                            string
	cluster, namespace, serviceAccount string
	role                               string
	noSessionTags                      bool
	created, modified                  time.Time
	tags                               map[string]string
}

// associationElement is the model's PodIdentityAssociation.
type associationElement struct {
	ARN            string            `json:"associationArn"`
	ID             string            `json:"associationId"`
	Cluster        string            `json:"clusterName"`
	Namespace      string            `json:"namespace"`
	ServiceAccount string            `json:"serviceAccount"`
	Role           string            `json:"roleArn"`
	NoSessionTags  bool              `json:"disableSessionTags"`
	Created        int64             `json:"createdAt"`
	Modified       int64             `json:"modifiedAt"`
	Tags           map[string]string `json:"tags"`
}

type associationResult struct {
	Association associationElement `json:"association"`
}

func (x *association) result() associationResult {
	return associationResult{associationElement{
		x.arn, x.id, x.cluster, x.namespace, x.serviceAccount, x.role, x.noSessionTags, x.created.Unix(), x.modified.Unix(), x.tags,
	}}
}

// mayPass asks for what EKS wants of whoever gives pods a role: iam:PassRole, and iam:GetRole (service authorization
// reference, dependent actions of CreatePodIdentityAssociation). That the service passed to is called
// pods.eks.amazonaws.com is how AWS's examples have it.
func (s *account) mayPass(roleARN string) []permission {
	name := roleARN[strings.LastIndexByte(roleARN, '/')+1:]
	pass, get := s.forRole(name), s.forRole(name)
	pass.action, get.action = "iam:PassRole", "iam:GetRole"
	pass.resource, get.resource = roleARN, roleARN
	pass.set("iam:passedtoservice", podService)
	return []permission{pass, get}
}

// podService is whom the roles of EKS Pod Identity trust, in every partition.
const podService = "pods.eks.amazonaws.com"

// checkPodRole wants the ARN of a role of this account. How EKS answers to one that does not exist is not documented.
func (s *account) checkPodRole(arn string) *APIError {
	if accountOf(arn) != s.id || roleARN.FindStringSubmatch(arn) == nil {
		return eksInvalid("The role ARN is not that of a role of this account: %s", arn)
	}
	s.iam.mu.RLock()
	defer s.iam.mu.RUnlock()
	if r := s.iam.roles[strings.ToLower(arn[strings.LastIndexByte(arn, '/')+1:])]; r == nil || r.arn != arn {
		return eksInvalid("Role provided in the request does not exist: %s", arn)
	}
	return nil
}

type createAssociation struct {
	onCluster      `json:"-"`
	Token          *string           `json:"clientRequestToken"`
	NoSessionTags  *bool             `json:"disableSessionTags"`
	Namespace      *string           `json:"namespace"`
	Role           *string           `json:"roleArn"`
	ServiceAccount *string           `json:"serviceAccount"`
	Tags           map[string]string `json:"tags"`
}

func (r *createAssociation) asks(s *account) []permission {
	p := permission{resource: s.regionalARN("eks", "cluster/"+r.cluster)}
	for k, v := range r.Tags {
		p.set("aws:requesttag/"+k, v)
		p.set("aws:tagkeys", k)
	}
	return append([]permission{p}, s.mayPass(deref(r.Role))...)
}

func (r *createAssociation) do(s *account, _ identity) (any, *APIError) {
	switch {
	case deref(r.Namespace) == "" || deref(r.ServiceAccount) == "" || deref(r.Role) == "":
		return nil, eksInvalid("namespace, serviceAccount and roleArn are required.")
	case len(r.Tags) > maxTags:
		return nil, eksInvalid("A resource can have no more than 50 tags.")
	}
	if err := s.checkPodRole(*r.Role); err != nil {
		return nil, err
	}
	s.eks.mu.Lock()
	defer s.eks.mu.Unlock()
	if s.eks.clusters[r.cluster] == nil {
		return nil, noSuchCluster(r.cluster)
	}
	if x := s.associationOf(r.cluster, *r.Namespace, *r.ServiceAccount); x != nil {
		return nil, &APIError{Code: "ResourceInUseException", Message: "Association already exists: " + x.id, Status: http.StatusConflict}
	}
	id := newAssociationID()
	tags := maps.Clone(r.Tags)
	if tags == nil {
		tags = map[string]string{}
	}
	x := &association{
		id: id, arn: s.regionalARN("eks", "podidentityassociation/"+r.cluster+"/"+id), cluster: r.cluster, namespace: *r.Namespace,
		serviceAccount: *r.ServiceAccount, role: *r.Role, noSessionTags: deref(r.NoSessionTags), created: s.now(), modified: s.now(), tags: tags,
	}
	s.eks.associations[id] = x
	return x.result(), nil
}

// associationOf finds the association of a service account. The caller holds the lock.
func (s *account) associationOf(cluster, namespace, serviceAccount string) *association {
	for _, x := range s.eks.associations {
		if x.cluster == cluster && x.namespace == namespace && x.serviceAccount == serviceAccount {
			return x
		}
	}
	return nil
}

// onAssociation is the beginning of the requests about one association.
type onAssociation struct{ cluster, id string }

func (r *onAssociation) about(c *Call) { c.Entity = r.id }

func (r *onAssociation) asks(s *account) []permission {
	p := permission{resource: s.regionalARN("eks", "podidentityassociation/"+r.cluster+"/"+r.id)}
	s.eks.mu.RLock()
	defer s.eks.mu.RUnlock()
	if x := s.eks.associations[r.id]; x != nil {
		p.context = resourceTagKeys(x.tags)
	}
	return []permission{p}
}

func (r *onAssociation) take(cluster, id string, _ url.Values) { r.cluster, r.id = cluster, id }

func (r *onAssociation) update(s *account, change func(*association) *APIError) *APIError {
	s.eks.mu.Lock()
	defer s.eks.mu.Unlock()
	if s.eks.clusters[r.cluster] == nil {
		return noSuchCluster(r.cluster)
	}
	x := s.eks.associations[r.id]
	if x == nil || x.cluster != r.cluster {
		return &APIError{Code: codeNotFound, Message: "No association found for id: " + r.id, Status: http.StatusNotFound}
	}
	return change(x)
}

type describeAssociation struct {
	onAssociation `json:"-"`
}

func (r *describeAssociation) do(s *account, _ identity) (any, *APIError) {
	var out associationResult
	err := r.update(s, func(x *association) *APIError {
		out = x.result()
		return nil
	})
	return out, err
}

type updateAssociation struct {
	onAssociation `json:"-"`
	Token         *string `json:"clientRequestToken"`
	NoSessionTags *bool   `json:"disableSessionTags"`
	Role          *string `json:"roleArn"`
}

func (r *updateAssociation) asks(s *account) []permission {
	asked := r.onAssociation.asks(s)
	if r.Role != nil {
		asked = append(asked, s.mayPass(*r.Role)...)
	}
	return asked
}

func (r *updateAssociation) do(s *account, _ identity) (any, *APIError) {
	if r.Role != nil {
		if err := s.checkPodRole(*r.Role); err != nil {
			return nil, err
		}
	}
	var out associationResult
	err := r.update(s, func(x *association) *APIError {
		if r.Role != nil {
			x.role = *r.Role
		}
		if r.NoSessionTags != nil {
			x.noSessionTags = *r.NoSessionTags
		}
		x.modified = s.now()
		out = x.result()
		return nil
	})
	return out, err
}

type deleteAssociation struct {
	onAssociation `json:"-"`
}

func (r *deleteAssociation) do(s *account, _ identity) (any, *APIError) {
	var out associationResult
	err := r.update(s, func(x *association) *APIError {
		out = x.result()
		delete(s.eks.associations, x.id)
		return nil
	})
	return out, err
}

type listAssociations struct {
	onCluster                                      `json:"-"`
	namespace, serviceAccount, maxResults, nextTok *string
}

func (r *listAssociations) take(cluster, _ string, query url.Values) {
	r.cluster = cluster
	for name, dst := range map[string]**string{
		"namespace": &r.namespace, "serviceAccount": &r.serviceAccount, "maxResults": &r.maxResults, "nextToken": &r.nextTok,
	} {
		if query.Has(name) {
			v := query.Get(name)
			*dst = &v
			query.Del(name)
		}
	}
}

func (r *listAssociations) do(s *account, _ identity) (any, *APIError) {
	limit := 100
	if r.maxResults != nil {
		n, err := strconv.Atoi(*r.maxResults)
		if err != nil || n < 1 || n > 100 {
			return nil, eksInvalid("maxResults must be between 1 and 100.")
		}
		limit = n
	}
	query := queryID("ListPodIdentityAssociations", r.cluster, r.namespace, r.serviceAccount)
	after, apiErr := readPageToken(r.nextTok, query, 1)
	if apiErr != nil {
		return nil, eksInvalid("The nextToken is invalid.")
	}
	s.eks.mu.RLock()
	defer s.eks.mu.RUnlock()
	if s.eks.clusters[r.cluster] == nil {
		return nil, noSuchCluster(r.cluster)
	}
	type summary struct {
		ARN            string `json:"associationArn"`
		ID             string `json:"associationId"`
		Cluster        string `json:"clusterName"`
		Namespace      string `json:"namespace"`
		ServiceAccount string `json:"serviceAccount"`
	}
	out := struct {
		Associations []summary `json:"associations"`
		NextToken    string    `json:"nextToken,omitempty"`
	}{Associations: []summary{}}
	for _, id := range slices.Sorted(maps.Keys(s.eks.associations)) {
		x := s.eks.associations[id]
		switch {
		case x.cluster != r.cluster, after != nil && id <= after[0],
			r.namespace != nil && x.namespace != *r.namespace, r.serviceAccount != nil && x.serviceAccount != *r.serviceAccount:
			continue
		}
		if len(out.Associations) == limit {
			out.NextToken = pageToken(query, out.Associations[limit-1].ID)
			break
		}
		out.Associations = append(out.Associations, summary{x.arn, x.id, x.cluster, x.namespace, x.serviceAccount})
	}
	return out, nil
}
