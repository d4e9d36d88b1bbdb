// Command tenantlogs is the provisioner and the command line of eks-tenant-logs.
package main

import (
	"errors"
	"fmt"
	"os"
)

func main() {
	if err := root().Execute(); err != nil {
		var code exitError
		if errors.As(err, &code) {
			os.Exit(int(code))
		}
		fmt.Fprintln(os.Stderr, "tenantlogs:", err)
		os.Exit(exitUnknown)
	}
}
