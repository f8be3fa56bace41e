-- Who asked for a better answer: the API key, its tier, and the pseudonym of the end user (tables/feedback.py).
ALTER TABLE feedback ADD COLUMN pressed_by text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE feedback ADD COLUMN pressed_tier text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE feedback ADD COLUMN pressed_user text COLLATE "C" NOT NULL DEFAULT '';
