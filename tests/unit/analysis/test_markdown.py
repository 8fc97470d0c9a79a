from mmdet.analysis.markdown import table


def test_a_table_and_a_bar_in_a_cell() -> None:
    assert table(('row', 'AP'), [('a|b', 1.5)], '---:') == '| row | AP |\n| --- | ---: |\n| a/b | 1.5 |'
