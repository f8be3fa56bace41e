"""The outlook: what a further GPU will save in the hours to come, from the same hours of the weeks before.

The saving of one hour of the week is compared over the weeks. Its interval goes from the least to the most that was
seen, which for n exchangeable weeks holds the next one with probability (n - 1)/(n + 1). Two weeks are needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from spillway_router.core.fleet.demand import Demand
from spillway_router.core.fleet.scaler import LayerOutlook

HOURS_OF_WEEK = 168
FEWEST_WEEKS = 2
MOST_WEEKS = 8


@dataclass(frozen=True, slots=True)
class HourOfWeek:
    """The savings in one hour of past weeks, the latest last: nano-dollars per second of each layer."""

    weeks: tuple[tuple[float, ...], ...] = ()

    def interval(self, layer: int) -> LayerOutlook | None:
        """Return the interval of a layer's saving (from 1); None with fewer than two weeks."""
        if len(self.weeks) < FEWEST_WEEKS:
            return None
        seen = [week[layer - 1] for week in self.weeks[-MOST_WEEKS:]]
        return LayerOutlook(min(seen), max(seen))


@dataclass(frozen=True, slots=True)
class WeeklyHistory:
    """What was seen in each hour of the week (0: Monday 00:00 UTC to 167)."""

    hours: Mapping[int, HourOfWeek] = field(default_factory=dict)

    def with_hour(self, hour: int, demands: Sequence[Demand], seconds: float, most: int) -> WeeklyHistory:
        """Return the history with one more hour, made of these steps."""
        savings = tuple(sum(demand.saving(layer) for demand in demands) / seconds for layer in range(1, most + 1))
        place = hour % HOURS_OF_WEEK
        weeks = (*self.hours.get(place, HourOfWeek()).weeks, savings)[-MOST_WEEKS:]
        return WeeklyHistory({**self.hours, place: HourOfWeek(weeks)})

    def outlook(self, hour: int, ahead: int, most: int) -> tuple[LayerOutlook, ...]:
        """Return the outlook on `ahead` hours from the hour of the week `hour` on: the mean of their intervals' ends.

        It ends before the first layer without two weeks of history.
        """
        seen: list[LayerOutlook] = []
        places = [self.hours.get((hour + later) % HOURS_OF_WEEK, HourOfWeek()) for later in range(ahead)]
        for layer in range(1, most + 1):
            intervals = [one for place in places if (one := place.interval(layer)) is not None]
            if not intervals or len(intervals) < len(places):
                break
            low = sum(one.low_nano_per_s for one in intervals) / len(intervals)
            high = sum(one.high_nano_per_s for one in intervals) / len(intervals)
            seen.append(LayerOutlook(low, high))
        return tuple(seen)
