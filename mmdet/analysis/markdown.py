"""Format Markdown tables, and write reports as Markdown and as one HTML page."""

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path

from markdown_it import MarkdownIt

THEME = {  # colors of matplotlib's SVG pictures -> what they are on the page, light or dark
    '#000000': 'currentColor', '#333333': 'currentColor', '#dddddd': 'var(--line)', '#ffffff': 'var(--page)',
}  # fmt: skip
SMALLEST = 0.7  # of its size may a drawing shrink, so that its letters stay readable; then it scrolls
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark;
  --page: #ffffff; --ink: #22262b; --quiet: #5f6b76; --line: #dde2e7; --band: #f4f6f8; }}
@media (prefers-color-scheme: dark) {{ :root {{
  --page: #15181c; --ink: #e3e6e9; --quiet: #9ba6b1; --line: #363c44; --band: #1e2227; }}
  svg image, svg [style*='#'] {{ filter: brightness(1.5); }} }}  /* what has a color of its own */
body {{ max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem;
  background: var(--page); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }}
h1 {{ font-size: 1.7rem; }}
h2 {{ margin-top: 2.8rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); font-size: 1.3rem; }}
h3 {{ margin-top: 2rem; font-size: 1.05rem; }}
p, li {{ max-width: 46rem; overflow-wrap: anywhere; }}
p:has(img), p:has(svg) {{ max-width: none; overflow-x: auto; }}
img, svg {{ max-width: 100%; height: auto; margin-bottom: .6rem; vertical-align: top; }}
svg {{ fill: currentColor; }}
table {{ display: block; overflow-x: auto; border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: left;
  white-space: nowrap; }}
th {{ color: var(--quiet); font-weight: 600; }}
tbody tr:hover {{ background: var(--band); }}
code, pre {{ background: var(--band); border-radius: 4px; font-size: .9em; }}
code {{ padding: .1em .3em; }}
pre {{ padding: .8rem; overflow-x: auto; }}
pre code {{ padding: 0; }}
</style>
</head>
<body>
{body}</body>
</html>
"""


def table(head: Sequence[str], rows: Sequence[Sequence[object]], align: str = '---') -> str:
    """Format a Markdown table; `align` places all columns but the first, '---:' to the right."""
    cells = [head, ['---', *[align] * (len(head) - 1)], *rows]
    return '\n'.join(f'| {" | ".join(str(cell).replace("|", "/") for cell in row)} |' for row in cells)


def write_page(file: Path, text: str) -> Path:
    """Write Markdown to a file, and the same beside it as an HTML page that needs no other file.

    The page holds its pictures, loads nothing from a network, runs no script, and is light or dark as the
    reader's system is.

    Args:
        file: FILE.md; its pictures lie in its folder.
        text: Markdown that begins with a title.

    Returns:
        FILE.html.
    """
    file.write_text(text, encoding='utf-8')
    body = MarkdownIt('commonmark', {'html': False}).enable('table').render(text)
    body = re.sub(
        '<img src="(.+?)" alt="(.*?)" />', lambda found: _embed(file.parent / found[1], found[2]), body
    )
    title = html.escape(text.partition('\n')[0].lstrip('# '))
    page = file.with_suffix('.html')
    page.write_text(PAGE.format(title=title, body=body), encoding='utf-8')
    return page


def _embed(picture: Path, alt: str) -> str:
    """Turn a picture into an element that holds it; a drawing takes the colors of the page."""
    if picture.suffix != '.svg':
        data = base64.b64encode(picture.read_bytes()).decode()
        kind = 'png' if picture.suffix == '.png' else 'jpeg'
        return f'<img src="data:image/{kind};base64,{data}" alt="{alt}">'
    drawing = picture.read_text(encoding='utf-8').partition('<svg')[2]
    drawing = re.sub('<metadata>.*?</metadata>', '', drawing, flags=re.DOTALL)
    drawing = re.sub('|'.join(THEME), lambda found: THEME[found[0]], drawing)
    width = float(re.findall(r'width="([\d.]+)pt"', drawing)[0])
    return f'<svg role="img" aria-label="{alt}" style="min-width: {SMALLEST * width:.0f}pt"{drawing}'
