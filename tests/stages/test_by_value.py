"""Code that travels keeps the name of where it was written."""

from __future__ import annotations

import pickle

from lepton_jupyter.stages import by_value


def test_a_function_that_travels_keeps_the_name_of_its_cell() -> None:
    space: dict[str, object] = {"__name__": "__main__"}
    exec(compile("def outer():\n    def inner(): ...\n    return inner\n", "<cell 5>", "exec"), space)
    back = pickle.loads(by_value.dumps(space["outer"]))
    assert back.__code__.co_filename == back().__code__.co_filename == "<cell 5>"
