"""Recordings and manifests: read, checked, imported, split, changed for training."""
