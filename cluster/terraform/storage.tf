locals {
  buckets = {
    data   = "${var.project_id}-clickbait-data"   # headlines, datasets, scores
    models = "${var.project_id}-clickbait-models" # runs, bundles, the registry
  }
}

resource "google_storage_bucket" "clickbait" {
  for_each = local.buckets

  name                        = each.value
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = !var.keep_buckets

  versioning {
    enabled = true
  }

  # An alias is an object that is overwritten: 30 days and the last 5 are enough to see what happened.
  lifecycle_rule {
    action {
      type = "Delete"
    }

    condition {
      days_since_noncurrent_time = 30
      num_newer_versions         = 5
    }
  }

  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }

    condition {
      age = 7
    }
  }

  dynamic "lifecycle_rule" {
    for_each = each.key == "models" ? ["runs/"] : []

    content {
      action {
        type = "Delete"
      }

      condition {
        age            = var.run_retention_days
        matches_prefix = [lifecycle_rule.value]
      }
    }
  }

  depends_on = [google_project_service.needed]
}

resource "google_artifact_registry_repository" "clickbait" {
  repository_id = "clickbait"
  location      = var.region
  format        = "DOCKER"
  description   = "Images of the Dockerfile's targets"

  docker_config {
    immutable_tags = true # a tag that was deployed stays what it was
  }

  cleanup_policies {
    id     = "keep-recent"
    action = "KEEP"

    most_recent_versions {
      keep_count = 20
    }
  }

  cleanup_policies {
    id     = "delete-old"
    action = "DELETE"

    condition {
      older_than = "7776000s" # 90 days
      tag_state  = "ANY"
    }
  }

  depends_on = [google_project_service.needed]
}

# Third parties' images, as the nodes pull them: a copy is kept here from the first pull on, so that a pod starts while its registry is away
# or refuses (Docker Hub limits pulls without a login). A tag is still what that registry says it is.
locals {
  mirrors = {
    docker-hub   = "https://registry-1.docker.io"
    quay         = "https://quay.io"
    registry-k8s = "https://registry.k8s.io"
  }
  mirror_prefix = "${var.region}-docker.pkg.dev/${var.project_id}"
}

resource "google_artifact_registry_repository" "mirror" {
  for_each = local.mirrors

  repository_id = each.key
  location      = var.region
  format        = "DOCKER"
  mode          = "REMOTE_REPOSITORY"
  description   = "Images of ${each.value}, kept from the first pull on"

  remote_repository_config {
    docker_repository {
      custom_repository {
        uri = each.value
      }
    }
  }

  cleanup_policies {
    id     = "delete-old"
    action = "DELETE"

    condition {
      older_than = "31536000s" # a year; what is pulled again is kept again
      tag_state  = "ANY"
    }
  }

  depends_on = [google_project_service.needed]
}

# Cloud Run's keys; its value is added by hand (cluster/README.md), so that it is never in the state.
resource "google_secret_manager_secret" "api_keys" {
  secret_id = "clickbait-api-keys"

  replication {
    user_managed {
      replicas {
        location = var.region
      }
    }
  }

  depends_on = [google_project_service.needed]
}
