"""Passwords in URIs, and where they must not be seen."""

import re
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wertune.base.errors import ConfigError
from wertune.tracking.credentials import (
    check_holds_no_password,
    has_password,
    how_to_look,
    split_credentials,
    without_password,
    without_passwords,
)
from wertune.tracking.outage import reason
from wertune.tracking.runs import RunRef

SECRETS = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs", "Cc"]), min_size=1)


@given(user=SECRETS, password=SECRETS)
def test_a_servers_credentials_leave_its_uri_whole(user: str, password: str) -> None:
    uri = f"https://{quote(user, safe='')}:{quote(password, safe='')}@mlflow.example:5000/team?x=1"
    assert split_credentials(uri) == ("https://mlflow.example:5000/team?x=1", user, password)
    assert without_password(uri) == "https://mlflow.example:5000/team?x=1"
    assert without_passwords(f"refused by {uri}") == "refused by https://mlflow.example:5000/team?x=1"


@given(user=SECRETS.filter(lambda user: not set(user) & set("/:@")), password=SECRETS)
@example(user="optuna", password="it's")
@example(user="optuna", password='a "b" @/c')
def test_a_password_leaves_its_uri_as_people_write_it(user: str, password: str) -> None:
    uri = f"postgresql+psycopg2://{user}:{password}@db:5432/optuna"
    assert has_password(uri)
    assert without_password(uri) == "postgresql+psycopg2://db:5432/optuna"
    in_query = f"postgresql://db/optuna?user=ann&password={password.replace('&', '')}&x=1"
    if "@" not in password:
        assert without_password(in_query) == "postgresql://db/optuna?user=ann&password=…&x=1"


WORDS = SECRETS.filter(lambda word: not re.search(r"\s|://", word))


@given(user=WORDS.filter(lambda user: not set(user) & set("/:@")), password=WORDS)
@example(user="optuna", password="it's")
def test_passwords_without_blanks_are_taken_out_of_any_text(user: str, password: str) -> None:
    uri = f"postgresql://{user}:{password}@db/optuna"
    assert without_passwords(f"no '{uri}' here") == "no 'postgresql://db/optuna' here"
    if not set(password) & set("&@"):
        in_query = f"no postgresql://db/optuna?password={password}&x=1 here"
        assert without_passwords(in_query) == "no postgresql://db/optuna?password=…&x=1 here"


def test_a_reason_that_is_cut_within_a_uri_shows_none_of_its_password() -> None:
    assert "secret" not in reason(ValueError("x" * 275 + " postgresql://ann:secret-and-long@host/db"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql+psycopg2://ann:p@ss/w@host/db", "postgresql+psycopg2://host/db"),
        ("postgresql://host/db?user=ann&password=secret&x=1", "postgresql://host/db?user=ann&password=…&x=1"),
        ("'http://a:b@one/x' and \"http://c:d@two/y\"", "'http://one/x' and \"http://two/y\""),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("http://host/x", "http://host/x"),
    ],
)
def test_passwords_are_taken_out_of_any_text(text: str, shown: str) -> None:
    assert without_passwords(text) == shown


def test_the_closing_line_shows_no_password() -> None:
    assert how_to_look("http://host:5000") == "http://host:5000"
    assert how_to_look("sqlite:////tmp/mlflow.db").endswith("mlflow ui --backend-store-uri sqlite:////tmp/mlflow.db")
    assert how_to_look("postgresql://ann:pw@host/db").endswith('--backend-store-uri "$MLFLOW_TRACKING_URI"')
    assert "pw" not in repr(RunRef("postgresql://ann:pw@host/db", "1"))


def test_a_password_on_the_command_line_is_refused_and_a_user_is_not() -> None:
    with pytest.raises(ConfigError, match=r"study_storage is postgresql://host/db and .* set WERTUNE_STUDY") as refusal:
        check_holds_no_password("postgresql://ann:pw@host/db", "study_storage", "WERTUNE_STUDY_STORAGE")
    assert "pw" not in str(refusal.value)
    check_holds_no_password("postgresql://ann@host/db", "study_storage", "WERTUNE_STUDY_STORAGE")
    assert not has_password("sqlite:////tmp/a:b@c.db")
