// Package terraform evaluates the example of docs/terraform without Terraform, as far as its
// language goes: that is parsed, and what comes out is compared with what tenantlogs makes
// itself. What it can't tell is whether the providers' schemas are met. It is a module of its own,
// for nothing else needs that language.
package terraform
