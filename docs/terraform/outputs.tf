output "writer_role_arn" {
  description = "The chart's identity.writerRoleArn, with irsa."
  value       = aws_iam_role.cluster["writer"].arn
}

output "provisioner_role_arn" {
  description = "The chart's identity.provisionerRoleArn, with irsa."
  value       = aws_iam_role.cluster["provisioner"].arn
}

output "auditor_role_arn" {
  value = aws_iam_role.cluster["auditor"].arn
}

output "replay_role_arn" {
  value = aws_iam_role.cluster["replay"].arn
}

output "reader_role_arns" {
  value = { for tenant, role in aws_iam_role.reader : tenant => role.arn }
}
