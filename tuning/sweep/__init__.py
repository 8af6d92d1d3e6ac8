"""Hyperparameter search: `python -m tuning.sweep`."""
