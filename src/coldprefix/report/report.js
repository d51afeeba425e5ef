"use strict";
// The filter over the table of cells, claims sorted by a column, and details that open when a link leads into them.
const filter = document.getElementById("filter");
const rows = Array.from(document.querySelectorAll("#cell-table tbody tr"));
const shown = document.getElementById("shown");
function apply() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let n = 0;
  for (const row of rows) {
    const hit = words.every((word) => row.textContent.toLowerCase().includes(word));
    row.hidden = !hit;
    n += hit ? 1 : 0;
  }
  shown.textContent = n + " of " + rows.length + " cells";
}
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
  if (target) target.scrollIntoView();
}
function value(row, column) {
  const cell = row.cells[column];
  const given = cell.dataset.value;
  return given === undefined ? cell.textContent.trim() : given === "" ? Infinity : Number(given);
}
function sortBy(header) {
  const body = header.closest("table").tBodies[0];
  const column = header.cellIndex;
  const down = header.getAttribute("aria-sort") === "ascending";
  for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  const sorted = Array.from(body.rows).sort((a, b) => {
    const [x, y] = [value(a, column), value(b, column)];
    return typeof x === "number" ? x - y : x.localeCompare(y, "en", { numeric: true });
  });
  body.append(...(down ? sorted.reverse() : sorted));
}
for (const button of document.querySelectorAll("#claim-table th button")) button.addEventListener("click", () => sortBy(button.parentNode));
filter.addEventListener("input", apply);
addEventListener("hashchange", reveal);
apply();
reveal();
