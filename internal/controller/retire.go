package controller

import (
	"fmt"
	"maps"
	"slices"
)

// retirement is which tenants to retire, and which that nobody claims any more are left,
// with the reason.
type retirement struct {
	retire []string
	left   map[string]string
}

// retirements says which tenants' namespaces are gone for certain. A tenant is retired
// where its namespaces were seen here and none of them exists any more; what is only no
// longer claimed, by a label or a prefix that changed, is left and reported. Most tenants
// are never retired at once: that is how a cluster looks that was restored, or is another.
//
// One that is claimed anew, in vain, is retired as well once all who had it are gone.
//
//	active: the tenants with read access that are not retired
//	claimed: those that some namespace claims; true where it was refused
//	had: the namespaces each tenant had, by name with their UIDs
//	exists: the namespaces there are, by name with their UIDs
func retirements(active []string, claimed map[string]bool, had map[string]map[string]string, exists map[string]string) retirement {
	r := retirement{left: map[string]string{}}
	for _, tenant := range slices.Sorted(slices.Values(active)) {
		refused, wanted := claimed[tenant]
		if wanted && !refused {
			continue
		}
		still := ""
		for _, ns := range slices.Sorted(maps.Keys(had[tenant])) {
			if uid, ok := exists[ns]; ok && uid == had[tenant][ns] {
				still = ns
				break
			}
		}
		switch {
		case wanted && (still != "" || len(had[tenant]) == 0):
		case len(had[tenant]) == 0:
			r.left[tenant] = fmt.Sprintf("no namespace claims it, and none was ever seen here to: `tenantlogs retire %s` if it is gone", tenant)
		case still != "":
			r.left[tenant] = fmt.Sprintf("its namespace %s exists and does not claim it any more: give it back its claim, or `tenantlogs retire %s`", still, tenant)
		default:
			r.retire = append(r.retire, tenant)
		}
	}
	if n := len(r.retire); n > 1 && 2*n > len(active) {
		for _, tenant := range r.retire {
			r.left[tenant] = fmt.Sprintf("its namespaces are gone with those of %d of %d tenants at once, so nothing was retired: `tenantlogs retire %s` if that was meant", n, len(active), tenant)
		}
		r.retire = nil
	}
	return r
}
