"""From a laptop to a cluster: images, KubeRay, Terraform, Cloud Run, Vertex AI, and the chores that drive
them.
"""
