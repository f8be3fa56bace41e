"""`spillway calibrate-complexity` on made-up requests whose hardness hangs on words that the rule does not know."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from spillway_router.calibration.complexity import fit_complexity
from spillway_router.calibration.measures import auroc
from spillway_router.calibration.requests import LabelledRequest, RequestLabelError, read_requests
from spillway_router.cli import app
from spillway_router.config.assemble import Assembly, assemble
from spillway_router.config.load import ConfigRejected, parse
from spillway_router.config.rules import trait_reader
from spillway_router.core.routing.traits.conversation import Conversation
from spillway_router.core.routing.traits.learned import LearnedComplexity
from spillway_router.testing.harness import cloud, local, settings

pytestmark = pytest.mark.usefixtures("empty_folder")
DAY = date(2026, 11, 30)


def rows(count: int, telling: float) -> Iterator[dict[str, Any]]:
    """Requests of which those about mergers are hard; `telling` is the share whose word says so."""
    random = Random(1)
    for n in range(count):
        hard = random.random() < 0.4
        word = "merger" if hard == (random.random() < telling) else "lunch"
        filler = " ".join(random.choices(["alpha", "beta", "gamma", "delta", "1234"], k=random.randint(3, 9)))
        yield {"text": f"Note {filler} {word} end", "hard": hard, "group": f"user {n // 2}", "dear_usd": 0.01}


def written(path: Path, lines: Iterator[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_words_that_the_rule_does_not_know_are_learned(tmp_path: Path) -> None:
    labels, file = written(tmp_path / "requests.jsonl", rows(600, 0.95)), tmp_path / "made.json"
    result = CliRunner().invoke(app, ["calibrate-complexity", str(labels), "--output", str(file), "--json"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.output)
    by_name = {row["name"]: row for row in summary["compared"]}
    assert by_name["rule"]["auroc"]["value"] == pytest.approx(0.5, abs=0.05)
    assert by_name["learned"]["auroc"]["low"] > 0.85
    assert summary["over_rule"]["auroc"]["low"] > 0.3
    assert summary["verdict"].startswith("The learned complexity finds hard requests better than the rule")
    assert by_name["learned"]["quality"]["value"] > by_name["lots"]["quality"]["value"] + 0.1
    assert by_name["always dear"]["usd"]["value"] == pytest.approx(0.01)
    assert summary["best_single"] == "always dear"
    assert "merger" not in file.read_text(), "the file holds hashes, no words"
    learned = LearnedComplexity.from_json(file.read_bytes())
    assert learned.complexity(Conversation("Note alpha beta merger end", words=5), ()) >= 7
    assert learned.complexity(Conversation("Note alpha beta lunch end", words=5), ()) <= 3


def test_what_tells_nothing_is_not_called_better(tmp_path: Path) -> None:
    labels = written(tmp_path / "requests.jsonl", rows(600, 0.5))
    result = CliRunner().invoke(app, ["calibrate-complexity", str(labels), "--output", str(tmp_path / "made.json")])
    assert result.exit_code == 0, result.output
    assert "is not shown to be better than the rule" in result.output
    assert "| always dear (best single) |" in result.output


def test_the_file_says_what_the_comparison_judged() -> None:
    labelled = list(read_requests(map(json.dumps, rows(600, 0.9))))
    fitted = fit_complexity(labelled, 0.3, repeats=20)
    judged = held_out(labelled, fitted.judged_on)
    scores = [fitted.learned.probability(row.conversation, ()) for row in judged]
    import numpy as np

    value = auroc(np.array(scores), np.array([float(row.hard) for row in judged]))
    (learned,) = [row for row in fitted.compared if row.name == "learned"]
    assert learned.auroc is not None
    assert value == pytest.approx(learned.auroc.value, abs=0.01)


def held_out(labelled: list[LabelledRequest], count: int) -> list[LabelledRequest]:
    from spillway_router.calibration.complexity import FIT_SHARE
    from spillway_router.calibration.labelled import in_share

    judged = [row for row in labelled if not in_share(row.group, FIT_SHARE, "complexity")]
    assert len(judged) == count
    return judged


@pytest.mark.parametrize(
    ("label", "hard"),
    [
        ({"escalated": True}, True),
        ({"agrees": True, "escalated": True}, False),
        ({"rating": 2}, True),
        ({"rating": 3, "escalated": True}, False),
        ({"hard": False, "rating": 1}, False),
    ],
)
def test_the_most_trusted_label_counts(label: dict[str, Any], hard: bool) -> None:
    (row,) = read_requests([json.dumps({"text": "Hello", **label})])
    assert row.hard is hard


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"}', "line 1: it lacks 'escalated'"),
        ('{"hard": true}', "line 1: it lacks 'text'"),
        ('{"text": "a", "hard": 1}', "`hard` is 1, not true or false"),
        ('{"text": "a", "rating": 9}', "rating 9 must lie in 1 to 5"),
        ("[]", "line 1"),
        ("{", "line 1"),
        ('{"text": "a", "hard": true, "dear_usd": -1}', "must not be negative"),
    ],
)
def test_a_line_that_is_no_labelled_request_is_named(line: str, message: str) -> None:
    with pytest.raises(RequestLabelError, match=message):
        list(read_requests([line]))


def test_too_few_requests_are_refused_with_the_number(tmp_path: Path) -> None:
    labels = written(tmp_path / "requests.jsonl", rows(20, 1.0))
    result = CliRunner().invoke(app, ["calibrate-complexity", str(labels)])
    assert result.exit_code != 0
    assert "there are 20 labelled requests; at least 100" in result.output


def configured(rule: str, file: Path) -> Assembly | ConfigRejected:
    base = yaml.safe_load(settings(local("http://127.0.0.1:1/v1"), cloud("http://127.0.0.1:1/v1")))
    base["policy"] = {"learned_complexity": str(file), "rules": [yaml.safe_load(rule)]}
    return assemble(parse(yaml.safe_dump(base), {}), {}, DAY)


@pytest.mark.parametrize(
    ("when", "factors"), [("complexity: {at_least: 5}", ("learned", "analysis")), ("task: chat", ("analysis",))]
)
def test_it_judges_only_where_a_rule_looks_at_the_complexity(
    tmp_path: Path, when: str, factors: tuple[str, ...]
) -> None:
    file = tmp_path / "made.json"
    fitted = fit_complexity(list(read_requests(map(json.dumps, rows(300, 0.9)))), 0.3, repeats=2)
    file.write_text(fitted.learned.to_json({}))
    assembly = configured(f"{{name: hard, when: {{{when}}}, forbid: cloud}}", file)
    assert isinstance(assembly, Assembly)
    part = parse(f"policy: {{learned_complexity: {file}}}\nbackends: []\n", {}).policy
    reader = trait_reader(part, assembly.rules, assembly.learned_complexity)
    assert reader is not None
    assert reader.traits(Conversation("Compare these")).factors == factors


def test_a_file_that_cannot_be_used_names_the_setting_and_the_command(tmp_path: Path) -> None:
    file = tmp_path / "made.json"
    for wrong in ("can't be read", "can't be used"):
        rejected = configured("{name: hard, when: {complexity: {at_least: 5}}, forbid: cloud}", file)
        assert isinstance(rejected, ConfigRejected)
        assert [problem.where for problem in rejected.problems] == ["policy.learned_complexity"]
        assert wrong in rejected.problems[0].problem
        assert "spillway calibrate-complexity" in rejected.problems[0].problem
        file.write_text("{}")


def test_embeddings_are_compared_where_there_are_some() -> None:
    """Here only the vectors know what is hard: the words are the same."""
    random = Random(2)
    labelled = [
        LabelledRequest(Conversation(f"Note {n} {random.random()}", words=3), hard=n % 3 == 0, group=f"g {n}")
        for n in range(400)
    ]
    vectors = {
        row.conversation.asked: [1.0 if row.hard else -1.0, random.gauss(0, 1), random.gauss(0, 1)] for row in labelled
    }
    by_name = {row.name: row for row in fit_complexity(labelled, 0.3, repeats=50, vectors=vectors).compared}
    for name in ("linear on embeddings", "nearest neighbours on embeddings"):
        assert by_name[name].auroc is not None
        assert by_name[name].auroc.low > 0.9
    without = {row.name for row in fit_complexity(labelled, 0.3, repeats=50).compared}
    assert by_name.keys() - without == {"linear on embeddings", "nearest neighbours on embeddings"}


def test_an_embedder_that_is_none_is_told(tmp_path: Path) -> None:
    labels = written(tmp_path / "requests.jsonl", rows(200, 0.9))
    (tmp_path / "spillway.yaml").write_text(settings(local("http://127.0.0.1:1/v1")))
    result = CliRunner().invoke(
        app, ["calibrate-complexity", str(labels), "--embedder", "nobody", "--config", str(tmp_path / "spillway.yaml")]
    )
    assert result.exit_code == 1
    assert "'nobody' is no local backend that serves embeddings" in result.output
