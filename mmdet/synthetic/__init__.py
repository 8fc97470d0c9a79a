"""Draw a data set of generated photos, for the quickstart and the tests."""
