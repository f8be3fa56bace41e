"""`spillway extract` and `spillway reviews`: files, batches that resume after a kill, decisions."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.documents.command import command, rows
from tests.documents.harness import ask, setup
from tests.documents.papers import CLEAN, STRANGE, answer, truth, wrong
from typer.testing import CliRunner

from spillway_router.cli import app
from spillway_router.commands.extract_batch import BatchError, BatchProgress, ExtractPlace, count_lines, extract_batch
from spillway_router.commands.running_router import RouterAddress
from spillway_router.testing import Answer
from spillway_router.testing.harness import LIMIT_S, Router
from spillway_server.demo_model.documents import generate

TEXTS = [generate(10_000_000 + i, "clean", "iolmaster_en").text for i in range(12)]


def batch(folder: Path, *extra: str) -> tuple[Path, Path]:
    """Write an input of 12 documents and these lines; return it and the path of its output."""
    source = folder / "in.jsonl"
    lines = [json.dumps({"id": f"d{i}", "text": text}) for i, text in enumerate(TEXTS)]
    source.write_text("\n".join((*lines, *extra)) + "\n")
    return source, folder / "out.jsonl"


def here(router: Router, at_once: int = 4) -> ExtractPlace:
    return ExtractPlace(RouterAddress(router.url), max_in_flight=at_once)


async def test_a_batch_has_a_line_for_every_document_and_an_error_stops_nothing(tmp_path: Path) -> None:
    source, target = batch(tmp_path, "", "not json", "[1]", json.dumps({"id": "bad", "colour": 1}))
    async with setup(answer("none")) as (engine, _, router):
        heard: list[int] = []
        tally = await extract_batch(source, target, here(router), lambda t: heard.append(t.results + t.errors))
        assert heard == list(range(1, 16))
        assert (tally.results, tally.errors, tally.reviews, tally.before) == (12, 3, 0, 0)
        by_line = {row["line"]: row for row in rows(target)}
        assert sorted(by_line) == [*range(1, 13), 14, 15, 16]
        for i in range(12):
            assert by_line[i + 1]["id"] == f"d{i}"
            assert (
                by_line[i + 1]["result"]["values"]["AL"]
                == generate(10_000_000 + i, "clean", "iolmaster_en").truth["AL"]
            )
        assert [by_line[line]["error"]["code"] for line in (14, 15, 16)] == [
            "invalid_json",
            "invalid_json",
            "invalid_request",
        ]
        assert "Unknown field 'colour'" in by_line[16]["error"]["message"]
        asked = len(engine.seen)
        again = await extract_batch(source, target, here(router), lambda _: None)
        assert (again.before, again.results, again.errors) == (12, 0, 3)
        assert len(engine.seen) == asked
        assert sorted(row["line"] for row in rows(target)) == [*range(1, 13), 14, 15, 16]


async def test_no_more_documents_are_in_progress_than_requested(tmp_path: Path) -> None:
    source, target = batch(tmp_path)
    gate = asyncio.Event()
    async with setup(answer("none").after(gate)) as (engine, _, router):
        task = asyncio.create_task(extract_batch(source, target, here(router, 3), lambda _: None))
        await router.until(lambda: len(engine.seen) == 3)
        gate.set()
        assert (await task).results == 12


async def test_a_batch_resumes_after_a_kill(tmp_path: Path) -> None:
    source, target = batch(tmp_path)
    gate = asyncio.Event()
    async with setup(answer("none")) as (engine, _, router):
        engine.script.extend([answer("none")] * 5)
        engine.answer = answer("none").after(gate)
        arguments = (
            "extract",
            "--batch",
            str(source),
            "--out",
            str(target),
            "--url",
            router.url,
            "--concurrency",
            "2",
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "from spillway_router.cli import app; app()", *arguments,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        async with asyncio.timeout(3 * LIMIT_S):
            while not target.exists() or len(target.read_bytes().splitlines()) < 5:
                await asyncio.sleep(0.02)
            process.kill()
            await process.wait()
        with target.open("ab") as file:
            file.write(b'{"line": 6, "sha')  # what a kill during a write leaves
        gate.set()
        done = {row["line"] for row in rows_until_cut(target)}
        status, out, err = await command(*arguments, "--json")
        assert (status, json.loads(out)["before"], json.loads(out)["results"]) == (0, len(done), 12 - len(done)), err
        assert sorted(row["line"] for row in rows(target)) == list(range(1, 13))
        assert len(engine.seen) == 12  # those in progress at the kill were read to the end, and not again


def rows_until_cut(target: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in target.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


async def test_an_output_of_another_input_is_left_alone(tmp_path: Path) -> None:
    source, target = batch(tmp_path)
    async with setup(answer("none")) as (_, _, router):
        await extract_batch(source, target, here(router), lambda _: None)
        kept = target.read_bytes()
        source.write_text(source.read_text().replace("d3", "d33"))
        with pytest.raises(BatchError, match="another input"):
            await extract_batch(source, target, here(router), lambda _: None)
        assert target.read_bytes() == kept
        target.write_text("my notes\n")
        with pytest.raises(BatchError, match="choose another --out"):
            await extract_batch(source, target, here(router), lambda _: None)
        assert target.read_text() == "my notes\n"


async def test_an_overloaded_router_is_retried_and_an_unreachable_one_reported(tmp_path: Path) -> None:
    source, target = batch(tmp_path)
    async with setup(answer("none"), more="documents: {most_at_once: 1}\n") as (_, _, router):
        tally = await extract_batch(source, target, here(router, 2), lambda _: None)
        assert (tally.results, tally.errors) == (12, 0)
    gone = await extract_batch(source, tmp_path / "gone.jsonl", here(router, 2), lambda _: None)
    assert gone.errors == 12
    assert {row["error"]["code"] for row in rows(tmp_path / "gone.jsonl")} == {"unreachable"}


async def test_no_proxy_of_the_environment_stands_before_the_router(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    source, target = batch(tmp_path)
    async with setup(answer("none")) as (_, _, router):
        tally = await extract_batch(source, target, here(router), lambda _: None)
        assert (tally.results, tally.errors) == (12, 0)


def test_lines_are_counted_and_a_missing_file_is_reported(tmp_path: Path) -> None:
    source, target = batch(tmp_path, "", " ", "x")
    assert count_lines(source) == 13
    place = ExtractPlace(RouterAddress("http://127.0.0.1:1"))
    with pytest.raises(BatchError, match="can't be read"):
        asyncio.run(extract_batch(tmp_path / "none", target, place, lambda _: None))
    assert BatchProgress().cost_usd == 0


async def test_files_are_read_and_shown(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(CLEAN.text)
    (tmp_path / "b.txt").write_text(STRANGE.text)
    async with setup(answer(truth(STRANGE), 0.6), Answer.json({}, 500)) as (_, _, router):
        files = (str(tmp_path / "a.txt"), str(tmp_path / "b.txt"))
        status, out, err = await command("extract", *files, "--url", router.url)
        assert status == 0, err
        assert "a.txt: parser, confidence 0.990, 0.000000 USD" in out
        assert "b.txt: review, confidence 0.600" in out
        assert "waiting for review: spillway reviews show rev_" in out
        status, out, err = await command("extract", files[0], "--url", router.url, "--json", "--schema", "nonsense")
        assert status == 1
        assert json.loads(out)["error"]["param"] == "schema"
        status, out, err = await command("extract", "--url", router.url)
        assert (status, "--batch IN.jsonl" in err) == (1, True)


async def test_reviews_are_decided_from_the_command_line(tmp_path: Path) -> None:
    async with setup(answer(wrong(STRANGE), 0.6), folder=tmp_path) as (_, _, router):
        ids = [(await ask(router, STRANGE.text, {"parser": "none"}))["review_id"] for _ in range(3)]
    with_config = ("-c", str(tmp_path / "spillway.yaml"))
    cli = CliRunner(env={"COLUMNS": "200"})
    listed = cli.invoke(app, ["reviews", "list", *with_config])
    assert listed.exit_code == 0, listed.output
    heading, *lines = listed.stdout.splitlines()
    assert heading.split()[:2] == ["id", "state"]
    assert [line.split()[0] for line in lines] == ids[::-1]
    shown = cli.invoke(app, ["reviews", "show", ids[0], *with_config])
    assert "[K1]" in shown.stdout
    assert "not found in the document" in shown.stdout
    fixed = cli.invoke(
        app, ["reviews", "correct", ids[0], f"AL={STRANGE.truth['AL']}", "eye=OD", *with_config, "--json"]
    )
    assert fixed.exit_code == 0, fixed.output
    assert json.loads(fixed.stdout)["values"]["AL"] == STRANGE.truth["AL"]
    assert cli.invoke(app, ["reviews", "accept", ids[1], *with_config]).stdout == f"{ids[1]} accepted\n"
    assert cli.invoke(app, ["reviews", "dismiss", ids[2], *with_config]).stdout == f"{ids[2]} dismissed\n"
    for wrong_one in (["accept", ids[1]], ["accept", "rev_x"], ["correct", ids[1], "AL"], ["show", "rev_x"]):
        refused = cli.invoke(app, ["reviews", *wrong_one, *with_config])
        assert refused.exit_code == 1, wrong_one
        assert refused.stderr
    rest = json.loads(cli.invoke(app, ["reviews", "list", "--state", "all", "--json", *with_config]).stdout)
    assert [row["state"] for row in rest] == ["dismissed", "accepted", "corrected"]
    target = tmp_path / "labels.jsonl"
    exported = cli.invoke(app, ["reviews", "labels", "--output", str(target), *with_config])
    assert exported.exit_code == 0
    assert exported.stderr.endswith("\n2 labels\n")
    assert sorted(row["right"] for row in rows(target)) == [False, True]
