package tenancy

import (
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

// publishedTenant is a tenantEntry as it is written: what is not given is left out.
type publishedTenant struct {
	Namespaces          []string `yaml:"namespaces"`
	RetentionDays       int      `yaml:"retentionDays,omitempty"`
	KMSKeyARN           string   `yaml:"kmsKeyArn,omitempty"`
	QuarantineKMSKeyARN string   `yaml:"quarantineKmsKeyArn,omitempty"`
	OnFailure           string   `yaml:"onFailure,omitempty"`
	EMF                 bool     `yaml:"emf,omitempty"`
	RoleARN             string   `yaml:"roleArn,omitempty"`
	ExternalID          string   `yaml:"externalId,omitempty"`
}

// PlatformNamespaces lists the namespaces the file keeps for the platform, by name.
func (r *Registry) PlatformNamespaces() []string {
	var all []string
	for ns, t := range r.namespaces {
		if t == nil {
			all = append(all, ns)
		}
	}
	slices.Sort(all)
	return all
}

// PublishRegistry is the tenants_file for registry mode that says so: the same bytes for
// the same content, whatever its order. What ParseRegistry would refuse is an error, so
// nothing is published that no node would take.
func PublishRegistry(generation int64, tenants []*Tenant, platformNamespaces []string) ([]byte, error) {
	file := struct {
		Version            int                        `yaml:"version"`
		Generation         int64                      `yaml:"generation"`
		PlatformNamespaces []string                   `yaml:"platformNamespaces,omitempty"`
		Tenants            map[string]publishedTenant `yaml:"tenants,omitempty"`
	}{1, generation, slices.Sorted(slices.Values(platformNamespaces)), map[string]publishedTenant{}}
	for _, t := range tenants {
		if _, twice := file.Tenants[t.Name]; twice {
			return nil, fmt.Errorf("tenant %s stands twice in the registry", t.Name)
		}
		file.Tenants[t.Name] = publishedTenant{
			Namespaces: slices.Sorted(slices.Values(t.Namespaces)), RetentionDays: t.RetentionDays, KMSKeyARN: t.KMSKeyARN,
			QuarantineKMSKeyARN: t.QuarantineKMSKeyARN, OnFailure: t.OnFailure, EMF: t.EMF, RoleARN: t.RoleARN, ExternalID: t.ExternalID,
		}
	}
	data, err := yaml.Marshal(file)
	if err != nil {
		return nil, fmt.Errorf("failed to write the registry: %w", err)
	}
	if _, err := ParseRegistry(data, RegistryOptions{Mode: ModeRegistry}); err != nil {
		return nil, fmt.Errorf("the registry to be published is not one: %w", err)
	}
	return data, nil
}
