"""The jobs that `ray job submit` runs: `python -m ray_jobs.<name> --config configs/<name>.yaml`."""
