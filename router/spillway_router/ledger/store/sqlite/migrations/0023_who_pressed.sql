-- Who asked for a better answer: the API key, its tier, and the pseudonym of the end user (tables/feedback.py).
ALTER TABLE feedback ADD COLUMN pressed_by TEXT NOT NULL DEFAULT '';
ALTER TABLE feedback ADD COLUMN pressed_tier TEXT NOT NULL DEFAULT '';
ALTER TABLE feedback ADD COLUMN pressed_user TEXT NOT NULL DEFAULT '';
