// Where RoIAlign samples, and which cells RoI pooling would take, on the picture and on the map.

function buildRegions(view, cuts, maps) {
  let cut = 0;
  let chosen = 0;
  const [left, right] = columns(view);
  const grid = el("div", { className: "four" });
  left.append(grid);
  const photoOf = (context) => drawPhoto(context);
  const scenes = [
    ["RoIAlign on the picture", photoOf, drawAligned],
    ["RoIAlign on the feature map", drawMap, drawAligned],
    ["RoI pooling on the picture", photoOf, drawPooled],
    ["RoI pooling on the feature map", drawMap, drawPooled],
  ].map(([label, under, over]) => new Scene(grid, label, (context, unit) => {
    under(context);
    over(context, unit);
  }, { caption: label }));
  const crops = cuts.map((one) => [one.aligned_crops, one.pooled_crops].map(unpack));
  const tiles = [["roi_align", "RoIAlign"], ["roi_pool", "RoI pooling"]].map(([key, name], kind) => {
    const tile = new Scene(grid, `The region's features by ${name}`, (context) => {
      const bins = cuts[cut].size;
      const caption = `what ${name} ${cuts[cut].kind === key ? "gave" : "would give"}`;
      context.imageSmoothingEnabled = false;
      context.drawImage(crop(crops[cut][kind], bins), 0, 0, 1, 1);
      tile.caption.textContent = `${caption}, ${bins} × ${bins} bins, in the map's colours`;
    }, { view: [0, 0, 1, 1] });
    tile.canvas.classList.add("small");
    return tile;
  });
  if (cuts.length > 1) {
    radios(right, "Cut for", cuts.map((one, i) => [i, `${one.size} × ${one.size} bins`]), 0, (i) => {
      const row = cuts[cut].regions[chosen]?.row;
      const of = cuts[cut].detections.indexOf(row);
      cut = i;
      chosen = Math.max(0, cuts[cut].regions.findIndex((r) => r.row === cuts[cut].detections[of]));
      list();
      show();
    });
  }
  const place = el("div");
  const said = el("div");
  right.append(place, said);
  legend(left, [[COLOURS.found, "bins of RoIAlign, points where it samples"],
    [COLOURS.suppressed, "cells of RoI pooling's bins"], [COLOURS.chosen, "the region", "dashed"]]);
  let choices;
  function list() {
    replace(place);
    choices = radios(place, "Region", cuts[cut].regions.map((r, i) =>
      [i, r.title, `${cuts[cut].levels[r.level]}, ${size(r.box)}`]), chosen, (i) => {
      chosen = i;
      const of = cuts[cut].detections.indexOf(cuts[cut].regions[i].row);
      if (of >= 0) set("detection", of);
      show();
    }, true);
  }
  on("detection", (detection) => {
    const row = cuts[cut].detections[detection];
    if (cuts[cut].regions[chosen]?.row === row) return;
    chosen = Math.max(0, cuts[cut].regions.findIndex((r) => r.row === row));
    choices.select(chosen);
    show();
  });
  list();
  show();

  function show() {
    const region = cuts[cut].regions[chosen];
    if (!region) {
      for (const scene of [...tiles, ...scenes]) scene.redraw();
      replace(said, el("p", { className: "note", textContent: "No region was cut out for this." }));
      return;
    }
    const { cell, box, top, bottom, left: lefts, right: rights } = region;
    const outer = [Math.min(box[0], lefts[0] * cell), Math.min(box[1], top[0] * cell),
      Math.max(box[2], rights.at(-1) * cell), Math.max(box[3], bottom.at(-1) * cell)];
    const side = 1.18 * Math.max(outer[2] - outer[0], outer[3] - outer[1]) + cell;
    const [x, y] = [(outer[0] + outer[2]) / 2, (outer[1] + outer[3]) / 2];
    for (const tile of tiles) tile.redraw();
    for (const scene of scenes) scene.look([x - side / 2, y - side / 2, x + side / 2, y + side / 2]);
    const one = cuts[cut];
    const samples = region.y.length / one.size;
    replace(said, el("p", { className: "note", textContent:
      `The region goes to level ${one.levels[region.level]}, whose cells are ${cell} pixels wide. `
      + `RoIAlign cuts ${one.size} × ${one.size} bins and samples each at ${samples} × `
      + `${region.x.length / one.size} points`
      + `${one.aligned ? "" : ", half a cell too far right and down, this model's convention"}. `
      + `RoI pooling's bins lie ${region.off[0]} pixels from these on average, ${region.off[1]} at `
      + `most.${one.kind === "roi_pool" ? " This model uses RoI pooling." : ""}` }));
  }

  function crop(values, bins) { // (regions, 3, bins, bins) bytes
    const canvas = el("canvas", { width: bins, height: bins });
    const pixels = new ImageData(bins, bins);
    const cells = bins * bins;
    for (let i = 0; i < cells; i++) {
      for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = values[(3 * chosen + c) * cells + i];
      pixels.data[4 * i + 3] = 255;
    }
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    return canvas;
  }

  function drawMap(context) {
    const region = cuts[cut].regions[chosen];
    if (!region) return;
    const map = DATA.features.findIndex((f) => f.group === cuts[cut].group
      && f.name === cuts[cut].levels[region.level]);
    const [, high, wide] = DATA.features[map].shape;
    context.imageSmoothingEnabled = false;
    context.drawImage(maps[map], 0, 0, wide * region.cell, high * region.cell);
    context.imageSmoothingEnabled = true;
  }

  function drawAligned(context, unit) {
    const region = cuts[cut].regions[chosen];
    if (!region) return;
    const { size: bins } = cuts[cut];
    const edges = (at) => { // the bins' borders lie half a distance of samples beyond the outermost
      const per = at.length / bins;
      const step = (at.at(-1) - at[0]) / (at.length - 1) || 0;
      return Array.from({ length: bins + 1 }, (_, i) => (at[0] + 0.5 + step * (i * per - 0.5)) * region.cell);
    };
    const [ys, xs] = [edges(region.y), edges(region.x)];
    drawLines(context, unit, ys, xs, COLOURS.found);
    context.fillStyle = "#ffffff";
    context.strokeStyle = "rgb(0 0 0 / .7)";
    context.lineWidth = unit / 2;
    const apart = (at) => Math.abs(at[1] - at[0]) * region.cell;
    const radius = Math.min(2.2 * unit, 0.22 * Math.min(apart(region.y), apart(region.x)));
    for (const y of region.y) {
      for (const x of region.x) {
        context.beginPath();
        context.arc((x + 0.5) * region.cell, (y + 0.5) * region.cell, radius, 0, 7);
        context.stroke();
        context.fill();
      }
    }
    drawBox(context, unit, region.box, COLOURS.chosen, { width: 1.5, dash: [5, 4] });
  }

  function drawPooled(context, unit) {
    const region = cuts[cut].regions[chosen];
    if (!region) return;
    const { cell } = region;
    for (let i = 0; i < region.top.length; i++) {
      for (let j = 0; j < region.left.length; j++) {
        const [x1, y1, x2, y2] = [region.left[j], region.top[i], region.right[j], region.bottom[i]]
          .map((v) => v * cell);
        if ((i + j) % 2) continue;
        context.fillStyle = "rgb(255 122 92 / .3)";
        context.fillRect(x1, y1, x2 - x1, y2 - y1);
      }
    }
    const borders = (low, high) => [...new Set([...low, ...high])].map((v) => v * cell)
      .sort((a, b) => a - b);
    drawLines(context, unit, borders(region.top, region.bottom), borders(region.left, region.right),
      COLOURS.suppressed);
    drawBox(context, unit, region.box, COLOURS.chosen, { width: 1.5, dash: [5, 4] });
  }

  function drawLines(context, unit, ys, xs, colour) {
    for (const [width, stroke] of [[3, "rgb(0 0 0 / .45)"], [1.4, colour]]) {
      context.beginPath();
      for (const y of ys) { context.moveTo(xs[0], y); context.lineTo(xs.at(-1), y); }
      for (const x of xs) { context.moveTo(x, ys[0]); context.lineTo(x, ys.at(-1)); }
      context.strokeStyle = stroke;
      context.lineWidth = width * unit;
      context.stroke();
    }
  }
}
