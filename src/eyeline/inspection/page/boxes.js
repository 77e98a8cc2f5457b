// Final boxes and where they come from, objects and what became of them; masks; attention.

function detectionRows() {
  return DATA.boxes.detections.map((d, i) => [i, `#${i} ${d.label}`, share(d.score)]);
}

function buildBoxes(view, data) {
  const top = data.detections.length ? data.detections[0].score : 0;
  let from = Math.min(0.3, top);
  let object = null; // chosen object; null: a detection is
  const [left, right] = columns(view);
  const scene = new Scene(left, "The picture with its final boxes. Click a box; arrow keys step on.",
    draw, { click: clicked, key: (dx, dy) => step(dx + dy) });
  slider(left, "Boxes from a score of", 0, 1, from, (v) => v.toFixed(2), (v) => {
    from = v;
    scene.redraw();
  });
  const nms = aboutNms(data.limits);
  const marks = [[COLOURS.found, "detection"], ["#c79bff", "its anchor", "dotted"],
    [COLOURS.chosen, "its boxes in between", "dashed"]];
  if (!nms.soft) marks.splice(1, 0, [COLOURS.suppressed, "suppressed by it", "dashed"]);
  if (data.fates.length) {
    marks.push([COLOURS.object, "object, found"], [COLOURS.missed, "object, missed", "dotted"]);
  }
  legend(left, marks);
  let detections = null, objects = null;
  if (data.detections.length) {
    detections = radios(right, `${plural(data.detections.length, "detection")}`, detectionRows(),
      state.detection, chooseDetection, true);
  } else {
    right.append(el("p", { className: "reason", textContent: "Nothing was found in this picture." }));
  }
  if (data.missing) {
    view.append(el("p", { className: "reason", textContent: `Boxes alone: ${data.missing}.` }));
  }
  if (data.fates.length) {
    const missed = data.fates.filter((f) => f.detection === null).length;
    objects = radios(right, `${plural(data.fates.length, "object")}, ${missed} missed`,
      data.fates.map((f, i) => [i, `#${f.object} ${f.label}`, f.detection === null ? f.rule
        : `found by #${f.detection}`, f.detection === null ? COLOURS.missed : COLOURS.object]),
      null, (i) => set("object", i), true);
  }
  const said = el("div", { className: "story", "aria-live": "polite" });
  view.append(said);
  on("detection", (i) => {
    if (object !== null) return;
    detections?.select(i);
    show();
  });
  on("object", (i) => {
    object = i;
    (i === null ? objects : detections)?.clear();
    (i === null ? detections : objects)?.select(i === null ? state.detection : i);
    show();
  });
  show();

  function chooseDetection(i) {
    set("object", null);
    set("detection", i);
  }

  function step(by) {
    if (object !== null) {
      set("object", Math.max(0, Math.min(object + by, data.fates.length - 1)));
    } else if (data.detections.length) {
      set("detection", Math.max(0, Math.min((state.detection || 0) + by, data.detections.length - 1)));
    }
  }

  function clicked(x, y) { // the smallest box about the point
    const inside = ({ box: [x1, y1, x2, y2] }) => x1 <= x && x <= x2 && y1 <= y && y <= y2;
    const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
    const found = data.detections.map((d, i) => ({ box: d.box, detection: i, score: d.score }))
      .filter((d) => d.score >= from);
    const missed = data.fates.map((f, i) => ({ box: DATA.objects[f.object].box, object: i, fate: f }))
      .filter((f) => f.fate.detection === null);
    const hit = [...found, ...missed].filter(inside).sort((a, b) => area(a.box) - area(b.box))[0];
    if (!hit) return;
    if (hit.object !== undefined) set("object", hit.object);
    else chooseDetection(hit.detection);
  }

  function draw(context, unit) {
    drawPhoto(context, 0.15);
    const one = object === null ? data.detections[state.detection] : null;
    for (const fate of data.fates) {
      const missed = fate.detection === null;
      drawBox(context, unit, DATA.objects[fate.object].box, missed ? COLOURS.missed : COLOURS.object,
        { width: 1.5, dash: missed ? [2, 4] : [], alpha: one ? 0.35 : 0.8 });
    }
    data.detections.forEach((d) => {
      if (d.score >= from && d !== one) {
        const alpha = one || object !== null ? 0.45 : 1;
        drawBox(context, unit, d.box, COLOURS.found, { width: 1.5, alpha });
      }
    });
    if (one) drawDetection(context, unit, one);
    else if (object !== null) drawFate(context, unit, data.fates[object]);
  }

  function drawDetection(context, unit, one) {
    for (const other of one.suppressed) {
      drawBox(context, unit, other.box, COLOURS.suppressed, { width: 1.2, dash: [6, 4], alpha: 0.7 });
    }
    if (one.anchor) {
      drawBox(context, unit, one.anchor.box, "#c79bff", { width: 1.8, dash: [2, 3] });
      if (DATA.anchors) {
        const [x1, y1, x2, y2] = anchorGrid(DATA.anchors).cellBox(one.anchor.level, one.anchor.y,
          one.anchor.x);
        context.fillStyle = "rgb(199 155 255 / .75)";
        context.fillRect(x1, y1, x2 - x1, y2 - y1);
      }
    }
    const between = new Map(one.steps.map((step) => [step.box.join(), step.box]));
    between.delete(one.box.join());
    for (const box of between.values()) {
      drawBox(context, unit, box, COLOURS.chosen, { width: 1.8, dash: [6, 4] });
    }
    drawBox(context, unit, one.box, COLOURS.found, { width: 3 });
    drawTag(context, unit, one.box, `${one.label} ${share(one.score)}`, COLOURS.found);
    if (data.missing) return;
    scene.caption.textContent = `Detection ${state.detection}: its anchor and that anchor's cell in violet`
      + (nms.soft ? "."
        : `, ${plural(one.suppressed.length, "suppressed box", "suppressed boxes")} in orange.`);
  }

  function drawFate(context, unit, fate) {
    if (fate.by) {
      drawBox(context, unit, fate.by.box, COLOURS.suppressed, { width: 2.5 });
    }
    if (fate.candidate) {
      drawBox(context, unit, fate.candidate.box, COLOURS.chosen, { width: 2.5, dash: [6, 4] });
    }
    const missed = fate.detection === null;
    if (!missed) drawBox(context, unit, data.detections[fate.detection].box, COLOURS.found, { width: 3 });
    const box = DATA.objects[fate.object].box;
    const colour = missed ? COLOURS.missed : COLOURS.object;
    drawBox(context, unit, box, colour, { width: 2.5, dash: missed ? [2, 4] : [] });
    drawTag(context, unit, box, `${fate.label} #${fate.object}`, colour);
    const white = { never: "the box nearest to it", taken: "a detection that lies there" }[fate.key]
      || "the last candidate that was good for it";
    scene.caption.textContent = missed ? `Yellow: the object. White: ${white}.`
      + `${fate.by ? " Orange: the box that suppressed it." : ""}`
      : "Green: the object. Blue: the detection that found it.";
  }

  function show() {
    scene.redraw();
    if (object !== null) return tellObject(data.fates[object]);
    const one = data.detections[state.detection];
    if (!one || data.missing) return;
    const { anchor } = one;
    const name = DATA.anchors && anchor ? DATA.anchors.levels[anchor.level].name : null;
    const rows = one.steps.map((s) => [data.stages[s.stage], `${s.row.toLocaleString("en")}`, s.rows,
      size(s.box), `${s.of}\u00a0${share(s.score)}`, s.suppressed ?? ""]);
    if (anchor) {
      rows.unshift([`anchor of level ${name}, row ${anchor.y}, column ${anchor.x}, shape ${anchor.shape}`,
        `${one.steps[0].row.toLocaleString("en")}`, "", size(anchor.box), "", ""]);
    }
    const others = one.suppressed.map((o) => [o.row, `${o.label ?? ""}\u00a0${share(o.score)}`, size(o.box),
      share(o.iou)]);
    replace(said, table(`Where detection ${state.detection} comes from`, ["stage", "row", "of", "size",
      "score", "suppressed"], rows), others.length
      ? table(`What it suppressed: boxes ${nms.whose} that overlap it by more than ${data.limits.nms}`,
        ["row", "class and score", "size", "IoU"], others)
      : nms.soft ? null : el("p", { className: "note", textContent: "It suppressed no other box." }),
    ...nms.notes.map((note) => el("p", { className: "note", textContent: note })));
  }

  function tellObject(fate) {
    if (fate.detection !== null) {
      replace(said, el("h3", { textContent: `${fate.label} #${fate.object} was found` }),
        el("p", { textContent: fate.story }));
      return;
    }
    const died = !["never", "taken"].includes(fate.key);
    const where = died ? `It died on the way into “${data.stages[fate.stage]}”. ` : "";
    const what = { never: "the nearest", taken: "lies there" }[fate.key] || "last good candidate";
    const rows = [[what, data.stages[fate.candidate.stage],
      fate.candidate.row.toLocaleString("en"), size(fate.candidate.box), share(fate.candidate.score)]];
    if (fate.by) rows.push(["suppressed it", data.stages[fate.candidate.stage],
      fate.by.row.toLocaleString("en"), size(fate.by.box),
      share(fate.by.score)]);
    replace(said, el("h3", { textContent: `${fate.label} #${fate.object} was missed: ${fate.rule}` }),
      el("p", { textContent: where + fate.story }),
      table("The boxes", ["", "in the stage", "row", "size", "score"], rows));
  }
}

function buildMasks(view, data, pasted) {
  const values = unpack(data.values);
  const { side } = data;
  const [left, right] = columns(view);
  const pair = el("div", { className: "pair-of-scenes" });
  left.append(pair);
  const masked = Math.min(data.masks.length, DATA.boxes.detections.length);
  let chosen = Math.min(state.detection || 0, masked - 1);
  const cells = new Scene(pair, "The mask's probabilities", (context) => {
    const part = values.subarray(chosen * side * side, (chosen + 1) * side * side);
    context.imageSmoothingEnabled = false;
    context.drawImage(heatMap(Float32Array.from(part, (v) => v / 255), side, side), 0, 0);
  }, { view: [0, 0, side, side], caption: `probabilities, ${side} × ${side}: dark 0, light 1` });
  const whole = new Scene(pair, "The mask pasted into the picture", (context, unit) => {
    drawPhoto(context, 0.35);
    const mask = data.masks[chosen];
    const [x1, y1, x2, y2] = mask.box.map((v, i) => v * (i % 2 ? HEIGHT : WIDTH));
    if (pasted[chosen]) {
      context.globalAlpha = 0.62;
      context.imageSmoothingEnabled = false;
      context.drawImage(tinted(pasted[chosen]), x1, y1, x2 - x1, y2 - y1);
      context.globalAlpha = 1;
    }
    const one = DATA.boxes.detections[chosen];
    drawBox(context, unit, one.box, COLOURS.found);
    drawTag(context, unit, one.box, `${one.label} ${share(one.score)}`, COLOURS.found);
    whole.caption.textContent = mask.pasted
      ? `pasted: ${plural(mask.pixels, "pixel")} of the picture from a probability of ${data.threshold}`
      : `pasted: no pixel reaches a probability of ${data.threshold}`;
  });
  const list = radios(right, "Detection", detectionRows().slice(0, masked), chosen, (i) => {
    set("detection", i);
    show(i);
  }, true);
  on("detection", (i) => { if (i < masked) { list.select(i); show(i); } });
  function show(i) {
    chosen = i;
    cells.redraw();
    whole.redraw();
  }
  function tinted(image) {
    const canvas = el("canvas", { width: image.width, height: image.height });
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    context.globalCompositeOperation = "source-in";
    context.fillStyle = COLOURS.found;
    context.fillRect(0, 0, image.width, image.height);
    return canvas;
  }
}
