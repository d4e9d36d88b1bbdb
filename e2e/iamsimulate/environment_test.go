package iamsimulate

import _ "github.com/eks-tenant-logs/eks-tenant-logs/e2e/environment" // the machine's does not reach these tests
