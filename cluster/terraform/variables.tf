variable "project_id" {
  description = "Google Cloud project that holds everything. Billing must be on."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "project_id is the project's id, not its name or number: 6 to 30 lower-case letters, digits and hyphens (gcloud projects list)."
  }
}

variable "region" {
  description = "Region of the cluster, the images and the buckets. It must have L4 GPUs."
  type        = string
  default     = "europe-west4"

  validation {
    condition     = contains(keys(jsondecode(file("${path.module}/../l4_zones.json")).zones), var.region)
    error_message = "region has no L4 GPU in cluster/l4_zones.json: take one that has, or add it there (gcloud compute accelerator-types list --filter=name=nvidia-l4)."
  }
}

variable "cluster_name" {
  description = "Name of the GKE cluster, its network and its router."
  type        = string
  default     = "clickbait"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,28}[a-z0-9]$", var.cluster_name))
    error_message = "cluster_name is 2 to 30 lower-case letters, digits and hyphens, and starts with a letter."
  }
}

variable "namespace" {
  description = "Kubernetes namespace of the manifests in cluster/kuberay. IAM is bound to the service accounts of this namespace."
  type        = string
  default     = "clickbait"

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "namespace is a DNS label: lower-case letters, digits and hyphens."
  }
}

variable "github_repository" {
  description = "Repository whose workflows may push images and deploy, as owner/name."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", var.github_repository))
    error_message = "github_repository is owner/name, without https://github.com/."
  }
}

variable "github_repository_id" {
  description = "The repository's number, which outlives a rename: `id` in https://api.github.com/repos/OWNER/NAME. A name can be taken by others."
  type        = string

  validation {
    condition     = can(regex("^[0-9]+$", var.github_repository_id))
    error_message = "github_repository_id is digits only: `id` in https://api.github.com/repos/OWNER/NAME."
  }
}

variable "github_refs" {
  description = "Git refs whose workflow runs may act as one of the clickbait-ci accounts."
  type        = list(string)
  default     = ["refs/heads/main"]

  validation {
    condition     = length(var.github_refs) > 0 && alltrue([for ref in var.github_refs : can(regex("^refs/(heads|tags)/[A-Za-z0-9._/-]+$", ref))])
    error_message = "github_refs are whole refs, such as refs/heads/main."
  }
}

variable "github_environment" {
  description = "GitHub environment of the workflows that deploy and that judge models: its reviewers are asked before either gets a token."
  type        = string
  default     = "production"

  validation {
    condition     = can(regex("^[A-Za-z0-9._-]+$", var.github_environment))
    error_message = "github_environment is the name of an environment: letters, digits, dots, hyphens and underscores."
  }
}

variable "alert_email" {
  description = "E-mail address that every alert goes to, such as a group's. A wrong one shows only when a mail does not come."
  type        = string

  validation {
    condition     = can(regex("^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$", var.alert_email))
    error_message = "alert_email is one e-mail address, such as on-call@example.com."
  }
}

variable "cpu_max_nodes" {
  description = "Most n2-standard-8 nodes, all zones together. Ray's autoscaler asks, this is where it stops."
  type        = number
  default     = 6

  validation {
    condition     = var.cpu_max_nodes >= 1 && var.cpu_max_nodes <= 100 && floor(var.cpu_max_nodes) == var.cpu_max_nodes
    error_message = "cpu_max_nodes is a whole number from 1 to 100."
  }
}

variable "gpu_max_nodes" {
  description = "Most g2-standard-8 nodes (one L4 each), all zones together, of the spot pool; 0 installs no Kueue and runs no GPU job. The project's quota for preemptible L4 must hold as many."
  type        = number
  default     = 0

  validation {
    condition     = var.gpu_max_nodes >= 0 && var.gpu_max_nodes <= 100 && floor(var.gpu_max_nodes) == var.gpu_max_nodes
    error_message = "gpu_max_nodes is a whole number from 0 to 100."
  }
}

variable "run_retention_days" {
  description = "Days after which training runs (gs://PROJECT-clickbait-models/runs) are deleted. Bundles and the registry are kept."
  type        = number
  default     = 90

  validation {
    condition     = var.run_retention_days >= 7
    error_message = "run_retention_days is at least 7: a run that resumes must still be there."
  }
}

variable "deletion_protection" {
  description = "Refuses `terraform destroy` of the cluster. Set it to false and apply, before you take it down."
  type        = bool
  default     = true
}

variable "keep_buckets" {
  description = "Refuses `terraform destroy` of a bucket that holds anything. Set it to false and apply, to delete data and models with the rest."
  type        = bool
  default     = true
}
