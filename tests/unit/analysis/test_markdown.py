import re
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure

from mmdet.analysis.markdown import table, write_page


def test_a_table_and_a_bar_in_a_cell() -> None:
    assert table(('row', 'AP'), [('a|b', 1.5)], '---:') == '| row | AP |\n| --- | ---: |\n| a/b | 1.5 |'


def test_a_page_holds_all_it_shows_and_runs_nothing(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / 'photo.jpg'), np.zeros((4, 4, 3), np.uint8))
    cv2.imwrite(str(tmp_path / 'plot.png'), np.zeros((4, 4, 3), np.uint8))
    figure = Figure()
    figure.subplots().plot([0, 1], color='#333333')
    figure.savefig(tmp_path / 'curve.svg')
    cells = table(('class', 'AP'), [('狗 <script>alert(1)</script>', 1.5)], '---:')
    pictures = '![a <b>](photo.jpg) ![c](plot.png) ![d](curve.svg)'
    page = write_page(tmp_path / 'report.md', f'# Report & more\n\n{cells}\n\n{pictures}\n')
    assert page == tmp_path / 'report.html'
    text = page.read_text()
    assert '<title>Report &amp; more</title>' in text
    assert '<td>狗 &lt;script&gt;' in text and '<script' not in text
    assert re.findall('<img src="(.*?),', text) == ['data:image/jpeg;base64', 'data:image/png;base64']
    assert 'alt="a &lt;b&gt;"' in text
    assert text.count('<svg role="img" aria-label="d"') == 1
    assert 'stroke: currentColor' in text and '#333333' not in text
    names_not_addresses = re.sub(r'xmlns(:\w+)?="[^"]*"', '', text)
    assert 'http' not in names_not_addresses and 'url(http' not in text
