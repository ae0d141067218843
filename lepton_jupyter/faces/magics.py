"""``%lepton`` and ``%%lepton``: loaded by ``%load_ext lepton_jupyter``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from IPython.core.magic import Magics, line_cell_magic, magics_class, needs_local_scope, no_var_expand

from lepton_jupyter.faces import help as helping
from lepton_jupyter.faces.arguments import parse
from lepton_jupyter.faces.asker import Asker
from lepton_jupyter.faces.completion import matcher_of
from lepton_jupyter.faces.objects.shown import Shown, watch_cells
from lepton_jupyter.faces.objects.text import Text
from lepton_jupyter.faces.verbs import find
from lepton_jupyter.faces.words import expand, split_words

HELP_WORDS = ("--help", "-h", "-?")


@magics_class
class LeptonMagics(Magics):
    """The magics, one for all verbs."""

    shell: Any

    @no_var_expand
    @needs_local_scope
    @line_cell_magic
    def lepton(self, line: str, cell: str | None = None, local_ns: Mapping[str, Any] | None = None) -> Any:
        """Do a verb; alone, list the verbs."""
        line, cell = _continued(line, cell)
        namespace = self.shell.user_ns if not local_ns else {**self.shell.user_ns, **local_ns}
        words = split_words(expand(line, namespace))
        if not words or words[0] in (*HELP_WORDS, "help"):
            topic = words[1:2] if words[:1] == ["help"] else []
            return self._said(Text(helping.page(find(topic[0]).spec) if topic else helping.overview()))
        verb, *rest = words
        command = find(verb, is_cell=cell is not None)
        spec = command.cell if cell is not None and command.cell is not None else command.spec
        if any(word in HELP_WORDS for word in rest):
            return self._said(Text(helping.page(spec, "%%lepton" if cell is not None else "%lepton")))
        typed = parse(spec, rest, prog="%%lepton" if cell is not None else "%lepton")
        asker = Asker("magic", namespace=namespace, shell=self.shell, command=_command(line, cell))
        flow = command.load(is_cell=cell is not None)
        return self._said(flow(asker, typed, cell if cell is not None else {}))

    def _said(self, result: Any) -> Any:
        """Show a result now: a cell may hold several verbs. It is then not shown again as the cell's value."""
        if isinstance(result, Shown):
            result.show()
        return result


def _command(line: str, cell: str | None) -> str:
    return f"{'%%' if cell is not None else '%'}lepton {line.strip()}"


def _continued(line: str, cell: str | None) -> tuple[str, str | None]:
    """Join lines that end in a backslash: IPython does so for a line, and not for the first line of a cell."""
    while cell is not None and line.rstrip().endswith("\\"):
        more, _, cell = cell.partition("\n")
        line = line.rstrip()[:-1] + " " + more
    return line, cell


def load(shell: Any) -> None:
    """Register the magics and completion with a shell; twice is once."""
    watch_cells(shell)
    magics = LeptonMagics(shell)
    LeptonMagics.lepton.__doc__ = helping.overview()
    shell.register_magics(magics)
    if shell.Completer is not None and not any(_is_ours(matcher) for matcher in shell.Completer.custom_matchers):
        shell.Completer.custom_matchers.append(matcher_of(shell))


def unload(shell: Any) -> None:
    """Take the magics and completion away again."""
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("lepton", None)
    if shell.Completer is not None:
        kept = [matcher for matcher in shell.Completer.custom_matchers if not _is_ours(matcher)]
        shell.Completer.custom_matchers[:] = kept


def _is_ours(matcher: Any) -> bool:
    return getattr(matcher, "matcher_identifier", "") == "lepton"
