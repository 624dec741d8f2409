"""The key of a service: where it is found, and what helps where it is not."""

from pathlib import Path

import pytest

from textcls.errors import InputError
from textcls.serving.deployment import read_key


def test_a_key_is_found_once_it_is_put_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERVICE_KEY", raising=False)
    with pytest.raises(InputError, match="env:SERVICE_KEY: it holds no key") as unset:
        read_key("env:SERVICE_KEY")
    assert unset.value.todo == "export the variable"
    monkeypatch.setenv("SERVICE_KEY", "k3y")
    assert read_key("env:SERVICE_KEY") == "k3y"

    path = tmp_path / "key"
    with pytest.raises(InputError, match="No such file") as missing:
        read_key(f"file:{path}")
    assert missing.value.todo == "write the key to that file, or name another one"
    path.write_text(" \n")
    with pytest.raises(InputError, match="it holds no key") as empty:
        read_key(f"file:{path}")
    assert empty.value.todo == "write the key into the file"
    path.write_text("k3y\n")
    assert read_key(f"file:{path}") == "k3y"


@pytest.mark.parametrize("key", ["schlüssel", "a\tb"])
def test_a_key_that_no_header_can_hold_is_refused(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_KEY", key)
    with pytest.raises(InputError, match="not valid in a header"):
        read_key("env:SERVICE_KEY")


def test_without_a_source_there_is_no_key() -> None:
    assert read_key(None) is None
