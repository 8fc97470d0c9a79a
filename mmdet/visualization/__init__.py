"""Pictures: detections, what the teacher sees, learning curves.

Import `mmdet.visualization.curves` by its own name: it loads matplotlib's drawing, which the others do not.
"""

from mmdet.visualization.crops import draw_crops
from mmdet.visualization.detections import class_colour, draw_detections, draw_side_by_side
from mmdet.visualization.sheets import tile, with_title

__all__ = ['class_colour', 'draw_crops', 'draw_detections', 'draw_side_by_side', 'tile', 'with_title']
