package provision

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// rightly is all that tenant acme of UID uid-1 needs, as it should be.
func rightly(t testing.TB, in Installation) *Observed {
	t.Helper()
	o := &Observed{groups: map[groupKey]*group{}, roles: map[string]*role{}, keys: map[string]*key{}, failed: map[string]error{}}
	acme := tenantOf("acme", "uid-1")
	add := func(spec groupSpec, tags map[string]string) {
		g := &group{tags: maps.Clone(tags), source: tagsRead}
		g.tags[tagState] = stateReady
		g.LogGroup = types.LogGroup{LogGroupName: &spec.key.name, RetentionInDays: aws.Int32(int32(spec.days)), LogGroupClass: "STANDARD", CreationTime: aws.Int64(7)}
		o.groups[spec.key] = g
	}
	for _, spec := range in.platformGroups() {
		add(spec, spec.tags)
	}
	spec := in.groupOf(acme)
	tags := maps.Clone(spec.tags)
	maps.Copy(tags, recordTags(acme.Namespaces))
	add(spec, tags)
	q, ok := in.quarantineOf(acme)
	require.True(t, ok)
	add(q, q.tags)
	trusted, err := trust(in, "acme", acme.Namespaces)
	require.NoError(t, err)
	text, err := json.Marshal(trusted)
	require.NoError(t, err)
	policy, err := json.Marshal(in.Scope.Reader("acme"))
	require.NoError(t, err)
	r := &role{
		name: tenancy.ReaderRole(in.Scope.Cluster, in.Scope.Region, "acme"), path: in.Scope.RolePath, tags: maps.Clone(tags), boundary: in.Scope.BoundaryARN(),
		trust: string(text), inline: map[string]string{readerPolicy: string(policy)},
	}
	r.tags[tagState], r.tags[tagGroupCreated] = stateReady, "7"
	o.roles[roleKey(r.name)] = r
	return o
}

func TestThePlanIsWhatDiffersAndNothingElse(t *testing.T) {
	const name = "/eks/tenants/acme"
	key := groupKey{name: name}
	for what, test := range map[string]struct {
		change func(*Installation, *Observed)
		want   string // kinds, repairs with !, in order
		find   string
	}{
		"nothing":   {func(*Installation, *Observed) {}, "", ""},
		"retention": {func(_ *Installation, o *Observed) { o.groups[key].RetentionInDays = aws.Int32(364) }, "set-retention! confirm-group", ""},
		"longer":    {func(_ *Installation, o *Observed) { o.groups[key].RetentionInDays = aws.Int32(400) }, "", ""},
		"for ever":  {func(_ *Installation, o *Observed) { o.groups[key].RetentionInDays = nil }, "", "for ever"},
		"for ever, new": {func(_ *Installation, o *Observed) {
			o.groups[key].RetentionInDays, o.groups[key].tags[tagState] = nil, stateNew
		}, "set-retention confirm-group", ""},
		"new, all else right": {func(_ *Installation, o *Observed) { o.groups[key].tags[tagState] = stateNew }, "confirm-group", ""},
		"an account's policy": {func(_ *Installation, o *Observed) {
			o.groups[key].RetentionInDays, o.groups[key].RetentionPolicyName = aws.Int32(30), aws.String("p")
		}, "", `the account-level retention policy "p" wins`},
		"class":         {func(_ *Installation, o *Observed) { o.groups[key].LogGroupClass = "DELIVERY" }, "", "a class can't be changed"},
		"bearer tokens": {func(_ *Installation, o *Observed) { o.groups[key].BearerTokenAuthenticationEnabled = aws.Bool(true) }, "close-bearer-token! confirm-group", ""},
		"protection": {func(in *Installation, o *Observed) {
			in.DeletionProtection = true
			o.groups[groupKey{name: "/eks/platform"}].DeletionProtectionEnabled = aws.Bool(true)
		}, "protect-group! confirm-group protect-group! confirm-group protect-group! confirm-group", ""},
		"a key": {func(in *Installation, o *Observed) {
			in.KMSKeyARN = "arn:aws:kms:us-east-1:123456789012:key/k"
			for k, g := range o.groups {
				if k != key {
					g.KmsKeyId = &in.KMSKeyARN
				}
			}
		}, "associate-key! confirm-group", ""},
		"no key wanted": {func(_ *Installation, o *Observed) {
			o.groups[key].KmsKeyId = aws.String("arn:aws:kms:us-east-1:123456789012:key/k")
		}, "", ""},
		"tags":         {func(in *Installation, _ *Observed) { in.Tags = map[string]string{"cost": "1"} }, "tag-group tag-group tag-group tag-group tag-role", ""},
		"the role":     {func(_ *Installation, o *Observed) { clear(o.roles) }, "create-role put-policy", ""},
		"the policy":   {func(_ *Installation, o *Observed) { clear(only(o.roles).inline) }, "put-policy!", ""},
		"the boundary": {func(_ *Installation, o *Observed) { only(o.roles).boundary = "" }, "set-boundary!", "permissions boundary none"},
		"everything": {func(_ *Installation, o *Observed) {
			only(o.roles).attached = []string{"arn:aws:iam::aws:policy/AdministratorAccess"}
			only(o.roles).boundary = "x"
		}, "set-boundary! detach-policy!", "AdministratorAccess"},
		"the group":         {func(_ *Installation, o *Observed) { delete(o.groups, key) }, "create-group set-retention confirm-group", "somebody deleted it"},
		"could not be read": {func(_ *Installation, o *Observed) { delete(o.groups, key); o.failed["acme"] = errors.New("denied") }, "", ""},
		"no roles":          {func(in *Installation, o *Observed) { in.NoReaderRoles = true; clear(o.roles) }, "", ""},
	} {
		t.Run(what, func(t *testing.T) {
			in := installation(t, "c1")
			o := rightly(t, in)
			test.change(&in, o)
			r := Plan(in, []Tenant{tenantOf("acme", "uid-1")}, o)
			var kinds []string
			for _, a := range r.Actions {
				kinds = append(kinds, string(a.Kind)+map[bool]string{true: "!"}[a.Repair])
				require.NotEmpty(t, a.Reason)
				require.NotEmpty(t, a.Will)
			}
			got := strings.Join(kinds, " ")
			require.Equal(t, test.want, got)
			if test.find == "" {
				return
			}
			require.NotEmpty(t, r.Findings)
			require.Contains(t, fmt.Sprint(r.Findings), test.find)
		})
	}
}

func only(roles map[string]*role) *role {
	for _, r := range roles {
		return r
	}
	return nil
}

func TestWhatIsOnRecordIsReadBackAsItWas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]([a-z0-9-]{0,61}[a-z0-9])?`), 0, maxNamespaces, rapid.ID).Draw(t, "names")
		var has []Namespace
		for i, name := range names {
			has = append(has, Namespace{name, fmt.Sprintf("5f3c1c2e-0000-4000-8000-%012d", i)})
		}
		tags := recordTags(has)
		for _, v := range tags {
			if len(v) > 256 {
				t.Fatalf("a tag's value has %d characters", len(v))
			}
		}
		back, err := recorded(tags)
		if err != nil || fmt.Sprint(back) != fmt.Sprint(has) {
			t.Fatalf("%v %v %v", back, has, err)
		}
	})
	_, err := recorded(map[string]string{"eks-tenant-logs/namespace": "a b", "eks-tenant-logs/namespace-uid": "1"})
	require.ErrorContains(t, err, "do not name as many")
}

// Whoever claims a tenant, nobody but those on record, and those the file lists, ever has it
// once there is a record.
func TestNobodyGetsATenantBesideItsRecordAndTheFile(t *testing.T) {
	in := installation(t, "c1")
	rapid.Check(t, func(t *rapid.T) {
		pool := []string{"a", "b", "c", "d"}
		draw := func(name string) (out []Namespace) {
			for _, n := range rapid.SliceOfDistinct(rapid.SampledFrom(pool), rapid.ID).Draw(t, name) {
				out = append(out, Namespace{n, rapid.SampledFrom([]string{"1", "2"}).Draw(t, "uid")})
			}
			return out
		}
		before, claimants := draw("record"), draw("claimants")
		x := Tenant{Name: "acme", Namespaces: claimants}
		listed := rapid.SliceOfDistinct(rapid.SampledFrom(pool), rapid.ID).Draw(t, "listed")
		if len(listed) > 0 {
			x.Settings = &tenancy.Tenant{Name: "acme", Namespaces: listed}
		}
		tags := in.tags("acme")
		maps.Copy(tags, recordTags(before))
		has := map[string]string{}
		for _, n := range before {
			has[n.Name] = n.UID
		}
		c := judge(x, tags, nil, true, in)
		for _, g := range c.granted {
			uid, known := has[g.Name]
			file := strings.Contains(" "+strings.Join(listed, " ")+" ", " "+g.Name+" ")
			switch {
			case len(claimants) == 0:
			case known && uid != g.UID:
				t.Fatalf("%v was made anew, and has the tenant: %+v", g, c)
			case !known && len(before) > 0 && !file:
				t.Fatalf("%v has another's tenant: %+v", g, c)
			}
		}
		if len(claimants) > 0 && len(c.granted)+len(c.refused) != len(claimants) {
			t.Fatalf("each claimant is granted or refused: %+v", c)
		}
	})
}
