"""Training: batches, augmentation, the loop, runs and their checkpoints, tracking, export to a bundle."""
