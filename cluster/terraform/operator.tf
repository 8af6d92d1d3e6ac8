# The charts also install the custom resource definitions; the manifests of cluster/kuberay are checked against this KubeRay's.
resource "helm_release" "kuberay" {
  name             = "kuberay-operator"
  repository       = "https://ray-project.github.io/kuberay-helm/"
  chart            = "kuberay-operator"
  version          = "1.7.0"
  namespace        = "kuberay-system" # the one that cluster/kuberay's NetworkPolicy lets in
  create_namespace = true
  atomic           = true # a release that does not come up is taken back
  timeout          = 600

  # What the manifests use, said here so that no chart's default decides it.
  values = [yamlencode({
    featureGates = [
      { name = "RayClusterStatusConditions", enabled = true },
      { name = "RayJobDeletionPolicy", enabled = true },
      { name = "RayServiceIncrementalUpgrade", enabled = true },
    ]
  })]

  depends_on = [google_container_node_pool.pool]
}

# Holds GPU jobs until all of their GPUs are to be had (overlay gke-gpu).
resource "helm_release" "kueue" {
  name             = "kueue"
  repository       = "oci://registry.k8s.io/kueue/charts"
  chart            = "kueue"
  version          = "0.14.2"
  namespace        = "kueue-system"
  create_namespace = true
  atomic           = true
  timeout          = 600

  depends_on = [helm_release.kuberay] # it looks for Ray's resources when it starts
}
