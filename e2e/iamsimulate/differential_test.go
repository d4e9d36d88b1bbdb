package iamsimulate

import (
	"encoding/json"
	"flag"
	"fmt"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/iampolicy"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

var (
	simulator = flag.String("simulator", "", "the folder where the simulator is installed (make iam-differential)")
	node      = flag.String("node", "node", "Node.js")
	cases     = flag.Int("cases", 6000, "how many questions to ask of each partition")
	seed      = flag.Uint64("seed", 1, "what the questions are drawn by")
)

const testdata = "../../internal/iampolicy/testdata/"

func start(t *testing.T) *Simulator {
	if *simulator == "" {
		t.Skip("not run here: make iam-differential runs it, with Node")
	}
	s, err := Start(*node, *simulator)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// sortedActions are CloudWatch Logs' actions, each with what it does with what was logged.
func sortedActions(t *testing.T) (sorted map[string]string) {
	text, err := os.ReadFile(testdata + "logs-actions.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &sorted))
	return sorted
}

// The denial of content is made of a list of all actions. One that AWS adds is found here, when the lock file
// is raised, and is to be sorted.
func TestEveryActionOfCloudWatchLogsIsSorted(t *testing.T) {
	s := start(t)
	want, version, err := s.Actions("logs")
	require.NoError(t, err)
	sorted := sortedActions(t)
	delete(sorted, "logs:GetLogObject") // in the API, and in no list of actions
	slices.Sort(want)
	require.Equal(t, want, slices.Sorted(maps.Keys(sorted)), "reference %s", version)
}

// tenants are two of a kind: short, as long as fits a role's name, cut there, and as long as can be.
var tenants = []string{
	"acme", "acme-corp", "sixteencharsname", strings.Repeat("t", 27), strings.Repeat("t", 28), strings.Repeat("t", 27) + "-1", strings.Repeat("u", 63),
}

// hostile are tags that are no tenant's name.
var hostile = []string{
	"acme:log-stream:tenant-acme/web-0/app", "sixteencharsname:log-stream:", strings.Repeat("t", 28) + ":log-stream:", "acme:*", "*", "?", strings.Repeat("?", 28),
	strings.Repeat("*", 28), "acme*", "${*}", "${aws:PrincipalTag/x}", "$", "", "/", "acme/", "../quarantine/acme", "ACME", strings.Repeat("T", 28), "acme.", "_", "-acme", "acme-",
	strings.Repeat("t", 64), "acme corp", "a=b", "a+b", "a@b", "a#b", "acmé", "：", "\u2028",
}

// world is what questions are drawn from, in one partition.
type world struct {
	iampolicy.Scope
	rand      *rand.Rand
	documents map[string]*iampolicy.Document
	managed   []string
	actions   map[string][]Type // with the types of their resources
	names     []string          // of actions, those of CloudWatch Logs apart
	logs      []string
	handsOut  []string // of logs: what shows or sends what was logged
}

// mustNot says what no simulator may allow, whatever the other one says: a tag that is no tenant's name opens
// nothing, and what was logged is handed out to neither auditor nor provisioner.
func (w *world) mustNot(q Question) bool {
	tag := q.Context["aws:PrincipalTag/"+tenancy.TagTenant]
	return q.Boundary != "" && len(tag) == 1 && !tenancy.Label(tag[0]) ||
		slices.Contains([]string{"auditor", "provisioner", "provisioner-of-accounts"}, q.Identity[0]) && slices.Contains(w.handsOut, q.Action)
}

func newWorld(t *testing.T, s *Simulator, region string) *world {
	scope, err := iampolicy.NewScope(iampolicy.Scope{Region: region, Account: "111122223333", Cluster: "prod"})
	require.NoError(t, err)
	w := &world{Scope: scope, rand: rand.New(rand.NewPCG(*seed, uint64(crc32.ChecksumIEEE([]byte(region))))), documents: map[string]*iampolicy.Document{}, actions: map[string][]Type{}}
	theirs := []string{"arn:" + w.Partition + ":iam::444455556666:role/logs", "arn:" + w.Partition + ":iam::*:role/tenants/logs"}
	maps.Copy(w.documents, map[string]*iampolicy.Document{
		"writer": w.Writer(true), "writer-alone": w.Writer(false, theirs...), "boundary": w.Boundary(), "reader-abac": w.ReaderABAC(), "auditor": w.Auditor(),
		"provisioner": w.Provisioner(), "provisioner-of-accounts": w.Provisioner(theirs...), "replay": w.Replay(theirs...), "canary": w.Canary("acme"), "kms": w.KMS("acme"),
	})
	for _, tenant := range tenants {
		w.documents["reader "+tenant] = w.Reader(tenant)
	}
	trust, err := w.TrustPolicy(iampolicy.Trust{
		Principals: []string{"arn:$(partition):iam::$(account):role/team-$(tenant)"}, Accounts: []string{"444455556666"}, ExternalID: "$(cluster)/$(tenant)",
		SSORoles: []string{"$(tenant)-readers"}, PodIdentity: []iampolicy.ServiceAccount{{Namespace: "$(namespace)", Name: "logs"}},
	}, "acme", "tenant-acme")
	require.NoError(t, err)
	w.documents["trust"] = trust
	// Keys and roles have a policy always: these leave it to the account's own.
	for name, action := range map[string]string{"key of the account": "kms:*", "role of the account": "sts:*"} {
		st := iampolicy.Statement{Effect: iampolicy.Allow, Principal: &iampolicy.Principals{AWS: []string{"arn:" + w.Partition + ":iam::" + w.Account + ":root"}}, Actions: []string{action}}
		if action == "kms:*" {
			st.Resources = []string{"*"}
		}
		w.documents[name] = &iampolicy.Document{Version: iampolicy.Version, Statements: []iampolicy.Statement{st}}
	}
	text, err := os.ReadFile(testdata + "managed-policies.json")
	require.NoError(t, err)
	var raw map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(text, &raw))
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		d, err := iampolicy.Parse(raw[name])
		require.NoError(t, err)
		d.ID = ""
		w.documents[name] = d
		w.managed = append(w.managed, name)
	}
	for name, d := range w.documents {
		require.NoError(t, s.Policy(name, d))
	}

	w.logs, _, err = s.Actions("logs")
	require.NoError(t, err)
	for action, kind := range sortedActions(t) {
		if kind == "shows" || kind == "sends" {
			w.handsOut = append(w.handsOut, action)
		}
	}
	slices.Sort(w.logs)
	w.names = strings.Fields(`iam:AttachRolePolicy iam:CreatePolicyVersion iam:CreateRole iam:DeletePolicy iam:DeleteRole iam:DeleteRolePermissionsBoundary iam:DeleteRolePolicy
		iam:DetachRolePolicy iam:GetPolicy iam:GetRole iam:GetRolePolicy iam:ListRolePolicies iam:ListRoles iam:PassRole iam:PutRolePermissionsBoundary iam:PutRolePolicy iam:PutUserPolicy
		iam:SimulatePrincipalPolicy iam:TagRole iam:UntagRole iam:UpdateAssumeRolePolicy iam:GetAccountAuthorizationDetails iam:CreateUser
		sts:AssumeRole sts:TagSession eks:CreatePodIdentityAssociation eks:DeletePodIdentityAssociation eks:ListPodIdentityAssociations eks:TagResource eks:DescribeCluster
		kms:CreateKey kms:TagResource kms:PutKeyPolicy kms:GetKeyPolicy kms:Decrypt kms:CreateGrant kms:ScheduleKeyDeletion kms:ListAliases kms:CreateAlias kms:EnableKeyRotation kms:DescribeKey`)
	for _, action := range slices.Concat(w.logs, w.names) {
		w.actions[action], err = s.Types(action)
		require.NoError(t, err)
	}
	return w
}

func one[T any](w *world, of ...T) T { return of[w.rand.IntN(len(of))] }

func (w *world) chance(percent int) bool { return w.rand.IntN(100) < percent }

func (w *world) arn(service, rest string) string {
	region, account := w.Region, w.Account
	if service == "iam" {
		region = ""
	}
	if w.chance(5) {
		account = "444455556666"
	}
	return "arn:" + w.Partition + ":" + service + ":" + region + ":" + account + ":" + rest
}

// group is the name of a log group: tenants', others', and what a tag would make of one.
func (w *world) group(tag string) string {
	name := one(w, append(slices.Clone(tenants), "acme2", "Acme", "acme/x")...)
	if before, _, _ := strings.Cut(tag, ":"); w.chance(40) && before != "" && !strings.ContainsAny(before, "*?${} =+@é：\u2028") {
		name = before
	}
	return one(w, w.Names.Group(name), w.Names.Group(name), w.Names.Group(name), w.Names.QuarantineGroup(name), w.Names.PlatformGroup, "/aws/eks/prod/cluster")
}

// resource is one that an action may be about.
func (w *world) resource(action, tag string) string {
	types := w.actions[action]
	if len(types) == 0 {
		return "*"
	}
	service, _, _ := strings.Cut(action, ":")
	kind := one(w, types...)
	tenant := one(w, tenants...)
	switch service + " " + kind.Name {
	case "logs log-group":
		bare := w.arn("logs", "log-group:"+w.group(tag))
		if strings.Contains(action, "Tag") || w.chance(10) {
			return bare
		}
		return bare + ":log-stream:"
	case "logs log-stream":
		return w.arn("logs", "log-group:"+w.group(tag)+":log-stream:"+one(w, "tenant-acme/web-0/app", "$replay/1", "x"))
	case "iam role", "sts role":
		if w.chance(50) {
			return w.ReaderRoleARN(tenant)
		}
		return one(w, w.ProvisionerRoleARN(), w.RoleARN("eks-tenant-logs_x"), w.arn("iam", "role/Admin"), "arn:"+w.Partition+":iam::444455556666:role/logs", "arn:"+w.Partition+":iam::777788889999:role/tenants/logs", w.arn("iam", "role/eks-tenant-logs_acme"))
	case "iam policy":
		return one(w, w.BoundaryARN(), w.arn("iam", "policy/x"))
	case "kms key":
		return w.arn("kms", "key/12345678-1234-1234-1234-123456789012")
	case "kms alias":
		return w.arn("kms", one(w, "alias/eks-tenant-logs/prod/acme", "alias/eks-tenant-logs/test/acme"))
	case "eks cluster":
		return w.arn("eks", "cluster/"+one(w, "prod", "test"))
	case "eks podidentityassociation":
		return w.arn("eks", "podidentityassociation/"+one(w, "prod", "test")+"/a-1")
	}
	return form.ReplaceAllStringFunc(kind.ARN, func(variable string) string {
		known := map[string]string{"${Partition}": w.Partition, "${Region}": w.Region, "${Account}": w.Account}
		if v, ok := known[variable]; ok {
			return v
		}
		return "x"
	})
}

// form is a variable in the form of an ARN.
var form = regexp.MustCompile(`\$\{[^}]*\}`)

// tagged draws the tags of tenant and cluster under a key such as aws:ResourceTag/.
func (w *world) tagged(context map[string][]string, of string) {
	if w.chance(70) {
		context[of+tenancy.TagTenant] = []string{one(w, tenants...)}
	}
	if w.chance(70) {
		context[of+tenancy.TagCluster] = []string{one(w, "prod", "prod", "test")}
	}
}

// question draws a principal with its policies, and what it asks.
func (w *world) question() Question {
	q := Question{Account: w.Account, Context: map[string][]string{}}
	tag := ""
	role := func(name string) {
		q.Principal, q.Identity = w.RoleARN(tenancy.ClusterRole(w.Cluster, w.Region, name)), []string{name}
	}
	about := w.logs
	switch kind := w.rand.IntN(10); kind {
	case 0, 1, 2: // a reader role, with any session tag
		tenant := one(w, tenants...)
		tag = one(w, tenant, one(w, tenants...), one(w, hostile...))
		q.Principal, q.Boundary = w.ReaderRoleARN(tenant), "boundary"
		q.Identity = []string{one(w, "AdministratorAccess", "AdministratorAccess", "reader "+tenant, "reader "+one(w, tenants...))}
		if w.chance(95) {
			q.Context["aws:PrincipalTag/"+tenancy.TagTenant] = []string{tag}
		}
		if w.chance(95) {
			q.Context["aws:PrincipalTag/"+tenancy.TagCluster] = []string{one(w, "prod", "prod", "prod", "prod", "test")}
		}
	case 3: // the one role by tags
		tag = one(w, one(w, tenants...), one(w, hostile...))
		role("reader-abac")
		cluster := one(w, "prod", "prod", "prod", "test")
		q.Context["aws:PrincipalTag/kubernetes-namespace"] = []string{tag}
		q.Context["aws:PrincipalTag/eks-cluster-name"] = []string{cluster}
		q.Context["aws:PrincipalTag/eks-cluster-arn"] = []string{"arn:" + w.Partition + ":eks:" + w.Region + ":" + w.Account + ":cluster/" + cluster}
	case 4:
		role(one(w, "writer", "writer-alone", "replay", "canary"))
	case 5:
		role("auditor")
		about = slices.Concat(w.logs, w.names)
	case 6, 7:
		role("provisioner")
		q.Identity = []string{one(w, "provisioner", "provisioner-of-accounts")}
		if about = w.names; w.chance(40) {
			about = w.logs
		}
	case 8: // a key, whose policy decides
		q.Principal = one(w, w.ProvisionerRoleARN(), w.arn("iam", "role/Admin"), w.ReaderRoleARN("acme"))
		q.Identity, q.ResourcePolicy = []string{one(w, "provisioner", "AdministratorAccess", "auditor")}, "kms"
		about = []string{"kms:PutKeyPolicy", "kms:GetKeyPolicy", "kms:Decrypt", "kms:CreateGrant", "kms:ScheduleKeyDeletion", "kms:EnableKeyRotation", "kms:DescribeKey"}
	case 9: // a reader role's trust
		q.Principal = one(w, w.arn("iam", "role/team-acme"), "arn:"+w.Partition+":iam::111122223333:role/team-acme", "arn:"+w.Partition+":iam::111122223333:role/team-globex",
			"arn:"+w.Partition+":iam::444455556666:role/x", "arn:"+w.Partition+":iam::777788889999:role/x",
			"arn:"+w.Partition+":iam::111122223333:role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_acme-readers_0123456789abcdef", "pods.eks.amazonaws.com", "pods.eks.amazonaws.com")
		q.Identity, q.ResourcePolicy = []string{one(w, "AdministratorAccess", "AdministratorAccess", "writer")}, "trust"
		about = []string{"sts:AssumeRole", "sts:AssumeRole", "sts:TagSession"}
		if w.chance(70) {
			q.Context["sts:ExternalId"] = []string{one(w, "prod/acme", "prod/acme", "x")}
		}
		if strings.HasPrefix(q.Principal, "pods.") {
			q.Identity = nil
			q.Context["aws:RequestTag/kubernetes-namespace"] = []string{one(w, "tenant-acme", "tenant-acme", "tenant-globex")}
			q.Context["aws:RequestTag/kubernetes-service-account"] = []string{one(w, "logs", "logs", "x")}
			q.Context["aws:RequestTag/eks-cluster-arn"] = []string{"arn:" + w.Partition + ":eks:" + w.Region + ":" + w.Account + ":cluster/" + one(w, "prod", "prod", "test")}
			q.Context["aws:SourceAccount"] = []string{one(w, w.Account, w.Account, "444455556666")}
			if w.chance(20) {
				q.Context["aws:RequestTag/"+tenancy.TagTenant] = []string{"globex"}
			}
		}
	}
	if q.ResourcePolicy == "" && q.Boundary == "" && w.chance(50) {
		q.Identity = append(q.Identity, one(w, w.managed...))
	}
	q.Action = one(w, about...)
	switch q.Resource = w.resource(q.Action, tag); q.ResourcePolicy {
	case "kms":
		q.Resource = "arn:" + w.Partition + ":kms:" + w.Region + ":" + w.Account + ":key/12345678-1234-1234-1234-123456789012"
	case "trust":
		q.Resource = w.ReaderRoleARN("acme")
	case "":
		if strings.Contains(q.Resource, ":key/") {
			q.ResourcePolicy = one(w, "kms", "key of the account")
		} else if strings.HasPrefix(q.Action, "sts:") {
			q.ResourcePolicy = "role of the account"
		}
	}
	if parts := strings.Split(q.Resource, ":"); len(parts) > 5 {
		q.Account = parts[4]
	}
	if strings.HasPrefix(q.Principal, "arn:") {
		q.Context["aws:PrincipalArn"] = []string{q.Principal}
	}
	q.Context["aws:ResourceAccount"] = []string{q.Account}
	switch service, _, _ := strings.Cut(q.Action, ":"); service {
	case "iam":
		w.tagged(q.Context, "aws:ResourceTag/")
		w.tagged(q.Context, "aws:RequestTag/")
		if w.chance(70) {
			q.Context["iam:PermissionsBoundary"] = []string{one(w, w.BoundaryARN(), w.BoundaryARN(), "arn:"+w.Partition+":iam::aws:policy/AdministratorAccess")}
		}
		if w.chance(70) {
			q.Context["iam:PassedToService"] = []string{one(w, "pods.eks.amazonaws.com", "ec2.amazonaws.com")}
		}
	case "kms":
		w.tagged(q.Context, "aws:ResourceTag/")
		w.tagged(q.Context, "aws:RequestTag/")
		if w.chance(70) {
			q.Context["kms:ResourceAliases"] = []string{"alias/else", one(w, "alias/eks-tenant-logs/prod/acme", "alias/eks-tenant-logs/test/acme")}
		}
	}
	return q
}

// decide is what the project's evaluator says, of a request without the keys that it does not have on AWS.
func (w *world) decide(q Question, ignored []string) iampolicy.Decision {
	r := iampolicy.Request{Action: q.Action, Resource: q.Resource, Context: map[string][]string{}}
	for key, values := range q.Context {
		if !slices.ContainsFunc(ignored, func(k string) bool { return strings.EqualFold(k, key) }) {
			r.Context[strings.ToLower(key)] = values
		}
	}
	p := iampolicy.Policies{SameAccount: true}
	if strings.HasPrefix(q.Principal, "arn:") {
		r.Principal = iampolicy.Principal{ARN: q.Principal, Account: strings.Split(q.Principal, ":")[4]}
		p.SameAccount = r.Principal.Account == q.Account
	} else {
		r.Principal.Service = q.Principal
	}
	for _, name := range q.Identity {
		p.Identity = append(p.Identity, w.documents[name])
	}
	if q.Boundary != "" {
		p.Boundary = w.documents[q.Boundary]
	}
	if q.ResourcePolicy != "" {
		p.Resource, p.Required = []*iampolicy.Document{w.documents[q.ResourcePolicy]}, true
	}
	return iampolicy.Evaluate(r, p)
}

// Both simulators decide the same of every question: of the policies that the project prints, in three
// partitions, with tags that are no tenant's name, and with AWS's managed policies beside.
func TestBothSimulatorsDecideTheSame(t *testing.T) {
	for _, region := range []string{"us-east-1", "us-gov-west-1", "cn-north-1"} {
		t.Run(region, func(t *testing.T) {
			s := start(t)
			w := newWorld(t, s, region)
			questions := make([]Question, *cases)
			principals := map[string]bool{}
			for i := range questions {
				questions[i] = w.question()
				questions[i].ID = i
				principals[fmt.Sprint(questions[i].Principal, questions[i].Identity, questions[i].Boundary, questions[i].ResourcePolicy, questions[i].Context["aws:PrincipalTag/"+tenancy.TagTenant])] = true
			}
			began := time.Now()
			said, failed, differ, forbidden := map[string]int{}, map[string]int{}, 0, 0
			require.NoError(t, s.Ask(questions, func(q Question, a Answer) {
				if a.Error != "" {
					failed[q.Action+": "+a.Error]++
					return
				}
				ours := w.decide(q, a.Ignored)
				mine := "ImplicitlyDenied"
				if ours.Allowed {
					mine = "Allowed"
				} else if ours.Explicit {
					mine = "ExplicitlyDenied"
				}
				said[mine]++
				if len(q.Identity) > 0 && w.mustNot(q) {
					forbidden++
					if a.Result == "Allowed" {
						t.Errorf("the simulator allows what may not be: %+v", q)
					}
				}
				if mine != a.Result {
					if differ++; differ <= 20 {
						t.Errorf("%s here (%s), %s there: %+v, ignored %v", mine, ours.By, a.Result, q, a.Ignored)
					}
				}
			}))
			t.Logf("%d questions of %d principals, seed %d: %v, %d of what must not be, %d disagreements, %d without an answer; %.1f s", len(questions), len(principals), *seed, said, forbidden, differ, len(failed), time.Since(began).Seconds())
			require.Empty(t, failed, "the simulator does not decide")
			require.Zero(t, differ)
			require.NotZero(t, forbidden)
			for _, decision := range []string{"Allowed", "ImplicitlyDenied", "ExplicitlyDenied"} {
				require.NotZero(t, said[decision], "no question is %s: they ask too little", decision)
			}
		})
	}
}
