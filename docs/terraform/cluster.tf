# What a cluster has one of: the boundary of the reader roles, and the roles of the nodes, the
# provisioner, auditors and replay. It is what `tenantlogs bootstrap` makes, but for the platform's log
# groups, which the controller makes.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  purposes  = toset(["writer", "provisioner", "auditor", "replay"])

  # The documents are tenantlogs' own, printed without a call to AWS: what runs with these roles is tested
  # with the same ones. The external data source wants an object of strings.
  of_cluster = "p=$(tenantlogs policy \"$1\" --region \"$2\" --account \"$3\" --cluster \"$4\" --role-path \"$5\") && printf '%s' \"$p\" | jq '{json: tojson}'"
  of_tenant  = "p=$(tenantlogs policy \"$1\" --region \"$2\" --account \"$3\" --cluster \"$4\" --role-path \"$5\" --tenant \"$6\") && printf '%s' \"$p\" | jq '{json: tojson}'"
  where      = [var.region, local.account, var.cluster, var.role_path]

  # The provisioner may make no role without the boundary: its policy says which.
  boundary_arn = one([
    for s in jsondecode(data.external.policy["provisioner"].result.json).Statement :
    s.Condition.StringEquals["iam:PermissionsBoundary"] if try(s.Sid, "") == "PutTheBoundary"
  ])
}

data "external" "policy" {
  for_each = setunion(local.purposes, ["boundary"])
  program  = concat(["sh", "-c", local.of_cluster, "sh", each.key], local.where)
}

resource "aws_iam_policy" "boundary" {
  name        = reverse(split("/", local.boundary_arn))[0]
  path        = var.role_path
  description = "What no reader role of eks-tenant-logs may exceed"
  policy      = data.external.policy["boundary"].result.json
  tags        = { "eks-tenant-logs/cluster" = var.cluster }
}

locals {
  cluster_arn = "arn:${local.partition}:eks:${var.region}:${local.account}:cluster/${var.cluster}"

  # As JSON, for the two kinds have different attributes, and a conditional takes one type.
  pods = {
    for purpose, account in var.service_accounts : purpose => var.identity == "pod-identity" ? jsonencode({
      Effect    = "Allow"
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Principal = { Service = "pods.eks.amazonaws.com" }
      Condition = {
        StringEquals = {
          "aws:SourceAccount"                         = local.account
          "aws:RequestTag/eks-cluster-arn"            = local.cluster_arn
          "aws:RequestTag/kubernetes-namespace"       = var.namespace
          "aws:RequestTag/kubernetes-service-account" = account
        }
        # Session tags take the place of the role's own, by which the policies go.
        Null = {
          "aws:RequestTag/eks-tenant-logs/cluster" = "true"
          "aws:RequestTag/eks-tenant-logs/tenant"  = "true"
        }
      }
      }) : jsonencode({
      Effect    = "Allow"
      Action    = "sts:AssumeRoleWithWebIdentity"
      Principal = { Federated = "arn:${local.partition}:iam::${local.account}:oidc-provider/${var.oidc_provider}" }
      Condition = { StringEquals = {
        "${var.oidc_provider}:aud" = "sts.amazonaws.com"
        "${var.oidc_provider}:sub" = "system:serviceaccount:${var.namespace}:${account}"
      } }
    })
  }

  people = {
    for purpose, principals in { auditor = var.auditors, replay = var.replayers } : purpose => jsonencode({
      # A role that nobody is named for is made all the same, and lets nobody in.
      Effect    = length(principals) > 0 ? "Allow" : "Deny"
      Action    = "sts:AssumeRole"
      Principal = { AWS = length(principals) > 0 ? principals : ["*"] }
    })
  }
}

resource "aws_iam_role" "cluster" {
  for_each = local.purposes

  # No role of the path but a tenant's may begin with eks-tenant-logs_: those are the provisioner's to change.
  name = "eks-tenant-logs-${each.key}-${var.cluster}"
  path = var.role_path
  tags = { "eks-tenant-logs/cluster" = var.cluster }

  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [jsondecode(merge(local.pods, local.people)[each.key])]
  })
}

resource "aws_iam_role_policy" "cluster" {
  for_each = local.purposes

  name   = "permissions"
  role   = aws_iam_role.cluster[each.key].name
  policy = data.external.policy[each.key].result.json
}

resource "aws_eks_pod_identity_association" "cluster" {
  for_each = var.identity == "pod-identity" ? var.service_accounts : {}

  cluster_name    = var.cluster
  namespace       = var.namespace
  service_account = each.value
  role_arn        = aws_iam_role.cluster[each.key].arn
}
