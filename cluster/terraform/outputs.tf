# What the manifests, the workflows and the invoke tasks ask for: `terraform output -raw NAME`.

output "project_id" {
  description = "The project; PROJECT in the manifests."
  value       = var.project_id
}

output "region" {
  description = "The region; REGION in the manifests."
  value       = var.region
}

output "cluster_name" {
  description = "For gcloud container clusters get-credentials."
  value       = google_container_cluster.clickbait.name
}

output "namespace" {
  description = "Kubernetes namespace that IAM is bound to."
  value       = var.namespace
}

output "image_repository" {
  description = "Prefix of every image: PREFIX/clickbait-serve:TAG."
  value       = "${var.region}-docker.pkg.dev/${var.project_id}/${google_artifact_registry_repository.clickbait.repository_id}"
}

output "data_bucket" {
  description = "Headlines, datasets, scores."
  value       = google_storage_bucket.clickbait["data"].url
}

output "models_bucket" {
  description = "Runs, bundles, the registry."
  value       = google_storage_bucket.clickbait["models"].url
}

output "registry" {
  description = "CLICKBAIT_REGISTRY of whoever serves, and registry of whoever promotes."
  value       = "${google_storage_bucket.clickbait["models"].url}/registry"
}

output "workload_identity_provider" {
  description = "For google-github-actions/auth in the workflows."
  value       = google_iam_workload_identity_pool_provider.github.name
}

output "images_service_account" {
  description = "Whom the workflow that pushes images acts as."
  value       = google_service_account.ci["images"].email
}

output "deploy_service_account" {
  description = "Whom the workflow that deploys acts as."
  value       = google_service_account.ci["deploy"].email
}

output "judge_service_account" {
  description = "Whom the workflow that judges staged models acts as."
  value       = google_service_account.ci["judge"].email
}

output "cloudrun_service_account" {
  description = "Whom the Cloud Run services act as."
  value       = google_service_account.cloudrun.email
}

output "vertex_service_account" {
  description = "Whom the Vertex AI jobs act as."
  value       = google_service_account.vertex.email
}

output "kubernetes_principals" {
  description = "Whom IAM knows the Kubernetes service accounts as."
  value       = local.pods
}
