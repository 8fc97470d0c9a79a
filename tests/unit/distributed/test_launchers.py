"""What launchers tell in the environment."""

import os

import pytest

from mmdet.distributed.launchers import LAUNCHERS, STARTED, choose_launcher, read_environment

OF_PYTORCH = dict(zip(LAUNCHERS['pytorch'][1:], '102', strict=True))
OF_SLURM = dict(zip(LAUNCHERS['slurm'][1:], '102', strict=True))
OF_MPI = dict(zip(LAUNCHERS['mpi'][1:], '102', strict=True))


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """Replaces the variables of all launchers; `scontrol` is the text of a script, or there is none."""

    def replace(variables):
        names = [name for _, *names in LAUNCHERS.values() for name in names]
        for name in (*names, *STARTED.values(), 'MASTER_ADDR', 'MASTER_PORT', 'SLURM_JOB_NODELIST'):
            monkeypatch.setenv(name, 'to be restored')
            monkeypatch.delenv(name)
        for name, value in variables.items():
            if name == 'scontrol':
                (tmp_path / name).write_text(f'#!/bin/sh\n{value}\n')
                (tmp_path / name).chmod(0o755)
            else:
                monkeypatch.setenv(name, value)
        monkeypatch.setenv('PATH', str(tmp_path))

    return replace


@pytest.mark.parametrize(
    ('given', 'variables', 'chosen'),
    [
        (None, {}, 'none'),
        (None, OF_PYTORCH, 'pytorch'),
        (None, {**OF_PYTORCH, 'WORLD_SIZE': '1', 'SLURM_PROCID': '0', 'SLURM_STEP_NUM_TASKS': '2'}, 'none'),
        (None, {'WORLD_SIZE': '2'}, 'none'),  # left over in a shell
        (None, {**OF_SLURM, 'SLURM_PROCID': '0'}, 'none'),  # a batch script
        ('none', OF_PYTORCH, 'none'),
        ('mpi', OF_PYTORCH, 'mpi'),
    ],
)
def test_the_launcher_is_found(environment, given, variables, chosen):
    environment(variables)
    assert choose_launcher(given) == chosen


@pytest.mark.parametrize('variables', [{**OF_SLURM, 'SLURM_STEP_NUM_TASKS': '2'}, OF_MPI])
def test_processes_that_may_each_be_a_run_stop(environment, variables):
    environment(variables)
    with pytest.raises(ValueError, match=r'=2: several processes .*--launcher (slurm|mpi) .*--launcher none'):
        choose_launcher(None)


@pytest.mark.parametrize(
    ('launcher', 'variables', 'said'),
    [
        ('slurmm', {}, 'got slurmm'),
        ('pytorch', {}, r'needs RANK in the environment: start with tools/dist_train\.sh'),
        ('slurm', {'SLURM_PROCID': '0'}, r'needs SLURM_LOCALID in .*start with tools/slurm_train\.sh'),
        ('pytorch', {**OF_PYTORCH, 'WORLD_SIZE': 'two'}, 'WORLD_SIZE=two, which is no whole number'),
        ('slurm', {**OF_SLURM, 'SLURM_PROCID': '2'}, 'SLURM_PROCID=2, SLURM_LOCALID=0, SLURM_NTASKS=2: '),
        ('slurm', OF_SLURM, 'scontrol.*set MASTER_ADDR .* or SLURM_JOB_NODELIST'),
        ('slurm', {**OF_SLURM, 'scontrol': 'echo bad list >&2; exit 1'}, 'bad list.*set MASTER_ADDR'),
        ('slurm', {**OF_SLURM, 'scontrol': ''}, 'set MASTER_ADDR'),
        ('mpi', OF_MPI, 'several machines need MASTER_ADDR'),
        ('mpi', {**OF_MPI, 'MASTER_ADDR': 'a', 'MASTER_PORT': '0'}, 'MASTER_PORT=0 is not a port'),
        ('mpi', {**OF_MPI, 'MASTER_ADDR': 'a', 'MASTER_PORT': ''}, 'MASTER_PORT=, which is no whole'),
    ],
)
def test_a_fault_of_a_launcher_names_the_variable(environment, launcher, variables, said):
    environment(variables)
    with pytest.raises(ValueError, match=said):
        read_environment(launcher)


def test_slurm_names_the_first_machine(environment):
    environment({**OF_SLURM, 'scontrol': 'echo $3; echo other', 'SLURM_JOB_NODELIST': 'first'})
    read_environment('slurm')
    said = {name: os.environ[name] for name in (*OF_PYTORCH, 'MASTER_ADDR', 'MASTER_PORT')}
    assert said == {**OF_PYTORCH, 'MASTER_ADDR': 'first', 'MASTER_PORT': '29500'}
