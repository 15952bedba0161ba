// Click on a column header: sort the rows. Rows without a value stay last in both directions.
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  headers.forEach((header, column) => header.querySelector("button").addEventListener("click", () => {
    const ascending = header.getAttribute("aria-sort") !== "ascending";
    for (const other of headers) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const numeric = header.dataset.kind === "number";
    // A cell has data-value where its text is rounded; the text comes before any mark.
    const value = row => row.cells[column].dataset.value ?? row.cells[column].firstChild?.data;
    const order = (a, b) => numeric ? Number(a) - Number(b) : a < b ? -1 : a > b ? 1 : 0;
    const rows = [...body.rows], known = rows.filter(row => value(row) !== undefined);
    // "|| 0": the difference of two infinite values is not a number
    known.sort((a, b) => (ascending ? 1 : -1) * order(value(a), value(b)) || 0);
    body.append(...known, ...rows.filter(row => value(row) === undefined));
  }));
}

// A drop-down list above a figure: apply the chosen data and layout.
for (const select of document.querySelectorAll("select[data-plot]")) {
  select.addEventListener("change", () => {
    const plot = document.getElementById(select.dataset.plot);
    Plotly.update(plot, ...plot.layout.meta[select.selectedIndex]).then(() => {
      const values = document.querySelector(`details.values[data-plot="${select.dataset.plot}"]`);
      if (values.open) showValues(values);
    });
  });
}

// "Values as a table": the data of a figure, made when it is opened.
for (const details of document.querySelectorAll("details.values")) {
  details.addEventListener("toggle", () => { if (details.open) showValues(details); });
}

// Numbers of an axis. Plotly's Python package stores large arrays as base64.
function numbers(values) {
  if (!values?.bdata) return values;
  const kinds = {f8: Float64Array, f4: Float32Array, i1: Int8Array, i2: Int16Array, i4: Int32Array,
    u1: Uint8Array, u2: Uint16Array, u4: Uint32Array};
  return new kinds[values.dtype](Uint8Array.from(atob(values.bdata), c => c.charCodeAt(0)).buffer);
}

function showValues(details) {
  const {data, layout} = document.getElementById(details.dataset.plot);
  const rows = [];
  for (const trace of data ?? []) {
    if (trace.type === "contour" || !trace.y) continue;
    const y = numbers(trace.y), labels = numbers(trace.customdata) ?? trace.text;
    const x = numbers(trace.x) ?? Array.from(y, (_, i) => trace.x0 + i * trace.dx);
    const error = trace.error_y ?? trace.error_x;
    const above = numbers(error?.array), below = numbers(error?.arrayminus) ?? above;
    for (let i = 0; i < y.length; i++) {
      if (x[i] === null || y[i] === null || Number.isNaN(y[i])) continue;
      rows.push([trace.name ?? "", labels?.[i] ?? "", x[i], y[i],
        !above ? "" : above[i] === below[i] ? above[i] : `+${above[i]} -${below[i]}`]);
    }
  }
  const axis = (layout, name) => layout?.[name]?.title?.text || name[0];
  const label = data?.some(trace => trace.customdata) ? "trial" : "label";
  const names = ["series", label, axis(layout, "xaxis"), axis(layout, "yaxis"), "error"];
  const used = names.map((_, column) => rows.some(row => row[column] !== ""));
  const table = document.createElement("table"), box = document.createElement("div");
  table.createCaption().textContent = details.dataset.name;
  const fill = (row, tag, texts) => texts.forEach((text, column) => {
    if (!used[column]) return;
    const cell = row.appendChild(document.createElement(tag));
    if (tag === "th") cell.scope = "col";
    // Texts of figures are escaped for Plotly; a parsed document only turns them back into text.
    cell.textContent = typeof text === "string"
      ? new DOMParser().parseFromString(text, "text/html").body.textContent : text;
  });
  fill(table.createTHead().insertRow(), "th", names);
  const body = table.createTBody();
  for (const row of rows) fill(body.insertRow(), "td", row);
  Object.assign(box, {className: "wide tall", tabIndex: 0, role: "region"});
  box.setAttribute("aria-label", `Values: ${details.dataset.name}`);
  box.append(table);
  details.querySelector(".wide")?.remove();
  details.append(box);
}

// Commands: lines break between words, not at hyphens.
for (const code of document.querySelectorAll(".command code")) {
  const words = code.textContent.split(" ").map(word => {
    const span = document.createElement("span");
    span.textContent = word;
    return span;
  });
  code.replaceChildren(...words.flatMap((span, index) => index ? [" ", span] : [span]));
}

// Copy a command. On pages of file:// some browsers have no clipboard; then the command is selected.
for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    getSelection().selectAllChildren(code);
    let copied = false;
    try {
      await navigator.clipboard.writeText(code.textContent);
      copied = true;
    } catch { copied = document.execCommand("copy"); }
    button.textContent = copied ? "Copied" : "Selected";
    document.getElementById("copied").textContent =
      copied ? "The command is in the clipboard" : "The command is selected; copy it with Ctrl+C";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}
