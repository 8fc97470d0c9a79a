"""Pictures: detections, what the teacher sees, learning curves."""
