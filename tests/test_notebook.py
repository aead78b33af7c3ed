import inspect

import nbformat
import pytest
from nbclient import NotebookClient

import course_lib.notebook
from course_lib.claims import claim


def test_source_is_shown_whole_and_as_python(monkeypatch):
    shown = []
    monkeypatch.setattr(course_lib.notebook, "display", shown.append)
    course_lib.notebook.show_source(claim)
    assert shown[0].data == f"```python\n{inspect.getsource(claim)}```"


CELL = """
import matplotlib.pyplot as plt
from course_lib.notebook import refreshed

def draw(step):
    _, ax = plt.subplots(figsize=(1, 1))
    ax.set_title(f"step {step}")
    return ax

show = refreshed(draw)
for step in range(5):
    show(step)
print(len(plt.get_fignums()), "figures left open")
"""


@pytest.mark.parametrize(("quiet", "pictures"), [("", 1), ("1", 0)])
def test_one_picture_is_refreshed_and_none_is_shown_where_bars_are_silent(quiet, pictures, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", quiet)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    NotebookClient(notebook, timeout=300).execute()
    outputs = notebook.cells[0].outputs
    assert len([one for one in outputs if "image/png" in one.get("data", {})]) == pictures
    assert [one.text for one in outputs if one.output_type == "stream"] == ["0 figures left open\n"]
