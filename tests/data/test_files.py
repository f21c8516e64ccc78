"""Data of the user's own: every kind of file gives the same rows, and what is wrong in one is told."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from qbp.data import load
from qbp.data.files import read, read_table
from qbp.errors import ArgumentError

ROWS = [("a", 1.5, "yes"), ("b", 2.0, "no"), ("c", -1.0, "yes"), ("a", 0.25, "no")] * 6


def test_csv_with_words():
    raw = read_table({"kind": [r[0] for r in ROWS], "size": [r[1] for r in ROWS], "answer": [r[2] for r in ROWS]})
    assert raw.feature_names == ("kind=a", "kind=b", "kind=c", "size") and raw.classes == ("no", "yes")
    assert raw.x[:2].tolist() == [[1, 0, 0, 1.5], [0, 1, 0, 2.0]] and raw.y[:3].tolist() == [1, 0, 1]


@pytest.fixture
def files(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)).round(3), np.arange(40) % 2
    table = np.column_stack([x, y])
    np.save(tmp_path / "t.npy", table)
    np.savez(tmp_path / "t.npz", x=x, y=y)
    np.savetxt(tmp_path / "bare.csv", table, delimiter=",")
    lines = ["u;v;w;label", *(";".join(map(str, row)) for row in table.tolist())]
    (tmp_path / "named.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    columns = {name: table[:, k].tolist() for k, name in enumerate(("u", "v", "w"))} | {"label": y.tolist()}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    return tmp_path, x, y


@pytest.mark.parametrize("name", ["t.npy", "t.npz", "bare.csv", "named.csv", "t.parquet"])
def test_every_kind_of_file(files, name):
    folder, x, y = files
    raw = read(folder / name)
    assert np.array_equal(raw.x, x) and np.array_equal(raw.y, y) and raw.classes == ("0", "1")
    train, test = load(str(folder / name), test_size=0.5, seed=1)
    assert train.x.shape == (20, 3) and train.name == name.split(".")[0] and abs(float(train.x.mean())) < 1e-6
    assert test.recipe is not None and load(**test.recipe)[1].hash() == test.hash()


def test_target_and_regression(files):
    folder, x, _ = files
    for target in ("u", 0, -4):
        raw = read(folder / "named.csv", target)
        assert raw.classes == () and np.array_equal(raw.y[:, 0], x[:, 0]) and raw.feature_names == ("v", "w", "label")


def test_arrays_and_bunches():
    from sklearn.datasets import load_iris

    mine, _ = load(load_iris(), seed=2)
    ours, _ = load("iris", seed=2)
    assert mine.hash() == ours.hash() and mine.classes == ours.classes == ("setosa", "versicolor", "virginica")
    train, _ = load((np.eye(10), np.arange(10) % 2), test_size=0.2)
    assert train.n_classes == 2 and train.name == "data"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n,3\n", "Column 'a' must have a value in each row, but 1 of 2"),
        ("a,b\n1,2\n3\n", "row 2 has 1 columns"),
        ("a\n1\n", "two columns"),
        ("", "empty"),
    ],
)
def test_bad_tables(tmp_path, text, said):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(ArgumentError, match=said):
        load(tmp_path / "bad.csv")


def test_refused(tmp_path, files):
    with pytest.raises(ArgumentError, match=r"there is no nowhere\.csv"):
        load("nowhere.csv")
    with pytest.raises(ArgumentError, match="one of u, v, w, label"):
        load(files[0] / "named.csv", target="z")
    with pytest.raises(ArgumentError, match="target"):
        load("iris", target="z")
    with pytest.raises(ArgumentError, match="at most 50"):
        read_table({"id": [f"row {k}" for k in range(60)], "y": [0.0, 1.0] * 30})


def table(head, row, n=40):
    return head + "\n" + "\n".join(row(k) for k in range(n)) + "\n"


MARKS = ("", "NA", "na", "N/A", "NaN", "nan", "null", "NULL", "?", "None", "-", ".", "#N/A", "missing", " ? ")


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("at", ["feature", "number target"])
def test_a_missing_number_is_named_with_row_and_column_however_it_is_written(tmp_path, mark, at):
    column = 0 if at == "feature" else 2

    def row(k):
        cells = [f"{k * 0.37:.2f}", "uv"[k % 2], str(k % 3)]
        if k in (4, 7):
            cells[column] = mark
        return ",".join(cells)

    (tmp_path / "t.csv").write_text(table("size,kind,y", row))
    name = "size" if at == "feature" else "y"
    with pytest.raises(ArgumentError, match=rf"Column '{name}' must have a value .* 2 of 40 have none \(row 5 first"):
        load(tmp_path / "t.csv")


@pytest.mark.parametrize("mark", ["", "NA", "nan", "null", "?"])
def test_a_missing_word_too(tmp_path, mark):
    (tmp_path / "t.csv").write_text(table("size,kind,y", lambda k: f"{k},{mark if k == 6 else 'uvw'[k % 3]},{k % 2}"))
    with pytest.raises(ArgumentError, match=r"'kind' must have a value .* 1 of 40 have none \(row 7 first"):
        load(tmp_path / "t.csv")


def test_words_that_look_like_marks_stay_words(tmp_path):
    (tmp_path / "t.csv").write_text(table("garage,size,y", lambda k: f"{('none', 'brick')[k % 2]},{k},{k // 2 % 2}"))
    assert load(tmp_path / "t.csv")[0].feature_names == ("garage=brick", "size")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (table("a;b;y", lambda k: f"{k},5;{k};{k % 2}"), [k + 0.5 for k in range(40)]),
        (table("a\tb\ty", lambda k: f"{k},25\t{k}\t{k % 2}"), [k + 0.25 for k in range(40)]),
        (table("a,b,y", lambda k: f'"{k},5",{k},{k % 2}'), [k + 0.5 for k in range(40)]),
        (table("a,b,y", lambda k: f"{k}%,{k},{k % 2}"), [k / 100 for k in range(40)]),
        (table("a;b;y", lambda k: f"{k},5 %;{k};{k % 2}"), [(k + 0.5) / 100 for k in range(40)]),
        (table("a;b;y", lambda k: f"{k},5\x1f%;{k};{k % 2}"), [(k + 0.5) / 100 for k in range(40)]),
        (table("a,b,y", lambda k: f'"{k + 1},234.5",{k},{k % 2}'), [1000 * (k + 1) + 234.5 for k in range(40)]),
        (table("a,b,y", lambda k: f"{k}e-2, {k} ,{k % 2}"), [k / 100 for k in range(40)]),
        (table("a,b,y", lambda k: f'"{k}.5","{k}","{k % 2}"'), [k + 0.5 for k in range(40)]),
    ],
)
def test_numbers_as_files_write_them(tmp_path, text, values):
    (tmp_path / "t.csv").write_text(text)
    raw = read(tmp_path / "t.csv")
    assert np.allclose(raw.x[:, 0], values) and raw.feature_names == ("a", "b") and raw.classes == ("0", "1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (table("a,a,y", lambda k: f"{k},{k},{k % 2}"), "Column 'a' must be there once, but is column 1 and column 2"),
        (table("a,,y", lambda k: f"{k},{k},{k % 2}"), "Column 2 must have a name"),
        (table("a, a,y", lambda k: f"{k},{k},{k % 2}"), "'a' must be there once"),
        (table("a,b,y", lambda k: f"{k},{k},1"), "Target 'y' must have two classes or more, but is '1' in all 40 rows"),
        (table("a,b,y", lambda k: f"{k},{k},x"), "two classes or more, but is 'x'"),
        (table("a,b,y", lambda k: f"{k},{k},{'ab'[k > 0]}"), r"two rows or more of every class, .* fewer \(a\)"),
        (table("a,b,y", lambda k: f"{'big' if k == 5 else k},{k},{k % 2}"), r"'a' must hold .* \(row 6 first: 'big'\)"),
        (table("a,b,y", lambda k: f"{k}{'%' * (k != 5)},{k},{k % 2}"), "'a' must be in per cent or not, but row 6"),
        (table("a;b;y", lambda k: f"{k + 1},234;{k};{k % 2}"), "'a' must have commas .* cannot be told apart"),
        (table("a,b,y", lambda k: f"{'inf' if k == 5 else k},{k},{k % 2}"), "'a' must hold finite numbers, but row 6"),
        (table("a,b,y", lambda k: f"{'9' * 400 if k == 5 else k},{k},{k % 2}"), "row 6 holds an integer above 2"),
        (table("a,b,y", lambda k: f"{2**53 + k},{k},{k % 2}"), "row 2 holds an integer above 2.53: 9007199254740993"),
        (table("a,b,y", lambda k: f"{k},{k},{2**60 + k % 2}"), "'y' must hold numbers that double precision tells"),
        (table("a;b;y", lambda k: f"{k + 1}.234,5;{k};{k % 2}"), r"in another way \(row 1 first: '1.234,5'"),
        (table("a;b;y", lambda k: f"{k + 1} 234;{k};{k % 2}"), "numbers written in another way"),
        (table("a;b;y", lambda k: f"{k + 1}'234.5;{k};{k % 2}"), "numbers written in another way"),
        (table("a,b,y", lambda k: f"0x{k:x},{k},{k % 2}"), "numbers written in another way"),
        (table("a,b,y", lambda k: f"{k}.5D+02,{k},{k % 2}"), "numbers written in another way"),
        (table("a,b,y", lambda k: f"${k}.50,{k},{k % 2}"), r"with a unit, or dates \(row 1 first: '\$0.50'"),
        (table("a,b,y", lambda k: f"{k} kg,{k},{k % 2}"), "with a unit, or dates"),
        (table("a,b,y", lambda k: f"{k},{k},{k}.5 €"), "'y' must hold plain numbers or words"),
        (table("a,b,y", lambda k: f"2020-01-{k % 28 + 1:02d},{k},{k % 2}"), "with a unit, or dates"),
        (table("a,b,y", lambda k: f"{k % 24}:30,{k},{k % 2}"), "with a unit, or dates"),
        (table("a,b,y", lambda k: f"{k},{k},1.5"), "'y' must hold different values, but holds 1.5 in all 40 rows"),
        (table("2019,2020,sort", lambda k: f"{k}.5,{k},{'ab'[k % 2]}"), "first row must name the columns or be data"),
        (table("1.5,b,0", lambda k: f"{k}.5,{k},{k % 2}"), "first row must name the columns or be data"),
    ],
)
def test_what_cannot_be_told_for_sure_is_an_error(tmp_path, text, said):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ArgumentError, match=said):
        load(tmp_path / "t.csv")


def test_words_that_their_columns_hold_are_no_names(tmp_path):
    words = [("red", "low", "yes"), ("blue", "high", "no"), ("red", "high", "no"), ("blue", "low", "yes")] * 5
    for header, names in (
        ((), ("x0", "x1")),
        (("hue", "level", "y"), ("hue", "level")),
        (("red", "level", "yes"), ("red", "level")),
    ):
        rows = "\n".join(",".join(row) for row in [*([header] if header else []), *words])
        (tmp_path / "w.csv").write_text(rows)
        train, test = load(tmp_path / "w.csv", seed=0)
        assert len(train) + len(test) == 20 and {n.partition("=")[0] for n in train.feature_names} == set(names)


@pytest.mark.parametrize("row", [lambda k: f"{k}.5,{k % 7},{'ab'[k % 2]}", lambda k: f"{'ab'[k % 2]},{k},{k % 3}"])
def test_without_a_header_every_row_is_data(tmp_path, row):
    (tmp_path / "t.csv").write_text("\n".join(row(k) for k in range(40)))
    raw = read(tmp_path / "t.csv")
    assert len(raw.x) == 40 and raw.feature_names[-1] == "x1" and raw.target == "x2"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(tmp_path, encoding):
    (tmp_path / "t.csv").write_bytes(table("größe,b,y", lambda k: f"{k},{k},{k % 2}").encode(encoding))
    assert read(tmp_path / "t.csv").feature_names == ("größe", "b")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "größe,b\n1,2\n".encode("latin-1"), "line 1 holds the byte 0xf6: save it as UTF-8"),
        ("a.csv", "a,b\n1,2\n3,ö\n".encode("latin-1"), "line 3 holds the byte 0xf6"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16-le"), "line 1 holds a zero byte"),
        ("a.csv", b"a,b\n" + b'"' + b"x" * 200_000 + b'",1\n1,2\n', "line 2: field larger than"),
        ("a.csv", b'a,b\n1,"2\n', "unexpected end"),
        ("a.npy", b"\x93NUMPY" + bytes(99), "Cannot read"),
        ("a.npy", b"", "Cannot read"),
        ("a.npz", b"PK\3\4" + bytes(range(99)), "Cannot read"),
        ("a.npz", b"", "Cannot read"),
        ("a.parquet", b"PAR1" + bytes(range(99)) + b"PAR1", "Cannot read"),
        ("a.parquet", b"", "Cannot read"),
    ],
)
def test_files_that_are_something_else(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ArgumentError, match=said):
        load(tmp_path / name)


def test_arrays_of_objects_and_sizes_that_lie(tmp_path):
    np.savez(tmp_path / "o.npz", x=np.array([{}], dtype=object), y=np.array([1]))
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 3), }".ljust(117) + b"\n"
    (tmp_path / "lie.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(80))
    for name in ("o.npz", "lie.npy"):
        with pytest.raises(ArgumentError, match="Cannot read"):
            load(tmp_path / name)


NAN = np.nan


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (np.ones((60, 3)), np.where(np.arange(60) == 3, NAN, np.arange(60) % 2), r"'y' must have a value .*\(row 4"),
        (np.ones((60, 3)), np.where(np.arange(60) == 3, NAN, np.arange(60) / 7), r"'y' must have a value .*\(row 4"),
        (np.ones((60, 3)), [None if k == 3 else "ab"[k % 2] for k in range(60)], r"'y' must have a value .*\(row 4"),
        (np.ones((60, 3)), ["?" if k == 3 else "ab"[k % 2] for k in range(60)], r"'y' must have a value .*\(row 4"),
        (np.ones((60, 3)), np.full((60, 2), [0.5, NAN]), r"row 1 holds nan in column 'y1'"),
        (np.where(np.eye(60, 3), NAN, 1.0), np.arange(60) % 2, r"row 1 holds nan in column 'x0'"),
        (np.where(np.eye(60, 3)[::-1], np.inf, 1.0), np.arange(60) % 2, r"row 58 holds infinity in column 'x2'"),
        (np.ones((60, 3)), np.ones(60), "two classes or more, but is '1' in all 60 rows"),
        (np.ones((60, 3)), np.arange(60), "two rows or more of every class"),
        (np.ones((60, 0)), np.arange(60) % 2, r"must be numbers \(n, I\)"),
        (np.ones((60, 3)), np.ones((60, 0)), r"must be numbers \(n, T\)"),
    ],
)
def test_arrays_with_gaps_or_without_classes(x, y, said):
    with pytest.raises(ArgumentError, match=said):
        load((x, np.asarray(y, dtype=object) if isinstance(y, list) else y))


def test_a_class_that_is_declared_has_rows():
    bunch = {"data": np.ones((60, 2)), "target": np.arange(60) % 2, "target_names": ["a", "b", "c"]}
    with pytest.raises(ArgumentError, match="c of `target_names` has none"):
        load(bunch)


def test_the_summary_says_what_is_learned_from_what(tmp_path):
    (tmp_path / "cells.csv").write_text(table("size,kind,sort", lambda k: f"{k},{'uvw'[k % 3]},{'ab'[k % 4 == 0]}"))
    train, _ = load(tmp_path / "cells.csv")
    assert train.summary() == (
        "cells: a classification of `sort` in 2 classes (a 22, b 8) "
        "by 4 columns (size, kind=u, kind=v, kind=w), 30 rows"
    )
    train, _ = load(tmp_path / "cells.csv", target="kind")
    assert "classification of `kind` in 3 classes" in train.summary()
    (tmp_path / "cells.csv").write_text(table("size,goal", lambda k: f"{k},{k / 3}"))
    assert "cells: a regression of `goal` (1 column(s)" in load(tmp_path / "cells.csv")[0].summary()


@pytest.mark.parametrize(
    "words", [("18-25", "26-35", "36+"), ("1st", "2nd", "3rd"), ("1.2.0", "1.3.1"), ("2", "4 doors")]
)
def test_kinds_with_digits_are_words(tmp_path, words):
    (tmp_path / "t.csv").write_text(table("a,b,y", lambda k: f"{words[k % len(words)]},{k},{k % 2}"))
    names = read(tmp_path / "t.csv").feature_names
    assert names[:-1] == tuple(f"a={word}" for word in (words[:1] if len(words) == 2 else words))


def test_archives_that_unpack_to_gigabytes(tmp_path):
    head = np.lib.format.magic(1, 0)
    shape = b"{'descr': '<f8', 'fortran_order': False, 'shape': (50000000, 1), }".ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("x.npy", "w") as file:
            file.write(head + len(shape).to_bytes(2, "little") + shape)
            for _ in range(40):
                file.write(bytes(10**7))
        archive.writestr("y.npy", b"x")
    with pytest.raises(ArgumentError, match="would unpack to 4000"):
        read(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("x.npy", b"x")
        archive.writestr("y.npy", b"x")
    with pytest.raises(ArgumentError, match="arrays"):
        read(tmp_path / "b.npz")


def test_classes_that_differ_in_case(tmp_path):
    (tmp_path / "t.csv").write_text(table("a,b,y", lambda k: f"{k},{k},{('yes', 'Yes', 'no')[k % 3]}"))
    with pytest.warns(UserWarning, match="case only: 'Yes', 'yes'"):
        assert read(tmp_path / "t.csv").classes == ("Yes", "no", "yes")
