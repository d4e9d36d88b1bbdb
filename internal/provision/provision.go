// Package provision sets up what AWS must have for each tenant: its log groups and
// their settings, its reader role, its key. It compares what is desired with what is
// observed in a pure plan, and applies the plan under AWS's quotas; what is right is
// not touched. It must not know Kubernetes, and it deletes no logs.
package provision

import (
	"context"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// Namespace is a Kubernetes namespace that claims a tenant.
type Namespace struct {
	Name string
	// UID is the one Kubernetes gave it; empty where it is not known, and then nothing
	// is said about who has the tenant.
	UID string
}

// Tenant is one tenant as it is desired: who claims it, and with what settings.
type Tenant struct {
	// Name is a DNS label.
	Name string
	// Namespaces are all that exist and claim the tenant. Which of them may have it is
	// for the plan to decide.
	Namespaces []Namespace
	// Settings are those of the tenants file, whose list of namespaces says which may
	// share the tenant; nil where the file does not name it.
	Settings *tenancy.Tenant
}

// State is how far a tenant is.
type State string

// States of a tenant.
const (
	// StatePending: something is still to be done, and the next run does it.
	StatePending State = "pending"
	// StateReady: everything was read back and is as it should be, but for findings.
	StateReady State = "ready"
	// StateRefused: the tenant is not this claimant's, or something of its name is not
	// ours. Nobody has been given anything; the reason says what to do.
	StateRefused State = "refused"
	// StateFailed: AWS did not let it be done, or it could not be read.
	StateFailed State = "failed"
	// StateRetired: its logs are kept, nobody's read access is left, and nobody gets it
	// until it is reactivated.
	StateRetired State = "retired"
)

// TenantStatus is what became of one tenant.
type TenantStatus struct {
	Tenant string `json:"tenant" yaml:"tenant"`
	State  State  `json:"state" yaml:"state"`
	// Reason says why it is not ready, for people; empty where it is.
	Reason string `json:"reason,omitempty" yaml:"reason,omitempty"`
	// Namespaces are those that have the tenant, by name. Only their lines are its.
	Namespaces []string `json:"namespaces,omitempty" yaml:"namespaces,omitempty"`
	// Refused are the namespaces that claim the tenant and do not get it, while the
	// tenant itself may be ready for others.
	Refused []Refusal `json:"refused,omitempty" yaml:"refused,omitempty"`
	// Group is the tenant's log group, Role the name of its reader role; empty where it
	// has none.
	Group string `json:"group" yaml:"group"`
	Role  string `json:"role,omitempty" yaml:"role,omitempty"`
	// RetentionDays is the group's effective retention as read; 0: there is no group, or
	// its events never expire.
	RetentionDays int `json:"retentionDays" yaml:"retentionDays"`
	// WantedDays is how long the group is to keep its events at least; 0: nothing was planned.
	WantedDays int `json:"-" yaml:"-"`
	// Findings are what is not as desired and was left as it is, for people.
	Findings []string `json:"findings,omitempty" yaml:"findings,omitempty"`
}

// Refusal is a namespace that does not get the tenant it claims.
type Refusal struct {
	Namespace string `json:"namespace" yaml:"namespace"`
	// Reason says why, and what to do about it.
	Reason string `json:"reason" yaml:"reason"`
}

// Report is what one run did.
type Report struct {
	// Tenants has one entry for each tenant asked for, by name.
	Tenants []TenantStatus `json:"tenants" yaml:"tenants"`
	// Actions is how many actions the plan had, Writes how many calls that change
	// something were answered with success. Both are 0 where everything was right.
	Actions int `json:"actions" yaml:"actions"`
	Writes  int `json:"writes" yaml:"writes"`
	// Repaired counts the actions that took back what somebody had changed, by layer:
	// group, role, key, cluster.
	Repaired map[string]int `json:"repaired,omitempty" yaml:"repaired,omitempty"`
	// Findings are what is not as desired and was left as it is, or was set right and
	// somebody should know of; those of the cluster's own groups among them.
	Findings []Finding `json:"findings,omitempty" yaml:"findings,omitempty"`
	// Failed says what of the cluster's own could not be done; empty where all of it was.
	Failed string `json:"failed,omitempty" yaml:"failed,omitempty"`
}

// Engine is what a controller drives. Its methods may be called again at any time, and
// by one goroutine at a time; several engines at once do no harm.
type Engine interface {
	// Reconcile makes what AWS has for these tenants right. Others are not looked at, so
	// one tenant may be asked for as well as all. A tenant's failure is in its status and
	// stops no other's; the error is what kept the run from being made at all: no
	// credentials, no answer, a quota that does not hold what is to be made.
	Reconcile(ctx context.Context, tenants []Tenant) (Report, error)
	// Retire takes a tenant's read access away and marks its log group, which keeps its
	// logs. Retiring what is retired, or was never there, writes nothing.
	Retire(ctx context.Context, tenant string) (TenantStatus, error)
	// Owned lists, by name, the tenants this cluster has given read access to and not
	// retired: those among them whose namespaces are gone are to be retired. It is read
	// from the reader roles, and empty where there are none.
	Owned(ctx context.Context) ([]string, error)
	// Quarantined lists the quarantine groups in which something waits, of those that the
	// last runs have looked at, by tenant.
	Quarantined(ctx context.Context) ([]Quarantined, error)
}
