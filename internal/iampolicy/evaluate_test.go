package iampolicy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func parsed(t interface {
	require.TestingT
	Helper()
}, statements string) *Document {
	t.Helper()
	d, err := Parse([]byte(`{"Version":"2012-10-17","Statement":[` + statements + `]}`))
	require.NoError(t, err)
	return d
}

const (
	group   = "arn:aws:logs:us-east-1:111122223333:log-group:/eks/tenants/acme"
	role    = "arn:aws:iam::111122223333:role/r"
	session = "arn:aws:sts::111122223333:assumed-role/r/s"
)

func TestStatements(t *testing.T) {
	stream := group + ":log-stream:ns/pod/app"
	for name, test := range map[string]struct {
		statement, action, resource string
		context                     map[string][]string
		allowed                     bool
	}{
		"an action, whatever its case":                    {`"Action":"LOGS:getLogEvents","Resource":"*"`, "logs:GetLogEvents", stream, nil, true},
		"another action":                                  {`"Action":"logs:GetLogEvents","Resource":"*"`, "logs:PutLogEvents", stream, nil, false},
		"a wildcard in an action":                         {`"Action":"logs:Get*","Resource":"*"`, "logs:GetLogEvents", stream, nil, true},
		"a question mark in an action":                    {`"Action":"logs:GetLogEvent?","Resource":"*"`, "logs:GetLogEvents", stream, nil, true},
		"all actions":                                     {`"Action":"*","Resource":"*"`, "iam:CreateRole", role, nil, true},
		"all but an action":                               {`"NotAction":"logs:*","Resource":"*"`, "logs:GetLogEvents", stream, nil, false},
		"all but an action, another":                      {`"NotAction":"iam:*","Resource":"*"`, "logs:GetLogEvents", stream, nil, true},
		"all but a resource":                              {`"Action":"*","NotResource":"` + group + `:*"`, "logs:GetLogEvents", stream, nil, false},
		"all but another's resource":                      {`"Action":"*","NotResource":"` + group + `-corp:*"`, "logs:GetLogEvents", stream, nil, true},
		"the streams of a group":                          {`"Action":"*","Resource":"` + group + `:*"`, "logs:GetLogEvents", stream, nil, true},
		"not those of a longer name":                      {`"Action":"*","Resource":"` + group + `:*"`, "logs:GetLogEvents", group + "-corp:log-stream:s", nil, false},
		"an open end takes a longer name in":              {`"Action":"*","Resource":"` + group + `*"`, "logs:GetLogEvents", group + "-corp:log-stream:s", nil, true},
		"the bare ARN is not the group's inside":          {`"Action":"*","Resource":"` + group + `"`, "logs:GetLogEvents", stream, nil, false},
		"resources tell cases apart":                      {`"Action":"*","Resource":"` + group + `:*"`, "logs:GetLogEvents", strings.ToUpper(stream[:3]) + stream[3:], nil, false},
		"a wildcard stays within its part of an ARN":      {`"Action":"*","Resource":"arn:aws:logs:us*33:a:b:c"`, "logs:GetLogEvents", "arn:aws:logs:us-east-1:111122223333:a:b:c", nil, false},
		"the last part has colons":                        {`"Action":"*","Resource":"arn:aws:logs:*:*:*"`, "logs:GetLogEvents", stream, nil, true},
		"another partition":                               {`"Action":"*","Resource":"arn:aws:logs:*:*:*"`, "logs:GetLogEvents", strings.Replace(stream, "aws", "aws-us-gov", 1), nil, false},
		"a variable":                                      {`"Action":"*","Resource":"arn:aws:logs:us-east-1:111122223333:log-group:/eks/tenants/${aws:PrincipalTag/tenant}:*"`, "logs:GetLogEvents", stream, map[string][]string{"aws:principaltag/tenant": {"acme"}}, true},
		"a variable that is not there":                    {`"Action":"*","Resource":"arn:aws:logs:us-east-1:111122223333:log-group:/eks/tenants/${aws:PrincipalTag/tenant}*"`, "logs:GetLogEvents", stream, nil, false},
		"a variable with two values":                      {`"Action":"*","Resource":"arn:aws:logs:us-east-1:111122223333:log-group:/eks/tenants/${k}:*"`, "logs:GetLogEvents", stream, map[string][]string{"k": {"acme", "b"}}, false},
		"a variable's default":                            {`"Action":"*","Resource":"arn:aws:logs:us-east-1:111122223333:log-group:/eks/tenants/${k, 'acme'}:*"`, "logs:GetLogEvents", stream, nil, true},
		"a wildcard from a variable is none":              {`"Action":"*","Resource":"arn:aws:logs:us-east-1:111122223333:log-group:/eks/tenants/${k}:*"`, "logs:GetLogEvents", stream, map[string][]string{"k": {"*"}}, false},
		"an escaped wildcard is none":                     {`"Action":"*","Resource":"arn:aws:logs:us-east-1:111122223333:log-group:/eks/tenants/${*}:*"`, "logs:GetLogEvents", stream, nil, false},
		"StringEquals":                                    {`"Action":"*","Resource":"*","Condition":{"StringEquals":{"aws:ResourceTag/a":["x","y"]}}`, "a:b", "*", map[string][]string{"aws:resourcetag/a": {"y"}}, true},
		"StringEquals knows no wildcard":                  {`"Action":"*","Resource":"*","Condition":{"StringEquals":{"k":"a*"}}`, "a:b", "*", map[string][]string{"k": {"ab"}}, false},
		"StringEquals without the key":                    {`"Action":"*","Resource":"*","Condition":{"StringEquals":{"k":"a"}}`, "a:b", "*", nil, false},
		"StringEqualsIfExists without the key":            {`"Action":"*","Resource":"*","Condition":{"StringEqualsIfExists":{"k":"a"}}`, "a:b", "*", nil, true},
		"StringEqualsIfExists with another":               {`"Action":"*","Resource":"*","Condition":{"StringEqualsIfExists":{"k":"a"}}`, "a:b", "*", map[string][]string{"k": {"b"}}, false},
		"StringNotEquals without the key":                 {`"Action":"*","Resource":"*","Condition":{"StringNotEquals":{"k":"a"}}`, "a:b", "*", nil, true},
		"StringNotEquals of several values is of all":     {`"Action":"*","Resource":"*","Condition":{"StringNotEquals":{"k":["a","b"]}}`, "a:b", "*", map[string][]string{"k": {"b"}}, false},
		"StringEqualsIgnoreCase":                          {`"Action":"*","Resource":"*","Condition":{"StringEqualsIgnoreCase":{"k":"AbC"}}`, "a:b", "*", map[string][]string{"k": {"aBc"}}, true},
		"StringLike":                                      {`"Action":"*","Resource":"*","Condition":{"StringLike":{"k":"a*c?"}}`, "a:b", "*", map[string][]string{"k": {"abcd"}}, true},
		"StringNotLike":                                   {`"Action":"*","Resource":"*","Condition":{"StringNotLike":{"k":"a*"}}`, "a:b", "*", map[string][]string{"k": {"abcd"}}, false},
		"a variable in a condition":                       {`"Action":"*","Resource":"*","Condition":{"StringEquals":{"k":"${l}"}}`, "a:b", "*", map[string][]string{"k": {"x"}, "l": {"x"}}, true},
		"ArnLike, part by part":                           {`"Action":"*","Resource":"*","Condition":{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*:role/a*"}}`, "a:b", "*", map[string][]string{"aws:principalarn": {"arn:aws:iam::1:role/abc"}}, true},
		"ArnLike does not cross a colon":                  {`"Action":"*","Resource":"*","Condition":{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam:*:role/a"}}`, "a:b", "*", map[string][]string{"aws:principalarn": {"arn:aws:iam::1:role/a"}}, false},
		"NumericLessThan":                                 {`"Action":"*","Resource":"*","Condition":{"NumericLessThan":{"k":10}}`, "a:b", "*", map[string][]string{"k": {"9"}}, true},
		"NumericLessThan of no number":                    {`"Action":"*","Resource":"*","Condition":{"NumericLessThan":{"k":10}}`, "a:b", "*", map[string][]string{"k": {"nine"}}, false},
		"DateGreaterThan":                                 {`"Action":"*","Resource":"*","Condition":{"DateGreaterThan":{"k":"2026-01-01T00:00:00Z"}}`, "a:b", "*", map[string][]string{"k": {"2026-01-02T00:00:00Z"}}, true},
		"Bool":                                            {`"Action":"*","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":true}}`, "a:b", "*", map[string][]string{"aws:securetransport": {"true"}}, true},
		"IpAddress":                                       {`"Action":"*","Resource":"*","Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}`, "a:b", "*", map[string][]string{"aws:sourceip": {"10.1.2.3"}}, true},
		"NotIpAddress":                                    {`"Action":"*","Resource":"*","Condition":{"NotIpAddress":{"aws:SourceIp":"10.0.0.0/8"}}`, "a:b", "*", map[string][]string{"aws:sourceip": {"10.1.2.3"}}, false},
		"Null true, and it is there":                      {`"Action":"*","Resource":"*","Condition":{"Null":{"k":"true"}}`, "a:b", "*", map[string][]string{"k": {"x"}}, false},
		"Null true, and it is not":                        {`"Action":"*","Resource":"*","Condition":{"Null":{"k":true}}`, "a:b", "*", nil, true},
		"Null false, and it is there":                     {`"Action":"*","Resource":"*","Condition":{"Null":{"k":"false"}}`, "a:b", "*", map[string][]string{"k": {"x"}}, true},
		"ForAllValues, all":                               {`"Action":"*","Resource":"*","Condition":{"ForAllValues:StringEquals":{"k":["a","b"]}}`, "a:b", "*", map[string][]string{"k": {"a", "b"}}, true},
		"ForAllValues, one is another":                    {`"Action":"*","Resource":"*","Condition":{"ForAllValues:StringEquals":{"k":["a","b"]}}`, "a:b", "*", map[string][]string{"k": {"a", "c"}}, false},
		"ForAllValues without the key":                    {`"Action":"*","Resource":"*","Condition":{"ForAllValues:StringEquals":{"k":"a"}}`, "a:b", "*", nil, true},
		"ForAnyValue, one":                                {`"Action":"*","Resource":"*","Condition":{"ForAnyValue:StringEquals":{"k":"a"}}`, "a:b", "*", map[string][]string{"k": {"a", "c"}}, true},
		"ForAnyValue without the key":                     {`"Action":"*","Resource":"*","Condition":{"ForAnyValue:StringEquals":{"k":"a"}}`, "a:b", "*", nil, false},
		"ForAnyValue:StringNotEquals, one of them is not": {`"Action":"*","Resource":"*","Condition":{"ForAnyValue:StringNotEquals":{"k":"a"}}`, "a:b", "*", map[string][]string{"k": {"a", "c"}}, true},
		"two conditions, one holds":                       {`"Action":"*","Resource":"*","Condition":{"StringEquals":{"k":"a"},"Bool":{"l":"true"}}`, "a:b", "*", map[string][]string{"k": {"a"}}, false},
		"two keys of an operator, one holds":              {`"Action":"*","Resource":"*","Condition":{"StringEquals":{"k":"a","l":"b"}}`, "a:b", "*", map[string][]string{"k": {"a"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := Request{Action: test.action, Resource: test.resource, Principal: Principal{ARN: role, Account: "111122223333"}, Context: test.context}
			allowing := Evaluate(r, Policies{Identity: []*Document{parsed(t, `{"Effect":"Allow",`+test.statement+`}`)}, SameAccount: true})
			require.Equal(t, test.allowed, allowing.Allowed, allowing.By)
			require.False(t, allowing.Explicit)
			denying := Evaluate(r, Policies{Identity: []*Document{parsed(t, `{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny",`+test.statement+`}`)}, SameAccount: true})
			require.Equal(t, !test.allowed, denying.Allowed, denying.By)
			require.Equal(t, test.allowed, denying.Explicit)
		})
	}
}

func TestVariablesAreOfTheNewerLanguage(t *testing.T) {
	d, err := Parse([]byte(`{"Statement":{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::${aws:username}"}}`))
	require.NoError(t, err)
	r := Request{Action: "s3:GetObject", Resource: "arn:aws:s3:::x", Context: map[string][]string{"aws:username": {"x"}}}
	require.False(t, Evaluate(r, Policies{Identity: []*Document{d}, SameAccount: true}).Allowed)
	r.Resource = "arn:aws:s3:::${aws:username}"
	require.True(t, Evaluate(r, Policies{Identity: []*Document{d}, SameAccount: true}).Allowed)
}

// The cases of IAM's "Policy evaluation logic", and of its page on boundaries and resource
// policies.
func TestKindsOfPolicies(t *testing.T) {
	const (
		all     = `{"Effect":"Allow","Action":"*","Resource":"*"}`
		none    = `{"Effect":"Allow","Action":"x:y","Resource":"*"}`
		refuses = `{"Effect":"Deny","Action":"*","Resource":"*"}`
	)
	by := func(principal string) string {
		return `{"Effect":"Allow","Principal":` + principal + `,"Action":"*","Resource":"*"}`
	}
	names := func(arn string) string { return by(`{"AWS":"` + arn + `"}`) }
	const account, other = "arn:aws:iam::111122223333:root", "arn:aws:iam::444455556666:role/x"
	for name, test := range map[string]struct {
		identity, boundary, session, resource string
		same, required                        bool
		allowed, explicit                     bool
	}{
		"nothing says anything":                         {same: true},
		"the identity's policy alone":                   {identity: all, same: true, allowed: true},
		"a boundary is no permission":                   {boundary: all, same: true},
		"a boundary that leaves it out":                 {identity: all, boundary: none, same: true},
		"a boundary that has it":                        {identity: all, boundary: all, same: true, allowed: true},
		"a session's policy that leaves it out":         {identity: all, session: none, same: true},
		"all three have it":                             {identity: all, boundary: all, session: all, same: true, allowed: true},
		"a Deny in the identity's":                      {identity: all + "," + refuses, same: true, explicit: true},
		"a Deny in the boundary":                        {identity: all, boundary: all + "," + refuses, same: true, explicit: true},
		"a Deny in the session's":                       {identity: all, session: all + "," + refuses, same: true, explicit: true},
		"a Deny in the resource's":                      {identity: all, resource: `{"Effect":"Deny","Principal":"*","Action":"*","Resource":"*"}`, same: true, explicit: true},
		"a resource's Deny of somebody else":            {identity: all, resource: `{"Effect":"Deny","Principal":{"AWS":"` + other + `"},"Action":"*","Resource":"*"}`, same: true, allowed: true},
		"the resource's names the role":                 {resource: names(role), same: true, allowed: true},
		"the same, and the boundary leaves it out":      {resource: names(role), boundary: none, same: true},
		"the same, and the session's leaves it out":     {resource: names(role), session: none, same: true},
		"the resource's names the session":              {resource: names(session), boundary: none, session: none, same: true, allowed: true},
		"the same, and the boundary denies":             {resource: names(session), boundary: refuses, same: true, explicit: true},
		"the resource's names the account":              {resource: names(account), same: true},
		"the resource's names the account by its id":    {resource: names("111122223333"), same: true},
		"the account, whose policies allow":             {resource: names(account), identity: all, same: true, allowed: true},
		"the resource's names everybody":                {resource: by(`"*"`), same: true, allowed: true},
		"the resource's names somebody else":            {resource: names(other), same: true},
		"a resource's statement without a principal":    {resource: all, same: true},
		"across accounts, the resource's alone":         {resource: names(role)},
		"across accounts, the identity's alone":         {identity: all, resource: names(other)},
		"across accounts, both":                         {identity: all, resource: names(role), allowed: true},
		"across accounts, the account and the identity": {identity: all, resource: names(account), allowed: true},
		"across accounts, a boundary leaves it out":     {identity: all, boundary: none, resource: names(role)},
		"a key that trusts the account, identity too":   {identity: all, resource: names(account), same: true, required: true, allowed: true},
		"a key that trusts the account alone":           {resource: names(account), same: true, required: true},
		"a key that names the role":                     {resource: names(role), same: true, required: true, allowed: true},
		"a key that trusts nobody here":                 {identity: all, resource: names(other), same: true, required: true},
		"a key with no policy":                          {identity: all, same: true, required: true},
		"NotPrincipal of another denies":                {identity: all, resource: `{"Effect":"Deny","NotPrincipal":{"AWS":"` + other + `"},"Action":"*","Resource":"*"}`, same: true, explicit: true},
		"NotPrincipal of oneself does not":              {identity: all, resource: `{"Effect":"Deny","NotPrincipal":{"AWS":"` + role + `"},"Action":"*","Resource":"*"}`, same: true, allowed: true},
	} {
		t.Run(name, func(t *testing.T) {
			list := func(s string) []*Document {
				if s == "" {
					return nil
				}
				return []*Document{parsed(t, s)}
			}
			p := Policies{Identity: list(test.identity), Session: list(test.session), Resource: list(test.resource), SameAccount: test.same, Required: test.required}
			if test.boundary != "" {
				p.Boundary = parsed(t, test.boundary)
			}
			d := Evaluate(Request{Action: "logs:GetLogEvents", Resource: group, Principal: Principal{ARN: role, Session: session, Account: "111122223333"}}, p)
			require.Equal(t, test.allowed, d.Allowed, d.By)
			require.Equal(t, test.explicit, d.Explicit, d.By)
			require.NotEmpty(t, d.By)
		})
	}
}

// Who is known by the session alone is the role that a resource's policy names, whatever the role's path.
func TestASessionIsItsRole(t *testing.T) {
	for named, want := range map[string]bool{
		role: true, "arn:aws:iam::111122223333:role/a/path/r": true, session: true,
		"arn:aws:iam::111122223333:role/r2": false, "arn:aws:iam::111122223333:role/r/s": false, "arn:aws:iam::444455556666:role/r": false,
		"arn:aws-cn:iam::111122223333:role/r": false, "arn:aws:iam::111122223333:user/r": false, "arn:aws:sts::111122223333:assumed-role/r/t": false,
	} {
		trust := parsed(t, `{"Effect":"Allow","Principal":{"AWS":"`+named+`"},"Action":"sts:AssumeRole"}`)
		d := Evaluate(Request{Action: "sts:AssumeRole", Resource: role + "2", Principal: Principal{ARN: session, Account: "111122223333"}}, Policies{Resource: []*Document{trust}, SameAccount: true, Required: true})
		require.Equal(t, want, d.Allowed, "%s: %s", named, d.By)
	}
}

func TestServicesAndProvidersAreNamedByTheResource(t *testing.T) {
	trust := parsed(t, `{"Effect":"Allow","Principal":{"Service":"pods.eks.amazonaws.com"},"Action":"sts:AssumeRole"},
		{"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::111122223333:oidc-provider/p"},"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{"p:sub":"a"}}}`)
	ask := func(r Request) bool {
		return Evaluate(r, Policies{Resource: []*Document{trust}, Required: true}).Allowed
	}
	require.True(t, ask(Request{Action: "sts:AssumeRole", Resource: role, Principal: Principal{Service: "pods.eks.amazonaws.com"}}))
	require.False(t, ask(Request{Action: "sts:AssumeRole", Resource: role, Principal: Principal{Service: "ec2.amazonaws.com"}}))
	web := Request{Action: "sts:AssumeRoleWithWebIdentity", Resource: role, Principal: Principal{Federated: "arn:aws:iam::111122223333:oidc-provider/p"}, Context: map[string][]string{"p:sub": {"a"}}}
	require.True(t, ask(web))
	web.Context["p:sub"] = []string{"b"}
	require.False(t, ask(web))
}

// some draws documents and requests over so few words that they meet.
func drawWord(t *rapid.T, name string) string {
	return rapid.SampledFrom([]string{"a", "b", "ab", "*", "a*", "?", "${k}"}).Draw(t, name)
}

func drawDocument(t *rapid.T, resource bool) *Document {
	d := &Document{Version: Version}
	for range rapid.IntRange(0, 3).Draw(t, "statements") {
		d.Statements = append(d.Statements, drawStatement(t, resource))
	}
	return d
}

func drawStatement(t *rapid.T, resource bool) Statement {
	s := Statement{Effect: rapid.SampledFrom([]Effect{Allow, Deny}).Draw(t, "effect")}
	actions := []string{"s:" + strings.ReplaceAll(drawWord(t, "action"), "${k}", "k")}
	if rapid.Bool().Draw(t, "not action") {
		s.NotActions = actions
	} else {
		s.Actions = actions
	}
	resources := []string{"arn:aws:s:r:1:" + drawWord(t, "resource")}
	if rapid.Bool().Draw(t, "not resource") {
		s.NotResources = resources
	} else {
		s.Resources = resources
	}
	if rapid.Bool().Draw(t, "conditional") {
		operator := rapid.SampledFrom([]string{"StringEquals", "StringNotEquals", "StringLike", "StringEqualsIfExists", "ForAllValues:StringLike", "ForAnyValue:StringEquals", "ArnNotLike"}).Draw(t, "operator")
		s.Conditions = []Condition{{Operator: operator, Key: rapid.SampledFrom([]string{"k", "l"}).Draw(t, "key"), Values: []string{drawWord(t, "value")}}}
	}
	if resource {
		s.Principal = rapid.SampledFrom([]*Principals{{Any: true}, {AWS: []string{role}}, {AWS: []string{session}}, {AWS: []string{"111122223333"}}, {AWS: []string{"444455556666"}}}).Draw(t, "principal")
	}
	return s
}

func drawRequest(t *rapid.T) Request {
	r := Request{
		Action: "s:" + rapid.SampledFrom([]string{"a", "b", "ab"}).Draw(t, "action"), Resource: "arn:aws:s:r:1:" + rapid.SampledFrom([]string{"a", "b", "ab"}).Draw(t, "resource"),
		Principal: Principal{ARN: role, Session: session, Account: "111122223333"}, Context: map[string][]string{},
	}
	for _, k := range []string{"k", "l"} {
		if v := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b"}), 0, 2).Draw(t, k); len(v) > 0 {
			r.Context[k] = v
		}
	}
	return r
}

func drawPolicies(t *rapid.T) Policies {
	p := Policies{SameAccount: rapid.Bool().Draw(t, "same account"), Required: rapid.Bool().Draw(t, "required")}
	for range rapid.IntRange(0, 2).Draw(t, "identity policies") {
		p.Identity = append(p.Identity, drawDocument(t, false))
	}
	if rapid.Bool().Draw(t, "boundary") {
		p.Boundary = drawDocument(t, false)
	}
	if rapid.Bool().Draw(t, "session") {
		p.Session = []*Document{drawDocument(t, false)}
	}
	if rapid.Bool().Draw(t, "resource's") {
		p.Resource = []*Document{drawDocument(t, true)}
	}
	return p
}

func TestPropertiesOfDecisions(t *testing.T) {
	allowed, denied := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		r, p := drawRequest(t), drawPolicies(t)
		if rapid.Bool().Draw(t, "something is allowed") {
			// Else most draws would end at the first policy that says nothing.
			anything := Statement{Effect: Allow, Actions: []string{r.Action}, Resources: []string{"*"}}
			p.Identity = append(p.Identity, &Document{Version: Version, Statements: []Statement{anything}})
			if p.Boundary != nil {
				p.Boundary.Statements = append(p.Boundary.Statements, anything)
			}
			p.SameAccount, p.Required = true, false
		}
		d := Evaluate(r, p)
		if d.Allowed {
			allowed++
		}
		if d.Explicit {
			denied++
		}
		if d.Allowed && d.Explicit || d.By == "" {
			t.Fatalf("%+v", d)
		}
		everything := Statement{Effect: Allow, Actions: []string{"*"}, Resources: []string{"*"}}
		with := func(docs []*Document, s Statement) []*Document {
			return append(slices.Clone(docs), &Document{Version: Version, Statements: []Statement{s}})
		}
		// An explicit Deny wins, wherever it stands.
		for _, q := range []Policies{
			{Identity: with(p.Identity, Statement{Effect: Deny, Actions: []string{"*"}, Resources: []string{"*"}}), Boundary: p.Boundary, Session: p.Session, Resource: p.Resource, SameAccount: p.SameAccount},
			{Identity: p.Identity, Boundary: p.Boundary, Session: p.Session, Resource: with(p.Resource, Statement{Effect: Deny, Principal: &Principals{Any: true}, Actions: []string{"*"}, Resources: []string{"*"}}), SameAccount: p.SameAccount},
		} {
			if x := Evaluate(r, q); x.Allowed || !x.Explicit {
				t.Fatalf("a Deny did not win: %+v", x)
			}
		}
		// Another Allow takes nothing away.
		more := p
		more.Identity = with(p.Identity, drawStatement(t, false))
		if s := &more.Identity[len(more.Identity)-1].Statements[0]; true {
			s.Effect = Allow
		}
		if d.Allowed && !Evaluate(r, more).Allowed {
			t.Fatalf("an Allow took access away: %+v", more)
		}
		// A boundary and a session's policies only narrow.
		wide := p
		wide.Boundary = nil
		if d.Allowed && !Evaluate(r, wide).Allowed {
			t.Fatalf("a boundary gave access")
		}
		wide = p
		wide.Session = nil
		if d.Allowed && !Evaluate(r, wide).Allowed {
			t.Fatalf("a session's policy gave access")
		}
		wide.Boundary, wide.Session = &Document{Statements: []Statement{everything}}, []*Document{{Statements: []Statement{everything}}}
		bare := p
		bare.Boundary, bare.Session = nil, nil
		if Evaluate(r, wide).Allowed != Evaluate(r, bare).Allowed {
			t.Fatalf("a boundary that has everything is none")
		}
		// The order of statements and documents does not count.
		turned := p
		turned.Identity = nil
		for _, doc := range slices.Backward(p.Identity) {
			x := *doc
			x.Statements = slices.Clone(x.Statements)
			slices.Reverse(x.Statements)
			turned.Identity = append(turned.Identity, &x)
		}
		if x := Evaluate(r, turned); x.Allowed != d.Allowed || x.Explicit != d.Explicit {
			t.Fatalf("order counts: %+v, %+v", d, x)
		}
		// What is written is read back as it was.
		for _, doc := range p.Identity {
			if len(doc.Statements) == 0 {
				continue
			}
			text, err := doc.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			back, err := Parse(text)
			if err != nil || !Equal(doc, back) {
				t.Fatalf("%s: %v", text, err)
			}
		}
	})
	if allowed == 0 || denied == 0 {
		t.Errorf("%d allowed, %d denied: nothing was tried", allowed, denied)
	}
}

func TestWildcardsTakeNoLongForAnyPattern(t *testing.T) {
	pattern := plain(strings.Repeat("a*", 2000)+"b", true)
	require.False(t, matches(pattern, strings.Repeat("a", 5000)))
	require.True(t, matches(pattern, strings.Repeat("a", 5000)+"b"))
}

func FuzzDecide(f *testing.F) {
	f.Add(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"logs:*","Resource":"arn:aws:logs:*:*:${aws:PrincipalTag/t}*"}}`, "logs:GetLogEvents", group, "acme")
	f.Add(`{"Statement":[{"Effect":"Deny","NotAction":"*","NotResource":"*","Condition":{"ForAllValues:StringLike":{"a":["${*}","${a, 'b'}"]}}}]}`, "a:b", "*", "")
	f.Add(`{"Statement":{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole","Condition":{"Null":{"a":true},"NumericLessThan":{"a":5},"IpAddress":{"a":"::/0"},"DateEquals":{"a":0}}}}`, "sts:AssumeRole", "*", "5")
	f.Fuzz(func(t *testing.T, document, action, resource, tag string) {
		d, err := Parse([]byte(document))
		if err != nil {
			return
		}
		text, err := d.MarshalJSON()
		require.NoError(t, err)
		back, err := Parse(text)
		require.NoError(t, err, "%s", text)
		require.True(t, Equal(d, back), "%s", text)
		r := Request{Action: action, Resource: resource, Principal: Principal{ARN: role, Account: "111122223333"}, Context: map[string][]string{"aws:principaltag/t": {tag}, "a": {tag, action}}}
		for _, p := range []Policies{
			{Identity: []*Document{d}}, {Identity: []*Document{d}, Boundary: d}, {Resource: []*Document{d}, SameAccount: true}, {Resource: []*Document{d}, Required: true},
		} {
			x, y := Evaluate(r, p), Evaluate(r, p)
			require.Equal(t, x, y)
			require.False(t, x.Allowed && x.Explicit, fmt.Sprint(x))
		}
	})
}

// Across accounts both sides must allow it: where a resource has no policy, its account allows nothing.
func TestNoOtherAccountsResourceIsReachedWithoutItsPolicy(t *testing.T) {
	all := parsed(t, `{"Effect":"Allow","Action":"*","Resource":"*"}`)
	r := Request{Action: "logs:GetLogEvents", Resource: "arn:aws:logs:us-east-1:444455556666:log-group:/eks/tenants/acme:log-stream:x", Principal: Principal{ARN: role, Account: "111122223333"}}
	require.False(t, Evaluate(r, Policies{Identity: []*Document{all}}).Allowed)
	require.True(t, Evaluate(r, Policies{Identity: []*Document{all}, SameAccount: true}).Allowed)
}
