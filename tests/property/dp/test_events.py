"""Events survive their JSON, and nothing else becomes an event."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.core.errors import InvalidInput
from libs.dp.accountant import epsilon_of
from libs.dp.events import (
    MAX_JSON_BYTES,
    Composed,
    DiscreteGaussian,
    DiscreteLaplace,
    Event,
    NoPrivacy,
    PostProcessing,
    SampledGaussian,
    canonical_json,
    from_json,
)

single = st.one_of(
    st.builds(
        SampledGaussian,
        noise_multiplier=st.floats(0.3, 50),
        sample_rate=st.floats(1e-4, 1),
        steps=st.integers(1, 10_000),
    ),
    st.builds(DiscreteLaplace, st.fractions(Fraction(1, 1000), 10, max_denominator=10**18)),
    st.builds(DiscreteGaussian, noise_multiplier=st.floats(0.3, 50), releases=st.integers(1, 1000)),
    st.builds(NoPrivacy),
    st.builds(PostProcessing),
)
events = st.recursive(
    single, lambda inner: st.builds(Composed, st.lists(inner, max_size=3).map(tuple)), max_leaves=6
)


@given(events)
def test_an_event_survives_its_json(event: Event) -> None:
    text = canonical_json(event)
    assert from_json(text) == event
    assert canonical_json(from_json(text)) == text


@given(events, st.integers(0, 5))
def test_the_json_does_not_depend_on_how_it_was_written(event: Event, indent: int) -> None:
    loose = json.dumps(json.loads(canonical_json(event)), indent=indent).encode()
    assert canonical_json(from_json(loose)) == canonical_json(event)


@given(events, events)
def test_order_does_not_change_the_cost_and_more_never_costs_less(one: Event, other: Event) -> None:
    both = epsilon_of(Composed((one, other)), delta=1e-5)
    assert both == pytest.approx(epsilon_of(Composed((other, one)), delta=1e-5))
    assert both >= epsilon_of(one, delta=1e-5) * (1 - 1e-9)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_anything_else_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidInput):
        from_json(text)


GAUSSIAN = '"kind":"sampled_gaussian","noise_multiplier":1.0,"sample_rate":0.5'


@pytest.mark.parametrize(
    "text",
    [
        '{"kind":"gaussian","noise_multiplier":1.0}',
        '{"kind":["no_privacy"]}',
        "{}",
        "[]",
        "null",
        '"no_privacy"',
        '{"kind":"no_privacy","note":"x"}',
        '{"kind":"no_privacy","kind":"post_processing"}',
        "{" + GAUSSIAN + "}",
        "{" + GAUSSIAN + ',"steps":true}',
        "{" + GAUSSIAN + ',"steps":1.0}',
        "{" + GAUSSIAN + ',"steps":0}',
        "{" + GAUSSIAN + ',"steps":-1}',
        '{"kind":"sampled_gaussian","noise_multiplier":NaN,"sample_rate":0.5,"steps":1}',
        '{"kind":"sampled_gaussian","noise_multiplier":1e999,"sample_rate":0.5,"steps":1}',
        '{"kind":"sampled_gaussian","noise_multiplier":0.0,"sample_rate":0.5,"steps":1}',
        '{"kind":"sampled_gaussian","noise_multiplier":0.0099,"sample_rate":0.5,"steps":1}',
        '{"kind":"sampled_gaussian","noise_multiplier":1.0,"sample_rate":1.5,"steps":1}',
        '{"kind":"sampled_gaussian","noise_multiplier":1.0,"sample_rate":0.0,"steps":1}',
        '{"kind":"discrete_laplace","epsilon":0.1}',
        '{"kind":"discrete_laplace","epsilon":"0"}',
        '{"kind":"discrete_laplace","epsilon":"-1"}',
        '{"kind":"discrete_laplace","epsilon":"nan"}',
        '{"kind":"composed","events":[1]}',
        '{"kind":"composed","events":{}}',
        '{"kind":"composed","events":[' * 100 + "]}" * 100,
        "[" * 50_000,
        " " * (MAX_JSON_BYTES + 1),
    ],
)
def test_what_is_nearly_an_event_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        from_json(text.encode())


def test_events_that_lie_too_deep_cannot_be_made() -> None:
    event: Event = NoPrivacy()
    for _ in range(15):
        event = Composed((event,))
    assert from_json(canonical_json(event)) == event
    with pytest.raises(InvalidInput, match="deep"):
        Composed((event,))
