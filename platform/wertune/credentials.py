"""Passwords in the URIs of servers and databases: taken out before anything prints, logs or stores them."""

import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from wertune.errors import ConfigError

# Up to the last @ of the word, as SQLAlchemy reads it: a password may hold a slash or an @ of its own.
_USER_INFO = re.compile(r"(?<=://)[^\s'\"/][^\s'\"]*@|(?<=://)@")
_IN_QUERY = re.compile(r"(?<=[?&])(password|passwd|pwd|sslpassword)=[^&\s'\"]*", re.IGNORECASE)


def without_password(text: str) -> str:
    """A URI, or any text that may hold some, without users and passwords."""
    return _IN_QUERY.sub(r"\1=…", _USER_INFO.sub("", text))


def split_credentials(uri: str) -> tuple[str, str, str]:
    """An http(s) URI without its user and password, and the two; any other URI stays as it is."""
    if not uri.startswith(("http://", "https://")) or "@" not in uri:
        return uri, "", ""
    parts = urlsplit(uri)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return bare, unquote(parts.username or ""), unquote(parts.password or "")


def has_password(uri: str) -> bool:
    """Whether the URI holds more than the name of a user."""
    user_info = _USER_INFO.search(uri)
    return bool(_IN_QUERY.search(uri)) or (user_info is not None and ":" in user_info.group())


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
