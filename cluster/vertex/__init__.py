"""Training on Vertex AI: one container, with Ray inside it on one machine."""
