// Hard negatives: the anchors without an object that the loss sees, the most mistaken first.

function buildMining(view, data) {
  const [boxes, losses, iou, level, positives] =
    [data.boxes, data.losses, data.iou, data.level, data.positives].map(unpack);
  const [scores, labels] = data.labels ? [data.scores, data.labels].map(unpack) : [];
  const boxOf = (all, r) => all.subarray(4 * r, 4 * r + 4);
  const most = Math.max(data.count, 1);
  let shown = Math.min(most, 30);
  let chosen = data.count ? 0 : null;

  const [left, right] = columns(view);
  const scene = new Scene(left, "Mined negatives. Click one; arrow keys step on.", draw, {
    click: (x, y) => { // the smallest about the point
      const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
      const about = Array.from({ length: Math.min(shown, data.count) }, (_, r) => r).filter((r) => {
        const [x1, y1, x2, y2] = boxOf(boxes, r);
        return x1 <= x && x <= x2 && y1 <= y && y <= y2;
      }).sort((a, b) => area(boxOf(boxes, a)) - area(boxOf(boxes, b)));
      choose(about.length ? about[0] : null);
    },
    key: (dx, dy) => choose(!data.count ? null : chosen === null ? 0
      : Math.max(0, Math.min(chosen + dx + dy, data.count - 1))),
  });
  legend(left, [[COLOURS.found, "positives"], [COLOURS.suppressed, "negatives that were mined"]]);
  slider(right, "The hardest", 1, Math.max(most, 2), shown, (v) => Math.round(v).toLocaleString("en"),
    (v) => { shown = Math.round(v); scene.redraw(); });
  const said = el("div");
  right.append(said);
  const { positive, mined, left: passed } = data.counts;
  view.append(table("What the loss sees of each level",
    ["level", "positives", "mined negatives", "negatives left alone"],
    data.levels.map((name, i) => [name, positive[i], mined[i], passed[i]])));
  const told = [];
  if (data.easiest !== null) told.push(`The easiest that was mined has a loss of ${data.easiest.toFixed(3)}`);
  if (data.hardest_left !== null) {
    told.push(`${told.length ? "the" : "The"} hardest that was not, of ${data.hardest_left.toFixed(3)}`);
  }
  view.append(el("p", { className: "note", textContent: data.count ? `${told.join("; ")}.`
    : "Nothing was mined: there is no positive, or no negative." }));
  choose(chosen);

  function choose(r) {
    chosen = r;
    const near = r === null ? 0 : Math.max(0, Math.min(r - 5, data.count - 12));
    const rows = Array.from({ length: Math.min(12, data.count) }, (_, i) => i + near).map((i) => [
      i === chosen ? el("strong", { textContent: `${i + 1}` }) : i + 1,
      data.levels[level[i]], size(boxOf(boxes, i)),
      ...(labels ? [data.classes[labels[i]], share(scores[i])] : []), share(iou[i]),
      losses[i].toFixed(3)]);
    replace(said, rows.length ? table("The negatives about the chosen one", ["place", "level", "size",
      ...(labels ? ["taken for", "score"] : []), "IoU", "loss"], rows) : null);
    scene.redraw();
  }

  function draw(context, unit) {
    drawPhoto(context, 0.25);
    drawObjects(context, unit, 0.8);
    for (let r = 0; r < positives.length / 4; r++) {
      drawBox(context, unit, boxOf(positives, r), COLOURS.found, { width: 1.2, alpha: 0.7 });
    }
    const drawn = Math.min(shown, data.count);
    for (let r = drawn - 1; r >= 0; r--) {
      drawBox(context, unit, boxOf(boxes, r), COLOURS.suppressed, { width: 1.2, alpha: 0.7 });
    }
    if (chosen !== null) drawBox(context, unit, boxOf(boxes, chosen), COLOURS.chosen, { width: 3 });
    scene.caption.textContent = `${drawn.toLocaleString("en")} of ${plural(data.count, "mined negative")}, `
      + `${plural(positives.length / 4, "positive")}. Green: the annotation.`
      + (chosen === null ? "" : ` White: the one in place ${(chosen + 1).toLocaleString("en")}.`);
  }
}
