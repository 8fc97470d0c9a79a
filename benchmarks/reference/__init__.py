"""The baseline, written plainly: what MMDetection 2.10 and the published distillation code do, in own code.

It is timed beside the toolbox, it is the oracle of the parity checks, and it documents what was changed for
speed. It shares no computation with `mmdet/`: only the annotation reader's boxes and the table of anchors
(which tests/golden shows to be exact) are taken from there.
"""
