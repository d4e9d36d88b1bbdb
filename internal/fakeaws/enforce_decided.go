package fakeaws

import "net/http"

// decided are operations of CloudWatch Logs that a server that enforces decides about without being able to carry them out:
// other ways to read a group, to have it read elsewhere, or to change who may. Who is allowed gets notCarriedOut. The value
// is their level, as in logsLevels. The resource of GetQueryResults and GetLogRecord is the group (service authorization
// reference, 2026-09), which their requests do not name: a server that carries out no query knows none of theirs, and takes
// only who may ask of all groups.
var decided = map[string]int{
	"StartQuery": onGroup, "StartLiveTail": onGroup, "GetLogGroupFields": onGroup, "GetLogFields": onGroup, "GetLogObject": onGroup,
	"CreateExportTask": onGroup, "PutSubscriptionFilter": onGroup, "DeleteSubscriptionFilter": onGroup, "DescribeSubscriptionFilters": onGroup,
	"PutMetricFilter": onGroup, "DeleteMetricFilter": onGroup, "DescribeMetricFilters": onGroup,
	"PutDataProtectionPolicy": onGroup, "DeleteDataProtectionPolicy": onGroup,
	"PutIndexPolicy": onGroup, "PutTransformer": onGroup, "CreateLogAnomalyDetector": onGroup,
	"GetQueryResults": onGroup, "GetLogRecord": onGroup, "DescribeQueries": onNothing, "StopQuery": onNothing,
	"PutResourcePolicy": onNothing, "DeleteResourcePolicy": onNothing, "PutAccountPolicy": onNothing, "DeleteAccountPolicy": onNothing,
	"PutQueryDefinition": onNothing, "PutDestination": onNothing,
}

// decidedOnly is the part of such a request that says which groups it is about.
type decidedOnly struct {
	Name        *string  `json:"logGroupName"`
	Identifier  *string  `json:"logGroupIdentifier"`
	Names       []string `json:"logGroupNames"`
	Identifiers []string `json:"logGroupIdentifiers"`
	ARNs        []string `json:"logGroupArnList"`
}

// decodeDecided skips what it does not know, for nothing will be done with it.
func decodeDecided(body []byte, _ bool) (request, error) {
	in := new(decidedOnly)
	if err := decode(body, in, true); err != nil {
		return nil, err
	}
	return in, nil
}

// groups are all groups that the request names, as it names them.
func (r *decidedOnly) groups(s *account) (list []string) {
	for _, v := range []*string{r.Name, r.Identifier} {
		if v != nil {
			list = append(list, s.groupName(v))
		}
	}
	for _, names := range [][]string{r.Names, r.Identifiers, r.ARNs} {
		for _, v := range names {
			list = append(list, s.groupName(&v))
		}
	}
	return list
}

func (r *decidedOnly) target(s *account) (group, stream string) {
	if all := r.groups(s); len(all) > 0 {
		return all[0], ""
	}
	return "", ""
}

func (r *decidedOnly) do(*account, *Call) (any, *APIError) {
	return nil, &APIError{Code: "NotCarriedOut", Message: "IAM allows the call; this server can't carry it out.", Status: http.StatusNotImplemented}
}

// asksDecided asks for the operation on every group that is named; where none is, on all of them.
func (s *account) asksDecided(operation string, r *decidedOnly) (asked []permission) {
	level := decided[operation]
	if level == onNothing {
		return []permission{{}}
	}
	for _, group := range r.groups(s) {
		asked = append(asked, s.onLogGroup(level, group, ""))
	}
	if len(asked) == 0 {
		asked = []permission{{}}
	}
	return asked
}
