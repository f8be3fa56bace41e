"""Frozen dataclasses that cost no more to construct than ordinary ones, for the compiled modules only.

    @fast_frozen(frozen=True, slots=True)
    class Charge: ...

To the type checker, `fast_frozen` is the standard library's `dataclass`, so every assignment to a field is an error. At
run time the class is made without `frozen`: nothing stops an assignment there. The reason is the cost: the standard
library sets every field of a frozen value through `object.__setattr__`, 0.94 us for ten fields instead of 0.18 us
(Python 3.11), and a request makes about twenty such values. Equality, hash and `replace` are those of a frozen class.

Only the modules that are compiled (spillway_compiler.build.MODULES) use it; a test holds the rule. Everywhere else a
frozen dataclass is the standard library's and is frozen in earnest.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as fast_frozen
else:

    def fast_frozen(*, frozen: bool, slots: bool) -> Any:
        """Return the standard library's decorator, without `frozen` but with the hash of a frozen class.

        Raises TypeError unless `frozen` is true: a mutable class is a plain `dataclass`.
        """
        if not frozen:
            raise TypeError("fast_frozen makes frozen classes only; use dataclasses.dataclass for a mutable one")
        return dataclasses.dataclass(unsafe_hash=True, slots=slots)


__all__ = ["fast_frozen"]
