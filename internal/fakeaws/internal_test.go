package fakeaws

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestParseAuthorizationRefuses(t *testing.T) {
	signature := strings.Repeat("0a", 32)
	good := "AWS4-HMAC-SHA256 Credential=AK/20260102/us-east-1/logs/aws4_request, SignedHeaders=host;x-amz-date, Signature=" + signature
	a, err := parseAuthorization(good)
	require.Nil(t, err)
	require.Equal(t, authorization{"AK", "20260102", "us-east-1", "logs", []string{"host", "x-amz-date"}, signature}, a)
	for name, change := range map[string][2]string{
		"no credential":         {"Credential=AK/20260102/us-east-1/logs/aws4_request, ", ""},
		"a part twice":          {"SignedHeaders=host;x-amz-date", "SignedHeaders=host, SignedHeaders=x-amz-date"},
		"an unknown part":       {"Signature=", "Sig=1, Signature="},
		"a short scope":         {"/us-east-1", ""},
		"an empty region":       {"us-east-1", ""},
		"another terminator":    {"aws4_request", "aws3_request"},
		"a bad date":            {"20260102", "2026010x"},
		"unsorted headers":      {"host;x-amz-date", "x-amz-date;host"},
		"a header twice":        {"host;x-amz-date", "host;host"},
		"an upper-case header":  {"host", "Host"},
		"no header":             {"host;x-amz-date", ""},
		"a signature not hex":   {signature, strings.Repeat("zz", 32)},
		"an upper-case one":     {signature, strings.Repeat("AA", 32)},
		"a part without equals": {"Signature=", "Signature"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := strings.Replace(good, change[0], change[1], 1)
			require.NotEqual(t, good, changed)
			_, err := parseAuthorization(changed)
			require.NotNil(t, err)
			require.Equal(t, codeIncomplete, err.Code)
		})
	}
}

func FuzzParseAuthorization(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=AK/20260102/us-east-1/logs/aws4_request, SignedHeaders=host;x-amz-date, Signature=" + strings.Repeat("0a", 32))
	f.Add("AWS4-HMAC-SHA256 Credential=,SignedHeaders=,Signature=")
	f.Add("")
	f.Fuzz(func(t *testing.T, header string) {
		a, err := parseAuthorization(header)
		if err != nil {
			require.NotEmpty(t, err.Code)
			return
		}
		// What was taken can be written again and means the same.
		again, err := parseAuthorization("AWS4-HMAC-SHA256 Credential=" + a.accessKey + "/" + a.date + "/" + a.region + "/" + a.service +
			"/aws4_request, SignedHeaders=" + strings.Join(a.signedHeaders, ";") + ", Signature=" + a.signature)
		require.Nil(t, err)
		require.Equal(t, a, again)
	})
}

func TestPutLogEventsScanRefuses(t *testing.T) {
	for name, body := range map[string]string{
		"nothing":                     ``,
		"no object":                   `[]`,
		"null":                        `null`,
		"text after the end":          `{} x`,
		"a NUL after the end":         "{}\x00",
		"a trailing comma":            `{"logGroupName":"g",}`,
		"an unknown member":           `{"loggroupname":"g"}`,
		"another case":                `{"LogGroupName":"g"}`,
		"a member twice":              `{"logGroupName":"g","logGroupName":"g"}`,
		"a number for a name":         `{"logGroupName":1}`,
		"an event's unknown member":   `{"logEvents":[{"timestamp":1,"message":"m","x":1}]}`,
		"an event's member twice":     `{"logEvents":[{"timestamp":1,"timestamp":1,"message":"m"}]}`,
		"the same, spelt differently": `{"logEvents":[{"timestamp":1,"\u0074imestamp":1,"message":"m"}]}`,
		"a null event":                `{"logEvents":[null]}`,
		"a fraction":                  `{"logEvents":[{"timestamp":1.0,"message":"m"}]}`,
		"an exponent":                 `{"logEvents":[{"timestamp":1e3,"message":"m"}]}`,
		"a leading zero":              `{"logEvents":[{"timestamp":01,"message":"m"}]}`,
		"a number too large":          `{"logEvents":[{"timestamp":9223372036854775808,"message":"m"}]}`,
		"a text for a number":         `{"logEvents":[{"timestamp":"1","message":"m"}]}`,
		"a message no text":           `{"logEvents":[{"timestamp":1,"message":{}}]}`,
		"a raw control character":     "{\"logEvents\":[{\"timestamp\":1,\"message\":\"a\nb\"}]}",
		"invalid UTF-8":               "{\"logEvents\":[{\"timestamp\":1,\"message\":\"a\xffb\"}]}",
		"a lone high surrogate":       `{"logEvents":[{"timestamp":1,"message":"\ud800"}]}`,
		"a lone low surrogate":        `{"logEvents":[{"timestamp":1,"message":"\udc00"}]}`,
		"two high surrogates":         `{"logEvents":[{"timestamp":1,"message":"\ud800\ud800"}]}`,
		"an unknown escape":           `{"logEvents":[{"timestamp":1,"message":"\x"}]}`,
		"an escape cut short":         `{"logEvents":[{"timestamp":1,"message":"\u12`,
		"an entity's unknown member":  `{"entity":{"x":{}}}`,
		"a trailing comma, event":     `{"logEvents":[{"timestamp":1,"message":"m",}]}`,
		"a trailing comma, list":      `{"logEvents":[{"timestamp":1,"message":"m"},]}`,
	} {
		t.Run(name, func(t *testing.T) {
			require.Error(t, new(putLogEvents).decode([]byte(body), false))
		})
	}
}

func TestPutLogEventsScanReads(t *testing.T) {
	p := new(putLogEvents)
	require.NoError(t, p.decode([]byte(` { "logGroupName" : "g\u002f1" , "sequenceToken":null,
		"entity":{"keyAttributes":{"Type":"Service","Name":"n"},"attributes":null},
		"logEvents":[{"message":"a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é","timestamp":-9223372036854775808},{"\u006dessage":"","timestamp":9223372036854775807} , {}] }`), false))
	require.Equal(t, "g/1", *p.group)
	require.Nil(t, p.stream)
	require.Nil(t, p.token)
	require.Equal(t, &entity{keyAttributes: map[string]string{"Type": "Service", "Name": "n"}}, p.entity)
	require.Len(t, p.records, 3)
	b := batch{text: p.text, records: p.records}
	require.Equal(t, "a\"\\/\b\f\n\r\té😀é", b.message(0))
	require.Equal(t, "", b.message(1))
	require.EqualValues(t, -9223372036854775808, p.records[0].ts)
	require.EqualValues(t, 9223372036854775807, p.records[1].ts)
	require.Equal(t, []int{2, 2, 1, 0}, []int{p.nullTimestamp, p.nullMessage, p.emptyMessage, p.negative})
}

// reference is the same request for encoding/json.
type reference struct {
	Group    *string `json:"logGroupName"`
	Stream   *string `json:"logStreamName"`
	Sequence *string `json:"sequenceToken"`
	Entity   *struct {
		Key map[string]string `json:"keyAttributes"`
		Att map[string]string `json:"attributes"`
	} `json:"entity"`
	Events []struct {
		Timestamp *int64  `json:"timestamp"`
		Message   *string `json:"message"`
	} `json:"logEvents"`
}

// FuzzPutLogEventsScan compares the scan with encoding/json: whatever the scan takes, encoding/json takes too and reads
// the same out of it; and what encoding/json writes, the scan takes.
func FuzzPutLogEventsScan(f *testing.F) {
	for _, seed := range []string{
		`{"logGroupName":"g","logStreamName":"s","logEvents":[{"timestamp":1,"message":"m"}]}`,
		`{"logEvents":[{"message":"\ud83d\ude00\u0000\"\\","timestamp":-1},{}],"sequenceToken":null,"entity":{"keyAttributes":{"a":"b"}}}`,
		`{"logEvents":null}`, `{"logEvents":[{"timestamp":null,"message":null}]}`, `{}`, `{"x":[1,2.5e-3,true,{"y":null}]}`, "\xff",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		p := new(putLogEvents)
		err := p.decode(body, false)
		var ref reference
		d := json.NewDecoder(bytes.NewReader(body))
		d.DisallowUnknownFields()
		refErr := d.Decode(&ref)
		if refErr == nil {
			if _, more := d.Token(); more != io.EOF {
				refErr = more
			}
		}
		if err == nil {
			require.NoError(t, refErr)
			requireSame(t, ref, p)
		}
		if refErr == nil && utf8.Valid(body) {
			canonical, e := json.Marshal(ref)
			require.NoError(t, e)
			require.NoError(t, p.decode(canonical, false), "%s", canonical)
			requireSame(t, ref, p)
		}
		// Skipping members must not take what is no JSON.
		if p.decode(body, true) == nil {
			require.True(t, json.Valid(body))
		}
	})
}

func requireSame(t *testing.T, ref reference, p *putLogEvents) {
	require.Equal(t, ref.Group, p.group)
	require.Equal(t, ref.Stream, p.stream)
	require.Equal(t, ref.Sequence, p.token)
	require.Equal(t, ref.Events != nil, p.hasEvents)
	require.Len(t, p.records, len(ref.Events))
	b := batch{text: p.text, records: p.records}
	for i, e := range ref.Events {
		require.Equal(t, deref(e.Timestamp), p.records[i].ts)
		require.Equal(t, deref(e.Message), b.message(i))
	}
	if ref.Entity == nil {
		require.Nil(t, p.entity)
		return
	}
	require.Len(t, p.entity.keyAttributes, len(ref.Entity.Key))
	require.Len(t, p.entity.attributes, len(ref.Entity.Att))
}

func TestFilterPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, message string
		want             bool
	}{
		{"", "x", true},
		{"ERROR", "an ERROR here", true},
		{"ERROR", "an error here", false},
		{"ERROR code", "code of ERROR", true},
		{"ERROR code", "ERROR", false},
		{`"out of memory"`, "killed: out of memory", true},
		{`"out of memory"`, "memory out of", false},
		{`"a \"b\"" c`, `c a "b"`, true},
		{`{ $.a.b = "x" }`, `{"a":{"b":"x"}}`, true},
		{`{$.a.b="x"}`, `{"a":{"b":"y"}}`, false},
		{`{ $.a = 5 }`, `{"a":5.0}`, true},
		{`{ $.a = 5 }`, `{"a":"5"}`, false},
		{`{ $.a = "" }`, `{"a":""}`, true},
		{`{ $.a.b = "x" }`, `no JSON`, false},
		{`{ $.a.b = "x" }`, `{"a":1}`, false},
	} {
		match, err := parseFilter(c.pattern)
		require.Nil(t, err, c.pattern)
		require.Equal(t, c.want, match(c.message), "%s on %s", c.pattern, c.message)
	}
	for _, pattern := range []string{"-ERROR", "?a ?b", "a.b", "%re%", `{ $.a = "x*" }`, `{ $.a = "x" && $.b = "y" }`, `[a, b]`, `"open`, `"a"b`} {
		_, err := parseFilter(pattern)
		require.NotNil(t, err, pattern)
		require.Equal(t, codeInvalidParameter, err.Code)
	}
}
