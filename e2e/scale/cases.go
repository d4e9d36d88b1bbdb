package scale

import (
	"fmt"
	"time"
)

// Case is a scenario with its name.
type Case struct {
	Name string
	Scenario
}

// Cases are those of docs/scaling.md.
func Cases() (cases []Case) {
	add := func(name string, sc Scenario) {
		template := "pod"
		if sc.PerNode {
			template = "node"
		}
		cases = append(cases, Case{fmt.Sprintf("%d, %s, %s, %s", sc.Nodes, name, template, sc.Flush), sc})
	}
	const second, minute = time.Second, time.Minute
	for _, nodes := range []int{10, 100} {
		for _, flush := range []time.Duration{second, 5 * second} {
			for _, perNode := range []bool{false, true} {
				if nodes == 100 && perNode && flush == second {
					continue // nothing in it that the others do not show
				}
				add("new account", Scenario{Kind: Fresh, Nodes: nodes, Flush: flush, PerNode: perNode, Duration: 30 * minute, Settle: 3 * minute, Finish: true})
				add("restart", Scenario{Kind: Restart, Nodes: nodes, Flush: flush, PerNode: perNode, Duration: 7 * minute})
				add("rolling", Scenario{Kind: Rolling, Nodes: nodes, Flush: flush, PerNode: perNode, Duration: 12 * minute})
			}
		}
	}
	// A thousand nodes ask for 30,000 calls a second with flush 1 s, and 6,000 with 5 s:
	// what becomes of it is clear after a few minutes, and costs too much to compute further.
	for _, perNode := range []bool{false, true} {
		for _, flush := range []time.Duration{second, 5 * second, 10 * second} {
			if perNode && flush == 10*second {
				continue
			}
			fresh := Scenario{Kind: Fresh, Nodes: 1000, Flush: flush, PerNode: perNode, Duration: 30 * minute, Settle: 3 * minute, Finish: true}
			if flush == second {
				fresh.Duration = 3 * minute
			}
			add("new account", fresh)
			add("restart", Scenario{Kind: Restart, Nodes: 1000, Flush: flush, PerNode: perNode, Duration: 3 * minute})
			add("rolling", Scenario{Kind: Rolling, Nodes: 1000, Flush: flush, PerNode: perNode, Duration: 4 * minute, Rolls: 2})
		}
		add("restart, 5 tenants a node", Scenario{Kind: Restart, Nodes: 1000, Flush: 5 * second, PerNode: perNode, TenantsANode: 5, Duration: 3 * minute})
	}
	add("restart, groups of an hour ago", Scenario{Kind: Restart, Nodes: 1000, Flush: 30 * second, GroupAge: time.Hour, Duration: 30 * minute})
	add("restart", Scenario{Kind: Restart, Nodes: 5000, Flush: 60 * second, Duration: 7 * minute})
	return cases
}
