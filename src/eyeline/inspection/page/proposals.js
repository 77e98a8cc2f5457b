// Scores of the levels' cells, boxes before and after NMS, recall over their number.

function buildProposals(view, data) {
  if (DATA.anchors) scoreMaps(view);
  const most = Math.max(data.before.count, data.after.count, 1);
  const count = (position) => Math.max(1, Math.round(most ** (position / 100)));
  const middle = Math.log(Math.min(60, most)) / Math.log(Math.max(most, 2));
  let position = Math.round(100 * middle);

  view.append(el("h3", { textContent: "Before and after NMS" }));
  slider(view, "The best", 0, 100, position, (at) => count(at).toLocaleString("en"), (at) => {
    position = at;
    show();
  });
  const pair = el("div", { className: "pair-of-scenes" });
  view.append(pair);
  const boxes = { before: unpack(data.before.boxes), after: unpack(data.after.boxes) };
  const allScores = { before: unpack(data.before.scores), after: unpack(data.after.scores) };
  const boxOf = (side, r) => boxes[side].subarray(4 * r, 4 * r + 4);
  const nms = aboutNms(data.limits);
  const [from, by, overlap] = data.by && !nms.soft
    ? [data.from, data.by, data.overlap].map(unpack) : [];
  let chosen = null; // place of a box among those after
  const suppressed = () => (chosen === null ? []
    : [...by.keys()].filter((r) => by[r] === from[chosen]).sort((a, b) => overlap[b] - overlap[a]));
  const choice = by && data.after.count ? {
    click: (x, y) => { // the smallest box about the point
      const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
      const drawn = Array.from({ length: Math.min(count(position), data.after.count) }, (_, r) => r);
      const about = drawn.filter((r) => {
        const [x1, y1, x2, y2] = boxOf("after", r);
        return x1 <= x && x <= x2 && y1 <= y && y <= y2;
      }).sort((a, b) => area(boxOf("after", a)) - area(boxOf("after", b)));
      choose(about.length ? about[0] : null);
    },
    key: (dx, dy) => choose(chosen === null ? 0
      : Math.max(0, Math.min(chosen + dx + dy, data.after.count - 1))),
  } : {};
  const sides = ["before", "after"].map((side, i) => {
    const scores = allScores[side];
    const label = side === "after" && choice.click
      ? "Boxes after NMS. Click a box; arrow keys step on." : `Boxes ${side} NMS`;
    const scene = new Scene(pair, label, (context, unit) => {
      drawPhoto(context, 0.25);
      const drawn = Math.min(count(position), data[side].count);
      for (let r = drawn - 1; r >= 0; r--) {
        const alpha = (0.35 + 0.65 * scores[r]) * (chosen === null ? 1 : 0.35);
        drawBox(context, unit, boxOf(side, r), side === "after" ? COLOURS.found : COLOURS.suppressed,
          { width: 1.2, alpha });
      }
      if (chosen !== null) {
        if (side === "before") {
          for (const r of suppressed()) {
            drawBox(context, unit, boxOf("before", r), COLOURS.suppressed, { width: 1.6, dash: [6, 4] });
          }
        }
        drawBox(context, unit, boxOf("after", chosen), COLOURS.chosen, { width: 3 });
      }
      const last = drawn ? `, scores down to ${share(scores[drawn - 1])}` : "";
      scene.caption.textContent = `${side}: ${drawn.toLocaleString("en")} of `
        + `${plural(data[side].count, "box", "boxes")}${last} (${data.names[i]})`
        + (side === "after" && chosen !== null
          ? `. White: the one in place ${chosen + 1}, ${share(scores[chosen])}` : "");
    }, side === "after" ? choice : {});
    return scene;
  });
  const said = el("div");
  view.append(said);
  if (by) choose(null);
  const dropped = Object.entries({ nms: nms.dropped,
    size: "too small", limit: "beyond the limit" })
    .filter(([rule]) => data.dropped[rule] !== undefined)
    .map(([rule, text]) => `${data.dropped[rule].toLocaleString("en")} ${text}`);
  view.append(el("p", { className: "note", textContent:
    [`In between: ${dropped.join(", ")}.`, ...nms.notes].join(" ") }));
  const recall = data.objects ? recallChart(view, data, most) : null;
  if (!recall) {
    view.append(el("p", { className: "reason", textContent: data.recall
      ? "The annotation has no object in this picture, so there is no recall."
      : "Give an annotation (--target) to see the recall." }));
  }
  show();

  function choose(r) {
    chosen = r;
    const others = suppressed();
    const rows = others.map((other) => [other + 1, share(allScores.before[other]),
      size(boxOf("before", other)), share(overlap[other])]);
    replace(said, el("p", { className: "note", textContent: r === null
      ? "Click a box after NMS to see which others it suppressed."
      : `The box in place ${(r + 1).toLocaleString("en")} after NMS suppressed `
        + `${plural(others.length, "other")}${others.length ? ", orange and dashed" : ""}.` }),
      others.length ? table(`What it suppressed: boxes${data.classed ? ` ${nms.whose}` : ""} that overlap it by more than ${data.limits.nms}`,
        ["place before NMS", "score", "size", "IoU"], rows) : null);
    for (const scene of sides) scene.redraw();
  }

  function show() {
    for (const scene of sides) scene.redraw();
    if (recall) recall(count(position));
  }
}

function scoreMaps(view) {
  const { levels } = DATA.anchors;
  const scores = unpack(DATA.anchors.scores);
  const what = DATA.anchors.labels ? "class score" : "objectness";
  let chosen = 0;
  const best = levels.map(({ first, height, width, shapes }) => {
    const cells = new Float32Array(height * width);
    for (let i = 0; i < cells.length * shapes.length; i++) {
      const cell = Math.floor(i / shapes.length);
      cells[cell] = Math.max(cells[cell], scores[first + i]);
    }
    return cells;
  });
  const tops = best.map((cells) => cells.reduce((a, b) => Math.max(a, b), 0));
  chosen = tops.indexOf(Math.max(...tops));
  const [left, right] = columns(view);
  const scene = new Scene(left, `The ${what} of a level's cells`, (context) => {
    const { height, width, step } = levels[chosen];
    drawPhoto(context);
    context.save();
    context.imageSmoothingEnabled = false;
    context.globalAlpha = opacity;
    const map = heatMap(best[chosen].map((v) => v / Math.max(tops[chosen], 1e-6)), width, height);
    context.drawImage(map, 0, 0, width * step[1], height * step[0]);
    context.restore();
    scene.caption.textContent = `Level ${levels[chosen].name}: of each cell the highest ${what} of `
      + `its anchors, dark 0, light ${share(tops[chosen])}.`;
  });
  let opacity = 0.7;
  radios(right, "Level", levels.map((level, i) => [i, level.name]), chosen, (i) => {
    chosen = i;
    scene.redraw();
  });
  slider(right, "Cover", 0, 100, 70, (v) => `${v.toFixed(0)} %`, (v) => {
    opacity = v / 100;
    scene.redraw();
  });
  right.append(table(`Highest ${what}`, ["level", "cells", "highest"],
    levels.map((level, i) => [level.name, `${level.width} × ${level.height}`, share(tops[i])])));
}

// Recall over the number of boxes; returns what moves its marker.
function recallChart(view, data, most) {
  const W = 640, H = 300, L = 66, R = 24, T = 14, B = 44;
  const x = (n) => L + ((W - L - R) * Math.log(n)) / Math.log(Math.max(most, 2));
  const y = (r) => H - B - (H - T - B) * r;
  const NS = "http://www.w3.org/2000/svg";
  const part = (tag, attributes, text) => {
    const node = document.createElementNS(NS, tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const lines = [];
  for (const side of ["after", "before"]) {
    for (const [i, iou] of Object.keys(data.recall[side]).sort().entries()) {
      lines.push({ side, iou, ranks: data.recall[side][iou], colour: `var(--c${i})` });
    }
  }
  const svg = part("svg", { viewBox: `0 0 ${W} ${H}`, role: "img",
    "aria-label": "Recall over the number of boxes" });
  for (let r = 0; r <= 1; r += 0.25) {
    svg.append(part("path", { class: "grid", d: `M${L} ${y(r)}H${W - R}` }),
      part("text", { class: "end", x: L - 8, y: y(r) + 4 }, r.toFixed(2)));
  }
  for (const n of [1, 10, 100, 1000, 10000].filter((n) => n <= most)) {
    svg.append(part("path", { class: "grid", d: `M${x(n)} ${T}V${H - B}` }),
      part("text", { class: "mid", x: x(n), y: H - B + 20 }, n.toLocaleString("en")));
  }
  svg.append(part("text", { class: "mid", x: (L + W - R) / 2, y: H - 4 }, "number of best boxes"));
  for (const { side, ranks, colour } of lines) {
    let path = `M${x(1)} ${y(0)}`;
    ranks.forEach((rank, i) => { path += `H${x(rank)}V${y((i + 1) / data.objects)}`; });
    path += `H${x(Math.max(data[side].count, 1))}`;
    svg.append(part("path", { class: "curve", d: path, style: `stroke:${colour}`,
      "stroke-dasharray": side === "before" ? "6 4" : "none" }));
  }
  const marker = part("path", { class: "marker", d: "" });
  svg.append(marker);
  const said = el("ul");
  view.append(el("h3", { textContent: `Recall of the ${plural(data.objects, "object")}` }),
    el("div", { className: "chart" }, svg, said));
  return (n) => {
    marker.setAttribute("d", `M${x(n)} ${T}V${H - B}`);
    replace(said, ...lines.map(({ side, iou, ranks, colour }) => {
      const line = el("i");
      line.style.borderTop = `3px ${side === "before" ? "dashed" : "solid"} ${colour}`;
      const found = ranks.filter((rank) => rank <= n).length;
      return el("li", { className: "swatch" }, line, `${side} NMS, IoU ${iou}`, el("span", {
        textContent: `${found} of ${data.objects} by the best ${n.toLocaleString("en")}` }));
    }));
  };
}
