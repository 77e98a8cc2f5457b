// Filter, draw, keep the address.

const result = document.getElementById("result");

function changed() {
  refilter();
  const objects = shown.reduce((sum, { wanted }) => sum + wanted.length, 0);
  const all = PICTURES.reduce((sum, picture) => sum + picture.objects.length, 0);
  const told = (part, whole) => (part === whole ? part.toLocaleString("en")
    : `${part.toLocaleString("en")} of ${whole.toLocaleString("en")}`);
  result.textContent = shown.length
    ? `${told(shown.length, PICTURES.length)} pictures, ${told(objects, all)} objects`
    : "No picture is like that; choose less, or show all.";
  root.dataset.pictures = shown.length;
  root.dataset.objects = objects;
  sync();
  showTiles();
  drawCharts();
  writeAddress();
}

function writeAddress() {
  const parts = [toAddress()];
  if (dialog.open) parts.push(`picture=${encodeURIComponent(addressOf(shown[view.place].picture))}`);
  const hash = parts.filter(Boolean).join("&");
  if (location.hash.slice(1) !== hash) {
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  }
}

function addressOf(picture) {
  return `${DATA.splits[picture.split]}/${picture.name}`;
}

function readAddress() {
  const name = fromAddress(location.hash);
  changed();
  const place = name === null ? -1 : shown.findIndex(({ picture }) => addressOf(picture) === name);
  if (place >= 0) openLarge(place);
}

buildControls();
buildCharts();
readAddress();
addEventListener("hashchange", readAddress);
root.dataset.ready = "true";
