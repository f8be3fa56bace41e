"""Clients that leave paid streams at random places, and what the ledger books for each beside the provider's bill."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from evidence.money.stopping_provider import Billed, StoppingProvider
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.verify import verify
from spillway_router.testing.harness import Router, cloud, routing, settings

AT_ONCE = 64
LEAVE_S = 60.0
"""Longest time one client may take."""
INPUT_NANO, OUTPUT_NANO = 1000, 2000
"""Of a token, at the harness's prices."""
PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    "/v1/chat/completions": {"max_tokens": 400},
    "/v1/completions": {"max_tokens": 400},
    "/v1/responses": {"max_output_tokens": 400},
    "/v1/messages": {"max_tokens": 400},
}


@dataclass(slots=True)
class Stopped:
    """What came of the clients of one provider, in nano-dollars. `error_nano` sums the distance of each charge from
    its bill, `worst` is the largest relative one."""

    left: int = 0
    stayed: int = 0
    billed_nano: int = 0
    booked_nano: int = 0
    error_nano: int = 0
    worst: float = 0.0
    estimated: int = 0
    above_bound: int = 0
    below_at_most: int = 0
    """Bills of estimates that are above what their rows say they can be at most."""

    @property
    def error(self) -> float:
        """The relative error of what is booked, with no call's excess making up for another's lack."""
        return self.error_nano / self.billed_nano if self.billed_nano else 0.0


@dataclass(frozen=True, slots=True)
class Trial:
    """One run: the figures by what the provider does, how reading on ended, and what the ledger says of itself."""

    continues: Stopped
    stops: Stopped
    drains: Mapping[str, int]
    open_holds: int
    verify_faults: int
    unbilled: int = 0
    """Charges of which the provider knows nothing."""


@dataclass(slots=True)
class _Clients:
    router: Router
    chance: random.Random
    gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def visit(self, number: int, backend: str) -> None:
        """Ask for a stream and leave it somewhere; a few stay, and teach the router what whole answers look like."""
        path = list(PROTOCOLS)[number % len(PROTOCOLS)]
        share = self.chance.random() * 1.1
        async with self.gate, asyncio.timeout(LEAVE_S):
            await self._ask(path, _body(path, number, backend), share)

    async def _ask(self, path: str, body: bytes, share: float) -> None:
        """Read this share of the answer and leave; about its length is known from the length of a usual one."""
        address = urlsplit(self.router.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n"
            head += "content-type: application/json\r\n"
            writer.write(head.encode() + b"\r\n" + body)
            wanted = int(share * 40)
            while wanted > 0:
                line = await reader.readline()
                if not line or line == b"0\r\n":
                    return
                wanted -= line.startswith(b"data: ")
        finally:
            writer.close()


def _body(path: str, number: int, backend: str) -> bytes:
    content = f"Tell me of the river, the {number}th time. " * (1 + number % 7)
    chat = [{"role": "user", "content": content}]
    fields: dict[str, Any] = {"user": str(number)}
    if path == "/v1/responses":
        fields |= {"input": content}
    elif path == "/v1/completions":
        fields |= {"prompt": content}
    else:
        fields |= {"messages": chat}
    if path == "/v1/messages":
        fields["metadata"] = {"user_id": fields.pop("user")}
    model = f"{backend}/{backend}-m"
    return json.dumps({"model": model, "stream": True, **PROTOCOLS[path], **fields}).encode()


async def trial(folder: Path, clients: int, seed: int, *, fault: bool = False) -> Trial:
    """Let `clients` leave, half at a provider that goes on and half at one that stops. `fault`: nobody reads on."""
    async with StoppingProvider(goes_on=True) as going, StoppingProvider(goes_on=False) as stopping:
        backends = (
            _backend(going, "continues", drain=not fault),
            _backend(stopping, "stops", drain=True),
        )
        async with routing(settings(*backends), folder) as router:
            visitors = _Clients(router, random.Random(seed))
            await asyncio.gather(
                *(visitors.visit(number, ("continues", "stops")[number // 4 % 2]) for number in range(clients))
            )
            await router.until(lambda: not router.ledger.open_reservations(0, 2**62))
            await router.until(lambda: going.open == stopping.open == 0)
            rows = list(router.ledger.entries_between(0, 2**62))
            drains: Counter[str] = Counter()
            for (_, result), count in router.runtime.drains.results.items():
                drains[result] += count
            open_holds = len(router.ledger.open_reservations(0, 2**62))
            faults = verify(router.ledger).fault_count
    bills = going.bills | stopping.bills
    charged = [row for row in rows if row.kind == "charged"]
    bounds = {_call(row): row.reserved_nano for row in rows if row.kind == "reserved"}
    return Trial(
        continues=_compared("continues", charged, bounds, bills),
        stops=_compared("stops", charged, bounds, bills),
        drains=dict(drains),
        open_holds=open_holds,
        verify_faults=faults,
        unbilled=sum(_call(row) not in bills for row in charged),
    )


def _backend(provider: StoppingProvider, name: str, *, drain: bool) -> str:
    line = cloud(provider.url, name)
    return line.removesuffix("}") + f", on_disconnect: {name}, drain: {str(drain).lower()}}}"


def _call(row: Entry) -> str:
    return f"{row.request_id}.{row.attempt_no}"


def _compared(backend: str, charged: list[Entry], bounds: Mapping[str, int], bills: Mapping[str, Billed]) -> Stopped:
    """Compare the charges of the clients that left with the provider's bill."""
    stopped = Stopped()
    for row in charged:
        bill = bills.get(_call(row))
        if row.backend != backend or bill is None:
            continue
        bound_nano = bounds[_call(row)]
        stopped.above_bound += row.amount_nano > bound_nano
        if row.status != "aborted":
            stopped.stayed += 1
            continue
        billed_nano = bill.prompt * INPUT_NANO + bill.completion * OUTPUT_NANO
        error_nano = abs(row.amount_nano - billed_nano)
        stopped.left += 1
        stopped.billed_nano += billed_nano
        stopped.booked_nano += row.amount_nano
        stopped.error_nano += error_nano
        stopped.worst = max(stopped.worst, error_nano / billed_nano if billed_nano else 0.0)
        stopped.estimated += row.at_most_nano > 0
        stopped.below_at_most += billed_nano > max(row.at_most_nano, row.amount_nano)
    return stopped
