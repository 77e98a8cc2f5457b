// Annotations as SVG over a picture, in the picture's pixels.

const pen = document.createElement("canvas").getContext("2d");
let patterns = 0;

function escaped(text) {
  return String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;",
    '"': "&quot;" })[c]);
}

function nameOf(object) {
  return DATA.classes[object[LABEL]];
}

function describe(object) {
  const [width, height] = [object[X2] - object[X1], object[Y2] - object[Y1]];
  const faults = (object[FAULTS] || []).map(([, what]) => ` ! ${what}`).join("");
  return `${nameOf(object)}, ${Math.round(width)} × ${Math.round(height)} px` +
    (object[IGNORED] ? ", ignored" : "") + faults;
}

// `unit`: the picture's pixels that are one of the screen. `options`: wanted, the objects that
// count; chosen, one of them; tags, are names written; letters, their height on the screen.
function overlay(picture, unit, { wanted, chosen = null, tags = true, letters = 11 }) {
  const id = `hatch-${patterns++}`;
  const counts = new Set(wanted);
  const parts = [hatches(id, picture, unit)];
  const order = picture.objects.filter((o) => !counts.has(o)).concat(wanted);
  for (const object of order) parts.push(shape(object, id, unit, counts.has(object), chosen));
  if (tags && (!DATA.maps || chosen)) { // a map's regions have no places for all names
    const named = chosen ? [chosen] : wanted;
    parts.push(...placedTags(named, picture, unit, letters, !chosen && letters < 12));
  }
  const label = `${picture.name}: ${picture.objects.length} objects`;
  return `<svg viewBox="0 0 ${picture.width} ${picture.height}" role="img" ` +
    `aria-label="${escaped(label)}">${parts.join("")}</svg>`;
}

// One pattern for each class that is ignored somewhere: stripes of its colour.
function hatches(id, picture, unit) {
  const labels = new Set(picture.objects.filter((o) => o[IGNORED]).map((o) => o[LABEL]));
  return [...labels].map((k) => `<pattern id="${id}-${k}" width="${9 * unit}" ` +
    `height="${9 * unit}" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">` +
    `<rect width="${4 * unit}" height="${9 * unit}" fill="${DATA.colours[k]}"/></pattern>`)
    .join("");
}

function shape(object, id, unit, counts, chosen) {
  const colour = DATA.colours[object[LABEL]];
  const dim = !counts || (chosen && object !== chosen);
  const fill = object[IGNORED] ? `url(#${id}-${object[LABEL]})` : colour;
  const kind = `mark${object[IGNORED] ? " ignored" : ""}${dim ? " dim" : ""}` +
    (object === chosen ? " chosen" : "");
  const parts = [];
  const rings = object[OUTLINES] || [];
  if (rings.length) {
    const path = rings.map((ring) => `M${ring.join(" ")}Z`).join("");
    const area = DATA.maps ? "area solid" : "area";
    parts.push(`<path class="${area}" fill="${fill}" d="${path}"/>`);
    if (!DATA.maps) parts.push(`<path class="under" d="${path}"/>`, // there and back to each hole
      `<path class="line" stroke="${colour}" d="${path}"/>`);
  }
  const [x, y] = [Math.min(object[X1], object[X2]), Math.min(object[Y1], object[Y2])];
  const [w, h] = [Math.abs(object[X2] - object[X1]), Math.abs(object[Y2] - object[Y1])];
  const box = `x="${x}" y="${y}" width="${w}" height="${h}"`;
  if (!rings.length) parts.push(`<rect class="under" ${box}/>`);
  const thin = rings.length ? " thin" : "";
  const striped = object[IGNORED] && !rings.length;
  if (striped) parts.push(`<rect class="area" fill="${fill}" ${box}/>`);
  if (!DATA.maps || !rings.length) parts.push(`<rect class="line${thin}" stroke="${colour}" ${box}/>`);
  if ((object[FAULTS] || []).length) { // around boxes without area too
    const least = 16 * unit;
    const [mx, my] = [Math.max(0, least - w) / 2, Math.max(0, least - h) / 2];
    const frame = `x="${x - mx}" y="${y - my}" width="${w + 2 * mx}" height="${h + 2 * my}"`;
    parts.push(`<rect class="fault-under" ${frame}/><rect class="fault" ${frame}/>`);
  }
  return `<g class="${kind}"><title>${escaped(describe(object))}</title>${parts.join("")}</g>`;
}

// Names beside their boxes; where no place is free the name is left out, or lies over another.
function placedTags(objects, picture, unit, letters, leaveOut) {
  const height = (letters + 5) * unit;
  pen.font = `600 ${letters}px system-ui, sans-serif`;
  const taken = [];
  const parts = [];
  const bySize = [...objects].sort((a, b) => faulty(b) - faulty(a) || b[SIDE] - a[SIDE]);
  for (const object of bySize) {
    const text = (faulty(object) ? "! " : "") + nameOf(object);
    const width = (pen.measureText(text).width + 8) * unit;
    const [x1, y1] = [object[X1], object[Y1]];
    const places = [[x1, y1 - height], [object[X2] - width, y1 - height], [x1, object[Y2]],
      [object[X2] - width, object[Y2]], [x1, y1]]
      .map(([x, y]) => [Math.max(0, Math.min(x, picture.width - width)),
        Math.max(0, Math.min(y, picture.height - height))]);
    const hidden = places.map((place) => taken.filter(([x, y, w]) => place[0] < x + w &&
      x < place[0] + width && place[1] < y + height && y < place[1] + height).length);
    const least = Math.min(...hidden);
    if (least > 0 && leaveOut && !faulty(object)) continue;
    const [x, y] = places[hidden.indexOf(least)];
    taken.push([x, y, width]);
    const [back, ink] = faulty(object) ? ["#fff", "#a00000"]
      : [DATA.colours[object[LABEL]], DATA.inks[object[LABEL]]];
    parts.push(`<g class="tag" aria-hidden="true"><rect x="${x}" y="${y}" width="${width}" ` +
      `height="${height}" fill="${back}"/><text x="${x + 4 * unit}" ` +
      `y="${y + (letters + 0.5) * unit}" font-size="${letters * unit}" fill="${ink}">` +
      `${escaped(text)}</text></g>`);
  }
  return parts.reverse();
}

function faulty(object) {
  return (object[FAULTS] || []).length > 0;
}
