"""How a figure of each unit is written for people."""

_SHARES = frozenset({"errors/word", "errors/character", "share", "share of clips"})
_DIFFERENCE = "difference of "
_POINTS = frozenset({"errors/word", "shares"})


def show(value: float | None, unit: str) -> str:
    """`0.109` errors/word as `10.9 %`, a difference of it as `-20.9 points`, nothing as `not measured`."""
    if value is None:
        return "not measured"
    if unit in _SHARES:
        return f"{100 * value:.1f} %"
    if unit.startswith(_DIFFERENCE):
        of = unit.removeprefix(_DIFFERENCE)
        return f"{100 * value:+.1f} points" if of in _POINTS else f"{value:+.4g} {of}"
    return f"{value:.4g} {unit}"


def show_size(value: float, unit: str) -> str:
    """The size of a change, without a sign: `0.02` of errors/word as `2.0 points`."""
    of = unit.removeprefix(_DIFFERENCE)
    return f"{100 * value:.1f} points" if of in _SHARES | _POINTS else f"{value:.2g} {of}"


def show_ends(ends: tuple[float, float] | None, unit: str) -> str:
    """Both confidence ends as `7.4 to 14.4 %`, or nothing."""
    if ends is None:
        return ""
    low, high = (show(end, unit) for end in ends)
    return f"{low.split()[0]} to {high}"
