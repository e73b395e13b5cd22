"""Where versions registered before there were rooms look for their model; their `served_model.py` imports it here."""

from wertune.serving.pyfunc import TranscriptionModel

__all__ = ["TranscriptionModel"]
