// Figures wait until the library at the end of the page is there.
const waiting = [];
window.Plotly = {newPlot: (...figure) => waiting.push(figure)};

async function loadLibrary() {
  const packed = Uint8Array.from(atob(document.getElementById("plotly-library").textContent.trim()),
    letter => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
  const {newPlot} = window.Plotly;
  for (const figure of waiting) await newPlot(...figure);
  document.documentElement.dataset.figures = "drawn";
}

document.addEventListener("DOMContentLoaded", () => loadLibrary().catch(error => {
  // Without DecompressionStream, the browser is from before 2023.
  document.getElementById("no-figures").hidden = false;
  console.error(error);
}));
