"""What the whole answers of each paid backend teach about the output of those that are cut off."""

from __future__ import annotations

from spillway_router.core.money.estimates import OutputHabit


class OutputHabits:
    """The habit of each backend, by its name. There are as many as backends in the configurations of this process."""

    __slots__ = ("_by_backend",)

    def __init__(self) -> None:
        self._by_backend: dict[str, OutputHabit] = {}

    def of(self, backend: str) -> OutputHabit:
        """Return the habit of a backend."""
        habit = self._by_backend.get(backend)
        if habit is None:
            habit = self._by_backend[backend] = OutputHabit()
        return habit
