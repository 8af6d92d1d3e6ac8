"""Comparison of models: `python -m tuning.compare`."""
