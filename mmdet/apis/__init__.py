"""Detection from Python in two calls."""
