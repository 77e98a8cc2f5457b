// A cascade's boxes, stage by stage.

const STAGE_COLOURS = ["#c79bff", "#ff9a55", "#ffe14a", "#5cbcff", "#5fd088", "#ff8fcb"];

function buildStages(view, data) {
  const [left, right] = columns(view);
  const colour = (i) => STAGE_COLOURS[i % STAGE_COLOURS.length];
  const whole = DATA.objects.length > 0;
  let chosen = state.detection || 0;
  const scene = new Scene(left, "A detection's box at each stage; arrow keys step on.", draw,
    { key: (dx, dy) => step(dx + dy) });
  const marks = data.titles.map((title, i) => [colour(i), title, i ? "" : "dotted"]);
  if (whole) marks.push([COLOURS.object, "the object it lies nearest to", "dashed"]);
  legend(left, marks);
  const list = radios(right, plural(data.detections.length, "detection"), detectionRows(), chosen,
    (i) => { set("object", null); set("detection", i); }, true);
  const said = el("div", { className: "story", "aria-live": "polite" });
  view.append(said);
  on("detection", (i) => { list.select(i); show(i); });
  show(chosen);

  function step(by) {
    set("object", null);
    set("detection", Math.max(0, Math.min(chosen + by, data.detections.length - 1)));
  }

  function show(i) {
    chosen = i;
    const one = data.detections[i];
    const every = one.object ? [...one.boxes, one.object] : one.boxes;
    const [x1, y1] = [0, 1].map((k) => Math.min(...every.map((box) => box[k])));
    const [x2, y2] = [2, 3].map((k) => Math.max(...every.map((box) => box[k])));
    const room = 0.35 * Math.max(x2 - x1, y2 - y1) + 4;
    scene.look([Math.max(0, x1 - room), Math.max(0, y1 - room), Math.min(WIDTH, x2 + room),
      Math.min(HEIGHT, y2 + room)]);
    const rows = one.boxes.map((box, k) => {
      const cells = [data.titles[k], size(box), one.scores[k] === null ? "" : share(one.scores[k]),
        k ? moved(one.boxes[k - 1], box) : ""];
      return one.iou ? [...cells, one.iou[k].toFixed(3)] : cells;
    });
    const heads = ["", "size", "score", "corners moved, pixels"];
    replace(said, table(`Detection ${i} at each stage`,
      one.iou ? [...heads, "IoU with the object"] : heads, rows));
  }

  function moved(before, after) { // the mean over its two corners
    const [a, b] = [0, 2].map((k) => Math.hypot(after[k] - before[k], after[k + 1] - before[k + 1]));
    return ((a + b) / 2).toFixed(1);
  }

  function draw(context, unit) {
    drawPhoto(context, 0.15);
    const one = data.detections[chosen];
    if (one.object) drawBox(context, unit, one.object, COLOURS.object, { width: 2, dash: [6, 4] });
    one.boxes.forEach((box, k) => {
      const last = k === one.boxes.length - 1;
      drawBox(context, unit, box, colour(k), { width: last ? 3 : 1.8, dash: k ? [] : [2, 3] });
    });
    const first = one.boxes[0], end = one.boxes[one.boxes.length - 1];
    scene.caption.textContent = `Detection ${chosen}: from ${size(first)} to ${size(end)} pixels`
      + (one.iou ? `, IoU with the object ${one.iou[0].toFixed(2)} to ${one.iou.at(-1).toFixed(2)}.` : ".");
  }
}
