// Click on a column header: sort the rows. Rows without a value stay last in both directions.
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  headers.forEach((header, column) => header.querySelector("button").addEventListener("click", () => {
    const ascending = header.getAttribute("aria-sort") !== "ascending";
    for (const other of headers) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const numeric = header.dataset.kind === "number";
    const value = row => row.cells[column].dataset.value;
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
    Plotly.update(plot, ...plot.layout.meta[select.selectedIndex]);
  });
}
