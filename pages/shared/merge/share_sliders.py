"""Sliders for the shares of a weighted mean; loss and accuracy follow in the browser.

The grid of shares is computed on the server once. Between its points the browser interpolates
linearly: in cumulated shares the grid is cut into simplices along its diagonals (Freudenthal), so
that every mean has at most as many neighbours as there are models.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import streamlit as st

from merging.schema.legible import legible
from merging.schema.records.scores import Mixtures

_NAME = 80  # characters

_HTML = """
<div class="shares">
  <div class="sliders" role="group" aria-label="Share of every model"></div>
  <div class="found" aria-live="polite"></div>
</div>
"""

_CSS = """
.shares {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(260px, 100%), 1fr));
  gap: 1.5rem 2.5rem; font-size: 0.9rem;
  font-family: var(--st-font); color: var(--st-text-color);
}
.row { margin-bottom: 0.75rem; }
.row label { display: flex; justify-content: space-between; gap: 1rem; }
.row output, .bar b { font-variant-numeric: tabular-nums; }
.row input { width: 100%; accent-color: var(--st-primary-color); }
.bar { display: grid; grid-template-columns: 1fr 7.5em; gap: 0.6rem; margin: 0 0 0.5rem; }
.bar i { height: 0.9rem; margin-top: 0.25rem; background: var(--st-secondary-background-color); }
.bar span { display: block; height: 100%; background: var(--st-primary-color); }
.bar b { text-align: right; font-weight: 600; }
.mean { font-weight: 600; }
"""

_JS = """
export default function ({ data, parentElement }) {
  const sliders = parentElement.querySelector(".sliders");
  const found = parentElement.querySelector(".found");
  const { models, tasks, steps, loss, accuracy, byLoss, unit } = data;
  const key = (cells) => cells.join(",");
  const place = new Map(data.cells.map((cells, k) => [key(cells), k]));

  // Values at any shares: the corners of the simplex that they lie in, and their weights.
  function around(shares) {
    const cumulated = [];
    let sum = 0;
    for (let k = 0; k < shares.length - 1; k++) { sum += shares[k]; cumulated.push(sum * steps); }
    const low = cumulated.map((v) => Math.min(steps, Math.floor(v + 1e-9)));
    const rest = cumulated.map((v, k) => Math.max(0, v - low[k]));
    // Where rests are equal the later one goes first, so that the sums stay in order.
    const order = rest.map((_, k) => k).sort((a, b) => rest[b] - rest[a] || b - a);
    const corners = [];
    const at = low.slice();
    let before = 1;
    for (let k = 0; k <= order.length; k++) {
      const now = k < order.length ? rest[order[k]] : 0;
      if (before - now > 1e-12) {
        const cells = at.map((v, j) => v - (j ? at[j - 1] : 0));
        cells.push(steps - (at.length ? at[at.length - 1] : 0));
        const where = place.get(key(cells));
        if (where !== undefined) corners.push([where, before - now]);
      }
      if (k < order.length) at[order[k]] += 1;
      before = now;
    }
    return corners;
  }

  const values = models.map(() => 1);
  const outputs = [];
  sliders.replaceChildren();
  models.forEach((name, k) => {
    const row = document.createElement("div");
    row.className = "row";
    const label = document.createElement("label");
    const output = document.createElement("output");
    const title = document.createElement("span");
    title.textContent = name;
    label.append(title, output);
    const input = document.createElement("input");
    Object.assign(input, { type: "range", min: 0, max: 1, step: 0.01, value: 1 });
    input.setAttribute("aria-label", "Weight of " + name);
    input.addEventListener("input", () => { values[k] = Number(input.value); draw(); });
    row.append(label, input);
    sliders.append(row);
    outputs.push(output);
  });

  function bar(name, value, bold) {
    const head = document.createElement("div");
    head.textContent = name;
    if (bold) head.className = "mean";
    const line = document.createElement("div");
    line.className = "bar";
    const fill = document.createElement("span");
    const top = byLoss ? data.worst : 1;
    fill.style.width = (100 * Math.min(1, Math.max(0, value / top))).toFixed(1) + "%";
    const number = document.createElement("b");
    number.textContent = byLoss ? value.toFixed(3) + " " + unit : (100 * value).toFixed(1) + " %";
    const track = document.createElement("i");
    track.append(fill);
    line.append(track, number);
    found.append(head, line);
  }

  function draw() {
    const total = values.reduce((a, b) => a + b, 0);
    const shares = values.map((v) => (total > 0 ? v / total : 1 / values.length));
    shares.forEach((share, k) => { outputs[k].textContent = (100 * share).toFixed(0) + " %"; });
    const corners = around(shares);
    const table = byLoss ? loss : accuracy;
    const at = (rows, t) => corners.reduce((sum, [k, w]) => sum + w * rows[k][t], 0);
    found.replaceChildren();
    const mean = (rows) => tasks.reduce((sum, _, t) => sum + at(rows, t), 0) / tasks.length;
    bar(byLoss ? "Mean loss over the tasks" : "Mean accuracy over the tasks", mean(table), true);
    if (tasks.length > 1) tasks.forEach((name, t) => bar(name, at(table, t), false));
    if (!byLoss) {
      const line = document.createElement("div");
      line.textContent = "Mean loss " + mean(loss).toFixed(3) + " " + unit;
      found.append(line);
    }
  }
  draw();
}
"""


def sliders(found: Mixtures, models: Sequence[str], tasks: Sequence[str], *, key: str) -> None:
    """Draw one slider per model and the values that follow them.

    Args:
        found: The grid of shares with its values.
        models: What screens call the models.
        tasks: What screens call the tasks.
        key: `<page>_<what>`.
    """
    by_loss = bool(np.isnan(found.accuracy).all())
    component = st.components.v2.component("shares", html=_HTML, css=_CSS, js=_JS)
    component(
        key=key,
        data={
            "models": [legible(name, most=_NAME, lines=False) for name in models],
            "tasks": [legible(name, most=_NAME, lines=False) for name in tasks],
            "steps": found.steps,
            "cells": np.rint(found.shares * found.steps).astype(int).tolist(),
            "loss": np.round(found.loss, 4).tolist(),
            "accuracy": np.round(np.nan_to_num(found.accuracy), 4).tolist(),
            "byLoss": by_loss,
            "worst": float(np.nanmax(found.loss)),
            "unit": "squared error" if by_loss else "nats",
        },
    )
