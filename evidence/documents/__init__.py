"""Documents that neither the demo model nor the parsers nor the captions were made from, and what becomes of them.

words.py holds the vocabularies in two parts: those of `TUNING` may be looked at while captions are written, those of
`HELD_OUT` were written down once and are only ever measured. corpus.py composes documents from them.
"""
