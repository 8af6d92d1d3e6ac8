# The cluster and all that it needs, in one state. cluster/README.md has the commands, in order.
#     terraform init -backend-config="bucket=PROJECT-clickbait-tfstate"
#     terraform apply

terraform {
  required_version = ">= 1.9, < 2.0" # 1.9: a variable's validation may look at something else than itself

  # The bucket is made once, by hand, before the first init: it cannot hold its own state (cluster/README.md, step 2).
  backend "gcs" {
    prefix = "clickbait/cluster"
  }

  required_providers {
    google = {
      source = "hashicorp/google"
      # Exactly: tests/cluster/provider_schema.json is this version's, and the tests hold every attribute against it.
      version = "6.50.0"
    }
    helm = {
      source  = "hashicorp/helm"
      version = "3.1.1"
    }
  }
}

provider "google" {
  project = var.project_id
  region  = var.region
}

data "google_client_config" "current" {}

# By the DNS endpoint: Google's front end checks the caller's IAM, and has a public certificate. There is no address to allow-list.
provider "helm" {
  kubernetes = {
    host  = "https://${google_container_cluster.clickbait.control_plane_endpoints_config[0].dns_endpoint_config[0].endpoint}"
    token = data.google_client_config.current.access_token
  }
}
