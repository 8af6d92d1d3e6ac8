resource "google_container_cluster" "clickbait" {
  name     = var.cluster_name
  location = var.region # regional: the control plane outlives a zone

  network             = google_compute_network.clickbait.id
  subnetwork          = google_compute_subnetwork.nodes.id
  networking_mode     = "VPC_NATIVE"
  datapath_provider   = "ADVANCED_DATAPATH" # without it a NetworkPolicy is accepted and not enforced
  deletion_protection = var.deletion_protection

  # GKE insists on a first pool; ours are below.
  remove_default_node_pool = true
  initial_node_count       = 1

  node_config {
    machine_type    = "e2-small"
    service_account = google_service_account.nodes.email
    oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]
  }

  release_channel {
    channel = "REGULAR"
  }

  maintenance_policy {
    recurring_window {
      start_time = "2026-01-03T02:00:00Z"
      end_time   = "2026-01-03T08:00:00Z"
      recurrence = "FREQ=WEEKLY;BYDAY=SA,SU"
    }
  }

  ip_allocation_policy {
    cluster_secondary_range_name  = "pods"
    services_secondary_range_name = "services"
  }

  private_cluster_config {
    enable_private_nodes = true
  }

  # No control plane address at all, public or private: the DNS endpoint, behind IAM, is the only way in.
  control_plane_endpoints_config {
    dns_endpoint_config {
      allow_external_traffic = true
    }

    ip_endpoints_config {
      enabled = false
    }
  }

  workload_identity_config {
    workload_pool = "${var.project_id}.svc.id.goog"
  }

  gateway_api_config {
    channel = "CHANNEL_STANDARD"
  }

  addons_config {
    http_load_balancing {
      disabled = false # the Gateway is made of it
    }
  }

  monitoring_config {
    enable_components = ["SYSTEM_COMPONENTS", "POD", "DEPLOYMENT", "STATEFULSET"]

    managed_prometheus {
      enabled = true
    }
  }

  logging_config {
    enable_components = ["SYSTEM_COMPONENTS", "WORKLOADS"]
  }

  cost_management_config {
    enabled = true # the bill by namespace and label
  }

  security_posture_config {
    mode               = "BASIC"
    vulnerability_mode = "VULNERABILITY_DISABLED" # images are scanned where they are built
  }

  lifecycle {
    ignore_changes = [node_config] # of the pool that is removed
  }

  depends_on = [google_project_service.needed, google_project_iam_member.nodes]
}
