# MMDetection's name of ssd300.py
_base_ = './ssd300.py'
