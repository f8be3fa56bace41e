"""The tables beside the ledger's entries, kept in memory: the same contract as in SQL, but nothing on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from threading import Lock

from spillway_router.core.comparison.differences import RatioSums
from spillway_router.core.money.budget import AlertKey, Period
from spillway_router.core.money.credits import Counted, CreditCap
from spillway_router.core.routing.experiments import title_of
from spillway_router.ledger.entries import ANSWERED, GENESIS, Entry
from spillway_router.ledger.errors import LastAdminError
from spillway_router.ledger.ids import first_id
from spillway_router.ledger.records import KeyRecord, OtherCost, RentalRecord
from spillway_router.ledger.tables import private_sessions, request_traits, stored_responses
from spillway_router.ledger.tables.acts import (
    ActLog,
    Change,
    LinkedAct,
    act_link,
    cost_fields,
    key_fields,
    rental_fields,
    without_secrets,
)
from spillway_router.ledger.tables.alerts import KEPT_MS, AlertTable
from spillway_router.ledger.tables.credits import CreditsUsed, CreditTable, begun_at
from spillway_router.ledger.tables.experiments import ArmSums, DryChoice, ExperimentTable, ShareMove
from spillway_router.ledger.tables.feedback import SATISFIED, FeedbackRecord, FeedbackTable, Opinion, Pressed
from spillway_router.ledger.tables.key_table import KeyChange, KeyTable, key_exists
from spillway_router.ledger.tables.labels import LabelRecord, LabelTable
from spillway_router.ledger.tables.other_costs import OtherCostTable
from spillway_router.ledger.tables.private_sessions import PrivateSession, PrivateSessionTable
from spillway_router.ledger.tables.provider_keys import (
    ProviderKeyRecord,
    ProviderKeyTable,
    ProviderPlace,
    removed_act,
    stored_act,
)
from spillway_router.ledger.tables.rentals import RentalTable, rental_exists
from spillway_router.ledger.tables.request_traits import RequestTraits, TraitTable
from spillway_router.ledger.tables.reviews import (
    OpenReviews,
    ReviewDecision,
    ReviewFilter,
    ReviewRecord,
    ReviewState,
    ReviewTable,
    decision_change,
    review_exists,
)
from spillway_router.ledger.tables.stored_responses import MOST_RESPONSES, ResponseTable, StoredResponse
from spillway_router.ledger.tables.tariffs import TariffTable


class MemoryActs(ActLog):
    """An `ActLog` in memory, to which the tables append."""

    def __init__(self) -> None:
        self._acts: list[LinkedAct] = []
        self._lock = Lock()

    def append(self, change: Change) -> None:
        """Append an act; where the change doesn't say, of nobody in particular."""
        with self._lock:
            act = change.act(time.time_ns() // 1_000_000, "")
            link = act_link(self._acts[-1].link if self._acts else GENESIS, act)
            self._acts.append(LinkedAct(len(self._acts) + 1, act, link))

    def record(self, change: Change) -> None:
        self.append(change)

    def all(self) -> tuple[LinkedAct, ...]:
        with self._lock:
            return tuple(self._acts)


class MemoryKeys(KeyTable):
    """A `KeyTable` in memory."""

    def __init__(self, acts: MemoryActs) -> None:
        self._acts = acts
        self._records: dict[str, KeyRecord] = {}
        self._revision = 0
        self._lock = Lock()

    def add(self, record: KeyRecord, by: str = "") -> None:
        with self._lock:
            if record.id in self._records:
                raise key_exists(record.id)
            self._records[record.id] = record
            self._revision += 1
            self._acts.append(Change("key.create", record.id, key_fields(record), by))

    def all(self) -> tuple[KeyRecord, ...]:
        with self._lock:
            return tuple(sorted(self._records.values(), key=lambda record: (record.created, record.id)))

    def change(self, change: KeyChange) -> bool:
        with self._lock:
            record = self._records.get(change.key_id)
            if record is None or record.revoked is not None:
                return False
            left_ms = change.admin_left_ms
            if left_ms is not None and record.role == "admin" and not self._other_admin(change.key_id, left_ms):
                raise LastAdminError(change.key_id)
            self._records[change.key_id] = replace(record, **change.fields)
            self._revision += 1
            self._acts.append(Change(change.kind, change.key_id, without_secrets(change.fields), change.by))
            return True

    def _other_admin(self, key_id: str, now_ms: int) -> bool:
        return any(
            other.role == "admin" and other.revoked is None and (other.expires is None or other.expires > now_ms)
            for other in self._records.values()
            if other.id != key_id
        )

    def revision(self) -> int:
        return self._revision


class MemoryProviderKeys(ProviderKeyTable):
    """A `ProviderKeyTable` in memory."""

    def __init__(self, acts: MemoryActs, keys: MemoryKeys) -> None:
        self._acts = acts
        self._keys = keys
        self._records: dict[ProviderPlace, ProviderKeyRecord] = {}
        self._changes = 0
        self._lock = Lock()

    def put(self, record: ProviderKeyRecord, by: str = "") -> bool:
        with self._lock:
            if record.place.key_id not in self._valid():
                return False
            self._records[record.place] = record
            self._changes += 1
            self._acts.append(stored_act(record.place, by))
            return True

    def remove(self, place: ProviderPlace, by: str = "") -> bool:
        with self._lock:
            if self._records.pop(place, None) is None:
                return False
            self._changes += 1
            self._acts.append(removed_act(place, by))
            return True

    def all(self) -> tuple[ProviderKeyRecord, ...]:
        with self._lock:
            valid = self._valid()
            return tuple(self._records[place] for place in sorted(self._records) if place.key_id in valid)

    def revision(self) -> int:
        return self._changes + self._keys.revision()

    def _valid(self) -> set[str]:
        return {key.id for key in self._keys.all() if key.revoked is None}


class MemoryCredits(CreditTable):
    """A `CreditTable` in memory."""

    def __init__(self) -> None:
        self._used: dict[tuple[str, Counted, Period, int], CreditsUsed] = {}
        self._lock = Lock()

    def take(self, caps: Sequence[CreditCap]) -> CreditCap | None:
        with self._lock:
            for cap in sorted(caps, key=_credit_key):
                stored = self._used.get(_credit_key(cap))
                if (0 if stored is None else stored.used) >= cap.limit:
                    return cap
            for cap in caps:
                stored = self._used.get(_credit_key(cap))
                used = 1 if stored is None else stored.used + 1
                self._used[_credit_key(cap)] = CreditsUsed(*_credit_key(cap), used=used, limit=cap.limit)
            return None

    def give_back(self, caps: Sequence[CreditCap]) -> None:
        with self._lock:
            for cap in caps:
                stored = self._used.get(_credit_key(cap))
                if stored is not None and stored.used:
                    self._used[_credit_key(cap)] = replace(stored, used=stored.used - 1)

    def used(self, start_ms: int, end_ms: int, most: int) -> tuple[CreditsUsed, ...]:
        begun = dict(zip(("hour", "day", "month"), begun_at(start_ms), strict=True))
        rows = [row for row in self._used.values() if row.used and begun[row.period] <= row.start_ms < end_ms]
        rows.sort(key=lambda row: (-row.used, row.scope, row.period, row.start_ms))
        kinds: tuple[Counted, ...] = ("requests", "better")
        return tuple(row for kind in kinds for row in [row for row in rows if row.counted == kind][:most])


def _credit_key(cap: CreditCap) -> tuple[str, Counted, Period, int]:
    return (cap.scope, cap.counted, cap.period, cap.start_ms)


class MemoryAlerts(AlertTable):
    """An `AlertTable` in memory."""

    def __init__(self) -> None:
        self._claimed: set[AlertKey] = set()
        self._lock = Lock()

    def claim(self, key: AlertKey, now_ms: int) -> bool:
        with self._lock:
            self._claimed = {other for other in self._claimed if other[2] * 1000 >= now_ms - KEPT_MS}
            if key in self._claimed:
                return False
            self._claimed.add(key)
            return True

    def is_claimed(self, key: AlertKey) -> bool:
        with self._lock:
            return key in self._claimed


class MemoryResponses(ResponseTable):
    """A `ResponseTable` in memory."""

    def __init__(self) -> None:
        self._records: dict[str, StoredResponse] = {}
        self._lock = Lock()

    def put(self, records: Sequence[StoredResponse]) -> None:
        with self._lock:
            self._records |= {record.response_id: record for record in records}

    def get(self, response_id: str, now_ms: int) -> StoredResponse | None:
        record = self._records.get(response_id)
        return record if record is not None and record.made_ms > now_ms - stored_responses.KEPT_MS else None

    def forget(self, response_id: str) -> None:
        with self._lock:
            self._records.pop(response_id, None)

    def prune(self, now_ms: int, most: int = MOST_RESPONSES) -> None:
        with self._lock:
            newest = sorted(self._records.values(), key=lambda record: record.made_ms, reverse=True)[:most]
            oldest_ms = now_ms - stored_responses.KEPT_MS
            self._records = {record.response_id: record for record in newest if record.made_ms > oldest_ms}


class MemoryPrivateSessions(PrivateSessionTable):
    """A `PrivateSessionTable` in memory."""

    def __init__(self) -> None:
        self._records: dict[str, PrivateSession] = {}
        self._lock = Lock()

    def put(self, records: Sequence[PrivateSession]) -> None:
        with self._lock:
            for record in records:
                latest = self._records.setdefault(record.digest, record)
                self._records[record.digest] = max(latest, record, key=lambda one: one.seen_ms)

    def all(self, now_ms: int) -> Iterator[PrivateSession]:
        oldest_ms = now_ms - private_sessions.KEPT_MS
        yield from [record for record in list(self._records.values()) if record.seen_ms > oldest_ms]

    def among(self, digests: Sequence[str], now_ms: int) -> tuple[PrivateSession, ...]:
        return tuple(record for record in self.all(now_ms) if record.digest in digests)

    def prune(self, now_ms: int) -> None:
        with self._lock:
            self._records = {record.digest: record for record in self.all(now_ms)}


class MemoryTraits(TraitTable):
    """A `TraitTable` in memory."""

    def __init__(self) -> None:
        self._records: dict[str, RequestTraits] = {}
        self._lock = Lock()

    def put(self, records: Sequence[RequestTraits]) -> None:
        with self._lock:
            for record in records:
                self._records.setdefault(record.request_id, record)

    def all(self, since_ms: int) -> Iterator[RequestTraits]:
        since = first_id(since_ms)
        yield from [record for request_id, record in sorted(self._records.items()) if request_id > since]

    def prune(self, now_ms: int, most: int = request_traits.MOST_ROWS) -> None:
        kept = list(self.all(now_ms - request_traits.KEPT_MS))
        with self._lock:
            self._records = {record.request_id: record for record in kept[-most:]}


class MemoryTariffs(TariffTable):
    """A `TariffTable` in memory."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._lock = Lock()

    def keep(self, texts: Mapping[str, str], now_ms: int) -> None:
        del now_ms
        with self._lock:
            self._texts = {**texts, **self._texts}

    def texts(self) -> Mapping[str, str]:
        return dict(self._texts)


class MemoryRentals(RentalTable):
    """A `RentalTable` in memory."""

    def __init__(self, acts: MemoryActs) -> None:
        self._acts = acts
        self._records: dict[str, RentalRecord] = {}
        self._lock = Lock()

    def add(self, record: RentalRecord, by: str = "") -> None:
        with self._lock:
            if record.id in self._records:
                raise rental_exists(record.id)
            self._records[record.id] = record
            self._acts.append(Change("rental.start", record.id, rental_fields(record), by))

    def between(self, start_ms: int, end_ms: int) -> tuple[RentalRecord, ...]:
        with self._lock:
            records = [
                record
                for record in self._records.values()
                if record.started_ms < end_ms and (record.stopped_ms is None or record.stopped_ms > start_ms)
            ]
        return tuple(sorted(records, key=lambda record: (record.started_ms, record.id)))

    def stop(self, rental_id: str, at_ms: int) -> bool:
        with self._lock:
            record = self._records.get(rental_id)
            if record is None or record.stopped_ms is not None:
                return False
            stopped = self._records[rental_id] = replace(record, stopped_ms=max(at_ms, record.started_ms))
            self._acts.append(Change("rental.stop", rental_id, {"stopped_ms": stopped.stopped_ms}))
            return True

    def move_stop(self, rental_id: str, at_ms: int, by: str = "") -> bool:
        with self._lock:
            record = self._records.get(rental_id)
            if record is None:
                return False
            stopped = self._records[rental_id] = replace(record, stopped_ms=max(at_ms, record.started_ms))
            self._acts.append(Change("rental.correct", rental_id, {"stopped_ms": stopped.stopped_ms}, by))
            return True

    def seen(self, rental_id: str, at_ms: int) -> None:
        with self._lock:
            record = self._records.get(rental_id)
            if record is not None and record.stopped_ms is None and (record.seen_ms or 0) < at_ms:
                self._records[rental_id] = replace(record, seen_ms=at_ms)


class MemoryOtherCosts(OtherCostTable):
    """An `OtherCostTable` in memory."""

    def __init__(self, acts: MemoryActs) -> None:
        self._acts = acts
        self._records: dict[str, OtherCost] = {}
        self._lock = Lock()

    def add(self, record: OtherCost) -> bool:
        with self._lock:
            if record.id in self._records:
                return False
            self._records[record.id] = record
            self._acts.append(Change("cost.start", record.id, cost_fields(record)))
            return True

    def all(self) -> tuple[OtherCost, ...]:
        with self._lock:
            records = list(self._records.values())
        return tuple(sorted(records, key=lambda record: (record.started_ms, record.id)))

    def stop(self, cost_id: str, at_ms: int) -> bool:
        with self._lock:
            record = self._records.get(cost_id)
            if record is None or record.stopped_ms is not None:
                return False
            stopped = self._records[cost_id] = replace(record, stopped_ms=max(at_ms, record.started_ms))
            self._acts.append(Change("cost.stop", cost_id, {"stopped_ms": stopped.stopped_ms}))
            return True


class MemoryReviews(ReviewTable):
    """A `ReviewTable` in memory."""

    def __init__(self, acts: MemoryActs) -> None:
        self._acts = acts
        self._records: dict[str, ReviewRecord] = {}
        self._lock = Lock()

    def add(self, record: ReviewRecord) -> None:
        with self._lock:
            if record.id in self._records:
                raise review_exists(record.id)
            self._records[record.id] = record

    def get(self, review_id: str) -> ReviewRecord | None:
        return self._records.get(review_id)

    def list(self, which: ReviewFilter) -> tuple[ReviewRecord, ...]:
        records = [
            replace(r, content=None, outcome=None)
            for r in self._records.values()
            if which.state in ("", r.state)
            and which.schema_name in ("", r.schema_name)
            and (which.since_ms is None or r.created_ms >= which.since_ms)
            and (which.before is None or (r.created_ms, r.id) < which.before)
        ]
        records.sort(key=lambda r: (r.created_ms, r.id), reverse=True)
        return tuple(records[: which.page_size])

    def count(self, state: ReviewState) -> int:
        return sum(r.state == state for r in self._records.values())

    def waiting(self) -> OpenReviews:
        times_ms = [r.created_ms for r in self._records.values() if r.state == "open"]
        return OpenReviews(len(times_ms), min(times_ms, default=None))

    def decide(self, review_id: str, decision: ReviewDecision) -> bool:
        d = decision
        with self._lock:
            record = self._records.get(review_id)
            if record is None or record.state != "open":
                return False
            self._records[review_id] = replace(
                record, state=d.state, outcome=d.outcome, label=d.label, decided_ms=d.decided_ms,
                decided_by=d.decided_by,
            )  # fmt: skip
            self._acts.append(decision_change(review_id, decision))
            return True

    def forget(self, decided_before_ms: int) -> int:
        with self._lock:
            old = [
                r
                for r in self._records.values()
                if r.content is not None and r.decided_ms is not None and r.decided_ms < decided_before_ms
            ]
            for r in old:
                self._records[r.id] = replace(r, content=None, outcome=None)
            return len(old)


_PRESSED = ("better_id", "pressed_by", "pressed_tier", "pressed_user")


class MemoryFeedback(FeedbackTable):
    """A `FeedbackTable` in memory."""

    def __init__(self) -> None:
        self._records: dict[str, FeedbackRecord] = {}
        self._lock = Lock()

    def put(self, record: FeedbackRecord) -> None:
        with self._lock:
            stored = self._records.get(record.request_id)
            if stored is not None:
                record = replace(
                    stored,
                    ts=record.ts,
                    rating=stored.rating if record.rating is None else record.rating,
                    reason=record.reason or stored.reason,
                    **{name: getattr(record if record.better_id else stored, name) for name in _PRESSED},
                )
            self._records[record.request_id] = record

    def get(self, request_id: str) -> FeedbackRecord | None:
        return self._records.get(request_id)

    def pressed(self, start_ms: int, end_ms: int, most: int) -> tuple[Pressed, ...]:
        sums: dict[tuple[str, str, str], list[int]] = {}
        for record in self._records.values():
            if record.better_id and start_ms <= record.ts < end_ms:
                better = self._records.get(record.better_id)
                total = sums.setdefault((record.pressed_by, record.pressed_tier, record.pressed_user), [0, 0, 0])
                total[0] += 1
                if better is not None and record.rating is not None and better.rating is not None:
                    total[1] += 1
                    total[2] += better.rating - record.rating
        order = sorted(sums, key=lambda who: (-sums[who][0], who))[:most]
        return tuple(Pressed(*who, asked=sums[who][0], compared=sums[who][1], gained_sum=sums[who][2]) for who in order)

    def all(self, since_ms: int = 0) -> Iterator[FeedbackRecord]:
        rows = [record for record in self._records.values() if record.ts >= since_ms]
        return iter(sorted(rows, key=lambda record: (record.ts, record.request_id)))

    def opinions(self, start_ms: int, end_ms: int) -> tuple[Opinion, ...]:
        rows = [r for r in self._records.values() if start_ms <= r.ts < end_ms]
        opinions = []
        for backend, model in sorted({(r.backend, r.model) for r in rows}):
            mine = [r for r in rows if (r.backend, r.model) == (backend, model)]
            ratings = [r.rating for r in mine if r.rating is not None]
            better = sum(bool(r.better_id) for r in mine)
            satisfied = sum(rating >= SATISFIED for rating in ratings)
            opinions.append(
                Opinion(
                    backend=backend,
                    model=model,
                    ratings=len(ratings),
                    satisfied=satisfied,
                    rating_sum=sum(ratings),
                    better_asked=better,
                )
            )
        return tuple(opinions)


class MemoryLabels(LabelTable):
    """A `LabelTable` in memory."""

    def __init__(self) -> None:
        self._records: dict[str, LabelRecord] = {}
        self._lock = Lock()

    def put(self, record: LabelRecord) -> None:
        with self._lock:
            self._records[record.request_id] = record

    def all(self, since_ms: int = 0) -> Iterator[LabelRecord]:
        with self._lock:
            records = [record for record in self._records.values() if record.ts >= since_ms]
        yield from sorted(records, key=lambda record: (record.ts, record.request_id))


class MemoryExperiments(ExperimentTable):
    """An `ExperimentTable` over the entries and the feedback of a ledger in memory."""

    def __init__(self, entries: Callable[[], Sequence[Entry]], feedback: MemoryFeedback) -> None:
        self._entries, self._feedback = entries, feedback
        self._moves: dict[tuple[str, str, int], ShareMove] = {}

    def keep_move(self, move: ShareMove) -> bool:
        return self._moves.setdefault((move.experiment, move.setup, move.at_ms), move) is move

    def latest_move(self, experiment: str, setup: str) -> ShareMove | None:
        moves = [one for one in self._moves.values() if (one.experiment, one.setup) == (experiment, setup)]
        return max(moves, key=lambda one: one.at_ms, default=None)

    def moves(self, start_ms: int, end_ms: int) -> tuple[ShareMove, ...]:
        moves = [one for one in self._moves.values() if start_ms <= one.at_ms < end_ms]
        return tuple(sorted(moves, key=lambda one: (one.at_ms, one.experiment, one.setup)))

    def arms(self, start_ms: int, end_ms: int) -> tuple[ArmSums, ...]:
        requests: dict[tuple[str, str], list[Entry]] = {}
        for row in self._entries():
            counts = row.experiment and row.kind != "reserved" and row.decision != "audit"
            if counts and start_ms <= row.ts < end_ms:
                requests.setdefault((row.request_id, row.experiment), []).append(row)
        titles = sorted({title_of(rows[0].experiment) for rows in requests.values()})
        return tuple(
            self._arm(title, [rows for rows in requests.values() if title_of(rows[0].experiment) == title])
            for title in titles
        )

    def dry_choices(self, start_ms: int, end_ms: int) -> tuple[DryChoice, ...]:
        rows = self._entries()
        chosen: dict[tuple[str, str], list[Entry]] = {}
        for dry in rows:
            if dry.experiment and dry.kind == "released" and _is_dry(dry) and start_ms <= dry.ts < end_ms:
                answers = [row for row in rows if row.request_id == dry.request_id and _is_answer(row)]
                chosen.setdefault((title_of(dry.experiment), dry.backend), []).extend(answers)
        return tuple(
            DryChoice(
                arm=arm,
                backend=backend,
                requests=len(answers),
                prompt_tokens=sum(row.prompt_tokens for row in answers),
                cached_tokens=sum(row.cached_tokens for row in answers),
                completion_tokens=sum(row.completion_tokens for row in answers),
                cost_nano=sum(row.amount_nano for row in answers),
            )
            for (arm, backend), answers in sorted(chosen.items())
            if answers
        )

    def _arm(self, title: str, requests: Sequence[Sequence[Entry]]) -> ArmSums:
        times = [min(row.ts for row in rows) for rows in requests]
        cost, took, escalated, rating, agreement = (dict[str, list[float]]() for _ in range(5))
        for rows in requests:
            mark = rows[0].experiment
            answer = next((row for row in rows if _is_answer(row) or _is_shadow_answer(row)), None)
            shadow = any(row.decision == "shadow" for row in rows)
            opinion = None if shadow else self._feedback.get(rows[0].request_id)
            for row in rows:
                if row.reasons in ("shadow,agrees", "shadow,differs"):
                    _add(agreement, mark, row.reasons == "shadow,agrees")
            _add(cost, mark, sum(row.amount_nano for row in rows))
            if answer is not None:
                _add(escalated, mark, answer.decision == "escalated")
                if answer.took_ms:
                    _add(took, mark, answer.took_ms)
            if opinion is not None and opinion.rating is not None:
                _add(rating, mark, opinion.rating)
        return ArmSums(
            arm=title,
            requests=len(requests),
            answered=sum(len(amounts) for amounts in escalated.values()),
            first_ms=min(times),
            last_ms=max(times),
            cost=_ratio(cost),
            took=_ratio(took),
            escalated=_ratio(escalated),
            rating=_ratio(rating),
            agreement=_ratio(agreement),
            dry=sum(any(_is_dry(row) for row in rows) for rows in requests),
        )


def _is_answer(row: Entry) -> bool:
    return row.kind == "charged" and row.status in ANSWERED


def _is_shadow_answer(row: Entry) -> bool:
    return row.kind == "charged" and row.decision == "shadow" and row.status == "discarded"


def _is_dry(row: Entry) -> bool:
    return row.reasons.startswith("shadow,dry")


def _add(amounts: dict[str, list[float]], unit: str, amount: float) -> None:
    amounts.setdefault(unit, []).append(amount)


def _ratio(amounts: Mapping[str, Sequence[float]]) -> RatioSums:
    units = [(float(sum(each)), len(each)) for each in amounts.values()]
    return RatioSums(
        units=len(units),
        amount=sum(amount for amount, _ in units),
        count=sum(count for _, count in units),
        amount_squares=sum(amount * amount for amount, _ in units),
        count_squares=sum(count * count for _, count in units),
        products=sum(amount * count for amount, count in units),
    )
