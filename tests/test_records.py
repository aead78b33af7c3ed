import json

import pytest

from course_lib import records

RECORD = {"metrics": {"test_accuracy": 0.951}, "identity": {"recipe": "ssgan"}}


def test_a_record_reads_back_as_it_was_written(tmp_path):
    assert records.read(records.write(RECORD, tmp_path)) == RECORD
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_a_number_that_json_has_no_word_for_is_refused_and_the_old_record_kept(tmp_path):
    path = records.write(RECORD, tmp_path)
    with pytest.raises(ValueError):
        records.write({"metrics": {"loss": float("nan")}}, tmp_path)
    assert records.read(path) == RECORD


@pytest.mark.parametrize("text", ["", "{", "[]", '{"seed": 1}'])
def test_a_file_that_is_no_record_is_named(tmp_path, text):
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=str(path)):
        records.read(path)


def test_differences_name_what_moved_and_what_is_missing():
    recorded = {"a": 0.90, "b": 0.80, "c": 0.70}
    lines = records.differences({"a": 0.905, "b": 0.82}, recorded, tolerance=0.01)
    assert [line.split(":")[0] for line in lines] == ["b", "c"]
    assert records.differences({"a": float("nan")}, {"a": 0.9}, tolerance=1.0)


def test_the_environment_is_plain_json_and_names_the_versions():
    place = json.loads(json.dumps(records.environment()))
    assert place["versions"].keys() >= {"course-lib", "torch", "accelerate"}
    assert place["git_revision"] is None or len(place["git_revision"].rstrip("+")) == 40
