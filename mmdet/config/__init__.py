"""Read, resolve and check config files."""
