"""Reads the token of the pages, when they are about to be served."""

from __future__ import annotations

from config.http import MADE_BY, SHORTEST, Http
from config.settings import ConfigError


def token(http: Http) -> str | None:
    """Give the token that who acts must know; None where none is set. The variable wins.

    Raises:
        ConfigError: its file cannot be read, or holds no token.
    """
    if http.token:
        return http.token.get_secret_value()
    if http.token_file is None:
        return None
    try:
        found = http.token_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        msg = f"http.token_file: cannot read {http.token_file}: {reason}. Correct the path."
        raise ConfigError(msg) from error
    if len(found) < SHORTEST:
        msg = (
            f"http.token_file: {http.token_file} holds fewer than {SHORTEST} characters; {MADE_BY}."
        )
        raise ConfigError(msg)
    return found
