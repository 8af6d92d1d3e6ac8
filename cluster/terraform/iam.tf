# Who may do what. A pod is its Kubernetes service account: roles are bound to that, and there is no Google service account or key between.

locals {
  workload_pool = "principal://iam.googleapis.com/projects/${data.google_project.this.number}/locations/global/workloadIdentityPools/${var.project_id}.svc.id.goog"
  pods = {
    serve = "${local.workload_pool}/subject/ns/${var.namespace}/sa/clickbait-serve"
    train = "${local.workload_pool}/subject/ns/${var.namespace}/sa/clickbait-train"
  }

  # A published version never changes: whoever publishes may create objects there, and neither replace nor delete one.
  # Training puts candidates on the alias `canary`; `production` is moved by the workflow that judges, or by a person.
  registry   = "projects/_/buckets/${local.buckets["models"]}/objects/registry/clickbait-model"
  versions   = "${local.registry}/versions/"
  production = "${local.registry}/aliases/production.json"
  conditions = {
    versions  = { title = "published-versions", expression = "resource.name.startsWith(\"${local.versions}\")" }
    elsewhere = { title = "but-for-versions", expression = "!resource.name.startsWith(\"${local.versions}\")" }
    training  = { title = "but-for-versions-and-production", expression = "!resource.name.startsWith(\"${local.versions}\") && resource.name != \"${local.production}\"" }
  }

  # Member, bucket, role, and where: everywhere, below `versions` alone, anywhere but there, or (training) nor on `production` either. objectUser reads, writes, replaces and
  # deletes objects, and changes no bucket. A list is asked of the bucket and not of an object, so it needs a role without a condition.
  bucket_roles = {
    serve-models         = { member = local.pods.serve, bucket = "models", role = "roles/storage.objectViewer", where = "everywhere" }
    train-models         = { member = local.pods.train, bucket = "models", role = "roles/storage.objectViewer", where = "everywhere" }
    train-models-publish = { member = local.pods.train, bucket = "models", role = "roles/storage.objectCreator", where = "versions" }
    train-models-write   = { member = local.pods.train, bucket = "models", role = "roles/storage.objectUser", where = "training" }
    train-data           = { member = local.pods.train, bucket = "data", role = "roles/storage.objectUser", where = "everywhere" }
    cloudrun-models      = { member = google_service_account.cloudrun.member, bucket = "models", role = "roles/storage.objectViewer", where = "everywhere" }
    vertex-models        = { member = google_service_account.vertex.member, bucket = "models", role = "roles/storage.objectViewer", where = "everywhere" }
    vertex-models-write  = { member = google_service_account.vertex.member, bucket = "models", role = "roles/storage.objectUser", where = "training" }
    vertex-data          = { member = google_service_account.vertex.member, bucket = "data", role = "roles/storage.objectUser", where = "everywhere" }
    judge-models         = { member = google_service_account.ci["judge"].member, bucket = "models", role = "roles/storage.objectViewer", where = "everywhere" }
    judge-models-alias   = { member = google_service_account.ci["judge"].member, bucket = "models", role = "roles/storage.objectUser", where = "elsewhere" }
    judge-data           = { member = google_service_account.ci["judge"].member, bucket = "data", role = "roles/storage.objectViewer", where = "everywhere" }
  }
}

resource "google_storage_bucket_iam_member" "clickbait" {
  for_each = local.bucket_roles

  bucket = google_storage_bucket.clickbait[each.value.bucket].name
  role   = each.value.role
  member = each.value.member

  dynamic "condition" {
    for_each = each.value.where == "everywhere" ? [] : [local.conditions[each.value.where]]

    content {
      title      = condition.value.title
      expression = condition.value.expression
    }
  }

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

# Whoever reads a mirror also makes it fetch what it does not have yet. Nobody may write there.
resource "google_artifact_registry_repository_iam_member" "mirror" {
  for_each = google_artifact_registry_repository.mirror

  location   = each.value.location
  repository = each.value.name
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.nodes.member
}
