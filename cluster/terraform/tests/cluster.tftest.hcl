# terraform test: what is made of the variables, and which are refused. No cloud: the providers are mocked.

mock_provider "google" {
  mock_data "google_project" {
    defaults = {
      number = "123456789012"
    }
  }
}

mock_provider "helm" {}

variables {
  project_id           = "my-project-123456"
  github_repository    = "owner/clickbait-on-ray"
  github_repository_id = "123456789"
  alert_email          = "on-call@example.com"
}

run "what_the_manifests_and_workflows_use" {
  assert {
    condition     = output.image_repository == "europe-west4-docker.pkg.dev/my-project-123456/clickbait"
    error_message = "cluster/kuberay pulls from REGION-docker.pkg.dev/PROJECT/clickbait"
  }

  assert {
    condition     = { for name, bucket in google_storage_bucket.clickbait : name => bucket.name } == { data = "my-project-123456-clickbait-data", models = "my-project-123456-clickbait-models" }
    error_message = "the manifests and cluster/places.py name the buckets PROJECT-clickbait-data and PROJECT-clickbait-models"
  }

  assert {
    condition     = output.kubernetes_principals["serve"] == "principal://iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/my-project-123456.svc.id.goog/subject/ns/clickbait/sa/clickbait-serve"
    error_message = "IAM is bound to the Kubernetes service account itself"
  }

  assert {
    condition     = google_iam_workload_identity_pool_provider.github.attribute_condition == "assertion.repository_id == '123456789' && assertion.repository == 'owner/clickbait-on-ray' && assertion.ref in ['refs/heads/main']"
    error_message = "this repository's main, and nothing else on GitHub"
  }

  assert {
    condition     = !strcontains(jsonencode(google_project_iam_member.ci), "roles/owner") && !strcontains(jsonencode(google_project_iam_member.ci), "roles/editor")
    error_message = "CI does not own the project"
  }
}

run "pools_scale_from_zero_but_for_the_one_that_must_not" {
  assert {
    condition     = { for name, pool in google_container_node_pool.pool : name => pool.autoscaling[0].total_min_node_count } == { system = 1, cpu = 0, gpu-spot = 0 }
    error_message = "cpu and gpu-spot cost nothing while nobody needs them"
  }

  assert {
    condition     = toset(google_container_node_pool.pool["gpu-spot"].node_locations) == toset(["europe-west4-a", "europe-west4-b", "europe-west4-c"])
    error_message = "L4 machines come up in the zones that have L4s"
  }

  assert {
    condition     = google_container_node_pool.pool["gpu-spot"].node_config[0].guest_accelerator[0].type == "nvidia-l4" && length(google_container_node_pool.pool["cpu"].node_config[0].guest_accelerator) == 0
    error_message = "one pool has GPUs, and they are L4s"
  }

  assert {
    condition     = [for name, pool in google_container_node_pool.pool : name if length(pool.node_config[0].taint) > 0] == ["gpu-spot"]
    error_message = "spot machines are for pods that tolerate them"
  }
}

run "only_runs_are_deleted_by_age" {
  assert {
    condition     = [for rule in google_storage_bucket.clickbait["models"].lifecycle_rule : one(rule.condition).matches_prefix if one(rule.condition).age == 90] == [tolist(["runs/"])]
    error_message = "bundles and the registry are kept"
  }
}

run "every_alert_reaches_somebody" {
  assert {
    condition     = google_monitoring_notification_channel.email.labels["email_address"] == "on-call@example.com"
    error_message = "alerts go to alert_email"
  }

  assert {
    condition     = alltrue([for policy in concat(values(google_monitoring_alert_policy.rule), values(google_monitoring_alert_policy.log)) : policy.notification_channels == tolist([google_monitoring_notification_channel.email.name])])
    error_message = "an alert without a channel reaches nobody"
  }

  assert {
    condition     = length(google_monitoring_alert_policy.rule) == length(flatten([for file in ["rules.yaml", "rules-kubernetes.yaml"] : [for group in yamldecode(file("../monitoring/${file}")).groups : group.rules]]))
    error_message = "each rule of cluster/monitoring is a policy"
  }

  assert {
    condition     = [for name in ["ClickbaitNoReplica", "ClickbaitVersionsMixed", "ClickbaitVersionRefused"] : google_monitoring_alert_policy.rule[name].conditions[0].condition_prometheus_query_language[0].duration] == ["120s", "1800s", "0s"]
    error_message = "Google's durations are seconds: 2m, 30m and none"
  }

  assert {
    condition     = toset([for policy in values(google_monitoring_alert_policy.rule) : policy.conditions[0].condition_prometheus_query_language[0].evaluation_interval]) == toset(["30s", "60s", "300s"])
    error_message = "Google evaluates every 30 seconds or a multiple of that"
  }

  assert {
    condition     = google_monitoring_alert_policy.rule["ClickbaitNoReplica"].severity == "CRITICAL" && google_monitoring_alert_policy.rule["ClickbaitSlow"].severity == "WARNING"
    error_message = "a page is critical, a ticket is a warning"
  }

  assert {
    condition     = strcontains(google_monitoring_alert_policy.rule["ClickbaitJobFailed"].documentation[0].content, "The job $${metric_or_resource.label.name} failed") && !strcontains(join("", [for policy in values(google_monitoring_alert_policy.rule) : policy.documentation[0].content]), "{{")
    error_message = "a label is written as Google writes it"
  }
}

run "an_address_is_an_address" {
  command = plan

  variables {
    alert_email = "on-call"
  }

  expect_failures = [var.alert_email]
}

run "a_name_is_no_project_id" {
  command = plan

  variables {
    project_id = "My Project"
  }

  expect_failures = [var.project_id]
}

run "a_region_without_l4" {
  command = plan

  variables {
    region = "europe-north1"
  }

  expect_failures = [var.region]
}

run "a_repository_is_owner_and_name" {
  command = plan

  variables {
    github_repository    = "https://github.com/owner/name"
    github_repository_id = "owner"
  }

  expect_failures = [var.github_repository, var.github_repository_id]
}

run "a_pull_request_may_not_deploy" {
  command = plan

  variables {
    github_refs = ["refs/pull/1/merge"]
  }

  expect_failures = [var.github_refs]
}

run "bounds" {
  command = plan

  variables {
    cpu_max_nodes      = 0
    gpu_max_nodes      = 1.5
    run_retention_days = 1
    cluster_name       = "Clickbait"
    namespace          = "click_bait"
  }

  expect_failures = [var.cpu_max_nodes, var.gpu_max_nodes, var.run_retention_days, var.cluster_name, var.namespace]
}

run "no_webhook_stands_before_the_plain_service" {
  assert {
    condition     = length(helm_release.kueue) == 0
    error_message = "Kueue's webhooks refuse every Ray resource while it does not answer: not without GPU jobs"
  }
}

run "kueue_is_there_for_gpu_jobs_and_survives_a_drain" {
  variables {
    gpu_max_nodes = 4
  }

  assert {
    condition     = length(helm_release.kueue) == 1 && yamldecode(helm_release.kueue[0].values[0]).controllerManager.replicas == 2
    error_message = "the queue of the overlay gke-gpu needs Kueue, twice"
  }
}

run "the_nodes_pull_third_parties_images_from_mirrors" {
  variables {
    gpu_max_nodes = 4
  }

  assert {
    condition     = { for name, mirror in google_artifact_registry_repository.mirror : name => mirror.remote_repository_config[0].docker_repository[0].custom_repository[0].uri if mirror.mode == "REMOTE_REPOSITORY" } == { docker-hub = "https://registry-1.docker.io", quay = "https://quay.io", registry-k8s = "https://registry.k8s.io" }
    error_message = "the overlay gke and the charts name these mirrors"
  }

  assert {
    condition     = { for name, grant in google_artifact_registry_repository_iam_member.mirror : name => grant.role } == { docker-hub = "roles/artifactregistry.reader", quay = "roles/artifactregistry.reader", registry-k8s = "roles/artifactregistry.reader" }
    error_message = "the nodes read every mirror, and nobody writes there"
  }

  assert {
    condition     = yamldecode(helm_release.kuberay.values[1]).image.repository == "europe-west4-docker.pkg.dev/my-project-123456/quay/kuberay/operator" && yamldecode(helm_release.kueue[0].values[0]).controllerManager.manager.image.repository == "europe-west4-docker.pkg.dev/my-project-123456/registry-k8s/kueue/kueue"
    error_message = "the operators come from the mirrors too"
  }
}

run "who_publishes_cannot_replace" {
  assert {
    condition     = { for name, grant in google_storage_bucket_iam_member.clickbait : name => grant.role if length(grant.condition) > 0 && strcontains(try(grant.condition[0].expression, ""), "versions/") } == { train-models-publish = "roles/storage.objectCreator", train-models-write = "roles/storage.objectUser", vertex-models-write = "roles/storage.objectUser", judge-models-alias = "roles/storage.objectUser" }
    error_message = "below versions/ objects are created, and neither replaced nor deleted"
  }

  assert {
    condition     = alltrue([for name, grant in google_storage_bucket_iam_member.clickbait : startswith(grant.condition[0].expression, "!") if length(grant.condition) > 0 && grant.role == "roles/storage.objectUser"])
    error_message = "objectUser deletes: anywhere but below versions/"
  }

  assert {
    condition     = [for name, grant in google_storage_bucket_iam_member.clickbait : name if length(grant.condition) > 0 && strcontains(try(grant.condition[0].expression, ""), "aliases/production.json")] == ["train-models-write", "vertex-models-write"]
    error_message = "training does not move production"
  }

  assert {
    condition     = { for key, one in google_service_account_iam_member.github : key => regex("subject/(.*)$", one.member)[0] } == { "images ref:refs/heads/main" = "repo:owner/clickbait-on-ray:ref:refs/heads/main", "deploy environment:production" = "repo:owner/clickbait-on-ray:environment:production", "judge environment:production" = "repo:owner/clickbait-on-ray:environment:production" }
    error_message = "each workflow has its own account, and what changes production has the environment's reviewers before it"
  }
}
