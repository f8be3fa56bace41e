"""`spillway chat` at a terminal: lines are edited, Ctrl-C stops an answer and not the session, commands stay local."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from spillway_router.testing import Answer
from spillway_router.testing import openai_wire as wire
from spillway_router.testing.harness import LIMIT_S, pair

BEGUN = wire.event({"choices": [wire.delta_choice({"content": "It begins"})]})
ENDED = wire.event({"choices": [wire.delta_choice({"content": "."}, "stop")]}) + wire.DONE
CHAT = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # it is the terminal that sends this process its signals
from spillway_router.cli import app
app()
"""
UP, BACKSPACE, INTERRUPT = "\x1b[A", "\x7f", "\x03"


class Terminal:
    """A process at a terminal of its own. `shown` is everything that it has printed."""

    def __init__(self, words: Sequence[str]) -> None:
        self.shown = ""
        self._words = words
        self._news = asyncio.Event()
        self._master, self._slave = pty.openpty()

    async def __aenter__(self) -> Terminal:
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200", "NO_COLOR": "1"}
        self._process = subprocess.Popen(
            self._words,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env=environment,
            start_new_session=True,
        )
        asyncio.get_running_loop().add_reader(self._master, self._read)
        return self

    async def __aexit__(self, *error: object) -> None:
        asyncio.get_running_loop().remove_reader(self._master)
        if self._process.poll() is None:
            self._process.kill()
            await self.ended()
        os.close(self._master)
        os.close(self._slave)

    def _read(self) -> None:
        try:
            self.shown += os.read(self._master, 65536).decode(errors="replace")
        except OSError:  # the process has ended
            asyncio.get_running_loop().remove_reader(self._master)
        self._news.set()

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    async def until(self, text: str) -> None:
        """Wait until a text is shown after what was waited for before."""
        async with asyncio.timeout(3 * LIMIT_S):
            while text not in self.shown:
                self._news.clear()
                await self._news.wait()
        self.shown = self.shown.partition(text)[2]

    async def ended(self) -> int:
        """Wait for the end; return the exit status."""
        return await asyncio.to_thread(self._process.wait, 3 * LIMIT_S)


async def test_a_conversation_at_a_terminal(tmp_path: Path) -> None:
    gate = asyncio.Event()
    answer = Answer.stream(BEGUN + ENDED).pausing(len(BEGUN), gate)
    async with pair(answer, folder=tmp_path) as (engine, _, router):
        async with Terminal([sys.executable, "-c", CHAT, "chat", "--url", router.url]) as terminal:
            await terminal.until("Ctrl-C stops an answer.")
            terminal.type("How long is it?\n")
            await terminal.until("It begins")
            terminal.type(INTERRUPT)
            await terminal.until("stopped")
            terminal.type(f"/cosx{BACKSPACE}t\n")
            await terminal.until("so far, and 1 stopped answers")
            terminal.type(f"{UP}\n")
            await terminal.until("so far, and 1 stopped answers")
            terminal.type("/nonsense\n")
            await terminal.until("There is no command /nonsense.")
            gate.set()
            terminal.type("Again\n")
            await terminal.until("local:")
            terminal.type("/quit\n")
            assert await terminal.ended() == 0
        texts = [arrived.json["messages"][-1]["content"] for arrived in engine.seen]
        assert texts == ["How long is it?", "Again"], "commands never go to a model"
        assert len(engine.seen[1].json["messages"]) == 1, "what was stopped is no part of the conversation"
