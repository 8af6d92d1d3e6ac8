"""Batch scoring without Ray: how files become parts, parts become rows, and rows become scored Parquet."""
