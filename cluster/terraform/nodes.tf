locals {
  pools = {
    # What must always run: Ray's head, Redis, the operators, GKE's own pods. Not spot, and never zero.
    system = { machine = "e2-standard-4", disk_gb = 50, min = 1, max = 3, spot = false, gpu = false }
    # Replicas of Serve, preprocess, training without GPUs.
    cpu = { machine = "n2-standard-8", disk_gb = 100, min = 0, max = var.cpu_max_nodes, spot = false, gpu = false }
    # Workers that training may lose: it resumes (docs/pipeline.md).
    gpu-spot = { machine = "g2-standard-8", disk_gb = 100, min = 0, max = var.gpu_max_nodes, spot = true, gpu = true }
  }
  l4_zones = jsondecode(file("${path.module}/../l4_zones.json")).zones[var.region]
}

resource "google_container_node_pool" "pool" {
  for_each = local.pools

  name           = each.key
  cluster        = google_container_cluster.clickbait.id
  node_locations = each.value.gpu ? local.l4_zones : null

  initial_node_count = each.value.min > 0 ? 1 : 0 # a zone

  autoscaling {
    total_min_node_count = each.value.min
    total_max_node_count = each.value.max
    location_policy      = each.value.spot ? "ANY" : "BALANCED" # ANY: the zone that has spare machines
  }

  management {
    auto_repair  = true
    auto_upgrade = true
  }

  upgrade_settings {
    max_surge       = 1
    max_unavailable = 0
  }

  node_config {
    machine_type    = each.value.machine
    disk_type       = "pd-balanced"
    disk_size_gb    = each.value.disk_gb
    image_type      = "COS_CONTAINERD"
    spot            = each.value.spot
    service_account = google_service_account.nodes.email
    oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"] # IAM decides, not the scope
    tags            = ["${var.cluster_name}-node"]

    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }

    workload_metadata_config {
      mode = "GKE_METADATA" # pods get their own identity, never the node's
    }

    # A pod that may be preempted says so with a toleration.
    dynamic "taint" {
      for_each = each.value.spot ? ["spot"] : []

      content {
        key    = "cloud.google.com/gke-spot"
        value  = "true"
        effect = "NO_SCHEDULE"
      }
    }

    # GKE taints the pool itself: nvidia.com/gpu=present:NoSchedule.
    dynamic "guest_accelerator" {
      for_each = each.value.gpu ? ["nvidia-l4"] : []

      content {
        type  = guest_accelerator.value
        count = 1

        gpu_driver_installation_config {
          gpu_driver_version = "DEFAULT"
        }
      }
    }
  }

  lifecycle {
    ignore_changes = [initial_node_count] # the autoscaler's, from the first minute on
  }
}
