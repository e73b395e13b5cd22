"""How a figure of each unit is written for people."""

_SHARES = frozenset({"errors/word", "errors/character", "share", "share of clips"})


def show(value: float | None, unit: str) -> str:
    """`0.109` errors/word as `10.9 %`, a difference of it as `-20.9 points`, nothing as `not measured`."""
    if value is None:
        return "not measured"
    if unit in _SHARES:
        return f"{100 * value:.1f} %"
    if unit == "difference of errors/word":
        return f"{100 * value:+.1f} points"
    return f"{value:.4g} {unit}"


def show_ends(ends: tuple[float, float] | None, unit: str) -> str:
    """Both confidence ends as `7.4 to 14.4 %`, or nothing."""
    if ends is None:
        return ""
    low, high = (show(end, unit) for end in ends)
    return f"{low.split()[0]} to {high}"
