"""Pictures: detections, what the teacher sees, learning curves.

Import `mmdet.visualization.curves` by its own name: it loads matplotlib's drawing, which the others do not.
"""

from mmdet.visualization.canvas import tile, with_title
from mmdet.visualization.crops import draw_crops
from mmdet.visualization.detections import class_color, draw_detections, draw_side_by_side

__all__ = ['class_color', 'draw_crops', 'draw_detections', 'draw_side_by_side', 'tile', 'with_title']
