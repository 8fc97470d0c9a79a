"""Print the table of docs/performance.md from the files of benchmarks/results.

python -m benchmarks.markdown
"""

import csv

from benchmarks.report import ROOT, table_of

ORDER = ('data', 'step', 'distill', 'end_to_end', 'infer', 'eval', 'startup')


def performance_table() -> str:
    """Lay out all results, in the order of the document."""
    texts = [(ROOT / f'benchmarks/results/{name}.csv').read_text() for name in ORDER]
    return table_of([row for text in texts for row in csv.DictReader(text.splitlines())])


if __name__ == '__main__':
    print(performance_table())
