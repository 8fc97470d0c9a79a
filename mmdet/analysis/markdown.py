"""Format Markdown tables."""

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[object]], align: str = '---') -> str:
    """Format a Markdown table; `align` places all columns but the first, '---:' to the right."""
    cells = [head, ['---', *[align] * (len(head) - 1)], *rows]
    return '\n'.join(f'| {" | ".join(str(cell).replace("|", "/") for cell in row)} |' for row in cells)
