"""The measurement of the two guards of privacy sees a leak."""

from __future__ import annotations

import pytest
from evidence.measures_two_guards import E2E, ONE_GUARD_OFF, two_guards


@pytest.mark.parametrize("fault", [False, True])
def test_a_leak_is_counted(fault: bool) -> None:
    measured = two_guards(lambda _line: None, 160, 320, fault=fault)
    for name in (E2E, ONE_GUARD_OFF):
        assert measured[name].value is not None, measured[name].details
        assert bool(measured[name].value) is fault
