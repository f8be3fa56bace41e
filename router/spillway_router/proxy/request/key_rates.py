"""How often each key may ask: a bucket of permits per key, which fills up within a minute."""

from __future__ import annotations

_MINUTE_S = 60.0


class KeyRates:
    """The permits that keys have left in this process. Only keys with a limit have an entry, so their number is
    bounded by that of the keys."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, float]] = {}
        """The permits of each key, and when they were counted (monotonic seconds)."""

    def wait_s(self, key_id: str, per_minute: int, monotonic_s: float) -> float:
        """Take a permit and return 0, or return the seconds until there is one."""
        left, counted_s = self._left.get(key_id, (float(per_minute), monotonic_s))
        left = min(float(per_minute), left + (monotonic_s - counted_s) * per_minute / _MINUTE_S)
        if left < 1:
            self._left[key_id] = (left, monotonic_s)
            return (1 - left) * _MINUTE_S / per_minute
        self._left[key_id] = (left - 1, monotonic_s)
        return 0.0
