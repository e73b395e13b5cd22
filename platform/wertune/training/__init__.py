"""One trial: a project prepared, an adapter trained, saved and scored."""
