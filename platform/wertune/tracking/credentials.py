"""Passwords in the URIs of servers and databases: taken out before anything prints, logs or stores them."""

import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from wertune.base.errors import ConfigError

_PASSWORD_KEYS = r"(?<=[?&])(password|passwd|pwd|sslpassword)="
_IN_QUERY = re.compile(_PASSWORD_KEYS + r"[^&]*", re.IGNORECASE)
# In a text a blank ends a URI, and a quote alone does not: a password may hold one.
_QUERY_IN_TEXT = re.compile(_PASSWORD_KEYS + r"[^&\s]*", re.IGNORECASE)
_USER_IN_TEXT = re.compile(r"(?<=://)(?:[^\s/:@]*:(?:(?!://)\S)*@|[^\s'\"/][^\s'\"]*@|@)")


def without_password(uri: str) -> str:
    """The URI without user and password."""
    scheme, mark, rest = uri.partition("://")
    return _IN_QUERY.sub(r"\1=…", f"{scheme}{mark}{rest.removeprefix(_user_info(uri))}")


def without_passwords(text: str) -> str:
    """Any text without the users and passwords of the URIs in it; those whose password holds no blank are found."""
    return _QUERY_IN_TEXT.sub(r"\1=…", _USER_IN_TEXT.sub("", text))


def split_credentials(uri: str) -> tuple[str, str, str]:
    """An http(s) URI without its user and password, and the two; any other URI stays as it is."""
    if not uri.startswith(("http://", "https://")) or "@" not in uri:
        return uri, "", ""
    parts = urlsplit(uri)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return bare, unquote(parts.username or ""), unquote(parts.password or "")


def has_password(uri: str) -> bool:
    """Whether the URI holds more than the name of a user."""
    return bool(_IN_QUERY.search(uri)) or ":" in _user_info(uri)


def _user_info(uri: str) -> str:
    """Up to the last @, which no file's path has: a password may hold quotes, blanks, a slash or an @ of its own."""
    rest = uri.partition("://")[2]
    return "" if rest.startswith("/") else rest[: rest.rfind("@") + 1]


def how_to_look(uri: str) -> str:
    """What to open or to call to see a store in MLflow's UI; a database's password is left to the environment."""
    if uri.startswith(("http://", "https://")):
        return without_password(uri)
    shown = '"$MLFLOW_TRACKING_URI"' if has_password(uri) else uri
    return f"{Path(sys.executable).parent / 'mlflow'} ui --backend-store-uri {shown}"


def check_holds_no_password(uri: str, option: str, variable: str) -> None:
    """ConfigError for a password on the command line: `mlflow run` keeps it as a parameter, `ps` shows it to all."""
    if has_password(uri):
        raise ConfigError(
            f"{option} is {without_password(uri)} and a password, but must hold none: `ps` shows it, and `mlflow run` "
            f"keeps it as a parameter of the run; set {variable} to the whole URI instead, leave {option} empty, "
            "change the password, and delete the run that `mlflow run` made"
        )
