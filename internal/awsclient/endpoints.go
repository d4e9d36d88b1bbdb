package awsclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	smithyendpoints "github.com/aws/smithy-go/endpoints"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Endpoint is where the calls of one service go.
type Endpoint struct {
	// Service is the service's short name: logs, sts, iam, kms or eks.
	Service string
	// URL is a scheme and a host, such as https://logs.eu-central-1.amazonaws.com.
	URL string
	// Source names what replaced AWS's own host: an option, a variable of the environment,
	// or a key of a profile. It is empty for AWS's own host.
	Source string
}

// Base is the BaseEndpoint of an SDK client whose calls are to go to e: nil for AWS's own
// host. A client that is built with it asks neither the environment nor the profile again.
func (e Endpoint) Base() *string {
	if e.Source == "" {
		return nil
	}
	return &e.URL
}

// Service is one of AWS's services as its SDK client is configured, before its endpoint
// is judged.
type Service struct {
	// Name is the short name, and ID the SDK's: "CloudWatch Logs". The variable
	// AWS_ENDPOINT_URL_<ID> and the key of a services section are made of the ID.
	Name, ID string
	// Option is the option or flag that replaces the host, and Given its value.
	Option, Given string
	// Region is the region whose endpoint is asked for.
	Region string
	// Configured is the BaseEndpoint that the SDK found outside the options.
	Configured *string
	// FIPS and DualStack are what the SDK found, the options included.
	FIPS      aws.FIPSEndpointState
	DualStack aws.DualStackEndpointState
	// Resolve asks the SDK's resolver for AWS's own host.
	Resolve func(ctx context.Context, region string, fips, dualStack bool) (smithyendpoints.Endpoint, error)
}

// Judge says where the calls of a service go, whether an option, the environment or the
// profile decides it. It is an error where they would leave this machine unencrypted, where the
// endpoint is none, and where FIPS or dual-stack endpoints are asked for beside an endpoint of
// one's own: the SDK refuses each call then. The error names the source and what to do.
func (c *Client) Judge(ctx context.Context, s Service) (Endpoint, error) {
	e, err := c.origins.judge(ctx, s)
	if err != nil {
		return e, err
	}
	c.inForce.add(e)
	return e, nil
}

func (o *origins) judge(ctx context.Context, s Service) (Endpoint, error) {
	fips, dualStack := s.FIPS == aws.FIPSEndpointStateEnabled, s.DualStack == aws.DualStackEndpointStateEnabled
	e := Endpoint{Service: s.Name}
	value, remedy := s.Given, ""
	switch {
	case s.Given != "":
		e.Source = s.Option
	case s.Configured != nil && *s.Configured != "":
		value, e.Source = *s.Configured, o.endpoint(s.ID, *s.Configured)
		remedy = "; change or remove it, or set AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=true"
	default:
		at, err := s.Resolve(ctx, s.Region, fips, dualStack)
		if err != nil {
			return e, fmt.Errorf("no endpoint of %s in region %s%s: %w", s.ID, s.Region, o.asked(fips, dualStack), err)
		}
		e.URL = at.URI.Scheme + "://" + at.URI.Host
		return e, nil
	}
	at, err := EndpointURL(value)
	if err != nil {
		return e, fmt.Errorf("%s: %w%s", e.Source, err, remedy)
	}
	if fips || dualStack {
		return e, fmt.Errorf("%s (%s) replaces AWS's host of %s%s: AWS's SDK takes one of them only; remove one", e.Source, at, s.ID, o.asked(fips, dualStack))
	}
	e.URL = at
	return e, nil
}

// origins says which source a setting came from: the options, the environment or the profile.
type origins struct {
	useFIPS, useDualStack bool // the options
	env                   config.EnvConfig
	profile               config.SharedConfig
}

func newOrigins(c Config, cfg aws.Config) *origins {
	o := &origins{useFIPS: c.UseFIPS, useDualStack: c.UseDualStack}
	for _, s := range cfg.ConfigSources {
		switch s := s.(type) {
		case config.EnvConfig:
			o.env = s
		case config.SharedConfig:
			o.profile = s
		}
	}
	return o
}

// endpoint names the source of an endpoint that the SDK found. The SDK does not tell the
// source; equal values in two of them have the name of the one that it prefers.
func (o *origins) endpoint(id, value string) string {
	variable := "AWS_ENDPOINT_URL_" + strings.ToUpper(strings.ReplaceAll(id, " ", "_"))
	key := strings.ToLower(strings.ReplaceAll(id, " ", "_"))
	switch {
	case os.Getenv(variable) == value:
		return variable
	case o.env.BaseEndpoint == value:
		return "AWS_ENDPOINT_URL"
	case o.profile.Services.ServiceValues[key]["endpoint_url"] == value:
		return fmt.Sprintf("endpoint_url of %s in services section %q of profile %q", key, o.profile.ServicesSectionName, o.profile.Profile)
	case o.profile.BaseEndpoint == value:
		return fmt.Sprintf("endpoint_url of profile %q", o.profile.Profile)
	}
	return "the AWS configuration"
}

// fips names what asks for FIPS endpoints, where they are in force.
func (o *origins) fips() string {
	switch {
	case o.useFIPS:
		return "use_fips"
	case o.env.UseFIPSEndpoint == aws.FIPSEndpointStateEnabled:
		return "AWS_USE_FIPS_ENDPOINT"
	}
	return fmt.Sprintf("use_fips_endpoint of profile %q", o.profile.Profile)
}

// pseudoRegion says whether a region is a name that the SDK takes for another region's FIPS
// endpoints, such as fips-us-east-1: it is no region in an ARN.
func pseudoRegion(region string) bool {
	return strings.HasPrefix(region, "fips-") || strings.Contains(region, "-fips-") || strings.HasSuffix(region, "-fips")
}

// dualStack names what asks for dual-stack endpoints, where they are in force.
func (o *origins) dualStack() string {
	switch {
	case o.useDualStack:
		return "use_dual_stack"
	case o.env.UseDualStackEndpoint == aws.DualStackEndpointStateEnabled:
		return "AWS_USE_DUALSTACK_ENDPOINT"
	}
	return fmt.Sprintf("use_dualstack_endpoint of profile %q", o.profile.Profile)
}

// asked says which kinds of AWS's endpoints are asked for, and by what.
func (o *origins) asked(fips, dualStack bool) string {
	said := ""
	if fips {
		said += ", and " + o.fips() + " asks for FIPS endpoints"
	}
	if dualStack {
		said += ", and " + o.dualStack() + " asks for dual-stack endpoints"
	}
	return said
}

// metadata judges the address of the EC2 metadata service, which answers with credentials
// over plain http: it may be this machine's or a link-local one.
func (o *origins) metadata() error {
	value, source := o.env.EC2IMDSEndpoint, "AWS_EC2_METADATA_SERVICE_ENDPOINT"
	if value == "" {
		value, source = o.profile.EC2IMDSEndpoint, fmt.Sprintf("ec2_metadata_service_endpoint of profile %q", o.profile.Profile)
	}
	if value == "" || strings.EqualFold(os.Getenv("AWS_EC2_METADATA_DISABLED"), "true") {
		return nil
	}
	if u, err := url.Parse(value); err != nil || u.Scheme == "http" && !loopback(u.Hostname()) && !nodeLocal(u.Hostname()) {
		return fmt.Errorf("%s: %q would bring credentials unencrypted from another machine: remove it, or give an address of this machine or a link-local one", source, value)
	}
	return nil
}

// endpointsInForce are the endpoints that were judged, for the log. The clients of all
// roles share them.
type endpointsInForce struct {
	mu  sync.Mutex
	all []Endpoint
}

func (f *endpointsInForce) add(e Endpoint) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(slices.DeleteFunc(f.all, func(old Endpoint) bool { return old.Service == e.Service }), e)
}

// InForce lists, for the log, where the calls go: an endpoint for each service that was
// judged, with its source where it is not AWS's own, and the kind of endpoints, with its
// source where it is not an option. Keys are the names of the plugin's options.
func (c *Client) InForce() []slog.Attr {
	c.inForce.mu.Lock()
	defer c.inForce.mu.Unlock()
	var attrs []slog.Attr
	for _, e := range c.inForce.all {
		key := e.Service + "_endpoint"
		if e.Service == "logs" {
			key = "endpoint"
		}
		attrs = append(attrs, slog.String(key, e.URL))
		if e.Source != "" {
			attrs = append(attrs, slog.String(key+"_source", e.Source))
		}
	}
	attrs = append(attrs, slog.Bool("use_fips", c.fips))
	if c.fips && !c.origins.useFIPS {
		attrs = append(attrs, slog.String("use_fips_source", c.origins.fips()))
	}
	attrs = append(attrs, slog.Bool("use_dual_stack", c.dualStack))
	if c.dualStack && !c.origins.useDualStack {
		attrs = append(attrs, slog.String("use_dual_stack_source", c.origins.dualStack()))
	}
	return attrs
}

// resolveEndpoints judges CloudWatch Logs and STS, and pins c's endpoints to what was judged.
func (c *Client) resolveEndpoints(ctx context.Context, endpoint, stsEndpoint string) error {
	if err := c.origins.metadata(); err != nil {
		return err
	}
	logsOptions, stsOptions := cloudwatchlogs.NewFromConfig(c.cfg).Options(), sts.NewFromConfig(c.cfg).Options()
	c.fips = logsOptions.EndpointOptions.UseFIPSEndpoint == aws.FIPSEndpointStateEnabled
	c.dualStack = logsOptions.EndpointOptions.UseDualStackEndpoint == aws.DualStackEndpointStateEnabled
	logs := Service{
		Name: "logs", ID: cloudwatchlogs.ServiceID, Option: "endpoint", Given: endpoint,
		Region: c.Region, Configured: logsOptions.BaseEndpoint,
		FIPS: logsOptions.EndpointOptions.UseFIPSEndpoint, DualStack: logsOptions.EndpointOptions.UseDualStackEndpoint,
		Resolve: func(ctx context.Context, region string, fips, dualStack bool) (smithyendpoints.Endpoint, error) {
			return logsOptions.EndpointResolverV2.ResolveEndpoint(ctx, cloudwatchlogs.EndpointParameters{Region: &region, UseFIPS: &fips, UseDualStack: &dualStack})
		},
	}
	tokens := Service{
		Name: "sts", ID: sts.ServiceID, Option: "sts_endpoint",
		Region: c.Region, Configured: stsOptions.BaseEndpoint,
		FIPS: stsOptions.EndpointOptions.UseFIPSEndpoint, DualStack: stsOptions.EndpointOptions.UseDualStackEndpoint,
		Resolve: func(ctx context.Context, region string, fips, dualStack bool) (smithyendpoints.Endpoint, error) {
			return stsOptions.EndpointResolverV2.ResolveEndpoint(ctx, sts.EndpointParameters{Region: &region, UseFIPS: &fips, UseDualStack: &dualStack})
		},
	}
	var logsErr, stsErr error
	c.logs, logsErr = c.Judge(ctx, logs)
	// The SDK's own credential providers (a web identity, a profile's role_arn) ask the STS of
	// the environment and the profile, whatever the option says.
	c.sts, stsErr = c.Judge(ctx, tokens)
	if stsErr == nil && stsEndpoint != "" {
		tokens.Given = stsEndpoint
		c.sts, stsErr = c.Judge(ctx, tokens)
	}
	if logsErr != nil && stsErr != nil && logsErr.Error() == stsErr.Error() {
		return logsErr
	}
	return errors.Join(logsErr, stsErr)
}

// noCleartext refuses a request that would leave this machine unencrypted. Every client that
// the SDK builds of the configuration has it, those of its credential providers too (IAM
// Identity Center, container credentials, instance metadata): their endpoints are not known
// before they are used.
func noCleartext(s *middleware.Stack) error {
	return s.Finalize.Add(cleartextGuard{}, middleware.After)
}

type cleartextGuard struct{}

func (cleartextGuard) ID() string { return "RefuseCleartext" }

func (cleartextGuard) HandleFinalize(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
	if req, ok := in.Request.(*smithyhttp.Request); ok && req.URL.Scheme != "https" && !loopback(req.URL.Hostname()) && !nodeLocal(req.URL.Hostname()) {
		return middleware.FinalizeOutput{}, middleware.Metadata{}, fmt.Errorf("refused to send a request unencrypted to %s://%s: use https, or an address of this machine", req.URL.Scheme, req.URL.Host)
	}
	return next.HandleFinalize(ctx, in)
}
