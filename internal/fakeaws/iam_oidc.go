package fakeaws

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// oidcProvider is an identity provider that web identity tokens are trusted from.
type oidcProvider struct {
	arn         string
	url         string // host and path, without https://
	clients     []string
	thumbprints []string
	created     time.Time
	tags        map[string]string
}

type createProvider struct {
	URL         *string  `query:"Url"`
	Clients     []string `query:"ClientIDList"`
	Thumbprints []string `query:"ThumbprintList"`
	Tags        []tag    `query:"Tags"`
}

func (r *createProvider) about(c *Call) { c.Entity = deref(r.URL) }

func (r *createProvider) asks(s *account) []permission {
	return []permission{{
		resource: s.globalARN("iam", "oidc-provider/"+strings.TrimPrefix(deref(r.URL), "https://")), context: requestTagKeys(r.Tags),
	}}
}

func (r *createProvider) do(s *account, _ identity) (any, *APIError) {
	var c constraints
	c.required("url", r.URL, textRule{min: 1, max: 255})
	c.size("clientIDList", len(r.Clients), 0, 100)
	c.size("thumbprintList", len(r.Thumbprints), 0, 5)
	for i := range r.Thumbprints {
		c.text("thumbprintList", &r.Thumbprints[i], textRule{min: 40, max: 40})
	}
	c.iamTags(r.Tags)
	if err := c.queryErr(); err != nil {
		return nil, err
	}
	u, err := url.Parse(*r.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, iamInvalid("Invalid Open ID Connect Provider URL")
	}
	tags, apiErr := withTags(nil, r.Tags)
	if apiErr != nil {
		return nil, apiErr
	}
	s.iam.mu.Lock()
	defer s.iam.mu.Unlock()
	p := &oidcProvider{url: strings.TrimPrefix(*r.URL, "https://"), clients: r.Clients, thumbprints: r.Thumbprints, created: s.now(), tags: tags}
	p.arn = s.globalARN("iam", "oidc-provider/"+p.url)
	if s.iam.providers[p.arn] != nil {
		return nil, entityExists("Provider with url %s already exists.", *r.URL)
	}
	s.iam.providers[p.arn] = p
	return struct {
		ARN  string `xml:"OpenIDConnectProviderArn"`
		Tags []tag  `xml:"Tags>member"`
	}{p.arn, tagList(tags)}, nil
}

type getProvider struct {
	ARN *string `query:"OpenIDConnectProviderArn"`
}

func (r *getProvider) about(c *Call) { c.Entity = deref(r.ARN) }

func (r *getProvider) asks(*account) []permission { return []permission{{resource: deref(r.ARN)}} }

func (r *getProvider) do(s *account, _ identity) (any, *APIError) {
	var c constraints
	c.required("openIDConnectProviderArn", r.ARN, ruleIAMARN)
	if err := c.queryErr(); err != nil {
		return nil, err
	}
	s.iam.mu.RLock()
	defer s.iam.mu.RUnlock()
	p := s.iam.providers[*r.ARN]
	if p == nil {
		return nil, &APIError{Code: "NoSuchEntity", Message: "OpenIDConnect Provider not found for arn " + *r.ARN, Status: http.StatusNotFound}
	}
	return struct {
		URL         string   `xml:"Url"`
		Clients     []string `xml:"ClientIDList>member"`
		Thumbprints []string `xml:"ThumbprintList>member"`
		Created     string   `xml:"CreateDate"`
		Tags        []tag    `xml:"Tags>member"`
	}{p.url, p.clients, p.thumbprints, xmlTime(p.created), tagList(p.tags)}, nil
}

type listProviders struct{}

func (*listProviders) about(*Call) {}

func (*listProviders) asks(*account) []permission { return []permission{{}} }

func (*listProviders) do(s *account, _ identity) (any, *APIError) {
	type element struct {
		ARN string `xml:"Arn"`
	}
	var out struct {
		Providers []element `xml:"OpenIDConnectProviderList>member"`
	}
	s.iam.mu.RLock()
	defer s.iam.mu.RUnlock()
	for _, arn := range slices.Sorted(maps.Keys(s.iam.providers)) {
		out.Providers = append(out.Providers, element{arn})
	}
	return out, nil
}
