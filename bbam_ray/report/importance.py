"""How much of the metric's variation each searched setting explains by itself, with its uncertainty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from bbam_ray.report.drawing import BEST, Group, Picture, plain
from bbam_ray.report.report_data import ReportData, Setting

FEWEST_TRIALS = 8
_RESAMPLES, _TREES, _POINTS, _GRID = 20, 8, 256, 16


@dataclass(frozen=True)
class Importance:
    """Share of the variance that is due to a setting alone.

    Args:
        mean, deviation: over bootstrap resamples of the trials.
        trials: complete trials in which the setting was in use.
    """

    name: str
    mean: float
    deviation: float
    trials: int


def fanova(
    units: np.ndarray, values: np.ndarray, levels: list[int | None], *, seed: int = 0
) -> np.ndarray:
    """Main effects of a functional ANOVA by random forests (Hutter, Hoos, Leyton-Brown, ICML 2014).

    For each tree: the variance of its prediction over one setting, averaged over uniform values of all
    others, as a share of its variance over the whole space; then the mean over trees. The averages are
    over random points, the same ones for each value of the setting, so little of their noise remains.
    A tree that predicts one value explains nothing.

    Args:
        units: (n, d) settings in [0, 1].
        values: (n,) of the metric.
        levels: number of choices for each setting, None for numbers.

    Returns:
        (resamples, d) shares; a row per bootstrap resample of the trials.
    """
    from sklearn.ensemble import RandomForestRegressor  # takes a second to load

    generator = np.random.default_rng(seed)
    shape = (_POINTS, units.shape[1])
    space = generator.random(shape)
    for column, count in enumerate(levels):
        if count is not None:
            space[:, column] = generator.integers(count, size=_POINTS) / max(1, count - 1)
    grids = [
        np.linspace(0, 1, count) if count is not None else (np.arange(_GRID) + 0.5) / _GRID
        for count in levels
    ]
    probes = [np.tile(space, (len(grid), 1)) for grid in grids]
    for column, (probe, grid) in enumerate(zip(probes, grids, strict=True)):
        probe[:, column] = np.repeat(grid, _POINTS)
    points = np.concatenate([space, *probes]).astype(np.float32)
    ends = np.cumsum([len(space), *map(len, probes)])
    shares = np.zeros((_RESAMPLES, units.shape[1]))
    for place in range(_RESAMPLES):
        drawn = generator.integers(len(values), size=len(values))
        # Bagging is done here, by the resamples; trees of one differ in how they break ties.
        forest = RandomForestRegressor(_TREES, bootstrap=False, random_state=seed + place)
        forest.fit(units[drawn], values[drawn])
        for tree in forest.estimators_:
            predicted = tree.predict(points)
            whole = predicted[: ends[0]].var()
            if whole <= 1e-12 * max(1.0, float(np.square(values).mean())):
                continue
            for column, grid in enumerate(grids):
                block = predicted[ends[column] : ends[column + 1]].reshape(len(grid), _POINTS)
                shares[place, column] += block.mean(axis=1).var() / whole / _TREES
    return shares.clip(0, 1)


def importances(data: ReportData) -> tuple[list[Importance], list[str]]:
    """Importances, the highest first, and the names of settings in use in too few trials.

    A setting with a condition is judged among the trials that use it, together with the settings that
    all of these use.
    """
    complete = data.complete
    values = complete[data.metric].to_numpy(dtype=float)
    settings = [s for s in data.settings if s.choices is None or len(s.choices) > 1]
    units = {s.name: s.unit(complete[f"param_{s.name}"]) for s in settings}
    always = [s for s in settings if not np.isnan(units[s.name]).any()]
    jobs: list[tuple[list[Setting], np.ndarray, list[Setting]]] = []
    if always:
        jobs.append((always, np.ones(len(values), dtype=bool), always))
    for setting in settings:
        if setting not in always:
            used = ~np.isnan(units[setting.name])
            beside = [s for s in settings if not np.isnan(units[s.name][used]).any()]
            jobs.append((beside, used, [setting]))
    found, too_few = [], []
    for beside, used, wanted in jobs:
        if used.sum() < FEWEST_TRIALS:
            too_few += [s.name for s in wanted]
            continue
        table = np.stack([units[s.name][used] for s in beside], axis=1)
        shares = fanova(table, values[used], [s.choices and len(s.choices) for s in beside])  # type: ignore[misc]
        for setting in wanted:
            mine = shares[:, beside.index(setting)]
            found.append(
                Importance(
                    setting.name, float(mine.mean()), float(mine.std(ddof=1)), int(used.sum())
                )
            )
    return sorted(found, key=lambda item: -item.mean), too_few


def importance_group(data: ReportData) -> Group | None:
    """The section on importance; None for a single run."""
    if not data.settings:
        return None
    title = "Which settings matter"
    count = len(data.complete)
    if count < FEWEST_TRIALS:
        return Group(
            title,
            notes=[
                f"Too few trials: {count} complete; importances are shown from {FEWEST_TRIALS} on."
            ],
        )
    found, too_few = importances(data)
    notes = [
        f"{', '.join(too_few)}: too few trials in which it was in use (fewer than {FEWEST_TRIALS})."
    ] * bool(too_few)
    if not found:
        return Group(title, notes=notes)
    found = found[::-1]  # Plotly draws from the bottom up
    figure = go.Figure(
        go.Bar(
            x=[item.mean for item in found],
            y=[plain(item.name) for item in found],
            orientation="h",
            marker={"color": BEST},
            error_x={
                "type": "data",
                "array": [min(1 - item.mean, item.deviation) for item in found],
                "arrayminus": [min(item.mean, item.deviation) for item in found],
                "color": "#8f99a6",
            },
            text=[f"from {item.trials} trials" for item in found],
            textposition="none",
            hovertemplate="%{y}: %{x:.2f}, %{text}<extra></extra>",
        )
    )
    figure.update_xaxes(title=f"share of the variance of {data.metric}", rangemode="tozero")
    note = (
        "Functional ANOVA by random forests: what a setting explains alone, mean and standard "
        f"deviation over {_RESAMPLES} bootstrap resamples of {count} trials. What is left to 1 is due to "
        "settings together, or noise. Bars that reach into one another cannot be ranked."
    )
    height = 110 + 26 * len(found)
    return Group(
        title, [Picture("importance", "Importance of each setting", figure, note, height)], notes
    )
