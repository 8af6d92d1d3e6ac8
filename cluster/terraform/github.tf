# GitHub's workflows act by a token that lives minutes (Workload Identity Federation). There is no key to leak. Each kind of workflow has an
# account of its own, with what it needs: `images` pushes images, `deploy` applies overlays, `judge` reads versions and moves an alias. GitHub
# puts the job's environment into the token, so an account can be bound to the environment, whose reviewers GitHub asks first.

locals {
  ci = {
    images = { subjects = [for ref in var.github_refs : "ref:${ref}"], display_name = "Pushes images" }
    deploy = { subjects = ["environment:${var.github_environment}"], display_name = "Applies overlays" }
    judge  = { subjects = ["environment:${var.github_environment}"], display_name = "Judges staged models" }
  }
  ci_subjects = merge([for name, one in local.ci : { for subject in one.subjects : "${name} ${subject}" => { name = name, subject = subject } }]...)
}

resource "google_service_account" "ci" {
  for_each = local.ci

  account_id   = "clickbait-ci-${each.key}"
  display_name = "${each.value.display_name} (workflows of ${var.github_repository})"

  depends_on = [google_project_service.needed]
}

resource "google_iam_workload_identity_pool" "github" {
  workload_identity_pool_id = "${var.cluster_name}-github"
  display_name              = "GitHub Actions"

  depends_on = [google_project_service.needed]
}

resource "google_iam_workload_identity_pool_provider" "github" {
  workload_identity_pool_id          = google_iam_workload_identity_pool.github.workload_identity_pool_id
  workload_identity_pool_provider_id = "github"
  display_name                       = "GitHub Actions"

  attribute_mapping = {
    "google.subject"          = "assertion.sub"
    "attribute.repository_id" = "assertion.repository_id"
    "attribute.ref"           = "assertion.ref"
  }

  # Of every repository on GitHub this one only, and of its branches those named: a pull request's run gets nothing.
  attribute_condition = "assertion.repository_id == '${var.github_repository_id}' && assertion.repository == '${var.github_repository}' && assertion.ref in ['${join("', '", var.github_refs)}']"

  oidc {
    issuer_uri = "https://token.actions.githubusercontent.com"
  }
}

resource "google_service_account_iam_member" "github" {
  for_each = local.ci_subjects

  service_account_id = google_service_account.ci[each.value.name].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "principal://iam.googleapis.com/${google_iam_workload_identity_pool.github.name}/subject/repo:${var.github_repository}:${each.value.subject}"
}

resource "google_artifact_registry_repository_iam_member" "ci" {
  location   = google_artifact_registry_repository.clickbait.location
  repository = google_artifact_registry_repository.clickbait.name
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.ci["images"].member
}

# The deployment applies objects in the cluster, and neither the cluster nor its RBAC.
resource "google_project_iam_member" "ci" {
  project = var.project_id
  role    = "roles/container.developer"
  member  = google_service_account.ci["deploy"].member
}
