"""The platform's battery of ordinary speech, as data alone: a folder for each language (wertune/battery/ reads it)."""
