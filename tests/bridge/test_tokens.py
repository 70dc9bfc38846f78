"""The file of bearer tokens: what it may hold, who may read it, and what each token allows."""

from __future__ import annotations

from pathlib import Path

import pytest

from cachee_bridge.http.messages import HttpError, Request
from cachee_bridge.http.tokens import TOKENS_MAX, read_tokens
from cachee_shm.errors import ConfigError

SHOP, ALL = "a" * 16, "Zz0-._~+/=" * 4


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"# of the shop\n{SHOP} shop sessions\n\n  {ALL}\t*  \r\n")
    path.chmod(0o640)
    return path


def asks(token: str | None) -> Request:
    return Request("POST", "/", headers={} if token is None else {"authorization": f"Bearer {token}"})


def test_a_token_allows_the_namespaces_of_its_line(file: Path) -> None:
    tokens = read_tokens(str(file))
    assert tokens.allowed(asks(SHOP)) == {"shop", "sessions"}
    assert tokens.allowed(asks(ALL)) is None
    tokens.check(asks(SHOP), "shop")
    tokens.check(asks(ALL), "anything")
    with pytest.raises(HttpError, match="only for sessions, shop") as caught:
        tokens.check(asks(SHOP), "other")
    assert caught.value.status == 403


@pytest.mark.parametrize(
    ("token", "status"), [(None, 401), ("", 401), (SHOP[:-1], 403), (SHOP + "a", 403), ("ä" * 8, 403)]
)
def test_no_token_and_a_wrong_one_are_refused_and_no_right_one_is_told(
    file: Path, token: str | None, status: int
) -> None:
    with pytest.raises(HttpError) as caught:
        read_tokens(str(file)).allowed(asks(token))
    assert caught.value.status == status
    assert SHOP not in str(caught.value) and ALL not in str(caught.value)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o641, 0o602, 0o777])
def test_a_file_that_others_may_read_or_change_is_refused_with_the_command_that_mends_it(
    file: Path, mode: int
) -> None:
    file.chmod(mode)
    with pytest.raises(ConfigError, match=f"every user .*nothing in it is used.*chmod o= {file}"):
        read_tokens(str(file))


@pytest.mark.parametrize(
    "text",
    [
        *("", "# nothing\n", "short shop\n", f"{SHOP}\n", f"{SHOP} sh/op\n", f"{SHOP} * shop\n"),
        *(f"{SHOP},x shop\n", f"{'a' * 257} shop\n", "\0" * 100, f"{SHOP} shop\n" + "\n" * (64 << 10)),
        "".join(f"{SHOP}{number} shop\n" for number in range(TOKENS_MAX + 1)),
        f"{SHOP} shop\n{SHOP} sessions\n",
    ],
)
def test_what_is_no_file_of_tokens_is_refused_and_no_token_is_told(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match="accepted: ") as caught:
        read_tokens(str(file))
    assert SHOP not in str(caught.value)


def test_a_file_that_is_not_there_or_is_none_is_refused_at_once(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_tokens(str(path))
