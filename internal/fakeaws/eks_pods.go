package fakeaws

import (
	"crypto/rand"
	"net/http"
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
	key, err := v.a.podSession(pod)
	if err != nil {
		return Credentials{}, err
	}
	return key, nil
}

func (s *account) podSession(pod Pod) (Credentials, *APIError) {
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
		return Credentials{}, noSuchCluster(pod.Cluster)
	case found == nil:
		return Credentials{}, &APIError{Code: codeNotFound, Message: "No association found for the service account.", Status: http.StatusNotFound}
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
	begun := session{role: x.role, roleID: "AROA" + rand.Text()[:17], name: name, seconds: podSession, tags: tags}
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
			return Credentials{}, &APIError{Code: codeDenied + "Exception", Message: "EKS is not allowed to assume the role " + x.role, Status: http.StatusForbidden}
		}
		begun.roleID = r.id
	}
	_, key := s.begin(begun)
	return key, nil
}
