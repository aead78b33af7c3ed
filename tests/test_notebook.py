import inspect

import course_lib.notebook
from course_lib.claims import claim


def test_source_is_shown_whole_and_as_python(monkeypatch):
    shown = []
    monkeypatch.setattr(course_lib.notebook, "display", shown.append)
    course_lib.notebook.show_source(claim)
    assert shown[0].data == f"```python\n{inspect.getsource(claim)}```"
