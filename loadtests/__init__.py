"""Load tests, benches and the demo; run from a checkout."""
