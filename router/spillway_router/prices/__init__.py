"""Price lists: what a model costs on a day, and how price lists are imported."""
