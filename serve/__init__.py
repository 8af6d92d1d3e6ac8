"""The serving half: imports nothing from training, needs neither torch nor transformers."""
