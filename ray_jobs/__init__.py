"""What `ray job submit` runs. One file, one job: `python -m ray_jobs.<name> --config configs/<name>.yaml`."""
