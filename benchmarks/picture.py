"""The main comparison as an SVG: three panels of bars, one line per system."""

from __future__ import annotations

from html import escape
from typing import Any

from benchmarks.systems import System
from benchmarks.targets import Figures

__all__ = ["svg"]

_PANELS: list[tuple[str, str, dict[str, Any]]] = [
    ("one message per tick", "fanout-500", {}),
    ("compression offered, as by browsers", "deflate", {}),
    ("10 messages per tick", "burst", {"burst": 10}),
]
_LABELS, _PANEL, _GAP = 225, 205, 25
_BAR, _LINE, _TOP = 14, 24, 84
_LONGEST_US = 35.0
"""Longer bars are cut, so that one slow system does not flatten the others; the number stands beside them."""

_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-size: 16px; font-weight: 600 } .small { font-size: 12px; fill: #59636e } .ours { font-weight: 600 }
  .bar { fill: #8c959f } .bar.ours { fill: #1a7f37 } .axis { stroke: #d1d9e0 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .small { fill: #9198a1 } .axis { stroke: #3d444d } .bar { fill: #656c76 }
    .bar.ours { fill: #3fb950 }
  }
"""


def svg(run: dict[str, Any], systems: list[System]) -> str:
    figures = Figures(run["runs"])
    shown = [system for system in systems if any(_cpu(figures, system, panel) for panel in _PANELS)]
    width = _LABELS + len(_PANELS) * (_PANEL + _GAP)
    height = _TOP + len(shown) * _LINE + 34
    bottom = _TOP + len(shown) * _LINE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" aria-labelledby="title">',
        '<title id="title">CPU microseconds per delivered frame, by system</title>',
        f"<style>{_STYLE}</style>",
        '<text class="title" x="8" y="24">CPU per delivered frame, microseconds: shorter is better</text>',
        '<text class="small" x="8" y="44">500 connections in one room, 128-byte messages, one process, one core</text>',
    ]
    for number, panel in enumerate(_PANELS):
        left = _LABELS + number * (_PANEL + _GAP)
        parts.append(f'<text class="small" x="{left}" y="{_TOP - 14}">{escape(panel[0])}</text>')
        parts.append(f'<line class="axis" x1="{left}" y1="{_TOP - 6}" x2="{left}" y2="{bottom}"/>')
    for line, system in enumerate(shown):
        parts += _system(figures, system, _TOP + line * _LINE)
    machine = run["machine"]
    footer = f"{run['date'][:10]}, {machine['cpu']}, {machine['cores']} cores. benchmarks/RESULTS.md has all figures."
    parts.append(f'<text class="small" x="8" y="{height - 12}">{escape(footer)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _system(figures: Figures, system: System, top: int) -> list[str]:
    kind = " ours" if system.is_ours else ""
    baseline = top + _BAR - 3
    parts = [f'<text class="label{kind}" x="8" y="{baseline}">{escape(system.title)}</text>']
    for number, panel in enumerate(_PANELS):
        left = _LABELS + number * (_PANEL + _GAP)
        cpu = _cpu(figures, system, panel)
        if cpu is None:
            parts.append(f'<text class="small" x="{left + 6}" y="{baseline}">-</text>')
            continue
        length = min(cpu, _LONGEST_US) / _LONGEST_US * (_PANEL - 80)
        parts.append(
            f'<rect class="bar{kind}" x="{left}" y="{top}" width="{length:.1f}" height="{_BAR}"/>'
            f'<text class="small" x="{left + length + 6:.1f}" y="{baseline}">{cpu:.{2 if cpu < 10 else 1}f}'
            f"{' (cut)' if cpu > _LONGEST_US else ''}</text>"
        )
    return parts


def _cpu(figures: Figures, system: System, panel: tuple[str, str, dict[str, Any]]) -> float | None:
    try:
        return figures.cpu(system.name, panel[1], **panel[2])
    except LookupError:
        return None
