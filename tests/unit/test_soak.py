"""The soak: what grows is found, what only comes and goes is not."""

import sys
from pathlib import Path
from subprocess import PIPE

import psutil
import pytest

from tests.helpers import soak
from tests.helpers.soak import Sample, faults, growth

LEAKS = """
import subprocess, sys, threading, time
from pathlib import Path
held = []
for number, line in enumerate(sys.stdin):
    if line == 'leak\\n':
        held += [b'1' * (1 << 20), open('/dev/null'), subprocess.Popen(['sleep', '60'])]
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        Path(f'leak{number}').touch()
    print(flush=True)
"""
pytestmark = pytest.mark.skipif(not Path('/proc/self/smaps').exists(), reason='Linux only')


def steady(number: int) -> Sample:
    """A training whose workers, handles and memory come and go."""
    working = number % 3 > 0
    return Sample(
        10.0 * number, 300 + 40 * working, 900 + 300 * working, 20 + 4 * working, 3, 3, 0, 9 + working
    )


STEADY = [steady(number) for number in range(360)]


@pytest.mark.parametrize('pause', [0, 2400])
def test_what_comes_and_goes_is_no_growth(pause):
    late = [sample._replace(seconds=sample.seconds + pause) for sample in STEADY[180:]]
    assert faults([*STEADY[:180], *late]) == []


@pytest.mark.parametrize('name', Sample._fields[1:])
def test_slow_growth_is_found(name):
    """30 MiB an hour; one handle, thread, process or file every 20 minutes."""
    per_hour = 30 if name.endswith('_mib') else 3
    grown = [s._replace(**{name: getattr(s, name) + int(per_hour * s.seconds / 3600)}) for s in STEADY]
    (fault,) = faults(grown)
    assert fault.startswith(f'{name} grew by')
    assert growth(grown)[name] == pytest.approx(per_hour if name.endswith('_mib') else 2, rel=0.1, abs=1)


def test_too_few_samples_are_an_error():
    with pytest.raises(ValueError, match='8 samples are too few'):
        growth(STEADY[:8])


@pytest.mark.parametrize('word', ['leak', 'rest'])
def test_leaks_of_a_real_process_are_found(tmp_path, word, monkeypatch):
    """It does something for each sample; all its leaks are found, and nothing where it leaks nothing."""
    monkeypatch.setattr(soak, 'LEAVING', 0.1)
    command = [sys.executable, '-c', LEAKS, str(tmp_path)]
    with psutil.Popen(command, cwd=tmp_path, stdin=PIPE, stdout=PIPE, text=True) as process:
        samples = []
        for number in range(12):
            process.stdin.write(f'{word}\n')
            process.stdin.flush()
            process.stdout.readline()
            samples.append(soak.take_sample(process, tmp_path, 10.0 * number))
        assert soak.left_behind(command) == [f'process {process.pid} was left behind']
        for child in [*process.children(), process]:
            child.kill()
    grown = {fault.split()[0] for fault in faults(samples)}
    assert grown - {'shared_files'} == ({*Sample._fields[1:]} - {'shared_files'} if word == 'leak' else set())
    assert soak.left_behind(command) == []


def test_a_command_that_ends_by_itself_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(soak, 'INTERVAL', 0.05)
    with pytest.raises(ChildProcessError, match=r'ended with status 3: see .*soak\.log'):
        soak.main(['60', str(tmp_path), sys.executable, '-c', 'import time; time.sleep(0.3); exit(3)'])
    assert len((tmp_path / 'samples.csv').read_text().splitlines()) > 1
