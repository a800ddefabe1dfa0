"""A file of runs that were made on several machines names all of them."""

import json

from hfnb.studies.stored_runs import StoredRuns


def add(path, entry, **about):
    StoredRuns(path, lambda: dict(about)).add("runs", {entry: 1})
    return json.loads(path.read_text(encoding="utf-8"))


def test_what_was_said_of_entries_from_another_machine_is_kept(tmp_path):
    path = tmp_path / "runs.json"
    assert add(path, "a", machine="old", load=1)["about"] == {"machine": "old", "load": 1}
    assert add(path, "b", machine="old", load=2)["about"] == {"machine": "old", "load": 2}
    found = add(path, "c", machine="new", load=3)
    assert found["about"] == {"machine": "new", "load": 3, "earlier": [{"machine": "old", "load": 2}]}
    found = add(path, "d", machine="new", load=4)
    assert found["about"] == {"machine": "new", "load": 4, "earlier": [{"machine": "old", "load": 2}]}
    assert list(found["runs"]) == ["a", "b", "c", "d"]
