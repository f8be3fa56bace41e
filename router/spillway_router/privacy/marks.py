"""What private content has somewhere in its text, whatever it is: one expression each."""

from __future__ import annotations

from spillway_router.privacy.patterns import Expression

MAY_MATCH = Expression(
    r"@[0-9A-Za-z]|\d(?:[^0-9A-Za-z]{0,6}\d){5}|[A-Z]{5}\d{4}[A-Z]|[A-Za-z]{6} ?[0-9L-V]{2}[A-Za-z]"
    r"|A[KSBC][ICA]A[0-9A-Z]{16}|(?i:aws_?secret)|gh[opsur]_|github_pat_|gl(?:pat|ptt|rt|dt|cbt)-|xox[a-z]-|xapp-"
    r"|hooks\.slack|sk-|gsk_|hf_|xai-|pplx-|r8_|tgp_|AIza|GOCSPX-|ya29\.|[rs]k_|whsec_|npm_|pypi-|dckr_|PRIVATE KEY"
    r"|PuTTY-|eyJ"
)
"""`glance` finds the same in ASCII text."""
BASE64_BEGINNING = rb'base64,[A-Za-z0-9+/_\-]{4}|data\\*"\s?:\s?\\*"[A-Za-z0-9+/_\-]{8}|[A-Za-z0-9+/_\-]{24}'
"""Where base64 may begin: at a place that is made for it, or anywhere if it is long enough to hold a few words."""
