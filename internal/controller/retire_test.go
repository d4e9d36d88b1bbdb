package controller

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhichTenantsAreRetired(t *testing.T) {
	type byName = map[string]string
	for name, test := range map[string]struct {
		active  []string
		claimed map[string]bool
		had     map[string]map[string]string
		exists  byName
		retire  []string
		left    map[string]string // a part of each reason
	}{
		"nothing to do": {},
		"claimed": {
			active: []string{"a"}, claimed: map[string]bool{"a": false}, had: map[string]map[string]string{"a": {"x": "1"}},
		},
		"its namespace is gone": {
			active: []string{"a"}, had: map[string]map[string]string{"a": {"x": "1"}}, exists: byName{"y": "2"}, retire: []string{"a"},
		},
		"its namespace was made anew": {
			active: []string{"a"}, had: map[string]map[string]string{"a": {"x": "1"}}, exists: byName{"x": "2"}, retire: []string{"a"},
		},
		"one of two is gone": {
			active: []string{"a"}, had: map[string]map[string]string{"a": {"x": "1", "y": "2"}}, exists: byName{"y": "2"},
			left: map[string]string{"a": "its namespace y exists and does not claim it any more"},
		},
		"only its claim is gone": {
			active: []string{"a"}, had: map[string]map[string]string{"a": {"x": "1"}}, exists: byName{"x": "1"},
			left: map[string]string{"a": "its namespace x exists"},
		},
		"never seen here": {
			active: []string{"a"}, exists: byName{"x": "1"}, left: map[string]string{"a": "none was ever seen here to"},
		},
		"claimed anew in vain, and all who had it are gone": {
			active: []string{"a"}, claimed: map[string]bool{"a": true}, had: map[string]map[string]string{"a": {"x": "1"}}, exists: byName{"x": "2"}, retire: []string{"a"},
		},
		"claimed in vain beside one who has it": {
			active: []string{"a"}, claimed: map[string]bool{"a": true}, had: map[string]map[string]string{"a": {"x": "1"}}, exists: byName{"x": "1", "y": "2"},
		},
		"claimed in vain, and nobody had it": {
			active: []string{"a"}, claimed: map[string]bool{"a": true}, exists: byName{"x": "2"},
		},
		"half of them at once": {
			active: []string{"d", "c", "b", "a"}, claimed: map[string]bool{"a": false, "b": false},
			had: map[string]map[string]string{"c": {"x": "1"}, "d": {"y": "2"}}, retire: []string{"c", "d"},
		},
		"most of them at once": {
			active: []string{"a", "b", "c"}, claimed: map[string]bool{"a": false},
			had:  map[string]map[string]string{"b": {"x": "1"}, "c": {"y": "2"}},
			left: map[string]string{"b": "2 of 3 tenants at once, so nothing was retired: `tenantlogs retire b`", "c": "`tenantlogs retire c`"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := retirements(test.active, test.claimed, test.had, test.exists)
			require.Equal(t, test.retire, r.retire)
			require.Len(t, r.left, len(test.left))
			for tenant, reason := range test.left {
				require.Contains(t, r.left[tenant], reason)
			}
		})
	}
}
