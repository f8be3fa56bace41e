-- A price per calendar month in place of one per hour; the price of all GPUs together where it is no multiple of their
-- number; the machine whose GPUs are rented, as the provider or the router names it; and when it was last seen running.
ALTER TABLE rentals ADD COLUMN price_nano_per_month INTEGER CHECK (price_nano_per_month >= 0);
ALTER TABLE rentals ADD COLUMN whole_nano_per_hour INTEGER CHECK (whole_nano_per_hour >= 0);
ALTER TABLE rentals ADD COLUMN machine TEXT NOT NULL DEFAULT '';
ALTER TABLE rentals ADD COLUMN seen_ms INTEGER;

-- Fixed costs that are no GPU (rentals/other_costs.py).
CREATE TABLE other_costs (
    id                   TEXT    PRIMARY KEY CHECK (id <> ''),
    name                 TEXT    NOT NULL CHECK (name <> ''),
    price_nano_per_month INTEGER NOT NULL CHECK (price_nano_per_month >= 0),
    started_ms           INTEGER NOT NULL,
    stopped_ms           INTEGER CHECK (stopped_ms >= started_ms)
) STRICT, WITHOUT ROWID;
