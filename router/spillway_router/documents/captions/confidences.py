"""The confidence of a value that was read by its caption, by how it was found; `reading` says what each stands for.

They are apart from the reading, which a router loads with the first document.
"""

SURE, LONE, ABSENT, DOUBTED, DAMAGED, DENIED, CONFLICT = 0.99, 0.85, 0.75, 0.60, 0.50, 0.30, 0.20
