"""What tools/benchmark.py measures: this toolbox, a baseline and torchvision, with a parity check."""
