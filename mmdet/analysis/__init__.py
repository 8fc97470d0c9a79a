"""What the report commands are made of: teachers, runs, calibration and plots."""
