"""A regular package, so that no installed package named `tests` can stand in its place."""
