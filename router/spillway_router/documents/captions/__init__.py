"""Read values by the words that a document prints beside them, whatever their order, separator, language and layout.

A *caption* is what a document prints to name a value: `AL`, `Axial length`, `Achslänge`. `read_captions` (reading.py)
looks for the captions of a schema's fields (book.py), reads the value beside, below or in the column of each, and
doubts whatever more than one reading fits. It knows no layout and never guesses.
"""
