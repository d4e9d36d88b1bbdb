package iampolicy

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// logsActions are CloudWatch Logs' actions of some kinds, by testdata/logs-actions.json: the service
// authorization reference of 2026-09-26, and GetLogObject, which it does not have. An action "shows" what was
// logged, "sends" it or copies it to elsewhere, is denied "alongside" by a pattern, or does "neither".
func logsActions(t require.TestingT, kinds ...string) (list []string) {
	text, err := os.ReadFile("testdata/logs-actions.json")
	require.NoError(t, err)
	var all map[string]string
	require.NoError(t, json.Unmarshal(text, &all))
	for action, kind := range all {
		require.Contains(t, []string{"shows", "sends", "alongside", "neither"}, kind, action)
		if slices.Contains(kinds, kind) {
			list = append(list, action)
		}
	}
	require.NotEmpty(t, list)
	slices.Sort(list)
	return list
}

// managedPolicies are what AWS's managed policies say of CloudWatch Logs, in the versions of 2026-08-26.
func managedPolicies(t require.TestingT) map[string]*Document {
	text, err := os.ReadFile("testdata/managed-policies.json")
	require.NoError(t, err)
	var raw map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(text, &raw))
	all := map[string]*Document{}
	for name, document := range raw {
		all[name], err = Parse(document)
		require.NoError(t, err, name)
	}
	return all
}

// Whatever AWS's managed policies allow beside its own, the auditor's and the provisioner's sessions are
// denied what was logged, on every group, and what hands it on; and nothing else of CloudWatch Logs is denied
// but what destroys.
func TestNoManagedPolicyShowsAuditorOrProvisionerWhatWasLogged(t *testing.T) {
	for _, region := range []string{"us-east-1", "us-gov-west-1", "cn-north-1"} {
		s := scope(t, region)
		resources := []string{"*", s.bare(s.Names.Group("acme"))}
		for _, group := range []string{s.Names.Group("acme"), s.Names.QuarantineGroup("acme"), s.Names.PlatformGroup, "/aws/eks/prod/cluster"} {
			resources = append(resources, s.bare(group)+":log-stream:x")
		}
		for _, kind := range []string{"anomaly-detector:1", "scheduled-query:1", "delivery:1", "delivery-destination:1", "destination:x"} {
			resources = append(resources, "arn:"+s.Partition+":logs:"+s.Region+":"+s.Account+":"+kind)
		}
		denied, others := logsActions(t, "shows", "sends", "alongside"), logsActions(t, "neither")
		for role, own := range map[string]*Document{"auditor": s.Auditor(), "provisioner": s.Provisioner()} {
			allowedBeside := 0
			for name, managed := range managedPolicies(t) {
				if region != "us-east-1" && name != "AdministratorAccess" {
					continue // they say the same in every partition
				}
				ask := func(action, resource string, documents ...*Document) Decision {
					return Evaluate(Request{Action: action, Resource: resource, Principal: Principal{ARN: s.RoleARN(role), Account: s.Account}}, Policies{Identity: documents, SameAccount: true})
				}
				for _, resource := range resources {
					for _, action := range denied {
						if ask(action, resource, managed).Allowed {
							allowedBeside++
						}
						if !ask(action, resource, managed, own).Explicit {
							t.Fatalf("%s with %s is not denied %s on %s", role, name, action, resource)
						}
					}
					if name != "AdministratorAccess" {
						continue // what an explicit Deny reaches does not depend on who allows
					}
					for _, action := range others {
						if !slices.Contains(destroys, action) && ask(action, resource, managed, own).Explicit {
							t.Fatalf("%s with %s is denied %s on %s", role, name, action, resource)
						}
					}
				}
			}
			require.NotZero(t, allowedBeside, "the managed policies allow nothing of it: this test says nothing")
		}
	}
}

// The auditor's own Denies hold beside an administrator's policy: it takes no role of the installation, nor its own Denies off.
func TestAnAuditorWithEverythingElseTakesNoDenyOff(t *testing.T) {
	s := scope(t, "us-east-1")
	all := managedPolicies(t)["AdministratorAccess"]
	self := s.RoleARN(tenancy.ClusterRole(s.Cluster, s.Region, "auditor"))
	ask := func(action, resource string) Decision {
		return Evaluate(Request{Action: action, Resource: resource, Principal: Principal{ARN: self, Account: s.Account}}, Policies{Identity: []*Document{all, s.Auditor()}, SameAccount: true})
	}
	for _, action := range iamWrites {
		for _, resource := range []string{self, s.ReaderRoleARN("acme"), s.BoundaryARN(), "arn:aws:iam::111122223333:user/x"} {
			if strings.HasPrefix(action, "iam:") || resource == s.ReaderRoleARN("acme") {
				require.True(t, ask(action, resource).Explicit, "%s on %s", action, resource)
			}
		}
	}
	for _, action := range []string{"iam:GetRole", "iam:ListRoles", "iam:SimulatePrincipalPolicy", "iam:GetAccountAuthorizationDetails"} {
		require.True(t, ask(action, "*").Allowed, action)
	}
}
