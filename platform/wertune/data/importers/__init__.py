"""Recordings and transcripts that others keep in forms of their own, as rows of our manifests."""
