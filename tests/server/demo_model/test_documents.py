"""The generator of the demo documents: same seed same report, truth printed, noise graded, layouts held out."""

from __future__ import annotations

import json

import pytest

from spillway_server.demo_model.documents import (
    HELD_OUT_SEEDS,
    NOISES,
    TRAINING_SEEDS,
    canonical_json,
    exact,
    generate,
    json_schema,
    numeral,
    prompt,
)
from spillway_server.demo_model.layouts import FIELDS, KEYS, LAYOUTS, TRAINING_LAYOUTS, UNSEEN_LAYOUTS

SEEDS = HELD_OUT_SEEDS[:200]
TRAINING_NAMES = {layout.name for layout in TRAINING_LAYOUTS}
UNSEEN_NAMES = {layout.name for layout in UNSEEN_LAYOUTS}


def _edits(one: str, other: str) -> int:
    """Levenshtein distance, by the textbook row recurrence."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return row[-1]


@pytest.mark.parametrize("noise", NOISES)
def test_the_same_seed_gives_the_same_document(noise: str) -> None:
    assert [generate(seed, noise) for seed in SEEDS] == [generate(seed, noise) for seed in SEEDS]
    assert len({generate(seed, noise).text for seed in SEEDS}) == len(SEEDS)


def test_a_known_seed_keeps_its_text() -> None:
    """Published figures and recorded answers name seeds, so a change of the generator has to be seen."""
    document = generate(HELD_OUT_SEEDS[1])
    assert document.text.splitlines() == [
        "LENSTAR LS 900 28.01.2020",
        "Exam no. E178272",
        "Measured eye OD",
        "Corneal thickness [µm] 562",
        "Anterior chamber depth [mm] 4.11 SD 0.06",
        "Lens thickness [mm] 5.32",
        "Pupil [mm] 6.8",
        "White to white [mm] 13.2",
        "Flat meridian K1 [D] 43.91",
        "Steep meridian K2 [D] 44.36",
        "Axial length [mm] 24.00 SD 0.06",
        "End of report",
    ]


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_a_clean_report_prints_its_whole_truth(layout: str) -> None:
    form = LAYOUTS[layout]
    for seed in SEEDS[:60]:
        document = generate(seed, layout=layout)
        assert str(document.truth["id"]) in document.text
        assert (form.right if document.truth["eye"] == "OD" else form.left) in document.text
        for field in FIELDS:
            value = document.truth[field]
            if value is not None:
                shown = numeral(field, value)
                assert (shown.replace(".", ",") if form.comma else shown) in document.text, field


def test_missing_values_occur_in_every_field_and_stay_rare() -> None:
    documents = [generate(seed) for seed in HELD_OUT_SEEDS[:1000]]
    for field in FIELDS:
        share = sum(document.truth[field] is None for document in documents) / len(documents)
        assert 0.01 < share < 0.12, field


def test_noise_changes_the_text_more_as_it_grows_and_never_the_truth() -> None:
    damage = {}
    for noise in ("clean", "light", "heavy"):
        documents = [generate(seed, noise) for seed in SEEDS[:40]]
        clean = [generate(seed) for seed in SEEDS[:40]]
        assert [d.truth for d in documents] == [d.truth for d in clean]
        damage[noise] = sum(_edits(d.text, c.text) for d, c in zip(documents, clean, strict=True)) / 40
    assert damage["clean"] == 0
    assert 1 < damage["light"] < 8
    assert damage["heavy"] > 3 * damage["light"]


def test_some_damage_cannot_be_undone() -> None:
    """At least a fifth of the heavy reports lack a true numeral's digits even after every look-alike is mapped back."""
    back = str.maketrans("OlSBZ", "01582")
    lost = 0
    for seed in SEEDS:
        document = generate(seed, "heavy")
        read = document.text.translate(back).replace(",", ".").replace(" ", "")
        shown = [numeral(field, document.truth[field]) for field in FIELDS if document.truth[field] is not None]
        lost += any(numeral_text not in read for numeral_text in shown)
    assert len(SEEDS) * 0.2 < lost < len(SEEDS) * 0.9


def test_a_truncated_report_is_a_proper_beginning_of_the_clean_one() -> None:
    for seed in SEEDS:
        whole, cut = generate(seed).text, generate(seed, "truncated").text
        assert whole.startswith(cut)
        assert 0.3 * len(whole) < len(cut) < 0.95 * len(whole)


def test_unseen_layouts_never_reach_training() -> None:
    assert len(TRAINING_NAMES) >= 8
    assert len(UNSEEN_NAMES) >= 2
    assert not TRAINING_NAMES & UNSEEN_NAMES
    for noise in ("clean", "light", "heavy", "truncated"):
        assert {generate(seed, noise).layout for seed in TRAINING_SEEDS[:300]} == TRAINING_NAMES
    assert {generate(seed, "unseen").layout for seed in SEEDS} == UNSEEN_NAMES


def test_held_out_seeds_are_not_training_seeds() -> None:
    assert TRAINING_SEEDS.stop <= HELD_OUT_SEEDS.start
    held = {generate(seed).text for seed in HELD_OUT_SEEDS[:500]}
    assert not held & {generate(seed).text for seed in TRAINING_SEEDS[:500]}


def test_several_languages_and_both_units_of_curvature() -> None:
    assert {layout.language for layout in TRAINING_LAYOUTS} >= {"en", "de", "fr", "es"}
    assert {layout.radii for layout in TRAINING_LAYOUTS} == {True, False}
    assert {layout.comma for layout in TRAINING_LAYOUTS} == {True, False}


@pytest.mark.parametrize(("noise", "layout"), [("fog", None), ("clean", "iolmaster_xx")])
def test_unknown_names_are_refused_with_the_known_ones(noise: str, layout: str | None) -> None:
    with pytest.raises(ValueError, match=r"choose one of .*(heavy|lenstar_en)"):
        generate(1, noise, layout)


def test_canonical_json_is_compact_ordered_and_keeps_printed_decimals() -> None:
    truth: dict[str, object] = {"id": "P12345", "eye": "OD", "AL": 23.4, "K1": 43.0, "K2": 44.12}
    truth |= {"ACD": None, "LT": 4.5, "WTW": 12.0}
    text = canonical_json(truth)
    assert text == ('{"id":"P12345","eye":"OD","AL":23.40,"K1":43.00,"K2":44.12,"ACD":null,"LT":4.50,"WTW":12.0}')
    assert list(json.loads(text)) == list(KEYS)
    for seed in SEEDS:
        document = generate(seed)
        assert json.loads(canonical_json(document.truth)) == document.truth
        assert exact(canonical_json(document.truth), document.truth)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"AL":23.40', '"AL":23.41'),
        ('"AL":23.40', '"AL":"23.40"'),
        ('"AL":23.40', '"AL":null'),
        ('"AL":23.40', '"AL":true'),
        ('"ACD":null', '"ACD":0'),
        ('"eye":"OD"', '"eye":"OS"'),
        ('"id":"12345"', '"id":12345'),
        (',"WTW":12.0', ""),
        ('"WTW":12.0', '"WTW":12.0,"SNR":3'),
        ('"WTW":12.0}', '"WTW":12.0'),
        ("{", "Here it is: {"),
    ],
)
def test_exact_refuses_every_wrong_answer(old: str, new: str) -> None:
    truth: dict[str, object] = {"id": "12345", "eye": "OD", "AL": 23.4, "K1": 43.0, "K2": 44.12}
    truth |= {"ACD": None, "LT": 4.5, "WTW": 12.0}
    answer = canonical_json(truth)
    assert exact(answer, truth)
    assert exact("\n" + answer.replace("23.40", "23.4") + " ", truth)
    changed = answer.replace(old, new, 1)
    assert changed != answer
    assert not exact(changed, truth)


@pytest.mark.parametrize("answer", ["", "null", "[]", "[" * 100_000, "12", '{"id":'])
def test_exact_survives_anything_a_server_may_say(answer: str) -> None:
    assert not exact(answer, generate(1).truth)


def test_the_schema_names_every_key_and_the_prompt_carries_the_report() -> None:
    schema = json_schema()
    assert schema["required"] == list(KEYS)
    properties = schema["properties"]
    assert isinstance(properties, dict)
    assert list(properties) == list(KEYS)
    messages = prompt("a report")
    assert [message["role"] for message in messages] == ["user"]
    assert messages[0]["content"].endswith("a report")
