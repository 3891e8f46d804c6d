"""The comparison for a paper or a README: LaTeX (booktabs) and Markdown."""

import re

from analysis.caveats import caveats
from analysis.citation import methods, sentence
from analysis.comparison import Comparison
from analysis.sweep import Sweep
from analysis.table import notes, tables
from analysis.wording import claims

LATEX_SIGNS = {"±": r"$\pm$", "−": "$-$", "–": "--", "<": "$<$", ">": "$>$"}


def latex(comparison: Comparison, title: str) -> str:
    """The table of results, for ``\\input``; needs ``\\usepackage{booktabs}``."""
    columns, rows = tables(comparison)[0]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{in_latex(f'{title}. {notes(comparison)}')}}}",
        rf"\begin{{tabular}}{{{'l' * len(columns)}}}",
        r"\toprule",
        " & ".join(map(in_latex, columns)) + r" \\",
        r"\midrule",
        *(" & ".join(map(in_latex, cells)) + r" \\" for cells in rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def in_latex(text: str) -> str:
    text = text.replace("\\", "\0")
    text = re.sub(r"([&%$#_{}])", r"\\\1", text)
    text = text.replace("~", r"\textasciitilde{}").replace("^", r"\textasciicircum{}")
    for sign, command in LATEX_SIGNS.items():
        text = text.replace(sign, command)
    return text.replace("\0", r"\textbackslash{}")


def markdown(comparison: Comparison, sweep: Sweep, title: str) -> str:
    """The whole report but for its figures."""
    parts = [f"# {in_markdown(title)}", *map(in_markdown, claims(comparison))]
    if warnings := [*sweep.unfinished, *caveats(comparison)]:
        parts.append("## Before you cite this")
        parts.append("\n".join(f"- {in_markdown(warning)}" for warning in warnings))
    parts += [markdown_table(columns, rows) for columns, rows in tables(comparison)]
    parts += [in_markdown(notes(comparison)), "## To cite", in_markdown(sentence(comparison))]
    parts.append(in_markdown(methods(comparison, sweep.studies)))
    return "\n\n".join(parts) + "\n"


def markdown_table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(in_markdown, cells))} |" for cells in lines)


def in_markdown(text: str) -> str:
    return re.sub(r"([\\`*_|<])", r"\\\1", text).replace("\n", " ")
