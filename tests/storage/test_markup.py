"""YAML that was made to hurt ends in one sentence, at once."""

from __future__ import annotations

import pytest

from qbp.errors import ConfigError
from qbp.storage.markup import read_text, read_yaml

MERGES = "m0: &m0 {a: 1}\n" + "".join(f"m{i}: &m{i}\n  <<: [{','.join([f'*m{i - 1}'] * 9)}]\n" for i in range(1, 9))
LISTS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: " + "[" * 1500 + "]" * 1500, "inside each other"),
        ("data: " + "{a: " * 90_000, "inside each other"),
        ("- " * 60_000, "inside each other"),
        (MERGES, "once its aliases are unfolded"),
        (LISTS, "once its aliases are unfolded"),
        ("a: &a [*a]", "contains itself"),
        ("a: &a {b: [*a]}", "contains itself"),
        ("seed: " + "9" * 100_000, "line 1: an integer of 100000 digits"),
        ("a: 1\nseed: 0x" + "f" * 50_000, "line 2: an integer"),
        ("date: 2001-99-99", "cannot be read"),
        ("!!int", "cannot be read"),
        ("a: !!timestamp x", "cannot be read"),
        ("a: !!bool x", "cannot be read"),
        ("a: !!python/object/apply:os.system ['true']", "not YAML"),
        ("? [1, 2]\n: 3", "not YAML"),
        ("a: 'b", "not YAML"),
        ("a: !!int 'x'", "cannot be read"),
        ("\0", "not YAML"),
        ("a: *b", "not YAML"),
    ],
)
def test_refused_with_its_place(text, said):
    with pytest.raises(ConfigError, match=f"here.*{said}"):
        read_yaml(text, "here")


def test_aliases_and_merges_of_a_sensible_size_are_read():
    text = "base: &base {lr: 0.1, seeds: [1, 2]}\nruns:\n  - {<<: *base, lr: 0.2}\n  - *base\n"
    assert read_yaml(text, "here")[1]["runs"] == [{"lr": 0.2, "seeds": [1, 2]}, {"lr": 0.1, "seeds": [1, 2]}]
    assert read_yaml("", "here") == (None, None)


def test_large_files_and_other_encodings(tmp_path):
    (tmp_path / "large.yaml").write_text("a: 1\n" * 100_000)
    (tmp_path / "other.yaml").write_bytes("ä: 1".encode("latin-1"))
    for name, said in (("large.yaml", "has 500000 bytes"), ("other.yaml", "can't decode"), ("none.yaml", "No such")):
        with pytest.raises(ConfigError, match=said):
            read_text(tmp_path / name)
