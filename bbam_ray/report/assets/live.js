// Ask every two seconds whether the study has changed, and reload the page if so. While the reader has
// selected text, a reload would lose the selection, so it waits.
let state = null;
setInterval(async () => {
  const mark = document.getElementById("live");
  try {
    const now = await (await fetch("/state", {cache: "no-store"})).text();
    mark.textContent = "live";
    const selecting = !getSelection().isCollapsed;
    if (state !== null && now !== state && !selecting) location.reload();
    if (state === null || !selecting) state = now;
  } catch { mark.textContent = "bbam-ray watch has ended; this page shows its last state"; }
}, 2000);
