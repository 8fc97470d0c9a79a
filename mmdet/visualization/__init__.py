"""Pictures: detections, what the teacher sees, learning curves.

Imports nothing by itself: `curves` needs matplotlib, `detections` and `crops` need torch, `canvas` neither.
"""
