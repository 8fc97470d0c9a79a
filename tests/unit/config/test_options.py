"""Values of `KEY=VALUE` on the command line."""

import argparse
import inspect
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet import datasets, distillation, engine, evaluation, models  # noqa: F401 (they register parts)
from mmdet.config import options
from mmdet.config.check import DATA_DEFAULTS
from mmdet.registry import DATASETS, HOOKS, METRICS, MODELS


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('7', 7),
        ('1e-3', 1e-3),
        ('None', None),
        ('true', True),
        ('123.675,116', [123.675, 116]),
        ('(0.5,)', (0.5,)),
        ('[(1,2),(a,b)]', [(1, 2), ('a', 'b')]),
        ('/my photos/coco 2017', '/my photos/coco 2017'),
        ('"a,b"', 'a,b'),
        ("[{'type': 'EMAHook'}]", [{'type': 'EMAHook'}]),
        ("[a,dict(b='c', d=dict(e=(1,)))]", ['a', {'b': 'c', 'd': {'e': (1,)}}]),
        ('dict(3)', 'dict(3)'),
        ('annotations/instances_train.json', 'annotations/instances_train.json'),
        ('', ''),
    ],
)
def test_parse_value(text, value):
    parsed = options.parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


literals = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=40)
@given(literals)
def test_any_python_literal_is_meant_as_it_is_written(value):
    parsed = options.parse_value(repr(value))
    assert parsed == value
    assert type(parsed) is type(value)


@settings(deadline=None, max_examples=150)
@given(st.text())
def test_any_text_is_some_value(text):
    options.parse_value(text)


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        *((text, text) for text in ('2024_01_15', '1e3', '007', 'true', '(a)', '[x].json', 'a,b.json', '{x')),
        ('"a b"', 'a b'),
        ('None', None),
        ('', ''),
    ],
)
def test_paths_and_names_are_text(text, value):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=options.DictAction, default={})
    keys = ('train_img', 'model.backbone.weights', 'model.distiller.teacher.checkpoint', 'experiment_name')
    given = parser.parse_args(['--cfg-options', *(f'{key}={text}' for key in keys)]).cfg_options
    assert given == dict.fromkeys(keys, value)
    hook = parser.parse_args(['--cfg-options', "default_hooks.checkpoint={'interval': 3}"]).cfg_options
    assert hook == {'default_hooks.checkpoint': {'interval': 3}}


def test_all_keys_of_paths_are_known():
    """Every keyword of this toolbox's parts that is a path by its name."""
    parts = [one for registry in (DATASETS, HOOKS, METRICS, MODELS) for one in registry.module_dict.values()]
    names = {
        name
        for part in parts
        if part.__module__.startswith('mmdet.')
        for name, parameter in inspect.signature(part).parameters.items()
        if 'str' in str(parameter.annotation) and re.search('file|root|dir|path|checkpoint|weights', name)
    }
    assert {'ann_file', 'weights', 'checkpoint', 'file'} <= names <= options.TEXT_KEYS
    assert set(DATA_DEFAULTS) <= options.TEXT_KEYS


def test_key_values(capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=options.DictAction, default={})
    assert parser.parse_args([]).cfg_options == {}
    arguments = parser.parse_args(['--cfg-options', 'a.b=1', 'c=x=y', '--cfg-options', 'a.b=2'])
    assert arguments.cfg_options == {'a.b': 2, 'c': 'x=y'}
    with pytest.raises(SystemExit):
        parser.parse_args(['--cfg-options', 'a.b'])
    assert 'KEY=VALUE' in capsys.readouterr().err
