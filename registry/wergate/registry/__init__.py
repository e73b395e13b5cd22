"""MLflow's registry: versions, cards, locks."""
