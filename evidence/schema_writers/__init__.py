"""Programs that print what a provider's own package takes. Each runs in an environment that has only that package."""
