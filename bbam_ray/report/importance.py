"""Importance of the searched settings: the share of the metric's variance that each explains alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from bbam_ray.report.figures import BEST, OTHERS, ReportFigure, Section, plotly_text
from bbam_ray.report.report_data import ReportData, SearchedSetting

FEWEST_TRIALS = 8
_RESAMPLES, _TREES, _POINTS, _GRID = 20, 8, 256, 16


@dataclass(frozen=True)
class Importance:
    """The share of the metric's variance that a setting explains alone.

    Args:
        mean, deviation: over bootstrap resamples of the trials.
        trials: number of complete trials that used the setting.
    """

    name: str
    mean: float
    deviation: float
    trials: int


def fanova(
    settings: np.ndarray, values: np.ndarray, levels: list[int | None], *, seed: int = 0
) -> np.ndarray:
    """Main effects of a functional ANOVA by random forests (Hutter, Hoos, Leyton-Brown, ICML 2014).

    For each tree, the main effect of a setting is its prediction averaged over uniform values of all other
    settings. The share is the variance of this effect divided by the variance of the tree over the whole
    space; a constant tree has no effects. Shares are averaged over trees. All averages use the same random
    points for each value of a setting, which keeps their noise low.

    Args:
        settings: (n, d), normalized to [0, 1].
        values: (n,) values of the metric.
        levels: number of choices of each setting, None for numbers.

    Returns:
        (resamples, d) shares, for each bootstrap resample of the trials.
    """
    from sklearn.ensemble import RandomForestRegressor  # takes a second to load

    generator = np.random.default_rng(seed)
    shape = (_POINTS, settings.shape[1])
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
    shares = np.zeros((_RESAMPLES, settings.shape[1]))
    for resample in range(_RESAMPLES):
        rows = generator.integers(len(values), size=len(values))
        # No bootstrap in the forest: the resamples do that. Its trees differ in how they break ties.
        forest = RandomForestRegressor(_TREES, bootstrap=False, random_state=seed + resample)
        forest.fit(settings[rows], values[rows])
        for tree in forest.estimators_:
            predicted = tree.predict(points)
            total = predicted[: ends[0]].var()
            if total <= 1e-12 * max(1.0, float(np.square(values).mean())):
                continue
            for column, grid in enumerate(grids):
                block = predicted[ends[column] : ends[column + 1]].reshape(len(grid), _POINTS)
                shares[resample, column] += block.mean(axis=1).var() / total / _TREES
    return shares.clip(0, 1)


def importances(data: ReportData) -> tuple[list[Importance], list[str]]:
    """Importances, the highest first, and the names of settings that too few trials used.

    The importance of a conditional setting comes from the trials that used it, with the settings that all
    of these used.
    """
    complete = data.complete
    values = complete[data.metric].to_numpy(dtype=float)
    settings = [s for s in data.settings if s.choices is None or len(s.choices) > 1]
    normalized = {s.name: s.normalized(complete[f"param_{s.name}"]) for s in settings}
    always_used = [s for s in settings if not np.isnan(normalized[s.name]).any()]
    # For each analysis: its settings, the trials, and the settings whose importance it gives.
    analyses: list[tuple[list[SearchedSetting], np.ndarray, list[SearchedSetting]]] = []
    if always_used:
        analyses.append((always_used, np.ones(len(values), dtype=bool), always_used))
    for setting in settings:
        if setting not in always_used:
            used = ~np.isnan(normalized[setting.name])
            together = [s for s in settings if not np.isnan(normalized[s.name][used]).any()]
            analyses.append((together, used, [setting]))
    results, too_few = [], []
    for together, used, wanted in analyses:
        if used.sum() < FEWEST_TRIALS:
            too_few += [s.name for s in wanted]
            continue
        table = np.stack([normalized[s.name][used] for s in together], axis=1)
        levels = [None if s.choices is None else len(s.choices) for s in together]
        shares = fanova(table, values[used], levels)
        for setting in wanted:
            share = shares[:, together.index(setting)]
            results.append(
                Importance(
                    setting.name, float(share.mean()), float(share.std(ddof=1)), int(used.sum())
                )
            )
    return sorted(results, key=lambda item: -item.mean), too_few


def importance_section(data: ReportData) -> Section | None:
    """The section on importance; None for a single run."""
    if not data.settings:
        return None
    title = "Which settings matter"
    trials = len(data.complete)
    if trials < FEWEST_TRIALS:
        note = (
            f"Too few trials: {trials} complete; importance is shown for {FEWEST_TRIALS} or more."
        )
        return Section(title, notes=[note])
    results, too_few = importances(data)
    notes = []
    if too_few:
        notes.append(f"{', '.join(too_few)}: used in fewer than {FEWEST_TRIALS} trials.")
    if not results:
        return Section(title, notes=notes)
    caption = (
        "Functional ANOVA with random forests: the share that a setting explains alone, mean and standard "
        f"deviation over {_RESAMPLES} bootstrap resamples of {trials} trials. The rest, up to 1, comes "
        "from interactions of settings and from noise. Settings whose error bars overlap cannot be ranked."
    )
    figure = _bars(results[::-1], data.metric)  # Plotly draws from the bottom up
    height = 110 + 26 * len(results)
    figures = [ReportFigure("importance", "Importance of each setting", figure, caption, height)]
    return Section(title, figures, notes)


def _bars(results: list[Importance], metric: str) -> go.Figure:
    figure = go.Figure(
        go.Bar(
            x=[item.mean for item in results],
            y=[plotly_text(item.name) for item in results],
            orientation="h",
            marker={"color": BEST},
            error_x={
                "type": "data",
                "array": [min(1 - item.mean, item.deviation) for item in results],
                "arrayminus": [min(item.mean, item.deviation) for item in results],
                "color": OTHERS,
            },
            text=[f"from {item.trials} trials" for item in results],
            textposition="none",
            hovertemplate="%{y}: %{x:.2f}, %{text}<extra></extra>",
        )
    )
    return figure.update_xaxes(title=f"share of the variance of {metric}", rangemode="tozero")
