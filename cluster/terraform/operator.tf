# The charts also install the custom resource definitions; the manifests of cluster/kuberay are checked against
# those of KubeRay 1.7.0: 1.7.1 mends the operator and changes no field (its CRDs are not at hand here).
resource "helm_release" "kuberay" {
  name             = "kuberay-operator"
  repository       = "https://ray-project.github.io/kuberay-helm/"
  chart            = "kuberay-operator"
  version          = "1.7.1"
  namespace        = "kuberay-system" # the one that cluster/kuberay's NetworkPolicy lets in
  create_namespace = true
  atomic           = true # a release that does not come up is taken back
  timeout          = 600

  values = [
    file("${path.module}/../kuberay/operator-values.yaml"),
    yamlencode({ image = { repository = "${local.mirror_prefix}/quay/kuberay/operator" } }),
  ]

  depends_on = [google_container_node_pool.pool, google_artifact_registry_repository_iam_member.mirror]
}

# Holds GPU jobs until all of their GPUs are free (overlay gke-gpu). Only where there are GPUs: its webhooks refuse every Ray resource while it
# does not answer (failurePolicy: Fail), and the plain service must not depend on that.
resource "helm_release" "kueue" {
  count = var.gpu_max_nodes > 0 ? 1 : 0

  name             = "kueue"
  repository       = "oci://registry.k8s.io/kueue/charts"
  chart            = "kueue"
  version          = "0.14.2"
  namespace        = "kueue-system"
  create_namespace = true
  atomic           = true
  timeout          = 600

  # Two, so that a drained node takes no webhook with it.
  values = [yamlencode({
    controllerManager = {
      replicas = 2
      manager  = { image = { repository = "${local.mirror_prefix}/registry-k8s/kueue/kueue" } }
    }
  })]

  depends_on = [helm_release.kuberay] # it looks for Ray's resources when it starts
}
