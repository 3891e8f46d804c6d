"""The main job leaves the records it promises."""

import json


def test_records(train):
    run_dir = train("debug=fast")
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["steps"] == 4
