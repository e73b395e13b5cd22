"""The commands that move versions."""
