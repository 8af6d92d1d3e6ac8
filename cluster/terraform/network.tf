resource "google_compute_network" "clickbait" {
  name                    = var.cluster_name
  auto_create_subnetworks = false

  depends_on = [google_project_service.needed]
}

# Pods: 32 addresses for each of up to 128 nodes would be a /20; a /16 is never the limit. Services: 4,096.
resource "google_compute_subnetwork" "nodes" {
  name                     = "${var.cluster_name}-nodes"
  network                  = google_compute_network.clickbait.id
  region                   = var.region
  ip_cidr_range            = "10.10.0.0/20"
  private_ip_google_access = true # buckets and images without the NAT, and without its price

  secondary_ip_range {
    range_name    = "pods"
    ip_cidr_range = "10.20.0.0/16"
  }

  secondary_ip_range {
    range_name    = "services"
    ip_cidr_range = "10.30.0.0/20"
  }
}

# Where a regional Gateway's proxies get their addresses; Google refuses the Gateway without it.
resource "google_compute_subnetwork" "proxies" {
  name          = "${var.cluster_name}-proxies"
  network       = google_compute_network.clickbait.id
  region        = var.region
  ip_cidr_range = "10.40.0.0/23"
  purpose       = "REGIONAL_MANAGED_PROXY"
  role          = "ACTIVE"
}

# The Gateway's proxies and Google's health checks, to Serve's port and no other.
resource "google_compute_firewall" "gateway" {
  name          = "${var.cluster_name}-gateway"
  network       = google_compute_network.clickbait.id
  direction     = "INGRESS"
  source_ranges = [google_compute_subnetwork.proxies.ip_cidr_range, "130.211.0.0/22", "35.191.0.0/16"]
  target_tags   = ["${var.cluster_name}-node"]

  allow {
    protocol = "tcp"
    ports    = ["8000"]
  }
}

# Nodes have no public address. W&B, the model hub and GitHub are reached through here.
resource "google_compute_router" "clickbait" {
  name    = var.cluster_name
  network = google_compute_network.clickbait.id
  region  = var.region
}

resource "google_compute_router_nat" "clickbait" {
  name                               = var.cluster_name
  router                             = google_compute_router.clickbait.name
  region                             = var.region
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "LIST_OF_SUBNETWORKS"

  subnetwork {
    name                    = google_compute_subnetwork.nodes.id
    source_ip_ranges_to_nat = ["ALL_IP_RANGES"]
  }

  log_config {
    enable = true
    filter = "ERRORS_ONLY"
  }
}
