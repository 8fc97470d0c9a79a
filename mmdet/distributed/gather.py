"""Gather values of all processes as tensors: nothing that one receives from another is unpickled."""

import torch
from mmengine import dist
from torch import Tensor


def gather_rows(rows: Tensor) -> list[Tensor]:
    """Gather the tensor (rows, columns) of every process; the number of rows may differ."""
    counts = [int(count) for count in dist.all_gather(torch.tensor([len(rows)]))]
    padded = rows.new_zeros(max(counts), rows.shape[1])
    padded[: len(rows)] = rows
    gathered = dist.all_gather(padded) if max(counts) else [padded] * len(counts)
    return [part[:count] for part, count in zip(gathered, counts, strict=True)]


def gather_text(text: str) -> list[str]:
    """Gather the text of every process."""
    encoded = torch.tensor(list(text.encode(errors='surrogateescape')), dtype=torch.uint8)
    rows = gather_rows(encoded[:, None])
    return [bytes(row[:, 0].tolist()).decode(errors='surrogateescape') for row in rows]
