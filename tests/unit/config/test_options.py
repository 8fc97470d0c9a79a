"""Values of `KEY=VALUE` on the command line."""

import argparse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet.config import options


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


def test_key_values(capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=options.DictAction, default={})
    assert parser.parse_args([]).cfg_options == {}
    arguments = parser.parse_args(['--cfg-options', 'a.b=1', 'c=x=y', '--cfg-options', 'a.b=2'])
    assert arguments.cfg_options == {'a.b': 2, 'c': 'x=y'}
    with pytest.raises(SystemExit):
        parser.parse_args(['--cfg-options', 'a.b'])
    assert 'KEY=VALUE' in capsys.readouterr().err
