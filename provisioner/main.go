// Command tenantlogs is the provisioner and the command line of eks-tenant-logs.
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := root().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "tenantlogs:", err)
		os.Exit(exitUnknown)
	}
}
