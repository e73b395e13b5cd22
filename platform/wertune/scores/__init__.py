"""Numbers: texts compared, rates and their confidence, the report that the gates read."""
