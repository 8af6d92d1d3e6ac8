"""The search over hyperparameters: `python -m tuning.sweep`."""
