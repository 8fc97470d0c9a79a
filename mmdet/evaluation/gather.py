"""Collecting results from all processes as tensors; pickled lists of a whole evaluation take minutes."""

import torch
from mmengine import dist
from torch import Tensor


def gather_rows(rows: Tensor) -> list[Tensor]:
    """The tensor (rows, columns) of every process; the number of rows may differ."""
    counts = [int(count) for count in dist.all_gather(torch.tensor([len(rows)]))]
    padded = rows.new_zeros(max(counts), rows.shape[1])
    padded[: len(rows)] = rows
    gathered = dist.all_gather(padded) if max(counts) else [padded] * len(counts)
    return [part[:count] for part, count in zip(gathered, counts, strict=True)]
