"""What tools/benchmark.py measures: the toolbox beside a baseline and torchvision, with a parity check."""
