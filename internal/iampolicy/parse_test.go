package iampolicy

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhatIsNoPolicyIsRefusedByName(t *testing.T) {
	statement := func(s string) string { return `{"Version":"2012-10-17","Statement":[{` + s + `}]}` }
	for text, says := range map[string]string{
		``:                         "no JSON",
		`[]`:                       "no JSON object",
		`{"Statement":[]} {}`:      "something follows",
		`{"Version":"2012-10-17"}`: "no Statement",
		`{"Statement":[]}`:         "neither a statement nor a list",
		`{"Version":"2013","Statement":{"Effect":"Allow","Action":"*"}}`:                               `use "2012-10-17"`,
		`{"Statements":{"Effect":"Allow","Action":"*"}}`:                                               `"Statements"`,
		`{"Statement":[{"Effect":"Allow","Effect":"Deny","Action":"*"}]}`:                              `"Effect" stands twice`,
		statement(`"Action":"*"`):                                                                      "no Effect",
		statement(`"Effect":"allow","Action":"*"`):                                                     "use Allow or Deny",
		statement(`"Effect":"Allow"`):                                                                  "no Action",
		statement(`"Effect":"Allow","Action":[]`):                                                      "the list is empty",
		statement(`"Effect":"Allow","Action":1`):                                                       "1 is no string",
		statement(`"Effect":"Allow","Action":"*","NotAction":"*"`):                                     "both Action and NotAction",
		statement(`"Effect":"Allow","Action":"*","Resource":"*","NotResource":"*"`):                    "both Resource and NotResource",
		statement(`"Effect":"Allow","Action":"logs"`):                                                  "service:Operation",
		statement(`"Effect":"Allow","Action":"l*:Get"`):                                                "service:Operation",
		statement(`"Effect":"Allow","Action":"*","Resource":"/eks"`):                                   "neither an ARN nor *",
		statement(`"Effect":"Allow","Action":"*","Resource":"arn:aws:s3"`):                             "neither an ARN nor *",
		statement(`"Effect":"Allow","Action":"*","Resource":"arn:a:b:c:d:${"`):                         "${key}",
		statement(`"Effect":"Allow","Action":"*","resource":"*"`):                                      `"resource"`,
		statement(`"Effect":"Allow","Action":"*","Principal":"me"`):                                    "a map such as",
		statement(`"Effect":"Allow","Action":"*","Principal":{"Role":"x"}`):                            "use AWS, Service",
		statement(`"Effect":"Allow","Action":"*","NotPrincipal":{"AWS":"x"}`):                          "everybody else",
		statement(`"Effect":"Allow","Action":"*","Condition":{"StringMatches":{"a":"b"}}`):             `"StringMatches" is not known`,
		statement(`"Effect":"Allow","Action":"*","Condition":{"StringEquals":"b"}`):                    "no map of keys",
		statement(`"Effect":"Allow","Action":"*","Condition":{"StringEquals":{"a":[]}}`):               "the list is empty",
		statement(`"Effect":"Allow","Action":"*","Condition":{"StringEquals":{"a":null}}`):             "no string",
		statement(`"Effect":"Allow","Action":"*","Condition":{"NumericEquals":{"a":"b"}}`):             "no number",
		statement(`"Effect":"Allow","Action":"*","Condition":{"DateEquals":{"a":"b"}}`):                "no date",
		statement(`"Effect":"Allow","Action":"*","Condition":{"IpAddress":{"a":"b"}}`):                 "no address",
		statement(`"Effect":"Allow","Action":"*","Condition":{"Bool":{"a":"yes"}}`):                    "true or false",
		statement(`"Effect":"Allow","Action":"*","Condition":{"NullIfExists":{"a":"true"}}`):           "stands alone",
		statement(`"Sid":"a","Effect":"Allow","Action":"*"},{"Sid":"a","Effect":"Allow","Action":"*"`): "another's as well",
		`{"Statement":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`:                    "nested too deeply",
	} {
		_, err := Parse([]byte(text))
		require.ErrorContains(t, err, says, text)
	}
	_, err := Parse([]byte(statement(`"Sid":"first","Effect":"Maybe","Action":"x"`)))
	require.ErrorContains(t, err, "statement 1 (first): Effect")
	require.ErrorContains(t, err, `action "x"`, "all of it together")
}

func TestDocumentsThatMeanTheSameAreEqual(t *testing.T) {
	read := func(s string) *Document {
		d, err := Parse([]byte(s))
		require.NoError(t, err)
		return d
	}
	a := read(`{"Version":"2012-10-17","Statement":[{"Sid":"A","Effect":"Allow","Action":["logs:GetLogEvents","logs:FilterLogEvents"],"Resource":"*","Principal":{"AWS":"111122223333"}},{"Effect":"Deny","Action":"iam:*","Resource":"*","Condition":{"StringEquals":{"aws:PrincipalTag/x":["1","2"]}}}]}`)
	b := read(`{"Version":"2012-10-17","Id":"x","Statement":[{"Effect":"Deny","Action":["IAM:*"],"Resource":["*"],"Condition":{"StringEquals":{"aws:principaltag/x":["2","1"]}}},{"Effect":"Allow","Principal":{"AWS":["arn:aws:iam::111122223333:root"]},"Action":["logs:filterlogevents","logs:getlogevents","logs:GetLogEvents"],"Resource":"*"}]}`)
	require.True(t, Equal(a, b))
	require.False(t, Equal(a, nil))
	require.True(t, Equal(nil, nil))
	for _, other := range []string{
		`{"Statement":{"Effect":"Allow","Action":"a:b","Resource":"*"}}`, // variables are text
		`{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"a:b","Resource":"*"}}`,
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","NotAction":"a:b","Resource":"*"}}`,
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"a:b","Resource":"arn:aws:s3:::B"}}`,
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"a:b","Resource":"*","Principal":"*"}}`,
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"a:b","Resource":"*","Condition":{"Bool":{"a":"true"}}}}`,
	} {
		require.False(t, Equal(read(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"a:b","Resource":"*"}}`), read(other)), other)
	}
}
