# Who may do what. A pod is its Kubernetes service account: roles are bound to that, and there is no Google service account or key between.

locals {
  workload_pool = "principal://iam.googleapis.com/projects/${data.google_project.this.number}/locations/global/workloadIdentityPools/${var.project_id}.svc.id.goog"
  pods = {
    serve = "${local.workload_pool}/subject/ns/${var.namespace}/sa/clickbait-serve"
    train = "${local.workload_pool}/subject/ns/${var.namespace}/sa/clickbait-train"
  }

  # Member, bucket, role. objectUser reads, writes and deletes objects, and changes no bucket.
  bucket_roles = {
    serve-models    = { member = local.pods.serve, bucket = "models", role = "roles/storage.objectViewer" }
    train-models    = { member = local.pods.train, bucket = "models", role = "roles/storage.objectUser" }
    train-data      = { member = local.pods.train, bucket = "data", role = "roles/storage.objectUser" }
    cloudrun-models = { member = google_service_account.cloudrun.member, bucket = "models", role = "roles/storage.objectViewer" }
    vertex-models   = { member = google_service_account.vertex.member, bucket = "models", role = "roles/storage.objectUser" }
    vertex-data     = { member = google_service_account.vertex.member, bucket = "data", role = "roles/storage.objectUser" }
    ci-models       = { member = google_service_account.ci.member, bucket = "models", role = "roles/storage.objectUser" }
    ci-data         = { member = google_service_account.ci.member, bucket = "data", role = "roles/storage.objectViewer" }
  }
}

resource "google_storage_bucket_iam_member" "clickbait" {
  for_each = local.bucket_roles

  bucket = google_storage_bucket.clickbait[each.value.bucket].name
  role   = each.value.role
  member = each.value.member

  depends_on = [google_container_cluster.clickbait] # the workload pool is there once the first cluster is
}

# The machines: logs, metrics, and to pull images. The Compute Engine default account may edit the whole project.
resource "google_service_account" "nodes" {
  account_id   = "clickbait-nodes"
  display_name = "GKE nodes of ${var.cluster_name}"

  depends_on = [google_project_service.needed]
}

resource "google_project_iam_member" "nodes" {
  project = var.project_id
  role    = "roles/container.defaultNodeServiceAccount"
  member  = google_service_account.nodes.member
}

# Cloud Run and Vertex AI know no Kubernetes service accounts.
resource "google_service_account" "cloudrun" {
  account_id   = "clickbait-cloudrun"
  display_name = "Cloud Run services of cluster/cloudrun"

  depends_on = [google_project_service.needed]
}

resource "google_service_account" "vertex" {
  account_id   = "clickbait-vertex"
  display_name = "Vertex AI jobs of cluster/vertex"

  depends_on = [google_project_service.needed]
}

resource "google_secret_manager_secret_iam_member" "cloudrun" {
  secret_id = google_secret_manager_secret.api_keys.id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.cloudrun.member
}

resource "google_artifact_registry_repository_iam_member" "readers" {
  for_each = {
    nodes    = google_service_account.nodes.member
    cloudrun = google_service_account.cloudrun.member
    vertex   = google_service_account.vertex.member
  }

  location   = google_artifact_registry_repository.clickbait.location
  repository = google_artifact_registry_repository.clickbait.name
  role       = "roles/artifactregistry.reader"
  member     = each.value
}
