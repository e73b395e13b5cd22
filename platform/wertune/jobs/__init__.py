"""The jobs from beginning to end: a search, an evaluation."""
