"""What people read of a run: pictures, error reports, model cards."""
