"""The `main` of every command: `distill-det NAME`, or `python tools/NAME.py`."""
