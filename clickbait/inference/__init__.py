"""A bundle and texts in, scores out: tokenizing, backends, the scorer, the cache of optimised graphs."""
