import json

import pytest

from course_lib import files, records
from course_lib.files import DamagedError

VERSIONS = {"python": "3.11.7", "machine": "x86_64", "versions": {"torch": "2.15.0"}, "git_revision": None}
RECORD = {
    "identity": {"recipe": "ssgan", "scale": "quick", "seed": 3, "settings": {"labels": 50}, "data_sha256": "418e"},
    "images": {"channels": 1, "side_px": 8, "classes": 10},
    "metrics": {"test_accuracy": 0.951},
    "history": {"ssgan": [{"epoch": 1, "step": 26, "class_loss": 0.4}]},
    "resumed_from_step": 0,
    "seconds": 21.5,
    "environment": VERSIONS | {"device": "cpu", "precision": "float32", "threads": 1, "processes": 1},
    "earlier_versions": [VERSIONS],
    "sha256": {"generator": "471990d2"},
}


def test_a_record_reads_back_as_it_was_written(tmp_path):
    assert records.read(records.write(RECORD, tmp_path)) == RECORD
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_a_number_that_json_has_no_word_for_is_refused_and_the_old_record_kept(tmp_path):
    path = records.write(RECORD, tmp_path)
    with pytest.raises(ValueError):
        records.write(RECORD | {"metrics": {"loss": float("nan")}}, tmp_path)
    assert records.read(path) == RECORD


@pytest.mark.parametrize("text", ["", "{", "[]", '{"seed": 1}', json.dumps(RECORD)])
def test_a_file_that_is_no_record_is_named(tmp_path, text):
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(DamagedError, match=f"{path} is not what was written"):
        records.read(path)


@pytest.mark.parametrize("part", RECORD)
@pytest.mark.parametrize("strange", [None, [], "x", {"x": []}])
def test_a_record_of_another_form_is_named_with_its_first_fault(tmp_path, part, strange):
    files.write_sealed(tmp_path / "record.json", RECORD | {part: strange})
    if part == "earlier_versions" and strange == []:
        return
    with pytest.raises(DamagedError, match=f"record.json is not what it should be .{part}"):
        records.read(tmp_path / "record.json")
    missing = {key: value for key, value in RECORD.items() if key != part}
    files.write_sealed(tmp_path / "record.json", missing)
    with pytest.raises(DamagedError, match=f"{part}: Field required"):
        records.read(tmp_path / "record.json")


def test_differences_name_what_moved_and_what_is_missing():
    recorded = {"a": 0.90, "b": 0.80, "c": 0.70}
    lines = records.differences({"a": 0.905, "b": 0.82}, recorded, tolerance=0.01)
    assert [line.split(":")[0] for line in lines] == ["b", "c"]
    assert records.differences({"a": float("nan")}, {"a": 0.9}, tolerance=1.0)


def test_versions_are_plain_json_and_names_the_versions():
    place = json.loads(json.dumps(records.versions()))
    assert place["versions"].keys() >= {"course-lib", "torch", "accelerate"}
    assert place["git_revision"] is None or len(place["git_revision"].rstrip("+")) == 40


def test_of_what_is_larger_than_1_the_tolerance_is_a_share():
    recorded = {"distance": 20.0, "accuracy": 0.9}
    assert not records.differences({"distance": 20.015, "accuracy": 0.9005}, recorded, tolerance=0.001)
    assert records.differences({"distance": 20.025, "accuracy": 0.902}, recorded, tolerance=0.001) == [
        "distance: measured 20.0250, recorded 20.0000, tolerance 0.02",
        "accuracy: measured 0.9020, recorded 0.9000, tolerance 0.001",
    ]
