"""A new project's files, and the schemas with which editors check them."""
