"""Tune Whisper to a domain."""
