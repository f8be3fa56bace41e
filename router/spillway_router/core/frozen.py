"""Frozen dataclasses whose making costs what it must.

`from spillway_router.core.frozen import dataclass`, then `@dataclass(frozen=True, slots=True)` as ever: the type
checker knows the standard library's decorator and refuses every assignment to a field of a frozen value. At run time
the class is made without `frozen`, because the standard library then sets every field through `object.__setattr__`:
0.94 us for ten fields against 0.18 us (Python 3.11), and a request makes about twenty such values. Equality, hash and
`replace` are those of a frozen one.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen: bool = False, unsafe_hash: bool = False, **options: Any) -> Any:
        """The standard library's decorator; a frozen class hashes by its fields, as it would there."""
        return dataclasses.dataclass(unsafe_hash=unsafe_hash or (frozen and options.get("eq", True)), **options)
