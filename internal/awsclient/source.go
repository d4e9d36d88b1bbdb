package awsclient

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
)

// chain is the SDK's default chain as a source: environment, profile, web identity, the
// credentials endpoint of EKS Pod Identity, EC2's metadata. It is built anew each time that it is
// asked, for the SDK reads files when it builds it, and caches inside it.
type chain struct {
	options []func(*config.LoadOptions) error

	origin atomic.Pointer[origin]

	mu    sync.Mutex
	files []stamp
}

// newChain is the chain that options lead to; cfg is what they last gave.
func newChain(options []func(*config.LoadOptions) error, cfg aws.Config) *chain {
	c := &chain{options: append(slices.Clip(options),
		config.WithCredentialsCacheOptions(func(o *aws.CredentialsCacheOptions) {
			o.ExpiryWindow = 0 // renewals know the true expiry, and have a window of their own
		}),
		// A renewal asks again by itself, and then reads the files again.
		config.WithRetryer(func() aws.Retryer { return fewAttempts{Retryer()} }),
	)}
	o := originOf(cfg)
	c.origin.Store(&o)
	c.files = o.stamps()
	return c
}

func (c *chain) ask(ctx context.Context) (aws.Credentials, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Before they are read: what is written meanwhile is seen by the next look.
	c.files = c.origin.Load().stamps()
	cfg, err := config.LoadDefaultConfig(ctx, c.options...)
	if err != nil {
		return aws.Credentials{}, err
	}
	o := originOf(cfg)
	if was := c.origin.Load(); was.profile && !o.profile {
		// A file that is gone or half written would make the chain go on to whatever this
		// machine offers: another identity.
		return aws.Credentials{}, fmt.Errorf("there are no credentials any more in %s", was.name)
	}
	if cfg.Credentials == nil {
		return aws.Credentials{}, errors.New("none configured")
	}
	creds, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return aws.Credentials{}, err
	}
	if o.name != c.origin.Load().name {
		c.files = o.stamps()
	}
	c.origin.Store(&o)
	return creds, nil
}

func (c *chain) name() string   { return c.origin.Load().name }
func (c *chain) remedy() string { return c.origin.Load().remedy }
func (c *chain) fixed() bool    { return c.origin.Load().fixed }

func (c *chain) look() (seen change) {
	if !c.mu.TryLock() {
		return unchanged // it is being asked
	}
	defer c.mu.Unlock()
	for _, f := range c.files {
		if !f.changed() {
			continue
		}
		if f.holds {
			return replaced
		}
		seen = askable
	}
	return seen
}

// origin is where a chain ended.
type origin struct {
	name, remedy string
	files        []string // that hold the credentials, or say where they come from
	inputs       []string // that the source is asked with
	profile      bool     // a profile says so
	fixed        bool
}

// originOf reads it off a configuration of the SDK's.
func originOf(cfg aws.Config) origin {
	var env config.EnvConfig
	var shared config.SharedConfig
	for _, s := range cfg.ConfigSources {
		switch s := s.(type) {
		case config.EnvConfig:
			env = s
		case config.SharedConfig:
			shared = s
		}
	}
	var kinds []aws.CredentialSource
	if p, ok := cfg.Credentials.(aws.CredentialProviderSource); ok {
		kinds = p.ProviderSources()
	}
	ended := func(any ...aws.CredentialSource) bool {
		return slices.ContainsFunc(any, func(k aws.CredentialSource) bool { return slices.Contains(kinds, k) })
	}
	files := []string{orElse(env.SharedCredentialsFile, config.DefaultSharedCredentialsFilename()), orElse(env.SharedConfigFile, config.DefaultSharedConfigFilename())}
	profile := fmt.Sprintf("profile %s in %s", orElse(shared.Profile, "default"), strings.Join(existing(files), " and "))
	switch {
	case ended(aws.CredentialSourceEnvVars):
		return origin{
			name: "AWS_ACCESS_KEY_ID in the environment", fixed: true,
			remedy: "the environment of a process can't change: restart it with valid keys, or use a role or a shared credentials file, which are read again",
		}
	case ended(aws.CredentialSourceEnvVarsSTSWebIDToken):
		return webIdentity(env.RoleARN, env.WebIdentityTokenFilePath)
	case ended(aws.CredentialSourceProfileSTSWebIDToken):
		o := webIdentity(shared.RoleARN, shared.WebIdentityTokenFile)
		o.name, o.files, o.profile = o.name+" of "+profile, files, true
		return o
	case ended(aws.CredentialSourceProcess, aws.CredentialSourceProfileProcess):
		return origin{
			name: "the credential_process of " + profile, files: files, profile: true,
			remedy: "see what the command prints; it is run again after each refusal, within the documented bound",
		}
	case ended(aws.CredentialSourceProfileSSO, aws.CredentialSourceSSO, aws.CredentialSourceProfileSSOLegacy, aws.CredentialSourceSSOLegacy,
		aws.CredentialSourceProfileLogin, aws.CredentialSourceLogin):
		return origin{
			name: "the login of " + profile, files: files, profile: true,
			remedy: "log in again (aws sso login or aws login); a node needs a role instead",
		}
	case ended(aws.CredentialSourceProfile):
		o := origin{
			name: profile, files: files, profile: true,
			remedy: "write valid keys into the file: it is read again when it changes, without a restart",
		}
		if shared.RoleARN != "" {
			o.name = "role " + shared.RoleARN + " of " + profile
			o.remedy = "write valid keys into the file, and check the role's trust policy"
		}
		return o
	case ended(aws.CredentialSourceProfileNamedProvider):
		o := origin{
			name: "the credential_source " + shared.CredentialSource + " of " + profile, files: files, profile: true, inputs: tokens(),
			remedy: "check the role's trust policy, and what the source gives",
		}
		if shared.RoleARN != "" {
			o.name = "role " + shared.RoleARN + " by " + o.name
		}
		return o
	case ended(aws.CredentialSourceHTTP):
		return origin{
			name:   "the credentials endpoint " + orElse(env.ContainerCredentialsEndpoint, env.ContainerCredentialsRelativePath),
			remedy: "check that EKS Pod Identity's agent runs on the node, and that the service account has an association",
			inputs: tokens(),
		}
	}
	// EC2's metadata, the chain's end, is also where it comes to where there is nothing.
	return origin{
		name: "EC2's instance metadata", inputs: files,
		remedy: "give the pod a role (EKS Pod Identity or IRSA), or set role_arn or profile",
	}
}

// tokens are the files that a credentials endpoint is asked with.
func tokens() []string {
	if file := os.Getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"); file != "" {
		return []string{file}
	}
	return nil
}

func webIdentity(role, file string) origin {
	return origin{
		name: "role " + role + " with the web identity token " + file, inputs: []string{file},
		remedy: "check that the kubelet renews the token, and the role's trust policy; a token that is replaced is used at once",
	}
}

func orElse(s, otherwise string) string {
	if s != "" {
		return s
	}
	return otherwise
}

// existing are the files that are there; all, where none is.
func existing(files []string) []string {
	there := slices.DeleteFunc(slices.Clone(files), func(f string) bool {
		_, err := os.Stat(f)
		return err != nil
	})
	if len(there) == 0 {
		return files
	}
	return there
}

// stamp is what a file was when it was last read. A link is followed: Kubernetes replaces the
// files of a volume by changing where a link points.
type stamp struct {
	path  string
	holds bool
	info  os.FileInfo // nil: it was not there
}

func (o *origin) stamps() (all []stamp) {
	for _, path := range o.files {
		all = append(all, newStamp(path, true))
	}
	for _, path := range o.inputs {
		all = append(all, newStamp(path, false))
	}
	return all
}

func newStamp(path string, holds bool) stamp {
	info, err := os.Stat(path)
	if err != nil {
		info = nil
	}
	return stamp{path, holds, info}
}

func (s stamp) changed() bool {
	now, err := os.Stat(s.path)
	if err != nil || s.info == nil {
		return (err == nil) != (s.info != nil)
	}
	return !os.SameFile(s.info, now) || !s.info.ModTime().Equal(now.ModTime()) || s.info.Size() != now.Size()
}

// assumed is a role as a source: STS is asked as another identity.
type assumed struct {
	role   string
	by     *stscreds.AssumeRoleProvider
	parent *renewal
	with   atomic.Pointer[held] // the parent's, when STS was last asked
}

func (a *assumed) ask(ctx context.Context) (aws.Credentials, error) {
	c, err := a.by.Retrieve(ctx)
	a.with.Store(a.parent.cur.Load())
	return c, err
}

func (a *assumed) name() string { return "role " + a.role }
func (a *assumed) remedy() string {
	return "check the role and its trust policy; sessions that are revoked or refused are replaced without a restart"
}
func (a *assumed) fixed() bool { return false }

func (a *assumed) look() change {
	if a.with.Load() != a.parent.cur.Load() {
		return askable
	}
	return unchanged
}
