"""Models side by side: `python -m tuning.compare`."""
