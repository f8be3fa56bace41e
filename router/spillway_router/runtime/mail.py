"""Sends one mail through the configured server. Everything here blocks."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spillway_router.config.settings import MailPart
    from spillway_router.dashboard.letter import Letter

TIMEOUT_S = 20.0
"""For each answer of the server."""


class MailError(Exception):
    """The mail was not taken. The message says why, without the password."""


def send_mail(part: MailPart, letter: Letter, message_id: str) -> None:
    """Send a letter: as text, as HTML without scripts, and with the whole report attached. Raises MailError."""
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = letter.subject, part.sender, ", ".join(part.to)
    mail["Message-ID"] = f"<{message_id}@{part.sender.partition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(letter.text)
    mail.add_alternative(letter.html, subtype="html")
    mail.add_attachment(letter.attachment, subtype="html", filename=f"spillway-{letter.day}.html")
    try:
        with _connected(part) as server:
            if part.user:
                server.login(part.user, part.password)
            refused = server.send_message(mail)
    except smtplib.SMTPResponseException as error:
        raise MailError(f"{part.host} answered {error.smtp_code} to {_act(error)}") from None
    except (OSError, smtplib.SMTPException) as error:
        raise MailError(f"{part.host}: {type(error).__name__}") from None
    if refused:
        raise MailError(f"{part.host} refused {len(refused)} of {len(part.to)} receivers")


def _connected(part: MailPart) -> smtplib.SMTP:
    if part.security == "tls":
        return smtplib.SMTP_SSL(part.host, part.port, timeout=TIMEOUT_S, context=ssl.create_default_context())
    server = smtplib.SMTP(part.host, part.port, timeout=TIMEOUT_S)
    if part.security == "starttls":
        try:
            server.starttls(context=ssl.create_default_context())
        except BaseException:
            server.close()
            raise
    return server


def _act(error: smtplib.SMTPResponseException) -> str:
    return "the password" if isinstance(error, smtplib.SMTPAuthenticationError) else "the mail"
