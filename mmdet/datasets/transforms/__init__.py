"""Augmentations under their MMDetection names."""
