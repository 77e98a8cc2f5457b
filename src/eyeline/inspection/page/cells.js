// YOLO: the cell that answers for an object, its priors, and how what it says becomes a box.

const PRIORS = ["#5cbcff", "#ff9a55", "#c79bff", "#ffe14a", "#ff7d72"]; // no green: objects are

function buildCells(view, data) {
  const grid = anchorGrid(DATA.anchors);
  const { levels } = grid;
  const [scores, labels, moves, raw] =
    [DATA.anchors.scores, DATA.anchors.labels, data.moves, data.objectness].map(unpack);
  const parts = data.kind === "parts"; // no priors: boxes as they are said
  const [one, sureness] = parts ? ["box", "confidence"] : ["prior", "objectness"];
  const whole = sureness[0].toUpperCase() + sureness.slice(1);
  const minus = (value, digits = 3) => value.toFixed(digits).replace("-", "−");
  const sigmoid = (t) => 1 / (1 + Math.exp(-t));
  const sure = (row) => (parts ? raw[row] : sigmoid(raw[row]));
  const cellsOf = (level) => `${levels[level].width} × ${levels[level].height}`;
  const iou = (a, b) => {
    const both = Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0]))
      * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
    const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
    return both / (area(a) + area(b) - both) || 0;
  };
  const centred = ([x1, y1, x2, y2]) => [(x1 - x2) / 2, (y1 - y2) / 2, (x2 - x1) / 2, (y2 - y1) / 2];
  let chosen; // { row, point, object, detection }: what is followed, and where its centre lies

  const [left, right] = columns(view);
  const scene = new Scene(left, "The picture with its grid. Click a cell; arrow keys move on.", draw, {
    click: (x, y) => chooseAt(place()[0], [x, y]),
    key: (dx, dy) => {
      const [level, y, x] = place();
      chooseCell(level, y + dy, x + dx);
    },
  });
  legend(left, [[COLOURS.chosen, `the box that ${parts ? "is chosen" : "the prior says"}`],
    ["#9aa4b0", `${one}${parts ? "es" : "s"} of the cell, in the colours of the table`],
    ...(DATA.objects.length ? [[COLOURS.object, "the annotation"]] : [])]);
  left.append(el("h4", { textContent: `${whole}: the surest ${one} of each cell` }));
  const tiles = el("div", { className: "tiles" });
  left.append(tiles);
  const maps = levels.map((level, i) => {
    const values = Float32Array.from({ length: level.height * level.width }, (_, cell) =>
      Math.max(...level.shapes.map((_, s) => sure(level.first + cell * level.shapes.length + s))));
    const heat = heatMap(values, level.width, level.height, true);
    const best = values.reduce((most, value) => Math.max(most, value), 0);
    return new Scene(tiles, `${whole} of ${cellsOf(i)} cells`, (context, unit) => {
      drawPhoto(context, 0.5);
      context.imageSmoothingEnabled = false;
      context.drawImage(heat, 0, 0, level.width * level.step[1], level.height * level.step[0]);
      context.imageSmoothingEnabled = true;
      const [y, x] = cellAt(i, chosen.point);
      drawBox(context, unit, grid.cellBox(i, y, x), COLOURS.chosen, { width: 1.5 });
    }, { click: (x, y) => chooseAt(i, [x, y]),
      caption: `${cellsOf(i)} cells of ${level.step[1].toFixed(0)} pixels, ${share(best)} at most` });
  });
  const rowNote = (row) => {
    const [level, , , shape] = grid.placeOf(row);
    return parts ? `box ${shape + 1}` : `${cellsOf(level)}, ${size(levels[level].shapes[shape])}`;
  };
  const objects = !data.objects.length ? null : radios(right, plural(data.objects.length, "object"),
    data.objects.map((o, i) => [i, `#${o.object} ${DATA.objects[o.object].label}`,
      o.by === null ? rowNote(o.row) : `taken by #${o.by}`,
      o.by === null ? COLOURS.object : COLOURS.missed]), null, chooseObject, true);
  const detections = !data.detections.length ? null : radios(right,
    plural(data.detections.length, "detection"), data.detections.map((row, i) => {
      const { label, score } = DATA.boxes.detections[i];
      return [i, `#${i} ${label} ${share(score)}`, rowNote(row)];
    }), null, chooseDetection, true);
  const scales = levels.length < 2 ? null : radios(right, "Scale", levels.map((_, i) => [i, cellsOf(i)]),
    null, (level) => chooseAt(level, chosen.point));
  const said = el("div", { className: "story", "aria-live": "polite" });
  view.append(said);
  on("detection", (i) => chosen.detection !== i && data.detections.length && chooseDetection(i));
  begin();

  function begin() { // with what the network is surest about
    const surest = (rows) => rows.reduce((best, row, i) => (sure(row) > sure(rows[best]) ? i : best), 0);
    if (data.objects.length) chooseObject(surest(data.objects.map((o) => o.row)));
    else if (data.detections.length) chooseDetection(0);
    else chooseCell(0, levels[0].height >> 1, levels[0].width >> 1);
  }

  function place() {
    return grid.placeOf(chosen.row);
  }

  function cellAt(level, [x, y]) {
    const { step, height, width } = levels[level];
    const within = (value, count) => Math.max(0, Math.min(Math.floor(value), count - 1));
    return [within(y / step[0], height), within(x / step[1], width)];
  }

  function chooseObject(i) {
    const { row, object } = data.objects[i];
    const [x1, y1, x2, y2] = DATA.objects[object].box;
    choose({ row, point: [(x1 + x2) / 2, (y1 + y2) / 2], object: i });
  }

  function chooseDetection(i) {
    const [, y, x] = grid.placeOf(data.detections[i]);
    const [level] = grid.placeOf(data.detections[i]);
    const { step } = levels[level];
    choose({ row: data.detections[i], point: [(x + 0.5) * step[1], (y + 0.5) * step[0]], detection: i });
    set("object", null);
    set("detection", i);
  }

  function chooseAt(level, point) {
    chooseCell(level, ...cellAt(level, point));
  }

  function chooseCell(level, row, column) { // its surest prior
    const { step, height, width, shapes } = levels[level];
    const [y, x] = [Math.max(0, Math.min(row, height - 1)), Math.max(0, Math.min(column, width - 1))];
    const rows = shapes.map((_, shape) => grid.row(level, y, x, shape));
    choose({ row: rows.reduce((best, r) => (sure(r) > sure(best) ? r : best)),
      point: [(x + 0.5) * step[1], (y + 0.5) * step[0]] });
  }

  function choose(what) {
    chosen = what;
    for (const [list, i] of [[objects, what.object], [detections, what.detection]]) {
      if (i === undefined) list?.clear();
      else list?.select(i);
    }
    scales?.select(place()[0]);
    scene.redraw();
    for (const map of maps) map.redraw();
    const object = what.object === undefined ? null : DATA.objects[data.objects[what.object].object];
    replace(said, el("p", { className: "note", textContent: told(object) }), priorTable(object),
      boxTable(object));
  }

  // What a row says, number by number: [name, said, what that means, pixels], and its box.
  function decoded(row) {
    const [level, y, x, shape] = grid.placeOf(row);
    const { step } = levels[level];
    const prior = levels[level].shapes[shape];
    const t = moves.subarray(4 * row, 4 * row + 4);
    const round = (value) => Number(value.toFixed(2)).toString().replace("-", "−");
    const rows = ["centre, x", "centre, y", "width", "height"].map((name, i) => {
      const side = prior[2 + (i % 2)] - prior[i % 2];
      const [cell, pixels] = [[x, y][i], step[1 - (i % 2)]];
      if (i > 1 && parts) {
        const across = data.canvas[3 - i];
        return [name, t[i], `(${round(t[i])})² · ${across}`, t[i] ** 2 * across];
      }
      if (i > 1) {
        const power = Math.min(t[i], data.most);
        const how = el("span", {}, `${round(side)} · e`, el("sup", { textContent: round(power) }));
        return [name, t[i], how, side * Math.exp(power)];
      }
      if (data.kind === "anchor") {
        return [name, t[i], `${cell + 0.5} · ${round(pixels)} + ${round(t[i])} · ${round(side)}`,
          (cell + 0.5) * pixels + t[i] * side];
      }
      if (data.kind === "logistic") {
        return [name, t[i], `(${cell} + σ(${round(t[i])})) · ${round(pixels)}`,
          (cell + sigmoid(t[i])) * pixels];
      }
      return [name, t[i], `(${cell} + ${round(t[i])}) · ${round(pixels)}`, (cell + t[i]) * pixels];
    });
    const [cx, cy, w, h] = rows.map((cells) => cells[3]);
    return { rows, box: [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2] };
  }

  function fit(row, object) { // by which the prior of an object is chosen
    if (parts) return iou(decoded(row).box, object.box);
    const [level, y, x, shape] = grid.placeOf(row);
    return iou(centred(grid.box(level, y, x, shape)), centred(object.box));
  }

  function told(object) {
    const [level, y, x, shape] = place();
    const cell = `row ${y}, column ${x} of the ${cellsOf(level)} cells`;
    const which = parts ? `box ${shape + 1}` : `the prior of ${size(levels[level].shapes[shape])}`;
    const { box } = decoded(chosen.row);
    if (!object) {
      return chosen.detection === undefined ? `In ${cell}, ${which} is the surest that an object is there.`
        : `Detection #${chosen.detection} is said in ${cell}, by ${which}.`;
    }
    const { by, object: number } = data.objects[chosen.object];
    const among = parts ? `${levels[level].shapes.length} boxes that its cell says ${which}`
      : `${plural(levels.reduce((sum, { shapes }) => sum + shapes.length, 0), "prior")} that of `
        + size(levels[level].shapes[shape]);
    return `Object #${number}, ${object.label}, is ${size(object.box)} pixels large, and its centre lies `
      + `in ${cell}. `
      + (parts && by !== null ? "" : `Of the ${among} ${parts ? "overlaps it most" : "is most like it in shape"} `
        + `(IoU ${fit(chosen.row, object).toFixed(2)}), and ${by === null ? "answers" : "should answer"} for it. `)
      + (by === null ? "" : `Object #${by} lies there too and has it: of this one nothing is learnt. `)
      + (parts && by === null ? ""
        : `The box that is said overlaps the object by ${iou(box, object.box).toFixed(2)}.`);
  }

  function priorTable(object) {
    const heads = ["", "cells", parts ? "says" : "prior", ...(object ? [parts ? "IoU" : "IoU of shapes"] : []),
      sureness, "best class", "score"];
    const rows = levels.flatMap((level, i) => {
      const cell = cellAt(i, chosen.point);
      return level.shapes.map((_, shape) => {
        const row = grid.row(i, ...cell, shape);
        const strong = (text) => (row === chosen.row ? el("strong", { textContent: text }) : text);
        return [i === place()[0] ? dot(PRIORS[shape % PRIORS.length]) : "", cellsOf(i),
          strong(size(parts ? decoded(row).box : level.shapes[shape])),
          ...(object ? [strong(fit(row, object).toFixed(2))] : []), strong(minus(sure(row))),
          DATA.anchors.classes[labels[row]], share(scores[row])];
      });
    });
    return table(`${parts ? "The boxes" : "The priors"} of ${levels.length > 1
      ? "this place at every scale" : "the cell"}`, heads, rows);
  }

  function boxTable(object) {
    const { rows } = decoded(chosen.row);
    const [x1, y1, x2, y2] = object ? object.box : [];
    const truth = object ? [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1] : [];
    const cells = rows.map(([name, t, how, value], i) =>
      [name, minus(t), how, minus(value, 1), ...(object ? [truth[i].toFixed(1)] : [])]);
    const t = minus(raw[chosen.row]);
    const score = scores[chosen.row];
    const more = object ? [""] : [];
    cells.push([sureness, t, parts ? "" : `σ(${t})`, minus(sure(chosen.row)), ...more]);
    const whose = DATA.anchors.classes[labels[chosen.row]];
    const of = Math.min(Math.max(sure(chosen.row), 1e-6), 1);
    cells.push([`score, ${whose}`, "", `${of.toFixed(3)} · ${(score / of).toFixed(3)}`, score.toFixed(3), ...more]);
    return table("From what it says to a box", ["", "said", "which means", "",
      ...(object ? ["the object"] : [])], cells);
  }

  function draw(context, unit) {
    const [level, y, x, shape] = place();
    const { height, width, step, shapes } = levels[level];
    drawPhoto(context, 0.15);
    if (step[1] / unit >= 5) {
      context.beginPath();
      for (let i = 1; i < width; i++) { context.moveTo(i * step[1], 0); context.lineTo(i * step[1], HEIGHT); }
      for (let i = 1; i < height; i++) { context.moveTo(0, i * step[0]); context.lineTo(WIDTH, i * step[0]); }
      context.strokeStyle = "rgb(255 255 255 / .3)";
      context.lineWidth = unit;
      context.stroke();
    }
    const object = chosen.object === undefined ? null : data.objects[chosen.object].object;
    DATA.objects.forEach((other, i) => drawBox(context, unit, other.box, COLOURS.object,
      { width: i === object ? 2.5 : 1.2, alpha: i === object ? 1 : 0.45, dash: other.crowd ? [2, 4] : [] }));
    const [x1, y1, x2, y2] = grid.cellBox(level, y, x);
    context.fillStyle = "rgb(255 255 255 / .6)";
    context.fillRect(x1, y1, x2 - x1, y2 - y1);
    shapes.forEach((_, s) => {
      const box = parts ? decoded(grid.row(level, y, x, s)).box : grid.box(level, y, x, s);
      drawBox(context, unit, box, PRIORS[s % PRIORS.length], { width: s === shape ? 2.4 : 1.4 });
    });
    const { box } = decoded(chosen.row);
    drawBox(context, unit, box, COLOURS.chosen, { width: 3 });
    if (object !== null) {
      context.fillStyle = COLOURS.object;
      context.beginPath();
      context.arc(...chosen.point, 3.5 * unit, 0, 7);
      context.fill();
    }
    scene.caption.textContent = `Row ${y}, column ${x} of ${cellsOf(level)} cells`
      + (parts ? "" : `, the prior of ${size(shapes[shape])}`)
      + `: a box of ${size(box)} pixels, ${sureness} ${share(sure(chosen.row))}.`;
  }
}
