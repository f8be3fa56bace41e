"""Keys and tokens of services, by the prefixes that their issuers give them."""

from __future__ import annotations

from spillway_router.privacy.patterns import Expression, Pattern

_BEFORE = r"(?:^|[^0-9A-Za-z_\-])"


def _any(_: str) -> bool:
    return True


def _is_random(text: str) -> bool:
    """Return whether a token has digits or letters of both cases, as issued ones have and words don't."""
    return any(c.isdigit() for c in text) or (text.lower() != text and text.upper() != text)


def _secret(name: str, shape: str) -> Pattern:
    return Pattern(name, finder=Expression(f"{_BEFORE}({shape})"), check=_is_random)


SECRETS: tuple[Pattern, ...] = (
    Pattern(
        "aws_key",
        finder=Expression(
            _BEFORE + r"((?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}"
            r"|(?i:aws_?secret_?(?:access_?)?key)[\"']?\s{0,3}[=:]\s{0,3}[\"']?[A-Za-z0-9/+]{40})"
        ),
        check=_any,  # their letters are all capitals
    ),
    _secret("github_token", r"gh[opsur]_[A-Za-z0-9]{20,255}|github_pat_[A-Za-z0-9_]{20,255}"),
    _secret("gitlab_token", r"gl(?:pat|ptt|rt|dt|cbt)-[A-Za-z0-9_\-]{20,}"),
    _secret(
        "slack_token",
        r"xox[abceoprs]-[0-9A-Za-z\-]{10,}|xapp-[0-9A-Za-z\-]{20,}"
        r"|hooks\.slack\.com/services/T[0-9A-Za-z]{6,}/B[0-9A-Za-z]{6,}/[0-9A-Za-z]{16,}",
    ),
    _secret(
        "ai_key",
        r"sk-(?:proj-|svcacct-|admin-|ant-[a-z0-9]{2,12}-|or-v1-)?[A-Za-z0-9_\-]{20,}|gsk_[A-Za-z0-9]{20,}"
        r"|hf_[A-Za-z0-9]{30,}|xai-[A-Za-z0-9]{40,}|pplx-[A-Za-z0-9]{40,}|r8_[A-Za-z0-9]{30,}|csk-[a-z0-9]{40,}|tgp_v1_[A-Za-z0-9_\-]{30,}",
    ),
    _secret("google_key", r"AIza[0-9A-Za-z_\-]{35}|GOCSPX-[0-9A-Za-z_\-]{28}|ya29\.[0-9A-Za-z_\-]{30,}"),
    _secret("stripe_key", r"[rs]k_(?:live|test)_[0-9A-Za-z]{16,}|whsec_[0-9A-Za-z]{24,}"),
    _secret("registry_token", r"npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_\-]{50,}|dckr_pat_[A-Za-z0-9_\-]{20,}"),
    Pattern(
        "private_key",
        finder=Expression(r"(-----BEGIN (?:[A-Z0-9]{1,10} ){0,3}PRIVATE KEY(?: BLOCK)?-----|PuTTY-User-Key-File-\d)"),
        check=_any,
    ),
    _secret("jwt", r"eyJ[A-Za-z0-9_\-]{8,}\.(?:eyJ)?[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}"),
)
