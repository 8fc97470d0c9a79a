"""Teachers, distillers and their losses: the only room that knows the word "teacher"."""
