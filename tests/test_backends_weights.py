from pathlib import Path

import pytest

from backends.weights import WeightsError, bundled_weights, find_weights, is_weights_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bundled", True),
        ("model.gguf", True),
        ("/models/my model.gguf", True),
        ("hf:owner/repo/file.gguf", True),
        ("hf:owner/repo/folder/file.gguf", True),
        ("hf:owner/repo", False),
        ("hf:file.gguf", False),
        ("hf:owner/repo/file.bin", False),
        ("model.bin", False),
        ("", False),
        ("gpt-5", False),
    ],
)
def test_names_of_weights(name: str, expected: bool) -> None:
    assert is_weights_name(name) is expected


def test_the_bundled_weights_are_found_without_importing_their_package() -> None:
    path = bundled_weights()
    assert path
    assert path.suffix == ".gguf"
    assert find_weights("bundled") == path


@pytest.mark.parametrize(
    ("content", "told"), [(None, "no file x.gguf"), (b"", "no GGUF"), (b"GGU", "no GGUF"), (b"<html>", "no GGUF")]
)
def test_a_file_that_is_none_is_told_without_its_folder(tmp_path: Path, content: bytes | None, told: str) -> None:
    path = tmp_path / "x.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError) as refused:
        find_weights(str(path))
    assert told in str(refused.value)
    assert str(tmp_path) not in str(refused.value)
