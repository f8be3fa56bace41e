"""How much a YAML text stands for: aliases let 300 bytes stand for millions of values."""

from __future__ import annotations

import yaml

MOST_NODES = 100_000
"""Values that a configuration may stand for, many times those of the largest one."""


def is_too_large(root: yaml.Node | None) -> bool:
    """Return whether a text stands for more than MOST_NODES values, or for endlessly many."""
    sizes: dict[int, int] = {}
    pending = [] if root is None else [(root, False)]
    while pending:
        node, children_counted = pending.pop()
        children = _children(node)
        if children_counted:
            sizes[id(node)] = 1 + sum(sizes.get(id(child), MOST_NODES) for child in children)
            if sizes[id(node)] > MOST_NODES:
                return True
        elif id(node) not in sizes:
            sizes[id(node)] = MOST_NODES  # while it is counted: a node inside itself has no end
            pending.append((node, True))
            pending += [(child, False) for child in children if id(child) not in sizes]
    return False


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
