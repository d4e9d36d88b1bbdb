package fakeaws

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
)

// Pod is who asks for a session through EKS Pod Identity.
type Pod struct {
	Cluster        string
	Namespace      string
	ServiceAccount string
	Name, UID      string
}

// podSession is how long the sessions of EKS Pod Identity last, in seconds.
const podSession = 21_600

// PodSession gives a pod the credentials that EKS's agent would get for it: a session of the role that is associated with
// the pod's service account, with the session tags that EKS sets. It stands in for the node's agent and the kubelet's
// token, which would vouch for the pod. The role's trust policy is asked on a server that enforces. Errors are *APIError.
func (v Account) PodSession(pod Pod) (Credentials, error) {
	_, key, err := v.a.podSession(pod, "")
	if err != nil {
		return Credentials{}, err
	}
	return key, nil
}

// podSession is PodSession; tokenID is the id of the token that vouched for the pod.
func (s *account) podSession(pod Pod, tokenID string) (sessionResult, Credentials, *APIError) {
	s.eks.mu.RLock()
	c := s.eks.clusters[pod.Cluster]
	found := s.associationOf(pod.Cluster, pod.Namespace, pod.ServiceAccount)
	var x association
	if found != nil {
		x = *found
	}
	s.eks.mu.RUnlock()
	switch {
	case c == nil:
		return sessionResult{}, Credentials{}, noSuchCluster(pod.Cluster)
	case found == nil:
		return sessionResult{}, Credentials{}, &APIError{Code: codeNotFound, Message: "No association found for the service account.", Status: http.StatusNotFound}
	}
	tags := map[string]string{}
	if !x.noSessionTags {
		tags = map[string]string{
			"eks-cluster-arn": c.arn, "eks-cluster-name": c.name, "kubernetes-namespace": pod.Namespace,
			"kubernetes-service-account": pod.ServiceAccount, "kubernetes-pod-name": pod.Name, "kubernetes-pod-uid": pod.UID,
		}
	}
	// "eks-<cluster>-<pod>-<random>", cut to what a session's name can have.
	name := "eks-" + pod.Cluster + "-" + pod.Name
	random := "-" + newRequestID()
	name = name[:min(len(name), 64-len(random))] + random
	role := roleARN.FindStringSubmatch(x.role)
	begun := session{role: x.role, roleID: "AROA" + rand.Text()[:17], name: name, seconds: podSession, tags: tags, subject: "system:serviceaccount:" + pod.Namespace + ":" + pod.ServiceAccount, tokenID: tokenID}
	for k := range tags {
		begun.transitive = append(begun.transitive, k)
	}
	if s.cfg.Enforce {
		r, access, ok := s.roleFor(x.role, role[2])
		ask := permission{action: "sts:AssumeRole", resource: x.role, context: resourceTagKeys(access.tags)}
		ask.set("aws:sourcearn", c.arn)
		ask.set("aws:sourceaccount", s.id)
		ask.set("sts:rolesessionname", name)
		for k, v := range tags {
			ask.set("aws:requesttag/"+k, v)
			ask.set("aws:tagkeys", k)
		}
		trusted := ok && s.trustsService(podService, access.trust, ask)
		if ask.action = "sts:TagSession"; trusted && len(tags) > 0 {
			trusted = s.trustsService(podService, access.trust, ask)
		}
		if !trusted {
			return sessionResult{}, Credentials{}, &APIError{Code: codeDenied + "Exception", Message: "EKS is not allowed to assume the role " + x.role, Status: http.StatusForbidden}
		}
		begun.roleID = r.id
	}
	out, key := s.begin(begun)
	return out, key, nil
}

// podAudience is the audience of the tokens that the kubelet makes for EKS Pod Identity.
const podAudience = "pods.eks.amazonaws.com"

// PodIdentityEndpoint is what the agent of EKS Pod Identity serves on a cluster's nodes at http://169.254.170.23, with EKS Auth's AssumeRoleForPodIdentity
// behind it: whoever brings a pod's token, of the cluster's issuer and for EKS Pod Identity, gets a session of the role that is associated with the pod's
// service account. Errors are those of EKS Auth, in the agent's words. It keeps no credentials, as the agent does.
func (v Account) PodIdentityEndpoint(cluster string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+podCredentialsPath, func(w http.ResponseWriter, r *http.Request) {
		out, key, err := v.a.assumeForPod(cluster, r.Header.Get("Authorization"))
		result := resultOK
		if err != nil {
			result = err.Code
		}
		v.a.stats.count(callName("eks-auth", "AssumeRoleForPodIdentity"), result)
		if err != nil {
			http.Error(w, fmt.Sprintf("[%s]: (%s): %s, fault: client", newRequestID(), err.Code, err.Message), err.status())
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{ // a client that is gone needs no answer
			"AccessKeyId": key.AccessKeyID, "SecretAccessKey": key.SecretAccessKey, "Token": key.SessionToken, "AccountId": v.a.id, "Expiration": out.Expiration,
		})
	})
	return mux
}

// assumeForPod is AssumeRoleForPodIdentity of EKS Auth.
func (s *account) assumeForPod(cluster, token string) (sessionResult, Credentials, *APIError) {
	refuse := func(code, message string) (sessionResult, Credentials, *APIError) {
		return sessionResult{}, Credentials{}, &APIError{Code: code, Message: message}
	}
	s.eks.mu.RLock()
	c := s.eks.clusters[cluster]
	var issuer string
	if c != nil {
		issuer = c.issuer
	}
	s.eks.mu.RUnlock()
	if c == nil {
		return sessionResult{}, Credentials{}, noSuchCluster(cluster)
	}
	id, err := s.readToken(token)
	switch {
	case err != nil && err.Code == codeExpiredToken:
		return refuse(codeExpiredToken, err.Message)
	case err != nil:
		return refuse("InvalidTokenException", err.Message)
	case id.Issuer != issuer:
		return refuse("InvalidTokenException", "The token's issuer is not the cluster's.")
	case !slices.Equal(id.Audience, audiences{podAudience}):
		return refuse("InvalidTokenException", "The token's audience is not "+podAudience+".")
	case id.Kubernetes.Namespace == "" || id.Kubernetes.ServiceAccount.Name == "" || id.Kubernetes.Pod.UID == "":
		return refuse("InvalidTokenException", "The token is not bound to a pod.")
	}
	return s.podSession(Pod{
		Cluster: cluster, Namespace: id.Kubernetes.Namespace, ServiceAccount: id.Kubernetes.ServiceAccount.Name, Name: id.Kubernetes.Pod.Name, UID: id.Kubernetes.Pod.UID,
	}, id.ID)
}
