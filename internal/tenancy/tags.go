package tenancy

// Keys of the tags that say whose something is: log groups, roles, keys.
const (
	TagCluster      = "eks-tenant-logs/cluster"
	TagTenant       = "eks-tenant-logs/tenant"
	TagNamespace    = "eks-tenant-logs/namespace"
	TagNamespaceUID = "eks-tenant-logs/namespace-uid"
	TagState        = "eks-tenant-logs/state"
)
