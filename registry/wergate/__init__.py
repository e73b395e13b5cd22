"""Which adapter ships: policies, decisions, stages."""
