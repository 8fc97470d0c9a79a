"""What this package adds to or corrects in MMEngine."""
