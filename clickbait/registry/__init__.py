"""Model versions: the bundle on disk, the workspace of one in the making, versions and aliases, the model
card.
"""
