// Anchors: those of a cell, and what the annotation makes of all of them.

// What the other sections ask of anchors, too.
function anchorGrid(data) {
  const levels = data.levels;
  function box(level, y, x, shape) {
    const { step, shapes } = levels[level];
    const [x1, y1, x2, y2] = shapes[shape];
    return [x1 + x * step[1], y1 + y * step[0], x2 + x * step[1], y2 + y * step[0]];
  }
  function placeOf(row) { // level, row, column, shape
    let level = levels.length - 1;
    while (levels[level].first > row) level--;
    const { first, width, shapes } = levels[level];
    const cell = Math.floor((row - first) / shapes.length);
    return [level, Math.floor(cell / width), cell % width, (row - first) % shapes.length];
  }
  return {
    levels, box, placeOf,
    row: (level, y, x, shape) =>
      levels[level].first + (y * levels[level].width + x) * levels[level].shapes.length + shape,
    boxOf: (row) => box(...placeOf(row)),
    cellBox(level, y, x) {
      const [high, wide] = levels[level].step;
      return [x * wide, y * high, (x + 1) * wide, (y + 1) * high];
    },
  };
}

function buildAnchors(view, data) {
  const grid = anchorGrid(data);
  const scores = unpack(data.scores);
  const labels = data.labels && unpack(data.labels);
  const known = data.kind !== undefined; // what the annotation makes of them
  const [iou, object, kind, sampled] = known
    ? [data.iou, data.object, data.kind, data.sampled].map(unpack) : [];
  const claimed = data.foreground > 1; // no IoU is enough: an object has the anchor that it claims
  let mode = "cell";
  const start = firstCell();

  const [left, right] = columns(view);
  const scene = new Scene(left, "The picture with anchors. Click a cell; arrow keys move on.", draw, {
    click: (x, y) => {
      const { step, height, width } = grid.levels[state.level];
      choose(Math.min(Math.floor(y / step[0]), height - 1), Math.min(Math.floor(x / step[1]), width - 1));
    },
    key: (dx, dy) => choose(state.cell[0] + dy, state.cell[1] + dx),
  });
  radios(left, "Show", [
    ["cell", "of the cell"], ["levels", "of this place, all levels"],
    ...(known ? [["positive", "positive"], ["ignored", "ignored"],
      ["sampled", data.sampler ? "sampled" : "that count"]] : []),
  ], mode, (value) => { mode = value; show(); });
  const levels = radios(right, "Level", grid.levels.map((level, i) => [i, level.name]), start.level,
    (level) => set("level", level));
  const said = el("div");
  right.append(said);
  if (known) {
    view.append(countTable());
  } else {
    view.append(el("p", { className: "reason", textContent: data.missing
      ? `Which anchors learning would use is not told: ${data.missing}.`
      : "Give an annotation (--target) to see which anchors are positive, ignored and sampled." }));
  }
  on("level", (level) => { levels.select(level); follow(level); show(); });
  on("cell", show);
  let before = (state.level = start.level);
  set("cell", start.cell);

  function firstCell() {
    // The cell of the anchor that overlaps an object most, or the middle of a middle level.
    let best = -1;
    if (known) for (let i = 0; i < iou.length; i++) if (kind[i] && (best < 0 || iou[i] > iou[best])) best = i;
    if (best < 0) {
      const level = Math.min(2, grid.levels.length - 1);
      return { level, cell: [grid.levels[level].height >> 1, grid.levels[level].width >> 1] };
    }
    const [level, ...cell] = grid.placeOf(best);
    return { level, cell: cell.slice(0, 2) };
  }

  function choose(y, x) {
    const { height, width } = grid.levels[state.level];
    set("cell", [Math.max(0, Math.min(y, height - 1)), Math.max(0, Math.min(x, width - 1))]);
  }

  function samePlace(level, from) { // the level's cell in which the chosen cell's middle lies
    const { step, height, width } = grid.levels[level];
    const at = state.cell.map((i, axis) =>
      Math.floor(((i + 0.5) * grid.levels[from].step[axis]) / step[axis]));
    return [Math.min(at[0], height - 1), Math.min(at[1], width - 1)];
  }

  function follow(level) {
    state.cell = samePlace(level, before);
    before = level;
  }

  // What is told and drawn: [level, row, column] of one cell, or of one at every level.
  function places() {
    if (mode !== "levels") return [[state.level, ...state.cell]];
    return grid.levels.map((_, level) => [level, ...samePlace(level, state.level)]);
  }

  function show() {
    if (!state.cell) return;
    const all = mode === "levels";
    const heads = ["", ...(all ? ["level"] : []), "shape", labels ? "best class" : "objectness"];
    if (labels) heads.push("");
    if (known) heads.push("IoU", "object", "counts as", data.sampler ? "sampled" : "in the loss");
    const rows = places().flatMap(([level, y, x]) => grid.levels[level].shapes.map((_, shape) => {
      const row = grid.row(level, y, x, shape);
      const cells = [dot(SHAPES[shape % SHAPES.length]), ...(all ? [grid.levels[level].name] : []),
        size(grid.box(level, y, x, shape)), share(scores[row])];
      if (labels) cells.push(data.classes[labels[row]]);
      if (known) {
        const near = object[row] >= 0 && iou[row] > 0;
        cells.push(share(iou[row]), near ? `${DATA.objects[object[row]].label}\u00a0#${object[row]}` : "–",
          data.kinds[kind[row]], sampled[row] ? "yes" : "–");
      }
      return cells;
    }));
    const [y, x] = state.cell;
    const cell = `Level ${grid.levels[state.level].name}, row ${y}, column ${x}`;
    replace(said, table(all ? `${cell}, and the cells there of all levels` : cell, heads, rows));
    scene.redraw();
  }

  function draw(context, unit) {
    const ofCell = mode === "cell" || mode === "levels";
    drawPhoto(context, ofCell ? 0 : 0.35);
    drawObjects(context, unit, ofCell ? 1 : 0.8);
    const told = ofCell ? drawCell(context, unit) : drawAll(context, unit);
    scene.caption.textContent = told;
  }

  function drawCell(context, unit) {
    const { height, width, step } = grid.levels[state.level];
    if (step[1] / unit >= 6) {
      context.beginPath();
      for (let x = 1; x < width; x++) { context.moveTo(x * step[1], 0); context.lineTo(x * step[1], HEIGHT); }
      for (let y = 1; y < height; y++) { context.moveTo(0, y * step[0]); context.lineTo(WIDTH, y * step[0]); }
      context.strokeStyle = "rgb(255 255 255 / .28)";
      context.lineWidth = unit;
      context.stroke();
    }
    const [y, x] = state.cell;
    const [x1, y1, x2, y2] = grid.cellBox(state.level, y, x);
    context.fillStyle = "rgb(255 255 255 / .6)";
    context.fillRect(x1, y1, x2 - x1, y2 - y1);
    for (const [level, row, column] of places()) {
      grid.levels[level].shapes.forEach((_, shape) => {
        drawBox(context, unit, grid.box(level, row, column, shape), SHAPES[shape % SHAPES.length],
          { width: level === state.level ? 2 : 1.2 });
      });
    }
    return "Green: the annotation. The cell is white, its anchors have the colours of the table"
      + (mode === "levels" ? "; those of other levels are thin." : ".");
  }

  function drawAll(context, unit) {
    const wanted = { positive: (i) => kind[i] === 1 || kind[i] === 2, ignored: (i) => kind[i] === 3,
      sampled: (i) => sampled[i] && (data.sampler || kind[i]) }[mode];
    const rows = [];
    for (let i = 0; i < kind.length; i++) if (wanted(i)) rows.push(i);
    const many = rows.length > 200;
    for (const row of rows) {
      const box = grid.boxOf(row);
      const object_like = kind[row] === 1 || kind[row] === 2;
      const colour = object_like ? (kind[row] === 2 ? COLOURS.missed : COLOURS.found)
        : kind[row] === 3 ? "#e4e8ec" : COLOURS.suppressed;
      if (many && !object_like) {
        context.fillStyle = colour;
        const r = 1.6 * unit;
        context.fillRect((box[0] + box[2]) / 2 - r, (box[1] + box[3]) / 2 - r, 2 * r, 2 * r);
        continue;
      }
      const alpha = object_like ? 0.9 : 0.4;
      drawBox(context, unit, box, colour, { width: 1.2, alpha, dash: kind[row] === 2 ? [5, 3] : [] });
    }
    const blue = claimed ? "" : `blue from an IoU of ${data.foreground}, `;
    const told = { positive: `${plural(rows.length, "positive anchor")}: ${blue}yellow and dashed where `
        + `it is forced, the ${claimed ? "one" : "best"} that its object has`,
      ignored: `${plural(rows.length, "ignored anchor")}: ${data.background > 1 ? "it lies in a crowd"
        : `the best IoU ${claimed ? `is ${data.background} or more`
          : `lies from ${data.background} to ${data.foreground}`}, or the anchor in a crowd`}`,
      sampled: data.sampler
        ? `${plural(rows.length, "anchor")} that the loss sees: blue objects, yellow where forced, `
          + "orange background"
        : "Nothing is sampled here: all but the ignored count. Shown are those with an object" }[mode];
    return `${told}.${many ? " Those without an object are drawn by their centres." : ""} Green: the annotation.`;
  }

  function countTable() {
    const heads = ["level", "anchors", "positive", "forced", "positive and forced together",
      "ignored", "background"];
    const keys = heads.slice(1);
    if (data.sampler) {
      heads.push("sampled objects", "sampled background");
      keys.push("sampled", "sampled background");
    }
    for (const of of data.counts) of["positive and forced together"] = of.positive + of.forced;
    const rows = data.counts.map((of, i) => [grid.levels[i].name, ...keys.map((key) => of[key])]);
    rows.push(["all", ...keys.map((key) => data.counts.reduce((sum, of) => sum + of[key], 0))]);
    const whole = table(claimed ? "Anchors by level: each object claims one, whatever their IoU"
      : `Anchors by level: positive from an IoU of ${data.foreground}, background below ${data.background}`,
      heads, rows);
    whole.querySelector("tbody tr:last-child").className = "all";
    return whole;
  }
}
