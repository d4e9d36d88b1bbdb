# Reader roles, for those who want them from Terraform, too. The controller then runs with
# --no-reader-roles. Without this it makes one for each tenant, closes it when the tenant is retired or its
# namespace was made anew, and sets right what is changed: none of that happens to these.

data "external" "reader" {
  for_each = var.readers
  program  = concat(["sh", "-c", local.of_tenant, "sh", "reader"], local.where, [each.key])
}

resource "aws_iam_role" "reader" {
  for_each = var.readers

  name                 = "tenant-logs-reader-${var.cluster}-${each.key}"
  path                 = var.role_path
  permissions_boundary = aws_iam_policy.boundary.arn

  # The boundary goes by these two tags: without them a role reads nothing.
  tags = {
    "eks-tenant-logs/cluster" = var.cluster
    "eks-tenant-logs/tenant"  = each.key
  }

  # No sts:TagSession: a session's own tags would take the place of the role's.
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { AWS = each.value }
    }]
  })
}

resource "aws_iam_role_policy" "reader" {
  for_each = var.readers

  name   = "read-own-group"
  role   = aws_iam_role.reader[each.key].name
  policy = data.external.reader[each.key].result.json
}
