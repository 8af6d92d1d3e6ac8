"""Model versions: bundles, the workspace of a new bundle, the registry, and model cards."""
