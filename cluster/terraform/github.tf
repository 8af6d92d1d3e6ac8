# GitHub's workflows act as clickbait-ci by a token that lives minutes (Workload Identity Federation). There is no key to leak.

resource "google_service_account" "ci" {
  account_id   = "clickbait-ci"
  display_name = "Workflows of ${var.github_repository}"

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
  service_account_id = google_service_account.ci.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.github.name}/attribute.repository_id/${var.github_repository_id}"
}

resource "google_artifact_registry_repository_iam_member" "ci" {
  location   = google_artifact_registry_repository.clickbait.location
  repository = google_artifact_registry_repository.clickbait.name
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.ci.member
}

# Applies the overlays: objects in the cluster, and neither the cluster nor its RBAC.
resource "google_project_iam_member" "ci" {
  project = var.project_id
  role    = "roles/container.developer"
  member  = google_service_account.ci.member
}
