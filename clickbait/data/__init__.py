"""From raw headlines to a dataset: readers, sources, cleaning and splits, datasets on disk, soft labels, the
download.
"""
