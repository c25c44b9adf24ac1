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
    for (let k = 0; k < shares.length - 1; k++) {
      sum += shares[k];
      cumulated.push(sum * steps);
    }
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
    input.addEventListener("input", () => {
      values[k] = Number(input.value);
      draw();
    });
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
    shares.forEach((share, k) => {
      outputs[k].textContent = (100 * share).toFixed(0) + " %";
    });
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
