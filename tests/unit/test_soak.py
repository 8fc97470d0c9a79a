"""The soak: what grows is found, what only comes and goes is not."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.misc.soak import Sample, descendants, faults, growth, watch

LEAKS = {
    'all_mib': 'held.append(bytearray(1 << 20))',
    'handles': "held.append(open('/dev/null'))",
    'threads': 'thread = threading.Thread(target=time.sleep, args=(9,)); thread.start()',
    'processes': "held.append(subprocess.Popen(['sleep', '9']))",
    'files': "Path('leak', str(time.time())).touch()",
}
needs_proc = pytest.mark.skipif(not Path('/proc/self/smaps_rollup').exists(), reason='reads /proc')


def steady(number: int) -> Sample:
    """A training whose workers, handles and memory come and go."""
    working = number % 3 > 0
    return Sample(
        10.0 * number, 300 + 40 * working, 900 + 300 * working, 20 + 4 * working, 3, 3, 0, 9 + working
    )


def test_what_comes_and_goes_is_no_growth():
    assert faults([steady(number) for number in range(360)]) == []


@pytest.mark.parametrize('name', Sample._fields[1:])
def test_slow_growth_is_found(name):
    """30 MiB an hour; one handle, thread, process or file every 20 minutes."""
    per_hour = 30 if name.endswith('_mib') else 3
    samples = [steady(number) for number in range(360)]
    grown = [
        sample._replace(**{name: getattr(sample, name) + int(per_hour * sample.seconds / 3600)})
        for sample in samples
    ]
    (fault,) = faults(grown)
    assert fault.startswith(f'{name} grew by')


def test_memory_is_told_by_the_hour():
    samples = [steady(0)._replace(seconds=60.0 * n, main_mib=100 + n / 60 * 7) for n in range(200)]
    assert growth(samples)['main_mib'] == pytest.approx(7)


def test_a_pause_of_the_whole_run_is_no_growth():
    late = [sample._replace(seconds=sample.seconds + 2400) for sample in map(steady, range(180, 360))]
    assert faults([*map(steady, range(180)), *late]) == []


def test_too_few_samples_are_an_error():
    with pytest.raises(ValueError, match='8 samples are too few'):
        growth([steady(number) for number in range(8)])


@contextlib.contextmanager
def process(statement: str, folder: Path) -> 'Iterator[subprocess.Popen[bytes]]':
    """One that does something every twentieth of a second."""
    code = 'import subprocess, threading, time\nfrom pathlib import Path\nheld = []\n'
    code += f"Path('leak').mkdir(exist_ok=True)\nwhile True:\n    time.sleep(0.05)\n    {statement}\n"
    started = subprocess.Popen([sys.executable, '-c', code], cwd=folder)
    try:
        yield started
    finally:
        for pid in descendants(started.pid):
            with contextlib.suppress(OSError):
                subprocess.run(['kill', str(pid)], check=False)
        started.kill()
        started.wait()


@needs_proc
@pytest.mark.parametrize('name', LEAKS)
def test_a_planted_leak_of_a_real_process_is_found(tmp_path, name):
    with process(LEAKS[name], tmp_path) as leaking:
        samples = watch(leaking, tmp_path / 'leak', 2, 0.05, tmp_path / 'samples.csv')
    assert any(fault.startswith(f'{name} grew') for fault in faults(samples))
    assert len((tmp_path / 'samples.csv').read_text().splitlines()) == len(samples) + 1


@needs_proc
def test_a_process_that_holds_still_passes(tmp_path):
    with process('held.append(None); held.clear()', tmp_path) as still:
        samples = watch(still, tmp_path, 2, 0.05, tmp_path / 'samples.csv')
    assert faults(samples, memory_limit=500) == []  # seconds make an hour of little
