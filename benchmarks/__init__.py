"""What tools/benchmark.py measures: the toolbox beside the stock way and torchvision, with a parity check."""
