"""Figures -> words and tables, for a person. Knows nothing of models."""


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def table(first: str, rows: dict[str, dict]) -> dict:
    """Return a table of what `judge` found: a row for each title."""
    columns = [first, "texts right", "95 % interval"]
    paired = any("pairs" in found for found in rows.values())
    cells = []
    for title, found in rows.items():
        low, high = found["interval"]
        cells.append([title, percent(found["accuracy"]), f"{100 * low:.1f} to {100 * high:.1f}"])
        if paired:
            cells[-1].append(percent(found["pairs"]) if "pairs" in found else "–")
    return {"columns": columns + ["pairs in order"] * paired, "rows": cells}


def against_chance(found: dict, chance: float) -> str:
    """Say whether the interval of an accuracy has chance in it."""
    low, high = found["interval"]
    if low <= chance <= high:
        return "no more than chance, as far as one can tell"
    return "more than chance" if low > chance else "less than chance"
