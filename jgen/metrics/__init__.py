"""Numbers that compare a model with data."""
