"""MLflow: the only place of this package, beside the served model, that knows it."""
