package iampolicy

// Writer is the nodes' policy. With controller the provisioner is there, and nodes hold
// neither CreateLogGroup nor PutRetentionPolicy: one compromised node could set one day on
// every tenant. Without it, the plugin creates groups, looks at their retention and marks
// them. roles are those of tenants with an account of their own, which the plugin assumes.
//
// A node that is broken into can write into any tenant's group (it has all their lines); it can
// read, change and delete nothing.
func (s Scope) Writer(controller bool, roles ...string) *Document {
	d := document(allow("Write", []string{"logs:CreateLogStream", "logs:PutLogEvents"}, each(s.groups(), s.inside)...))
	if !controller {
		d.Statements = append(d.Statements,
			// No resource level (service authorization reference).
			allow("Look", []string{"logs:DescribeLogGroups"}, "*"),
			allow("Create", []string{"logs:CreateLogGroup", "logs:PutRetentionPolicy"}, each(s.groups(), s.inside)...),
			// These take the ARN without :*.
			allow("Mark", []string{"logs:ListTagsForResource", "logs:TagResource"}, each(s.groups(), s.bare)...),
		)
	}
	return s.finished(d, roles, s.reach(roles)...)
}

// Replay is the policy of whoever copies quarantined events back: it reads quarantine groups,
// keeps its journal there in streams of its own ($replay/…), and writes to tenants' groups and to
// the platform's. roles are those of tenants with an account of their own.
func (s Scope) Replay(roles ...string) *Document {
	quarantine := s.Names.QuarantinePrefix + "*"
	home := []string{s.Names.TenantPrefix + "*", s.Names.PlatformGroup}
	d := document(
		allow("Look", []string{"logs:DescribeLogGroups"}, "*"),
		allow("ReadQuarantine", []string{"logs:DescribeLogStreams", "logs:FilterLogEvents", "logs:GetLogEvents"}, s.inside(quarantine)),
		// The form of a stream's ARN that CreateLogStream is checked against is not documented
		// the same way everywhere: a pattern that covers both.
		allow("Journal", []string{"logs:CreateLogStream", "logs:PutLogEvents"}, s.inside(quarantine)),
		allow("Home", []string{"logs:CreateLogStream", "logs:PutLogEvents"}, each(home, s.inside)...),
		// That a home has its retention is looked at before anything is copied there.
		allow("Tags", []string{"logs:ListTagsForResource"}, each(append(home, quarantine), s.bare)...),
	)
	return s.finished(d, roles, s.reach(roles)...)
}

// Canary is the policy of a test tenant's pod that looks for the line it logged (tenantlogs
// canary): in its own group, where it must be, and in its quarantine and the platform's group,
// where it must not. Whoever has it reads the platform's group.
func (s Scope) Canary(tenant string) *Document {
	return document(allow("Look", []string{"logs:FilterLogEvents"},
		s.inside(s.Names.Group(tenant)), s.inside(s.Names.QuarantineGroup(tenant)), s.inside(s.Names.PlatformGroup)))
}

// reach is what holds writer and replay to tenants' accounts where they assume roles at all.
func (s Scope) reach(roles []string) []Statement {
	if len(roles) == 0 {
		return nil
	}
	return []Statement{s.noneOfOurOwn()}
}

// finished adds what writer and replay have in common.
func (s Scope) finished(d *Document, roles []string, denies ...Statement) *Document {
	d.Statements = append(d.Statements, s.assume(roles)...)
	d.Statements = append(d.Statements, deny("NeverDelete", destroys, "*"))
	d.Statements = append(d.Statements, denies...)
	return d
}
