"""Config resolution, checkpoint loading, checks of the environment."""
