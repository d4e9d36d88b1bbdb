variable "cluster" {
  description = "The EKS cluster's name."
  type        = string
}

variable "region" {
  description = "The region of the cluster and of its log groups."
  type        = string
}

variable "identity" {
  description = "How pods get their roles: pod-identity or irsa."
  type        = string
  default     = "pod-identity"
  validation {
    condition     = contains(["pod-identity", "irsa"], var.identity)
    error_message = "Use pod-identity or irsa."
  }
}

variable "oidc_provider" {
  description = "With irsa: the cluster's OIDC issuer, without https://."
  type        = string
  default     = ""
}

variable "namespace" {
  description = "The namespace of the Helm release."
  type        = string
  default     = "logs"
}

variable "service_accounts" {
  description = "The service accounts of the Helm release."
  type        = map(string)
  default = {
    writer      = "eks-tenant-logs-fluent-bit"
    provisioner = "eks-tenant-logs-provisioner"
  }
}

variable "auditors" {
  description = "ARNs of the roles or users who may assume the auditors' role."
  type        = list(string)
  default     = []
}

variable "replayers" {
  description = "ARNs of the roles or users who may assume the role of tenantlogs replay."
  type        = list(string)
  default     = []
}

variable "role_path" {
  description = "The path of roles and policies, as the provisioner's --role-path."
  type        = string
  default     = "/eks-tenant-logs/"
}

variable "readers" {
  description = "Reader roles that Terraform makes: each tenant, and the ARNs of who may assume its role. Empty: the controller makes them."
  type        = map(list(string))
  default     = {}
}
