"""Passwords in URIs, and where they must not be seen."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wertune.credentials import check_holds_no_password, has_password, how_to_look, split_credentials, without_password
from wertune.errors import ConfigError
from wertune.tracking import RunRef

SECRETS = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs", "Cc"]), min_size=1)


@given(user=SECRETS, password=SECRETS)
def test_a_servers_credentials_leave_its_uri_whole(user: str, password: str) -> None:
    uri = f"https://{quote(user, safe='')}:{quote(password, safe='')}@mlflow.example:5000/team?x=1"
    assert split_credentials(uri) == ("https://mlflow.example:5000/team?x=1", user, password)
    assert without_password(f"refused by {uri}") == "refused by https://mlflow.example:5000/team?x=1"


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
    assert without_password(text) == shown


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
