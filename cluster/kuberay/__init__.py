"""The checks of the manifests in this folder, and what writes their generated parts. `python -m
cluster.manifests` runs both.
"""
