package fakeaws

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseQueryRefuses(t *testing.T) {
	for name, encoded := range map[string]string{
		"a name given twice": "Action=GetRole&Action=GetRole",
		"a broken escape":    "Action=%zz",
		"a semicolon":        "Action=GetRole;Version=1",
		"a flood":            strings.Repeat("a=&", maxParameters),
	} {
		_, err := parseQuery(encoded)
		require.Error(t, err, name)
	}
}

func TestDecodeQueryRefuses(t *testing.T) {
	for name, encoded := range map[string]string{
		"a parameter the action has not": "RoleName=r&Nonsense=1",
		"another case":                   "roleName=r",
		"a gap in a list":                "Tags.member.2.Key=k",
		"a list that begins with zero":   "Tags.member.0.Key=k",
		"a list that is a word":          "Tags=x",
		"an element of a list too much":  "Tags.member.1.Else=x",
		"a number that is none":          "MaxSessionDuration=1h",
		"a structure as a word":          "Tags.member.1=k",
	} {
		form, err := parseQuery(encoded)
		require.NoError(t, err, name)
		require.Error(t, decodeQuery(form, new(createRole), false), name)
	}
	form, err := parseQuery("RoleName=r&Nonsense=1&Tags=")
	require.NoError(t, err)
	in := new(createRole)
	require.NoError(t, decodeQuery(form, in, true))
	require.Equal(t, "r", *in.Role)
	require.NotNil(t, in.Tags)
	require.Empty(t, in.Tags)
}

func FuzzQuery(f *testing.F) {
	f.Add("Action=CreateRole&Version=2010-05-08&RoleName=r&Path=%2Fp%2F&Tags.member.1.Key=k&Tags.member.1.Value=v&MaxSessionDuration=3600")
	f.Add("Action=SimulatePrincipalPolicy&Version=2010-05-08&ActionNames.member.1=a&ContextEntries.member.1.ContextKeyValues.member.1=v")
	f.Add("Tags.member.1.Key=&Tags.member.3.Key=")
	s := New(Config{})
	f.Fuzz(func(t *testing.T, encoded string) {
		form, err := parseQuery(encoded)
		if err != nil {
			return
		}
		for action, op := range queryOperations {
			in, err := op.decode(form, false)
			if err != nil {
				continue
			}
			// What is taken strictly is taken leniently too, and what it is about can be told whatever is missing.
			if _, err := op.decode(form, true); err != nil {
				t.Fatalf("%s: %v", action, err)
			}
			in.about(&Call{})
			in.asks(s.home)
		}
	})
}
