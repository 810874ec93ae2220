"""structured/Output-v0: the exact document, whoever writes it and however it is laid out; nothing for nearly."""

import csv
import io
import json
import re
import tomllib
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from swannery.environments import Env, Turn, make
from swannery.environments.structured.catalogue import DOMAINS
from swannery.environments.structured.drafts import Drafter
from swannery.environments.structured.writing import write
from swannery.rewards.structure import FORMATS

ID = "structured/Output-v0"
SEEDS = 300
CASES = [(level, format) for level in (1, 2, 3) for format in FORMATS]


def play(env: Env, seed: int, act: Any) -> float:
    env.reset(seed=seed)
    return env.step(act())[1]


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_oracle_scores_one_on_every_seed(level: int) -> None:
    env = make(ID, level=level)
    assert all(play(env, seed, env.oracle) == 1.0 for seed in range(SEEDS))


@pytest.mark.parametrize(("level", "format"), CASES)
def test_the_oracle_scores_one_in_every_format_and_the_demonstrator_less(level: int, format: str) -> None:
    env, rng = make(ID, level=level, formats=[format]), np.random.default_rng(0)
    assert all(play(env, seed, env.oracle) == 1.0 for seed in range(60))
    assert 0.3 < np.mean([play(env, seed, lambda: env.demonstrate(rng)) for seed in range(200)]) < 0.5


@pytest.mark.parametrize(("level", "format"), CASES)
def test_cheats_and_those_who_know_nothing_earn_nothing(level: int, format: str) -> None:
    env = make(ID, level=level, formats=[format])
    env.action_space.seed(0)
    policies = [getattr(env, name) for name in env.cheats]
    policies += [lambda: Turn(""), lambda: Turn(env.task.messages[-1].text), env.action_space.sample]
    assert len(env.cheats) >= 3 and env.floor == 0.0
    assert all(play(env, seed, policy) == 0.0 for policy in policies for seed in range(60))


def layouts(format: str, value: Any, schema: Any) -> list[str]:
    """The same document as other writers lay it out."""
    if format == "json":
        return [json.dumps(value), json.dumps(value, indent="\t", sort_keys=True, ensure_ascii=True)]
    if format == "yaml":
        return [yaml.safe_dump(value), yaml.safe_dump(value, default_flow_style=True), json.dumps(value)]
    if format == "toml":
        inline = [f"{key} = " + json.dumps(found).replace('": ', '" = ') for key, found in value.items()]
        return ["\n".join(inline), "# an order\n\n" + write(format, value, schema)]
    if format == "xml":
        text = write(format, value, schema)
        return ['<?xml version="1.0" encoding="UTF-8"?>\n' + text, re.sub(r"\n\s*", "", text), f"{text}<!-- end -->"]
    out, columns = io.StringIO(), list(schema["items"]["properties"])
    writer = csv.DictWriter(out, columns, quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(
        {key: str(found).lower() if isinstance(found, bool) else found for key, found in row.items()} for row in value
    )
    return [out.getvalue()]


@pytest.mark.parametrize(("level", "format"), CASES)
def test_another_layout_is_the_same_document(level: int, format: str) -> None:
    env = make(ID, level=level, formats=[format])
    for seed in range(30):
        env.reset(seed=seed)
        given = env.task.metadata
        for text in layouts(format, given["expected"], given["schema"]):
            assert env.mistake(text) is None, text


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_expected_document_is_valid_and_each_wrong_leaf_is_seen(level: int) -> None:
    env = make(ID, level=level, formats=["json"])
    for seed in range(60):
        env.reset(seed=seed)
        given = env.task.metadata
        jsonschema.Draft202012Validator.check_schema(given["schema"])
        jsonschema.validate(given["expected"], given["schema"])
        for wrong in spoilt(given["expected"]):
            assert env.mistake(json.dumps(wrong)) is not None


def spoilt(value: Any) -> list[Any]:
    """The value with one leaf changed, retyped or left out, for each leaf."""
    if isinstance(value, dict):
        found = [{key: other for key, other in value.items() if key != left_out} for left_out in value]
        return found + [{**value, key: other} for key in value for other in spoilt(value[key])]
    if isinstance(value, list):
        changed = [[*value[:i], other, *value[i + 1 :]] for i, entry in enumerate(value) for other in spoilt(entry)]
        return [*changed, [*value, value[0]], value[:-1]]
    if isinstance(value, bool):
        return [not value, str(value).lower(), int(value)]
    return [str(value), value + 1, None] if not isinstance(value, str) else [value + "x", [value], value.upper() + "?"]


def test_what_is_derived_follows_from_what_is_told() -> None:
    for seed in range(200):
        draft = Drafter(np.random.default_rng(seed), 3).draft()
        domain = next(domain for domain in DOMAINS if domain.name == draft.root)
        rows, (total, _, derive) = draft.value[domain.table.name], domain.table.total
        assert draft.value[total] == derive(rows)
        keys = [row[domain.table.key] for row in rows]
        assert keys == sorted(keys) and len(dict.fromkeys(keys)) == len(keys)
        for row in rows:
            name, _, derive_row = domain.table.derived
            assert row[name] == derive_row(row) and str(row[domain.table.key]) in draft.prose
        assert any(domain.table.extra[0] in row for row in rows)


def test_all_that_is_not_derived_stands_in_the_prose_of_level_1() -> None:
    for seed in range(200):
        draft = Drafter(np.random.default_rng(seed), 1).draft()
        assert all(str(value) in draft.prose for value in draft.value.values() if not isinstance(value, bool))
        assert 2 <= len(draft.value) <= 3


def test_no_number_is_both_whole_and_a_fraction() -> None:
    def leaves(value: Any) -> list[Any]:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return [leaf for part in inner for leaf in leaves(part)] or [value]

    for seed in range(300):
        draft = Drafter(np.random.default_rng(seed), 1 + seed % 3).draft()
        assert not any(isinstance(leaf, float) and leaf.is_integer() for leaf in leaves(draft.value))


def test_the_own_writers_agree_with_the_formats_parsers() -> None:
    for seed in range(100):
        draft = Drafter(np.random.default_rng(seed), 1 + seed % 3).draft()
        assert yaml.safe_load(write("yaml", draft.value, draft.schema)) == draft.value
        assert tomllib.loads(write("toml", draft.value, draft.schema)) == draft.value


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FORMATS), st.text(max_size=400))
def test_no_answer_makes_the_grader_raise(format: str, answer: str) -> None:
    env = make(ID, level=2, formats=[format])
    assert play(env, 0, lambda: Turn(answer)) == 0.0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"level": 0}, "level is 1, 2 or 3, got 0"),
        ({"formats": ["jsno"]}, "no format named 'jsno'. Did you mean 'json'?"),
        ({"formats": []}, "at least one format of json, yaml, toml, xml, csv"),
    ],
)
def test_a_bad_option_is_told_with_what_would_do(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match="^Output: ") as caught:
        make(ID, **options)
    assert told in str(caught.value)


def test_a_format_may_be_given_by_its_name_alone() -> None:
    assert make(ID, formats="toml").formats == ("toml",)
