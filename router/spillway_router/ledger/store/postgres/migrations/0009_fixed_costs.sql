-- A price per calendar month in place of one per hour; the price of all GPUs together where it is no multiple of their
-- number; the machine whose GPUs are rented, as the provider or the router names it; and when it was last seen running.
ALTER TABLE rentals ADD COLUMN price_nano_per_month bigint CHECK (price_nano_per_month >= 0);
ALTER TABLE rentals ADD COLUMN whole_nano_per_hour bigint CHECK (whole_nano_per_hour >= 0);
ALTER TABLE rentals ADD COLUMN machine text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE rentals ADD COLUMN seen_ms bigint;

-- Fixed costs that are no GPU (rentals/other_costs.py).
CREATE TABLE other_costs (
    id                   text   COLLATE "C" PRIMARY KEY CHECK (id <> ''),
    name                 text   COLLATE "C" NOT NULL CHECK (name <> ''),
    price_nano_per_month bigint NOT NULL CHECK (price_nano_per_month >= 0),
    started_ms           bigint NOT NULL,
    stopped_ms           bigint CHECK (stopped_ms >= started_ms)
);
