# MMDetection's name of ssd512.py
_base_ = './ssd512.py'
